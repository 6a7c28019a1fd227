// Which tokens a box on the heatmap covers, and the window that it requests.

import assert from "node:assert/strict";
import { test } from "node:test";
import "./browser.js";

const { clampWindow, coveredTokens, windowAround } = await import("../../static/zoom.js");

test("a box covers the cells that it touches; a cell extends half a unit to both sides of its index", () => {
  const whole = { window: [0, 10, 0, 10], cell_size: 1 };
  assert.deepEqual(coveredTokens(whole, [-0.5, 9.5], [9.5, -0.5]), [0, 10, 0, 10]);
  assert.deepEqual(coveredTokens(whole, [1.5, 3.5], [6.5, 4.5]), [5, 7, 2, 4]); // rows run down
  assert.deepEqual(coveredTokens(whole, [1.49, 3.51], [6.51, 4.49]), [5, 7, 2, 4]); // an overlap of 1 % is ignored
  assert.deepEqual(coveredTokens(whole, [1.4, 3.6], [6.6, 4.4]), [4, 8, 1, 5]);
});

test("a cell of several tokens counts as all of them, counted from the start of the window", () => {
  assert.deepEqual(coveredTokens({ window: [100, 1100, 8, 1008], cell_size: 4 }, [-0.5, 0.5], [2.5, 1.5]), [108, 112, 8, 12]);
});

test("the window around a token is the largest that shows every number, and is inside the text", () => {
  assert.deepEqual(windowAround({ query: 1000, n_tokens: 2000 }), [872, 1128, 872, 1128]);
  assert.deepEqual(windowAround({ query: 3, n_tokens: 2000 }), [0, 256, 0, 256]);
  assert.deepEqual(windowAround({ query: 1999, n_tokens: 2000 }), [1744, 2000, 1744, 2000]);
  assert.deepEqual(windowAround({ query: 3, n_tokens: 5 }), [0, 5, 0, 5]);
});

test("a window is clamped to the text, is at least one token wide, and is null if it changes nothing", () => {
  const current = [0, 20, 0, 20];
  assert.deepEqual(clampWindow([5, 9, 0, 4], current, 20), [5, 9, 0, 4]);
  assert.deepEqual(clampWindow([-3, 9, 19, 40], current, 20), [0, 9, 19, 20]);
  assert.deepEqual(clampWindow([30, 40, 7, 7], current, 20), [19, 20, 7, 8]);
  assert.equal(clampWindow([-1, 21, -1, 21], [5, 9, 0, 4], 20), null); // the whole text
  assert.equal(clampWindow([5, 9, 0, 4], [5, 9, 0, 4], 20), null); // the current window
});
