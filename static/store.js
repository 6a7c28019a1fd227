// The state of a page, kept in its address. Panels subscribe with `onChange`; whoever wants another state calls `update`.

const WRITE_MS = 250; // browsers limit how often the address may change, so it does not change on every key

/** A state that is an object, with its address. @template {object} State */
export class Store {
  /** @type {Set<(state: State) => void>} */
  #subscribers = new Set();
  /** @type {Readonly<State>} */
  #state;
  #timer = 0;
  #toAddress;

  /**
   * @param {(state: State) => string} toAddress
   * @param {(search: string) => State | null} parse the state in the query string of an address; null if it has none
   */
  constructor(toAddress, parse) {
    this.#toAddress = toAddress;
    addEventListener("popstate", () => {
      const restored = parse(location.search);
      if (restored) this.update(restored);
    });
    addEventListener("pagehide", () => this.write());
  }

  get state() {
    return this.#state;
  }

  /** Start with the state that the server put into the page. @param {State} initial */
  init(initial) {
    this.#state = Object.freeze(initial);
  }

  /** Subscribe to every change. @param {(state: State) => void} subscriber */
  onChange(subscriber) {
    this.#subscribers.add(subscriber);
  }

  /** Change the state, tell all subscribers, and write the address after a short pause. @param {Partial<State>} change */
  update(change) {
    if (!this.#differs(change)) return;
    this.#state = Object.freeze({ ...this.#state, ...change });
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.write(), WRITE_MS);
    for (const subscriber of this.#subscribers) subscriber(this.#state);
  }

  /** Change the state as a new entry of the browser's history, so that Back restores the old one. @param {Partial<State>} change */
  navigate(change) {
    if (!this.#differs(change)) return;
    this.write();
    this.#write("pushState", { ...this.#state, ...change });
    this.update(change);
  }

  /** Write the address now. */
  write() {
    clearTimeout(this.#timer);
    this.#write("replaceState", this.#state);
  }

  /** @param {Partial<State>} change */
  #differs(change) {
    const names = /** @type {(keyof State)[]} */ (Object.keys(change));
    return names.some((name) => String(change[name]) !== String(this.#state[name])); // String also compares arrays
  }

  /** @param {"pushState" | "replaceState"} how @param {State} state */
  #write(how, state) {
    try {
      history[how](null, "", this.#toAddress(state));
    } catch {
      // The address is too long for this browser, or changes too often. The page works without it.
    }
  }
}
