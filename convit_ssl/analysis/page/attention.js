// Attention maps: the content half is stored, the positional half and the mix are computed here.
async function inflate(text, Type) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Type(await new Response(stream).arrayBuffer());
}

async function unpack(packed, image) {
  const picture = new Image();
  picture.src = image.picture;
  const load = (text, Type) => (text ? inflate(text, Type) : null);
  const [codes, peaks, token, tokenPeaks] = await Promise.all([load(image.content, Uint8Array), load(image.peaks, Float32Array),
    load(image.token, Uint8Array), load(image.token_peaks, Float32Array), picture.decode()]);
  const { heads, levels, stride } = packed;
  const patches = image.rows * image.columns;
  const queries = image.query_rows * image.query_columns;
  const code = levels < 16 ? (i) => (codes[i >> 1] >> (i & 1 ? 0 : 4)) & 15 : (i) => codes[i];
  const restore = (read, start, peak, top) => {
    const map = new Float32Array(patches);
    for (let i = 0; i < patches; i += 1) map[i] = (read(start + i) / top) ** 2 * peak;
    return map;
  };
  const snap = (row, column) => {
    const offset = Math.floor(stride / 2);
    const near = (value, count) => Math.min(Math.max(Math.round((value - offset) / stride), 0), count - 1);
    const [i, j] = [near(row, image.query_rows), near(column, image.query_columns)];
    return { index: i * image.query_columns + j, row: Math.min(offset + i * stride, image.rows - 1), column: Math.min(offset + j * stride, image.columns - 1) };
  };
  const content = (layer, head, query) => {
    const row = (layer * heads + head) * queries + query.index;
    return restore(code, row * patches, peaks[row], levels);
  };
  const position = (layer, head, query) => {
    const gpsa = packed.gpsa.indexOf(layer);
    if (gpsa < 0) return null;
    const [a, b, c] = packed.logits[gpsa][head];
    const map = new Float32Array(patches);
    let top = -Infinity;
    for (let i = 0; i < patches; i += 1) {
      const dx = (i % image.columns) - query.column;
      const dy = Math.floor(i / image.columns) - query.row;
      map[i] = a * dx + b * dy + c * (dx * dx + dy * dy);
      if (map[i] > top) top = map[i];
    }
    return normalise(map.map((value) => Math.exp(value - top)));
  };
  const gate = (layer, head) => { const gpsa = packed.gpsa.indexOf(layer); return gpsa < 0 ? null : packed.gates[gpsa][head]; };
  const mixed = (layer, head, query) => {
    const looked = content(layer, head, query);
    const placed = position(layer, head, query);
    if (!placed) return looked;
    const share = gate(layer, head);
    if (share === null) return normalise(looked.map((value, i) => value * placed[i]));
    return looked.map((value, i) => (1 - share) * value + share * placed[i]);
  };
  const classToken = (layer, head) => {
    const at = image.token_layers.indexOf(layer);
    return at < 0 ? null : restore((i) => token[i], (at * heads + head) * patches, tokenPeaks[at * heads + head], 255);
  };
  return { image, picture, snap, gate, content, position, mixed, classToken };
}

function normalise(map) {
  let sum = 0;
  for (const value of map) sum += value;
  return sum > 0 ? map.map((value) => value / sum) : map;
}

// One small opaque canvas with a pixel per patch.
function raster(map, rows, columns, top, signed) {
  const canvas = el("canvas", { width: columns, height: rows });
  const pixels = new ImageData(columns, rows);
  for (let i = 0; i < rows * columns; i += 1) {
    const value = top > 0 ? map[i] / top : 0;
    const rgb = signed ? (value >= 0 ? [230, 159, 0] : [0, 114, 178]) : viridis(Math.sqrt(Math.max(value, 0)));
    pixels.data.set([...rgb, signed ? 235 * Math.sqrt(Math.abs(value)) : 255], i * 4);
  }
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  return canvas;
}

const peakOf = (map) => map.reduce((top, value) => Math.max(top, value), 0);

function paint(canvas, picture, image, map, { over = true, query = null, signed = false, top = null } = {}) {
  const width = Math.max(canvas.parentElement.clientWidth, 40);
  const height = Math.round((width * image.rows) / image.columns);
  const dense = Math.min(devicePixelRatio || 1, 2);
  canvas.width = width * dense;
  canvas.height = height * dense;
  canvas.style.width = `${width}px`;
  const context = canvas.getContext("2d");
  context.scale(dense, dense);
  context.imageSmoothingEnabled = picture.width > 64;
  if (over || !map) {
    if (map) context.filter = "grayscale(1)";
    context.drawImage(picture, 0, 0, width, height);
    context.filter = "none";
  }
  if (map) {
    context.imageSmoothingEnabled = false;
    context.globalAlpha = over && !signed ? 0.72 : 1;
    context.drawImage(raster(map, image.rows, image.columns, top ?? peakOf(map), signed), 0, 0, width, height);
    context.globalAlpha = 1;
  }
  if (query) {
    const [w, h] = [width / image.columns, height / image.rows];
    for (const [colour, line] of [["#000", 4], ["#fff", 2]]) {
      context.strokeStyle = colour;
      context.lineWidth = line;
      context.strokeRect(query.column * w, query.row * h, w, h);
    }
  }
}

function attention() {
  const node = section("attention", "Attention maps", "Click a patch, or move the query with the arrow keys, to see what it attends to. Choose a layer and head in the table of small maps. Colours show the square root of the attention, scaled to the maximum of each map.");
  eachRun(node, (run, body) => {
    if (!run.attention || !run.attention.images.length) { body.append(missing("No attention maps: they need a checkpoint and an image.")); return; }
    explorer(run.attention, body);
  });
}

function explorer(packed, body) {
  const view = { image: Math.min(state.get("image", 0), packed.images.length - 1), layer: Math.min(state.get("layer", 0), packed.layers - 1),
    head: Math.min(state.get("head", 0), packed.heads - 1), over: state.get("over", packed.images[0].width > 64), row: null, column: null };
  const names = ["content", "positional", "mixed"];
  const canvases = names.map((name) => el("canvas", { role: "img" }));
  const captions = names.map(() => el("div", { class: "scale" }));
  const main = el("canvas", { tabindex: 0, role: "application", "aria-label": "Query patch. Arrow keys move it.", style: "cursor:crosshair" });
  const gallery = el("canvas", { tabindex: 0, role: "application", class: "gallery", "aria-label": "All layers and heads. Arrow keys choose one.", style: "cursor:pointer;max-width:none" });
  const says = el("p", { class: "muted says", "aria-live": "polite" });
  const tokens = el("div");
  const layerSelect = el("select", { "aria-label": "Layer" }, [...Array(packed.layers).keys()].map((layer) =>
    el("option", { value: layer }, `Layer ${layer}${packed.gpsa.includes(layer) ? " · GPSA" : ""}`)));
  const headSelect = el("select", { "aria-label": "Head" }, [...Array(packed.heads).keys()].map((head) => el("option", { value: head }, `Head ${head}`)));
  const over = el("button", { type: "button", onclick: () => { view.over = !view.over; draw(); } }, "Over the image");
  const thumbs = packed.images.map((image, index) => el("button", { type: "button", class: "thumb", "aria-label": `Image ${image.name}`,
    onclick: () => { view.image = index; view.row = null; open(); } }, el("img", { src: image.picture, alt: image.name })));
  const shell = el("div", { class: "attention" }, el("figure", {}, el("figcaption", {}, el("b", {}, "Query")), el("div", {}, main)),
    names.map((name, i) => el("figure", {}, el("figcaption", {}, el("b", {}, name)), el("div", {}, canvases[i]), captions[i])));
  body.append(el("div", { class: "row" }, thumbs), el("div", { class: "row", style: "margin-top:10px" }, layerSelect, headSelect, over), shell, says,
    el("div", { class: "scale", style: "max-width:320px" }, "0", el("div", { class: "bar" }), "each map's largest value"),
    el("div", { class: packed.heads > 6 ? null : "split" }, el("div", {}, el("h3", {}, "All layers and heads, mixed"), el("div", { class: "scroll" }, gallery),
      packed.gpsa.length && packed.gated ? el("p", { class: "muted" }, "The line below a map is its gate.") : null), tokens));
  if (packed.stride > 1 || packed.levels < 16) {
    body.append(el("p", { class: "muted" }, `To keep this page small, maps are stored in ${packed.levels < 16 ? "16" : "256"} steps${packed.stride > 1 ? ` and for every ${packed.stride}th query patch in each direction; a click takes the nearest` : ""}.`));
  }
  let maps = null;
  const cache = new Map();
  async function open() {
    const wanted = view.image;
    if (!cache.has(wanted)) cache.set(wanted, await unpack(packed, packed.images[wanted]));
    if (wanted !== view.image) return;
    maps = cache.get(wanted);
    if (view.row === null) [view.row, view.column] = [Math.floor(maps.image.rows / 2), Math.floor(maps.image.columns / 2)];
    draw();
  }
  function draw() {
    if (!maps || !main.isConnected) return;
    for (const key of ["image", "layer", "head", "over"]) state.set(key, view[key]);
    const query = maps.snap(view.row, view.column);
    const { image, picture } = maps;
    layerSelect.value = view.layer;
    headSelect.value = view.head;
    over.setAttribute("aria-pressed", view.over);
    thumbs.forEach((thumb, i) => thumb.setAttribute("aria-pressed", i === view.image));
    const drawn = [maps.content, maps.position, maps.mixed].map((make) => make(view.layer, view.head, query));
    shell.classList.toggle("plain", !drawn[1]);
    [1, 2].forEach((i) => { canvases[i].closest("figure").hidden = !drawn[1]; });
    paint(main, picture, image, null, { query });
    drawn.forEach((map, i) => {
      if (!map || (i && !drawn[1])) return;
      paint(canvases[i], picture, image, map, { over: view.over, query });
      const distance = map.reduce((sum, value, k) => sum + value * Math.hypot((k % image.columns) - query.column, Math.floor(k / image.columns) - query.row), 0);
      const text = `peak ${(100 * peakOf(map)).toFixed(1)} %, mean distance ${distance.toFixed(2)} patches`;
      captions[i].textContent = text;
      canvases[i].setAttribute("aria-label", `${names[i]} attention of layer ${view.layer}, head ${view.head}: ${text}`);
    });
    const share = maps.gate(view.layer, view.head);
    says.textContent = `Layer ${view.layer}, head ${view.head}; query in row ${query.row}, column ${query.column} of ${image.rows} × ${image.columns} patches. ` +
      (share === null ? (drawn[1] ? "No gate: content and position are multiplied." : "A plain layer: content only.") : `Gate ${share.toFixed(3)}: mixed = ${(1 - share).toFixed(2)} content + ${share.toFixed(2)} positional.`);
    drawGallery(gallery, packed, maps, query, view);
    drawTokens(tokens, packed, maps, view);
  }
  layerSelect.addEventListener("change", () => { view.layer = Number(layerSelect.value); draw(); });
  headSelect.addEventListener("change", () => { view.head = Number(headSelect.value); draw(); });
  main.addEventListener("click", (event) => {
    const box = main.getBoundingClientRect();
    view.row = Math.floor(((event.clientY - box.top) / box.height) * maps.image.rows);
    view.column = Math.floor(((event.clientX - box.left) / box.width) * maps.image.columns);
    draw();
  });
  const arrows = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  const within = (value, count) => Math.min(Math.max(value, 0), count - 1);
  main.addEventListener("keydown", (event) => {
    const step = arrows[event.key];
    if (!step || !maps) return;
    event.preventDefault();
    view.row = within(view.row + step[0] * packed.stride, maps.image.rows);
    view.column = within(view.column + step[1] * packed.stride, maps.image.columns);
    draw();
  });
  gallery.addEventListener("keydown", (event) => {
    const step = arrows[event.key];
    if (!step) return;
    event.preventDefault();
    view.layer = within(view.layer + step[0], packed.layers);
    view.head = within(view.head + step[1], packed.heads);
    draw();
  });
  gallery.addEventListener("click", (event) => {
    const place = galleryPlace(gallery, event, packed);
    if (place) { [view.layer, view.head] = place; draw(); }
  });
  let width = 0;
  new ResizeObserver(() => { if (Math.abs(body.clientWidth - width) > 1) { width = body.clientWidth; draw(); } }).observe(body);
  redraws.push(draw);
  open().catch((error) => body.append(missing(`The maps could not be unpacked (${error.message}); this needs a browser of 2023 or later.`)));
}
