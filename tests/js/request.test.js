// Requests: the newest wins, and what no server answers is sent again.

import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";
import "./browser.js";
import { Newest, Refused, UNREACHABLE, Unreachable, linesOf, send } from "../../static/request.js";

/** What the server replies, one reply after another. */
let replies = [];
let sent = [];

beforeEach(() => {
  sent = [];
  globalThis.fetch = async (address, options) => {
    sent.push([address, options.method]);
    const reply = replies.shift();
    if (reply instanceof Error) throw reply;
    return reply;
  };
  mock.timers.enable({ apis: ["setTimeout"] });
});
afterEach(() => mock.timers.reset());

const problem = (status, detail, headers = {}) => new Response(JSON.stringify({ status, detail }), { status, headers });
const settled = async () => {
  for (let i = 0; i < 20; i++) await Promise.resolve();
};

test("a request with a body is a POST, one without is a GET", async () => {
  replies = [new Response("a"), new Response("b")];
  assert.equal(await (await send("/x", { body: "{}" })).text(), "a");
  await send("/y");
  assert.deepEqual(sent, [["/x", "POST"], ["/y", "GET"]]);
});

test("a refusal has the server's words, also where it gives none", async () => {
  replies = [problem(503, "busy", { "Retry-After": "2" }), new Response("<html>", { status: 502 })];
  await assert.rejects(send("/x"), (error) => error instanceof Refused && error.retryAfterS === 2 && error.message === "busy");
  await assert.rejects(send("/x"), /status 502/);
});

test("a lost network is not a refusal", async () => {
  replies = [new TypeError("failed to fetch")];
  await assert.rejects(send("/x"), Unreachable);
});

test("lines are read whole, however the network cuts them", async () => {
  const bytes = new TextEncoder().encode('{"a":"猫"}\n{"b":2}\n');
  const body = new ReadableStream({
    start(controller) {
      for (const byte of bytes) controller.enqueue(new Uint8Array([byte]));
      controller.close();
    },
  });
  assert.deepEqual(await Array.fromAsync(linesOf(new Response(body))), [{ a: "猫" }, { b: 2 }]);
});

test("newer work aborts older work, whose result counts no more", async () => {
  const notices = [];
  const newest = new Newest((message) => notices.push(message));
  const aborted = [];
  const first = newest.run((signal) => new Promise((_, reject) => signal.addEventListener("abort", () => { aborted.push(1); reject(new Unreachable()); })));
  await newest.run(async () => {});
  await first;
  assert.deepEqual([aborted, notices, newest.isBusy], [[1], [""], false]);
});

test("work is done again while the server is away or busy, and then no more", async () => {
  const notices = [];
  const newest = new Newest((message, isTemporary) => notices.push([message, isTemporary]));
  const outcomes = [new Unreachable(), new Refused({ status: 503, detail: "busy" }, 1), null];
  let nRuns = 0;
  await newest.run(async () => {
    const outcome = outcomes[nRuns++];
    if (outcome) throw outcome;
  });
  for (const ms of [500, 1000, 60_000]) {
    mock.timers.tick(ms);
    await settled();
  }
  assert.deepEqual([nRuns, notices], [3, [[UNREACHABLE, true], ["busy", true], ["", false]]]);
});

test("a refusal for good is notices once", async () => {
  const notices = [];
  const newest = new Newest((message, isTemporary) => notices.push([message, isTemporary]));
  await newest.run(async () => {
    throw new Refused({ status: 422, detail: "too long" }, null);
  });
  mock.timers.tick(60_000);
  assert.deepEqual([notices, newest.isBusy], [[["too long", false]], false]);
});
