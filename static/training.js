// A model through its training: every view that comes back is drawn, and the charts follow the chosen step and head.

import { now, onShow, show, toAddress } from "./address.js";
import { lossFigure, patternsFigure } from "./charts.js";
import { fetchCourse } from "./course.js";
import { drawViews } from "./drawing.js";
import { Figure } from "./figure.js";
import { fillIn } from "./form.js";
import { drawNext, drawRow } from "./panels.js";
import { follow } from "./reader.js";
import { Slider } from "./slider.js";

/** @type {import("./types.js").Find} */
const find = (id) => document.getElementById(id);

fillIn();
const slider = new Slider(find("course"));
const patterns = new Figure(find("patterns-figure"));
const loss = new Figure(find("loss-figure"));
/** @type {import("./course.js").Course | null} */
let course = null; // of the chosen model, once it is known
let asking = new AbortController();

drawViews(
  (picture, text) => {
    drawNext(document.querySelector(".foreseen"), picture);
    drawRow(document.querySelector(".numbers"), picture, text);
  },
  () => {
    patterns.redraw();
    loss.redraw();
  },
);

/** Another model: until its training is known, there is nothing to drag. @param {string} model */
async function turnTo(model) {
  asking.abort();
  asking = new AbortController();
  course = null;
  slider.turnTo(null);
  const { signal } = asking;
  const found = await fetchCourse(model, signal);
  if (signal.aborted) return;
  course = found;
  const isLong = found !== null && found.last > 0;
  find("course").hidden = /** @type {HTMLElement} */ (document.querySelector(".curves")).hidden = !isLong;
  find("no-steps").hidden = found === null || isLong;
  if (found) find("no-steps").querySelector("b").textContent = found.model;
  if (isLong) slider.turnTo(found);
  drawCharts();
}

function drawCharts() {
  if (!course || course.last === 0) return;
  const { step } = now();
  const place = course.placeOf(step);
  patterns.draw(patternsFigure(course, place, now()));
  const figure = lossFigure(course, place);
  find("loss-title").parentElement.hidden = !figure;
  if (figure) loss.draw(figure);
}

/** @type {("step" | "layer" | "head")[]} */
const CHARTED = ["step", "layer", "head"];
let shown = now();
onShow((state) => {
  const before = shown;
  shown = state;
  linkOn(state);
  if (state.model !== before.model) turnTo(state.model);
  else if (CHARTED.some((name) => state[name] !== before[name])) drawCharts();
});

/** The ways on from a model that came without steps. @param {import("./address.js").State} state */
function linkOn(state) {
  /** @type {HTMLAnchorElement[]} */
  const [end, shipped] = [".end", ".shipped"].map((which) => find("no-steps").querySelector(which));
  if (end) end.href = toAddress({ ...state, step: null }); // where the address named a step
  shipped.href = toAddress({ ...state, model: shipped.dataset.model, step: null, layer: 0, head: 0, query: null });
}

patterns.on("plotly_click", ({ points: [{ customdata: [layer, head] }] }) => show({ layer, head }));

follow();
turnTo(now().model);
