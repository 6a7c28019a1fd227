// How a page asks the server: one request at a time, the newest wins, and one that no server answers is sent again.

/** @typedef {import("./types.js").Problem} Problem */

const RETRY_MS = [500, 1000, 2000, 4000]; // after one request that reached no server, after two, …
export const UNREACHABLE = "The server does not answer. What you typed is kept, and the page tries again by itself.";

/** The server refused a request, and says why. */
export class Refused extends Error {
  /** @param {Problem} problem @param {number | null} retryAfterS after which it may accept the same request */
  constructor(problem, retryAfterS) {
    super(problem.detail);
    this.problem = problem;
    this.retryAfterS = retryAfterS;
  }
}

/** No server answered. */
export class Unreachable extends Error {}

/**
 * Send a request, and return the reply if it is good.
 * @param {string} address @param {{body?: string, accept?: string, signal?: AbortSignal}} [options] with a body it is a POST of JSON
 * @throws {Refused | Unreachable | DOMException} the last one if it was aborted
 */
export async function send(address, { body, accept, signal } = {}) {
  /** @type {Record<string, string>} */
  const headers = { ...(body && { "Content-Type": "application/json" }), ...(accept && { Accept: accept }) };
  let reply;
  try {
    reply = await fetch(address, { method: body ? "POST" : "GET", headers, body, signal });
  } catch (error) {
    throw error instanceof TypeError ? new Unreachable() : error; // fetch throws a TypeError if the network fails
  }
  if (reply.ok) return reply;
  const unexplained = { status: reply.status, detail: `The server replied with status ${reply.status} and gave no reason.` };
  throw new Refused(await reply.json().catch(() => unexplained), Number(reply.headers.get("Retry-After")) || null);
}

/** The lines of a reply that streams JSON values. @param {Response} reply @returns {AsyncGenerator<any>} */
export async function* linesOf(reply) {
  let rest = "";
  for await (const text of reply.body.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + text).split("\n");
    rest = lines.pop();
    for (const line of lines) if (line) yield JSON.parse(line);
  }
}

/** Work of which only the newest counts: new work aborts the one in progress. */
export class Newest {
  /** @type {AbortController | null} */
  #controller = null;
  #timer = 0;
  #nUnreachable = 0; // in a row

  /** @param {(message: string, isTemporary: boolean) => void} notify called with why there is no result, and with "" once there is one */
  constructor(notify) {
    this.notify = notify;
  }

  get isBusy() {
    return Boolean(this.#controller || this.#timer);
  }

  cancel() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    this.#controller?.abort();
    this.#controller = null;
  }

  /** Do this work, again and again while the server is away or busy. @param {(signal: AbortSignal) => Promise<void>} work */
  async run(work) {
    this.cancel();
    const controller = new AbortController();
    this.#controller = controller;
    try {
      await work(controller.signal);
      if (this.#controller !== controller) return;
      this.#nUnreachable = 0;
      this.notify("", false);
    } catch (error) {
      if (this.#controller !== controller) return; // it was aborted, or is no longer wanted
      if (!(error instanceof Unreachable || error instanceof Refused)) throw error;
      const retryMs = this.#retryMs(error);
      if (retryMs !== null) this.#timer = setTimeout(() => this.run(work), retryMs);
      this.notify(error instanceof Refused ? error.message : UNREACHABLE, retryMs !== null);
    } finally {
      if (this.#controller === controller) this.#controller = null;
    }
  }

  /** When to send again; null if never. @param {Refused | Unreachable} error */
  #retryMs(error) {
    if (error instanceof Refused) return error.retryAfterS && 1000 * error.retryAfterS;
    return RETRY_MS[Math.min(this.#nUnreachable++, RETRY_MS.length - 1)];
  }
}
