// Asks the server for what the address says, and hands on only what is still wanted.
//
// One request is under way at a time, and the next one asks for the newest state: a fast typist never makes a queue,
// and no reply to an older text is ever shown.

import { now, onShow, toAddress } from "./address.js";
import { decode } from "./frame.js";

const DEBOUNCE_MS = 30;
const RETRY_MS = [500, 1000, 2000, 4000];

/**
 * What the page has of a reading.
 * @typedef {object} View
 * @property {object} header tokens, figures, predictions and timings; app/api.py, post_view
 * @property {Record<string, import("./frame.js").Tensor>} arrays
 * @property {string} text what was read
 * @property {number} elapsed_ms from asking to having the answer
 */

/** @type {Set<(view: View) => void>} */
const viewers = new Set();
/** @type {Set<(notice: string, isFinal: boolean) => void>} */
const listeners = new Set();
let waiting = 0; // the timer of the next request
let busy = false;
let failures = 0;
let overview = null; // {key, header, arrays}: all heads and the norms, which change with text and model only

/** Be given every view that is to be shown. @param {(view: View) => void} draw */
export const onView = (draw) => viewers.add(draw);

/** Be told what is in the way; an empty string when nothing is any more. */
export const onNotice = (listen) => listeners.add(listen);

/** Start to follow the address. */
export function follow() {
  onShow(() => soon(DEBOUNCE_MS));
  ask();
}

function soon(ms) {
  clearTimeout(waiting);
  waiting = setTimeout(ask, ms);
}

function notice(words, isFinal) {
  for (const listen of listeners) listen(words, isFinal);
}

async function ask() {
  if (busy) return; // when it is done it asks again
  busy = true;
  const asked = now();
  const { view, words, again } = await read(asked).finally(() => (busy = false));
  if (!same(asked)) return soon(0);
  if (again !== null) soon(again);
  notice(words, again === null);
  if (view) for (const draw of viewers) draw(view);
}

/** What the server has to say of a state: a view, or words and perhaps after how many ms to ask again. */
async function read(asked) {
  const { layer, head, query, stage, model, text } = asked;
  const key = JSON.stringify([model, text]);
  const body = JSON.stringify({ model, text, layer, head, query, stage, overview: overview?.key !== key });
  const started = performance.now();
  try {
    const headers = { "Content-Type": "application/json" };
    const reply = await fetch("/api/v1/view", { method: "POST", headers, body });
    failures = 0;
    if (!reply.ok) return problem(reply);
    const { header, arrays } = decode(await reply.arrayBuffer());
    if (header.overview) overview = { key, header: header.overview, arrays };
    const view = {
      header: { ...header, overview: overview.header },
      arrays: { ...overview.arrays, ...arrays },
      text,
      elapsed_ms: performance.now() - started,
    };
    return { view, words: "", again: null };
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    const again = RETRY_MS[Math.min(failures++, RETRY_MS.length - 1)];
    const words = "The server does not answer. What you typed is kept; the page asks again by itself.";
    return { view: null, words, again };
  }
}

/** Is this still what is wanted? */
const same = (asked) => toAddress(asked) === toAddress(now());

async function problem(reply) {
  const { status, headers } = reply;
  const again = status === 503 ? Math.min(1000 * (Number(headers.get("Retry-After")) || 1), 5000) : null;
  try {
    return { view: null, words: (await reply.json()).detail, again };
  } catch {
    return { view: null, words: `The server answered ${status}, and did not say why.`, again };
  }
}
