// A frame: a JSON header followed by typed arrays. app/live/frame.py encodes it and describes its bytes.

const ARRAY_TYPES = { uint8: Uint8Array, float32: Float32Array };

/**
 * An array of a frame with its shape.
 * @typedef {{values: Uint8Array | Float32Array, shape: number[]}} Tensor
 * @typedef {{header: import("./types.js").LiveHeader, arrays: Record<string, Tensor>}} Frame
 */

/** Where an array is in a frame. @typedef {{dtype: keyof typeof ARRAY_TYPES, shape: number[], offset: number}} ArrayEntry */

/** Decode a frame into its header and arrays. @param {ArrayBuffer} buffer @returns {Frame} */
export function decode(buffer) {
  const nHeaderBytes = new DataView(buffer).getUint32(0, true);
  /** @type {import("./types.js").LiveHeader & {arrays: Record<string, ArrayEntry>}} */
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, nHeaderBytes)));
  /** @type {Record<string, Tensor>} */
  const arrays = {};
  for (const [name, { dtype, shape, offset }] of Object.entries(header.arrays)) {
    const size = shape.reduce((product, n) => product * n, 1);
    arrays[name] = { values: new ARRAY_TYPES[dtype](buffer, 4 + nHeaderBytes + offset, size), shape };
  }
  return { header, arrays };
}

/** The rows of a matrix, as views of its values. @param {Tensor} tensor */
export function rows({ values, shape: [nRows, nColumns] }) {
  return Array.from({ length: nRows }, (_, i) => values.subarray(i * nColumns, (i + 1) * nColumns));
}
