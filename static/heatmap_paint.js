// Paints a heatmap on a canvas, from its layout. Knows nothing of the page around it.

import { colourIndex, labelled, magnitude, needsDarkText, numberText, shortened, LARGEST_LABEL, visible } from "./heatmap_layout.js";
import { isHighContrast, signedColours, weightColours } from "./theme.js";

/** @typedef {import("./heatmap_layout.js").Cell} Cell */
/** @typedef {import("./heatmap_layout.js").Layout} Layout */
/** @typedef {import("./heatmap_layout.js").Matrix} Matrix */
/** @typedef {import("./heatmap_layout.js").Offset} Offset */
/** @typedef {CanvasRenderingContext2D} Context */

/**
 * The colours of a heatmap. In high contrast a cell is not coloured: a square or a bar in it is as large as its number, filled
 * where the number is positive and empty where it is negative.
 * @typedef {{ramp: number[][], ink: string, faint: string, paper: string, hatch: string, accent: string, font: string, isHighContrast: boolean}} Colours
 * @typedef {{matrix: Matrix, layout: Layout, offset: Offset, colours: Colours, ends: [number, number], scale: number}} Drawing
 *   `scale` is the number of device pixels per CSS pixel
 */

export const FONT_PX = 11;
const NUMBER_MARGIN = 3; // px beside a number in a cell
const HATCH_PX = 7; // between two lines
const GAP_FROM = 12; // px; larger cells are separated by a gap
const DARK = "#1b1730";
const LIGHT = "#ffffff";

/** The colours of a heatmap at an element. @param {Element} element @param {Matrix["scale"]} scale @returns {Colours} */
export function coloursAt(element, scale) {
  const style = getComputedStyle(element);
  const colour = (/** @type {string} */ name) => style.getPropertyValue(name).trim();
  const high = isHighContrast();
  return {
    ramp: scale === "signed" ? signedColours() : weightColours(),
    ink: high ? style.color : colour("--ink"),
    faint: high ? style.color : colour("--faint"),
    paper: high ? style.backgroundColor : colour("--paper"),
    hatch: high ? style.color : colour("--hatch"),
    accent: high ? style.outlineColor : colour("--accent"),
    font: colour("--font"),
    isHighContrast: high,
  };
}

/** The font of labels and numbers. @param {Colours} colours */
export const fontOf = ({ font }) => `${FONT_PX}px ${font}`;

/** Paint the visible cells with their labels on a cleared canvas. @param {Context} context @param {Drawing} drawing */
export function paint(context, drawing) {
  const { layout, offset, colours, scale } = drawing;
  const { left, top, bottom, view, cell, nRows, nColumns } = layout;
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.fillStyle = colours.paper;
  context.fillRect(0, 0, left + view[0], top + view[1] + bottom);
  const [rows, columns] = [visible(offset.top, view[1], cell[1], nRows), visible(offset.left, view[0], cell[0], nColumns)];
  context.save();
  context.beginPath();
  context.rect(left, top, view[0], view[1]);
  context.clip();
  paintCells(context, drawing, rows, columns);
  context.restore();
  paintRowLabels(context, drawing, rows);
  paintColumnLabels(context, drawing, columns);
}

/** The rectangle of a cell, aligned with device pixels: [left, top, width, height].
 *  @param {Drawing} drawing @param {Cell} cell @returns {[number, number, number, number]} */
function boxOf({ layout: { left, top, cell }, offset, scale }, { row, column }) {
  const snapped = (/** @type {number} */ px) => Math.round(px * scale) / scale;
  const [x, y] = [left - offset.left + column * cell[0], top - offset.top + row * cell[1]];
  const gap = Math.min(...cell) >= GAP_FROM ? 1 : 0;
  return [snapped(x), snapped(y), snapped(x + cell[0]) - snapped(x) - gap, snapped(y + cell[1]) - snapped(y) - gap];
}

/** @param {Context} context @param {Drawing} drawing @param {[number, number]} rows @param {[number, number]} columns */
function paintCells(context, drawing, rows, columns) {
  const { matrix: { values }, colours, ends } = drawing;
  const fills = colours.ramp.map((channels) => `rgb(${channels})`);
  const texts = colours.ramp.map((channels) => (needsDarkText(channels) ? DARK : LIGHT));
  const hasNumbers = numbersFit(context, drawing, rows, columns);
  const masked = new Path2D();
  context.textAlign = "center";
  context.textBaseline = "middle";
  for (let row = rows[0]; row < rows[1]; row++)
    for (let column = columns[0]; column < columns[1]; column++) {
      const [value, box] = [values[row][column], boxOf(drawing, { row, column })];
      if (value === null) masked.rect(...box);
      else if (colours.isHighContrast) paintSize(context, box, value, drawing, hasNumbers);
      else {
        context.fillStyle = fills[colourIndex(value, ends)];
        context.fillRect(...box);
      }
      if (!hasNumbers || value === null) continue;
      context.fillStyle = colours.isHighContrast ? colours.ink : texts[colourIndex(value, ends)];
      context.fillText(numberText(value, "cell"), box[0] + box[2] / 2, box[1] + box[3] / 2 + 0.5);
    }
  const { offset, layout: { left, top, view: [width, height] } } = drawing;
  paintHatch(context, masked, { left, width, height: top + height, shift: offset.left + offset.top }, colours.hatch); // the lines scroll with the cells
}

/** Does every visible number fit into its cell? @param {Context} context @param {Drawing} drawing @param {[number, number]} rows @param {[number, number]} columns */
function numbersFit(context, { matrix: { values }, layout: { cell }, colours }, rows, columns) {
  context.font = fontOf(colours);
  const width = cell[0] - 2 * NUMBER_MARGIN;
  if (cell[1] < FONT_PX + 4 || width < context.measureText("0.0").width) return false;
  return values.slice(...rows).every((row) => row.slice(...columns).every((value) => value === null || context.measureText(numberText(value, "cell")).width <= width));
}

/** A cell in high contrast: outlined, with a square, or beside a number a bar, as large as the number.
 *  @param {Context} context @param {[number, number, number, number]} box @param {number} value @param {Pick<Drawing, "colours" | "ends">} drawing @param {boolean} hasNumber */
export function paintSize(context, [x, y, width, height], value, { colours, ends }, hasNumber) {
  const size = magnitude(value, ends);
  context.strokeStyle = context.fillStyle = colours.ink;
  context.lineWidth = 0.5;
  context.strokeRect(x + 0.25, y + 0.25, width - 0.5, height - 0.5);
  context.lineWidth = 1;
  const side = Math.sqrt(size); // the area of a square is in proportion to the number
  /** @type {[number, number, number, number]} */
  const mark = hasNumber
    ? [x + 2, y + height - 5, (width - 4) * size, 3]
    : [x + (width * (1 - side)) / 2, y + (height * (1 - side)) / 2, width * side, height * side];
  if (value >= 0) context.fillRect(...mark);
  else context.strokeRect(mark[0] + 0.5, mark[1] + 0.5, Math.max(0, mark[2] - 1), Math.max(0, mark[3] - 1));
}

/** Hatch an area with lines at 45°. @param {Context} context @param {Path2D} area
 *  @param {{left: number, width: number, height: number, shift: number}} around the rectangle, from y = 0, in which the area is;
 *    `shift` moves the lines to the left @param {string} colour */
export function paintHatch(context, area, { left, width, height, shift }, colour) {
  context.save();
  context.clip(area);
  context.beginPath();
  for (let x = left - (shift % HATCH_PX) - height; x < left + width + HATCH_PX; x += HATCH_PX) {
    context.moveTo(x, height);
    context.lineTo(x + height, 0);
  }
  context.strokeStyle = colour;
  context.lineWidth = 1;
  context.stroke();
  context.restore();
}

/** A label in which the position is on the left whatever the direction of the token after it. @param {string} label */
const isolated = (label) => `\u2066${label}\u2069`;

/** @param {Context} context @param {Drawing} drawing @param {[number, number]} rows */
function paintRowLabels(context, { matrix, layout: { left, top, cell, rowStride, view }, offset, colours }, rows) {
  const measure = measureWith(context, colours);
  context.fillStyle = colours.ink;
  context.textAlign = "right";
  context.textBaseline = "middle";
  for (const row of labelled(rows, rowStride)) {
    const y = top + (row + 0.5) * cell[1] - offset.top;
    if (y >= top && y <= top + view[1]) context.fillText(isolated(shortened(matrix.rows[row], left - 6, measure)), left - 6, y);
  }
}

/** @param {Context} context @param {Drawing} drawing @param {[number, number]} columns */
function paintColumnLabels(context, { matrix, layout: { left, top, cell, columnStride, isSlanted, view }, offset, colours }, columns) {
  const measure = measureWith(context, colours);
  context.fillStyle = colours.ink;
  context.textAlign = isSlanted ? "right" : "center";
  context.textBaseline = isSlanted ? "middle" : "top";
  for (const column of labelled(columns, columnStride)) {
    const x = left + (column + 0.5) * cell[0] - offset.left;
    if (x < left || x > left + view[0]) continue;
    const label = isolated(shortened(matrix.columns[column], LARGEST_LABEL, measure));
    context.save();
    context.translate(x, top + view[1] + 5);
    if (isSlanted) context.rotate(-Math.PI / 4);
    context.fillText(label, 0, 0);
    context.restore();
  }
}

/** The width of texts in the font of labels. @param {Context} context @param {Colours} colours */
export function measureWith(context, colours) {
  context.font = fontOf(colours);
  return (/** @type {string} */ text) => context.measureText(text).width;
}

/** Outline a cell, inside it if there is room. Two lines, one of them in the colour of the paper, are visible on every colour.
 *  @param {Context} context @param {Drawing} drawing @param {Cell} cell */
export function paintCursor(context, drawing, cell) {
  const [x, y, width, height] = boxOf(drawing, cell);
  const isLarge = Math.min(width, height) >= GAP_FROM;
  context.lineWidth = 2;
  for (const [colour, inset] of /** @type {[string, number][]} */ ([[drawing.colours.accent, 1], [drawing.colours.paper, 3]])) {
    const from = isLarge ? inset : inset - 4;
    context.strokeStyle = colour;
    context.strokeRect(x + from, y + from, width - 2 * from, height - 2 * from);
  }
}

/** Mark the rectangle between two corners, while it is drawn. @param {Context} context @param {Drawing} drawing @param {Cell} from @param {Cell} to */
export function paintSelection(context, drawing, from, to) {
  const first = boxOf(drawing, { row: Math.min(from.row, to.row), column: Math.min(from.column, to.column) });
  const last = boxOf(drawing, { row: Math.max(from.row, to.row), column: Math.max(from.column, to.column) });
  context.strokeStyle = drawing.colours.accent;
  context.lineWidth = 2;
  context.setLineDash([5, 3]);
  context.strokeRect(first[0], first[1], last[0] + last[2] - first[0], last[1] + last[3] - first[1]);
  context.setLineDash([]);
}
