// The live channel: a WebSocket that is opened when something is requested, and opened again when it is lost. The server's
// end is app/routes/live.py.
//
// It carries messages and does not know what they contain. After two sockets in a row that brought nothing, the channel
// counts as unavailable (a proxy may block it), and the page uses HTTP. It still tries again from time to time.

const RECONNECT_MS = [500, 1000, 2000, 4000, 30_000]; // after one lost socket, after two, …
const OPEN_TIMEOUT_MS = 3000; // a proxy may swallow the request without refusing it
const MIN_INTERVAL_MS = 20; // between messages; the server allows 60 per second
const PING_INTERVAL_MS = 20_000;
const PONG_TIMEOUT_MS = 45_000; // a connection that does not answer a ping for this long is dead
const IDLE_AFTER_MS = 600_000; // a page that requested nothing for this long needs no socket
const CLOSED_AS_IDLE = 4000; // the code with which the server closes a socket that requests nothing
const OPEN = 1; // WebSocket.OPEN, also where there is no WebSocket

/** @typedef {"reconnect" | "open" | "interval" | "pong"} Timer */

/** The WebSocket transport. Set the three callbacks before the first `connect`. */
export class LiveTransport {
  onOpen = () => {}; // the server remembers nothing of an earlier socket: request everything again
  onMessage = (/** @type {ArrayBuffer} */ _) => {};
  onUnavailable = () => {};

  /** @type {WebSocket | null} */
  #socket = null;
  #nFailures = 0; // sockets in a row that brought nothing
  /** @type {string | null} */
  #queued = null; // the newest message, until it may be sent
  #timers = { reconnect: 0, open: 0, interval: 0, pong: 0 };
  #sentAt = -Infinity;
  #requestedAt = -Infinity;

  constructor() {
    setInterval(() => this.#ping(), PING_INTERVAL_MS);
  }

  get isOpen() {
    return this.#socket?.readyState === OPEN;
  }

  get isUnavailable() {
    return this.#nFailures >= 2;
  }

  /** Make sure that there is a socket, or that there will be one soon. */
  connect() {
    this.#requestedAt = performance.now();
    if (!this.#socket && !this.#timers.reconnect) this.#open();
  }

  /** Connect without waiting for the next attempt: the server was away and is back. */
  reconnect() {
    this.#stop("reconnect");
    this.connect();
  }

  /** Send this message, in place of any that is still queued. @param {string} message */
  send(message) {
    this.#queued = message;
    if (!this.#timers.interval) this.#flush();
  }

  /** Close the socket, so that the server stops computing. The next `connect` opens a new one. */
  disconnect() {
    const socket = this.#socket;
    this.#reset();
    socket?.close();
  }

  #open() {
    let socket;
    try {
      socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/api/v2/live`);
    } catch {
      return this.#lost(0); // this browser has no WebSocket, or a policy forbids it
    }
    this.#socket = socket;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      this.#stop("open");
      this.onOpen();
    };
    socket.onmessage = ({ data }) => {
      this.#stop("pong");
      this.#nFailures = 0;
      this.onMessage(data);
    };
    socket.onclose = ({ code }) => this.#lost(code);
    this.#timers.open = setTimeout(() => this.#abandon(), OPEN_TIMEOUT_MS);
  }

  /** Replace a socket that does not answer, without waiting for its close event. */
  #abandon() {
    this.disconnect();
    this.#lost(0);
  }

  /** @param {number} code with which the socket was closed; 0 if it was not */
  #lost(code) {
    this.#reset();
    if (code === CLOSED_AS_IDLE) return;
    const delay = RECONNECT_MS[Math.min(this.#nFailures++, RECONNECT_MS.length - 1)];
    this.#timers.reconnect = setTimeout(() => {
      this.#timers.reconnect = 0;
      if (this.#isActive) this.#open();
    }, delay);
    if (this.isUnavailable) this.onUnavailable();
  }

  #reset() {
    for (const timer of Object.keys(this.#timers)) this.#stop(/** @type {Timer} */ (timer));
    this.#queued = null;
    if (this.#socket) this.#socket.onopen = this.#socket.onmessage = this.#socket.onclose = null;
    this.#socket = null;
  }

  #flush() {
    if (!this.#queued || !this.isOpen) return;
    const delay = this.#sentAt + MIN_INTERVAL_MS - performance.now();
    if (delay > 0) {
      this.#timers.interval = setTimeout(() => {
        this.#timers.interval = 0;
        this.#flush();
      }, delay);
      return;
    }
    this.#sentAt = performance.now();
    this.#socket.send(this.#queued);
    this.#queued = null;
  }

  #ping() {
    if (!this.isOpen || !this.#isActive) return;
    this.#socket.send('{"ping": 1}');
    this.#timers.pong ||= setTimeout(() => this.#abandon(), PONG_TIMEOUT_MS);
  }

  get #isActive() {
    return !document.hidden && performance.now() - this.#requestedAt < IDLE_AFTER_MS;
  }

  /** @param {Timer} timer */
  #stop(timer) {
    clearTimeout(this.#timers[timer]);
    this.#timers[timer] = 0;
  }
}
