// All heads on one canvas: one row per layer, one column per head, each a thumbnail of its attention weights.

import { currentState, navigate, onChange, update } from "./address.js";
import { HeadCells } from "./head_cells.js";
import { HeadPreview } from "./head_preview.js";
import { moved } from "./heatmap_layout.js";
import { weightColours } from "./theme.js";

const GAP = 2; // px between thumbnails
const LABEL = 22; // px for the numbers of layers and heads at the edges
const MAX_SIDE = 40; // px of a thumbnail
const MIN_SIDE = 8;
const MAX_HEIGHT = 860; // px of the whole grid, unless thumbnails would become too small to tell apart

/** Shows all heads, marks the chosen one, and lets the user choose one by click or arrow keys. */
export class Grid {
  /** @param {HTMLCanvasElement} canvas @param {HTMLElement} caption names the head under the pointer */
  constructor(canvas, caption) {
    this.canvas = canvas;
    this.caption = caption;
    /** @type {import("./client_state.js").ClientState | null} */
    this.clientState = null;
    /** @type {[number, number]} */
    this.shape = [0, 0]; // layers, heads
    this.side = 0; // px of a thumbnail
    /** @type {[number, number] | null} */
    this.marked = null; // layer and head
    this.preview = new HeadPreview();
    canvas.addEventListener("pointermove", (event) => this.describe(this.headAt(event)));
    canvas.addEventListener("pointermove", (event) => event.pointerType !== "touch" && this.showPreview(this.headAt(event)));
    canvas.addEventListener("pointerleave", () => this.describe(null));
    for (const name of ["pointerleave", "blur"]) canvas.addEventListener(name, () => this.showPreview(null));
    canvas.addEventListener("click", (event) => this.choose(this.headAt(event)));
    canvas.addEventListener("keydown", (event) => this.onKey(event));
    this.cells = new HeadCells(canvas);
    onChange(({ layer, head }) => String([layer, head]) !== String(this.marked) && this.redraw());
    new ResizeObserver(() => this.redraw()).observe(canvas.parentElement);
  }

  /** @param {import("./client_state.js").ClientState} clientState @param {[layers: number, heads: number]} shape of the model */
  draw(clientState, shape) {
    this.clientState = clientState;
    this.shape = shape;
    this.resize();
    const context = this.canvas.getContext("2d");
    const palette = packedColours();
    clientState.layers.forEach((_, layer) => this.paintLayer(context, layer, palette));
    this.label(context);
    this.markChosen(context);
    this.describe(null);
    this.preview.refresh(clientState);
  }

  /** Draw the layers of the same text that have arrived since. @param {import("./client_state.js").ClientState} clientState */
  addLayers(clientState) {
    const before = this.clientState.layers;
    this.clientState = clientState;
    const context = this.canvas.getContext("2d");
    const palette = packedColours();
    clientState.layers.forEach((thumbnails, layer) => thumbnails !== before[layer] && this.paintLayer(context, layer, palette));
    this.markChosen(context);
    this.preview.refresh(clientState);
  }

  /** Draw the same text again, for another size, colour scheme or choice. */
  redraw() {
    if (this.clientState) this.draw(this.clientState, this.shape);
  }

  /** Choose the size of thumbnails that fits the page, and clear the canvas. */
  resize() {
    const [nLayers, nHeads] = this.shape;
    const available = this.canvas.parentElement.clientWidth - LABEL;
    const fromHeight = Math.max(14, Math.floor(MAX_HEIGHT / nLayers) - GAP);
    this.side = Math.max(MIN_SIDE, Math.min(MAX_SIDE, fromHeight, Math.floor(available / nHeads) - GAP));
    this.scale = devicePixelRatio;
    const width = LABEL + nHeads * (this.side + GAP);
    const height = LABEL + nLayers * (this.side + GAP);
    this.canvas.width = Math.round(width * this.scale);
    this.canvas.height = Math.round(height * this.scale);
    this.canvas.style.width = `${width}px`;
    this.canvas.style.height = `${height}px`;
  }

  /** Draw the thumbnails of one layer. Where a pixel covers several cells, it shows the largest.
   *  @param {CanvasRenderingContext2D} context @param {number} layer @param {Uint32Array} palette */
  paintLayer(context, layer, palette) {
    const { clientState, shape: [, nHeads] } = this;
    const { nTokens, side: nColumns, pixels } = clientState.layers[layer];
    const n = Math.ceil(clientState.header.n_tokens / clientState.pixelSize);
    const nRows = Math.ceil(nTokens / clientState.pixelSize); // the rows below have not arrived yet
    const side = Math.round(this.side * this.scale);
    const labelWidth = this.offset(0);
    const image = context.createImageData(this.canvas.width - labelWidth, side);
    const colours = new Uint32Array(image.data.buffer);
    const first = Array.from({ length: side }, (_, i) => Math.floor((i * n) / side));
    const last = Array.from({ length: side }, (_, i) => Math.max(first[i] + 1, Math.floor(((i + 1) * n) / side)));
    for (let head = 0; head < nHeads; head++) {
      const base = head * nColumns * nColumns;
      const left = this.offset(head) - labelWidth;
      for (let y = 0; y < side && first[y] < nRows; y++) {
        for (let x = 0; x < side && first[x] < last[y]; x++) {
          let largest = 0;
          for (let query = first[y]; query < Math.min(last[y], nRows); query++)
            for (let key = first[x]; key < Math.min(last[x], nColumns); key++)
              largest = Math.max(largest, pixels[base + query * nColumns + key]);
          colours[y * image.width + left + x] = palette[largest];
        }
      }
    }
    context.putImageData(image, labelWidth, this.offset(layer));
  }

  /** Where the thumbnails of a layer or head begin, in pixels of the canvas, which are those of the screen.
   *  @param {number} index */
  offset(index) {
    return Math.round((LABEL + index * (this.side + GAP)) * this.scale);
  }

  /** Write the numbers of layers and heads at the edges. @param {CanvasRenderingContext2D} context */
  label(context) {
    const [nLayers, nHeads] = this.shape;
    context.setTransform(this.scale, 0, 0, this.scale, 0, 0);
    const style = getComputedStyle(document.documentElement);
    context.fillStyle = style.getPropertyValue("--faint");
    context.font = `10px ${style.getPropertyValue("--font")}`;
    context.textBaseline = "middle";
    context.textAlign = "right";
    const step = this.side < 14 ? 2 : 1;
    for (let layer = 0; layer < nLayers; layer += step)
      context.fillText(String(layer), LABEL - 5, LABEL + layer * (this.side + GAP) + this.side / 2);
    context.textAlign = "center";
    for (let head = 0; head < nHeads; head += step)
      context.fillText(String(head), LABEL + head * (this.side + GAP) + this.side / 2, LABEL - 9);
  }

  /** Draw a frame around the chosen thumbnail. It fills the gaps to the neighbours, so that no pixel is covered.
   *  @param {CanvasRenderingContext2D} context */
  markChosen(context) {
    const { layer, head } = currentState();
    this.marked = [layer, head];
    this.cells.draw(this.shape, { layer, head });
    const [nLayers, nHeads] = this.shape;
    if (layer >= nLayers || head >= nHeads) return; // an address may name a head that does not exist
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--accent");
    const side = Math.round(this.side * this.scale);
    const [left, top] = [this.offset(head), this.offset(layer)];
    const [leftGap, topGap] = [head, layer].map((index) => this.offset(index) - this.offset(index - 1) - side);
    const [rightGap, bottomGap] = [head, layer].map((index) => this.offset(index + 1) - this.offset(index) - side);
    const width = leftGap + side + rightGap;
    context.fillRect(left - leftGap, top - topGap, width, topGap);
    context.fillRect(left - leftGap, top + side, width, bottomGap);
    context.fillRect(left - leftGap, top, leftGap, side);
    context.fillRect(left + side, top, rightGap, side);
  }

  /** The head under the pointer, or null. @param {MouseEvent} event */
  headAt(event) {
    if (!this.clientState) return null;
    const layer = Math.floor((event.offsetY - LABEL) / (this.side + GAP));
    const head = Math.floor((event.offsetX - LABEL) / (this.side + GAP));
    const [nLayers, nHeads] = this.shape;
    return layer >= 0 && layer < nLayers && head >= 0 && head < nHeads ? { layer, head } : null;
  }

  /** Name the head under the pointer, or the chosen one. @param {{layer: number, head: number} | null} hovered */
  describe(hovered) {
    const { layer, head } = hovered ?? currentState();
    this.caption.textContent = `${hovered ? "" : "chosen: "}layer ${layer}, head ${head}`;
  }

  /** Show a larger picture of a head, or of none. @param {{layer: number, head: number} | null} head */
  showPreview(head) {
    if (!head) return this.preview.hide();
    const grid = this.canvas.getBoundingClientRect();
    const [left, top] = [head.head, head.layer].map((index) => LABEL + index * (this.side + GAP));
    const thumbnail = { left: grid.left + left, right: grid.left + left + this.side, top: grid.top + top, bottom: grid.top + top + this.side };
    this.preview.show(this.clientState, head, thumbnail, grid);
  }

  /** @param {{layer: number, head: number} | null} clicked */
  choose(clicked) {
    if (clicked) navigate(clicked);
  }

  /** @param {KeyboardEvent} event */
  onKey(event) {
    if (!this.clientState || event.metaKey || event.altKey) return;
    const [nRows, nColumns] = this.shape;
    const { layer, head } = currentState();
    const target = moved({ row: layer, column: head }, event, { nRows, nColumns });
    if (!target) return;
    event.preventDefault();
    update({ layer: target.row, head: target.column });
    this.showPreview(currentState());
  }
}

/** The colour scale of weights as 256 pixels of an image: bytes r, g, b, a. */
function packedColours() {
  const bytes = new Uint8Array(weightColours().flatMap((colour) => [...colour, 255]));
  return new Uint32Array(bytes.buffer);
}
