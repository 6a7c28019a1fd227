// As much of a browser as our modules ask for when they are imported. Import this before them.

/** @type {Map<string, (event: object) => void>} */
const listeners = new Map();

Object.assign(globalThis, {
  location: new URL("http://page.example/"),
  history: { replaceState() {}, pushState() {} },
  addEventListener: (name, listen) => listeners.set(name, listen),
  matchMedia: () => ({ matches: false, addEventListener() {} }),
  document: { getElementById: () => ({ addEventListener() {} }) },
  window: globalThis,
});

/** The browser goes back to an address. @param {string} address */
export function goBack(address) {
  globalThis.location = new URL(address, "http://page.example/");
  listeners.get("popstate")({});
}
