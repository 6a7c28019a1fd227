// The geometry, the numbers and the colours of a heatmap, as pure functions: what is where, which labels are written, and
// how a value is shown. Lengths are in CSS pixels unless a name says otherwise.

/**
 * What a heatmap shows; a lesson's panel of kind "heatmap" is one.
 * @typedef {object} Matrix
 * @property {string} title
 * @property {string[]} rows their labels
 * @property {string[]} columns their labels
 * @property {(number | null)[][]} values one list per row; null is drawn hatched
 * @property {"probability" | "signed"} scale colours run from 0 to 1, or symmetrically around 0
 * @property {number} limit a signed scale ends at this value or beyond it
 */

/** @typedef {{row: number, column: number}} Cell */
/** @typedef {{left: number, top: number}} Offset what is scrolled out of sight */
/** @typedef {(text: string) => number} Measure the width of a text */
/** @typedef {{width: number, height: number, smallestCell: number}} Room for a heatmap: `width` includes its row labels */

/**
 * Where the parts of a heatmap are. The cells begin at (`left`, `top`); what does not fit in `view` is reached by scrolling.
 * @typedef {object} Layout
 * @property {number} nRows
 * @property {number} nColumns
 * @property {number} left width of the row labels
 * @property {number} top room for the upper half of the first row's label, if the row is lower than that
 * @property {number} bottom height of the column labels
 * @property {[width: number, height: number]} cell
 * @property {[width: number, height: number]} extent of all cells
 * @property {[width: number, height: number]} view the part of the extent that is visible at a time
 * @property {number} largestZoom 1 if there is nothing to see by zooming in
 * @property {number} rowStride every so many rows have a label
 * @property {number} columnStride
 * @property {boolean} isSlanted column labels are written at an angle of 45°
 */

export const LARGEST_LABEL = 130; // px; a longer label ends in an ellipsis, and is complete where the cell's value is
const LABEL_HEIGHT = 13;
const GAP = 6; // px between labels, and between labels and cells
const LARGEST_CELL = 50;
const LARGEST_ZOOMED_CELL = 80;
const LARGE_CELL = 20; // large enough to see and to hit
const ROW_HEIGHT = [20, 28]; // px, smallest and largest, of a matrix that is not square
const STRIDES = [1, 2, 5];
const PAGE = 5; // rows
const SLANT = Math.SQRT1_2; // sine and cosine of 45°

/**
 * The layout of a matrix: its cells as large as they fit the room, times `zoom`. Cells of a square matrix are square.
 * @param {Pick<Matrix, "rows" | "columns">} matrix @param {Room} room @param {number} zoom 1 or larger @param {Measure} measure
 * @returns {Layout}
 */
export function layoutOf({ rows, columns }, room, zoom, measure) {
  const [nRows, nColumns] = [rows.length, columns.length];
  const left = Math.ceil(Math.min(widest(rows, measure), LARGEST_LABEL, room.width / 3)) + GAP;
  const available = Math.max(1, room.width - left);
  const fitted = fitCell(nRows, nColumns, available, room);
  /** @type {[number, number]} */
  const cell = [zoomed(fitted[0], zoom), zoomed(fitted[1], zoom)];
  const labelWidth = Math.min(widest(columns, measure), LARGEST_LABEL);
  const isSlanted = labelWidth + GAP > cell[0] && !columns.every(isNumeral);
  const bottom = Math.ceil(isSlanted ? labelWidth * SLANT + LABEL_HEIGHT : LABEL_HEIGHT) + GAP;
  /** @type {[number, number]} */
  const extent = [nColumns * cell[0], nRows * cell[1]];
  return {
    nRows,
    nColumns,
    left,
    top: Math.max(0, Math.ceil((LABEL_HEIGHT - cell[1]) / 2)),
    bottom,
    cell,
    extent,
    view: [Math.min(extent[0], available), Math.min(extent[1], Math.max(room.height, cell[1]))],
    largestZoom: Math.min(...fitted) >= LARGE_CELL ? 1 : LARGEST_ZOOMED_CELL / Math.min(...fitted),
    rowStride: strideFor(cell[1], LABEL_HEIGHT),
    columnStride: strideFor(cell[0], isSlanted ? LABEL_HEIGHT / SLANT : labelWidth + GAP),
    isSlanted,
  };
}

/** @param {number} nRows @param {number} nColumns @param {number} width @param {Room} room @returns {[number, number]} */
function fitCell(nRows, nColumns, width, { height, smallestCell }) {
  const side = whole(clamp(width / nColumns, smallestCell, LARGEST_CELL));
  if (nRows === nColumns) return [side, side];
  const fromHeight = Math.max(smallestCell, height / nRows);
  return [side, whole(Math.min(clamp(side, ROW_HEIGHT[0], ROW_HEIGHT[1]), fromHeight))];
}

/** Whole pixels for cells that are large enough to lose a part of one. @param {number} px */
const whole = (px) => (px < 12 ? px : Math.floor(px));

/** @param {number} side @param {number} zoom */
const zoomed = (side, zoom) => Math.max(side, Math.min(side * zoom, LARGEST_ZOOMED_CELL));
/** @param {number} value @param {number} minimum @param {number} maximum */
export const clamp = (value, minimum, maximum) => Math.max(minimum, Math.min(value, maximum)); // the minimum, if it is the larger
/** @param {string[]} labels @param {Measure} measure */
const widest = (labels, measure) => labels.reduce((width, label) => Math.max(width, measure(label)), 0);
const isNumeral = (/** @type {string} */ label) => /^\d+$/.test(label);

/** The smallest of 1, 2, 5, 10, 20, … cells that together have room for a label.
 *  @param {number} cellPx @param {number} labelPx */
export function strideFor(cellPx, labelPx) {
  for (let power = 1; ; power *= 10) {
    const stride = STRIDES.find((factor) => factor * power * cellPx >= labelPx);
    if (stride) return stride * power;
  }
}

/** The indices from `first` to before `end` that have a label. @param {[number, number]} range @param {number} stride */
export function labelled([first, end], stride) {
  const indices = Array.from({ length: Math.max(0, end - first) }, (_, i) => first + i);
  return indices.filter((index) => index % stride === 0);
}

/** A label that fits: complete, or its beginning with an ellipsis. @param {string} label @param {number} width @param {Measure} measure */
export function shortened(label, width, measure) {
  if (measure(label) <= width) return label;
  const characters = [...label]; // so that no surrogate pair is split
  while (characters.length > 1 && measure(`${characters.join("")}…`) > width) characters.pop();
  return `${characters.join("")}…`;
}

/** The rows or columns of which a part is visible, as [first, end). @param {number} offset @param {number} view
 *  @param {number} cellPx @param {number} n @returns {[number, number]} */
export const visible = (offset, view, cellPx, n) => [
  Math.max(0, Math.floor(offset / cellPx)),
  Math.min(n, Math.ceil((offset + view) / cellPx - 1e-9)), // the end of the last cell may be rounded up
];

/** The cell at a point of the picture; null beside the cells.
 *  @param {Layout} layout @param {Offset} offset @param {number} x @param {number} y @returns {Cell | null} */
export function cellAt({ left, top, view, cell, nRows, nColumns }, offset, x, y) {
  if (x < left || x >= left + view[0] || y < top || y >= top + view[1]) return null;
  const [column, row] = [Math.floor((x - left + offset.left) / cell[0]), Math.floor((y - top + offset.top) / cell[1])];
  return row < nRows && column < nColumns ? { row, column } : null;
}

/** The smallest scrolling that makes a cell visible. @param {Layout} layout @param {Offset} offset @param {Cell} target @returns {Offset} */
export function scrolledTo({ cell, view }, offset, { row, column }) {
  /** @param {number} from @param {number} index @param {number} size @param {number} length */
  const along = (from, index, size, length) => Math.min(Math.max(from, (index + 1) * size - length), index * size);
  return { left: along(offset.left, column, cell[0], view[0]), top: along(offset.top, row, cell[1], view[1]) };
}

/** The zoom at which the cells between two corners fill the view. @param {Layout} layout @param {number} zoom @param {Cell} from @param {Cell} to */
export function zoomOn({ cell, view }, zoom, from, to) {
  const [width, height] = [Math.abs(to.column - from.column) + 1, Math.abs(to.row - from.row) + 1];
  return zoom * Math.max(1, Math.min(view[0] / (width * cell[0]), view[1] / (height * cell[1])));
}

/** The cell to which a key moves the cursor; null for any other key.
 *  @param {Cell} cell @param {{key: string, ctrlKey?: boolean}} event @param {{nRows: number, nColumns: number}} size @returns {Cell | null} */
export function moved({ row, column }, { key, ctrlKey }, { nRows, nColumns }) {
  /** @type {Record<string, [row: number, column: number]>} */
  const targets = {
    ArrowUp: [row - 1, column],
    ArrowDown: [row + 1, column],
    ArrowLeft: [row, column - 1],
    ArrowRight: [row, column + 1],
    PageUp: [row - PAGE, column],
    PageDown: [row + PAGE, column],
    Home: [ctrlKey ? 0 : row, 0],
    End: [ctrlKey ? nRows - 1 : row, nColumns - 1],
  };
  const target = targets[key];
  if (!target || (ctrlKey && !["Home", "End"].includes(key))) return null;
  return { row: clamp(target[0], 0, nRows - 1), column: clamp(target[1], 0, nColumns - 1) };
}

/** The ends of the colour scale. @param {Pick<Matrix, "values" | "scale" | "limit">} matrix @returns {[number, number]} */
export function scaleEnds({ values, scale, limit }) {
  if (scale === "probability") return [0, 1];
  let end = limit;
  for (const row of values) for (const value of row) end = Math.max(end, Math.abs(value ?? 0));
  return [-end, end];
}

/** Where a value lies on the colour scale, as an index of its 256 colours. @param {number} value @param {[number, number]} ends */
export const colourIndex = (value, [first, last]) => Math.round(255 * clamp((value - first) / (last - first), 0, 1));

/** How large a value is in proportion to the ends of the scale, from 0 to 1. @param {number} value @param {[number, number]} ends */
export const magnitude = (value, [, last]) => Math.min(1, Math.abs(value) / last);

/** Is dark text easier to read than light text on this colour? The limit is the luminance that contrasts equally with
 *  both after WCAG. @param {number[]} colour [r, g, b] */
export function needsDarkText(colour) {
  const [red, green, blue] = colour.map((channel) => channel / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.199;
}

/** How numbers are written: with 4 significant digits where there is room, with 2 inside a cell. Digits before the decimal
 *  point are never rounded away, and a very small number is written with a power of ten. */
const FORMATS = { full: formats(4), cell: formats(2) };

/** @param {number} digits */
function formats(digits) {
  const options = { maximumSignificantDigits: digits, maximumFractionDigits: 0, roundingPriority: /** @type {const} */ ("morePrecision") };
  return { standard: new Intl.NumberFormat("en", options), small: new Intl.NumberFormat("en", { maximumSignificantDigits: digits, notation: "scientific" }) };
}

/** A value as text. @param {number | null} value @param {keyof typeof FORMATS} format */
export function numberText(value, format = "full") {
  if (value === null) return "no value";
  const { standard, small } = FORMATS[format];
  return (value && Math.abs(value) < 1e-4 ? small : standard).format(value).replaceAll("-", "−");
}

/** What is out of sight, in words; empty if nothing is. @param {Layout} layout */
export function hiddenText({ nRows, nColumns, cell, extent, view }) {
  const count = (/** @type {number} */ axis, /** @type {number} */ n, /** @type {string} */ name) =>
    view[axis] < extent[axis] ? [`${Math.max(1, Math.floor(view[axis] / cell[axis]))} of ${n} ${name}`] : [];
  const parts = [...count(0, nColumns, "columns"), ...count(1, nRows, "rows")];
  return parts.length ? `${parts.join(" and ")} are in view; scroll to see the rest.` : "";
}

/** The labels and the value of a cell. @param {Matrix} matrix @param {Cell} cell @returns {[row: string, column: string, value: string]} */
export const cellTexts = ({ rows, columns, values }, { row, column }) => [rows[row], columns[column], numberText(values[row][column])];
