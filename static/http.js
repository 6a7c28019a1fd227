// The HTTP transport: one request and one reply, for where the live channel is unavailable.

import { Refused, Unreachable, send } from "./request.js";

const DEBOUNCE_MS = 30; // a request costs more than a message, so the keys of a fast typist are combined into one

/** Requests only the newest state: a new request cancels the one in progress. */
export class HttpTransport {
  onReply = (/** @type {ArrayBuffer} */ _) => {};
  onProblem = (/** @type {import("./types.js").Problem} */ _problem, /** @type {number | null} */ _retryAfterS) => {};
  onUnreachable = () => {};

  #timer = 0;
  /** @type {AbortController | null} */
  #controller = null; // of the request in progress

  get isBusy() {
    return Boolean(this.#timer || this.#controller);
  }

  /** Send a request to POST /api/v2/view. @param {() => string} makeBody called when the request is sent */
  request(makeBody) {
    this.cancel();
    this.#timer = setTimeout(() => {
      this.#timer = 0;
      this.#post(makeBody());
    }, DEBOUNCE_MS);
  }

  cancel() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    this.#controller?.abort();
    this.#controller = null;
  }

  /** @param {string} body */
  async #post(body) {
    const controller = new AbortController();
    this.#controller = controller;
    const deliver = await post(body, controller.signal);
    if (this.#controller !== controller) return; // a newer request was made in the meantime
    this.#controller = null;
    deliver(this);
  }
}

/** Send a request, and return the callback of the transport that fits its outcome.
 *  @param {string} body @param {AbortSignal} signal @returns {Promise<(transport: HttpTransport) => void>} */
async function post(body, signal) {
  try {
    const frame = await (await send("/api/v2/view", { body, signal })).arrayBuffer();
    return (transport) => transport.onReply(frame);
  } catch (error) {
    if (error instanceof Refused) return (transport) => transport.onProblem(error.problem, error.retryAfterS);
    if (error instanceof Unreachable || signal.aborted) return (transport) => transport.onUnreachable();
    throw error;
  }
}
