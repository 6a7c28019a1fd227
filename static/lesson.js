// A lesson: whatever is typed or changed is asked for at once, and what comes back is drawn. The newest ask wins.

import { Figure } from "./figure.js";
import { chipsOf, figureOf, picked, tableOf, words } from "./parts.js";
import { hold } from "./pull.js";
import { onLook, template } from "./theme.js";

/** @type {import("./types.js").Find} */
const find = (id) => document.getElementById(id);
/** @typedef {import("./types.js").Check} Check */
/** @typedef {import("./types.js").LessonAnswer} LessonAnswer */
/** @typedef {import("./types.js").Part} Part */
/** @typedef {import("./types.js").Problem} Problem */
/** @typedef {{isGood: true, said: LessonAnswer & {checks: Check[]}, retryAfterS: number}} Good */
/** @typedef {{isGood: false, said: Problem, retryAfterS: number}} Bad */
/** @typedef {HTMLElement & {running?: number}} PlayButton its timer, while a slider runs */

const form = find("lesson");
const slug = form.dataset.call.split("/").at(-1);
document.body.classList.add("live");

/** @type {Map<string, {place: HTMLElement, figure: Figure | null, details: HTMLDetailsElement | null}>} */
const parts = new Map(
  [.../** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("[data-part]"))].map((place) => {
    /** @type {HTMLElement | null} */
    const element = place.querySelector(".figure");
    const [name, figure] = [place.dataset.part, element ? new Figure(element) : null];
    figure?.on("plotly_click", ({ points: [hit] }) => picked(answer[name], hit).forEach(([control, value]) => set(control, [value])));
    if (element) hold(element, () => answer?.[name], set);
    const details = place.querySelector("details");
    details?.addEventListener("toggle", () => drawTable(name));
    return [name, { place, figure, details }];
  }),
);
/** @type {LessonAnswer | null} */
let answer = null;
let asking = new AbortController();
let proving = find("checks").childElementCount > 0; // once asked for, checks follow every change
let writing = 0;

/** The request that the controls say. */
function request() {
  /** @type {Record<string, unknown>} */
  const said = { text: find("text").value, model: find("model").value, broken: find("broken").checked };
  const step = /** @type {HTMLInputElement | null} */ (form.elements.namedItem("step"));
  if (step) said.step = Number(step.value);
  for (const { dataset } of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("[data-control]"))) {
    const { control: name, kind } = dataset;
    const inputs = inputsOf(name);
    if (kind === "sliders") said[name] = inputs.map((input) => input.valueAsNumber);
    else if (kind === "heads") said[name] = inputs.filter(({ checked }) => checked).map(({ value }) => Number(value));
    else if (kind === "switch") said[name] = inputs[0].checked;
    else if (kind === "choice" || kind === "text") said[name] = inputs[0].value;
    else if (inputs[0].value !== "") said[name] = Number(inputs[0].value);
  }
  return said;
}

/** What a control is made of. @param {string} name @returns {HTMLInputElement[]} a choice's is a select element */
const inputsOf = (name) => [...document.querySelectorAll(`[data-control="${name}"] [name]`)].map((input) => /** @type {HTMLInputElement} */ (input));

/** Give a control other values, as if by hand. @param {string} name @param {number[]} values */
function set(name, values) {
  const inputs = inputsOf(name);
  inputs.forEach((input, i) => {
    input.value = String(values[i]);
    const output = input.parentElement.querySelector("output");
    if (output) output.value = input.value;
  });
  if (inputs.length) ask();
}

/** @param {string} call @param {AbortSignal} signal @returns {Promise<Good | Bad>} */
async function post(call, signal) {
  const headers = { "Content-Type": "application/json" };
  const reply = await fetch(call, { method: "POST", headers, body: JSON.stringify(request()), signal });
  return { isGood: reply.ok, said: await reply.json(), retryAfterS: Number(reply.headers.get("Retry-After")) };
}

async function ask() {
  asking.abort();
  const { signal } = (asking = new AbortController());
  clearTimeout(writing);
  writing = setTimeout(write, 250);
  document.body.classList.add("stale");
  if (!find("text").value) return notice(find("text").dataset.whenEmpty, "quiet");
  if (!find("notice").classList.contains("waiting")) notice(""); // it was of what was asked before
  const again = (/** @type {number} */ inS) => setTimeout(() => asking.signal === signal && ask(), 1000 * inS);
  const reply = await answered(post(form.dataset.call, signal));
  if (!reply) {
    if (signal.aborted) return;
    notice("The server does not answer. What you typed is kept; the page asks again by itself.", "waiting");
    again(2);
    return;
  }
  notice(reply.isGood === true ? "" : reply.said.detail, reply.retryAfterS ? "waiting" : "");
  if (!reply.isGood && reply.retryAfterS) again(reply.retryAfterS);
  if (!reply.isGood) return;
  answer = reply.said;
  draw();
  document.body.classList.remove("stale");
  if (proving) await prove(signal);
}

/** What a call brings; null where the server is away, or a newer ask came in between.
 *  @param {Promise<Good | Bad>} call */
async function answered(call) {
  try {
    return await call;
  } catch (error) {
    if (/** @type {Error} */ (error).name === "AbortError" || error instanceof TypeError) return null; // TypeError: what fetch throws
    throw error;
  }
}

/** @param {AbortSignal} signal */
async function prove(signal) {
  const reply = await answered(post(`${form.dataset.call}/checks`, signal));
  if (!reply && !signal.aborted) return notice("The server does not answer: press the button again.");
  if (!reply) return;
  if (reply.isGood === false) return notice(reply.said.detail);
  find("checks").replaceChildren(
    ...reply.said.checks.map(({ name, measured, most, passed, least, reason }) => {
      const line = document.createElement("li");
      const [verdict, value] = [document.createElement("b"), document.createElement("code")];
      line.dataset.passed = String(passed);
      if (passed === null) {
        verdict.textContent = "does not apply";
        line.append(verdict, ` ${name}: ${reason}`);
        return line;
      }
      verdict.textContent = passed ? "holds" : "fails";
      value.textContent = measured === null ? "no number" : words(measured);
      line.append(verdict, ` ${name}: `, value, most === null ? ` (at least ${words(least)})` : ` (at most ${words(most)})`);
      return line;
    }),
  );
}

function draw() {
  const { layout } = template();
  const style = getComputedStyle(document.documentElement);
  const colour = (/** @type {string} */ name) => style.getPropertyValue(name).trim();
  const palette = { colours: ["--violet", "--accent", "--third", "--faint"].map(colour), diverging: layout.colorscale.diverging, ink: colour("--hatch"), paper: colour("--paper") };
  for (const [name, { place, figure }] of parts) {
    const part = answer[name];
    place.querySelector("figcaption").textContent = part.title;
    const drawn = figureOf(part, palette);
    if (drawn) figure.draw({ ...drawn, name: `${slug} ${answer.model} ${part.title}` });
    figure?.element.classList.toggle("picks", Boolean(("picks" in part && part.picks) || (part.kind === "points" && part.points.some(({ picks }) => Object.keys(picks).length))));
    if (part.kind === "chips") place.querySelector(".chips")?.replaceChildren(...chipsOf(part));
    else drawTable(name);
  }
  for (const select of /** @type {NodeListOf<HTMLSelectElement>} */ (document.querySelectorAll('[data-kind="token"] select'))) {
    const chosen = select.value;
    const options = answer.tokens.map(({ position, text }) => new Option(`${position} ${text}`, String(position)));
    select.replaceChildren(select.options[0], ...options);
    select.value = Number(chosen) < answer.tokens.length ? chosen : "";
  }
  find("curl").textContent = `curl ${location.origin}${form.dataset.call} --json '${JSON.stringify(request()).replaceAll("'", "'\\''")}'`;
}

/** A table that nobody sees is not made: at 200 tokens it has 40,000 cells. @param {string} name */
function drawTable(name) {
  const { place, details } = parts.get(name);
  const part = answer?.[name];
  if (!details || !part || part.kind === "chips") return; // without an answer the table is the server's
  const table = place.querySelector("table");
  table.replaceChildren();
  if (!details.open) return;
  const [heads, ...lines] = tableOf(part);
  if (heads) table.createTHead().append(rowOf(heads, 0));
  table.createTBody().append(...lines.map((cells, i) => rowOf(cells, i + 1)));
}

/** @param {string[]} cells @param {number} i */
function rowOf(cells, i) {
  const row = document.createElement("tr");
  cells.forEach((text, j) => {
    const cell = document.createElement(i && j ? "td" : i || j || text ? "th" : "td");
    if (cell.localName === "th") cell.scope = i ? "row" : "col";
    cell.textContent = text;
    row.append(cell);
  });
  return row;
}

/** @param {string} said @param {"" | "waiting" | "quiet"} kind of what is in the way: an error, what passes, no text */
function notice(said, kind = "") {
  find("notice").textContent = said;
  find("notice").hidden = !said;
  for (const name of ["waiting", "quiet"]) find("notice").classList.toggle(name, name === kind);
}

/** What a form without files would send. @param {HTMLFormElement} of */
const fieldsOf = (of) => /** @type {[string, string][]} */ ([...new FormData(of)]);

/** The address says what is shown, and the ways to other lessons keep text and model. */
function write() {
  clearTimeout(writing);
  const query = new URLSearchParams(fieldsOf(form).filter(([, value]) => value !== ""));
  try {
    history.replaceState(null, "", `${location.pathname}?${query}`);
  } catch {
    // Too long for this browser, or too often: the picture is right all the same.
  }
  for (const link of /** @type {NodeListOf<HTMLAnchorElement>} */ (document.querySelectorAll("[data-keeps]"))) {
    link.search = String(new URLSearchParams({ text: find("text").value, model: find("model").value }));
  }
}

/** Another model has other layers and heads: the server makes the page anew for it, and keeps all that does not count them. */
function turnToModel() {
  const query = new URLSearchParams(fieldsOf(form));
  /** @type {NodeListOf<HTMLElement>} */
  const counting = document.querySelectorAll('[data-kind="number"], [data-kind="heads"]');
  for (const { dataset } of counting) query.delete(dataset.control);
  query.delete("step");
  location.assign(`${location.pathname}?${query}`);
}

/** @param {Event} event */
function changed(event) {
  const target = /** @type {HTMLInputElement} */ (event.target);
  if (target.form !== form) return;
  if (target.name === "model") return turnToModel();
  const output = target.parentElement.querySelector("output");
  if (output && target.type === "range") output.value = target.value;
  ask();
}

/** Run a slider from its least to its most; another press stops it. @param {PlayButton} button */
function play(button) {
  const slider = /** @type {HTMLInputElement} */ (find(button.dataset.plays));
  const stop = () => {
    clearInterval(button.running);
    button.running = 0;
    button.textContent = "Play";
  };
  if (button.running) return stop();
  if (slider.value === slider.max) slider.value = slider.min;
  button.textContent = "Stop";
  button.running = setInterval(() => {
    if (document.body.classList.contains("stale")) return; // nobody has seen this step yet
    if (slider.value === slider.max) return stop();
    slider.stepUp();
    slider.dispatchEvent(new Event("input", { bubbles: true }));
  }, 200);
}

document.addEventListener("click", (event) => {
  const target = /** @type {PlayButton} */ (event.target);
  if (target.dataset.plays) play(target);
});
document.addEventListener("input", changed);
form.addEventListener("submit", (event) => {
  event.preventDefault();
  proving ||= event.submitter === find("prove");
  ask();
});
addEventListener("pagehide", write);
onLook(() => answer && draw());
ask();
