// The chosen head: its stage, its picture, and the cell of it under the pointer.

import { choose, now, onShow, opensElsewhere, show } from "./address.js";
import { Figure } from "./figure.js";
import { drawCell } from "./panels.js";
import { Zoom } from "./zoom.js";

/** @type {Record<string, string>} */
const STAGE_WORDS = {
  scores: "q·k: how well each query matches each key, before anything is done to it.",
  scaled: "Scores over √d, so that wide heads are not sharper than narrow ones.",
  masked: "What lies behind the mask is −∞: no token sees a later one.",
  weights:
    "Row by row: how much of its attention a token (query) gives itself and the tokens before it (keys). " +
    "Each row sums to 1; hatched cells are behind the causal mask.",
};

/** @type {import("./types.js").Find} */
const find = (id) => document.getElementById(id);

/** Follows the chosen head and stage, and chooses a stage. Make one once the address has begun. */
export class Head {
  constructor() {
    this.figure = new Figure(find("head-figure"));
    this.zoom = new Zoom(find("zoom"));
    /** @type {import("./picture.js").Picture | null} */
    this.picture = null; // what is drawn
    this.zoom.hear(this.figure);
    this.figure.on("plotly_hover", ({ points: [point] }) => drawCell(find("cell"), this.picture, ...cellOf(point)));
    this.figure.on("plotly_click", ({ points: [point] }) => {
      const { window: [top], step } = this.picture.cells;
      choose(top + step * cellOf(point)[0]);
    });
    /** @type {HTMLElement} */ (document.querySelector(".stages")).addEventListener("click", chooseStage);
    onShow(({ stage }) => markStage(stage));
    markStage(now().stage);
  }

  /** @param {import("./picture.js").Picture} picture */
  draw(picture) {
    const before = this.picture;
    this.picture = picture;
    // Only another query was chosen, or something was typed behind the window: the head's cells are as they were.
    if (picture.head.scores !== before?.head.scores || picture.header.stage !== before.header.stage)
      this.figure.draw(picture.header.figure, picture.head, picture.tokens.map((token) => token.text));
    this.zoom.draw(picture);
    find("head-layer").textContent = String(picture.header.layer);
    find("head-index").textContent = String(picture.header.head);
    find("cell").textContent = "";
  }

  /** The same again, in today's colours. */
  redraw() {
    this.figure.redraw();
  }
}

/** @param {import("./types.js").PlotlyPoint} point */
const cellOf = ({ pointIndex }) => pointIndex; // row and column

/** @param {string} stage */
function markStage(stage) {
  /** @type {NodeListOf<HTMLElement>} */
  const links = document.querySelectorAll("[data-stage]");
  for (const link of links)
    link.dataset.stage === stage ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current");
  find("stage-words").textContent = STAGE_WORDS[stage] ?? "";
}

/** @param {MouseEvent} event */
function chooseStage(event) {
  /** @type {HTMLElement | null} */
  const link = /** @type {Element} */ (event.target).closest("[data-stage]");
  if (!link || opensElsewhere(event)) return;
  event.preventDefault();
  show({ stage: link.dataset.stage });
}
