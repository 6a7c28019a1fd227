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
let grid = null; // {key, tensor}: the thumbnails of all heads, which change with text and model only

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
  const key = JSON.stringify([asked.model, asked.text]);
  const started = performance.now();
  let again = null;
  try {
    const { layer, head, query, stage, model, text } = asked;
    const reply = await fetch("/api/v1/view", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ model, text, layer, head, query, stage, grid: grid?.key !== key }),
    });
    if (reply.ok) {
      const { header, arrays } = decode(await reply.arrayBuffer());
      if (arrays.grid) grid = { key, tensor: arrays.grid };
      failures = 0;
      if (same(asked)) {
        notice("", true);
        const elapsed_ms = performance.now() - started;
        const view = { header, arrays: { ...arrays, grid: grid.tensor }, text, elapsed_ms };
        for (const draw of viewers) draw(view);
      }
    } else {
      const { detail, status } = await problem(reply);
      if (status === 503) again = Math.min(1000 * (Number(reply.headers.get("Retry-After")) || 1), 5000);
      if (same(asked)) notice(detail, again === null);
    }
  } catch (error) {
    if (!(error instanceof TypeError)) console.error(error);
    again = RETRY_MS[Math.min(failures++, RETRY_MS.length - 1)];
    notice("The server does not answer. What you typed is kept; the page asks again by itself.", false);
  } finally {
    busy = false;
  }
  if (!same(asked)) soon(0);
  else if (again !== null) soon(again);
}

/** Is this still what is wanted? */
const same = (asked) => toAddress(asked) === toAddress(now());

async function problem(reply) {
  try {
    const { detail } = await reply.json();
    return { detail, status: reply.status };
  } catch {
    return { detail: `The server answered ${reply.status}, and did not say why.`, status: reply.status };
  }
}
