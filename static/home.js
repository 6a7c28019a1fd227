// The page: what is typed and chosen becomes the address; every view that comes back is drawn.

import { begin, now, onShow, show, visit } from "./address.js";
import { Figure } from "./figure.js";
import { Grid } from "./grid.js";
import { chooseTokens, drawCell, drawDropped, drawNext, drawRow, drawSink, drawTokens } from "./panels.js";
import { follow, onNotice, onView } from "./reader.js";
import { onScheme } from "./theme.js";

const STAGE_WORDS = {
  scores: "q·k: how well each query matches each key, before anything is done to it.",
  scaled: "Scores over √d, so that wide heads are not sharper than narrow ones.",
  masked: "What lies behind the mask is −∞: no token sees a later one.",
  weights:
    "Row by row: how much of its attention a token (query) gives itself and the tokens before it (keys). " +
    "Each row sums to 1; hatched cells are behind the causal mask.",
};

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
});

const grid = new Grid(find("grid"), find("grid-name"));
const headFigure = new Figure(find("head-figure"));
const normsFigure = new Figure(find("norms-figure"));
let view = null;

onView((seen) => {
  const { header, arrays, elapsed_ms } = seen;
  const isSameText = view?.header.overview === header.overview;
  view = seen;
  drawTokens(find("tokens"), header);
  drawDropped(find("dropped"), header);
  headFigure.draw(header.figure, arrays);
  if (!isSameText) {
    grid.draw(arrays.grid);
    drawSink(find("sink"), header.overview.first_share);
    normsFigure.draw(header.overview.figure, arrays);
  }
  drawRow(document.querySelector(".numbers"), seen);
  drawNext(document.querySelector(".numbers"), header);
  find("cell").textContent = "";
  find("facts").textContent = facts(header, elapsed_ms);
  document.body.dataset.shown = JSON.stringify([header.model, seen.text, header.layer, header.head, header.stage]);
  document.body.classList.remove("stale");
});

function facts({ model: name, tokens, timings, device, dtype }, elapsed_ms) {
  const parts = [name, device, dtype === "float32" ? "" : `computed in ${dtype}`];
  parts.push(`${tokens.length} token${tokens.length === 1 ? "" : "s"}`);
  parts.push(`read in ${timings.computed_ms.toFixed(0)} ms, ${elapsed_ms.toFixed(0)} ms in all`);
  return parts.filter(Boolean).join(" · ");
}

onNotice((words, isFinal) => {
  find("notice").hidden = !words;
  find("notice").textContent = words;
  find("notice").classList.toggle("waiting", Boolean(words) && !isFinal);
  if (words) document.body.classList.add("stale"); // the picture is of another text than the one in the box
});

onShow((state) => {
  if (text.value !== state.text) text.value = state.text;
  for (const [field, value] of [[layer, state.layer], [head, state.head]])
    if (Number(field.value) !== value) field.value = value;
  model.value = state.model; // a name that is no option leaves it empty, as it should
  find("head-layer").textContent = state.layer;
  find("head-index").textContent = state.head;
  markStage(state.stage);
  if (view && (view.header.model !== state.model || view.text !== state.text)) document.body.classList.add("stale");
});

function markStage(stage) {
  for (const link of document.querySelectorAll("[data-stage]"))
    link.dataset.stage === stage ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current");
  find("stage-words").textContent = STAGE_WORDS[stage] ?? "";
}

/** A chosen token stays chosen while it and what stands before it are untouched. */
function keptQuery(before, after) {
  const { query } = now();
  const token = view?.header.tokens[query];
  const start = (whole) => [...whole].slice(0, token.end).join(""); // offsets count code points, strings UTF-16 units
  return token && start(before) === start(after) ? query : null;
}

text.addEventListener("input", () => show({ text: text.value, query: keptQuery(now().text, text.value) }));
find("ask").addEventListener("submit", (event) => event.preventDefault());
model.addEventListener("change", () => {
  const { layers, heads } = model.selectedOptions[0].dataset;
  limit();
  show({
    model: model.value,
    layer: Math.min(now().layer, layers - 1),
    head: Math.min(now().head, heads - 1),
    query: null,
  });
});
for (const field of [layer, head])
  field.addEventListener("input", () => field.value !== "" && show({ [field.id]: Number(field.value) }));

function limit() {
  const { layers, heads } = model.selectedOptions[0]?.dataset ?? {};
  layer.max = layers - 1;
  head.max = heads - 1;
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
  visit({ text: link.dataset.text, query: null }); // Back brings back what was typed
});
chooseTokens(find("tokens"));

headFigure.on("plotly_hover", ({ points: [point] }) => drawCell(find("cell"), view, ...cellOf(point)));
headFigure.on("plotly_click", ({ points: [point] }) => show({ query: cellOf(point)[0] }));
const cellOf = ({ x, y }) => [y, x].map((label) => parseInt(label, 10)); // a label begins with its position

onScheme(() => {
  headFigure.redraw();
  normsFigure.redraw();
  if (view) grid.draw(view.arrays.grid);
});

document.body.classList.add("live");
limit();
markStage(now().stage);
follow();
