"use strict";
const byId = id => document.getElementById(id);
const { stacks, structures } = JSON.parse(byId("content").textContent);
const colours = new Map(structures.map(({ value, colour }) => [value, colour]));
const names = new Map(structures.map(({ value, name }) => [value, name]));
const shown = new Set(colours.keys());
const controls = document.querySelector(".controls");
const HIGHEST_PIXELS = 2, CONTOUR = 1.5, DIMMED = 0.8;

const bytes = base64 => Uint8Array.from(atob(base64), character => character.charCodeAt(0));

async function inflated(base64) {
  if (!base64) return null;
  const stream = new Blob([bytes(base64)]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function picture(source) {
  const image = new Image();
  image.src = source;
  await image.decode();
  return image;
}

/* The structures at the canvas's own resolution: filled, with a contour that stays clear where the filling is faint. */
function tinted(labels, [columns, rows], width, height, opacity, thickness) {
  const pixels = new ImageData(width, height), data = pixels.data;
  const across = Int32Array.from({ length: width }, (_, x) => Math.floor((x + 0.5) * columns / width));
  const down = Int32Array.from({ length: height }, (_, y) => Math.floor((y + 0.5) * rows / height) * columns);
  const at = (x, y) => x < 0 || y < 0 || x >= width || y >= height ? 0 : labels[down[y] + across[x]];
  const fill = Math.round(255 * opacity), line = Math.round(255 * Math.min(1, opacity * 4));
  for (let y = 0, place = 0; y < height; y++) {
    for (let x = 0; x < width; x++, place += 4) {
      const value = labels[down[y] + across[x]];
      if (!shown.has(value)) continue;
      const edge = at(x - thickness, y) !== value || at(x + thickness, y) !== value
        || at(x, y - thickness) !== value || at(x, y + thickness) !== value;
      data.set(colours.get(value), place);
      data[place + 3] = edge ? line : fill;
    }
  }
  return pixels;
}

class StackView {
  constructor(figure, stack) {
    Object.assign(this, { figure, stack, turn: 0, layers: null });
    this.canvas = figure.querySelector("canvas");
    this.stage = figure.querySelector(".stage");
    this.sheet = figure.querySelector(".sheet");
    this.slider = figure.querySelector("input");
    this.title = figure.querySelector("output");
    this.pointed = figure.querySelector(".pointed");
    this.slider?.addEventListener("input", () => this.load());
    this.stage.addEventListener("keydown", event => this.key(event));
    this.canvas.addEventListener("mousemove", event => this.point(event));
    this.canvas.addEventListener("mouseleave", () => { this.pointed.textContent = ""; });
    addEventListener("resize", () => this.fit());
    this.fit();
  }

  get slice() { return this.stack.slices[this.slider ? Number(this.slider.value) : 0]; }

  async load() {
    const turn = ++this.turn, { slice } = this;
    const [image, uncertainty, labels] = await Promise.all(
      [picture(slice.image), picture(slice.uncertainty), inflated(slice.labels)]);
    if (turn !== this.turn) return;
    this.layers = { image, uncertainty, labels };
    this.title.textContent = slice.title;
    this.slider?.setAttribute("aria-valuetext", slice.title);
    const seen = labels ? [...new Set(labels)].filter(value => names.has(value)).map(value => names.get(value)) : [];
    const what = seen.length ? `with ${seen.join(", ")}` : "no structure";
    this.canvas.setAttribute("aria-label", `${this.stack.title}, ${slice.title}: ${what}`);
    this.draw();
  }

  key(event) {
    const step = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 5, PageDown: -5 }[event.key];
    if (!step || !this.slider || byId("zoom").value !== "1") return;
    event.preventDefault();
    this.slider.value = Number(this.slider.value) + step;
    this.load();
  }

  fit() {
    const [width, height] = this.stack.size, zoom = Number(byId("zoom").value);
    const highest = Math.max(240, 0.78 * innerHeight);
    const room = Math.min(this.stage.clientWidth, highest * width / height);
    Object.assign(this.sheet.style, { width: `${room * zoom}px`, aspectRatio: `${width} / ${height}` });
    Object.assign(this.stage.style, zoom > 1 ? { maxHeight: `${highest}px`, overflow: "auto" } : { maxHeight: "", overflow: "" });
    this.draw();
  }

  draw() {
    if (!this.layers || !this.canvas.clientWidth) return;
    const scale = Math.min(devicePixelRatio, HIGHEST_PIXELS);
    const width = Math.max(1, Math.round(this.canvas.clientWidth * scale));
    const height = Math.max(1, Math.round(this.canvas.clientHeight * scale));
    Object.assign(this.canvas, { width, height });
    const context = this.canvas.getContext("2d"), { image, uncertainty, labels } = this.layers;
    const kind = controls.elements.overlay.value, opacity = Number(byId("opacity").value) / 100;
    context.drawImage(image, 0, 0, width, height);
    if (kind === "structures" && labels) {
      const layer = new OffscreenCanvas(width, height);
      const thickness = Math.max(1, Math.round(CONTOUR * scale));
      layer.getContext("2d").putImageData(tinted(labels, this.stack.grid, width, height, opacity, thickness), 0, 0);
      context.drawImage(layer, 0, 0);
    } else if (kind === "uncertainty") {
      context.globalAlpha = DIMMED * Math.min(1, 2 * opacity);
      context.fillRect(0, 0, width, height);
      context.globalAlpha = Math.min(1, 2 * opacity);
      context.globalCompositeOperation = "screen";
      context.drawImage(uncertainty, 0, 0, width, height);
    }
    if (this.stack.millimetres) this.ruler(context, width, height, scale);
  }

  ruler(context, width, height, scale) {
    const length = [100, 50, 20, 10, 5, 2, 1].find(step => step <= this.stack.size[0] / 4);
    if (!length) return;
    const right = width - 10 * scale, low = height - 10 * scale, left = right - length * width / this.stack.size[0];
    context.globalAlpha = 1;
    context.globalCompositeOperation = "source-over";
    context.font = `${11 * scale}px system-ui, sans-serif`;
    context.textAlign = "right";
    context.lineJoin = "round";
    for (const [colour, extra] of [["#000", 3 * scale], ["#e6ebf0", 0]]) {
      context.strokeStyle = context.fillStyle = colour;
      context.lineWidth = 2 * scale + extra;
      context.beginPath();
      context.moveTo(left, low);
      context.lineTo(right, low);
      context.stroke();
      context.lineWidth = extra;
      if (extra) context.strokeText(`${length} mm`, right, low - 6 * scale);
      else context.fillText(`${length} mm`, right, low - 6 * scale);
    }
  }

  point({ offsetX, offsetY }) {
    const [columns, rows] = this.stack.grid, labels = this.layers?.labels;
    const x = Math.floor(offsetX * columns / this.canvas.clientWidth);
    const y = Math.floor(offsetY * rows / this.canvas.clientHeight);
    const inside = labels && x >= 0 && y >= 0 && x < columns && y < rows;
    this.pointed.textContent = (inside && names.get(labels[y * columns + x])) || "";
  }
}

controls.hidden = false;
document.querySelector(".stacks").hidden = false;
const views = [...document.querySelectorAll(".stacks figure")].map((figure, index) => new StackView(figure, stacks[index]));
for (const view of views) view.load();
controls.addEventListener("submit", event => event.preventDefault());
controls.addEventListener("input", event => {
  byId("opacity-value").textContent = `${byId("opacity").value} %`;
  byId("scale").hidden = controls.elements.overlay.value !== "uncertainty";
  for (const view of views) event.target.id === "zoom" ? view.fit() : view.draw();
  viewer?.setOpacity(1, Number(byId("opacity").value) / 100);
});
for (const box of document.querySelectorAll(".show")) {
  box.addEventListener("change", () => {
    box.checked ? shown.add(Number(box.value)) : shown.delete(Number(box.value));
    for (const view of views) view.draw();
  });
}

/* Scripts beside the page: all that a page opened from a folder may load. */
function load(path) {
  return new Promise((done, failed) => {
    const script = document.createElement("script");
    Object.assign(script, { src: path, onload: done, onerror: () => failed(new Error(path)) });
    document.head.append(script);
  });
}

async function linkNeighbours() {
  await load("../viewer/cases.js");
  const place = runCases.indexOf(document.title);
  if (place < 0 || runCases.length < 2) return;
  for (const [id, other] of [["previous", place - 1], ["next", place + 1]]) {
    if (other in runCases) byId(id).href = `../${encodeURIComponent(runCases[other])}/index.html`;
  }
  byId("position").textContent = `${place + 1} of ${runCases.length}`;
  document.querySelector(".neighbours").hidden = false;
}
linkNeighbours().catch(() => {});

let viewer = null;
const opening = byId("open-viewer"), say = text => { byId("viewer-state").textContent = text; };

async function openViewer() {
  if (!document.createElement("canvas").getContext("webgl2")) {
    say("This browser has no WebGL2, which the viewer needs. The slices above do without.");
    return;
  }
  opening.disabled = true;
  say("Opening \u2026");
  try {
    await load("../viewer/niivue.js");
    await load("viewer.js");
  } catch (error) {
    say(`${error.message} could not be loaded: keep it where the run wrote it. The slices above do without.`);
    opening.disabled = false;
    return;
  }
  const box = document.querySelector(".viewer"), opacity = Number(byId("opacity").value) / 100;
  box.hidden = false;
  const opened = new niivue.Niivue({
    isRadiologicalConvention: true, sagittalNoseLeft: true, show3Dcrosshair: true, dragAndDropEnabled: false, logLevel: "error",
    backColor: [0, 0, 0, 1], crosshairColor: [0.51, 0.74, 1, 0.8], crosshairWidth: 1, loadingText: "",
  });
  await opened.attachToCanvas(byId("viewer"));
  const image = await niivue.NVImage.loadFromBase64({ base64: caseVolume.image, name: "image.nii.gz", cal_min: 0, cal_max: 255 });
  const mask = await niivue.NVImage.loadFromBase64({ base64: caseVolume.mask, name: "mask.nii.gz", opacity });
  const [R, G, B] = [0, 1, 2].map(channel => [0, ...structures.map(({ colour }) => colour[channel])]);
  mask.setColormapLabel({ R, G, B, A: R.map((_, index) => index ? 255 : 0), I: [0, ...structures.map(({ value }) => value)] });
  opened.addVolume(image);
  opened.addVolume(mask);
  viewer = opened;
  const view = byId("viewer-view");
  view.parentElement.hidden = false;
  view.addEventListener("change", () => show(view.value));
  show(view.value);
  opening.hidden = true;
  say("Drag to move the crosshair, to turn in 3D; scroll to change the slice.");
}

function show(view) {
  const kinds = { planes: "MULTIPLANAR", structures: "RENDER", axial: "AXIAL", coronal: "CORONAL", sagittal: "SAGITTAL" };
  viewer.setOpacity(0, view === "structures" ? 0 : 1);
  viewer.setSliceType(niivue.SLICE_TYPE[kinds[view]]);
}

if (opening) {
  opening.disabled = false;
  opening.addEventListener("click", () => openViewer().catch(error => say(`The viewer failed: ${error.message}.`)));
}
