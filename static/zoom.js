// The window of the chosen head. In a long text each cell covers several tokens; zooming in requests a smaller window, in
// which each cell covers fewer.

import { currentState, navigate } from "./address.js";
import { announce } from "./announcer.js";

const N_EXACT = 256; // tokens per side of a window in which every number is shown
const TOLERANCE = 0.02; // of a cell: a box that overlaps a cell by less was not meant to include it

/** @typedef {import("./address.js").Window} Window */
/** @typedef {import("./client_state.js").Cells} Cells */

/** Handles Plotly's zooming where finer numbers have to be requested, and has buttons that do the same. */
export class Zoom {
  /** @param {HTMLElement} bar with a status line and two buttons */
  constructor(bar) {
    this.bar = bar;
    /** @type {HTMLElement} */
    this.status = bar.querySelector(".zoom-status");
    /** @type {HTMLElement} */
    this.toToken = bar.querySelector(".zoom-to-token");
    /** @type {HTMLElement} */
    this.out = bar.querySelector(".zoom-out");
    /** @type {import("./client_state.js").ClientState | null} */
    this.clientState = null; // the one that is drawn
    this.described = String(currentState().window); // the window that a screen reader knows of
    this.toToken.addEventListener("click", () => navigate({ window: windowAround(this.clientState.header) }));
    this.out.addEventListener("click", () => {
      navigate({ window: null });
      this.toToken.focus(); // the other button is about to be hidden, and would lose the focus
    });
  }

  /** Handle the zooming of this figure. @param {import("./figure.js").Figure} figure */
  listenTo(figure) {
    figure.on("plotly_doubleclick", () => navigate({ window: null }));
    figure.on("plotly_relayout", (changed) => {
      if (!this.clientState || !Object.keys(changed).some((name) => /^[xy]axis\.range/.test(name))) return;
      const { cells, header } = this.clientState;
      const { xaxis, yaxis } = /** @type {import("./types.js").PlotlyElement} */ (figure.element).layout;
      const requested = coveredTokens(cells, xaxis.range, yaxis.range);
      if (cells.cell_size > 1 || extendsBeyond(requested, cells.window))
        navigate({ window: clampWindow(requested, cells.window, header.n_tokens) });
    });
  }

  /** Describe the window, and show the buttons that apply. @param {import("./client_state.js").ClientState} clientState */
  draw(clientState) {
    this.clientState = clientState;
    const { header: { n_tokens: n }, cells: { window, cell_size: cellSize } } = clientState;
    const isPart = !coversAll(window, n);
    this.bar.hidden = cellSize === 1 && !isPart && currentState().window === null;
    this.out.hidden = currentState().window === null;
    this.toToken.hidden = n <= N_EXACT;
    const coarse = `Each cell shows the largest of ${cellSize}×${cellSize} numbers. Drag a box over the picture to zoom in.`;
    const [top, bottom, left, right] = window;
    const range = (/** @type {number} */ first, /** @type {number} */ end) => `${format(first)} to ${format(end - 1)}`;
    const part = `Queries ${range(top, bottom)}, keys ${range(left, right)} of ${format(n)} tokens`;
    this.status.textContent = [isPart && `${part}${cellSize > 1 ? "." : ": every number is shown."}`, cellSize > 1 && coarse]
      .filter(Boolean)
      .join(" ");
    if (String(currentState().window) !== this.described) announce(this.status.textContent || "The whole text is shown.");
    this.described = String(currentState().window);
  }
}

const format = (/** @type {number} */ n) => n.toLocaleString("en");
/** @param {Window} window @param {number} n */
const coversAll = ([top, bottom, left, right], n) => !top && !left && bottom === n && right === n;

/** The largest window in which every number is shown, with the chosen token in its middle.
 *  @param {{query: number, n_tokens: number}} header @returns {Window} */
export function windowAround({ query, n_tokens: n }) {
  const first = Math.max(0, Math.min(query - N_EXACT / 2, n - N_EXACT));
  const end = Math.min(n, first + N_EXACT);
  return [first, end, first, end];
}

/** The tokens whose cells Plotly's ranges cover, fully or in part. A cell extends half a unit to both sides of its index.
 *  @param {Cells} cells @param {[number, number]} across @param {[number, number]} down @returns {Window} */
export function coveredTokens({ window: [top, , left], cell_size: cellSize }, across, down) {
  /** @param {number} first @param {[number, number]} range @returns {[number, number]} */
  const along = (first, [from, to]) => [
    first + cellSize * Math.floor(Math.min(from, to) + 0.5 + TOLERANCE),
    first + cellSize * Math.ceil(Math.max(from, to) + 0.5 - TOLERANCE),
  ];
  return [...along(top, down), ...along(left, across)];
}

/** Does a window include tokens outside of the current one? @param {Window} requested @param {Window} current */
function extendsBeyond(requested, current) {
  return requested[0] < current[0] || requested[1] > current[1] || requested[2] < current[2] || requested[3] > current[3];
}

/** A window clamped to the text, at least one token wide and high; null if it covers the whole text or is the current one.
 *  @param {Window} requested @param {Window} current @param {number} n @returns {Window | null} */
export function clampWindow([top, bottom, left, right], current, n) {
  /** @param {number} token @param {number} minimum @param {number} maximum */
  const clamp = (token, minimum, maximum) => Math.max(minimum, Math.min(token, maximum));
  const [firstRow, firstColumn] = [clamp(top, 0, n - 1), clamp(left, 0, n - 1)];
  /** @type {Window} */
  const window = [firstRow, clamp(bottom, firstRow + 1, n), firstColumn, clamp(right, firstColumn + 1, n)];
  return coversAll(window, n) || String(window) === String(current) ? null : window;
}
