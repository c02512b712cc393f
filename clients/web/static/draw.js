'use strict';
// Elements made from what the server says. Text is only ever text: no name of a file or a kernel becomes HTML.

const SVG = 'http://www.w3.org/2000/svg';

function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    made.setAttribute(key, value === true ? '' : String(value));
  }
  for (const child of children) if (child !== null && child !== undefined) made.append(child);
  return made;
}

function svg(name, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, String(value));
  made.append(...children);
  return made;
}

// A button that shows the file behind what it says.
function file(path, text, attributes = {}) {
  return el('button', {type: 'button', class: 'file', 'data-path': path, title: path, ...attributes}, text);
}

function size(bytes) {
  if (bytes === null || bytes === undefined) return '–';
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let at = 0;
  while (bytes >= 1024 && at < units.length - 1) { bytes /= 1024; at += 1; }
  return `${bytes >= 100 || at === 0 ? Math.round(bytes) : bytes.toFixed(1)} ${units[at]}`;
}

function count(number) {
  return number === null || number === undefined ? '–' : number.toLocaleString('en').replaceAll(',', ' ');
}

function span(nanoseconds) {
  if (nanoseconds === null || nanoseconds === undefined) return '–';
  let seconds = Math.floor(nanoseconds / 1e9);
  const days = Math.floor(seconds / 86400), hours = Math.floor(seconds % 86400 / 3600), minutes = Math.floor(seconds % 3600 / 60);
  seconds %= 60;
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${minutes} min`;
  return minutes ? `${minutes} min ${seconds} s` : `${seconds} s`;
}

// A grid of CPUs: how full each is, whether it is isolated or offline (also by its shape, not by colour alone), whose it is.
function cpus(kernel, at, list) {
  const grid = el('ul', {class: 'cpus', 'aria-label': `CPUs of ${kernel}`});
  for (const cpu of list) {
    const load = cpu.load === null ? '' : `, ${cpu.load} % busy`;
    const has = owner(`${at}cpu/${cpu.n}`);
    const says = `CPU ${cpu.n} of ${kernel}: ${cpu.state}${load}, node ${cpu.node}${has && `, leased to ${has}`}`;
    const cell = file(`${at}cpu/${cpu.n}/status`, '', {class: `file cpu ${cpu.state}${has && ' leased'}`, 'aria-label': says, title: says});
    const fill = el('span', {class: 'fill', 'aria-hidden': 'true'});
    fill.style.height = `${cpu.load === null ? 0 : cpu.load}%`;
    cell.append(fill, el('span', {class: 'n', 'aria-hidden': 'true'}, cpu.n));
    grid.append(el('li', {}, cell));
  }
  return grid;
}

function memory(kernel, at, told) {
  if (!told.total) return null;
  const used = told.total - (told.available || 0), says = `${size(used)} of ${size(told.total)} in use`;
  const meter = el('meter', {min: 0, max: told.total, value: used, high: told.total * 0.9, 'aria-label': `Memory of ${kernel}: ${says}`});
  return el('p', {class: 'memory'}, file(`${at}mem/status`, 'Memory'), ' ', meter, ' ', says);
}

function devices(list) {
  if (!list || !list.length) return null;
  const buses = new Map();
  for (const each of list) buses.set(each.bus, [...(buses.get(each.bus) || []), each]);
  const rows = [...buses].map(([bus, some]) =>
    el('li', {}, `${bus} `, ...some.flatMap(each => [file(each.path, each.name), owner(each.path) && ` (leased to ${owner(each.path)})`, ' '])));
  return el('details', {}, el('summary', {}, `Devices (${list.length})`), el('ul', {class: 'devices'}, ...rows));
}

function kernel(name, told, life) {
  const at = told.at || `/k/${name}/`, head = el('h3', {id: `kernel-${name}`}, file(`${at}status`, name));
  const state = life && told.state === 'down' ? life.state : told.state, age = told.age ? ` for ${told.age} s` : '';
  const card = el('article', {class: `kernel ${told.state}`, 'aria-labelledby': `kernel-${name}`}, head,
    el('p', {class: 'state'}, el('strong', {}, `${state}${age}`), told.reason ? ` ${told.reason}` : ''));
  if (told.release) {
    card.append(el('p', {}, `Linux ${told.release} ${told.arch}, up ${span(told.up)}, load ${told.load || '–'}`));
    if (told.cpus.length) card.append(el('p', {}, file(`${at}cpu/status`, 'CPUs'), ' ', file(`${at}cpu/ctl`, 'ctl')), cpus(name, at, told.cpus));
    const leased = told.cpus.filter(cpu => owner(`${at}cpu/${cpu.n}`)).map(cpu => `CPU ${cpu.n} to ${owner(`${at}cpu/${cpu.n}`)}`);
    if (leased.length) card.append(el('p', {}, `Leased: ${leased.join(', ')}`));
    const mem = memory(name, at, told.memory);
    if (mem) card.append(mem);
    const dev = devices(told.devices);
    if (dev) card.append(dev);
    if (told.rates && told.rates.ops !== null && told.rates.ops !== undefined) card.append(el('p', {}, file(`${at}stats/status`, 'Requests'),
      ` ${count(told.rates.ops)}/s, ${size(told.rates.in_bytes)}/s in, ${size(told.rates.out_bytes)}/s out`));
  }
  if (life) {
    const given = life.given.map(line => el('li', {}, line));
    if (life.reason) card.append(el('p', {}, `It ended ${life.ends} times, the last time: ${life.reason}`));
    card.append(el('p', {}, file(life.path, `${life.state}: ${life.backend} ${life.kernel}`), ' ',
      file(life.path.replace(/status$/, 'ctl'), 'ctl'), ' ', el('a', {href: `/console?kernel=${encodeURIComponent(name)}`}, 'console'), ' ', file(life.path.replace(/status$/, 'config'), 'config')));
    if (given.length) card.append(el('details', {}, el('summary', {}, 'What it was given'), el('ul', {}, ...given)));
  }
  return card;
}

// Servers to the left, paths to the right, a line for each mount; a bind goes from a path to a path.
function picture(table) {
  if (!table.length) return el('p', {}, 'Nothing is mounted.');
  const left = [...new Set(table.map(each => each.what))], right = [...new Set(table.map(each => each.at))];
  const row = 28, width = 700, height = row * Math.max(left.length, right.length) + 10;
  const short = text => text.length > 38 ? `…${text.slice(-37)}` : text;
  const y = (list, item) => 22 + row * list.indexOf(item);
  const drawn = svg('svg', {viewBox: `0 0 ${width} ${height}`, role: 'img', 'aria-label': `${table.length} mounts and binds; the table below has them all`});
  for (const each of table) {
    const from = y(left, each.what) - 5, to = y(right, each.at) - 5;
    drawn.append(svg('path', {class: each.kind, d: `M 320 ${from} C 360 ${from} 360 ${to} 400 ${to}`}));
  }
  for (const item of left) drawn.append(svg('text', {x: 312, y: y(left, item), 'text-anchor': 'end'}, short(item)));
  for (const item of right) {
    const text = svg('text', {x: 408, y: y(right, item), class: 'file', 'data-path': item}, short(item));
    drawn.append(text);
  }
  return drawn;
}

function table(heads, rows, caption) {
  const head = el('tr', {}, ...heads.map(text => el('th', {scope: 'col'}, text)));
  const body = rows.map(cells => el('tr', {}, ...cells.map(cell => el('td', {}, cell))));
  return el('div', {class: 'scroll', tabindex: '0', role: 'region', 'aria-label': caption},
    el('table', {}, el('caption', {}, caption), el('thead', {}, head), el('tbody', {}, ...body)));
}
