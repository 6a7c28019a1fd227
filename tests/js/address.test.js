// The address holds all of what is shown.

import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { goBack } from "./browser.js";
import { begin, now, onShow, show, toAddress, windowIn } from "../../static/address.js";

const FIRST = { model: "m", text: "the fat cat", step: null, layer: 0, head: 0, query: null, stage: "weights", window: null };

beforeEach(() => begin(FIRST));

test("Back shows exactly the state whose address it leads to", () => {
  for (const change of [
    {},
    { text: "a & b = c? #1 + é\n😀 \u202e" },
    { text: "" },
    { step: 0, query: 0 },
    { step: 128, layer: 29, head: 8, query: 2047, stage: "masked", window: [0, 3, 1, 2048] },
  ]) {
    const state = { ...FIRST, ...change };
    begin({ ...FIRST, text: "something else" });
    goBack(toAddress(state));
    assert.deepEqual(now(), state);
  }
});

test("an address that this page did not write changes nothing", () => {
  goBack("/?text=other");
  assert.deepEqual(now(), FIRST);
});

test("only a change is told, and it is told once", () => {
  const told = [];
  onShow((state) => told.push(state));
  show({ window: [0, 1, 0, 1], head: 3 });
  show({ window: [0, 1, 0, 1] });
  show({ head: 3 });
  assert.deepEqual(told.map(({ head, window }) => [head, window]), [[3, [0, 1, 0, 1]]]);
});

test("a window is four whole numbers", () => {
  assert.deepEqual(windowIn("?window=0-3-1-4"), [0, 3, 1, 4]);
  for (const window of ["", "1-2-3", "1-2-3-4-5", "-1-2-3-4", "a-b-c-d", "1e3-2-3-4", "1234567-2-3-4"])
    assert.equal(windowIn(`?window=${window}`), null, window);
});
