// The heads as cells for a screen reader, and the keys that move between them.

import assert from "node:assert/strict";
import { test } from "node:test";
import { HeadCells } from "../../static/head_cells.js";
import { moved } from "../../static/heatmap_layout.js";

const SIZE = { nRows: 30, nColumns: 9 };
const press = (key, [row, column], ctrlKey = false) => {
  const target = moved({ row, column }, { key, ctrlKey }, SIZE);
  return target && [target.row, target.column];
};

/** As much of an element as the cells need. */
class FakeElement {
  static nCreated = 0;
  attributes = {};
  children = [];
  constructor() { FakeElement.nCreated++; }
  append(...children) { this.children.push(...children); }
  replaceChildren(...children) { this.children = children; }
  setAttribute(name, value) { this.attributes[name] = value; }
  removeAttribute(name) { delete this.attributes[name]; }
}
globalThis.document = { createElement: () => new FakeElement() };
const selected = (canvas) => canvas.children.flatMap(({ children }) => children).filter((cell) => cell.ariaSelected === "true").map((cell) => cell.id);

test("arrows move by one cell, Home and End to the ends of the row, with Ctrl of the grid, pages by five rows", () => {
  const from = [10, 4];
  assert.deepEqual(["ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight"].map((key) => press(key, from)), [[9, 4], [11, 4], [10, 3], [10, 5]]);
  assert.deepEqual([press("Home", from), press("End", from)], [[10, 0], [10, 8]]);
  assert.deepEqual([press("Home", from, true), press("End", from, true)], [[0, 0], [29, 8]]);
  assert.deepEqual([press("PageUp", from), press("PageDown", from)], [[5, 4], [15, 4]]);
});

test("no key leaves the grid, and other keys do nothing", () => {
  for (const key of ["ArrowUp", "ArrowLeft", "PageUp", "Home"]) assert.deepEqual(press(key, [0, 0]), [0, 0]);
  for (const key of ["ArrowDown", "ArrowRight", "PageDown", "End"]) assert.deepEqual(press(key, [29, 8]), [29, 8]);
  for (const key of ["a", "Enter", "Tab"]) assert.equal(press(key, [1, 1]), null);
  for (const key of ["ArrowDown", "PageDown"]) assert.equal(press(key, [1, 1], true), null); // the browser's own keys
});

test("the chosen head is the only selected cell, and the one that the canvas names", () => {
  const canvas = new FakeElement();
  const cells = new HeadCells(canvas);
  for (const [layer, head] of [[0, 0], [29, 8], [3, 5]]) {
    cells.draw([30, 9], { layer, head });
    assert.deepEqual(selected(canvas), [`head-${layer}-${head}`]);
    assert.equal(canvas.attributes["aria-activedescendant"], `head-${layer}-${head}`);
  }
  cells.draw([30, 9], { layer: 30, head: 0 }); // an address may name it, though it does not exist
  assert.deepEqual([selected(canvas), canvas.attributes], [[], {}]);
});

test("cells are created once per model, not once per choice", () => {
  const cells = new HeadCells(new FakeElement());
  FakeElement.nCreated = 0;
  for (let layer = 0; layer < 30; layer++) cells.draw([30, 9], { layer, head: 1 });
  assert.equal(FakeElement.nCreated, 30 * 9 + 30);
  cells.draw([2, 3], { layer: 1, head: 1 });
  assert.equal(FakeElement.nCreated, 30 * 9 + 30 + 2 * 3 + 2);
});
