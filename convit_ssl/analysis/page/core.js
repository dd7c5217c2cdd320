// Small things that all parts of the page use.
const DATA = JSON.parse(document.getElementById("data").textContent);
const RUNS = DATA.runs || [];
const PALETTE = DATA.palette;
const STOPS = DATA.viridis;
const DASHES = ["", "6 3", "2 3", "8 3 2 3"];
const SVG = "http://www.w3.org/2000/svg";

// Text always goes in as text: names come from folders and files.
function el(tag, attributes = {}, ...children) {
  const svg = ["svg", "path", "line", "rect", "circle", "g", "text", "polygon", "title"].includes(tag);
  const node = svg ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat()) if (child !== null && child !== undefined) node.append(child);
  return node;
}

function viridis(value) {
  const place = Math.min(Math.max(value, 0), 1) * (STOPS.length - 1);
  const low = Math.min(Math.floor(place), STOPS.length - 2);
  const part = place - low;
  return STOPS[low].map((channel, i) => Math.round(channel * (1 - part) + STOPS[low + 1][i] * part));
}
const css = (rgb) => `rgb(${rgb[0]},${rgb[1]},${rgb[2]})`;
// Black or white, whichever has the larger WCAG contrast: at least 4.5 on any ground.
const luminance = (rgb) => rgb.map((channel) => channel / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const inkOn = (rgb) => (luminance(rgb) > 0.179 ? "#000" : "#fff");
// Lifted towards white on dark ground, where the low end of viridis would be lost.
const layerColour = (layer, layers) => `color-mix(in srgb, ${css(viridis((0.85 * layer) / Math.max(layers - 1, 1)))}, white var(--lift))`;
const seriesColour = (index) => PALETTE[index % PALETTE.length];
const seriesDash = (index) => DASHES[Math.floor(index / PALETTE.length) % DASHES.length];
// Runs often lie on top of each other, so each has a dash of its own from the first.
const runDash = (index) => DASHES[index % DASHES.length];
// Seven colours in four shapes tell 28 classes apart.
const MARKS = [
  (c, x, y, r) => c.arc(x, y, r, 0, 7),
  (c, x, y, r) => c.rect(x - r * 0.9, y - r * 0.9, r * 1.8, r * 1.8),
  (c, x, y, r) => { c.moveTo(x, y - r * 1.2); c.lineTo(x + r * 1.1, y + r * 0.8); c.lineTo(x - r * 1.1, y + r * 0.8); },
  (c, x, y, r) => { c.moveTo(x, y - r * 1.3); c.lineTo(x + r * 1.3, y); c.lineTo(x, y + r * 1.3); c.lineTo(x - r * 1.3, y); },
];
const markOf = (target) => MARKS[Math.floor(target / PALETTE.length) % MARKS.length];
const mean = (values) => {
  const known = values.filter((value) => value !== null && Number.isFinite(value));
  return known.length ? known.reduce((a, b) => a + b, 0) / known.length : null;
};

function format(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(2);
  return String(Number(value.toPrecision(4)));
}

function section(id, title, text) {
  const node = el("section", { id, "aria-labelledby": `${id}-title` }, el("h2", { id: `${id}-title` }, title));
  if (text) node.append(el("p", {}, text));
  document.getElementById("main").append(node);
  document.getElementById("contents").append(el("a", { href: `#${id}` }, title));
  return node;
}

function figure(caption, detail, ...content) {
  return el("figure", {}, el("figcaption", {}, el("b", {}, caption), detail ? ` ${detail}` : ""), ...content);
}

const missing = (text) => el("p", { class: "note" }, text);

function legend(items) {
  return el("div", { class: "legend" }, items.map((item) =>
    el("span", {}, el("svg", { width: 26, height: 10, "aria-hidden": true },
      el("line", { x1: 0, y1: 5, x2: 26, y2: 5, stroke: item.colour, "stroke-width": 3, "stroke-dasharray": item.dash || null })),
    item.name)));
}

const tip = document.getElementById("tip");
function showTip(x, y, ...content) {
  tip.replaceChildren(...content);
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  const left = x + 14 + box.width > innerWidth ? x - box.width - 14 : x + 14;
  tip.style.left = `${Math.max(4, left)}px`;
  tip.style.top = `${Math.max(4, Math.min(y + 14, innerHeight - box.height - 4))}px`;
}
const hideTip = () => { tip.hidden = true; };
addEventListener("scroll", hideTip, { passive: true });
addEventListener("keydown", (event) => { if (event.key === "Escape") hideTip(); });

// Draw now, and again whenever the width or the theme changes.
function responsive(node, draw) {
  let width = 0;
  const redraw = () => { if (node.clientWidth) draw(node.clientWidth); };
  new ResizeObserver(() => {
    if (Math.abs(node.clientWidth - width) > 1) { width = node.clientWidth; redraw(); }
  }).observe(node);
  redraws.push(redraw);
}
const redraws = [];

// What the reader has chosen survives a reload, for pages that refresh themselves.
const state = (() => {
  let kept = {};
  try { kept = JSON.parse(sessionStorage.getItem("report") || "{}"); } catch { /* storage may be off */ }
  return {
    get: (key, otherwise) => (key in kept ? kept[key] : otherwise),
    set: (key, value) => {
      kept[key] = value;
      try { sessionStorage.setItem("report", JSON.stringify(kept)); } catch { /* storage may be off */ }
    },
  };
})();

// One choice of run for all parts that show a single run.
const runListeners = [];
function eachRun(node, draw) {
  const body = el("div");
  if (RUNS.length > 1) {
    const buttons = RUNS.map((run, index) => el("button", { type: "button", onclick: () => chooseRun(index) }, run.name));
    node.append(el("div", { class: "row runs", role: "group", "aria-label": "Run" }, el("span", { class: "muted" }, "Run"), buttons));
    runListeners.push((index) => buttons.forEach((button, i) => button.setAttribute("aria-pressed", i === index)));
  }
  node.append(body);
  runListeners.push((index) => { body.replaceChildren(); draw(RUNS[index], body); });
}
function chooseRun(index) {
  state.set("run", index);
  for (const listener of runListeners) listener(index);
}

function startTheme() {
  const button = document.getElementById("theme");
  const root = document.documentElement;
  const dark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const show = () => { button.textContent = dark() ? "Light" : "Dark"; for (const redraw of redraws) redraw(); };
  if (state.get("theme")) root.dataset.theme = state.get("theme");
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    state.set("theme", root.dataset.theme);
    show();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
  show();
}
