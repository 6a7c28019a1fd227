// The panels made of words: token chips, the chosen query's numbers, the next tokens, the cell under the pointer.
// Text enters the page by textContent alone.

import { now, show } from "./address.js";

const N_ROWS = 256; // keys in the table, at most

/** @typedef {import("./picture.js").Picture} Picture */
/** @typedef {import("./types.js").Token} Token */

/**
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag @param {Record<string, unknown>} properties @param {(Node | string)[]} children
 */
function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

const meter = (/** @type {number} */ value) => {
  const made = element("meter", { value });
  made.ariaHidden = "true";
  return made;
};

/** The tokens as chips; the chosen one is marked. Those that are as they were stay.
 *  @param {HTMLElement} list @param {Token[]} tokens @param {number} query */
export function drawTokens(list, tokens, query) {
  const before = drawnTokens.get(list) ?? [];
  const isSame = (/** @type {Token} */ token, /** @type {number} */ i) => before[i]?.text === token.text && before[i].id === token.id;
  const first = tokens.findIndex((token, i) => !isSame(token, i));
  const nKept = first < 0 ? tokens.length : first;
  const focused = list.contains(document.activeElement) ? /** @type {HTMLButtonElement} */ (document.activeElement).value : null;
  if (before.length) while (list.children.length > nKept) list.lastElementChild.remove();
  else list.replaceChildren(); // the server's
  list.append(...tokens.slice(nKept).map((token) => element("li", {}, chip(token))));
  drawnTokens.set(list, tokens);
  const [marked, chosen] = [list.querySelector("[aria-current]"), list.children[query].firstElementChild];
  if (marked !== chosen) {
    marked?.removeAttribute("aria-current");
    chosen.ariaCurrent = "true";
    intoSight(list, chosen.parentElement);
  }
  if (focused !== null && Number(focused) >= nKept) /** @type {HTMLElement | undefined} */ (list.children[Number(focused)]?.firstElementChild)?.focus();
}

/** What stands in a list, as `drawTokens` was given it. @type {WeakMap<HTMLElement, Token[]>} */
const drawnTokens = new WeakMap();

/** @param {Token} token */
function chip({ position, id, text, bytes }) {
  const title = `position ${position}, id ${id}, bytes ${bytes}`;
  return element("button", { type: "button", className: "token", value: position, title, textContent: text });
}

/** Scroll the list, and not the page. @param {HTMLElement} list @param {Element} item */
function intoSight(list, item) {
  const [box, inner] = [list.getBoundingClientRect(), item.getBoundingClientRect()];
  if (inner.top < box.top) list.scrollTop += inner.top - box.top - 4;
  if (inner.bottom > box.bottom) list.scrollTop += inner.bottom - box.bottom + 4;
}

/** What the vocabulary cannot hold. @param {HTMLElement} place @param {Picture["header"]} header */
export function drawDropped(place, { dropped }) {
  place.hidden = !dropped.length;
  const some = dropped.slice(0, 20).map(({ text, start }) => `${codePoint(text)} (character ${start})`);
  const rest = dropped.length > 20 ? ` and ${dropped.length - 20} more` : "";
  place.textContent = `Not in the vocabulary, so the model does not see: ${some.join(", ")}${rest}`;
}

const codePoint = (/** @type {string} */ text) => `U+${text.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;

/** How much goes to the first token.
 *  @param {HTMLElement} place @param {number} nTokens @param {number | null} share null: not known yet */
export function drawSink(place, nTokens, share) {
  place.hidden = nTokens < 2;
  const percent = share === null ? "…" : (100 * share).toFixed(0);
  place.textContent = `The left edge: over all heads, later tokens give the first one ${percent} % of their attention.`;
}

/** How much of the grid is still to come.
 *  @param {HTMLElement} place @param {Picture} picture @param {number} nLayers */
export function drawUnfinished(place, { header: { n }, layers, done }, nLayers) {
  const nDrawn = layers.filter((layer) => layer?.known === n).length;
  place.textContent = done ? "" : `${nDrawn} of ${nLayers} layers are drawn.`;
}

/** The numbers of the chosen query, key by key; all are exact. @param {HTMLElement} section @param {Picture} picture */
export function drawRow(section, { header: { n, query }, tokens, head }) {
  const [scores, scaled, weights] = ["scores", "scaled", "weights"].map((name) => head[`row_${name}`].values);
  let keys = tokens.map((token) => token.position);
  /** @type {HTMLElement} */
  const note = section.querySelector("#row-note");
  note.hidden = n <= N_ROWS;
  if (n > N_ROWS) {
    keys = keys.sort((a, b) => weights[b] - weights[a]).slice(0, N_ROWS);
    note.textContent = `The ${N_ROWS} largest weights of ${n.toLocaleString("en")}.`;
  }
  section.querySelector("#row-title").textContent = `What ${tokens[query].text} (${query}) looks at`;
  /** @type {HTMLTableSectionElement} */
  const body = section.querySelector("#row tbody");
  while (body.rows.length > keys.length) body.lastElementChild.remove();
  while (body.rows.length < keys.length) body.append(line());
  keys.forEach((key, i) => {
    const behind = key > query;
    const numbers = [scores[key].toFixed(4), scaled[key].toFixed(4), behind ? "−∞" : scaled[key].toFixed(4)];
    const [name, ...cells] = body.rows[i].cells;
    [`${key} ${tokens[key].text}`, ...numbers, weights[key].toFixed(6)].forEach((words, j) => {
      const text = /** @type {Text} */ ([name, ...cells][j].firstChild);
      if (text.data !== words) text.data = words;
    });
    /** @type {HTMLMeterElement} */ (cells[3].lastChild).value = weights[key];
    body.rows[i].classList.toggle("behind", behind);
  });
}

/** A line of the table, still without its words: writing into what is there is faster than to make it anew. */
function line() {
  const text = () => document.createTextNode("");
  const name = element("th", { scope: "row" }, text());
  const numbers = Array.from({ length: 3 }, () => element("td", {}, text()));
  return element("tr", {}, name, ...numbers, element("td", { className: "weight" }, text(), meter(0)));
}

/** The likeliest next tokens. @param {HTMLElement} section @param {Picture} picture */
export function drawNext(section, { tokens, header: { query, prediction } }) {
  const known = prediction.surprisal_bits;
  const surprise = known === null ? "" : ` · next came ${tokens[query + 1].text}, surprisal ${known.toFixed(2)} bits`;
  section.querySelector("#next-words").textContent =
    `after ${tokens[query].text} (${query}) · entropy ${prediction.entropy_bits.toFixed(2)} bits${surprise}`;
  section.querySelector("#next").replaceChildren(
    ...prediction.top.map(({ id, text, probability, logit }) => {
      const piece = element("span", { className: "piece", textContent: text });
      const value = element("span", { className: "value", textContent: `${(100 * probability).toFixed(2)} %` });
      return element("li", { title: `id ${id}, logit ${logit.toFixed(4)}` }, piece, meter(probability), value);
    }),
  );
}

/**
 * One cell at every stage, in the model's numbers.
 * @param {HTMLElement} place @param {Picture} picture @param {number} row @param {number} column
 */
export function drawCell(place, { tokens, head, one }, row, column) {
  const { window: [top, bottom, left, right], step } = one;
  const width = head.weights.shape[1];
  const at = row * width + column;
  const exact = (/** @type {string} */ name) => Number(head[name].values[at].toPrecision(9)).toPrecision(7);
  const [query, key] = [top + row * step, left + column * step];
  const [lastQuery, lastKey] = [Math.min(query + step, bottom) - 1, Math.min(key + step, right) - 1];
  const name = (/** @type {number} */ first, /** @type {number} */ last) => `${first} ${tokens[first].text}${last > first ? ` to ${last} ${tokens[last].text}` : ""}`;
  const masked = key > lastQuery ? "masked −∞, " : lastKey > query ? "" : `masked ${exact("scaled")}, `;
  place.textContent =
    `query ${name(query, lastQuery)} → key ${name(key, lastKey)}: ${step > 1 ? "the largest " : ""}` +
    `score ${exact("scores")}, scaled ${exact("scaled")}, ${masked}weight ${exact("weights")}`;
}

/** Choosing a chip chooses its query; a second click lets it follow the last token again. @param {HTMLElement} list */
export function chooseTokens(list) {
  list.addEventListener("click", (event) => {
    /** @type {HTMLButtonElement | null} */
    const chip = /** @type {Element} */ (event.target).closest(".token");
    if (!chip) return;
    event.preventDefault(); // a chip of the server's page would send the form
    const position = Number(chip.value);
    show({ query: now().query === position ? null : position });
  });
}
