// A frame: a JSON header and typed arrays after it. app/frame.py writes it and describes its bytes.

const KINDS = { uint8: Uint8Array, float32: Float32Array };

/**
 * An array of a frame with its shape.
 * @typedef {{values: Uint8Array | Float32Array, shape: number[]}} Tensor
 * @typedef {{header: import("./types.js").LiveHeader, arrays: Record<string, Tensor>}} Frame
 */

/** @typedef {{dtype: keyof typeof KINDS, shape: number[], offset: number}} Place */

/**
 * Header and arrays of a frame. @param {ArrayBuffer} buffer
 * @returns {Frame}
 */
export function decode(buffer) {
  const nHead = new DataView(buffer).getUint32(0, true);
  /** @type {import("./types.js").LiveHeader & {arrays: Record<string, Place>}} */
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, nHead)));
  /** @type {Record<string, Tensor>} */
  const arrays = {};
  for (const [name, { dtype, shape, offset }] of Object.entries(header.arrays)) {
    const size = shape.reduce((product, n) => product * n, 1);
    arrays[name] = { values: new KINDS[dtype](buffer, 4 + nHead + offset, size), shape };
  }
  return { header, arrays };
}

/** The rows of a matrix, without copying. @param {Tensor} tensor */
export function rows({ values, shape: [nRows, nColumns] }) {
  return Array.from({ length: nRows }, (_, i) => values.subarray(i * nColumns, (i + 1) * nColumns));
}
