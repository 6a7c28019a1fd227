// The parts of a page that are text: token chips, the numbers of the chosen query, the next tokens, and the cell under the
// pointer. Text from outside is inserted with textContent only, so that it is never parsed as HTML.

import { chooseQuery } from "./address.js";

const N_ROWS = 256; // keys in the table, at most
const N_DROPPED = 20; // dropped characters that are listed, at most

/** @typedef {import("./client_state.js").ClientState} ClientState */
/** @typedef {import("./types.js").Token} Token */

/**
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag @param {Record<string, unknown>} properties @param {(Node | string)[]} children
 */
function createElement(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** A token inside a sentence. `bdi` keeps right-to-left text from reordering the words around it. @param {string} text */
const isolate = (text) => createElement("bdi", { textContent: text });

const createMeter = (/** @type {number} */ value) => {
  const meter = createElement("meter", { value });
  meter.ariaHidden = "true";
  return meter;
};

/** Draw the tokens as chips, and mark the chosen one. Chips that are still right are kept.
 *  @param {HTMLElement} list @param {Token[]} tokens @param {number} query @param {string} text */
export function drawTokens(list, tokens, query, text) {
  const before = drawnTokens.get(list) ?? [];
  const split = splitCharacters(tokens, text);
  const isSame = (/** @type {Token} */ { text, id }, /** @type {number} */ i) => before[i]?.text === text && before[i].id === id && before[i].split === split[i];
  const firstNew = tokens.findIndex((token, i) => !isSame(token, i));
  const nUnchanged = firstNew < 0 ? tokens.length : firstNew;
  const focused = list.contains(document.activeElement) ? /** @type {HTMLButtonElement} */ (document.activeElement).value : null;
  if (before.length) while (list.children.length > nUnchanged) list.lastElementChild.remove();
  else list.replaceChildren(); // removes the chips that the server rendered
  list.append(...tokens.slice(nUnchanged).map((token, i) => createElement("li", {}, createChip(token, split[nUnchanged + i]))));
  drawnTokens.set(list, tokens.map(({ text, id }, i) => ({ text, id, split: split[i] })));
  const [marked, chosen] = [list.querySelector("[aria-current]"), list.children[query].firstElementChild];
  if (marked !== chosen) {
    marked?.removeAttribute("aria-current");
    chosen.ariaCurrent = "true";
    scrollWithin(list, chosen.parentElement);
  }
  if (focused !== null && Number(focused) >= nUnchanged) /** @type {HTMLElement | undefined} */ (list.children[Number(focused)]?.firstElementChild)?.focus();
}

/** The tokens that each list shows. @type {WeakMap<HTMLElement, {text: string, id: number, split: string}[]>} */
const drawnTokens = new WeakMap();

/** @param {Token} token @param {string} split */
function createChip({ position, id, text, bytes }, split) {
  const title = `position ${position}, id ${id}, bytes ${bytes}${split && `, part of ${split}`}`;
  return createElement("button", { type: "button", className: "token", dir: "auto", value: position, title, textContent: text });
}

/** For each token, the characters of which it contains only a part, in words; empty for most tokens. The same as
 *  `split_characters` in app/routes/pages.py. @param {Token[]} tokens @param {string} text */
function splitCharacters(tokens, text) {
  const overlapsNext = tokens.map(({ end }, i) => tokens[i + 1]?.start < end);
  if (!overlapsNext.includes(true)) return tokens.map(() => "");
  const characters = [...text]; // offsets count code points
  return tokens.map(({ start, end }, i) => {
    const shared = new Set([...(overlapsNext[i - 1] ? [start] : []), ...(overlapsNext[i] ? [end - 1] : [])]);
    return [...shared].map((at) => `\u2068${characters[at]}\u2069 (character ${at})`).join(" and ");
  });
}

/** Scroll a list so that an item is visible, without scrolling the page. @param {HTMLElement} list @param {Element} item */
function scrollWithin(list, item) {
  const [outer, inner] = [list.getBoundingClientRect(), item.getBoundingClientRect()];
  if (inner.top < outer.top) list.scrollTop += inner.top - outer.top - 4;
  if (inner.bottom > outer.bottom) list.scrollTop += inner.bottom - outer.bottom + 4;
}

/** List the characters that are not in the vocabulary. @param {HTMLElement} element @param {ClientState["header"]} header */
export function drawDropped(element, { dropped }) {
  element.hidden = !dropped.length;
  const listed = dropped.slice(0, N_DROPPED).map(({ text, start }) => `${codePoint(text)} (character ${start})`);
  const rest = dropped.length > N_DROPPED ? ` and ${dropped.length - N_DROPPED} more` : "";
  element.textContent = `Not in the vocabulary, so the model does not see: ${listed.join(", ")}${rest}`;
}

const codePoint = (/** @type {string} */ text) => `U+${text.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;

/** Say how large the attention sink is: the mean weight on the first token.
 *  @param {HTMLElement} element @param {number} nTokens @param {number | null} meanWeight null while it is not known */
export function drawAttentionSink(element, nTokens, meanWeight) {
  element.hidden = nTokens < 2;
  const percent = meanWeight === null ? "…" : (100 * meanWeight).toFixed(0);
  element.textContent = `Averaged over all heads, later tokens put ${percent} % of their attention on the first token: the left edge of each square.`;
}

/** Say how many layers of the grid are drawn, until all are.
 *  @param {HTMLElement} element @param {ClientState} clientState @param {number} nLayers */
export function drawGridProgress(element, { header: { n_tokens: n }, layers, done }, nLayers) {
  const nDrawn = layers.filter((layer) => layer?.nTokens === n).length;
  element.textContent = done ? "" : `${nDrawn} of ${nLayers} layers are drawn.`;
}

/** Draw the heading and the table of the chosen query. A table that is closed stays empty, because it costs time.
 *  @param {HTMLElement} section @param {ClientState} clientState @param {string} text */
export function drawQuery(section, clientState, text) {
  const { header: { query }, tokens } = clientState;
  const split = splitCharacters(tokens, text)[query];
  section.querySelector("#query-title").replaceChildren(
    "What ",
    isolate(tokens[query].text),
    ` (${query}) attends to`,
    ...(split ? [" ", createElement("small", { textContent: `part of ${split}` })] : []),
  );
  /** @type {HTMLDetailsElement} */
  const details = section.querySelector("#query-details");
  const draw = () => (details.open ? drawTable(section, clientState) : section.querySelector("#query-table tbody").replaceChildren());
  details.ontoggle = draw;
  draw();
}

/** @param {HTMLElement} section @param {ClientState} clientState */
function drawTable(section, { header: { n_tokens: n, query }, tokens, head }) {
  const [scores, scaled, weights] = ["scores", "scaled", "weights"].map((name) => head[`row_${name}`].values);
  // Masked scores come only where edits change them; otherwise the causal mask says what they are.
  const maskedAt = (/** @type {number} */ key) => head.row_masked?.values[key] ?? (key > query ? -Infinity : scaled[key]);
  let keys = tokens.map((token) => token.position);
  /** @type {HTMLElement} */
  const note = section.querySelector("#query-note");
  note.hidden = n <= N_ROWS;
  if (n > N_ROWS) {
    keys = keys.sort((a, b) => weights[b] - weights[a]).slice(0, N_ROWS);
    note.textContent = `The ${N_ROWS} largest weights of ${n.toLocaleString("en")}.`;
  }
  /** @type {HTMLTableSectionElement} */
  const body = section.querySelector("#query-table tbody");
  while (body.rows.length > keys.length) body.lastElementChild.remove();
  while (body.rows.length < keys.length) body.append(createRow());
  keys.forEach((key, i) => {
    const isMasked = maskedAt(key) === -Infinity;
    const numbers = [scores[key].toFixed(4), scaled[key].toFixed(4), isMasked ? "−∞" : maskedAt(key).toFixed(4)];
    const [name, ...cells] = body.rows[i].cells;
    const [position, token] = name.childNodes;
    const nodes = /** @type {Text[]} */ ([position, token.firstChild, ...cells.map((cell) => cell.firstChild)]);
    [`${key} `, tokens[key].text, ...numbers, weights[key].toFixed(6)].forEach((text, j) => {
      if (nodes[j].data !== text) nodes[j].data = text;
    });
    /** @type {HTMLMeterElement} */ (cells[3].lastChild).value = weights[key];
    body.rows[i].classList.toggle("masked", isMasked);
  });
}

/** A table row with empty text nodes. Filling them in is faster than creating new rows. */
function createRow() {
  const text = () => document.createTextNode("");
  const name = createElement("th", { scope: "row" }, text(), createElement("bdi", {}, text()));
  const numbers = Array.from({ length: 3 }, () => createElement("td", {}, text()));
  return createElement("tr", {}, name, ...numbers, createElement("td", { className: "weight" }, text(), createMeter(0)));
}

/** Draw the most probable next tokens. @param {HTMLElement} section @param {ClientState} clientState */
export function drawNextTokens(section, { tokens, header: { query, prediction } }) {
  const surprisal = prediction.surprisal_bits;
  const actual = surprisal === null ? [] : [" · the actual next token, ", isolate(tokens[query + 1].text), `, has a surprisal of ${surprisal.toFixed(2)} bits`];
  section.querySelector("#next-summary").replaceChildren(
    "after ",
    isolate(tokens[query].text),
    ` (${query}) · entropy ${prediction.entropy_bits.toFixed(2)} bits`,
    ...actual,
  );
  section.querySelector("#next").replaceChildren(
    ...prediction.top.map(({ id, text, bytes, probability, logit }) => {
      const label = createElement("span", { className: "token-label", dir: "auto", textContent: text });
      const value = createElement("span", { className: "value", textContent: `${(100 * probability).toFixed(2)} %` });
      return createElement("li", { title: `id ${id}, bytes ${bytes}, logit ${logit.toFixed(4)}` }, label, createMeter(probability), value);
    }),
  );
}

/**
 * Show the numbers of one cell at every stage.
 * @param {HTMLElement} element @param {ClientState} clientState @param {number} row @param {number} column
 */
export function drawCell(element, { tokens, head, cells }, row, column) {
  const { window: [top, bottom, left, right], cell_size: cellSize } = cells;
  const width = head.weights.shape[1];
  const index = row * width + column;
  const exact = (/** @type {string} */ stage) => Number(head[stage].values[index].toPrecision(9)).toPrecision(7);
  const [query, key] = [top + row * cellSize, left + column * cellSize];
  const [lastQuery, lastKey] = [Math.min(query + cellSize, bottom) - 1, Math.min(key + cellSize, right) - 1];
  const name = (/** @type {number} */ position) => [`${position} `, isolate(tokens[position].text)];
  const range = (/** @type {number} */ first, /** @type {number} */ last) => [...name(first), ...(last > first ? [" to ", ...name(last)] : [])];
  const isCut = head.masked?.values[index] === -Infinity;
  const masked = head.masked ? `masked ${isCut ? "−∞" : exact("masked")}, ` : key > lastQuery ? "masked −∞, " : lastKey > query ? "" : `masked ${exact("scaled")}, `;
  element.replaceChildren(
    "query ",
    ...range(query, lastQuery),
    " → key ",
    ...range(key, lastKey),
    `: ${cellSize > 1 ? "the largest " : ""}score ${exact("scores")}, scaled ${exact("scaled")}, ${masked}weight ${exact("weights")}`,
  );
}

/** Let a click on a chip choose its token as the query. @param {HTMLElement} list */
export function chooseByToken(list) {
  list.addEventListener("click", (event) => {
    /** @type {HTMLButtonElement | null} */
    const chip = /** @type {Element} */ (event.target).closest(".token");
    if (!chip) return;
    event.preventDefault(); // a chip that the server rendered would submit the form
    chooseQuery(Number(chip.value));
  });
}
