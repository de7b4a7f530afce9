"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const COLOURS = ["#0b62c4", "#d1580b", "#158a4a", "#9136b5", "#b0303c", "#5c6670", "#a58a00", "#00858f"];
const colour = (method) => data.methods.length > COLOURS.length
  ? `hsl(${Math.round(360 * method / data.methods.length)} 70% ${method % 2 ? 32 : 48}%)` : COLOURS[method];

// Tables: a click on a heading sorts, another turns the order round. Numbers begin with the largest, words with A; cells
// without a number come last.
function value(cell) {
  const number = parseFloat(cell.textContent);
  return Number.isNaN(number) ? null : number;
}
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.querySelectorAll("th")];
  const body = table.tBodies[0];
  for (const row of body.rows) {
    if (table.closest("#comparison") && row.cells[1].textContent !== "measured") row.classList.add("elsewhere");
  }
  heads.forEach((head, column) => head.addEventListener("click", () => {
    const rows = [...body.rows];
    const numeric = rows.some((row) => value(row.cells[column]) !== null) && column > 0;
    const [first, second] = numeric ? ["descending", "ascending"] : ["ascending", "descending"];
    const order = head.getAttribute("aria-sort") === first ? second : first;
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", order);
    const sign = order === "descending" ? -1 : 1;
    rows.sort((a, b) => {
      if (!numeric) return sign * a.cells[column].textContent.localeCompare(b.cells[column].textContent);
      const x = value(a.cells[column]), y = value(b.cells[column]);
      if (x === null || y === null) return (x === null) - (y === null);
      return sign * (x - y);
    });
    body.append(...rows);
  }));
}

// Charts, drawn as SVG.
const W = 1100, H = 380, PAD = { left: 56, right: 16, top: 14, bottom: 44 };
function element(name, attributes, parent, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, content] of Object.entries(attributes)) node.setAttribute(key, content);
  if (text !== undefined) node.textContent = text;
  parent.append(node);
  return node;
}
function steps(low, high) {
  const rough = (high - low) / 6, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const ticks = [];
  for (let tick = Math.ceil(low / step) * step; tick <= high + 1e-9; tick += step) ticks.push(+tick.toPrecision(12));
  return ticks;
}
function chart(id, xs, ys, xName, yName) {
  const holder = document.getElementById(id);
  holder.replaceChildren();
  if (!xs.length) { holder.textContent = "nothing to draw"; return null; }
  const span = (values, margin) => {
    // Not of `...values`: a browser takes no hundred thousands of arguments.
    const low = values.reduce((a, b) => Math.min(a, b)), high = values.reduce((a, b) => Math.max(a, b));
    const room = (high - low || 1) * margin;
    return [low - room, high + room];
  };
  const [x0, x1] = span(xs, 0.03), [y0, y1] = span(ys, 0.06);
  const svg = element("svg", { viewBox: `0 0 ${W} ${H}` }, holder);
  const x = (v) => PAD.left + (v - x0) / (x1 - x0) * (W - PAD.left - PAD.right);
  const y = (v) => H - PAD.bottom - (v - y0) / (y1 - y0) * (H - PAD.top - PAD.bottom);
  for (const tick of steps(y0, y1)) {
    element("line", { x1: PAD.left, x2: W - PAD.right, y1: y(tick), y2: y(tick), stroke: "#e3e6ea" }, svg);
    element("text", { x: PAD.left - 8, y: y(tick) + 4, "text-anchor": "end" }, svg, tick);
  }
  for (const tick of steps(x0, x1)) {
    element("line", { x1: x(tick), x2: x(tick), y1: H - PAD.bottom, y2: H - PAD.bottom + 5, stroke: "#9aa3ad" }, svg);
    element("text", { x: x(tick), y: H - PAD.bottom + 19, "text-anchor": "middle" }, svg, tick);
  }
  element("line", { x1: PAD.left, x2: W - PAD.right, y1: H - PAD.bottom, y2: H - PAD.bottom, stroke: "#9aa3ad" }, svg);
  element("text", { x: (PAD.left + W - PAD.right) / 2, y: H - 6, "text-anchor": "middle", class: "name" }, svg, xName);
  element("text", { x: 14, y: H / 2, "text-anchor": "middle", class: "name", transform: `rotate(-90 14 ${H / 2})` }, svg, yName);
  const legend = document.createElement("p");
  legend.className = "legend";
  data.methods.forEach((name, method) => {
    const item = document.createElement("span");
    item.textContent = name;
    item.style.setProperty("--colour", colour(method));
    legend.append(item);
  });
  holder.append(legend);
  return { svg, x, y };
}

const clipChoice = document.getElementById("clip");
data.clips.forEach((clip, index) => clipChoice.append(new Option(clip.name, index)));

function scatter() {
  const points = [];
  data.clips.forEach((clip, index) => clip.psnr.forEach((psnr, method) => {
    if (psnr !== null && clip.pixels !== null) points.push({ index, method, psnr, pixels: clip.pixels, clip });
  }));
  const plot = chart("scatter", points.map((p) => p.pixels), points.map((p) => p.psnr), "motion, HR pixels per frame", "PSNR Y, dB");
  if (!plot) return;
  for (const p of points) {
    const dot = element("circle", { cx: plot.x(p.pixels), cy: plot.y(p.psnr), r: 4, fill: colour(p.method), "fill-opacity": 0.65, style: "cursor: pointer" }, plot.svg);
    element("title", {}, dot, `${p.clip.name} (${p.clip.split}): ${p.pixels.toFixed(2)} pixels, ${p.psnr.toFixed(2)} dB, ${data.methods[p.method]}`);
    dot.addEventListener("click", () => {
      clipChoice.value = p.index;
      lines();
      document.getElementById("frames").scrollIntoView({ behavior: "smooth" });
    });
  }
}

function lines() {
  const clip = data.clips[clipChoice.value];
  if (!clip) return;
  const all = clip.frames.flatMap((frames) => frames || []).filter((frame) => frame[2] !== null);
  const plot = chart("lines", all.map((frame) => frame[0]), all.map((frame) => frame[2]), `frame of ${clip.name}`, "PSNR Y, dB");
  if (!plot) return;
  clip.frames.forEach((frames, method) => {
    const finite = (frames || []).filter((frame) => frame[2] !== null);
    const path = finite.map((frame, i) => `${i ? "L" : "M"}${plot.x(frame[0])} ${plot.y(frame[2])}`).join("");
    element("path", { d: path, fill: "none", stroke: colour(method), "stroke-opacity": 0.6 }, plot.svg);
    for (const [number, given, psnr] of finite) {
      const dot = element("circle", { cx: plot.x(number), cy: plot.y(psnr), r: 4, fill: given ? colour(method) : "#fff", stroke: colour(method), "stroke-width": 1.5 }, plot.svg);
      element("title", {}, dot, `frame ${number}, ${given ? "given" : "synthesised"}: ${psnr.toFixed(2)} dB, ${data.methods[method]}`);
    }
  });
}
clipChoice.addEventListener("change", lines);
scatter();
lines();

// Pictures: the same square of every panel, enlarged.
function enlarge(group) {
  const { x, y, size, width } = Object.fromEntries(Object.entries(group.dataset).map(([key, text]) => [key, +text]));
  for (const figure of group.querySelectorAll("figure")) {
    const image = figure.querySelector("img"), canvas = figure.querySelector("canvas"), box = figure.querySelector(".box");
    const scale = image.naturalWidth / width;
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = false;
    context.drawImage(image, x * scale, y * scale, size * scale, size * scale, 0, 0, canvas.width, canvas.height);
    const height = width * image.naturalHeight / image.naturalWidth;
    box.style.cssText = `left: ${100 * x / width}%; top: ${100 * y / height}%; width: ${100 * size / width}%; height: ${100 * size / height}%`;
  }
}
window.addEventListener("load", () => {
  for (const group of document.querySelectorAll(".panels")) {
    enlarge(group);
    group.addEventListener("click", (event) => {
      if (!event.target.matches("img")) return;
      const image = event.target, shown = image.getBoundingClientRect(), size = +group.dataset.size;
      const width = +group.dataset.width, height = width * image.naturalHeight / image.naturalWidth;
      const place = (part, whole) => Math.max(0, Math.min(whole - size, Math.round((part * whole - size / 2) / 4) * 4));
      group.dataset.x = place((event.clientX - shown.left) / shown.width, width);
      group.dataset.y = place((event.clientY - shown.top) / shown.height, height);
      enlarge(group);
    });
  }
});

// Before / after: any two panels of a frame, divided where the slider is.
const compare = document.getElementById("compare");
if (compare) {
  const groups = [...document.querySelectorAll(".panels")];
  const [pick, left, right, position] = ["pick", "left", "right", "position"].map((id) => document.getElementById(id));
  groups.forEach((group, index) => pick.append(new Option(group.previousElementSibling.textContent, index)));
  const images = () => [...groups[pick.value].querySelectorAll("img")];
  const divide = () => {
    document.getElementById("before").style.clipPath = `inset(0 ${100 - position.value}% 0 0)`;
    compare.querySelector(".handle").style.left = `${position.value}%`;
  };
  const show = () => {
    const truth = images().at(-1);
    const width = `${Math.min(1024, 640 * truth.naturalWidth / truth.naturalHeight)}px`;
    compare.style.maxWidth = position.style.maxWidth = width;
    document.getElementById("before").src = images()[left.value].src;
    document.getElementById("after").src = images()[right.value].src;
    divide();
  };
  const offer = () => {
    for (const [choice, chosen] of [[left, 0], [right, 1]]) {
      choice.replaceChildren(...images().map((image, index) => new Option(image.alt, index, index === chosen, index === chosen)));
    }
    show();
  };
  pick.addEventListener("change", offer);
  left.addEventListener("change", show);
  right.addEventListener("change", show);
  position.addEventListener("input", divide);
  window.addEventListener("load", offer);
}
