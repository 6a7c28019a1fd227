// The training page: draws every view that arrives, and charts of the training at the chosen step and head.

import { currentState, navigate, onChange, toAddress } from "./address.js";
import { lossFigure, patternsFigure } from "./charts.js";
import { drawNextTokens, drawQuery } from "./details.js";
import { drawViews } from "./drawing.js";
import { Figure } from "./figure.js";
import { initForm } from "./form.js";
import { fetchHistory } from "./history.js";
import { Newest } from "./request.js";
import { startReader } from "./reader.js";
import { Slider } from "./slider.js";

/** @type {import("./types.js").Find} */
const find = (id) => document.getElementById(id);

initForm();
const slider = new Slider(find("history"));
const patterns = new Figure(find("patterns-figure"));
const loss = new Figure(find("loss-figure"));
/** @type {import("./history.js").TrainingHistory | null} */
let trainingHistory = null; // of the chosen model, once it has arrived
const historyRequest = new Newest((problem, isTemporary) => problem && !isTemporary && showHistory(null)); // reader.js says why

drawViews(
  (clientState, text) => {
    drawNextTokens(document.querySelector(".next-tokens"), clientState);
    drawQuery(document.querySelector(".numbers"), clientState, text);
  },
  () => {
    patterns.redraw();
    loss.redraw();
  },
);

/** Switch to another model. The slider is disabled until its history has arrived. @param {string} model */
function switchModel(model) {
  trainingHistory = null;
  slider.setHistory(null);
  historyRequest.run(async (signal) => showHistory(await fetchHistory(model, signal)));
}

/** @param {import("./history.js").TrainingHistory | null} fetched null if the model has none */
function showHistory(fetched) {
  trainingHistory = fetched;
  const hasSteps = fetched !== null && fetched.last > 0;
  find("history").hidden = /** @type {HTMLElement} */ (document.querySelector(".curves")).hidden = !hasSteps;
  find("no-steps").hidden = fetched === null || hasSteps;
  if (fetched) find("no-steps").querySelector("b").textContent = fetched.model;
  if (hasSteps) slider.setHistory(fetched);
  drawCharts();
}

function drawCharts() {
  if (!trainingHistory || trainingHistory.last === 0) return;
  const state = currentState();
  const index = trainingHistory.indexOf(state.step);
  patterns.draw(patternsFigure(trainingHistory, index, state));
  const figure = lossFigure(trainingHistory, index);
  find("loss-title").parentElement.hidden = !figure;
  if (figure) loss.draw(figure);
}

/** What the charts depend on. @type {("step" | "layer" | "head")[]} */
const CHARTED = ["step", "layer", "head"];
let previous = currentState();
onChange((state) => {
  const before = previous;
  previous = state;
  updateLinks(state);
  if (state.model !== before.model) switchModel(state.model);
  else if (CHARTED.some((name) => state[name] !== before[name])) drawCharts();
});

/** Update the links that are shown for a model without training steps. @param {import("./address.js").State} state */
function updateLinks(state) {
  /** @type {HTMLAnchorElement[]} */
  const [finished, shipped] = [".finished", ".shipped"].map((link) => find("no-steps").querySelector(link));
  if (finished) finished.href = toAddress({ ...state, step: null }); // there only if the address named a step
  shipped.href = toAddress({ ...state, model: shipped.dataset.model, step: null, layer: 0, head: 0, query: null });
}

patterns.on("plotly_click", ({ points: [{ customdata: [layer, head] }] }) => navigate({ layer, head }));

startReader();
switchModel(currentState().model);
