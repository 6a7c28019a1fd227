// The other road to the server: one request and one answer, where the live channel cannot be had.

const DEBOUNCE_MS = 30; // a request costs more than a message: a fast typist's keys share one

/** Asks for the newest only: who asks again takes back what is under way. */
export class Http {
  onAnswer = (/** @type {ArrayBuffer} */ _) => {};
  onProblem = (/** @type {import("./types.js").Problem} */ _problem, /** @type {number | null} */ _retryAfterS) => {};
  onAway = () => {};

  #timer = 0;
  /** @type {AbortController | null} */
  #under = null; // what takes back the request under way

  get isBusy() {
    return Boolean(this.#timer || this.#under);
  }

  /** Ask POST /api/v2/view. @param {() => string} body made when it is sent, of what is then the newest */
  ask(body) {
    this.stop();
    this.#timer = setTimeout(() => {
      this.#timer = 0;
      this.#post(body());
    }, DEBOUNCE_MS);
  }

  /** What was asked is not wanted any more. */
  stop() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    this.#under?.abort();
    this.#under = null;
  }

  /** @param {string} body */
  async #post(body) {
    const under = new AbortController();
    this.#under = under;
    const tell = await outcome(body, under.signal);
    if (this.#under !== under) return; // something else was asked meanwhile
    this.#under = null;
    tell(this);
  }
}

/** What came of a request, as something to tell its asker.
 *  @param {string} body @param {AbortSignal} signal @returns {Promise<(asker: Http) => void>} */
async function outcome(body, signal) {
  try {
    const headers = { "Content-Type": "application/json" };
    const reply = await fetch("/api/v2/view", { method: "POST", headers, body, signal });
    if (reply.ok) {
      const frame = await reply.arrayBuffer();
      return (asker) => asker.onAnswer(frame);
    }
    const retryAfterS = Number(reply.headers.get("Retry-After")) || null;
    const unexplained = { status: reply.status, detail: `The server answered ${reply.status}, and did not say why.` };
    const problem = await reply.json().catch(() => unexplained);
    return (asker) => asker.onProblem(problem, retryAfterS);
  } catch (error) {
    if (!(error instanceof TypeError) && /** @type {Error} */ (error).name !== "AbortError") throw error;
    return (asker) => asker.onAway();
  }
}
