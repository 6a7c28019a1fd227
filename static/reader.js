// Asks the server for what the address says, and hands on what is of the text in the box, and only that.
//
// Every change is asked for at once, over the live channel, or over HTTP where that cannot be had. Frames come back in
// order. Each is taken in, so that the page has what the server believes it has; the newest text's are also shown.

import { now, onShow } from "./address.js";
import { decode } from "./frame.js";
import { Http } from "./http.js";
import { Live } from "./live.js";
import { NOTHING, applied } from "./picture.js";

const SLOW_MS = 700; // without any answer, a visitor wants to know
const RETRY_MS = [500, 1000, 2000, 4000];

/**
 * What the page has of a reading.
 * @typedef {object} View
 * @property {import("./picture.js").Picture} picture
 * @property {string} text what was read
 * @property {number | null} step at which step of the model's training
 * @property {number} elapsed_ms from asking to having the answer
 * @property {"live" | "http"} road
 */

/** How far a reading is, in tokens; null where nobody knows. @typedef {{n_read: number, n_tokens: number} | null} Progress */

/** What is in the way: nothing, something that passes, something the visitor must change, that there is no text yet, or
 *  that he stopped it. @typedef {"" | "passing" | "final" | "empty" | "stopped"} Obstacle */

/** @type {Set<(view: View) => void>} */
const viewers = new Set();
/** @type {Set<(words: string, obstacle: Obstacle) => void>} */
const listeners = new Set();
/** @type {Set<(isReading: boolean, progress: Progress) => void>} */
const watchers = new Set();

/** Be given every view that is to be shown. @param {(view: View) => void} draw */
export const onView = (draw) => viewers.add(draw);

/** Be told what is in the way. @param {(words: string, obstacle: Obstacle) => void} listen */
export const onNotice = (listen) => listeners.add(listen);

/** Be told when an answer is long in coming. @param {(isReading: boolean, progress: Progress) => void} watch */
export const onProgress = (watch) => watchers.add(watch);

/** @typedef {import("./types.js").FirstHeader} FirstHeader */
/** @typedef {{seq: number, state: import("./address.js").State, at: number}} Ask */
const live = new Live();
const http = new Http();
/** @type {Map<number, Ask>} */
const asks = new Map(); // that may be answered; a newer one's answer ends all before it
/** @type {Ask | null} */
let pending = null; // the newest, until it is answered
let seq = 0;
let picture = NOTHING;
let pictured = ""; // which text, model and step that is
let stopped = ""; // which ones are not to be read
/** @type {Obstacle} */
let obstacle = ""; // what was said last
let failures = 0; // requests in a row that found no server
let again = 0; // the timer of asking again
let slow = 0; // the timer of saying that it takes long
/** @type {Progress} */
let progress = null;

/** Start to follow the address. */
export function follow() {
  live.onOpen = ask;
  live.onMessage = hear;
  live.onGivenUp = () => pending && !http.isBusy && http.ask(body);
  http.onAnswer = answer;
  http.onProblem = (problem, retryAfterS) => pending && refuse(pending, problem, retryAfterS);
  http.onAway = away;
  onShow(ask);
  ask();
}

/** Stop to read the text that is asked for, until something else is typed. */
export function cancel() {
  const words = progress ? ` after ${progress.n_read.toLocaleString("en")} of ${progress.n_tokens.toLocaleString("en")} tokens` : "";
  stopped = key(now());
  pending = null;
  clearTimeout(again);
  http.stop();
  live.close(); // the server reads for nobody who is not there
  settle();
  notice(`Reading was stopped${words}. What you typed is kept.`, "stopped");
}

/** Read it after all. */
export function resume() {
  stopped = "";
  notice("", "");
  ask();
}

/** @param {Pick<import("./address.js").State, "model" | "step" | "text">} state */
const key = ({ model, step, text }) => JSON.stringify([model, step, text]);
/** @param {Ask | null | undefined} of */
const isWanted = (of) => of && key(of.state) === key(now()) && key(of.state) !== stopped;

function ask() {
  const state = now();
  clearTimeout(again);
  if (key(state) === stopped) return;
  stopped = "";
  if (pending && key(pending.state) !== key(state)) settle();
  if (!state.text) return askNothing();
  if (obstacle === "final" || obstacle === "empty") notice("", ""); // they were of what was asked before
  pending = { seq: ++seq, state, at: performance.now() };
  asks.set(seq, pending);
  slow ||= setTimeout(() => watched(true, progress), SLOW_MS);
  live.knock();
  if (live.isOpen) {
    http.stop();
    live.send(JSON.stringify({ seq, ...state }));
  } else if (live.isGivenUp) http.ask(body);
}

/** There is no text: whatever is under way is for nobody, and nothing is wrong. */
function askNothing() {
  pending = null;
  http.stop();
  settle();
  notice("", "empty");
}

/** A request for what is asked now; thumbnails and norms need not come twice. */
function body() {
  return JSON.stringify({ ...pending.state, overview: !(picture.done && pictured === key(pending.state)) });
}

/** @param {ArrayBuffer} buffer */
function hear(buffer) {
  const { header, arrays } = decode(buffer);
  if ("pong" in header) return;
  // A message that the server could not read has no number: it was the newest, as far as anybody knows.
  const of = header.seq === null ? pending : asks.get(header.seq);
  for (const older of [...asks.keys()].filter((one) => one < header.seq)) asks.delete(older);
  failures = 0;
  if (header.problem) refuse(of, header.problem, header.retry_after_s);
  else if (header.progress) isWanted(of) && watched(true, header.progress);
  else take({ header, arrays }, of, "live");
}

/** @param {ArrayBuffer} buffer */
function answer(buffer) {
  if (failures) live.retry(); // it was not the live channel that could not be had, but the server
  failures = 0;
  const { header, arrays } = decode(buffer);
  // Without thumbnails it is an answer to somebody who has those of the same text.
  const frame = header.grid ? { header, arrays } : { header: { ...header, n_shared: /** @type {FirstHeader} */ (header).n_tokens, tokens: /** @type {FirstHeader["tokens"]} */ ([]) }, arrays };
  take(frame, pending, "http");
}

/** @param {import("./frame.js").Frame} frame @param {Ask | null | undefined} of @param {View["road"]} road */
function take(frame, of, road) {
  picture = applied(picture, frame);
  if (of) pictured = key(of.state);
  if (!isWanted(of)) return;
  if (!pending || of.seq === pending.seq) {
    pending = null;
    settle();
    notice("", "");
  }
  const { text, step } = of.state;
  const view = { picture, text, step, elapsed_ms: performance.now() - of.at, road };
  for (const draw of viewers) draw(view);
}

/** @param {Ask | undefined} of @param {import("./types.js").Problem} problem @param {number | null | undefined} retryAfterS */
function refuse(of, { status, detail }, retryAfterS) {
  if (!of || of.seq !== pending?.seq) return;
  const passes = status === 503;
  pending = null;
  settle();
  if (passes) again = setTimeout(ask, Math.min(1000 * (retryAfterS || 1), 5000));
  notice(detail, passes ? "passing" : "final");
}

function away() {
  again = setTimeout(ask, RETRY_MS[Math.min(failures++, RETRY_MS.length - 1)]);
  settle();
  notice("The server does not answer. What you typed is kept; the page asks again by itself.", "passing");
}

/** @param {string} words @param {Obstacle} kind */
function notice(words, kind) {
  obstacle = kind;
  for (const listen of listeners) listen(words, kind);
}

/** Nobody waits any more, or for something else. */
function settle() {
  clearTimeout(slow);
  slow = 0;
  watched(false, null);
}

/** @param {boolean} isReading @param {Progress} soFar */
function watched(isReading, soFar) {
  progress = soFar;
  for (const watch of watchers) watch(isReading, soFar);
}
