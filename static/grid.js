// All heads on one canvas: rows are layers, columns are heads, each a thumbnail of its weights.

import { now, onShow, show } from "./address.js";
import { shades } from "./theme.js";

const GAP = 2; // px between thumbnails
const LABEL = 22; // px for the numbers on the edges
const LARGEST = 40; // px of a thumbnail's side
const SMALLEST = 8;
const TALLEST = 860; // px of the whole grid, if that leaves thumbnails that can be told apart

/** Follows the chosen head, and chooses it. */
export class Grid {
  /** @param {HTMLCanvasElement} canvas @param {HTMLElement} name says which head is under the pointer */
  constructor(canvas, name) {
    this.canvas = canvas;
    this.name = name;
    this.grid = null;
    canvas.addEventListener("pointermove", (event) => this.say(this.at(event)));
    canvas.addEventListener("pointerleave", () => this.say(null));
    canvas.addEventListener("click", (event) => this.choose(this.at(event)));
    canvas.addEventListener("keydown", (event) => this.move(event));
    onShow(() => this.grid && this.draw(this.grid));
    new ResizeObserver(() => this.grid && this.draw(this.grid)).observe(canvas.parentElement);
  }

  /** @param {import("./frame.js").Tensor} grid weights as bytes, layer × head × query × key */
  draw(grid) {
    this.grid = grid;
    const [nLayers, nHeads, n] = grid.shape;
    const room = this.canvas.parentElement.clientWidth - LABEL;
    const low = Math.max(14, Math.floor(TALLEST / nLayers) - GAP);
    this.side = Math.max(SMALLEST, Math.min(LARGEST, low, Math.floor(room / nHeads) - GAP));
    const scale = devicePixelRatio;
    const width = LABEL + nHeads * (this.side + GAP);
    const height = LABEL + nLayers * (this.side + GAP);
    this.canvas.width = Math.round(width * scale);
    this.canvas.height = Math.round(height * scale);
    this.canvas.style.width = `${width}px`;
    this.canvas.style.height = `${height}px`;
    const pen = this.canvas.getContext("2d");
    this.paint(pen, grid, n, scale);
    pen.scale(scale, scale);
    this.label(pen, nLayers, nHeads);
    this.mark(pen);
    this.say(null);
  }

  /** Write every thumbnail's pixels into one image; a pixel is the largest of the cells it covers. */
  paint(pen, { values, shape: [nLayers, nHeads] }, n, scale) {
    const image = pen.createImageData(this.canvas.width, this.canvas.height);
    const palette = shades();
    const side = Math.round(this.side * scale);
    const first = Array.from({ length: side }, (_, i) => Math.floor((i * n) / side));
    const last = Array.from({ length: side }, (_, i) => Math.max(first[i] + 1, Math.floor(((i + 1) * n) / side)));
    for (let layer = 0; layer < nLayers; layer++) {
      for (let head = 0; head < nHeads; head++) {
        const base = (layer * nHeads + head) * n * n;
        const left = Math.round((LABEL + head * (this.side + GAP)) * scale);
        const top = Math.round((LABEL + layer * (this.side + GAP)) * scale);
        for (let y = 0; y < side; y++) {
          for (let x = 0; x < side && first[x] <= last[y] - 1; x++) {
            let most = 0;
            for (let query = first[y]; query < last[y]; query++)
              for (let key = first[x]; key < last[x]; key++) most = Math.max(most, values[base + query * n + key]);
            const at = 4 * ((top + y) * image.width + left + x);
            [image.data[at], image.data[at + 1], image.data[at + 2]] = palette[most];
            image.data[at + 3] = 255;
          }
        }
      }
    }
    pen.putImageData(image, 0, 0);
  }

  label(pen, nLayers, nHeads) {
    const style = getComputedStyle(document.documentElement);
    pen.fillStyle = style.getPropertyValue("--faint");
    pen.font = `10px ${style.getPropertyValue("--font")}`;
    pen.textBaseline = "middle";
    pen.textAlign = "right";
    const step = this.side < 14 ? 2 : 1;
    for (let layer = 0; layer < nLayers; layer += step)
      pen.fillText(layer, LABEL - 5, LABEL + layer * (this.side + GAP) + this.side / 2);
    pen.textAlign = "center";
    for (let head = 0; head < nHeads; head += step)
      pen.fillText(head, LABEL + head * (this.side + GAP) + this.side / 2, LABEL - 9);
  }

  mark(pen) {
    const { layer, head } = now();
    pen.strokeStyle = getComputedStyle(document.documentElement).getPropertyValue("--accent");
    pen.lineWidth = 2;
    const pitch = this.side + GAP;
    pen.strokeRect(LABEL + head * pitch - 1, LABEL + layer * pitch - 1, this.side + 2, this.side + 2);
  }

  /** The head under the pointer, or null. */
  at(event) {
    if (!this.grid) return null;
    const layer = Math.floor((event.offsetY - LABEL) / (this.side + GAP));
    const head = Math.floor((event.offsetX - LABEL) / (this.side + GAP));
    const [nLayers, nHeads] = this.grid.shape;
    return layer >= 0 && layer < nLayers && head >= 0 && head < nHeads ? { layer, head } : null;
  }

  say(place) {
    const { layer, head } = place ?? now();
    this.name.textContent = `${place ? "" : "chosen: "}layer ${layer}, head ${head}`;
    this.canvas.title = place ? `layer ${layer}, head ${head}` : "";
  }

  choose(place) {
    if (place) show(place);
  }

  move(event) {
    const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    const step = steps[event.key];
    if (!step || !this.grid || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const [nLayers, nHeads] = this.grid.shape;
    const { layer, head } = now();
    show({
      layer: Math.min(Math.max(layer + step[0], 0), nLayers - 1),
      head: Math.min(Math.max(head + step[1], 0), nHeads - 1),
    });
  }
}
