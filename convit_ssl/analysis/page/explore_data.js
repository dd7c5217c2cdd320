// Packed arrays, names and thumbnails of the images; and which of them are shown.
const MAIN = window.exploreParts.main;
const TYPES = { float32: Float32Array, uint8: Uint8Array, int16: Int16Array, int32: Int32Array, uint32: Uint32Array };

function unpack(packed) {
  const text = atob(packed.data);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i += 1) bytes[i] = text.charCodeAt(i);
  return new TYPES[packed.type](bytes.buffer);
}
const unpackAll = (arrays) => Object.fromEntries(Object.entries(arrays).map(([name, packed]) => [name, unpack(packed)]));

const COUNT = MAIN ? MAIN.images : 0;
const AT = MAIN ? unpackAll(MAIN.arrays) : {};
// Names and neighbours are many megabytes: they come after the map is drawn.
const LATER = { names: null, root: "", near: null, similarity: null, width: 0 };

function loadLater(done) {
  const script = el("script", { src: "neighbours.js" });
  script.addEventListener("load", () => {
    const later = window.exploreParts.later;
    Object.assign(LATER, { names: later.names, root: later.root }, unpackAll(later.arrays));
    LATER.width = LATER.near.length / COUNT;
    done();
  });
  script.addEventListener("error", () => say("neighbours.js is missing beside this page."));
  document.body.append(script);
}

const say = (text) => { document.getElementById("said").textContent = text; };
const pathOf = (i) => (LATER.names ? LATER.root + LATER.names[i] : `image ${i + 1}`);
const shortOf = (i) => pathOf(i).split("/").pop();
const labelOf = (i) => (AT.target[i] >= 0 ? MAIN.classes[AT.target[i]] : "");
const groupOf = (i) => (AT.group[i] >= 0 ? MAIN.groups[AT.group[i]] : "");
const clusterOf = (i) => (AT.cluster[i] >= 0 ? `${AT.cluster[i] + 1}` : "");
const guessOf = (i) => (AT.guess && AT.guess[i] >= 0 ? MAIN.classes[AT.guess[i]] : "");
const whole = (number) => number.toLocaleString("en");
const images = (number) => `${whole(number)} image${number === 1 ? "" : "s"}`;
const fileUrl = (path) => `file://${path.split("/").map(encodeURIComponent).join("/")}`;

// Thumbnails: a few sheets at a time, those used last.
const SHEETS = new Map();
const MOST_SHEETS = 24;
const sheetOf = (i) => Math.floor(AT.spot[i] / MAIN.sheet.count);

function openSheet(number) {
  let sheet = SHEETS.get(number);
  if (sheet) SHEETS.delete(number);
  else {
    const image = new Image();
    image.src = `${MAIN.sheet.folder}/${number}.jpg`;
    sheet = { image, ready: false };
    sheet.loaded = image.decode().then(() => { sheet.ready = true; return image; });
    sheet.loaded.catch(() => {});
  }
  SHEETS.set(number, sheet);
  if (SHEETS.size > MOST_SHEETS) SHEETS.delete(SHEETS.keys().next().value);
  return sheet;
}

function paintThumb(context, i, image, x, y, side) {
  const { side: cell, row, count } = MAIN.sheet;
  const at = AT.spot[i] % count;
  const [w, h] = [AT.size[2 * i], AT.size[2 * i + 1]];
  const scale = side / cell;
  context.drawImage(image, (at % row) * cell, Math.floor(at / row) * cell, w, h, x + ((cell - w) * scale) / 2, y + ((cell - h) * scale) / 2, w * scale, h * scale);
}

function drawInto(canvas, i) {
  if (!MAIN.sheet || !AT.size[2 * i]) { canvas.title = "no picture"; return; }
  openSheet(sheetOf(i)).loaded.then((image) => {
    canvas.width = canvas.height = MAIN.sheet.side;
    paintThumb(canvas.getContext("2d"), i, image, 0, 0, MAIN.sheet.side);
  }).catch(() => { canvas.title = "thumbnails are missing beside this page"; });
}

const watching = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    watching.unobserve(entry.target);
    drawInto(entry.target, entry.target.row);
  }
}, { rootMargin: "200px" });

// A thumbnail that is loaded when it comes near the window.
function thumb(i) {
  const canvas = el("canvas", { "aria-hidden": true, width: 1, height: 1 });
  canvas.row = i;
  watching.observe(canvas);
  return canvas;
}

// What can be shown by colour: a category for each image, or a number.
const UNIQUE = (count) => Array.from({ length: count }, (_, i) => i);
function colourings() {
  const found = [];
  const add = (name, of, names, none) => found.push({ name, of, names, none });
  if (MAIN.classes.length) add("label", (i) => AT.target[i], MAIN.classes, "no label");
  add("cluster", (i) => AT.cluster[i], UNIQUE(MAIN.examples.length).map((k) => `cluster ${k + 1}`), "in no cluster");
  if (MAIN.groups.length) add("group", (i) => AT.group[i], MAIN.groups, "no group");
  if (AT.guess) {
    add("neighbours' vote", (i) => (AT.guess[i] < 0 || AT.target[i] < 0 ? -1 : AT.guess[i] === AT.target[i] ? 0 : 1), ["agrees with the label", "contradicts the label"], "no label, or no vote");
    if (MAIN.to_label.length) add("predicted label", (i) => AT.guess[i], MAIN.classes, "no vote");
  }
  if (MAIN.parts.length > 1) add("part", (i) => AT.part[i], MAIN.parts, "");
  found.push({ name: "outlier score", values: AT.outlier });
  return found;
}

const FILTER = { text: "", picked: new Set(), shown: new Uint8Array(COUNT).fill(1), count: COUNT, listeners: [] };
function applyFilter(category) {
  const text = FILTER.text.trim().toLowerCase();
  FILTER.count = 0;
  for (let i = 0; i < COUNT; i += 1) {
    const keep = (!FILTER.picked.size || !category || FILTER.picked.has(category[i])) && (!text || pathOf(i).toLowerCase().includes(text));
    FILTER.shown[i] = keep ? 1 : 0;
    FILTER.count += FILTER.shown[i];
  }
  for (const listener of FILTER.listeners) listener();
}
