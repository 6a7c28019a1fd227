// The window onto the chosen head. Where a cell covers several tokens, looking closer means to ask for fewer of them.

import { now, show } from "./address.js";

const N_EXACT = 256; // tokens a side, of which every number is shown
const SLIVER = 0.02; // of a cell: nobody drew a box around that

/** @typedef {import("./address.js").Window} Window */
/** @typedef {import("./picture.js").Cells} Cells */

/** Takes Plotly's zooming over where Plotly has no finer numbers, and has buttons that do the same. */
export class Zoom {
  /** @param {HTMLElement} place with what is said of the window and the two buttons */
  constructor(place) {
    this.place = place;
    /** @type {HTMLElement} */
    this.words = place.querySelector(".zoom-words");
    /** @type {HTMLElement} */
    this.around = place.querySelector(".zoom-around");
    /** @type {HTMLElement} */
    this.whole = place.querySelector(".zoom-whole");
    /** @type {import("./picture.js").Picture | null} */
    this.shown = null; // the picture that is drawn
    this.around.addEventListener("click", () => show({ window: middle(this.shown.header) }));
    this.whole.addEventListener("click", () => {
      show({ window: null });
      this.around.focus(); // this button will go, and the keyboard stays near
    });
  }

  /** @param {import("./figure.js").Figure} figure whose zooming to hear */
  hear(figure) {
    figure.on("plotly_doubleclick", () => show({ window: null }));
    figure.on("plotly_relayout", (changed) => {
      if (!this.shown || !Object.keys(changed).some((name) => /^[xy]axis\.range/.test(name))) return;
      const { cells, header } = this.shown;
      const { xaxis, yaxis } = /** @type {import("./types.js").PlotlyElement} */ (figure.element).layout;
      const wanted = covered(cells, xaxis.range, yaxis.range);
      if (cells.step > 1 || reachesOut(wanted, cells.window)) show({ window: inText(wanted, cells.window, header.n_tokens) });
    });
  }

  /** Say what is seen. @param {import("./picture.js").Picture} picture */
  draw(picture) {
    this.shown = picture;
    const { header: { n_tokens: n }, cells: { window, step } } = picture;
    const isPart = !isWhole(window, n);
    this.place.hidden = step === 1 && !isPart && now().window === null;
    this.whole.hidden = now().window === null;
    this.around.hidden = n <= N_EXACT;
    const closer = `A cell covers ${step}×${step} numbers and shows the largest; draw a box to look closer.`;
    const [top, bottom, left, right] = window;
    const range = (/** @type {number} */ first, /** @type {number} */ behind) => `${number(first)} to ${number(behind - 1)}`;
    const part = `Queries ${range(top, bottom)}, keys ${range(left, right)} of ${number(n)} tokens`;
    this.words.textContent = [isPart && `${part}${step > 1 ? "." : ": every number."}`, step > 1 && closer]
      .filter(Boolean)
      .join(" ");
  }
}

const number = (/** @type {number} */ n) => n.toLocaleString("en");
/** @param {Window} window @param {number} n */
const isWhole = ([top, bottom, left, right], n) => !top && !left && bottom === n && right === n;

/** As many tokens as are exact, with the chosen one in their middle.
 *  @param {{query: number, n_tokens: number}} header @returns {Window} */
export function middle({ query, n_tokens: n }) {
  const first = Math.max(0, Math.min(query - N_EXACT / 2, n - N_EXACT));
  const behind = Math.min(n, first + N_EXACT);
  return [first, behind, first, behind];
}

/** The tokens that Plotly's ranges cover, in part or whole; a cell stands half a unit to both sides of its number.
 *  @param {Cells} cells @param {[number, number]} across @param {[number, number]} down @returns {Window} */
export function covered({ window: [top, , left], step }, across, down) {
  /** @param {number} first @param {[number, number]} range @returns {[number, number]} */
  const along = (first, [from, to]) => [
    first + step * Math.floor(Math.min(from, to) + 0.5 + SLIVER),
    first + step * Math.ceil(Math.max(from, to) + 0.5 - SLIVER),
  ];
  return [...along(top, down), ...along(left, across)];
}

/** @param {Window} wanted @param {Window} seen */
function reachesOut([top, bottom, left, right], [first, behind, begin, end]) {
  return top < first || bottom > behind || left < begin || right > end;
}

/** A window of the text, at least a token wide; null when there is nothing that it leaves out of what is seen now.
 *  @param {Window} wanted @param {Window} seen @param {number} n @returns {Window | null} */
export function inText([top, bottom, left, right], seen, n) {
  /** @param {number} token @param {number} least @param {number} most */
  const inside = (token, least, most) => Math.max(least, Math.min(token, most));
  const [first, begin] = [inside(top, 0, n - 1), inside(left, 0, n - 1)];
  /** @type {Window} */
  const window = [first, inside(bottom, first + 1, n), begin, inside(right, begin + 1, n)];
  return isWhole(window, n) || String(window) === String(seen) ? null : window;
}
