// The panels made of words: token chips, the chosen query's numbers, the next tokens, the cell under the pointer.
// Text enters the page by textContent alone.

import { now, show } from "./address.js";

const N_ROWS = 256; // keys in the table, at most

/** @param {string} tag @param {Record<string, unknown>} properties @param {(Node | string)[]} children */
function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

const meter = (value) => {
  const made = element("meter", { value });
  made.ariaHidden = "true";
  return made;
};

/** The tokens as chips; the chosen one is marked. @param {HTMLElement} list @param {object} header of a view */
export function drawTokens(list, { tokens, query }) {
  const chips = tokens.map(({ position, id, text, bytes }) => {
    const title = `position ${position}, id ${id}, bytes ${bytes}`;
    const chip = element("button", { type: "button", className: "token", value: position, title, textContent: text });
    if (position === query) chip.ariaCurrent = "true";
    return element("li", {}, chip);
  });
  const focused = list.contains(document.activeElement) ? document.activeElement.value : null;
  list.replaceChildren(...chips);
  list.querySelector(`[value="${focused}"]`)?.focus();
}

/** What the vocabulary cannot hold. @param {HTMLElement} place @param {object} header */
export function drawDropped(place, { dropped }) {
  place.hidden = !dropped.length;
  const some = dropped.slice(0, 20).map(({ text, start }) => `${codePoint(text)} (character ${start})`);
  const rest = dropped.length > 20 ? ` and ${dropped.length - 20} more` : "";
  place.textContent = `Not in the vocabulary, so the model does not see: ${some.join(", ")}${rest}`;
}

const codePoint = (text) => `U+${text.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;

/** How much goes to the first token. @param {HTMLElement} place @param {number | null} share */
export function drawSink(place, share) {
  place.hidden = share === null;
  const percent = (100 * share).toFixed(0);
  place.textContent = `The left edge: over all heads, later tokens give the first one ${percent} % of their attention.`;
}

/** The numbers of the chosen query, key by key. @param {HTMLElement} section @param {import("./reader.js").View} view */
export function drawRow(section, { header, arrays }) {
  const { tokens, query } = header;
  const n = tokens.length;
  const row = (name) => arrays[name].values.subarray(query * n, (query + 1) * n);
  const [scores, scaled, weights] = [row("scores"), row("scaled"), row("weights")];
  let keys = tokens.map((token) => token.position);
  const note = section.querySelector("#row-note");
  note.hidden = n <= N_ROWS;
  if (n > N_ROWS) {
    keys = keys.sort((a, b) => weights[b] - weights[a]).slice(0, N_ROWS);
    note.textContent = `The ${N_ROWS} largest weights of ${n}.`;
  }
  section.querySelector("#row-title").textContent = `What ${tokens[query].text} (${query}) looks at`;
  section.querySelector("#row tbody").replaceChildren(
    ...keys.map((key) => {
      const weight = element("td", { className: "weight" }, weights[key].toFixed(6), meter(weights[key]));
      const cells = [scores[key].toFixed(4), scaled[key].toFixed(4), key > query ? "−∞" : scaled[key].toFixed(4)];
      const head = element("th", { scope: "row", textContent: `${key} ${tokens[key].text}` });
      const line = element("tr", {}, head, ...cells.map((textContent) => element("td", { textContent })), weight);
      line.classList.toggle("behind", key > query);
      return line;
    }),
  );
}

/** The likeliest next tokens. @param {HTMLElement} section @param {object} header */
export function drawNext(section, { tokens, query, prediction }) {
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

/** One cell at every stage, in the model's numbers. @param {HTMLElement} place @param {import("./reader.js").View} view */
export function drawCell(place, { header: { tokens }, arrays }, query, key) {
  const at = query * tokens.length + key;
  const exact = (name) => Number(arrays[name].values[at].toPrecision(9)).toPrecision(7);
  const name = (position) => `${position} ${tokens[position].text}`;
  const masked = key > query ? "−∞" : exact("scaled");
  place.textContent =
    `query ${name(query)} → key ${name(key)}: score ${exact("scores")}, ` +
    `scaled ${exact("scaled")}, masked ${masked}, weight ${exact("weights")}`;
}

/** Choosing a chip chooses its query; a second click lets it follow the last token again. */
export function chooseTokens(list) {
  list.addEventListener("click", (event) => {
    const chip = event.target.closest(".token");
    if (!chip) return;
    event.preventDefault(); // a chip of the server's page would send the form
    const position = Number(chip.value);
    show({ query: now().query === position ? null : position });
  });
}
