// What a reader wants to know first: did it help, on which images, and what went wrong.
const OUTCOMES = { better: "good", "not better": "warn", worse: "warn" };

function verdict() {
  const node = section("verdict", "Did it help?");
  RUNS.forEach((run, index) => {
    if (RUNS.length > 1) node.append(el("h3", {}, el("span", { style: `color:${seriesColour(index)}`, "aria-hidden": true }, "■ "), run.name));
    const found = run.verdict;
    if (!found) {
      node.append(missing("Not measured yet. Compare the network with raw pixels and with itself before training:"),
        el("pre", { tabindex: 0 }, `convit-ssl knn ${run.folder} --references`));
      return;
    }
    const sentence = found.text.charAt(0).toUpperCase() + found.text.slice(1);
    node.append(el("p", { class: `verdict ${OUTCOMES[found.outcome] || ""}` }, `${sentence.replace(/\.$/, "")}.`));
    if (found.against.length) node.append(differences(found));
    if (found.why) node.append(el("p", {}, `Why: ${found.why}.`));
    if (found.advice.length) node.append(el("h3", {}, "What to try next"), el("ul", {}, found.advice.map((text) => el("li", {}, text))));
  });
}

function differences(found) {
  const signed = (value) => (value === null ? "–" : `${value > 0 ? "+" : ""}${value.toFixed(1)}`);
  const row = (one) => el("tr", {}, el("th", { scope: "row" }, one.name), el("td", { class: "n" }, signed(one.difference)),
    el("td", { class: "n" }, one.interval.length === 2 ? `${signed(one.interval[0])} to ${signed(one.interval[1])}` : "–"));
  return el("table", { class: "data narrow" },
    el("caption", {}, `Difference in ${found.metric}, percentage points${found.tested ? `, tested on ${found.tested}` : ""}`),
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "compared with"), el("th", { scope: "col", class: "n" }, "difference"), el("th", { scope: "col", class: "n" }, "95 % interval"))),
    el("tbody", {}, found.against.map(row)));
}

// A long path breaks after its folders, not within a name.
const atSlashes = (text) => String(text).split(/(?<=\/)/).flatMap((part) => [el("wbr"), part]);

function images() {
  const node = section("images", "Images");
  eachRun(node, (run, body) => {
    const facts = Object.entries(run.images.facts).map(([name, value]) => el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, value)));
    body.append(el("table", { class: "data facts-of" }, el("tbody", {}, facts)));
    const warnings = run.images.warnings;
    if (warnings.length) body.append(el("div", { class: "note" }, el("b", {}, "Warnings about the data"), el("ul", {}, warnings.map((text) => el("li", {}, text)))));
    const check = run.images.check;
    if (check) {
      if (check.changed) body.append(el("p", { class: "note" }, `${check.changed}.`));
      const rest = check.count > check.rows.length ? `; the first ${check.rows.length} are shown, ${check.table} has all` : "";
      if (!check.count) body.append(el("p", {}, `Data check: nothing found (${check.table}).`));
      else body.append(el("details", { open: true }, el("summary", {}, `Data check: ${check.counts.join(", ")}${rest}`),
        el("div", { class: "scroll findings", tabindex: "0", role: "region", "aria-label": "Findings of the data check" },
          el("table", { class: "data" }, el("thead", {}, el("tr", {}, ["finding", "file", "other file", "detail"].map((name) => el("th", { scope: "col" }, name)))),
            el("tbody", {}, check.rows.map((row) => el("tr", {}, row.map((text) => el("td", {}, atSlashes(text))))))))));
    }
    const count = run.images.unreadable_count;
    if (count) {
      const shown = run.images.unreadable;
      const more = count > shown.length ? ` (the first ${shown.length}; unreadable.jsonl has all)` : "";
      body.append(el("details", {}, el("summary", {}, `${count} file${count > 1 ? "s" : ""} could not be read${more}`),
        el("table", { class: "data" }, el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "file"), el("th", { scope: "col" }, "reason"))),
          el("tbody", {}, shown.map(([path, reason]) => el("tr", {}, el("td", {}, path), el("td", {}, reason)))))));
    }
  });
}

// Each figure can be saved: drawings as SVG with their colours, pictures as PNG.
const STYLED = ["fill", "stroke", "stroke-width", "stroke-dasharray", "stroke-opacity", "fill-opacity", "opacity", "font-size", "font-family", "font-weight", "text-anchor"];

function standalone(svg) {
  const copy = svg.cloneNode(true);
  const from = [svg, ...svg.querySelectorAll("*")];
  [copy, ...copy.querySelectorAll("*")].forEach((node, i) => {
    const style = getComputedStyle(from[i]);
    for (const name of STYLED) node.style.setProperty(name, style.getPropertyValue(name));
  });
  const box = svg.getBoundingClientRect();
  copy.setAttribute("xmlns", SVG);
  copy.setAttribute("width", Math.round(box.width));
  copy.setAttribute("height", Math.round(box.height));
  copy.style.background = getComputedStyle(document.documentElement).getPropertyValue("--card");
  return new Blob([new XMLSerializer().serializeToString(copy)], { type: "image/svg+xml" });
}

function saveAs(blob, name) {
  const link = el("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function saveFigure(node, name) {
  const file = name.toLowerCase().replace(/[^a-z0-9]+/g, "_").replace(/^_|_$/g, "") || "figure";
  const svg = node.querySelector("svg.chart");
  if (svg) { saveAs(standalone(svg), `${file}.svg`); return; }
  const canvas = node.querySelector("canvas");
  if (canvas) canvas.toBlob((blob) => saveAs(blob, `${file}.png`));
}

function addSaveButtons() {
  for (const node of document.querySelectorAll("figure")) {
    const caption = node.querySelector("figcaption");
    if (!caption || caption.querySelector(".save") || !node.querySelector("svg.chart, canvas")) continue;
    const name = (caption.querySelector("b") || caption).textContent;
    caption.append(" ", el("button", { type: "button", class: "save", "aria-label": `Save figure: ${name}`, onclick: () => saveFigure(node, name) }, "Save"));
  }
}
