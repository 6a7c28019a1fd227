// Applies frames with static/client_state.js, for tests in Python: tests/app/screen.py starts this program and talks to it.
//
// A message is the length of the rest, the number of a screen (both unsigned, little-endian, 32 bits), and a frame. A
// message without a frame requests the client state of the screen, which is written as one line of JSON.

import assert from "node:assert/strict";
import { decode } from "../../static/frame.js";
import { EMPTY_CLIENT_STATE, applyFrame, meanToFirstToken } from "../../static/client_state.js";

/** @type {Map<number, import("../../static/client_state.js").ClientState>} */
const pictures = new Map();

/** Apply a frame, and check that the picture before it is unchanged. @param {number} screen @param {Buffer} bytes */
function applyBytes(screen, bytes) {
  const before = pictures.get(screen) ?? EMPTY_CLIENT_STATE;
  const copy = structuredClone(before);
  pictures.set(screen, applyFrame(before, decode(Uint8Array.from(bytes).buffer)));
  assert.deepEqual(before, copy);
}

/** Replace typed arrays by base64, for JSON. @param {string} _ @param {unknown} value */
function packed(_, value) {
  if (!ArrayBuffer.isView(value)) return value;
  const { buffer, byteOffset, byteLength } = value;
  return { dtype: value instanceof Uint8Array ? "uint8" : "float32", base64: Buffer.from(buffer, byteOffset, byteLength).toString("base64") };
}

/** Write the picture of a screen. @param {number} screen */
function write(screen) {
  const clientState = pictures.get(screen) ?? EMPTY_CLIENT_STATE;
  process.stdout.write(`${JSON.stringify({ ...clientState, mean_to_first_token: meanToFirstToken(clientState) }, packed)}\n`);
}

let rest = Buffer.alloc(0);
for await (const chunk of process.stdin) {
  rest = Buffer.concat([rest, chunk]);
  while (rest.length >= 4 && rest.length >= 4 + rest.readUInt32LE(0)) {
    const end = 4 + rest.readUInt32LE(0);
    const screen = rest.readUInt32LE(4);
    if (end > 8) applyBytes(screen, rest.subarray(8, end));
    else write(screen);
    rest = rest.subarray(end);
  }
}
