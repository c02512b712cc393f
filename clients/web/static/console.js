'use strict';
// A kernel's console: what it said and says, and what is typed here if the page may write. With xterm.js where it was built in, else as plain text.

const at = id => document.getElementById(id);
const meta = name => document.querySelector(`meta[name=mk9p-${name}]`).content;
const NAME = meta('kernel'), WRITE = meta('write') === 'yes', KEPT = 200000;
const ESCAPES = /\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])|[\x00-\x07\x0b-\x1f]/g;

document.title = `${NAME} console`;
at('name').textContent = NAME;

function plain() {
  const decoder = new TextDecoder();
  at('plain').hidden = false;
  at('terminal').hidden = true;
  at('type').hidden = !WRITE;
  at('type').addEventListener('submit', event => {
    event.preventDefault();
    type(`${at('line').value}\r`);
    at('line').value = '';
  });
  return bytes => {
    const end = at('plain').scrollTop + at('plain').clientHeight >= at('plain').scrollHeight - 4;
    at('plain').textContent = (at('plain').textContent + decoder.decode(bytes, {stream: true}).replace(ESCAPES, '')).slice(-KEPT);
    if (end) at('plain').scrollTop = at('plain').scrollHeight;
  };
}

function terminal() {
  const shown = new Terminal({disableStdin: !WRITE, scrollback: 5000, screenReaderMode: true, fontSize: 14});
  shown.open(at('terminal'));
  if (WRITE) { shown.onData(type); shown.focus(); }
  return bytes => shown.write(bytes);
}

// One after the other: what is typed arrives in its order.
let sent = Promise.resolve();
function type(text) {
  sent = sent.then(async () => {
    const answer = await fetch('/type', {
      method: 'POST', headers: {'content-type': 'application/json', 'x-mk9p': meta('mark')}, body: JSON.stringify({kernel: NAME, text}),
    });
    if (!answer.ok) at('state').textContent = await answer.text();
  }).catch(error => { at('state').textContent = String(error); });
}

const show = typeof Terminal === 'undefined' ? plain() : terminal();
const stream = new EventSource(`/console/stream?kernel=${encodeURIComponent(NAME)}`);
stream.addEventListener('open', () => { at('state').textContent = WRITE ? 'what you type goes to it' : 'read-only'; });
stream.addEventListener('data', message => show(Uint8Array.from(atob(message.data), c => c.charCodeAt(0))));
stream.addEventListener('end', message => { at('state').textContent = JSON.parse(message.data); stream.close(); });
stream.addEventListener('error', () => { if (stream.readyState === EventSource.CLOSED) at('state').textContent = 'it cannot be opened'; });
