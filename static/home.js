// The first page: every view that comes back is drawn.

import { drawViews, view } from "./drawing.js";
import { Figure } from "./figure.js";
import { fillIn } from "./form.js";
import { drawNext, drawRow } from "./panels.js";
import { follow } from "./reader.js";
import { awaitDefault } from "./waiting.js";

const N_QUICK = 256; // tokens; the norms of more are not drawn between two keys

/** @type {import("./types.js").Find} */
const find = (id) => document.getElementById(id);

fillIn();
const normsFigure = new Figure(find("norms-figure"));
/** @type {import("./picture.js").Norms | null} */
let normsDrawn = null;
let normsTimer = 0;

drawViews(draw, () => normsFigure.redraw());

/** @param {import("./picture.js").Picture} picture @param {string} text what was read */
function draw(picture, text) {
  /** @type {HTMLElement} */
  const numbers = document.querySelector(".numbers");
  if (picture.norms !== normsDrawn) drawNorms();
  drawRow(numbers, picture, text);
  drawNext(numbers, picture);
}

/** The norms take the longest to draw, and are missed the least: they wait for a pause, and say so. */
function drawNorms() {
  find("norms-figure").classList.add("late");
  clearTimeout(normsTimer);
  normsTimer = setTimeout(async () => {
    if (document.body.classList.contains("stale")) return; // the next picture brings its own
    const { norms, tokens } = view.picture;
    await normsFigure.draw(norms.figure, norms.arrays, tokens.map((token) => token.text));
    normsDrawn = norms;
    if (norms === view.picture.norms) find("norms-figure").classList.remove("late");
  }, view.picture.header.n_tokens <= N_QUICK ? 20 : 300);
}

follow();
if (find("stand-in")) awaitDefault(find("stand-in"));
