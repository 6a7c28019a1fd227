// The form at the top of a page: what is typed and chosen there becomes the address. Below it is said what is in the
// way, what was read, and how far a long reading is.

import { begin, isQuerySuggested, now, onShow, opensElsewhere, show, toAddress, visit, windowIn } from "./address.js";
import { cancel, onNotice, onProgress, resume } from "./reader.js";

/** @type {import("./types.js").Find} */
const find = (id) => document.getElementById(id);
const [text, model, layer, head] = [find("text"), find("model"), find("layer"), find("head")];

/** @type {import("./reader.js").View | null} */
let drawn = null; // what the page shows

/** Begin the address with what the server put into the page, and follow what is typed. */
export function fillIn() {
  // What the address asks for stands in the form's data, also where the form itself cannot hold it.
  const asked = find("ask").dataset;
  /** @param {string} given @returns {number} what is none is handed on as it is */
  const number = (given) => /** @type {number} */ (/^\d+$/.test(given) ? Number(given) : given || null); // the server refuses what is none
  begin({
    model: asked.model,
    text: text.value,
    step: number(asked.step),
    layer: number(asked.layer),
    head: number(asked.head),
    query: number(asked.query),
    stage: find("stage-kept").value,
    window: windowIn(location.search),
  }, !new URLSearchParams(location.search).has("query"));
  onShow(follow);
  onNotice(sayNotice);
  onProgress(sayProgress);
  listen();
  limit();
  document.body.classList.add("live");
}

/** A view is drawn in whole: nothing of the page is stale. @param {import("./reader.js").View} view */
export function sayDrawn(view) {
  drawn = view;
  const { model: name, layer: ofLayer, head: ofHead, stage } = view.picture.header;
  document.body.dataset.shown = JSON.stringify([name, view.text, ofLayer, ofHead, stage]);
  document.body.classList.remove("stale");
}

/** Say what was read, and how long it took. @param {import("./reader.js").View} view */
export function sayFacts({ picture: { header }, elapsed_ms, road }) {
  const { model: name, step, device, dtype, n_tokens: n, timings } = header;
  for (const about of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("p.about")))
    about.hidden = about.dataset.model !== name;
  find("facts").textContent = [
    step === null ? name : `${name} at step ${step.toLocaleString("en")}`,
    device,
    dtype === "float32" ? "" : `computed in ${dtype}`,
    `${n.toLocaleString("en")} token${n === 1 ? "" : "s"}`,
    `read in ${timings.computed_ms.toFixed(0)} ms, ${elapsed_ms.toFixed(0)} ms in all`,
    road === "live" ? "" : "over HTTP, because the live channel cannot be had",
  ].filter(Boolean).join(" · ");
  if (step !== null) find("facts").append(" · ", toTheEnd());
}

/** The way back from a step of the training. */
function toTheEnd() {
  const link = document.createElement("a");
  link.href = toAddress({ ...now(), step: null });
  link.textContent = "see the end of its training";
  link.onclick = (event) => {
    if (opensElsewhere(event)) return;
    event.preventDefault();
    visit({ step: null });
  };
  return link;
}

/** Of the chosen model. @returns {[layers: number, heads: number]} */
export function layersAndHeads() {
  const { layers, heads } = model.selectedOptions[0]?.dataset ?? {};
  return [Number(layers), Number(heads)];
}

/** @param {import("./address.js").State} state */
function follow(state) {
  if (text.value !== state.text) text.value = state.text;
  for (const [field, value] of /** @type {[HTMLInputElement, number][]} */ ([[layer, state.layer], [head, state.head]]))
    if (Number(field.value) !== value) field.value = String(value);
  model.value = state.model; // a name that is no option leaves it empty, as it should
  if (drawn && (drawn.picture.header.model !== state.model || drawn.step !== state.step || drawn.text !== state.text))
    document.body.classList.add("stale");
}

/** @param {string} said @param {import("./reader.js").Obstacle} obstacle */
function sayNotice(said, obstacle) {
  const words = obstacle === "empty" ? text.dataset.whenEmpty : said;
  find("obstacle").hidden = !words;
  find("notice").hidden = !words;
  find("notice").textContent = words;
  find("notice").classList.toggle("waiting", obstacle === "passing");
  find("notice").classList.toggle("quiet", obstacle === "empty");
  find("resume").hidden = obstacle !== "stopped";
  find("facts").hidden = obstacle === "empty"; // they are of the text before
  if (words) document.body.classList.add("stale"); // the picture is of another text than the one in the box
}

/** @param {boolean} isReading @param {import("./reader.js").Progress} progress */
function sayProgress(isReading, progress) {
  find("reading").hidden = !isReading;
  find("facts").hidden = isReading; // they are of the reading before
  const bar = find("progress");
  if (progress) [bar.max, bar.value] = [progress.n_tokens, progress.n_read];
  else bar.removeAttribute("value");
  const [read, of] = [progress?.n_read, progress?.n_tokens].map((n) => n?.toLocaleString("en"));
  find("progress-words").textContent = progress ? `read ${read} of ${of} tokens` : "waiting for the server";
}

function listen() {
  text.addEventListener("input", () => show({ text: text.value, query: keptQuery(now().text, text.value) }));
  find("ask").addEventListener("submit", (event) => event.preventDefault());
  model.addEventListener("change", turnToModel);
  for (const field of [layer, head])
    field.addEventListener("input", () => field.value !== "" && show({ [field.id]: Number(field.value) }));
  find("resume").addEventListener("click", resume);
  find("cancel").addEventListener("click", () => {
    cancel();
    find("resume").focus(); // the button that was pressed is gone
  });
  /** @type {HTMLElement} */
  const examples = document.querySelector(".examples");
  examples.addEventListener("click", (event) => {
    /** @type {HTMLElement | null} */
    const link = /** @type {Element} */ (event.target).closest("[data-text]");
    if (!link || opensElsewhere(event)) return;
    event.preventDefault();
    visit({ text: link.dataset.text, query: null, window: null }); // Back brings back what was typed
  });
}

/** A chosen token stays chosen while it and what stands before it are untouched; who types at the end follows it.
 *  @param {string} before @param {string} after */
function keptQuery(before, after) {
  const { query } = now();
  if (isQuerySuggested() && text.selectionEnd === after.length) return null;
  const token = drawn?.picture.tokens[query];
  const start = (/** @type {string} */ whole) => [...whole].slice(0, token.end).join(""); // offsets count code points, strings UTF-16 units
  return token && start(before) === start(after) ? query : null;
}

function turnToModel() {
  const [layers, heads] = layersAndHeads();
  limit();
  show({
    model: model.value,
    step: null, // another model was trained in other steps
    layer: Math.min(now().layer, layers - 1),
    head: Math.min(now().head, heads - 1),
    query: null,
    window: null,
  });
}

function limit() {
  const [layers, heads] = layersAndHeads();
  layer.max = String(layers - 1);
  head.max = String(heads - 1);
}
