// What the page shows, as shapes: it runs in the page, and gives [kind, attributes, colours by property, text] for each, in the order of painting.
() => {
  const shapes = [], pen = document.createElement('canvas').getContext('2d');
  const round = number => Math.round(number * 10) / 10;
  const solid = colour => !/^rgba\(.*, 0\)$|^transparent$/.test(colour);
  const box = (r, more, colours) => shapes.push(['rect', {x: round(r.x), y: round(r.y + scrollY), width: round(r.width), height: round(r.height), ...more}, colours, '']);

  function corner(element, r) {
    // what fills a round element is cut off at its edge
    const cut = getComputedStyle(element.parentElement), own = getComputedStyle(element).borderTopLeftRadius;
    const radius = own === '0px' && cut.overflow === 'hidden' ? cut.borderTopLeftRadius : own;
    return radius.endsWith('%') ? Math.min(r.width, r.height) / 2 : parseFloat(radius);
  }

  function frame(element, style, r) {
    const width = parseFloat(style.borderTopWidth), left = parseFloat(style.borderLeftWidth);
    const radius = corner(element, r), colours = {};
    if (solid(style.backgroundColor)) colours.fill = style.backgroundColor;
    if (width && style.borderTopStyle !== 'none') colours.stroke = style.borderTopColor;
    if (Object.keys(colours).length && r.width && r.height) {
      const inside = colours.stroke ? width / 2 : 0, more = {};
      if (radius) more.rx = round(radius);
      if (colours.stroke) more['stroke-width'] = width;
      if (style.borderTopStyle === 'dashed') more['stroke-dasharray'] = '3 3';
      if (style.opacity !== '1') more.opacity = style.opacity;
      box({x: r.x + inside, y: r.y + inside, width: r.width - 2 * inside, height: r.height - 2 * inside}, more, colours);
      if (left > width) box({x: r.x, y: r.y, width: left, height: r.height}, {rx: 2}, {fill: style.borderLeftColor});
    } else if (!width && parseFloat(style.borderBottomWidth)) {
      box({x: r.x, y: r.bottom - 1, width: r.width, height: 1}, {}, {fill: style.borderBottomColor});
    }
  }

  function words(node, style, fill) {
    // a line of text is what stands at one height
    const range = document.createRange(), text = node.textContent;
    let line = null;
    const end = () => { if (line && line.text.trim()) shapes.push(['text', {
      x: round(line.left), y: round(line.base + scrollY), 'font-size': round(parseFloat(style.fontSize) * line.scale), textLength: round(line.right - line.left),
      ...(parseInt(style.fontWeight) > 500 ? {'font-weight': 600} : {}), ...(style.textDecorationLine.includes('underline') ? {'text-decoration': 'underline'} : {}),
    }, {fill}, line.text.trimEnd()]); line = null; };
    pen.font = `${style.fontWeight} ${style.fontSize} ${style.fontFamily}`;
    const metric = pen.measureText('x'), high = metric.fontBoundingBoxAscent + metric.fontBoundingBoxDescent;
    for (const piece of text.matchAll(/\S+\s?/g)) {
      range.setStart(node, piece.index);
      range.setEnd(node, piece.index + piece[0].trimEnd().length);
      const r = range.getClientRects()[0];
      if (!r || !r.width) continue;
      if (line && Math.abs(line.top - r.top) > 2) end();
      const scale = node.parentElement.closest('svg') ? r.height / high : 1;
      if (!line) line = {text: '', left: r.left, top: r.top, scale, base: r.top + (r.height - high * scale) / 2 + metric.fontBoundingBoxAscent * scale};
      line.text += piece[0].replace(/\s+/g, ' ');
      line.right = r.right;
    }
    end();
  }

  function walk(element) {
    const style = getComputedStyle(element), r = element.getBoundingClientRect();
    if (element.tagName === 'DIALOG' || !element.checkVisibility() || r.right < 0) return;
    if (element.tagName === 'METER') {
      box(r, {rx: 3}, {fill: getComputedStyle(document.documentElement).getPropertyValue('--line')});
      box({x: r.x, y: r.y, width: r.width * element.value / element.max, height: r.height}, {rx: 3}, {fill: getComputedStyle(document.documentElement).getPropertyValue('--full')});
      return;
    }
    if (element.tagName === 'path') {
      const m = element.getScreenCTM();
      const more = {d: element.getAttribute('d'), transform: `matrix(${[m.a, m.b, m.c, m.d, m.e, m.f + scrollY].map(number => Math.round(number * 1000) / 1000).join(' ')})`};
      if (style.strokeDasharray !== 'none') more['stroke-dasharray'] = '5 4';
      shapes.push(['path', {...more, 'stroke-width': 2}, {stroke: style.stroke}, '']);
      return;
    }
    if (element !== document.body) frame(element, style, r);
    const fill = element.closest('svg') ? style.fill : style.color;
    for (const child of element.childNodes) {
      if (child.nodeType === Node.TEXT_NODE) words(child, style, fill);
      else if (child.nodeType === Node.ELEMENT_NODE) walk(child);
    }
  }
  walk(document.body);
  return {shapes, ground: getComputedStyle(document.body).backgroundColor, height: Math.ceil(document.querySelector('#mounts').getBoundingClientRect().bottom + scrollY + 16)};
}
