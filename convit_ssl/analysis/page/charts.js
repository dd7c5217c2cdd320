// Charts drawn as SVG at the width they have, so that text keeps its size on a phone.
function ticks(low, high, count, whole) {
  const span = high - low || 1;
  const raw = Math.max(span / Math.max(count, 1), whole ? 1 : 0);
  const power = 10 ** Math.floor(Math.log10(raw));
  const factors = whole ? [1, 2, 5, 10] : [1, 2, 2.5, 5, 10];
  const step = factors.map((factor) => factor * power).find((value) => value >= raw);
  const values = [];
  for (let index = Math.ceil(low / step - 1e-9); index * step <= high + step * 1e-9; index += 1) {
    values.push(index * step);
  }
  return values;
}

function extent(values, fallback) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    if (value === null || !Number.isFinite(value)) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (low > high) return fallback;
  if (low === high) { const pad = Math.abs(low) * 0.1 || 0.5; return [low - pad, high + pad]; }
  return [low, high];
}

const tickText = (value, span) => {
  if (value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e5)) return value.toExponential(Math.abs(value / span) > 50 ? 2 : 1).replace("e+", "e");
  return String(Number(value.toPrecision(6)));
};

function frame(width, height, xDomain, yDomain, options) {
  const left = options.left || 48;
  const box = { left, right: width - (options.right || 10), top: 8, bottom: height - (options.xLabel === "" ? 22 : 36) };
  const x = (value) => box.left + ((value - xDomain[0]) / (xDomain[1] - xDomain[0])) * (box.right - box.left);
  const y = (value) => box.bottom - ((value - yDomain[0]) / (yDomain[1] - yDomain[0])) * (box.bottom - box.top);
  const svg = el("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, height, role: "img", tabindex: 0, "aria-label": options.alt });
  for (const value of ticks(...yDomain, options.yTicks || 4)) {
    svg.append(el("line", { class: "grid", x1: box.left, x2: box.right, y1: y(value), y2: y(value) }),
      el("text", { x: box.left - 6, y: y(value) + 4, "text-anchor": "end" }, tickText(value, yDomain[1] - yDomain[0])));
  }
  const texts = options.xNames || null;
  const marks = ticks(...xDomain, Math.max(2, Math.floor(width / 75)), options.whole);
  for (const value of texts ? texts.keys() : marks) {
    svg.append(el("text", { x: x(value), y: box.bottom + 16, "text-anchor": "middle" }, texts ? texts[value] : tickText(value, 1)));
  }
  svg.append(el("line", { class: "grid", x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom }));
  if (options.xLabel !== "") svg.append(el("text", { x: (box.left + box.right) / 2, y: height - 3, "text-anchor": "middle" }, options.xLabel || "epoch"));
  return { svg, x, y, box };
}

function linePath(points, x, y) {
  let path = "";
  let pen = false;
  for (const [px, py] of points) {
    if (py === null || !Number.isFinite(py)) { pen = false; continue; }
    path += `${pen ? "L" : "M"}${x(px).toFixed(1)} ${y(py).toFixed(1)}`;
    pen = true;
  }
  return path;
}

// series: [{name, colour, dash, points: [[x, y]], dots}], lines: [{name, value}] across the chart.
function lineChart(options) {
  const holder = el("div");
  const series = options.series.filter((item) => item.points.length);
  const alt = options.alt || `${options.title}. ${describe(series)}`;
  responsive(holder, (width) => {
    const values = series.flatMap((item) => item.points.map((point) => point[1]));
    const extra = (options.lines || []).map((line) => line.value);
    const yDomain = options.yDomain || within(padded(extent([...values, ...extra], [0, 1]), options.fromZero), [...values, ...extra], 1);
    const xDomain = options.xDomain || extent(series.flatMap((item) => item.points.map((point) => point[0])), [0, 1]);
    const { svg, x, y, box } = frame(width, options.height || 210, xDomain, yDomain, { ...options, alt });
    for (const line of options.lines || []) {
      svg.append(el("line", { x1: box.left, x2: box.right, y1: y(line.value), y2: y(line.value), stroke: "var(--soft)", "stroke-dasharray": "2 4", "stroke-width": 1.5 }),
        el("text", { x: box.left + 4, y: y(line.value) - 5 }, line.name));
    }
    for (const item of series) {
      svg.append(el("path", { d: linePath(item.points, x, y), fill: "none", stroke: item.colour, "stroke-width": item.width || 2, "stroke-linejoin": "round", "stroke-dasharray": item.dash || null }));
      if (item.dots || item.points.length < 3) {
        for (const [px, py] of item.points) if (py !== null) svg.append(el("circle", { cx: x(px), cy: y(py), r: item.r || 3.5, fill: item.colour }));
      }
      for (const [px, py] of item.cloud || []) if (py !== null) svg.append(el("circle", { cx: x(px), cy: y(py), r: 2.6, fill: item.colour, opacity: 0.45 }));
    }
    crosshair(svg, series, x, y, box, options);
    holder.replaceChildren(svg);
  });
  return holder;
}

function padded([low, high], fromZero) {
  const pad = (high - low) * 0.06;
  return [fromZero || (low >= 0 && low < (high - low) * 0.15) ? Math.min(0, low) : low - pad, high + pad];
}

// No axis beyond 0 to top where no value is: an accuracy ends at 1 or at 100 %.
function within([low, high], values, top) {
  const known = values.filter((value) => value !== null && Number.isFinite(value));
  return known.length && known.every((value) => value >= 0 && value <= top) ? [Math.max(low, 0), Math.min(high, top)] : [low, high];
}

function describe(series) {
  return series.slice(0, 12).map((item) => {
    const known = item.points.filter((point) => point[1] !== null);
    if (!known.length) return `${item.name}: nothing measured`;
    return `${item.name}: from ${format(known[0][1])} to ${format(known[known.length - 1][1])}`;
  }).join("; ");
}

// Values under the pointer, or under the arrow keys once the chart has the focus.
function crosshair(svg, series, x, y, box, options) {
  const places = [...new Set(series.flatMap((item) => item.points.map((point) => point[0])))].sort((a, b) => a - b);
  if (!places.length) return;
  const line = el("line", { class: "cross", y1: box.top, y2: box.bottom, visibility: "hidden" });
  svg.append(line);
  let index = -1;
  const show = (clientX, clientY) => {
    const place = places[index];
    line.setAttribute("x1", x(place));
    line.setAttribute("x2", x(place));
    line.setAttribute("visibility", "visible");
    const name = options.xNames ? options.xNames[place] : format(place);
    const rows = series.map((item) => {
      const near = item.points.reduce((best, point) => (Math.abs(point[0] - place) < Math.abs(best[0] - place) ? point : best));
      return el("div", {}, el("i", { style: `background:${item.colour}` }), `${item.name}: ${format(near[1])}`);
    });
    showTip(clientX, clientY, el("b", {}, `${options.xLabel || "epoch"} ${name}`), ...rows.slice(0, 20));
  };
  const scale = () => svg.getBoundingClientRect().width / svg.viewBox.baseVal.width || 1;
  svg.addEventListener("pointermove", (event) => {
    const at = (event.clientX - svg.getBoundingClientRect().left) / scale();
    index = places.reduce((best, place, i) => (Math.abs(x(place) - at) < Math.abs(x(places[best]) - at) ? i : best), 0);
    show(event.clientX, event.clientY);
  });
  const leave = () => { line.setAttribute("visibility", "hidden"); hideTip(); };
  svg.addEventListener("pointerleave", leave);
  svg.addEventListener("blur", leave);
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, Home: -1e9, End: 1e9 }[event.key];
    if (!step) return;
    event.preventDefault();
    index = Math.min(Math.max(index + step, 0), places.length - 1);
    const bounds = svg.getBoundingClientRect();
    show(bounds.left + x(places[index]) * scale(), bounds.top + 20);
  });
}

const LETTER = 6.6; // pixels of a letter of a chart, about

// A name that fits; the whole one is in the cells' titles.
function shortened(name, letters) {
  return name.length > letters ? `${name.slice(0, letters - 1)}…` : name;
}

// A table of coloured cells with their values; rows: [{name, values}]. Heads that are wider than
// their columns are slanted.
function heatTable(options) {
  const holder = el("div", { class: "scroll" });
  responsive(holder, (width) => {
    const columns = options.columns.length;
    const left = options.left || 62;
    const longest = LETTER * Math.max(...options.columns.map((name) => name.length));
    const cellOf = (right) => Math.max(options.smallest || 26, Math.min(options.largest || 54, (width - left - right - 8) / columns));
    const slanted = longest > cellOf(0);
    const lean = slanted ? 0.71 * longest : 0;
    const cell = cellOf(Math.max(0, lean - cellOf(lean) / 2));
    const high = Math.min(cell, options.tall || 30);
    const total = left + cell * columns + 2 + Math.max(0, lean - cell / 2);
    const heads = 18 + lean;
    const height = heads + high * options.rows.length + 16;
    const svg = el("svg", { class: "chart", viewBox: `0 0 ${total} ${height}`, height, role: "img", "aria-label": options.alt, style: `width:${total}px` });
    options.columns.forEach((name, i) => {
      const x = left + cell * (i + 0.5), y = heads - 6;
      svg.append(el("text", slanted ? { x, y, transform: `rotate(-45 ${x} ${y})` } : { x, y, "text-anchor": "middle" }, name));
    });
    options.rows.forEach((row, r) => {
      const top = heads + r * high;
      svg.append(el("text", { x: left - 8, y: top + high / 2 + 4, "text-anchor": "end" }, row.name));
      row.values.forEach((value, c) => {
        const colour = value === null ? null : viridis(options.colour ? options.colour(value, r) : value);
        const text = options.text ? options.text(value) : value === null ? "–" : value.toFixed(2);
        svg.append(el("g", {}, el("title", {}, `${row.name}, ${options.columnName || ""} ${options.columns[c]}: ${text}`),
          el("rect", { x: left + cell * c + 1, y: top + 1, width: cell - 2, height: high - 2, rx: 3, fill: colour ? css(colour) : "var(--shade)" }),
          el("text", { x: left + cell * (c + 0.5), y: top + high / 2 + 4, "text-anchor": "middle", style: `fill:${colour ? inkOn(colour) : "var(--soft)"};font-size:${Math.min(11.5, cell / 2.6)}px` }, text)));
      });
    });
    if (options.xLabel) svg.append(el("text", { x: left + (cell * columns) / 2, y: height - 2, "text-anchor": "middle" }, options.xLabel));
    holder.replaceChildren(svg);
  });
  return holder;
}
