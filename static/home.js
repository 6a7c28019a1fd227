// The page: what is typed and chosen becomes the address; every view that comes back is drawn.

import { begin, now, onShow, show, visit, windowIn } from "./address.js";
import { Figure } from "./figure.js";
import { Grid } from "./grid.js";
import { chooseTokens, drawCell, drawDropped, drawNext, drawRow, drawSink, drawTokens } from "./panels.js";
import { firstShare } from "./picture.js";
import { cancel, follow, onNotice, onProgress, onView, resume } from "./reader.js";
import { onScheme } from "./theme.js";
import { awaitDefault } from "./waiting.js";
import { Zoom } from "./zoom.js";

const STAGE_WORDS = {
  scores: "q·k: how well each query matches each key, before anything is done to it.",
  scaled: "Scores over √d, so that wide heads are not sharper than narrow ones.",
  masked: "What lies behind the mask is −∞: no token sees a later one.",
  weights:
    "Row by row: how much of its attention a token (query) gives itself and the tokens before it (keys). " +
    "Each row sums to 1; hatched cells are behind the causal mask.",
};

const N_QUICK = 256; // tokens; the norms of more are not drawn between two keys

const find = (id) => document.getElementById(id);
const [text, model, layer, head] = ["text", "model", "layer", "head"].map(find);

// What the address asks for stands in the form's data, also where the form itself cannot hold it.
const asked = find("ask").dataset;
const number = (given) => (/^\d+$/.test(given) ? Number(given) : given || null); // the server refuses what is none
begin({
  model: asked.model,
  text: text.value,
  layer: number(asked.layer),
  head: number(asked.head),
  query: number(asked.query),
  stage: find("stage-kept").value,
  window: windowIn(location.search),
});

const grid = new Grid(find("grid"), find("grid-name"));
const headFigure = new Figure(find("head-figure"));
const normsFigure = new Figure(find("norms-figure"));
const zoom = new Zoom(find("zoom"));
zoom.hear(headFigure);
/** @type {import("./reader.js").View | null} */
let view = null; // what is drawn
let normsDrawn = null;
let normsTimer = 0;

onView((seen) => {
  const [before, { picture }] = [view?.picture, seen];
  view = seen;
  if (picture.head === before?.head) grid.add(picture); // more thumbnails of what is shown already
  else draw(picture, before);
  drawSink(find("sink"), picture.header.n, firstShare(picture));
  const nDrawn = picture.layers.filter((layer) => layer?.known === picture.header.n).length;
  find("grid-state").textContent = picture.done ? "" : `${nDrawn} of ${layersAndHeads()[0]} layers are drawn.`;
  find("facts").textContent = facts(seen);
});

function draw(picture, before) {
  const { header, tokens, head, norms } = picture;
  const pieces = tokens.map((token) => token.text);
  const numbers = document.querySelector(".numbers");
  drawTokens(find("tokens"), tokens, header.query);
  drawDropped(find("dropped"), header);
  // Only another query was chosen, or something was typed behind the window: the head's cells are as they were.
  if (head.scores !== before?.head.scores || header.stage !== before.header.stage)
    headFigure.draw(header.figure, head, pieces);
  if (norms !== normsDrawn) drawNorms();
  grid.draw(picture, layersAndHeads());
  zoom.draw(picture);
  drawRow(numbers, picture);
  drawNext(numbers, picture);
  find("cell").textContent = "";
  document.body.dataset.shown = JSON.stringify([header.model, view.text, header.layer, header.head, header.stage]);
  document.body.classList.remove("stale");
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

function facts({ picture: { header }, elapsed_ms, road }) {
  const { model: name, device, dtype, n, timings } = header;
  return [
    name,
    device,
    dtype === "float32" ? "" : `computed in ${dtype}`,
    `${n.toLocaleString("en")} token${n === 1 ? "" : "s"}`,
    `read in ${timings.computed_ms.toFixed(0)} ms, ${elapsed_ms.toFixed(0)} ms in all`,
    road === "live" ? "" : "over HTTP, because the live channel cannot be had",
  ].filter(Boolean).join(" · ");
}

onNotice((words, obstacle) => {
  find("obstacle").hidden = !words;
  find("notice").hidden = !words;
  find("notice").textContent = words;
  find("notice").classList.toggle("waiting", obstacle === "passing");
  find("resume").hidden = obstacle !== "stopped";
  if (words) document.body.classList.add("stale"); // the picture is of another text than the one in the box
});
find("resume").addEventListener("click", resume);
find("cancel").addEventListener("click", () => {
  cancel();
  find("resume").focus(); // the button that was pressed is gone
});

onProgress((isReading, progress) => {
  find("reading").hidden = !isReading;
  find("facts").hidden = isReading; // they are of the reading before
  const bar = find("progress");
  if (progress) [bar.max, bar.value] = [progress.of, progress.read];
  else bar.removeAttribute("value");
  const [read, of] = [progress?.read, progress?.of].map((n) => n?.toLocaleString("en"));
  find("progress-words").textContent = progress ? `read ${read} of ${of} tokens` : "waiting for the server";
});

onShow((state) => {
  if (text.value !== state.text) text.value = state.text;
  for (const [field, value] of [[layer, state.layer], [head, state.head]])
    if (Number(field.value) !== value) field.value = value;
  model.value = state.model; // a name that is no option leaves it empty, as it should
  find("head-layer").textContent = state.layer;
  find("head-index").textContent = state.head;
  markStage(state.stage);
  if (view && (view.picture.header.model !== state.model || view.text !== state.text)) document.body.classList.add("stale");
});

function markStage(stage) {
  for (const link of document.querySelectorAll("[data-stage]"))
    link.dataset.stage === stage ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current");
  find("stage-words").textContent = STAGE_WORDS[stage] ?? "";
}

/** A chosen token stays chosen while it and what stands before it are untouched. */
function keptQuery(before, after) {
  const { query } = now();
  const token = view?.picture.tokens[query];
  const start = (whole) => [...whole].slice(0, token.end).join(""); // offsets count code points, strings UTF-16 units
  return token && start(before) === start(after) ? query : null;
}

text.addEventListener("input", () => show({ text: text.value, query: keptQuery(now().text, text.value) }));
find("ask").addEventListener("submit", (event) => event.preventDefault());
model.addEventListener("change", () => {
  const [layers, heads] = layersAndHeads();
  limit();
  show({
    model: model.value,
    layer: Math.min(now().layer, layers - 1),
    head: Math.min(now().head, heads - 1),
    query: null,
    window: null,
  });
});
for (const field of [layer, head])
  field.addEventListener("input", () => field.value !== "" && show({ [field.id]: Number(field.value) }));

function limit() {
  const [layers, heads] = layersAndHeads();
  layer.max = layers - 1;
  head.max = heads - 1;
}

/** Of the chosen model. */
function layersAndHeads() {
  const { layers, heads } = model.selectedOptions[0]?.dataset ?? {};
  return [Number(layers), Number(heads)];
}

document.querySelector(".stages").addEventListener("click", (event) => {
  const link = event.target.closest("[data-stage]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  show({ stage: link.dataset.stage });
});
document.querySelector(".examples").addEventListener("click", (event) => {
  const link = event.target.closest("[data-text]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  visit({ text: link.dataset.text, query: null, window: null }); // Back brings back what was typed
});
chooseTokens(find("tokens"));

headFigure.on("plotly_hover", ({ points: [point] }) => drawCell(find("cell"), view.picture, ...cellOf(point)));
headFigure.on("plotly_click", ({ points: [point] }) => {
  const { window: [top], step } = view.picture.one;
  show({ query: top + step * cellOf(point)[0] });
});
const cellOf = ({ pointIndex }) => pointIndex; // row and column

onScheme(() => {
  headFigure.redraw();
  normsFigure.redraw();
  grid.redraw();
});

document.body.classList.add("live");
limit();
markStage(now().stage);
follow();
if (find("stand-in")) awaitDefault(find("stand-in"));
