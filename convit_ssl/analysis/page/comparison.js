// A study beside the paper: sample efficiency, ablations, accuracy against size and speed.
const POINTS = DATA.points;
const PAPER = DATA.published;
const percent = (value) => (value === null || value === undefined ? "–" : `${(100 * value).toFixed(1)}`);
const setting = (point) => (point.ablation ? point.ablation : point.name);

function table(heads, rows) {
  return el("div", { class: "scroll" }, el("table", { class: "data" },
    el("thead", {}, el("tr", {}, heads.map((head, i) => el("th", { scope: "col", class: i ? "n" : null }, head)))),
    el("tbody", {}, rows.map((row) => el("tr", {}, row.map((cell, i) => (i ? el("td", { class: "n" }, cell) : el("th", { scope: "row" }, cell))))))));
}

function start() {
  const node = section("overview", "Overview", `Means over seeds of this study. The paper's figures (${PAPER.source}) are on ImageNet, so its curves compare in shape, not in height, with those of another data set.`);
  if (DATA.problems.length) node.append(el("div", { class: "note" }, el("b", {}, "What is missing or looks wrong"), el("ul", {}, DATA.problems.map((text) => el("li", {}, text)))));
  node.append(table(["setting", "fraction of labels", "accuracy %", "± over seeds", "the paper's", "seeds", "images/s"], POINTS.map((point) => [point.name,
    point.fraction === null ? "–" : `${format(100 * point.fraction)} %`, percent(point.accuracy), percent(point.spread), percent(point.published), String(point.seeds), format(point.images_per_s)])));
}

// Shares are spread evenly on a logarithmic axis: 5, 10, 30, 50, 100 %.
function efficiency() {
  const node = section("efficiency", "Sample efficiency", "Accuracy in % against the fraction of labelled images. Bars are one standard deviation over seeds.");
  const curves = new Map();
  for (const point of POINTS.filter((item) => !item.ablation && item.fraction !== null)) {
    if (!curves.has(point.name)) curves.set(point.name, []);
    curves.get(point.name).push(point);
  }
  const ours = [...curves].map(([name, points], index) => ({ name, colour: seriesColour(index), dash: seriesDash(index), points: points.sort((a, b) => a.fraction - b.fraction).map((point) => [point.fraction, 100 * point.accuracy, point.spread && 100 * point.spread]) }));
  const paper = ["convit", "deit"].map((model, index) => ({ name: model === "convit" ? "ConViT-S" : "DeiT-S", colour: seriesColour(index), dash: "6 3",
    points: PAPER.sample_efficiency.map((row) => [row.fraction, row[model], null]) }));
  const panels = el("div", { class: "split" });
  node.append(panels);
  if (ours.length) panels.append(figure("This study", "", legend(ours), shareChart("This study: accuracy by fraction of labels", ours)));
  else node.append(missing("No setting of this study has a fraction of labels."));
  panels.append(figure("The paper", `${PAPER.source}, Table 2, ImageNet`, legend(paper), shareChart("The paper's accuracy by fraction of labels", paper)));
}

function shareChart(title, series) {
  const holder = el("div");
  const shares = [...new Set(series.flatMap((item) => item.points.map((point) => point[0])))].sort((a, b) => a - b);
  const place = (share) => Math.log10(share);
  const [low, high] = extent(series.flatMap((item) => item.points.flatMap(([, y, s]) => [y - (s || 0), y + (s || 0)])), [0, 1]);
  responsive(holder, (width) => {
    const names = new Map(shares.map((share) => [place(share), `${format(100 * share)} %`]));
    const domain = shares.length > 1 ? [place(shares[0]) - 0.06, place(shares[shares.length - 1]) + 0.06] : [place(shares[0]) - 1, place(shares[0]) + 1];
    const means = series.flatMap((item) => item.points.map((point) => point[1]));
    const { svg, x, y } = frame(width, 280, domain, within([Math.max(0, low - 0.05 * (high - low)), high + 0.05 * (high - low)], means, 100),
      { xLabel: "fraction of labelled images", alt: `${title}. ${describe(series)}` });
    svg.querySelectorAll("text[text-anchor=middle]").forEach((node, i, all) => { if (i < all.length - 1) node.remove(); });
    for (const [at, name] of names) svg.append(el("text", { x: x(at), y: 280 - 20, "text-anchor": "middle" }, name));
    for (const item of series) {
      const points = item.points.map(([share, value, spread]) => [place(share), value, spread]);
      svg.append(el("path", { d: linePath(points, x, y), fill: "none", stroke: item.colour, "stroke-width": 2, "stroke-dasharray": item.dash || null }));
      for (const [at, value, spread] of points) {
        if (spread) svg.append(el("line", { x1: x(at), x2: x(at), y1: y(value - spread), y2: y(value + spread), stroke: item.colour, "stroke-width": 2 }));
        svg.append(el("circle", { cx: x(at), cy: y(value), r: 4, fill: item.colour }, el("title", {}, `${item.name}: ${value.toFixed(1)} %`)));
      }
    }
    holder.replaceChildren(svg);
  });
  return holder;
}

function ablations() {
  const node = section("ablations", "Ablations", "The effect of gating and of the convolutional init.");
  const rows = POINTS.filter((point) => point.ablation);
  const panels = el("div", { class: "split" });
  node.append(panels);
  if (rows.length) panels.append(figure("This study", "", table(["setting", "fraction", "accuracy %", "± over seeds", "the paper's"], rows.map((point) =>
    [setting(point), point.fraction === null ? "–" : `${format(100 * point.fraction)} %`, percent(point.accuracy), percent(point.spread), percent(point.published)])),
  bars(rows.map((point) => ({ name: `${setting(point)}${point.fraction === null ? "" : ` (${format(100 * point.fraction)} %)`}`, value: point.accuracy, spread: point.spread })))));
  else node.append(missing("This study has no ablations."));
  panels.append(figure("The paper", `${PAPER.source}, Table 3, ConViT-S+, ImageNet`, table(["setting", "all %", "10 % of images"], PAPER.ablations.map((row) =>
    [row.name, row.full.toFixed(1), row.tenth.toFixed(1)])), bars(PAPER.ablations.map((row) => ({ name: `${row.name} (10 %)`, value: row.tenth / 100, spread: null })))));
}

function bars(rows) {
  const holder = el("div", { style: "margin-top:12px" });
  responsive(holder, (width) => {
    // Names beside the bars where they fit, above them on a phone.
    const above = width < 460;
    const [left, high] = above ? [0, 42] : [230, 26];
    const top = Math.max(...rows.map((row) => row.value + (row.spread || 0)));
    const svg = el("svg", { class: "chart", viewBox: `0 0 ${width} ${high * rows.length}`, height: high * rows.length, role: "img",
      "aria-label": rows.map((row) => `${row.name}: ${percent(row.value)} %`).join("; ") });
    rows.forEach((row, i) => {
      const length = (value) => ((width - left - 46) * value) / top;
      const y = i * high + (above ? 16 : 0);
      svg.append(el("text", { class: "strong", x: above ? 0 : left - 8, y: above ? y - 2 : y + 17, "text-anchor": above ? "start" : "end" }, row.name),
        el("rect", { x: left, y: y + 4, width: length(row.value), height: 17, rx: 3, fill: PALETTE[0] }),
        el("text", { x: left + length(row.value + (row.spread || 0)) + 6, y: y + 17 }, percent(row.value)));
      if (row.spread) svg.append(el("line", { x1: left + length(row.value - row.spread), x2: left + length(row.value + row.spread), y1: y + 12, y2: y + 12, stroke: "var(--ink)", "stroke-width": 2 }));
    });
    holder.replaceChildren(svg);
  });
  return holder;
}

// Points of two families on one plane; the larger model further to the right.
function plane(title, xLabel, families) {
  const holder = el("div");
  const all = families.flatMap((family) => family.points);
  const alt = `${title}: ${families.map((family) => `${family.name}: ${family.points.map((point) => `${point.name} ${format(point.x)}, ${point.y.toFixed(1)} %`).join("; ")}`).join(". ")}`;
  responsive(holder, (width) => {
    const xs = extent(all.map((point) => point.x), [0, 1]);
    const ys = extent(all.map((point) => point.y), [0, 1]);
    const room = 0.08 * (xs[1] - xs[0]);
    const { svg, x, y } = frame(width, 280, [Math.max(0, xs[0] - room), xs[1] + room], [ys[0] - 1, ys[1] + 1.5], { xLabel, alt });
    for (const family of families) {
      const sorted = [...family.points].sort((a, b) => a.x - b.x);
      if (family.join) svg.append(el("path", { d: linePath(sorted.map((point) => [point.x, point.y]), x, y), fill: "none", stroke: family.colour, "stroke-dasharray": family.dash || null }));
      let previous = -Infinity; // where a name would meet the one before, it goes below its point
      for (const point of sorted) {
        svg.append(el("circle", { cx: x(point.x), cy: y(point.y), r: 5, fill: family.colour }, el("title", {}, `${point.name}: ${point.y.toFixed(1)} %, ${format(point.x)}`)));
        const below = x(point.x) - previous < 20 && y(point.y) < 60;
        previous = below ? -Infinity : x(point.x);
        if (family.named) svg.append(el("text", { x: x(point.x), y: y(point.y) + (below ? 20 : -9), "text-anchor": "middle" }, point.name));
      }
    }
    holder.replaceChildren(svg);
  });
  return holder;
}

function cost() {
  const node = section("cost", "Accuracy against size and speed", "Top-1 accuracy in % against parameters and images per second, for all labels.");
  const models = Object.entries(PAPER.models);
  const short = (name) => name.replace("convit_", "").replace("_plus", "+");
  const paper = (key, baseline, x) => ({ points: models.map(([name, row]) => ({ name: short(name), x: row[x], y: row[baseline ? "baseline_accuracy" : "accuracy"] })), join: true, named: !baseline, name: key, colour: seriesColour(baseline ? 1 : 0), dash: baseline ? "6 3" : "" });
  const full = POINTS.filter((point) => (point.fraction === null || point.fraction === 1) && !point.ablation);
  for (const [key, baseKey, label, unit] of [["parameters", "parameters", "parameters (millions)", 1e6], ["images_per_s", "baseline_images_per_s", "images per second", 1]]) {
    const families = [paper("ConViT", false, key), paper("DeiT", true, baseKey)];
    const known = full.filter((point) => point[key] !== null);
    const ours = known.map((point, i) => ({ name: point.name, colour: seriesColour(i), points: [{ name: point.name, x: point[key] / unit, y: 100 * point.accuracy }] }));
    node.append(el("div", { class: "split" },
      ours.length ? figure("This study", "", legend(ours), plane(`This study, ${label}`, label, ours)) : missing(`This study does not say: ${label}.`),
      figure("The paper", `${PAPER.source}, Table 1, ImageNet${unit === 1 ? ", one GP100" : ""}`, legend(families), plane(`The paper, ${label}`, label, families))));
  }
  node.append(el("p", { class: "muted says" }, DATA.footer));
}

start();
efficiency();
ablations();
cost();
startTheme();
