// The store: what is written to the address, and what Back restores.

import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";
import { goBack } from "./browser.js";
import { Store } from "../../static/store.js";

const toAddress = ({ text, cut }) => `/?${new URLSearchParams({ text, cut: cut.join("-") })}`;
const parse = (search) => {
  const parameters = new URLSearchParams(search);
  return parameters.has("text") ? { text: parameters.get("text"), cut: parameters.get("cut").split("-").map(Number) } : null;
};
/** The entries of the browser's history: [how it was written, address]. */
let entries = [];
let store;

beforeEach(() => {
  entries = [];
  globalThis.history = {
    pushState: (_state, _title, address) => entries.push(["push", address]),
    replaceState: (_state, _title, address) => entries.push(["replace", address]),
  };
  mock.timers.enable({ apis: ["setTimeout"] });
  store = new Store(toAddress, parse);
  store.init({ text: "a", cut: [0, 1] });
});
afterEach(() => mock.timers.reset());

test("typing writes the address once, after a pause, in place of the one before", () => {
  for (const text of ["a b", "a b c", "a b c d"]) store.update({ text });
  assert.deepEqual(entries, []);
  mock.timers.tick(250);
  assert.deepEqual(entries, [["replace", "/?text=a+b+c+d&cut=0-1"]]);
});

test("a choice is an entry of its own; the entry before it has what was typed until then", () => {
  store.update({ text: "typed" });
  store.navigate({ cut: [2, 3] });
  assert.deepEqual(entries, [["replace", "/?text=typed&cut=0-1"], ["push", "/?text=typed&cut=2-3"]]);
});

test("choosing what is chosen changes nothing: Back would seem not to work", () => {
  const received = [];
  store.onChange((state) => received.push(state));
  store.navigate({ cut: [0, 1] });
  store.update({ text: "a" });
  mock.timers.tick(1000);
  assert.deepEqual([received, entries], [[], []]);
});

test("Back restores the state of the address, and tells whoever shows it", () => {
  const received = [];
  store.onChange((state) => received.push(state));
  goBack("/?text=before&cut=7-9");
  assert.deepEqual(received, [{ text: "before", cut: [7, 9] }]);
  goBack("/?other=1"); // another page's address
  assert.deepEqual(store.state, { text: "before", cut: [7, 9] });
});

test("a browser that refuses an address keeps the state", () => {
  globalThis.history = { pushState() { throw new Error("too many"); }, replaceState() { throw new Error("too long"); } };
  store.navigate({ text: "b" });
  mock.timers.tick(250);
  assert.equal(store.state.text, "b");
});
