// The table of small maps over all layers and heads, and the class token's maps.
function galleryCell(packed, image) {
  const wide = innerWidth < 760 ? Math.max(34, Math.min(60, (innerWidth - 130) / packed.heads - 6)) : Math.min(96, 760 / packed.heads);
  return { left: 62, top: 18, width: Math.round(wide), height: Math.round((wide * image.rows) / image.columns), gap: 8 };
}

function drawGallery(canvas, packed, maps, query, view) {
  const cell = galleryCell(packed, maps.image);
  const [stepX, stepY] = [cell.width + 6, cell.height + cell.gap];
  const [width, height] = [cell.left + packed.heads * stepX, cell.top + packed.layers * stepY];
  const dense = Math.min(devicePixelRatio || 1, 2);
  canvas.width = width * dense;
  canvas.height = height * dense;
  canvas.style.width = `${width}px`;
  canvas.cell = { ...cell, stepX, stepY };
  const context = canvas.getContext("2d");
  const style = getComputedStyle(document.documentElement);
  context.scale(dense, dense);
  context.imageSmoothingEnabled = false;
  context.font = "11.5px system-ui, sans-serif";
  context.fillStyle = style.getPropertyValue("--soft");
  for (let head = 0; head < packed.heads; head += 1) context.fillText(`${head}`, cell.left + head * stepX + cell.width / 2 - 3, 11);
  for (let layer = 0; layer < packed.layers; layer += 1) {
    const top = cell.top + layer * stepY;
    context.fillStyle = style.getPropertyValue("--soft");
    context.fillText(`layer ${layer}`, 4, top + cell.height / 2 + 4);
    for (let head = 0; head < packed.heads; head += 1) {
      const map = maps.mixed(layer, head, query);
      const left = cell.left + head * stepX;
      context.drawImage(raster(map, maps.image.rows, maps.image.columns, peakOf(map)), left, top, cell.width, cell.height);
      const share = maps.gate(layer, head);
      if (share !== null) {
        context.fillStyle = style.getPropertyValue("--line");
        context.fillRect(left, top + cell.height + 1, cell.width, 3);
        context.fillStyle = style.getPropertyValue("--accent");
        context.fillRect(left, top + cell.height + 1, cell.width * share, 3);
      }
      if (layer === view.layer && head === view.head) {
        context.strokeStyle = style.getPropertyValue("--accent");
        context.lineWidth = 2.5;
        context.strokeRect(left - 1.5, top - 1.5, cell.width + 3, cell.height + 3);
      }
    }
  }
}

function galleryPlace(canvas, event, packed) {
  const box = canvas.getBoundingClientRect();
  const { left, top, stepX, stepY } = canvas.cell;
  const head = Math.floor((event.clientX - box.left - left) / stepX);
  const layer = Math.floor((event.clientY - box.top - top) / stepY);
  return head >= 0 && head < packed.heads && layer >= 0 && layer < packed.layers ? [layer, head] : null;
}

function drawTokens(holder, packed, maps, view) {
  const { image, picture } = maps;
  if (!image.token_layers.length) {
    holder.replaceChildren(missing("The class token joins after the last layer here, so it attends to nothing."));
    return;
  }
  const layers = image.token_layers.slice(-2);
  const rows = layers.map((layer) => {
    const canvases = [...Array(packed.heads).keys()].map((head) => {
      const canvas = el("canvas", { role: "img", "aria-label": `Class token of layer ${layer}, head ${head}` });
      return [canvas, maps.classToken(layer, head), el("figure", {}, el("figcaption", {}, `head ${head}`), el("div", {}, canvas))];
    });
    return [canvases, el("h4", {}, `Layer ${layer}`), el("div", { class: "cells", style: `--cell:${innerWidth < 760 ? 72 : 110}px;gap:10px` }, canvases.map((item) => item[2]))];
  });
  holder.replaceChildren(el("h3", {}, "Class token of the last layers"), ...rows.flatMap((row) => row.slice(1)));
  for (const [canvases] of rows) for (const [canvas, map] of canvases) paint(canvas, picture, image, map, { over: view.over });
}
