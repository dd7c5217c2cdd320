// The map: discs blended into pixels by hand, which draws 100,000 of them in a few milliseconds
// without WebGL; pan, zoom, hover, choose.
const VIEW = { scale: 1, x: 0, y: 0 };
const MAP = { canvas: null, colouring: null, category: null, ranks: null, colours: null, chosen: -1, pictures: false, drawn: 0 };
const GREY = [136, 136, 136];
const rgbOf = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// The pixels of a mark and how much of each it covers; drawn once for each size.
const masks = new Map();
function maskOf(shape, radius) {
  const key = `${shape} ${radius}`;
  if (masks.has(key)) return masks.get(key);
  const reach = Math.ceil(radius * 1.35) + 1;
  const side = 2 * reach + 1;
  const canvas = el("canvas", { width: side, height: side });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.beginPath();
  MARKS[shape](context, reach + 0.5, reach + 0.5, radius);
  context.closePath();
  context.fill();
  const pixels = context.getImageData(0, 0, side, side).data;
  const [dx, dy, cover] = [[], [], []];
  for (let at = 0; at < side * side; at += 1) {
    if (pixels[4 * at + 3] < 8) continue;
    dx.push((at % side) - reach);
    dy.push(Math.floor(at / side) - reach);
    cover.push(pixels[4 * at + 3] / 255);
  }
  const made = { dx: Int16Array.from(dx), dy: Int16Array.from(dy), cover: Float32Array.from(cover), reach };
  masks.set(key, made);
  return made;
}

// Squares of the map with their images, to find what lies under the pointer.
const GRID = (() => {
  const side = Math.max(1, Math.min(256, Math.ceil(Math.sqrt(COUNT / 2))));
  const starts = new Uint32Array(side * side + 1);
  const cellOf = (value) => Math.max(0, Math.min(side - 1, Math.floor((value + 0.5) * side)));
  const cells = new Uint32Array(COUNT);
  for (let i = 0; i < COUNT; i += 1) {
    cells[i] = cellOf(AT.points[2 * i + 1]) * side + cellOf(AT.points[2 * i]);
    starts[cells[i] + 1] += 1;
  }
  for (let cell = 0; cell < side * side; cell += 1) starts[cell + 1] += starts[cell];
  const rows = new Uint32Array(COUNT);
  const next = starts.slice();
  for (let i = 0; i < COUNT; i += 1) { rows[next[cells[i]]] = i; next[cells[i]] += 1; }
  return { side, starts, rows, cellOf };
})();

function eachIn(left, top, right, bottom, visit) {
  const [x0, x1, y0, y1] = [left, right, top, bottom].map(GRID.cellOf);
  for (let y = y0; y <= y1; y += 1) {
    for (let at = GRID.starts[y * GRID.side + x0]; at < GRID.starts[y * GRID.side + x1 + 1]; at += 1) visit(GRID.rows[at]);
  }
}

// Between the map (-0.5 to 0.5 along its longer side, y upwards) and CSS pixels of the canvas. The
// axes mean nothing, so they are stretched to fill the canvas, within reason.
const SPAN = (() => {
  const most = [1e-3, 1e-3];
  for (let i = 0; i < 2 * COUNT; i += 1) most[i % 2] = Math.max(most[i % 2], 2 * Math.abs(AT.points[i]));
  return most;
})();
function fit() {
  const own = [(MAP.canvas.clientWidth - 36) / SPAN[0], (MAP.canvas.clientHeight - 36) / SPAN[1]];
  const most = 1.6 * Math.min(...own);
  return own.map((value) => Math.min(value, most) * VIEW.scale);
}
function toScreen(i) {
  const [ux, uy] = fit();
  return [MAP.canvas.clientWidth / 2 + (AT.points[2 * i] - VIEW.x) * ux, MAP.canvas.clientHeight / 2 - (AT.points[2 * i + 1] - VIEW.y) * uy];
}
function toMap(x, y) {
  const [ux, uy] = fit();
  return [VIEW.x + (x - MAP.canvas.clientWidth / 2) / ux, VIEW.y - (y - MAP.canvas.clientHeight / 2) / uy];
}
const radiusNow = () => Math.min(7, Math.max(1.3, 13 / COUNT ** 0.2) * VIEW.scale ** 0.3);

function nearestTo(x, y, reach) {
  const [left, top] = toMap(x - reach, y + reach);
  const [right, bottom] = toMap(x + reach, y - reach);
  let best = -1;
  let least = reach * reach;
  eachIn(left, top, right, bottom, (i) => {
    if (!FILTER.shown[i]) return;
    const [px, py] = toScreen(i);
    const far = (px - x) ** 2 + (py - y) ** 2;
    if (far < least) { least = far; best = i; }
  });
  return best;
}

function chooseColouring(colouring) {
  MAP.colouring = colouring;
  FILTER.picked.clear();
  if (colouring.values) {
    MAP.category = null;
    const sorted = Float32Array.from(colouring.values).sort();
    const [low, high] = [sorted[Math.floor(COUNT * 0.02)], sorted[Math.min(COUNT - 1, Math.ceil(COUNT * 0.98))]];
    MAP.range = [low, high];
    const steps = Array.from({ length: 64 }, (_, k) => viridis(k / 63));
    MAP.paint = (i) => [steps[Math.max(0, Math.min(63, Math.round((63 * (colouring.values[i] - low)) / (high - low || 1))))], 0];
  } else {
    MAP.category = Int32Array.from({ length: COUNT }, (_, i) => colouring.of(i));
    const counts = new Map();
    for (const category of MAP.category) counts.set(category, (counts.get(category) || 0) + 1);
    let named = [...counts.keys()].filter((k) => k >= 0).sort((a, b) => a - b);
    if (named.length > 28) named = named.sort((a, b) => counts.get(b) - counts.get(a) || a - b);
    const twoWay = colouring.name === "neighbours' vote";
    const kinds = new Map(named.slice(0, 28).map((k, rank) => [k, [rgbOf(twoWay ? ["#0072B2", "#D55E00"][k] : seriesColour(rank)), twoWay ? 0 : Math.floor(rank / PALETTE.length) % MARKS.length]]));
    MAP.legend = { counts, named, kinds };
    MAP.paint = (i) => kinds.get(MAP.category[i]) || [GREY, 0];
  }
  MAP.colours = new Uint8Array(3 * COUNT);
  MAP.shapes = new Uint8Array(COUNT);
  for (let i = 0; i < COUNT; i += 1) {
    const [rgb, shape] = MAP.paint(i);
    MAP.colours.set(rgb, 3 * i);
    MAP.shapes[i] = shape;
  }
}

function drawPoints(pixels, width, height, dense, ground) {
  const radius = Math.round(radiusNow() * dense * 4) / 4;
  const marks = MARKS.map((_, shape) => maskOf(shape, radius));
  const [ux, uy] = fit().map((value) => value * dense);
  const small = radius < 2 * dense; // too small to tell shapes apart: discs are cheaper
  const data = pixels.data;
  const put = (i, strength) => {
    const cx = Math.round(width / 2 + (AT.points[2 * i] - VIEW.x) * ux);
    const cy = Math.round(height / 2 - (AT.points[2 * i + 1] - VIEW.y) * uy);
    const mask = marks[small ? 0 : MAP.shapes[i]];
    if (cx < -mask.reach || cy < -mask.reach || cx >= width + mask.reach || cy >= height + mask.reach) return;
    const [r, g, b] = strength < 0.3 ? GREY : [MAP.colours[3 * i], MAP.colours[3 * i + 1], MAP.colours[3 * i + 2]];
    for (let k = 0; k < mask.dx.length; k += 1) {
      const [x, y] = [cx + mask.dx[k], cy + mask.dy[k]];
      if (x < 0 || y < 0 || x >= width || y >= height) continue;
      const at = 4 * (y * width + x);
      const share = mask.cover[k] * strength;
      data[at] += (r - data[at]) * share;
      data[at + 1] += (g - data[at + 1]) * share;
      data[at + 2] += (b - data[at + 2]) * share;
    }
  };
  for (let at = 0; at < data.length; at += 4) { data[at] = ground[0]; data[at + 1] = ground[1]; data[at + 2] = ground[2]; data[at + 3] = 255; }
  // What is filtered out lies below, faint.
  if (FILTER.count < COUNT) for (let i = 0; i < COUNT; i += 1) if (!FILTER.shown[i]) put(i, 0.16);
  for (let i = 0; i < COUNT; i += 1) if (FILTER.shown[i]) put(i, 0.8);
}

// At most one thumbnail in each square of the canvas; returns false where too many sheets are needed.
function drawPictures(context) {
  const cell = MAP.canvas.clientWidth < 600 ? 40 : 52;
  const taken = new Map();
  const [[ux, uy], width, height] = [fit(), MAP.canvas.clientWidth, MAP.canvas.clientHeight];
  for (let i = 0; i < COUNT; i += 1) {
    if (!FILTER.shown[i] || !AT.size[2 * i]) continue;
    const [x, y] = [width / 2 + (AT.points[2 * i] - VIEW.x) * ux, height / 2 - (AT.points[2 * i + 1] - VIEW.y) * uy];
    if (x < 0 || y < 0 || x > width || y > height) continue;
    const key = Math.floor(y / cell) * 1000 + Math.floor(x / cell);
    if (!taken.has(key)) taken.set(key, i);
  }
  const sheets = new Set([...taken.values()].map(sheetOf));
  if (sheets.size > MOST_SHEETS) return false;
  for (const number of sheets) {
    const sheet = openSheet(number);
    if (!sheet.ready) sheet.loaded.then(() => redrawMap()).catch(() => {});
  }
  for (const [key, i] of taken) {
    const sheet = SHEETS.get(sheetOf(i));
    if (!sheet || !sheet.ready) continue;
    const [x, y] = [(key % 1000) * cell, Math.floor(key / 1000) * cell];
    context.fillStyle = css([MAP.colours[3 * i], MAP.colours[3 * i + 1], MAP.colours[3 * i + 2]]);
    context.fillRect(x + 1, y + 1, cell - 2, cell - 2);
    paintThumb(context, i, sheet.image, x + 3, y + 3, cell - 6);
  }
  return true;
}

function drawMap() {
  const canvas = MAP.canvas;
  const started = performance.now();
  const dense = Math.min(devicePixelRatio || 1, 2);
  const [width, height] = [Math.round(canvas.clientWidth * dense), Math.round(canvas.clientHeight * dense)];
  if (!width || !height) return;
  if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; MAP.pixels = null; }
  const context = canvas.getContext("2d");
  MAP.pixels = MAP.pixels || context.createImageData(width, height);
  drawPoints(MAP.pixels, width, height, dense, rgbOf(token("--shade")));
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.putImageData(MAP.pixels, 0, 0);
  context.setTransform(dense, 0, 0, dense, 0, 0);
  MAP.full = MAP.pictures && MAIN.sheet ? drawPictures(context) : null;
  if (MAP.chosen >= 0) drawChosen(context);
  MAP.drawn += 1;
  MAP.took = performance.now() - started;
  canvas.dataset.drawn = String(MAP.drawn);
  showHint();
}

function drawChosen(context) {
  const [x, y] = toScreen(MAP.chosen);
  context.strokeStyle = token("--ink");
  context.lineWidth = 1;
  context.globalAlpha = 0.5;
  for (const other of neighboursOf(MAP.chosen)) {
    context.beginPath();
    context.moveTo(x, y);
    context.lineTo(...toScreen(other));
    context.stroke();
  }
  context.globalAlpha = 1;
  context.lineWidth = 2.5;
  context.beginPath();
  context.arc(x, y, Math.max(9, radiusNow() + 5), 0, 7);
  context.stroke();
}

const neighboursOf = (i) => (LATER.near ? [...LATER.near.subarray(i * LATER.width, (i + 1) * LATER.width)] : []);

function redrawMap() {
  if (MAP.waiting) return;
  MAP.waiting = true;
  requestAnimationFrame(() => { MAP.waiting = false; drawMap(); });
}

function zoomBy(factor, x = MAP.canvas.clientWidth / 2, y = MAP.canvas.clientHeight / 2) {
  const before = toMap(x, y);
  VIEW.scale = Math.max(0.7, Math.min(400, VIEW.scale * factor));
  const after = toMap(x, y);
  VIEW.x += before[0] - after[0];
  VIEW.y += before[1] - after[1];
  redrawMap();
}
function resetView() { Object.assign(VIEW, { scale: 1, x: 0, y: 0 }); redrawMap(); }

// Bring an image into the map's window where it lies outside.
function reveal(i) {
  const [x, y] = toScreen(i);
  if (x < 20 || y < 20 || x > MAP.canvas.clientWidth - 20 || y > MAP.canvas.clientHeight - 20) {
    VIEW.x = AT.points[2 * i];
    VIEW.y = AT.points[2 * i + 1];
  }
}
