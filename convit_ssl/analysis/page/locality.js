// Training curves, gates, heads on the grid, non-locality.
const runLegend = () => legend(RUNS.map((run, index) => ({ name: run.name, colour: seriesColour(index), dash: runDash(index) })));
const headLegend = (heads) => legend([...Array(heads).keys()].map((head) => ({ name: `head ${head}`, colour: seriesColour(head), dash: seriesDash(head) })));

function overview() {
  const node = section("overview", "Overview");
  RUNS.forEach((run, index) => {
    const facts = Object.entries(run.facts).map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)));
    if (RUNS.length > 1) node.append(el("h3", {}, el("span", { style: `color:${seriesColour(index)}`, "aria-hidden": true }, "■ "), run.name));
    node.append(el("dl", { class: "facts" }, facts));
    if (run.problems.length) {
      node.append(el("div", { class: "note" }, el("b", {}, "What is missing or looks wrong"), el("ul", {}, run.problems.map((text) => el("li", {}, text)))));
    }
  });
}

function training() {
  const node = section("training", "Training", "Each measurement as the run wrote it. Hover, or focus a curve and use the arrow keys, to read values.");
  const titles = Object.assign({}, ...RUNS.map((run) => run.titles).reverse());
  const keys = [...new Set(RUNS.flatMap((run) => Object.keys(run.curves)))];
  if (!keys.length) { node.append(missing("No run wrote a training curve.")); return; }
  if (RUNS.length > 1) node.append(runLegend());
  const first = keys.filter((key) => DATA.main_curves.includes(key));
  const others = keys.filter((key) => !DATA.main_curves.includes(key));
  // One axis for all, so that what is measured seldom stands below the epochs it belongs to.
  const xDomain = extent(RUNS.flatMap((run) => Object.values(run.curves).flatMap((curve) => curve.x)), [0, 1]);
  const chart = (key) => figure(titles[key], "", lineChart({ title: `${titles[key]} over epochs`, height: 190, xDomain, whole: true, series: RUNS.map((run, index) => ({
    name: run.name, colour: seriesColour(index), dash: runDash(index), dots: RUNS.length === 1 && run.curves[key].x.length <= 24, r: xDomain[1] - xDomain[0] > 1 ? 2.5 : 4,
    points: run.curves[key] ? run.curves[key].x.map((x, i) => [x, run.curves[key].y[i]]) : [] })) }));
  node.append(el("div", { class: "cells" }, first.map(chart)));
  if (others.length) node.append(el("details", { open: !first.length }, el("summary", {}, `${others.length} further measurements`), el("div", { class: "cells" }, others.map(chart))));
}

const layerSeries = (history, layer) => history.y[0][layer].map((_, head) => ({
  name: `head ${head}`, colour: seriesColour(head), dash: seriesDash(head), width: 1.8, points: history.x.map((x, i) => [x, history.y[i][layer][head]]) }));

function gates() {
  const node = section("gates", "Gates", "The gate σ(λ) is the fraction of positional attention in a head: at 1 the head is a convolution with a fixed offset, at 0 it uses content only. In the paper, early layers stay local and later layers become global.");
  if (RUNS.length > 1 && RUNS.some((run) => run.heads)) {
    node.append(runLegend(), figure("Mean gate of each layer", "at the newest checkpoint", lineChart({ title: "Mean gate of each layer", xLabel: "layer", whole: true, yDomain: [0, 1], height: 200,
      series: RUNS.map((run, index) => ({ name: run.name, colour: seriesColour(index), dash: runDash(index), dots: true,
        points: run.heads ? run.heads.layers.map((layer, i) => [layer, mean(run.heads.gates[i])]).filter((point) => point[1] !== null) : [],
        cloud: run.heads ? run.heads.layers.flatMap((layer, i) => run.heads.gates[i].map((gate) => [layer, gate])) : [] })) })));
  }
  eachRun(node, (run, body) => {
    const now = run.heads ? run.heads.gates : run.gates ? run.gates.y[run.gates.y.length - 1] : null;
    if (!now || !now.flat().some((gate) => gate !== null)) { body.append(missing("This run has no gates to show.")); return; }
    const layers = run.heads ? run.heads.layers : [...now.keys()];
    body.append(el("h3", {}, run.heads ? "Now" : "At the last measurement"), heatTable({ columns: now[0].map((_, head) => String(head)), columnName: "head", xLabel: "head",
      rows: now.map((values, i) => ({ name: `layer ${layers[i]}`, values })),
      alt: `Gates by layer and head. ${now.map((values, i) => `Layer ${layers[i]}: mean ${format(mean(values))}`).join("; ")}` }),
    scaleBar("0 content", "1 position"));
    body.append(el("h3", {}, "Over training"));
    if (!run.gates) { body.append(missing("The run wrote no gates while it trained, and has no earlier checkpoint to read them from.")); return; }
    if (run.gates.x.length < 2) body.append(missing("There is only one measurement."));
    const grid = el("div", { class: "cells", style: "--cell:220px" });
    run.gates.y[0].forEach((_, layer) => grid.append(figure(`Layer ${layers[layer] ?? layer}`, "", lineChart({
      title: `Gates of layer ${layers[layer] ?? layer} over epochs`, series: layerSeries(run.gates, layer), whole: true, yDomain: [0, 1], height: 150, yTicks: 2, left: 30 }))));
    body.append(headLegend(now[0].length), grid);
  });
}

const scaleBar = (low, high) => el("div", { class: "scale", style: "max-width:320px" }, low, el("div", { class: "bar" }), high);

// Centres as discs of the head's width around the query's patch; dashed rings for the init.
function headPanel(now, start, row, layer) {
  const holder = el("div");
  const reach = now.centres.flat().concat(start ? start.centres.flat() : []).map(([x, y]) => Math.max(Math.abs(x ?? 0), Math.abs(y ?? 0)));
  const half = Math.min(Math.max(Math.ceil(Math.max(...reach.filter(Number.isFinite), 0) + 1) + 0.5, 2.5), 7.5);
  const flat = now.centres[row].map((centre, head) => (centre[0] === null ? head : null)).filter((head) => head !== null);
  const alt = `Attention centres of layer ${layer}: ${now.centres[row].map((centre, head) => (centre[0] === null ? `head ${head} has no peak` :
    `head ${head} at (${format(centre[0])}, ${format(centre[1])}) width ${format(now.widths[row][head])}`)).join("; ")}`;
  responsive(holder, (width) => {
    const side = Math.min(width, 280);
    const unit = side / (2 * half);
    const at = (value) => side / 2 + Math.min(Math.max(value, -half), half) * unit;
    const svg = el("svg", { class: "chart", viewBox: `0 0 ${side} ${side}`, height: side, role: "img", "aria-label": alt, style: `width:${side}px;overflow:hidden` });
    for (let line = -half; line <= half; line += 1) {
      svg.append(el("line", { class: "grid", x1: at(line), x2: at(line), y1: 0, y2: side }), el("line", { class: "grid", x1: 0, x2: side, y1: at(line), y2: at(line) }));
    }
    svg.append(el("rect", { x: at(-0.5), y: at(-0.5), width: unit, height: unit, fill: "var(--soft)", opacity: 0.28 }));
    now.centres[row].forEach(([x, y], head) => {
      const colour = seriesColour(head);
      const first = start && start.centres[row] ? start.centres[row][head] : null;
      if (first) svg.append(el("circle", { cx: at(first[0]), cy: at(first[1]), r: start.widths[row][head] * unit, fill: "none", stroke: colour, "stroke-dasharray": "3 3", opacity: 0.8 }));
      if (x === null) return;
      if (first) svg.append(el("line", { x1: at(first[0]), y1: at(first[1]), x2: at(x), y2: at(y), stroke: colour, "stroke-width": 1.5 }));
      const gate = now.gates[row][head] ?? 0.5;
      svg.append(el("circle", { cx: at(x), cy: at(y), r: Math.max(now.widths[row][head] * unit, 2), fill: colour, "fill-opacity": 0.08 + 0.5 * gate, stroke: colour, "stroke-width": 2 },
        el("title", {}, `head ${head}: centre (${format(x)}, ${format(y)}), width ${format(now.widths[row][head])} patches, gate ${format(now.gates[row][head])}`)));
    });
    now.centres[row].forEach(([x, y], head) => {
      if (x === null) return;
      svg.append(el("circle", { cx: at(x), cy: at(y), r: 8, fill: "var(--card)", stroke: seriesColour(head) }),
        el("text", { class: "strong", x: at(x), y: at(y) + 4, "text-anchor": "middle" }, String(head)));
    });
    holder.replaceChildren(svg);
  });
  return figure(`Layer ${layer}`, flat.length ? `head ${flat.join(", ")}: no peak` : "", holder);
}

function heads() {
  const node = section("heads", "Heads on the grid", "Where the positional attention of each head is centred, in patches from the query (the grey patch in the middle). Each disc shows the centre and width (one standard deviation) of a head; the higher the gate, the fuller the disc. Dashed rings are the convolutional init.");
  eachRun(node, (run, body) => {
    if (!run.heads) { body.append(missing("This run has no positional attention to show: no GPSA layers, or no checkpoint.")); return; }
    if (!run.heads_at_init) body.append(missing("This model did not start from the convolutional init, so no starting places are drawn."));
    body.append(el("div", { class: "cells", style: "--cell:230px" }, run.heads.layers.map((layer, row) => headPanel(run.heads, run.heads_at_init, row, layer))));
  });
}

function nonlocality() {
  const node = section("nonlocality", "Non-locality", "How far a head attends: the attention-weighted distance between query and key in patches, averaged over queries and images, as defined in the paper, with each layer on its own input (the released script uses raw patch embeddings). The dotted line is attention spread evenly over the grid.");
  const measured = RUNS.filter((run) => run.nonlocality);
  if (measured.length) {
    if (RUNS.length > 1) node.append(runLegend());
    const grids = [...new Map(measured.map((run) => [run.nonlocality.grid.join("×"), run.nonlocality.uniform])).entries()];
    node.append(figure("By layer", "line: mean of the heads; dots: heads", lineChart({ title: "Non-locality by layer", xLabel: "layer", whole: true, height: 250, fromZero: true,
      xDomain: [-0.2, Math.max(...measured.map((run) => run.nonlocality.mixed.length)) - 0.8],
      lines: grids.map(([grid, value]) => ({ name: `uniform on ${grid}`, value })),
      series: RUNS.map((run, index) => ({ name: run.name, colour: seriesColour(index), dash: runDash(index), dots: true, r: 4,
        points: run.nonlocality ? run.nonlocality.mixed.map((values, layer) => [layer, mean(values)]) : [],
        cloud: run.nonlocality ? run.nonlocality.mixed.flatMap((values, layer) => values.map((value) => [layer, value])) : [] })) })));
  } else node.append(missing("No run has a checkpoint and images to measure it on."));
  eachRun(node, (run, body) => {
    const history = run.nonlocality_history;
    if (history) {
      const layers = history.y[0].length;
      body.append(el("h3", {}, "Over training"), legend(history.y[0].map((_, layer) => ({ name: `layer ${layer}`, colour: layerColour(layer, layers) }))),
        lineChart({ title: "Non-locality of each layer over epochs", height: 240, whole: true, fromZero: true, series: history.y[0].map((_, layer) => ({
          name: `layer ${layer}`, colour: layerColour(layer, layers), points: history.x.map((x, i) => [x, mean(history.y[i][layer])]) })) }));
    } else body.append(missing(`${run.name}: measured at one time only, so there is no curve over epochs.`));
    if (run.nonlocality) {
      const rows = run.nonlocality;
      const parts = [["mixed", "what the layer applies"], ["content", "its content half"], ["position", "its positional half"]];
      body.append(el("details", {}, el("summary", {}, "Values of each head, and of its content and positional halves"), parts.map(([part, text]) =>
        figure(part, text, heatTable({ columns: rows[part][0].map((_, head) => String(head)), columnName: "head", xLabel: "head", colour: (value) => value / (1.4 * rows.uniform),
          rows: rows[part].map((values, layer) => ({ name: `layer ${layer}`, values })), alt: `Non-locality by layer and head, ${text}` })))));
    }
  });
}
