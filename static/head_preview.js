// A larger picture of a head beside the grid of all heads, while the pointer or the keyboard is on it.

import { Heatmap } from "./heatmap.js";

/** @typedef {import("./client_state.js").ClientState} ClientState */
/** @typedef {{layer: number, head: number}} Head */
/** @typedef {{left: number, right: number, top: number, bottom: number}} Box */

const GAP = 12; // px between the grid or a thumbnail and the preview

/** Shows a head of a client state in a box over the page. The pointer passes through it. */
export class HeadPreview {
  constructor() {
    this.head = { layer: 0, head: 0 };
    this.box = document.createElement("div");
    this.box.className = "head-preview";
    this.box.ariaHidden = "true"; // the grid itself names the head
    this.box.inert = true;
    this.box.hidden = true;
    this.heading = document.createElement("p");
    const element = document.createElement("div");
    this.box.append(this.heading, element);
    document.body.append(this.box);
    this.heatmap = new Heatmap(element, { smallestCell: 0 });
    document.addEventListener("keydown", ({ key }) => key === "Escape" && this.hide());
    document.addEventListener("scroll", () => this.hide(), { passive: true });
  }

  /** Show a head beside its thumbnail. @param {ClientState} clientState @param {Head} head @param {Box} thumbnail on the screen @param {Box} grid */
  show(clientState, head, thumbnail, grid) {
    const matrix = matrixOf(clientState, head);
    if (!matrix) return this.hide(); // it has not arrived yet
    this.head = head;
    this.heading.textContent = matrix.title;
    this.box.hidden = false; // before it is drawn, because what is hidden has no width
    this.heatmap.draw(matrix);
    const { width, height } = this.box.getBoundingClientRect();
    const [left, top] = placeOf({ width, height }, thumbnail, grid, { width: innerWidth, height: innerHeight });
    this.box.style.left = `${left}px`;
    this.box.style.top = `${top}px`;
  }

  /** Show the same head of a newer client state, if it is shown. @param {ClientState} clientState */
  refresh(clientState) {
    if (this.box.hidden) return;
    const matrix = matrixOf(clientState, this.head);
    if (matrix) this.heatmap.draw(matrix);
    else this.hide();
  }

  hide() {
    this.box.hidden = true;
  }
}

/** The weights of a head as far as its thumbnail has them, in steps of 1/255; null if it has none.
 *  @param {ClientState} clientState @param {Head} head @returns {import("./heatmap_layout.js").Matrix | null} */
export function matrixOf({ layers, tokens, pixelSize }, { layer, head }) {
  const thumbnails = layers[layer];
  if (!thumbnails) return null;
  const { side, pixels } = thumbnails;
  const n = Math.ceil(Math.min(thumbnails.nTokens, tokens.length) / pixelSize);
  const labels = Array.from({ length: n }, (_, i) => `${i * pixelSize} ${tokens[i * pixelSize].text}`);
  const values = labels.map((_, query) => labels.map((_, key) => (key > query ? null : pixels[(head * side + query) * side + key] / 255)));
  return { title: `Layer ${layer}, head ${head}`, rows: labels, columns: labels, values, scale: "probability", limit: 1 };
}

/** Where a box goes: beside the grid at the height of the thumbnail, or where there is no room, below or above the thumbnail.
 *  @param {{width: number, height: number}} size @param {Box} thumbnail @param {Box} grid @param {{width: number, height: number}} screen
 *  @returns {[left: number, top: number]} */
export function placeOf({ width, height }, thumbnail, grid, screen) {
  const within = (/** @type {number} */ from, /** @type {number} */ length, /** @type {number} */ end) => Math.max(0, Math.min(from, end - length));
  const top = within((thumbnail.top + thumbnail.bottom - height) / 2, height, screen.height);
  if (grid.right + GAP + width <= screen.width) return [grid.right + GAP, top];
  if (grid.left - GAP - width >= 0) return [grid.left - GAP - width, top];
  const left = within((thumbnail.left + thumbnail.right - width) / 2, width, screen.width);
  const below = thumbnail.bottom + GAP + height <= screen.height;
  return [left, below ? thumbnail.bottom + GAP : Math.max(0, thumbnail.top - GAP - height)];
}
