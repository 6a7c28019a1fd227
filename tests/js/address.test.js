// The state of a page and its address.

import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { goBack } from "./browser.js";
import { currentState, initState, onChange, parseWindow, toAddress, update } from "../../static/address.js";

const INITIAL = { model: "m", text: "the fat cat", edits: "", step: null, layer: 0, head: 0, query: null, stage: "weights", window: null };

beforeEach(() => initState(INITIAL));

test("Back restores exactly the state of its address", () => {
  for (const change of [
    {},
    { text: "a & b = c? #1 + é\n😀 \u202e" },
    { text: "" },
    { step: 0, query: 0 },
    { edits: "scale:11.7:0,cut:3.5:2>1" },
    { step: 128, layer: 29, head: 8, query: 2047, stage: "masked", window: [0, 3, 1, 2048] },
  ]) {
    const state = { ...INITIAL, ...change };
    initState({ ...INITIAL, text: "something else" });
    goBack(toAddress(state));
    assert.deepEqual(currentState(), state);
  }
});

test("an address that this page did not write changes nothing", () => {
  goBack("/?text=other");
  assert.deepEqual(currentState(), INITIAL);
});

test("subscribers are called once per change, and only for a change", () => {
  const received = [];
  onChange((state) => received.push(state));
  update({ window: [0, 1, 0, 1], head: 3 });
  update({ window: [0, 1, 0, 1] });
  update({ head: 3 });
  assert.deepEqual(received.map(({ head, window }) => [head, window]), [[3, [0, 1, 0, 1]]]);
});

test("a window is four whole numbers", () => {
  assert.deepEqual(parseWindow("?window=0-3-1-4"), [0, 3, 1, 4]);
  for (const window of ["", "1-2-3", "1-2-3-4-5", "-1-2-3-4", "a-b-c-d", "1e3-2-3-4", "1234567-2-3-4"])
    assert.equal(parseWindow(`?window=${window}`), null, window);
});
