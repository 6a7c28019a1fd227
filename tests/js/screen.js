// What static/picture.js makes of frames, for tests in Python: tests/app/screen.py starts this program, and asks it.
//
// A message is the length of the rest, the number of a screen (both unsigned, little-endian, 32 bits), and a frame. An
// empty one asks what the screen shows, which is answered by one line of JSON.

import assert from "node:assert/strict";
import { decode } from "../../static/frame.js";
import { NOTHING, applied, meanToFirstToken } from "../../static/picture.js";

/** @type {Map<number, import("../../static/picture.js").Picture>} */
const pictures = new Map();

/** Take a frame in; what was there before is left as it was. @param {number} screen @param {Buffer} bytes */
function take(screen, bytes) {
  const before = pictures.get(screen) ?? NOTHING;
  const copy = structuredClone(before);
  pictures.set(screen, applied(before, decode(Uint8Array.from(bytes).buffer)));
  assert.deepEqual(before, copy);
}

/** Typed arrays as JSON can hold them. @param {string} _ @param {unknown} value */
function packed(_, value) {
  if (!ArrayBuffer.isView(value)) return value;
  const { buffer, byteOffset, byteLength } = value;
  return { dtype: value instanceof Uint8Array ? "uint8" : "float32", base64: Buffer.from(buffer, byteOffset, byteLength).toString("base64") };
}

/** @param {number} screen */
function tell(screen) {
  const picture = pictures.get(screen) ?? NOTHING;
  process.stdout.write(`${JSON.stringify({ ...picture, mean_to_first_token: meanToFirstToken(picture) }, packed)}\n`);
}

let rest = Buffer.alloc(0);
for await (const chunk of process.stdin) {
  rest = Buffer.concat([rest, chunk]);
  while (rest.length >= 4 && rest.length >= 4 + rest.readUInt32LE(0)) {
    const end = 4 + rest.readUInt32LE(0);
    const screen = rest.readUInt32LE(4);
    if (end > 8) take(screen, rest.subarray(8, end));
    else tell(screen);
    rest = rest.subarray(end);
  }
}
