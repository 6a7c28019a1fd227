// The state of a page has one home, its address. Panels subscribe; whoever wants something else calls `show`.

/**
 * @typedef {object} State
 * @property {string} model
 * @property {string} text
 * @property {number | null} step of the model's training; null is its end
 * @property {number} layer
 * @property {number} head
 * @property {number | null} query the chosen token; null follows the last one
 * @property {string} stage scores, scaled, masked or weights
 * @property {Window | null} window the part of the chosen head that is looked at; null is all of it
 */

/** Rows top to bottom - 1, columns left to right - 1. @typedef {[top: number, bottom: number, left: number, right: number]} Window */

/** @type {Set<(state: State) => void>} */
const listeners = new Set();
/** @type {Readonly<State>} */
let state;
let isSuggested = false; // the server chose the token, to begin with
let writing = 0;

/** What is shown now. */
export const now = () => state;

/**
 * Begin with what the server put into the page.
 * @param {State} first @param {boolean} isQuerySuggested the token is one to begin with, which nobody has chosen
 */
export function begin(first, isQuerySuggested) {
  state = Object.freeze(first);
  isSuggested = isQuerySuggested;
}

/** Has nobody chosen the token that is marked? */
export const isQuerySuggested = () => isSuggested;

/** A visitor chooses a token; null follows the last one again. @param {number | null} query */
export function choose(query) {
  isSuggested = false;
  show({ query });
}

/** Show something else: every panel hears of it, and the address follows. @param {Partial<State>} change */
export function show(change) {
  const next = { ...state, ...change };
  const names = /** @type {(keyof State)[]} */ (Object.keys(next));
  if (names.every((name) => String(next[name]) === String(state[name]))) return; // a window is a list
  if (next.query !== state.query) isSuggested = false;
  state = Object.freeze(next);
  // Browsers refuse an address that changes with every key of a fast typist, so it follows after a breath.
  clearTimeout(writing);
  writing = setTimeout(write, 250);
  for (const listen of listeners) listen(state);
}

/** Show something quite different, to which the browser's Back leads back. @param {Partial<State>} change */
export function visit(change) {
  write();
  history.pushState(null, "", toAddress({ ...state, ...change }));
  show(change);
}

/** Be told of every change. @param {(state: State) => void} listen */
export function onShow(listen) {
  listeners.add(listen);
}

/** Is a link clicked that shall open elsewhere, in another tab or window? @param {MouseEvent} click */
export function opensElsewhere(click) {
  return click.ctrlKey || click.metaKey || click.shiftKey;
}

/** The address of a state on this page. @param {State} of */
export function toAddress(of) {
  const query = new URLSearchParams({ model: of.model, text: of.text });
  if (of.step !== null) query.set("step", String(of.step));
  query.set("layer", String(of.layer));
  query.set("head", String(of.head));
  if (of.query !== null) query.set("query", String(of.query));
  query.set("stage", of.stage);
  if (of.window !== null) query.set("window", of.window.join("-"));
  return `${location.pathname}?${query}`;
}

/** The window that an address names; null where it names none that can be. @param {string} query @returns {Window | null} */
export function windowIn(query) {
  const found = /^(\d{1,6})-(\d{1,6})-(\d{1,6})-(\d{1,6})$/.exec(new URLSearchParams(query).get("window") ?? "");
  return found && /** @type {Window} */ (found.slice(1).map(Number));
}

/** The state of an address that this page wrote. @param {string} query @returns {State} */
function fromAddress(query) {
  const of = new URLSearchParams(query);
  const number = (/** @type {string} */ name) => (of.has(name) ? Number(of.get(name)) : null);
  const { model, text, stage } = Object.fromEntries(of);
  const window = windowIn(query);
  const [step, layer, head, chosen] = ["step", "layer", "head", "query"].map(number);
  return { model, text, step, layer, head, query: chosen, stage, window };
}

addEventListener("popstate", () => new URLSearchParams(location.search).has("stage") && show(fromAddress(location.search)));

function write() {
  clearTimeout(writing);
  try {
    history.replaceState(null, "", toAddress(state));
  } catch {
    // Too long for this browser, or too often: the picture is right all the same.
  }
}

addEventListener("pagehide", write);
