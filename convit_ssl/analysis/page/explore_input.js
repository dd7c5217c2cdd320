// Mouse, touch and keys on the map.
function listen(canvas) {
  const pointers = new Map();
  let moved = 0;
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const reach = (event) => (event.pointerType === "mouse" ? 14 : 24);
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, at(event));
    if (pointers.size === 1) moved = 0;
    hideTip();
  });
  canvas.addEventListener("pointermove", (event) => {
    const now = at(event);
    const before = pointers.get(event.pointerId);
    if (!before) { hover(event, nearestTo(...now, reach(event))); return; }
    const other = [...pointers].find(([id]) => id !== event.pointerId);
    if (other) {
      const gap = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]);
      const [x, y] = [(now[0] + other[1][0]) / 2, (now[1] + other[1][1]) / 2];
      zoomBy(gap(now, other[1]) / Math.max(1, gap(before, other[1])), x, y);
      moved += 10;
    } else {
      const [from, to] = [toMap(...before), toMap(...now)];
      VIEW.x += from[0] - to[0];
      VIEW.y += from[1] - to[1];
      moved += Math.hypot(now[0] - before[0], now[1] - before[1]);
      canvas.classList.toggle("dragged", moved > 4);
      if (moved > 4) redrawMap();
    }
    pointers.set(event.pointerId, now);
  });
  const up = (event) => {
    const found = pointers.delete(event.pointerId) && !pointers.size && moved <= 4 && event.type === "pointerup" ? nearestTo(...at(event), reach(event)) : -1;
    canvas.classList.remove("dragged");
    if (found >= 0) choose(found);
  };
  canvas.addEventListener("pointerup", up);
  canvas.addEventListener("pointercancel", up);
  canvas.addEventListener("pointerleave", hideTip);
  canvas.addEventListener("dblclick", (event) => zoomBy(2, ...at(event)));
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    hideTip();
    zoomBy(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0016)), ...at(event));
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    const zoom = { "+": 1.5, "=": 1.5, "-": 1 / 1.5 }[event.key];
    if (!step && !zoom && event.key !== "0") return;
    event.preventDefault();
    if (event.key === "0") resetView();
    else if (zoom) zoomBy(zoom);
    else {
      const next = MAP.chosen < 0 ? nearestTo(canvas.clientWidth / 2, canvas.clientHeight / 2, 1e4) : towards(MAP.chosen, ...step);
      if (next >= 0) choose(next);
    }
  });
}

// The nearest shown image in a direction: within 45 degrees of it.
function towards(from, dx, dy) {
  let best = -1;
  let least = Infinity;
  for (let i = 0; i < COUNT; i += 1) {
    if (i === from || !FILTER.shown[i]) continue;
    const [x, y] = [AT.points[2 * i] - AT.points[2 * from], AT.points[2 * i + 1] - AT.points[2 * from + 1]];
    const along = x * dx + y * dy;
    const aside = Math.abs(x * dy) + Math.abs(y * dx);
    if (along <= 0 || aside > along) continue;
    const far = along * along + aside * aside;
    if (far < least) { least = far; best = i; }
  }
  return best;
}

function hover(event, i) {
  if (i < 0) { hideTip(); return; }
  const canvas = el("canvas", { width: 1, height: 1 });
  const facts = [labelOf(i), groupOf(i) && `group ${groupOf(i)}`, clusterOf(i) && `cluster ${clusterOf(i)}`].filter(Boolean).join(" · ");
  const picture = MAIN.sheet && AT.size[2 * i] ? canvas : null;
  if (picture) drawInto(canvas, i);
  showTip(event.clientX, event.clientY, ...[picture, facts && el("div", {}, facts), el("div", { class: "path" }, pathOf(i))].filter(Boolean));
}
