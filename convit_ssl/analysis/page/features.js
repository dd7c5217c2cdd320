// Feature map, neighbours, per-class accuracy, confusion, attribution, provenance.
function drawThumb(canvas, sheet, columns, index, side) {
  const size = sheet.width / columns;
  canvas.width = canvas.height = side;
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(sheet, (index % columns) * size, Math.floor(index / columns) * size, size, size, 0, 0, side, side);
}

function scatter(panel, choose) {
  const holder = el("div");
  const canvas = el("canvas", { tabindex: 0, role: "application", "aria-label":
    `${panel.method} map of ${panel.points.length} images. Arrow keys step through the images; their neighbours are listed beside.`, style: "cursor:pointer" });
  holder.append(canvas);
  let places = [];
  let chosen = 0;
  const xs = extent(panel.points.map((p) => p[0]), [0, 1]);
  const ys = extent(panel.points.map((p) => p[1]), [0, 1]);
  function draw(width) {
    const side = Math.min(width, 520);
    const height = Math.round(side * 0.8);
    const dense = Math.min(devicePixelRatio || 1, 2);
    canvas.width = side * dense;
    canvas.height = height * dense;
    canvas.style.width = `${side}px`;
    const context = canvas.getContext("2d");
    context.scale(dense, dense);
    context.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--shade");
    context.fillRect(0, 0, side, height);
    places = panel.points.map(([x, y]) => [14 + ((x - xs[0]) / (xs[1] - xs[0])) * (side - 28), height - 14 - ((y - ys[0]) / (ys[1] - ys[0])) * (height - 28)]);
    places.forEach(([x, y], i) => {
      const target = panel.targets[i];
      context.beginPath();
      (target < 0 ? MARKS[0] : markOf(target))(context, x, y, 4.5);
      context.closePath();
      context.fillStyle = target < 0 ? "#888888" : seriesColour(target);
      context.globalAlpha = 0.8;
      context.fill();
      context.globalAlpha = 1;
    });
    const [x, y] = places[chosen];
    context.beginPath();
    context.arc(x, y, 9, 0, 7);
    context.lineWidth = 2.5;
    context.strokeStyle = getComputedStyle(document.documentElement).getPropertyValue("--ink");
    context.stroke();
  }
  const nearest = (event) => {
    const box = canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    return places.reduce((best, place, i) => (Math.hypot(place[0] - x, place[1] - y) < Math.hypot(places[best][0] - x, places[best][1] - y) ? i : best), 0);
  };
  const pick = (index) => { chosen = index; draw(holder.clientWidth); choose(index); };
  canvas.addEventListener("pointermove", (event) => {
    const index = nearest(event);
    const thumb = el("canvas", { class: "pixels" });
    drawThumb(thumb, panel.image, panel.sheet_columns, index, 80);
    showTip(event.clientX, event.clientY, thumb, el("div", {}, panel.names[index]), el("div", {}, className(panel, panel.targets[index])));
  });
  canvas.addEventListener("pointerleave", hideTip);
  canvas.addEventListener("click", (event) => pick(nearest(event)));
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    pick((chosen + step + panel.points.length) % panel.points.length);
  });
  responsive(holder, draw);
  return holder;
}

const className = (panel, target) => (target < 0 ? "no label" : panel.classes[target] ?? `class ${target}`);

function neighbourRows(panel, queries) {
  const cell = (index, text, mark) => {
    const canvas = el("canvas", { class: mark, role: "img", "aria-label": `${panel.names[index]}, ${className(panel, panel.targets[index])}` });
    drawThumb(canvas, panel.image, panel.sheet_columns, index, 104);
    return el("td", {}, canvas, text);
  };
  // Features that lie close together differ in the third digit only.
  const digits = panel.similarities.flat().every((value) => value > 0.98) ? 3 : 2;
  return el("div", { class: "scroll" }, el("table", { class: "neighbours" }, el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "image"), el("th", { scope: "col", colspan: panel.neighbours[0].length }, "nearest first, with cosine similarity"))),
    el("tbody", {}, queries.map((query) => el("tr", {}, cell(query, className(panel, panel.targets[query]), ""),
      panel.neighbours[query].map((other, i) => {
        const known = panel.targets[query] >= 0 && panel.targets[other] >= 0;
        const same = panel.targets[query] === panel.targets[other];
        const value = panel.similarities[query][i].toFixed(digits);
        return cell(other, `${known ? (same ? "✓ " : "✗ ") : ""}${innerWidth < 760 ? value.replace("0.", ".") : value}`, known ? (same ? "hit" : "miss") : "");
      }))))));
}

function features() {
  const node = section("features", "Features", "Pooled features of the newest checkpoint on some of the images (convit-ssl report --images takes more, convit-ssl explore maps all).");
  eachRun(node, (run, body) => {
    const panel = run.features;
    if (!panel) { body.append(missing("No features: they need a checkpoint and a few images.")); return; }
    panel.image = new Image();
    panel.image.src = panel.sheet;
    // By the time the thumbnails are decoded another run may have been chosen.
    const holder = el("div");
    body.append(holder);
    panel.image.decode().then(() => featurePanel(panel, holder)).catch(() => holder.append(missing("The thumbnails could not be read.")));
  });
}

function featurePanel(panel, body) {
  const seen = new Set();
  const examples = panel.targets.map((target, i) => [target, i]).filter(([target]) => target < 0 || (!seen.has(target) && seen.add(target))).map((pair) => pair[1]).slice(0, 5);
  const picked = el("div");
  const choose = (index) => picked.replaceChildren(el("h3", {}, `Neighbours of ${panel.names[index].split(/[\\/]/).pop()}`), el("p", { class: "muted" }, panel.names[index]), neighbourRows(panel, [index]));
  const shares = panel.explained ? `the axes hold ${(100 * panel.explained[0]).toFixed(0)} % and ${(100 * panel.explained[1]).toFixed(0)} % of the variance` : "";
  const marks = panel.classes.slice(0, 28).map((name, target) => {
    const canvas = el("canvas", { width: 14, height: 14, "aria-hidden": true });
    const context = canvas.getContext("2d");
    context.beginPath();
    markOf(target)(context, 7, 7, 5);
    context.closePath();
    context.fillStyle = seriesColour(target);
    context.fill();
    return el("span", {}, canvas, name);
  });
  body.append(el("div", { class: "split" },
    el("div", {}, figure(`${panel.method} map`, shares, scatter(panel, choose)), el("div", { class: "legend" }, panel.targets.some((t) => t >= 0) ? marks : [])),
    el("div", {}, picked, el("h3", {}, "Examples"), neighbourRows(panel, examples))));
  choose(0);
  if (panel.classified) classPanel(panel, body);
  else body.append(missing("No labels, so there is no accuracy per class."));
}

function classPanel(panel, body) {
  const { confusion, per_class: right, accuracy, method } = panel.classified;
  const order = panel.classes.map((_, i) => i).filter((i) => right[i] !== null);
  const few = order.length <= 20;
  const shown = few ? order : [...order].sort((a, b) => right[a] - right[b]).slice(0, 20);
  const counts = confusion.map((row) => row.reduce((a, b) => a + b, 0));
  const bars = el("table", { class: "data" }, el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "class"), el("th", { scope: "colgroup", colspan: 2 }, "right"), el("th", { scope: "col", class: "n" }, "images"))),
    el("tbody", {}, shown.map((i) => el("tr", {}, el("td", { style: "overflow-wrap:break-word" }, panel.classes[i]), el("td", { class: "n", style: "white-space:nowrap" }, `${(100 * right[i]).toFixed(0)} %`),
      el("td", { style: "width:40%" }, el("div", { style: `height:12px;border-radius:3px;background:${PALETTE[0]};width:${100 * right[i]}%` })), el("td", { class: "n" }, String(counts[i]))))));
  const right_side = el("div");
  if (few) {
    const letters = innerWidth < 760 ? 12 : 20;
    const names = order.map((i) => shortened(panel.classes[i], letters));
    const left = 14 + LETTER * Math.max(6, ...names.map((name) => name.length));
    right_side.append(heatTable({ left, smallest: 20, columns: names, columnName: "taken for", xLabel: "taken for", text: (value) => (value ? String(value) : "·"),
      colour: (value, row) => value / Math.max(counts[order[row]], 1), rows: order.map((i, row) => ({ name: names[row], values: order.map((j) => confusion[i][j]) })),
      alt: `Confusion matrix; ${(100 * accuracy).toFixed(1)} % on the diagonal` }));
  } else {
    const pairs = order.flatMap((i) => order.filter((j) => j !== i && confusion[i][j]).map((j) => [confusion[i][j], i, j])).sort((a, b) => b[0] - a[0]).slice(0, 20);
    right_side.append(el("table", { class: "data" }, el("thead", {}, el("tr", {}, ["class", "taken for", "images"].map((name) => el("th", { scope: "col" }, name)))),
      el("tbody", {}, pairs.map(([count, i, j]) => el("tr", {}, el("td", {}, panel.classes[i]), el("td", {}, panel.classes[j]), el("td", { class: "n" }, String(count)))))));
  }
  body.append(el("h3", {}, `Accuracy per class: ${(100 * accuracy).toFixed(1)} % of all`), el("p", { class: "muted" }, `By ${method}. An estimate on a sample; convit-ssl knn and linear measure the accuracy.`),
    el("div", { class: "split" }, el("div", {}, few ? null : el("p", { class: "muted" }, "The 20 classes with most errors."), bars), figure(few ? "Confusion" : "Most frequent confusions", few ? "row: true class" : "", right_side)));
}

function attribution() {
  if (!RUNS.some((run) => run.attribution.length)) return;
  const node = section("attribution", "Attribution", "What the classifier's prediction is based on. Orange counts for the class, blue against it.");
  eachRun(node, (run, body) => {
    if (!run.attribution.length) { body.append(missing("This run has no classifier to explain.")); return; }
    const grid = el("div", { class: "cells", style: "--cell:210px" });
    body.append(grid);
    for (const item of run.attribution) {
      const canvas = el("canvas", { role: "img", "aria-label": `${item.method} of ${item.name} for ${item.target}` });
      const holder = el("div", {}, canvas);
      grid.append(figure(`Taken for ${item.target}`, `(${(100 * item.probability).toFixed(0)} %)`, holder));
      const picture = new Image();
      picture.src = item.picture;
      picture.decode().then(() => responsive(holder, () => paint(canvas, picture, item, item.values.flat(), { signed: true, top: 1 }))).catch(() => {});
    }
    const worst = Math.max(...run.attribution.map((item) => item.residual ?? 0));
    body.append(el("p", { class: "muted" }, `By ${run.attribution[0].method}${worst ? `; attributions add up to the score within ${(100 * worst).toFixed(1)} %` : ""}.`));
  });
}

function provenance() {
  const node = section("provenance", "Provenance");
  eachRun(node, (run, body) => {
    const short = Object.entries(run.provenance).filter((pair) => pair[1] === null || typeof pair[1] !== "object");
    const long = Object.entries(run.provenance).filter((pair) => pair[1] !== null && typeof pair[1] === "object" && Object.keys(pair[1]).length);
    body.append(el("table", { class: "data facts-of" }, el("tbody", {}, short.filter((pair) => pair[1] !== null && pair[1] !== "").map(([name, value]) => el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, String(value)))))));
    for (const [name, value] of [...long, ["configuration", run.config]]) {
      if (Object.keys(value).length) body.append(el("details", {}, el("summary", {}, name), el("pre", { tabindex: 0 }, JSON.stringify(value, null, 2))));
    }
    if (!Object.keys(run.config).length) body.append(missing("No configuration was found in the run folder."));
  });
  node.append(el("p", { class: "muted" }, DATA.footer), DATA.command ? el("pre", { tabindex: 0 }, DATA.command) : null);
}
