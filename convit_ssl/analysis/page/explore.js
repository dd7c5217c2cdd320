// Put together: the map with its tools, then the lists.
function legendButtons(holder) {
  const colouring = MAP.colouring;
  if (colouring.values) {
    const [low, high] = MAP.range;
    holder.replaceChildren(el("div", { class: "scale", style: "flex:1" }, low.toFixed(2), el("div", { class: "bar" }), high.toFixed(2)));
    return;
  }
  const { counts, named, kinds } = MAP.legend;
  const entry = (k, name) => {
    const canvas = el("canvas", { width: 28, height: 28, style: "width:14px;height:14px", "aria-hidden": true });
    const context = canvas.getContext("2d");
    const [rgb, shape] = kinds.get(k) || [GREY, 0];
    context.beginPath();
    MARKS[shape](context, 14, 14, 10);
    context.closePath();
    context.fillStyle = css(rgb);
    context.fill();
    return el("button", { type: "button", "aria-pressed": FILTER.picked.has(k), onclick: () => {
      if (!FILTER.picked.delete(k)) FILTER.picked.add(k);
      applyFilter(MAP.category);
      legendButtons(holder);
      holder.querySelectorAll("button")[[...order].indexOf(k)]?.focus();
    } }, canvas, `${name} `, el("small", {}, whole(counts.get(k) || 0)));
  };
  const order = [...named.slice(0, 200), ...(counts.has(-1) ? [-1] : [])];
  holder.replaceChildren(...order.map((k) => entry(k, k < 0 ? colouring.none : colouring.names[k])));
  if (named.length > 200) holder.append(el("span", { class: "hint" }, `and ${whole(named.length - 200)} more, in grey`));
}

let setColouring = () => {};
function pickOnly(name, category) {
  setColouring(name);
  FILTER.picked.add(category);
  applyFilter(MAP.category);
  legendButtons(document.getElementById("keys"));
}

function showHint() {
  const parts = [FILTER.count < COUNT ? `${whole(FILTER.count)} of ${images(COUNT)} shown` : images(COUNT)];
  if (MAP.full === false) parts.push("zoom in to see thumbnails");
  const touch = matchMedia("(pointer: coarse)").matches;
  parts.push(touch ? "drag to move, pinch to zoom, tap an image" : "drag to move, scroll to zoom, click an image; arrow keys go from image to image, + − 0 zoom");
  document.getElementById("hint").textContent = `${parts.join(" · ")}.`;
}

function mapSection() {
  const node = section("map", `${MAIN.layout} map`, "Images with similar features are close together.");
  const choices = colourings();
  const select = el("select", { id: "colour" }, choices.map((one) => el("option", {}, one.name)));
  const search = el("input", { type: "search", id: "search", placeholder: "part of a path", spellcheck: "false", autocomplete: "off" });
  const keys = el("div", { class: "keys", id: "keys", role: "group", "aria-label": "Legend: choose what is shown" });
  const canvas = el("canvas", { id: "canvas", tabindex: 0, role: "application", "aria-label": `${MAIN.layout} map of ${images(COUNT)}. Arrow keys go from image to image, plus, minus and 0 zoom. The section All images lists the same.` });
  const pictures = el("button", { type: "button", "aria-pressed": false, onclick: () => {
    MAP.pictures = !MAP.pictures;
    pictures.setAttribute("aria-pressed", MAP.pictures);
    redrawMap();
  } }, "Thumbnails");
  MAP.canvas = canvas;
  setColouring = (name) => {
    select.value = name;
    chooseColouring(choices.find((one) => one.name === name));
    legendButtons(keys);
    applyFilter(MAP.category);
  };
  select.addEventListener("change", () => setColouring(select.value));
  let timer = 0;
  search.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => { FILTER.text = search.value; applyFilter(MAP.category); }, COUNT > 20000 ? 200 : 50);
  });
  const zoom = [["+", "Zoom in", () => zoomBy(1.6)], ["−", "Zoom out", () => zoomBy(1 / 1.6)], ["⟲", "Show all", resetView]];
  node.append(el("div", { class: "explorer" },
    el("div", {},
      el("div", { class: "tools" }, el("label", {}, "Colour by", select), el("label", { class: "grow" }, "Find", search), MAIN.sheet ? pictures : null),
      el("div", { class: "map" }, canvas, el("div", { class: "zoom" }, zoom.map(([sign, name, onclick]) => el("button", { type: "button", "aria-label": name, title: name, onclick }, sign)))),
      el("p", { class: "hint", id: "hint" }), keys,
      MAIN.accuracy === null ? null : el("p", { class: "hint" }, `Neighbours${MAIN.groups.length ? " of other groups" : ""} give ${(100 * MAIN.accuracy).toFixed(1)} % of the labelled images their label (weighted 20-NN, each image left out). To measure, use convit-ssl knn.`)),
    el("div", { class: "detail", id: "detail" }, el("p", { class: "muted" }, "Choose an image to see it here, with its path and its nearest neighbours."))));
  listen(canvas);
  FILTER.listeners.push(redrawMap);
  setColouring(choices[0].name);
  new ResizeObserver(redrawMap).observe(canvas);
  redraws.push(redrawMap);
}

if (MAIN) {
  mapSection();
  startTheme();
  drawMap();
  loadLater(() => {
    listSections();
    clusterSection();
    allSection();
    aboutSection();
    redrawMap();
    document.body.dataset.ready = "true";
  });
} else {
  document.getElementById("main").append(missing("data.js is missing: keep this page in the folder that convit-ssl explore wrote."));
  startTheme();
}
