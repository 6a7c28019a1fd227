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
    /** @type {import("./picture.js").Picture | null} */
    this.picture = null;
    /** @type {[number, number]} */
    this.shape = [0, 0]; // layers, heads
    this.side = 0; // px of a thumbnail
    /** @type {[number, number] | null} */
    this.marked = null; // layer and head
    canvas.addEventListener("pointermove", (event) => this.say(this.at(event)));
    canvas.addEventListener("pointerleave", () => this.say(null));
    canvas.addEventListener("click", (event) => this.choose(this.at(event)));
    canvas.addEventListener("keydown", (event) => this.move(event));
    onShow(({ layer, head }) => String([layer, head]) !== String(this.marked) && this.redraw());
    new ResizeObserver(() => this.redraw()).observe(canvas.parentElement);
  }

  /** @param {import("./picture.js").Picture} picture @param {[layers: number, heads: number]} shape of the model */
  draw(picture, shape) {
    this.picture = picture;
    this.shape = shape;
    const [nLayers, nHeads] = shape;
    const room = this.canvas.parentElement.clientWidth - LABEL;
    const low = Math.max(14, Math.floor(TALLEST / nLayers) - GAP);
    this.side = Math.max(SMALLEST, Math.min(LARGEST, low, Math.floor(room / nHeads) - GAP));
    const scale = devicePixelRatio;
    this.scale = scale;
    const width = LABEL + nHeads * (this.side + GAP);
    const height = LABEL + nLayers * (this.side + GAP);
    this.canvas.width = Math.round(width * scale);
    this.canvas.height = Math.round(height * scale);
    this.canvas.style.width = `${width}px`;
    this.canvas.style.height = `${height}px`;
    const pen = this.canvas.getContext("2d");
    const palette = packedShades();
    picture.layers.forEach((_, layer) => this.paint(pen, layer, palette));
    this.label(pen, nLayers, nHeads);
    this.mark(pen);
    this.say(null);
  }

  /** Some layers of the same picture have come. @param {import("./picture.js").Picture} picture */
  add(picture) {
    const before = this.picture.layers;
    this.picture = picture;
    const pen = this.canvas.getContext("2d");
    const palette = packedShades();
    picture.layers.forEach((thumbnails, layer) => thumbnails !== before[layer] && this.paint(pen, layer, palette));
    this.mark(pen);
  }

  /** The same again, at today's size, in today's colours, with today's choice. */
  redraw() {
    if (this.picture) this.draw(this.picture, this.shape);
  }

  /** Write a layer's thumbnails into one image. Where a thumbnail has several cells a pixel, it shows the largest.
   *  @param {CanvasRenderingContext2D} pen @param {number} layer @param {Uint32Array} palette */
  paint(pen, layer, palette) {
    const { picture, shape: [, nHeads], side: width } = this;
    const { nTokens, side: nColumns, pixels } = picture.layers[layer];
    const n = Math.ceil(picture.header.n_tokens / picture.step);
    const nRows = Math.ceil(nTokens / picture.step); // below them nothing has come yet
    const side = Math.round(width * this.scale);
    const edge = this.start(0); // what is to the left of it stays
    const image = pen.createImageData(this.canvas.width - edge, side);
    const colours = new Uint32Array(image.data.buffer);
    const first = Array.from({ length: side }, (_, i) => Math.floor((i * n) / side));
    const last = Array.from({ length: side }, (_, i) => Math.max(first[i] + 1, Math.floor(((i + 1) * n) / side)));
    for (let head = 0; head < nHeads; head++) {
      const base = head * nColumns * nColumns;
      const left = this.start(head) - edge;
      for (let y = 0; y < side && first[y] < nRows; y++) {
        for (let x = 0; x < side && first[x] < last[y]; x++) {
          let most = 0;
          for (let query = first[y]; query < Math.min(last[y], nRows); query++)
            for (let key = first[x]; key < Math.min(last[x], nColumns); key++)
              most = Math.max(most, pixels[base + query * nColumns + key]);
          colours[y * image.width + left + x] = palette[most];
        }
      }
    }
    pen.putImageData(image, edge, this.start(layer));
  }

  /** Where the thumbnails of a layer, or of a head, begin; in pixels of the canvas, which are those of the screen.
   *  @param {number} place */
  start(place) {
    return Math.round((LABEL + place * (this.side + GAP)) * this.scale);
  }

  /** @param {CanvasRenderingContext2D} pen @param {number} nLayers @param {number} nHeads */
  label(pen, nLayers, nHeads) {
    pen.setTransform(this.scale, 0, 0, this.scale, 0, 0);
    const style = getComputedStyle(document.documentElement);
    pen.fillStyle = style.getPropertyValue("--faint");
    pen.font = `10px ${style.getPropertyValue("--font")}`;
    pen.textBaseline = "middle";
    pen.textAlign = "right";
    const step = this.side < 14 ? 2 : 1;
    for (let layer = 0; layer < nLayers; layer += step)
      pen.fillText(String(layer), LABEL - 5, LABEL + layer * (this.side + GAP) + this.side / 2);
    pen.textAlign = "center";
    for (let head = 0; head < nHeads; head += step)
      pen.fillText(String(head), LABEL + head * (this.side + GAP) + this.side / 2, LABEL - 9);
  }

  /** A frame around the chosen thumbnail, in the gaps to its neighbours: it hides no pixel of any.
   *  @param {CanvasRenderingContext2D} pen */
  mark(pen) {
    const { layer, head } = now();
    this.marked = [layer, head];
    const [nLayers, nHeads] = this.shape;
    if (layer >= nLayers || head >= nHeads) return; // an address may ask for what is not there
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--accent");
    const side = Math.round(this.side * this.scale);
    const [left, top] = [this.start(head), this.start(layer)];
    const [before, above] = [head, layer].map((place) => this.start(place) - this.start(place - 1) - side);
    const [behind, below] = [head, layer].map((place) => this.start(place + 1) - this.start(place) - side);
    const width = before + side + behind;
    pen.fillRect(left - before, top - above, width, above);
    pen.fillRect(left - before, top + side, width, below);
    pen.fillRect(left - before, top, before, side);
    pen.fillRect(left + side, top, behind, side);
  }

  /** The head under the pointer, or null. @param {MouseEvent} event */
  at(event) {
    if (!this.picture) return null;
    const layer = Math.floor((event.offsetY - LABEL) / (this.side + GAP));
    const head = Math.floor((event.offsetX - LABEL) / (this.side + GAP));
    const [nLayers, nHeads] = this.shape;
    return layer >= 0 && layer < nLayers && head >= 0 && head < nHeads ? { layer, head } : null;
  }

  /** @param {{layer: number, head: number} | null} place */
  say(place) {
    const { layer, head } = place ?? now();
    this.name.textContent = `${place ? "" : "chosen: "}layer ${layer}, head ${head}`;
    this.canvas.title = place ? `layer ${layer}, head ${head}` : "";
  }

  /** @param {{layer: number, head: number} | null} place */
  choose(place) {
    if (place) show(place);
  }

  /** @param {KeyboardEvent} event */
  move(event) {
    /** @type {Record<string, [number, number]>} */
    const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    const step = steps[event.key];
    if (!step || !this.picture || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const [nLayers, nHeads] = this.shape;
    const { layer, head } = now();
    show({
      layer: Math.min(Math.max(layer + step[0], 0), nLayers - 1),
      head: Math.min(Math.max(head + step[1], 0), nHeads - 1),
    });
  }
}

/** The scale of weights as 256 pixels of an image: bytes r, g, b, a. */
function packedShades() {
  const bytes = new Uint8Array(shades().flatMap((colour) => [...colour, 255]));
  return new Uint32Array(bytes.buffer);
}
