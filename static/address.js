// The state of a page is kept in its address. Panels subscribe with `onChange`; whoever wants another state calls `update`.

/**
 * @typedef {object} State
 * @property {string} model
 * @property {string} text
 * @property {number | null} step of the model's training; null is the finished model
 * @property {number} layer
 * @property {number} head
 * @property {number | null} query the chosen token; null follows the last one
 * @property {string} stage scores, scaled, masked or weights
 * @property {Window | null} window the part of the chosen head that is shown; null is all of it
 */

/** Rows top to bottom - 1, columns left to right - 1. @typedef {[top: number, bottom: number, left: number, right: number]} Window */

/** @type {Set<(state: State) => void>} */
const subscribers = new Set();
/** @type {Readonly<State>} */
let state;
let isSuggested = false; // the server suggested the query, and the user has not chosen one
let writeTimer = 0;

export const currentState = () => state;

/**
 * Start with the state that the server put into the page.
 * @param {State} initial @param {boolean} isQuerySuggested true if the user has not chosen the query
 */
export function initState(initial, isQuerySuggested) {
  state = Object.freeze(initial);
  isSuggested = isQuerySuggested;
}

/** Is the query only a suggestion, which the user has not chosen? */
export const isQuerySuggested = () => isSuggested;

/** Choose a token by hand; null follows the last one again. @param {number | null} query */
export function chooseQuery(query) {
  isSuggested = false;
  update({ query });
}

/** Change the state, tell all subscribers, and write the address after a short pause. @param {Partial<State>} change */
export function update(change) {
  const next = { ...state, ...change };
  const names = /** @type {(keyof State)[]} */ (Object.keys(next));
  if (names.every((name) => String(next[name]) === String(state[name]))) return; // String also compares windows, which are arrays
  if (next.query !== state.query) isSuggested = false;
  state = Object.freeze(next);
  // Browsers limit how often the address may change, so it does not change on every key.
  clearTimeout(writeTimer);
  writeTimer = setTimeout(write, 250);
  for (const subscriber of subscribers) subscriber(state);
}

/** Change the state as a new entry of the browser's history, so that Back restores the old one. @param {Partial<State>} change */
export function navigate(change) {
  write();
  history.pushState(null, "", toAddress({ ...state, ...change }));
  update(change);
}

/** Subscribe to every change of the state. @param {(state: State) => void} subscriber */
export function onChange(subscriber) {
  subscribers.add(subscriber);
}

/** Does this click open a link in another tab or window? @param {MouseEvent} click */
export function opensElsewhere(click) {
  return click.ctrlKey || click.metaKey || click.shiftKey;
}

/** The address of a state on this page. @param {State} state */
export function toAddress({ model, text, step, layer, head, query, stage, window }) {
  const parameters = new URLSearchParams({ model, text });
  if (step !== null) parameters.set("step", String(step));
  parameters.set("layer", String(layer));
  parameters.set("head", String(head));
  if (query !== null) parameters.set("query", String(query));
  parameters.set("stage", stage);
  if (window !== null) parameters.set("window", window.join("-"));
  return `${location.pathname}?${parameters}`;
}

/** The window in the query string of an address; null if there is none or it is malformed.
 *  @param {string} search @returns {Window | null} */
export function parseWindow(search) {
  const match = /^(\d{1,6})-(\d{1,6})-(\d{1,6})-(\d{1,6})$/.exec(new URLSearchParams(search).get("window") ?? "");
  return match && /** @type {Window} */ (match.slice(1).map(Number));
}

/** The state in the query string of an address that this page wrote. @param {string} search @returns {State} */
function parseState(search) {
  const parameters = new URLSearchParams(search);
  const number = (/** @type {string} */ name) => (parameters.has(name) ? Number(parameters.get(name)) : null);
  const { model, text, stage } = Object.fromEntries(parameters);
  const [step, layer, head, query] = ["step", "layer", "head", "query"].map(number);
  return { model, text, step, layer, head, query, stage, window: parseWindow(search) };
}

addEventListener("popstate", () => new URLSearchParams(location.search).has("stage") && update(parseState(location.search)));

function write() {
  clearTimeout(writeTimer);
  try {
    history.replaceState(null, "", toAddress(state));
  } catch {
    // The address is too long for this browser, or changes too often. The page works without it.
  }
}

addEventListener("pagehide", write);
