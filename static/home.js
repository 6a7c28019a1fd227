// The home page: draws every view that arrives, and the norms of its text.

import { drawNextTokens, drawQuery } from "./details.js";
import { drawViews, view } from "./drawing.js";
import { Figure } from "./figure.js";
import { initForm } from "./form.js";
import { startReader } from "./reader.js";
import { waitForDefault } from "./waiting.js";

const N_QUICK = 256; // tokens; the norms of a longer text take too long to draw them between two keys

/** @type {import("./types.js").Find} */
const find = (id) => document.getElementById(id);

initForm();
const normsFigure = new Figure(find("norms-figure"));
/** @type {import("./client_state.js").Norms | null} */
let drawnNorms = null;
let normsTimer = 0;

drawViews(draw, () => normsFigure.redraw());

/** @param {import("./client_state.js").ClientState} clientState @param {string} text */
function draw(clientState, text) {
  /** @type {HTMLElement} */
  const numbers = document.querySelector(".numbers");
  if (clientState.norms !== drawnNorms) drawNorms();
  drawQuery(numbers, clientState, text);
  drawNextTokens(numbers, clientState);
}

/** Draw the norms after a pause in typing, because they take longest to draw. Until then they are dimmed. */
function drawNorms() {
  find("norms-figure").classList.add("outdated");
  clearTimeout(normsTimer);
  normsTimer = setTimeout(async () => {
    if (document.body.classList.contains("stale")) return; // the next view brings its own norms
    const { norms, tokens } = view.clientState;
    await normsFigure.draw(norms.figure, norms.arrays, tokens.map((token) => token.text));
    drawnNorms = norms;
    if (norms === view.clientState.norms) find("norms-figure").classList.remove("outdated");
  }, view.clientState.header.n_tokens <= N_QUICK ? 20 : 300);
}

startReader();
if (find("stand-in")) waitForDefault(find("stand-in"));
