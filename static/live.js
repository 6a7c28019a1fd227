// The live channel: one WebSocket, opened when something is asked, and again when it is lost. app/routes/live.py answers.
//
// It carries messages and knows nothing of what they say. A socket that could not be had twice in a row is given up,
// though tried again from time to time: a proxy may be in the way, and whoever asks has another road.

const AGAIN_MS = [500, 1000, 2000, 4000, 30_000]; // after one lost socket, two, …
const OPENING_MS = 3000; // a proxy that swallows the question never says no
const PACE_MS = 20; // between messages; the server bears 60 a second
const BEAT_MS = 20_000;
const SILENT_MS = 45_000; // without an answer to a ping the line is dead
const AWAKE_MS = 600_000; // who asked for nothing as long needs no socket
const IDLE = 4000; // the code with which the server closes a socket that asks for nothing
const OPEN = 1; // WebSocket.OPEN, also where there is no WebSocket

/** @typedef {"again" | "opening" | "pace" | "silent"} Timer */

/** One road to the server. Set the three listeners before the first `knock`. */
export class Live {
  onOpen = () => {}; // the server remembers nothing of an earlier socket: everything must be asked anew
  onMessage = (/** @type {ArrayBuffer} */ _) => {};
  onGivenUp = () => {};

  /** @type {WebSocket | null} */
  #socket = null;
  #fruitless = 0; // sockets in a row that brought nothing
  /** @type {string | null} */
  #waiting = null; // the newest message, while the pace does not allow it
  #timers = { again: 0, opening: 0, pace: 0, silent: 0 };
  #sentAt = -Infinity;
  #askedAt = -Infinity;

  constructor() {
    setInterval(() => this.#beat(), BEAT_MS);
  }

  get isOpen() {
    return this.#socket?.readyState === OPEN;
  }

  /** Could it not be had? Then ask by another road. */
  get isGivenUp() {
    return this.#fruitless >= 2;
  }

  /** Something is asked: see that there is a socket, or will be. */
  knock() {
    this.#askedAt = performance.now();
    if (!this.#socket && !this.#timers.again) this.#open();
  }

  /** The server was away, and is back: no need to wait. */
  retry() {
    this.#stop("again");
    this.knock();
  }

  /** Send this instead of whatever still waits to be sent. @param {string} message */
  send(message) {
    this.#waiting = message;
    if (!this.#timers.pace) this.#send();
  }

  /** Hang up: what was asked is not wanted any more. The next `knock` opens a new socket. */
  close() {
    const socket = this.#socket;
    this.#forget();
    socket?.close();
  }

  #open() {
    let socket;
    try {
      socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/api/v2/live`);
    } catch {
      return this.#lost(0); // this browser has none, or a policy forbids it
    }
    this.#socket = socket;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      this.#stop("opening");
      this.onOpen();
    };
    socket.onmessage = ({ data }) => {
      this.#stop("silent");
      this.#fruitless = 0;
      this.onMessage(data);
    };
    socket.onclose = ({ code }) => this.#lost(code);
    this.#timers.opening = setTimeout(() => this.#hangUp(), OPENING_MS);
  }

  /** A socket that does not answer is not waited for, not even until it has closed. */
  #hangUp() {
    this.close();
    this.#lost(0);
  }

  /** @param {number} code */
  #lost(code) {
    this.#forget();
    if (code === IDLE) return;
    const ms = AGAIN_MS[Math.min(this.#fruitless++, AGAIN_MS.length - 1)];
    this.#timers.again = setTimeout(() => {
      this.#timers.again = 0;
      if (this.#isAwake) this.#open();
    }, ms);
    if (this.isGivenUp) this.onGivenUp();
  }

  #forget() {
    for (const name of Object.keys(this.#timers)) this.#stop(/** @type {Timer} */ (name));
    this.#waiting = null;
    if (this.#socket) this.#socket.onopen = this.#socket.onmessage = this.#socket.onclose = null;
    this.#socket = null;
  }

  #send() {
    if (!this.#waiting || !this.isOpen) return;
    const rest = this.#sentAt + PACE_MS - performance.now();
    if (rest > 0) {
      this.#timers.pace = setTimeout(() => {
        this.#timers.pace = 0;
        this.#send();
      }, rest);
      return;
    }
    this.#sentAt = performance.now();
    this.#socket.send(this.#waiting);
    this.#waiting = null;
  }

  #beat() {
    if (!this.isOpen || !this.#isAwake) return;
    this.#socket.send('{"ping": 1}');
    this.#timers.silent ||= setTimeout(() => this.#hangUp(), SILENT_MS);
  }

  get #isAwake() {
    return !document.hidden && performance.now() - this.#askedAt < AWAKE_MS;
  }

  /** @param {Timer} timer */
  #stop(timer) {
    clearTimeout(this.#timers[timer]);
    this.#timers[timer] = 0;
  }
}
