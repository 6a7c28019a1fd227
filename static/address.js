// The state of the pages with a text and a head, in their address: the store of home and training.

import { Store } from "./store.js";

/**
 * @typedef {object} State
 * @property {string} model
 * @property {string} text
 * @property {string} edits what is changed while the model reads; empty for nothing
 * @property {number | null} step of the model's training; null is the finished model
 * @property {number} layer
 * @property {number} head
 * @property {number | null} query the chosen token; null follows the last one
 * @property {string} stage scores, scaled, masked or weights
 * @property {Window | null} window the part of the chosen head that is shown; null is all of it
 */

/** Rows top to bottom - 1, columns left to right - 1. @typedef {[top: number, bottom: number, left: number, right: number]} Window */

/** @type {Store<State>} */
const store = new Store(toAddress, (search) => (new URLSearchParams(search).has("stage") ? parseState(search) : null));
/** The query that the server suggested, until there is another one. @type {number | null | undefined} */
let suggested;
store.onChange(({ query }) => {
  if (query !== suggested) suggested = undefined;
});

export const currentState = () => store.state;

/**
 * Start with the state that the server put into the page.
 * @param {State} initial @param {boolean} isQuerySuggested true if the user has not chosen the query
 */
export function initState(initial, isQuerySuggested) {
  store.init(initial);
  suggested = isQuerySuggested ? initial.query : undefined;
}

/** Is the query only a suggestion, which the user has not chosen? */
export const isQuerySuggested = () => suggested !== undefined;

/** Choose a token by hand; null follows the last one again. @param {number | null} query */
export function chooseQuery(query) {
  suggested = undefined;
  navigate({ query });
}

/** Change the state with everything that happens in between, as while typing. @param {Partial<State>} change */
export const update = (change) => store.update(change);

/** Change the state by one choice, which Back takes back. @param {Partial<State>} change */
export const navigate = (change) => store.navigate(change);

/** Subscribe to every change of the state. @param {(state: State) => void} subscriber */
export const onChange = (subscriber) => store.onChange(subscriber);

/** Does this click open a link in another tab or window? @param {MouseEvent} click */
export function opensElsewhere(click) {
  return click.ctrlKey || click.metaKey || click.shiftKey;
}

/** The address of a state on this page. @param {State} state */
export function toAddress({ model, text, edits, step, layer, head, query, stage, window }) {
  const parameters = new URLSearchParams({ model, text });
  if (step !== null) parameters.set("step", String(step));
  parameters.set("layer", String(layer));
  parameters.set("head", String(head));
  if (query !== null) parameters.set("query", String(query));
  parameters.set("stage", stage);
  if (edits) parameters.set("edits", edits);
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
  const { model, text, stage, edits = "" } = Object.fromEntries(parameters);
  const [step, layer, head, query] = ["step", "layer", "head", "query"].map(number);
  return { model, text, edits, step, layer, head, query, stage, window: parseWindow(search) };
}
