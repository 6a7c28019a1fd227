// The first page: every view that comes back is drawn.

import { fillIn, layersAndHeads, sayDrawn, sayFacts } from "./form.js";
import { Figure } from "./figure.js";
import { Grid } from "./grid.js";
import { Head } from "./head.js";
import { chooseTokens, drawDropped, drawNext, drawRow, drawSink, drawTokens, drawUnfinished } from "./panels.js";
import { firstShare } from "./picture.js";
import { follow, onView } from "./reader.js";
import { onScheme } from "./theme.js";
import { awaitDefault } from "./waiting.js";

const N_QUICK = 256; // tokens; the norms of more are not drawn between two keys

const find = (id) => document.getElementById(id);

fillIn();
const grid = new Grid(find("grid"), find("grid-name"));
const head = new Head();
const normsFigure = new Figure(find("norms-figure"));
/** @type {import("./reader.js").View | null} */
let view = null; // what is drawn
let normsDrawn = null;
let normsTimer = 0;

onView((seen) => {
  const [before, { picture }] = [view?.picture, seen];
  view = seen;
  if (picture.head === before?.head) grid.add(picture); // more thumbnails of what is shown already
  else draw(picture);
  drawSink(find("sink"), picture.header.n, firstShare(picture));
  drawUnfinished(find("grid-state"), picture, layersAndHeads()[0]);
  sayFacts(seen);
});

function draw(picture) {
  const { header, tokens, norms } = picture;
  const numbers = document.querySelector(".numbers");
  drawTokens(find("tokens"), tokens, header.query);
  drawDropped(find("dropped"), header);
  head.draw(picture);
  if (norms !== normsDrawn) drawNorms();
  grid.draw(picture, layersAndHeads());
  drawRow(numbers, picture);
  drawNext(numbers, picture);
  sayDrawn(view);
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
  }, view.picture.header.n <= N_QUICK ? 20 : 300);
}

chooseTokens(find("tokens"));

onScheme(() => {
  head.redraw();
  normsFigure.redraw();
  grid.redraw();
});

follow();
if (find("stand-in")) awaitDefault(find("stand-in"));
