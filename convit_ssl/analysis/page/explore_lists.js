// Everything but the map: the chosen image, clusters, odd images, what to label, the list of all.
const MORE = 48;
let cameFrom = null;

function tile(i, caption, tone = "") {
  const line = labelOf(i) || (MAIN.classes.length ? "no label" : shortOf(i));
  const words = [...new Set([[line, caption].filter(Boolean).join(" "), shortOf(i)])].join(", ");
  const button = el("button", { class: "tile", type: "button", "aria-label": words, title: pathOf(i), onclick: (event) => { cameFrom = event.currentTarget; choose(i, true); } }, thumb(i));
  button.append(el("span", { class: tone }, line));
  if (caption) button.append(" ", el("span", { class: "why" }, caption));
  return button;
}

// Tiles with a button for more of them.
function tiles(rows, caption = () => "", first = MORE) {
  const list = el("ul", { class: "tiles" });
  const more = el("button", { type: "button" }, "Show more");
  let shown = 0;
  const add = (count) => {
    for (const i of rows.slice(shown, shown + count)) list.append(el("li", {}, tile(i, caption(i))));
    shown = Math.min(rows.length, shown + count);
    more.hidden = shown >= rows.length;
  };
  more.addEventListener("click", () => add(MORE));
  add(first);
  return [list, more];
}

function choose(i, fromList = false) {
  MAP.chosen = i;
  reveal(i);
  redrawMap();
  showDetail(i, fromList);
  say([shortOf(i), labelOf(i) || "no label", clusterOf(i) && `cluster ${clusterOf(i)}`].filter(Boolean).join(", "));
  if (fromList) document.getElementById("map").scrollIntoView();
}

// The file itself where the page lies on the same disk, else its thumbnail.
function bigPicture(i) {
  const small = el("canvas", { role: "img", "aria-label": shortOf(i), width: 1, height: 1 });
  drawInto(small, i);
  if (MAIN.sheet && MAIN.sheet.side > 40 && Math.max(AT.size[2 * i], AT.size[2 * i + 1]) === 0) small.title = "no picture";
  const box = el("div", { class: "big" }, small);
  if (location.protocol === "file:" && LATER.names && pathOf(i).startsWith("/") && !pathOf(i).includes("#")) {
    const image = new Image();
    image.alt = shortOf(i);
    image.addEventListener("load", () => {
      image.className = Math.max(image.naturalWidth, image.naturalHeight) < 100 ? "tiny" : "";
      box.replaceChildren(image);
    });
    image.src = fileUrl(pathOf(i));
  }
  return box;
}

function showDetail(i, fromList) {
  const rank = MAIN.to_label.findIndex(([row]) => row === i);
  const facts = [
    ["label", labelOf(i) || (MAIN.classes.length ? "none" : "")],
    ["neighbours say", guessOf(i) && `${guessOf(i)} (${Math.round((100 * AT.share[i]) / 255)} % of votes)`],
    ["group", groupOf(i)],
    ["cluster", clusterOf(i) || "none"],
    ["part", MAIN.parts.length > 1 ? MAIN.parts[AT.part[i]] : ""],
    ["outlier score", AT.outlier[i].toFixed(2)],
    ["label next", rank >= 0 ? `${rank + 1}. ${MAIN.to_label[rank][1]}` : ""],
  ].filter((pair) => pair[1]);
  const near = neighboursOf(i).map((other, at) => {
    const known = AT.target[i] >= 0 && AT.target[other] >= 0;
    const same = AT.target[i] === AT.target[other];
    const alike = LATER.similarity[i * LATER.width + at].toFixed(3);
    return el("li", {}, tile(other, known ? `${alike} ${same ? "✓" : "✗"}` : alike, known ? (same ? "hit" : "miss") : ""));
  });
  const copy = el("button", { type: "button", onclick: () => navigator.clipboard.writeText(pathOf(i)).then(() => { copy.textContent = "Copied"; }, () => {}) }, "Copy path");
  const back = fromList && cameFrom ? el("button", { type: "button", onclick: () => { cameFrom.scrollIntoView({ block: "center" }); cameFrom.focus(); } }, "Back to the list") : null;
  const open = location.protocol === "file:" && LATER.names && pathOf(i).startsWith("/") && !pathOf(i).includes("#") ? el("a", { href: fileUrl(pathOf(i)), target: "_blank", rel: "noopener" }, "Open the file") : null;
  document.getElementById("detail").replaceChildren(
    bigPicture(i), el("p", { class: "path" }, pathOf(i)), el("div", { class: "row" }, copy, open, back),
    el("dl", { class: "about" }, facts.flatMap(([name, text]) => [el("dt", {}, name), el("dd", {}, text)])),
    ...(near.length ? [el("h3", {}, "Nearest neighbours"), el("p", { class: "hint" }, "Nearest first, with cosine similarity."), el("ul", { class: "tiles", style: "--tile:72px" }, near)] : []),
  );
}

function clusterSection() {
  const node = section("clusters", "Clusters", `${MAIN.examples.length} by ${MAIN.clustered_by}, the largest first. The first examples of each are from its middle, the others from all over it.`);
  const counts = new Map();
  for (const k of AT.cluster) counts.set(k, (counts.get(k) || 0) + 1);
  const most = (of, names, k) => {
    const found = new Map();
    for (let i = 0; i < COUNT; i += 1) if (AT.cluster[i] === k && of[i] >= 0) found.set(of[i], (found.get(of[i]) || 0) + 1);
    return [...found].sort((a, b) => b[1] - a[1]).slice(0, 3).map(([name, n]) => `${names[name]} ${Math.round((100 * n) / counts.get(k))} %`).join(", ");
  };
  const show = (k) => el("div", { class: "cluster" },
    el("div", { class: "row" }, el("h3", {}, `Cluster ${k + 1}`),
      el("button", { type: "button", onclick: () => { pickOnly("cluster", k); document.getElementById("map").scrollIntoView(); } }, "Show on the map", el("span", { class: "unseen" }, ` cluster ${k + 1}`))),
    el("p", { class: "hint" }, [images(counts.get(k) || 0), MAIN.classes.length && most(AT.target, MAIN.classes, k), MAIN.groups.length && `groups: ${most(AT.group, MAIN.groups, k)}`].filter(Boolean).join(" · ")),
    ...tiles(MAIN.examples[k], () => "", 12));
  const body = el("div");
  const more = el("button", { type: "button" }, "More clusters");
  let shown = 0;
  const add = () => {
    for (const stop = Math.min(MAIN.examples.length, shown + 12); shown < stop; shown += 1) body.append(show(shown));
    more.hidden = shown >= MAIN.examples.length;
  };
  more.addEventListener("click", add);
  add();
  node.append(body, more);
  if (counts.get(-1)) node.append(el("p", { class: "hint" }, `${images(counts.get(-1))} in no cluster.`));
}

function listSections() {
  if (MAIN.to_label.length) {
    const why = new Map(MAIN.to_label);
    section("next", "Label next", "Unlabelled images that are worth labelling first: those that represent many others, and those whose neighbours disagree.").append(...tiles(MAIN.to_label.map(([i]) => i), (i) => why.get(i), 24));
  }
  if (MAIN.to_check.length) {
    const why = new Map(MAIN.to_check);
    section("check", "Labels to check", "Images whose neighbours agree on another label. Either the label is wrong, or the features miss the difference.").append(...tiles(MAIN.to_check.map(([i]) => i), (i) => why.get(i), 24));
  }
  section("odd", "Odd images", "Images far from their neighbours, the most unusual first. The score is the geometric mean of the local outlier factor and the distance to the neighbours over its median; 1 is usual.").append(...tiles(MAIN.odd, (i) => AT.outlier[i].toFixed(2), 24));
}

function allSection() {
  const node = section("all", "All images", "The map as a list; the search box and the legend of the map filter it.");
  const PAGE = 25;
  const orders = { "order of the files": null, "odd first": [...UNIQUE(COUNT)] };
  let order = null;
  let first = 0;
  const sort = el("select", {}, Object.keys(orders).map((name) => el("option", {}, name)));
  const count = el("span", { class: "muted", role: "status" });
  const save = el("button", { type: "button" }, "Save these paths");
  const body = el("tbody");
  const names = ["", "file", "label", "neighbours say", "group", "cluster", "outlier score"];
  const used = [true, true, MAIN.classes.length > 0, Boolean(AT.guess), MAIN.groups.length > 0, true, true];
  const previous = el("button", { type: "button" }, "Previous");
  const next = el("button", { type: "button" }, "Next");
  const rows = () => (order || UNIQUE(COUNT)).filter((i) => FILTER.shown[i]);
  let found = [];
  const draw = () => {
    first = Math.max(0, Math.min(first, Math.floor(Math.max(0, found.length - 1) / PAGE) * PAGE));
    body.replaceChildren(...found.slice(first, first + PAGE).map((i) => {
      const link = el("button", { class: "link", type: "button", onclick: (event) => { cameFrom = event.currentTarget; choose(i, true); } }, pathOf(i));
      const cells = [thumb(i), link, labelOf(i), guessOf(i), groupOf(i), clusterOf(i), AT.outlier[i].toFixed(2)];
      return el("tr", {}, cells.map((cell, at) => (used[at] ? el("td", { "data-name": at > 1 ? names[at] : null, class: at > 4 ? "n" : null }, cell) : null)));
    }));
    count.textContent = found.length ? `${whole(first + 1)}–${whole(Math.min(first + PAGE, found.length))} of ${images(found.length)}` : "No image matches.";
    previous.disabled = first === 0;
    next.disabled = first + PAGE >= found.length;
  };
  const refresh = () => { found = rows(); first = 0; draw(); };
  sort.addEventListener("change", () => {
    order = sort.selectedIndex ? UNIQUE(COUNT).sort((a, b) => AT.outlier[b] - AT.outlier[a]) : null;
    refresh();
  });
  previous.addEventListener("click", () => { first -= PAGE; draw(); });
  next.addEventListener("click", () => { first += PAGE; draw(); });
  save.addEventListener("click", () => {
    const link = el("a", { download: "images.txt", href: URL.createObjectURL(new Blob([found.map((i) => `${pathOf(i)}\n`).join("")], { type: "text/plain" })) });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
  node.append(el("div", { class: "tools" }, el("label", {}, "Sort by", sort), save, count),
    el("div", { class: "scroll" }, el("table", { class: "data list" }, el("thead", {}, el("tr", {}, names.map((name, at) => (used[at] ? el("th", { scope: "col", class: at > 4 ? "n" : null }, name || el("span", { class: "unseen" }, "picture")) : null)))), body)),
    el("div", { class: "row" }, previous, next));
  FILTER.listeners.push(refresh);
  refresh();
}

function aboutSection() {
  const node = section("about", "About this page");
  node.append(el("table", { class: "data facts-of" }, el("tbody", {}, Object.entries(MAIN.facts).map(([name, text]) => el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, text))))),
    el("p", { class: "muted" }, `The map is by ${MAIN.layout}. Distances between far apart images on it mean little; near ones are near in the features, and the list of neighbours is exact. All figures are in `, el("a", { href: MAIN.table }, MAIN.table), "."));
}
