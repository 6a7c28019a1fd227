// The browser globals that our modules use when they are imported. Import this file before them.

/** @type {Map<string, (event: object) => void>} */
const listeners = new Map();

Object.assign(globalThis, {
  location: new URL("http://page.example/"),
  history: { replaceState() {}, pushState() {} },
  addEventListener: (name, listener) => listeners.set(name, listener),
  matchMedia: () => ({ matches: false, addEventListener() {} }),
  document: { getElementById: () => ({ addEventListener() {} }) },
  window: globalThis,
});

/** Go back to an address, as the Back button does. @param {string} address */
export function goBack(address) {
  globalThis.location = new URL(address, "http://page.example/");
  listeners.get("popstate")({});
}
