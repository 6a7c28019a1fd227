// Which tokens a box on the picture covers, and which window that makes.

import assert from "node:assert/strict";
import { test } from "node:test";
import "./browser.js";

const { covered, inText, middle } = await import("../../static/zoom.js");

test("a box covers the cells that it touches; a cell stands half a unit to both sides of its number", () => {
  const whole = { window: [0, 10, 0, 10], step: 1 };
  assert.deepEqual(covered(whole, [-0.5, 9.5], [9.5, -0.5]), [0, 10, 0, 10]);
  assert.deepEqual(covered(whole, [1.5, 3.5], [6.5, 4.5]), [5, 7, 2, 4]); // rows run down
  assert.deepEqual(covered(whole, [1.49, 3.51], [6.51, 4.49]), [5, 7, 2, 4]); // nobody drew a box around a sliver
  assert.deepEqual(covered(whole, [1.4, 3.6], [6.6, 4.4]), [4, 8, 1, 5]);
});

test("a cell of several tokens counts as all of them, from where the window begins", () => {
  assert.deepEqual(covered({ window: [100, 1100, 8, 1008], step: 4 }, [-0.5, 0.5], [2.5, 1.5]), [108, 112, 8, 12]);
});

test("around a token there are as many as are shown exactly, and all of them are in the text", () => {
  assert.deepEqual(middle({ query: 1000, n_tokens: 2000 }), [872, 1128, 872, 1128]);
  assert.deepEqual(middle({ query: 3, n_tokens: 2000 }), [0, 256, 0, 256]);
  assert.deepEqual(middle({ query: 1999, n_tokens: 2000 }), [1744, 2000, 1744, 2000]);
  assert.deepEqual(middle({ query: 3, n_tokens: 5 }), [0, 5, 0, 5]);
});

test("a window lies in the text, is a token wide at least, and is none where it leaves nothing out", () => {
  const seen = [0, 20, 0, 20];
  assert.deepEqual(inText([5, 9, 0, 4], seen, 20), [5, 9, 0, 4]);
  assert.deepEqual(inText([-3, 9, 19, 40], seen, 20), [0, 9, 19, 20]);
  assert.deepEqual(inText([30, 40, 7, 7], seen, 20), [19, 20, 7, 8]);
  assert.equal(inText([-1, 21, -1, 21], [5, 9, 0, 4], 20), null); // all of the text
  assert.equal(inText([5, 9, 0, 4], [5, 9, 0, 4], 20), null); // what is seen now
});
