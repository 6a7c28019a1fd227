// The heads of the grid as cells for a screen reader. They are inside the canvas, where browsers neither lay them out nor
// paint them; the canvas keeps the focus and names the chosen cell. They are made once per model.

/** One row of cells per layer, one cell per head. */
export class HeadCells {
  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    this.canvas = canvas;
    /** @type {HTMLElement[][]} */
    this.rows = []; // layer × head
    /** @type {HTMLElement | undefined} */
    this.chosen = undefined;
  }

  /** Show the heads of a model, and which one is chosen. @param {[layers: number, heads: number]} shape @param {{layer: number, head: number}} chosen */
  draw([nLayers, nHeads], { layer, head }) {
    if (nLayers !== this.rows.length || nHeads !== this.rows[0]?.length) this.create(nLayers, nHeads);
    const cell = this.rows[layer]?.[head];
    if (cell === this.chosen) return;
    if (this.chosen) this.chosen.ariaSelected = "false";
    this.chosen = cell;
    if (cell) cell.ariaSelected = "true";
    if (cell) this.canvas.setAttribute("aria-activedescendant", cell.id);
    else this.canvas.removeAttribute("aria-activedescendant"); // an address may name a head that does not exist
  }

  /** @param {number} nLayers @param {number} nHeads */
  create(nLayers, nHeads) {
    this.chosen = undefined;
    this.rows = Array.from({ length: nLayers }, (_, layer) => Array.from({ length: nHeads }, (_, head) => createCell(layer, head)));
    this.canvas.replaceChildren(...this.rows.map(createRow));
    this.canvas.role = "grid"; // until now it had no rows, and was an image
  }
}

/** @param {HTMLElement[]} cells */
function createRow(cells) {
  const row = document.createElement("div");
  row.role = "row";
  row.append(...cells);
  return row;
}

/** @param {number} layer @param {number} head */
function createCell(layer, head) {
  const cell = document.createElement("span");
  cell.role = "gridcell";
  cell.id = `head-${layer}-${head}`;
  cell.ariaSelected = "false";
  cell.textContent = `layer ${layer}, head ${head}`;
  return cell;
}
