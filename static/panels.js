// The panels made of words: token chips, the chosen query's numbers, the next tokens, the cell under the pointer.
// Text enters the page by textContent alone.

import { choose } from "./address.js";

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

/** A token within a sentence: whatever its script, it turns nothing around it. @param {string} text */
const isolated = (text) => element("bdi", { textContent: text });

const meter = (/** @type {number} */ value) => {
  const made = element("meter", { value });
  made.ariaHidden = "true";
  return made;
};

/** The tokens as chips; the chosen one is marked. Those that are as they were stay.
 *  @param {HTMLElement} list @param {Token[]} tokens @param {number} query @param {string} text what was read */
export function drawTokens(list, tokens, query, text) {
  const before = drawnTokens.get(list) ?? [];
  const split = splitCharacters(tokens, text);
  const isSame = (/** @type {Token} */ { text, id }, /** @type {number} */ i) => before[i]?.text === text && before[i].id === id && before[i].split === split[i];
  const first = tokens.findIndex((token, i) => !isSame(token, i));
  const nKept = first < 0 ? tokens.length : first;
  const focused = list.contains(document.activeElement) ? /** @type {HTMLButtonElement} */ (document.activeElement).value : null;
  if (before.length) while (list.children.length > nKept) list.lastElementChild.remove();
  else list.replaceChildren(); // the server's
  list.append(...tokens.slice(nKept).map((token, i) => element("li", {}, chip(token, split[nKept + i]))));
  drawnTokens.set(list, tokens.map(({ text, id }, i) => ({ text, id, split: split[i] })));
  const [marked, chosen] = [list.querySelector("[aria-current]"), list.children[query].firstElementChild];
  if (marked !== chosen) {
    marked?.removeAttribute("aria-current");
    chosen.ariaCurrent = "true";
    intoSight(list, chosen.parentElement);
  }
  if (focused !== null && Number(focused) >= nKept) /** @type {HTMLElement | undefined} */ (list.children[Number(focused)]?.firstElementChild)?.focus();
}

/** What stands in a list. @type {WeakMap<HTMLElement, {text: string, id: number, split: string}[]>} */
const drawnTokens = new WeakMap();

/** @param {Token} token @param {string} split */
function chip({ position, id, text, bytes }, split) {
  const title = `position ${position}, id ${id}, bytes ${bytes}${split && `, part of ${split}`}`;
  return element("button", { type: "button", className: "token", dir: "auto", value: position, title, textContent: text });
}

/** Of each token, the characters of which it holds but a part, in words; empty for most. app/routes/pages.py does the same.
 *  @param {Token[]} tokens @param {string} text */
function splitCharacters(tokens, text) {
  const sharesWithNext = tokens.map(({ end }, i) => tokens[i + 1]?.start < end);
  if (!sharesWithNext.includes(true)) return tokens.map(() => "");
  const characters = [...text]; // offsets count code points
  return tokens.map(({ start, end }, i) => {
    const shared = new Set([...(sharesWithNext[i - 1] ? [start] : []), ...(sharesWithNext[i] ? [end - 1] : [])]);
    return [...shared].map((at) => `\u2068${characters[at]}\u2069 (character ${at})`).join(" and ");
  });
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
export function drawUnfinished(place, { header: { n_tokens: n }, layers, done }, nLayers) {
  const nDrawn = layers.filter((layer) => layer?.nTokens === n).length;
  place.textContent = done ? "" : `${nDrawn} of ${nLayers} layers are drawn.`;
}

/** The numbers of the chosen query, key by key; all are exact. A table that nobody sees is not made.
 *  @param {HTMLElement} section @param {Picture} picture @param {string} text what was read */
export function drawRow(section, picture, text) {
  const { header: { query }, tokens } = picture;
  const split = splitCharacters(tokens, text)[query];
  section.querySelector("#row-title").replaceChildren(
    "What ",
    isolated(tokens[query].text),
    ` (${query}) looks at`,
    ...(split ? [" ", element("small", { textContent: `part of ${split}` })] : []),
  );
  /** @type {HTMLDetailsElement} */
  const details = section.querySelector("#row-details");
  const draw = () => (details.open ? drawNumbers(section, picture) : section.querySelector("#row tbody").replaceChildren());
  details.ontoggle = draw;
  draw();
}

/** @param {HTMLElement} section @param {Picture} picture */
function drawNumbers(section, { header: { n_tokens: n, query }, tokens, head }) {
  const [scores, scaled, weights] = ["scores", "scaled", "weights"].map((name) => head[`row_${name}`].values);
  let keys = tokens.map((token) => token.position);
  /** @type {HTMLElement} */
  const note = section.querySelector("#row-note");
  note.hidden = n <= N_ROWS;
  if (n > N_ROWS) {
    keys = keys.sort((a, b) => weights[b] - weights[a]).slice(0, N_ROWS);
    note.textContent = `The ${N_ROWS} largest weights of ${n.toLocaleString("en")}.`;
  }
  /** @type {HTMLTableSectionElement} */
  const body = section.querySelector("#row tbody");
  while (body.rows.length > keys.length) body.lastElementChild.remove();
  while (body.rows.length < keys.length) body.append(line());
  keys.forEach((key, i) => {
    const behind = key > query;
    const numbers = [scores[key].toFixed(4), scaled[key].toFixed(4), behind ? "−∞" : scaled[key].toFixed(4)];
    const [name, ...cells] = body.rows[i].cells;
    const [place, token] = name.childNodes;
    const texts = /** @type {Text[]} */ ([place, token.firstChild, ...cells.map((cell) => cell.firstChild)]);
    [`${key} `, tokens[key].text, ...numbers, weights[key].toFixed(6)].forEach((words, j) => {
      if (texts[j].data !== words) texts[j].data = words;
    });
    /** @type {HTMLMeterElement} */ (cells[3].lastChild).value = weights[key];
    body.rows[i].classList.toggle("behind", behind);
  });
}

/** A line of the table, still without its words: writing into what is there is faster than to make it anew. */
function line() {
  const text = () => document.createTextNode("");
  const name = element("th", { scope: "row" }, text(), element("bdi", {}, text()));
  const numbers = Array.from({ length: 3 }, () => element("td", {}, text()));
  return element("tr", {}, name, ...numbers, element("td", { className: "weight" }, text(), meter(0)));
}

/** The likeliest next tokens. @param {HTMLElement} section @param {Picture} picture */
export function drawNext(section, { tokens, header: { query, prediction } }) {
  const known = prediction.surprisal_bits;
  const surprise = known === null ? [] : [" · next came ", isolated(tokens[query + 1].text), `, surprisal ${known.toFixed(2)} bits`];
  section.querySelector("#next-words").replaceChildren(
    "after ",
    isolated(tokens[query].text),
    ` (${query}) · entropy ${prediction.entropy_bits.toFixed(2)} bits`,
    ...surprise,
  );
  section.querySelector("#next").replaceChildren(
    ...prediction.top.map(({ id, text, bytes, probability, logit }) => {
      const piece = element("span", { className: "piece", dir: "auto", textContent: text });
      const value = element("span", { className: "value", textContent: `${(100 * probability).toFixed(2)} %` });
      return element("li", { title: `id ${id}, bytes ${bytes}, logit ${logit.toFixed(4)}` }, piece, meter(probability), value);
    }),
  );
}

/**
 * One cell at every stage, in the model's numbers.
 * @param {HTMLElement} place @param {Picture} picture @param {number} row @param {number} column
 */
export function drawCell(place, { tokens, head, cells }, row, column) {
  const { window: [top, bottom, left, right], step } = cells;
  const width = head.weights.shape[1];
  const at = row * width + column;
  const exact = (/** @type {string} */ name) => Number(head[name].values[at].toPrecision(9)).toPrecision(7);
  const [query, key] = [top + row * step, left + column * step];
  const [lastQuery, lastKey] = [Math.min(query + step, bottom) - 1, Math.min(key + step, right) - 1];
  const named = (/** @type {number} */ at) => [`${at} `, isolated(tokens[at].text)];
  const name = (/** @type {number} */ first, /** @type {number} */ last) => [...named(first), ...(last > first ? [" to ", ...named(last)] : [])];
  const masked = key > lastQuery ? "masked −∞, " : lastKey > query ? "" : `masked ${exact("scaled")}, `;
  place.replaceChildren(
    "query ",
    ...name(query, lastQuery),
    " → key ",
    ...name(key, lastKey),
    `: ${step > 1 ? "the largest " : ""}score ${exact("scores")}, scaled ${exact("scaled")}, ${masked}weight ${exact("weights")}`,
  );
}

/** Choosing a chip chooses its query. @param {HTMLElement} list */
export function chooseTokens(list) {
  list.addEventListener("click", (event) => {
    /** @type {HTMLButtonElement | null} */
    const chip = /** @type {Element} */ (event.target).closest(".token");
    if (!chip) return;
    event.preventDefault(); // a chip of the server's page would send the form
    choose(Number(chip.value));
  });
}
