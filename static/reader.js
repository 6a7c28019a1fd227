// Requests from the server what the address says, and passes each result for the current text to its subscribers.
//
// Every change is requested at once, over the live channel, or over HTTP where that is unavailable. Frames arrive in
// order. Every frame is applied, because the server counts on the page having it; only those of the current text are shown.

import { currentState, onChange } from "./address.js";
import { decode } from "./frame.js";
import { HttpTransport } from "./http.js";
import { LiveTransport } from "./live.js";
import { EMPTY_CLIENT_STATE, applyFrame } from "./client_state.js";

const SLOW_MS = 700; // without a reply for this long, show that something is happening
const RETRY_MS = [500, 1000, 2000, 4000];

/**
 * The result for a text, as far as it has arrived.
 * @typedef {object} View
 * @property {import("./client_state.js").ClientState} clientState
 * @property {string} text
 * @property {number | null} step of the model's training
 * @property {string} edits
 * @property {number} elapsed_ms from the request to the result
 * @property {"live" | "http"} transport
 */

/** How far the model has read the text; null if unknown. @typedef {{n_read: number, n_tokens: number} | null} Progress */

/** The kind of a notice: none, a temporary obstacle, an error that the user must correct, an empty text, or a reading
 *  that the user cancelled. @typedef {"" | "temporary" | "error" | "empty" | "cancelled"} NoticeKind */

/** @type {Set<(view: View) => void>} */
const viewSubscribers = new Set();
/** @type {Set<(message: string, kind: NoticeKind) => void>} */
const noticeSubscribers = new Set();
/** @type {Set<(isReading: boolean, progress: Progress) => void>} */
const progressSubscribers = new Set();

/** Subscribe to the views that are to be shown. @param {(view: View) => void} draw */
export const onView = (draw) => viewSubscribers.add(draw);

/** Subscribe to notices. @param {(message: string, kind: NoticeKind) => void} notify */
export const onNotice = (notify) => noticeSubscribers.add(notify);

/** Subscribe to the progress of slow requests. @param {(isReading: boolean, progress: Progress) => void} report */
export const onProgress = (report) => progressSubscribers.add(report);

/** @typedef {import("./types.js").FirstHeader} FirstHeader */
/** @typedef {{seq: number, state: import("./address.js").State, sentAt: number}} Request */
const live = new LiveTransport();
const http = new HttpTransport();
/** @type {Map<number, Request>} */
const requests = new Map(); // those that may still get frames; dropped once a newer request gets a frame
/** @type {Request | null} */
let pending = null; // the newest request, until its first frame arrives
let seq = 0;
let clientState = EMPTY_CLIENT_STATE;
let clientStateKey = ""; // the model, step, text and edits of the client state
let cancelledKey = ""; // the model, step, text and edits of the reading that the user cancelled
/** @type {NoticeKind} */
let noticeKind = ""; // of the latest notice
let nFailures = 0; // requests in a row that reached no server
let retryTimer = 0;
let slowTimer = 0;
/** @type {Progress} */
let progress = null;

/** Start to follow the address. */
export function startReader() {
  live.onOpen = request;
  live.onMessage = onMessage;
  live.onUnavailable = () => pending && !http.isBusy && http.request(requestBody);
  http.onReply = onHttpReply;
  http.onProblem = (problem, retryAfterS) => pending && onProblem(pending, problem, retryAfterS);
  http.onUnreachable = onUnreachable;
  onChange(request);
  request();
}

/** Stop reading the current text until it is changed or `resume` is called. */
export function cancel() {
  const extent = progress ? ` after ${progress.n_read.toLocaleString("en")} of ${progress.n_tokens.toLocaleString("en")} tokens` : "";
  cancelledKey = key(currentState());
  pending = null;
  clearTimeout(retryTimer);
  http.cancel();
  live.disconnect();
  endProgress();
  notify(`Reading was cancelled${extent}. Your text is kept.`, "cancelled");
}

/** Read the text that was cancelled. */
export function resume() {
  cancelledKey = "";
  notify("", "");
  request();
}

/** @param {Pick<import("./address.js").State, "model" | "step" | "text" | "edits">} state */
const key = ({ model, step, text, edits }) => JSON.stringify([model, step, text, edits]);
/** Is this request for the model, step, text and edits on the page? @param {Request | null | undefined} request */
const isCurrent = (request) => request && key(request.state) === key(currentState()) && key(request.state) !== cancelledKey;

function request() {
  const state = currentState();
  clearTimeout(retryTimer);
  if (key(state) === cancelledKey) return;
  cancelledKey = "";
  if (pending && key(pending.state) !== key(state)) endProgress();
  if (!state.text) return onEmptyText();
  if (noticeKind === "error" || noticeKind === "empty") notify("", ""); // the notice was about the previous request
  pending = { seq: ++seq, state, sentAt: performance.now() };
  requests.set(seq, pending);
  slowTimer ||= setTimeout(() => reportProgress(true, progress), SLOW_MS);
  live.connect();
  if (live.isOpen) {
    http.cancel();
    live.send(JSON.stringify({ seq, ...state }));
  } else if (live.isUnavailable) http.request(requestBody);
}

function onEmptyText() {
  pending = null;
  http.cancel();
  endProgress();
  notify("", "empty");
}

/** The body of an HTTP request for the newest state. Thumbnails and norms that the page has are not requested again. */
function requestBody() {
  return JSON.stringify({ ...pending.state, overview: !(clientState.done && clientStateKey === key(pending.state)) });
}

/** @param {ArrayBuffer} buffer */
function onMessage(buffer) {
  const { header, arrays } = decode(buffer);
  if ("pong" in header) return;
  // A message that the server could not parse has no number. Most likely it was the newest one.
  const request = header.seq === null ? pending : requests.get(header.seq);
  for (const older of [...requests.keys()].filter((number) => number < header.seq)) requests.delete(older);
  nFailures = 0;
  if (header.problem) onProblem(request, header.problem, header.retry_after_s);
  else if (header.progress) isCurrent(request) && reportProgress(true, header.progress);
  else apply({ header, arrays }, request, "live");
}

/** @param {ArrayBuffer} buffer */
function onHttpReply(buffer) {
  if (nFailures) live.reconnect(); // the whole server was away, not only the live channel
  nFailures = 0;
  const { header, arrays } = decode(buffer);
  // A reply without thumbnails was requested by a page that has them, so it also has the tokens.
  const frame = header.grid ? { header, arrays } : { header: { ...header, n_shared: /** @type {FirstHeader} */ (header).n_tokens, tokens: /** @type {FirstHeader["tokens"]} */ ([]) }, arrays };
  apply(frame, pending, "http");
}

/** Update the client state by a frame, and show it if it is of the current text.
 *  @param {import("./frame.js").Frame} frame @param {Request | null | undefined} request @param {View["transport"]} transport */
function apply(frame, request, transport) {
  clientState = applyFrame(clientState, frame);
  if (request) clientStateKey = key(request.state);
  if (!isCurrent(request)) return;
  if (!pending || request.seq === pending.seq) {
    pending = null;
    endProgress();
    notify("", "");
  }
  const { text, step, edits } = request.state;
  const view = { clientState, text, step, edits, elapsed_ms: performance.now() - request.sentAt, transport };
  for (const draw of viewSubscribers) draw(view);
}

/** @param {Request | undefined} request @param {import("./types.js").Problem} problem @param {number | null | undefined} retryAfterS */
function onProblem(request, { status, detail }, retryAfterS) {
  if (!request || request.seq !== pending?.seq) return;
  const isTemporary = status === 503;
  pending = null;
  endProgress();
  if (isTemporary) retryLater(Math.min(1000 * (retryAfterS || 1), 5000));
  notify(detail, isTemporary ? "temporary" : "error");
}

function onUnreachable() {
  retryLater(RETRY_MS[Math.min(nFailures++, RETRY_MS.length - 1)]);
  endProgress();
  notify("The server does not answer. Your text is kept, and the page tries again by itself.", "temporary");
}

/** @param {number} ms */
function retryLater(ms) {
  retryTimer = setTimeout(request, ms);
}

/** @param {string} message @param {NoticeKind} kind */
function notify(message, kind) {
  noticeKind = kind;
  for (const subscriber of noticeSubscribers) subscriber(message, kind);
}

/** The request that was slow has been answered, or is no longer wanted. */
function endProgress() {
  clearTimeout(slowTimer);
  slowTimer = 0;
  reportProgress(false, null);
}

/** @param {boolean} isReading @param {Progress} latest */
function reportProgress(isReading, latest) {
  progress = latest;
  for (const report of progressSubscribers) report(isReading, latest);
}
