// The form at the top of a page: what is typed and chosen there is written to the address. Below the form are notices,
// facts about the result, and the progress of a long reading.

import { announce } from "./announcer.js";
import { currentState, initState, isQuerySuggested, navigate, onChange, opensElsewhere, parseWindow, toAddress, update } from "./address.js";
import { cancel, onNotice, onProgress, resume } from "./reader.js";

/** @type {import("./types.js").Find} */
const find = (id) => document.getElementById(id);
const [text, model, layer, head] = [find("text"), find("model"), find("layer"), find("head")];

/** What of the state a reading depends on, besides the model. @type {("text" | "step" | "edits")[]} */
const READ = ["text", "step", "edits"];
/** @type {import("./reader.js").View | null} */
let drawn = null; // the view on the page

/** Initialise the state from the page that the server rendered, and listen to the form. */
export function initForm() {
  // The form's data attributes have the values of the address, including those that its fields cannot display.
  const { dataset } = find("text-form");
  // A value that is not a number is passed on as it is; the server refuses it with an explanation.
  const number = (/** @type {string} */ value) => /** @type {number} */ (/^\d+$/.test(value) ? Number(value) : value || null);
  initState({
    model: dataset.model,
    text: text.value,
    edits: dataset.edits,
    step: number(dataset.step),
    layer: number(dataset.layer),
    head: number(dataset.head),
    query: number(dataset.query),
    stage: find("stage").value,
    window: parseWindow(location.search),
  }, !new URLSearchParams(location.search).has("query"));
  onChange(updateForm);
  onNotice(showNotice);
  onProgress(showProgress);
  addListeners();
  setLimits();
  document.body.classList.add("has-script");
}

/** Record that a view has been drawn, so that the page is up to date. @param {import("./reader.js").View} view */
export function showDrawn(view) {
  drawn = view;
  const { header } = view.clientState;
  document.body.dataset.shown = JSON.stringify([header.model, view.text, header.layer, header.head, header.stage]);
  document.body.classList.remove("stale");
}

/** Show which model read the text, how long that took, and over which transport. @param {import("./reader.js").View} view */
export function showFacts({ clientState: { header }, elapsed_ms, transport }) {
  const { model: name, step, device, dtype, n_tokens: n, timings } = header;
  for (const about of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("p.about")))
    about.hidden = about.dataset.model !== name;
  find("facts").textContent = [
    step === null ? name : `${name} at step ${step.toLocaleString("en")}`,
    device,
    dtype === "float32" ? "" : `computed in ${dtype}`,
    `${n.toLocaleString("en")} token${n === 1 ? "" : "s"}`,
    `computed in ${timings.computed_ms.toFixed(0)} ms, ${elapsed_ms.toFixed(0)} ms in total`,
    transport === "live" ? "" : "over HTTP, because the live channel is unavailable",
  ].filter(Boolean).join(" · ");
  if (step !== null) find("facts").append(" · ", createFinishedLink());
}

/** A link from a step of the training to the finished model. */
function createFinishedLink() {
  const link = document.createElement("a");
  link.href = toAddress({ ...currentState(), step: null });
  link.textContent = "show the finished model";
  link.onclick = (event) => {
    if (opensElsewhere(event)) return;
    event.preventDefault();
    navigate({ step: null });
  };
  return link;
}

/** The number of layers and heads of the chosen model. @returns {[layers: number, heads: number]} */
export function modelShape() {
  const { layers, heads } = model.selectedOptions[0]?.dataset ?? {};
  return [Number(layers), Number(heads)];
}

/** @param {import("./address.js").State} state */
function updateForm(state) {
  if (text.value !== state.text) text.value = state.text;
  for (const [field, value] of /** @type {[HTMLInputElement, number][]} */ ([[layer, state.layer], [head, state.head]]))
    if (Number(field.value) !== value) field.value = String(value);
  find("edits").value = state.edits;
  find("edits-list").hidden = !state.edits;
  for (const item of editItems()) item.hidden = !state.edits.split(",").includes(item.dataset.edit);
  model.value = state.model; // an unknown model deliberately leaves the field empty
  if (drawn && (drawn.clientState.header.model !== state.model || READ.some((name) => drawn[name] !== state[name])))
    document.body.classList.add("stale");
}

/** @param {string} message @param {import("./reader.js").NoticeKind} kind */
function showNotice(message, kind) {
  const words = kind === "empty" ? text.dataset.whenEmpty : message;
  find("notice-bar").hidden = !words;
  find("notice").hidden = !words;
  find("notice").textContent = words;
  announce(words);
  find("notice").classList.toggle("waiting", kind === "temporary");
  find("notice").classList.toggle("quiet", kind === "empty");
  find("resume").hidden = kind !== "cancelled";
  find("facts").hidden = kind === "empty"; // the facts are about the previous text
  if (words) document.body.classList.add("stale"); // the picture is not of the text in the box
}

/** @param {boolean} isReading @param {import("./reader.js").Progress} progress */
function showProgress(isReading, progress) {
  find("reading").hidden = !isReading;
  find("facts").hidden = isReading; // the facts are about the previous reading
  const bar = find("progress");
  if (progress) [bar.max, bar.value] = [progress.n_tokens, progress.n_read];
  else bar.removeAttribute("value");
  const [nRead, nTokens] = [progress?.n_read, progress?.n_tokens].map((n) => n?.toLocaleString("en"));
  find("progress-label").textContent = progress ? `read ${nRead} of ${nTokens} tokens` : "waiting for the server";
}

function addListeners() {
  text.addEventListener("input", () => update({ text: text.value, query: queryAfterEdit(currentState().text, text.value) }));
  find("text-form").addEventListener("submit", (event) => event.preventDefault());
  model.addEventListener("change", switchModel);
  find("edits-list").addEventListener("click", removeEdits);
  for (const field of [layer, head])
    field.addEventListener("input", () => field.value !== "" && update({ [field.id]: Number(field.value) }));
  find("resume").addEventListener("click", resume);
  find("cancel").addEventListener("click", () => {
    cancel();
    find("resume").focus(); // the button that was clicked is now hidden
  });
  /** @type {HTMLElement} */
  const examples = document.querySelector(".examples");
  examples.addEventListener("click", (event) => {
    /** @type {HTMLElement | null} */
    const link = /** @type {Element} */ (event.target).closest("[data-text]");
    if (!link || opensElsewhere(event)) return;
    event.preventDefault();
    navigate({ text: link.dataset.text, query: null, window: null }); // Back restores what was typed
  });
}

/** The query after an edit. A chosen token stays chosen while the text up to its end is unchanged; otherwise, and when
 *  somebody types at the end without having chosen a token, the page follows the last token.
 *  @param {string} before @param {string} after */
function queryAfterEdit(before, after) {
  const { query } = currentState();
  if (isQuerySuggested() && text.selectionEnd === after.length) return null;
  const token = drawn?.clientState.tokens[query];
  const start = (/** @type {string} */ whole) => [...whole].slice(0, token.end).join(""); // offsets count code points, strings UTF-16 units
  return token && start(before) === start(after) ? query : null;
}

/** The edits that are still on: the items of the list that have not been removed. */
const editItems = () => /** @type {HTMLElement[]} */ ([...find("edits-list").querySelectorAll("[data-edit]")]);

/** A click on a link that takes edits back: within the page, so that what was typed since stays. @param {MouseEvent} event */
function removeEdits(event) {
  const link = /** @type {Element} */ (event.target).closest("a");
  if (!link || opensElsewhere(event)) return;
  event.preventDefault();
  const removed = link.closest("[data-edit]");
  const left = removed ? editItems().filter((item) => !item.hidden && item !== removed) : [];
  navigate({ edits: left.map((item) => item.dataset.edit).join(",") });
}

function switchModel() {
  const [nLayers, nHeads] = modelShape();
  setLimits();
  update({
    model: model.value,
    step: null, // the steps of another model are different ones
    layer: Math.min(currentState().layer, nLayers - 1),
    head: Math.min(currentState().head, nHeads - 1),
    query: null,
    window: null,
  });
}

/** Limit the layer and head fields to those of the chosen model. */
function setLimits() {
  const [nLayers, nHeads] = modelShape();
  layer.max = String(nLayers - 1);
  head.max = String(nHeads - 1);
}
