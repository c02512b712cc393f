'use strict';
// What the page does: it takes sections of the picture as they come, and shows the file behind what is clicked.

const at = id => document.getElementById(id);
const meta = name => document.querySelector(`meta[name=mk9p-${name}]`).content;
const WRITE = meta('write') === 'yes', LINES = 200;
const known = {names: [], kernels: new Map(), lives: {}, leased: new Map()}, cards = new Map();

// Replace what is inside an element, but leave the keyboard, open details and scroll where they are.
function fill(holder, ...children) {
  const active = document.activeElement, path = holder.contains(active) ? active.dataset.path : null;
  const open = new Set([...holder.querySelectorAll('details[open]')].map(key));
  const scrolled = [...holder.querySelectorAll('.scroll')].map(each => each.scrollLeft);
  holder.replaceChildren(...children);
  for (const each of holder.querySelectorAll('details')) if (open.has(key(each))) each.open = true;
  holder.querySelectorAll('.scroll').forEach((each, n) => { each.scrollLeft = scrolled[n] || 0; });
  if (path) holder.querySelector(`[data-path="${CSS.escape(path)}"]`)?.focus();
}

function key(details) {
  return `${details.closest('article')?.getAttribute('aria-labelledby')} ${details.querySelector('summary').textContent.replace(/\d+/g, '')}`;
}

// A holder for each kernel, in order; what is in it is drawn when something about that kernel has changed.
function showNames() {
  const names = [...new Set([...known.names, ...Object.keys(known.lives)])].sort((a, b) => a.localeCompare(b, 'en', {numeric: true}));
  if (names.join('\n') === [...cards.keys()].join('\n')) return;
  const holders = names.map(name => [name, cards.get(name) || el('div', {class: 'holder'})]);
  cards.clear();
  for (const [name, holder] of holders) cards.set(name, holder);
  fill(at('kernel-list'), ...(names.length ? cards.values() : [el('p', {}, 'No kernel yet.')]));
  for (const [name, holder] of cards) if (!holder.children.length) showKernel(name);
}

function showKernel(name) {
  const life = known.lives[name], holder = cards.get(name);
  if (holder) fill(holder, kernel(name, known.kernels.get(name) || {state: life ? life.state : 'asked'}, life));
}

// Whoever has a lease of a path, or of a directory that it is in; '' if nobody has.
function owner(path) {
  for (let at = path; at; at = at.slice(0, at.lastIndexOf('/'))) if (known.leased.has(at)) return known.leased.get(at);
  return '';
}

const take = {
  server(told) {
    const who = told.who ? ` as ${told.who}` : '';
    at('server').textContent = told.up ? `${told.address}${who}${WRITE ? '' : ', read-only'}` : `${told.address} is away: ${told.reason}`;
    document.body.classList.toggle('away', !told.up);
  },
  kernels(told) { known.names = told; showNames(); },
  kernel(told) { known.kernels.set(told.name, told); showKernel(told.name); },
  lives(told) {
    const before = known.lives;
    known.lives = told;
    showNames();
    for (const name of cards.keys()) if (JSON.stringify(before[name]) !== JSON.stringify(told[name])) showKernel(name);
  },
  pool(told) {
    const some = Object.keys(told).length;
    fill(at('pool-body'), some ? el('p', {}, file('/kernels/pool/status', 'Pool'), ` CPUs ${told.cpus || 'none'}, memory ${size(Number(told.memory))}, devices ${told.devices || 'none'} `,
      file('/kernels/pool/ctl', 'ctl')) : el('p', {}, 'There is no pool.'));
  },
  leases(told) {
    const before = known.leased;
    known.leased = new Map(told.filter(each => each.state === 'held').map(each => [each.path, each.holder]));
    // /k/NAME/...: those kernels are drawn anew
    for (const name of new Set([...before.keys(), ...known.leased.keys()].map(path => path.split('/')[2]))) if (cards.has(name)) showKernel(name);
    fill(at('lease-body'), told.length ? table(['path', 'mode', 'state', 'holder', 'until'], told.map(each =>
      [file(`/lease/${each.n}/status`, each.path), each.mode, each.state, each.holder, until(each.until)]), 'Leases') : el('p', {}, 'No lease.'));
  },
  mounts(told) {
    fill(at('picture'), picture(told));
    fill(at('mount-table'), table(['', 'what', 'at', 'flags'],
      told.map(each => [each.kind, each.what, file(each.at, each.at), each.flags]), 'Mounts and binds'));
  },
  traffic(told) {
    const counts = told.counts, rates = told.rates;
    fill(at('traffic-body'),
      el('p', {}, file('/stats/status', 'This server'), ` ${count(counts.connections)} connections, ${count(rates.ops)} requests/s, ${count(rates.errors)} errors/s, `,
        `${size(rates.in_bytes)}/s in, ${size(rates.out_bytes)}/s out`),
      el('p', {}, file('/stats/latency', 'Latency'), ' ', file('/stats/clients', 'clients')),
      table(['message', 'count', 'errors', 'half within', '99 of 100 within'],
        told.messages.map(row => [row.name, count(row.count), count(row.errors), micro(row.p50), micro(row.p99)]), 'Requests by kind'));
  },
  line(told) {
    const list = at('event-list'), [seq, time, ...rest] = told.text.split(' ');
    const when = /^\d+$/.test(time) ? new Date(Number(time.slice(0, -6))) : null;
    const end = list.scrollTop + list.clientHeight >= list.scrollHeight - 4;
    list.append(el('li', {'data-seq': seq}, el('time', when ? {datetime: when.toISOString()} : {}, when ? when.toLocaleTimeString() : time), ' ',
      file(told.path, told.from), ` ${rest.join(' ')}`));
    while (list.children.length > LINES) list.firstElementChild.remove();
    if (end) list.scrollTop = list.scrollHeight;
  },
};

function until(nanoseconds) {
  return /^\d+$/.test(nanoseconds) ? new Date(Number(nanoseconds.slice(0, -6))).toLocaleTimeString() : '–';
}

function micro(nanoseconds) {
  const number = Number(nanoseconds);
  return Number.isFinite(number) ? `${number >= 1e6 ? (number / 1e6).toFixed(1) + ' ms' : Math.round(number / 1000) + ' us'}` : '–';
}

const stream = new EventSource('/events');
for (const kind of Object.keys(take)) stream.addEventListener(kind, message => take[kind](JSON.parse(message.data)));
stream.addEventListener('open', () => at('event-list').replaceChildren());
stream.addEventListener('error', () => { at('server').textContent = '`mk9p web` is away; this page tries again'; document.body.classList.add('away'); });

// The file behind what is seen

let shown = '';

async function open(path) {
  const dialog = at('file');
  shown = path;
  at('file-path').textContent = path;
  at('file-note').textContent = 'reading';
  at('said').textContent = '';
  if (!dialog.open) dialog.showModal();
  const late = setTimeout(() => {
    if (shown === path) at('file-note').textContent = 'no answer yet: the server is slow, or an operator must allow it (auth/confirm)';
  }, 3000);
  let told;
  try {
    const answer = await fetch(`/file?path=${encodeURIComponent(path)}`);
    try { told = await answer.json(); } catch { told = {error: `answer ${answer.status}`}; }
  } catch { told = {error: 'mk9p web does not answer'}; }
  clearTimeout(late);
  if (shown !== path) return;
  at('file-note').textContent = told.error || told.note || '';
  const entries = (told.entries || []).map(each =>
    el('li', {}, file(`${path.replace(/\/$/, '')}/${each.name}`, each.name + (each.directory ? '/' : ''))));
  at('file-content').replaceChildren(told.kind === 'directory' ? el('ul', {class: 'entries'}, ...entries) : el('pre', {tabindex: '0'}, told.text || ''));
  at('file-manual').textContent = told.manual || 'The manual has nothing about this path.';
  at('say').hidden = !told.ctl;
  for (const control of at('say').querySelectorAll('input, button')) control.disabled = !WRITE;
  if (told.ctl && !WRITE) at('said').textContent = 'This page is read-only: start it with mk9p web --write';
  at('usages').replaceChildren(...(told.words || []).map(word =>
    el('li', {}, el('button', {type: 'button', class: 'usage', disabled: !WRITE}, word.usage), ` ${word.what}`)));
}

document.addEventListener('click', event => {
  const target = event.target.closest('[data-path]');
  if (target) open(target.dataset.path);
  const usage = event.target.closest('.usage');
  if (usage) { at('words').value = usage.textContent.split(' ')[0] + ' '; at('words').focus(); }
});
at('file-close').addEventListener('click', () => at('file').close());
at('file-again').addEventListener('click', () => open(shown));
at('go').addEventListener('submit', event => { event.preventDefault(); open(at('path').value || '/'); });
at('say').addEventListener('submit', async event => {
  event.preventDefault();
  const path = shown, words = at('words').value.trim();
  if (!words) return;
  const answer = await fetch('/say', {
    method: 'POST', headers: {'content-type': 'application/json', 'x-mk9p': meta('mark')}, body: JSON.stringify({path, words}),
  });
  let told;
  try { told = await answer.json(); } catch { told = {error: `answer ${answer.status}`}; }
  if (shown !== path) return;
  if (!told.error) { at('words').value = ''; await open(path); }
  at('said').textContent = told.error || `written: ${words}`;
});
