// A training history: its checkpoints as positions of a slider, and its charts.

import assert from "node:assert/strict";
import { test } from "node:test";
import { lossFigure, patternsFigure } from "../../static/charts.js";
import { TrainingHistory } from "../../static/history.js";

const pattern = (value) => [[value, value / 2], [0, 1]]; // 2 layers, 2 heads
const checkpoint = (step, value) => ({
  step,
  patterns: { previous: pattern(value), first: pattern(0.1), induction: pattern(value / 4) },
});
const point = (step, loss) => ({ step, n_tokens: 1000 * step, loss, held_out_loss: loss + 0.25 });
const history = new TrainingHistory({
  model: "tiny",
  checkpoints: [checkpoint(0, 0.2), checkpoint(1, 0.4), checkpoint(128, 0.6), checkpoint(null, 0.8)],
  curve: [point(0, 6), point(1, 5), point(128, 4), point(200, 3)],
  n_curriculum_steps: 64,
});

test("the index of a step is that of the last checkpoint that is not after it", () => {
  assert.deepEqual([0, 1, 2, 127, 128, 129, null].map((step) => history.indexOf(step)), [0, 1, 1, 1, 2, 2, 3]);
  assert.deepEqual([0, 1, 2, 3].map((index) => history.stepAt(index)), [0, 1, 128, null]);
});

test("the description of a checkpoint has its tokens and loss, if they are known", () => {
  assert.equal(history.describe(1), "step 1: 1,000 tokens of the curriculum read, held-out loss 5.25");
  assert.equal(history.describe(2), "step 128: 0.1 million tokens read, held-out loss 4.25");
  assert.equal(history.describe(3), "the last step");
});

test("every head is one line over the steps, and the chosen one is highlighted", () => {
  const { data, layout } = patternsFigure(history, 2, { layer: 0, head: 1 });
  assert.equal(data.length, 9); // three panels, each with all heads, the chosen head and the current position
  const [all, chosen, position] = data;
  assert.deepEqual(all.x, [0, 1, 2, 3, null, 0, 1, 2, 3, null, 0, 1, 2, 3, null, 0, 1, 2, 3, null]);
  assert.deepEqual(all.y.slice(0, 5), [0.2, 0.4, 0.6, 0.8, null]);
  assert.deepEqual(chosen.y, [0.1, 0.2, 0.3, 0.4, null]);
  assert.deepEqual(chosen.customdata[2], [0, 1, "step 128"]);
  assert.deepEqual(position.x, [2, 2]);
  assert.match(layout.annotations[1].text, /layer 0, head 1: 0\.30/);
  assert.deepEqual(layout.xaxis3.ticktext, ["0", "1", "128", "last"]);
});

test("losses are drawn over the tokens read, on a logarithmic axis without the point at 0", () => {
  const { data, layout } = lossFigure(history, 0);
  assert.deepEqual(data[0].x, [1000, 128000, 200000]);
  assert.deepEqual(data[1].y, [5.25, 4.25, 3.25]);
  assert.equal(data[2].x[0], 10 ** layout.xaxis.range[0]); // step 0 is drawn at the left edge
  assert.equal(layout.shapes[0].x1, 64000); // the curriculum: 64 steps of 1,000 tokens
});

test("there is no chart of losses with fewer than two points", () => {
  const reply = { model: "tiny", checkpoints: [checkpoint(null, 0)], n_curriculum_steps: 0 };
  assert.equal(lossFigure(new TrainingHistory({ ...reply, curve: [] }), 0), null);
  assert.equal(lossFigure(new TrainingHistory({ ...reply, curve: [point(0, 6), point(1, 5)] }), 0), null);
});
