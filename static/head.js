// The chosen head: its stages, its heatmap, and the cell under the pointer.

import { chooseQuery, currentState, navigate, onChange, opensElsewhere } from "./address.js";
import { drawCell } from "./details.js";
import { Figure } from "./figure.js";
import { Zoom } from "./zoom.js";

/** @type {Record<string, string>} */
const STAGE_HINTS = {
  scores: "q·k, the dot product of each query with each key, before scaling and masking.",
  scaled: "Scores divided by √d, where d is the width of a head. Without this, wider heads would get sharper weights.",
  masked: "Scaled scores, with −∞ for every later token: no token can attend to one that comes after it.",
  weights:
    "One row per token (query): how much it attends to itself and to each token before it (keys). " +
    "Each row sums to 1. Hatched cells are masked.",
};

/** @type {import("./types.js").Find} */
const find = (id) => document.getElementById(id);

/** The heatmap of the chosen head and stage. Create it after `initState`. */
export class HeadPanel {
  constructor() {
    this.figure = new Figure(find("head-figure"));
    this.zoom = new Zoom(find("zoom"));
    /** @type {import("./client_state.js").ClientState | null} */
    this.clientState = null; // the one that is drawn
    this.zoom.listenTo(this.figure);
    this.figure.on("plotly_hover", ({ points: [point] }) => drawCell(find("cell"), this.clientState, ...cellOf(point)));
    this.figure.on("plotly_click", ({ points: [point] }) => {
      const { window: [top], cell_size: cellSize } = this.clientState.cells;
      chooseQuery(top + cellSize * cellOf(point)[0]);
    });
    /** @type {HTMLElement} */ (document.querySelector(".stages")).addEventListener("click", chooseStage);
    onChange(({ stage }) => markStage(stage));
    markStage(currentState().stage);
  }

  /** @param {import("./client_state.js").ClientState} clientState */
  draw(clientState) {
    const before = this.clientState;
    this.clientState = clientState;
    // If only the query or the text after the window changed, the heatmap is still right.
    if (clientState.head.scores !== before?.head.scores || clientState.header.stage !== before.header.stage)
      this.figure.draw(clientState.header.figure, clientState.head, clientState.tokens.map((token) => token.text));
    this.zoom.draw(clientState);
    find("head-layer").textContent = String(clientState.header.layer);
    find("head-index").textContent = String(clientState.header.head);
    find("cell").textContent = "";
  }

  /** Draw the same figure again in the current colours. */
  redraw() {
    this.figure.redraw();
  }
}

/** Row and column of a point. @param {import("./types.js").PlotlyPoint} point */
const cellOf = ({ pointIndex }) => pointIndex;

/** @param {string} stage */
function markStage(stage) {
  /** @type {NodeListOf<HTMLElement>} */
  const links = document.querySelectorAll("[data-stage]");
  for (const link of links)
    link.dataset.stage === stage ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current");
  find("stage-hint").textContent = STAGE_HINTS[stage] ?? "";
}

/** @param {MouseEvent} event */
function chooseStage(event) {
  /** @type {HTMLElement | null} */
  const link = /** @type {Element} */ (event.target).closest("[data-stage]");
  if (!link || opensElsewhere(event)) return;
  event.preventDefault();
  navigate({ stage: link.dataset.stage });
}
