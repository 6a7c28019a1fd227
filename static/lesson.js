// A lesson: whatever is typed or changed is asked for at once, and what comes back is drawn. The newest ask wins.

import { Figure } from "./figure.js";
import { chipsOf, figureOf, picked, tableOf, words } from "./parts.js";
import { hold } from "./pull.js";
import { onScheme, template } from "./theme.js";

const find = (id) => document.getElementById(id);
const form = find("lesson");
document.body.classList.add("live");

/** @type {Map<string, {place: HTMLElement, figure: Figure | null}>} */
const parts = new Map(
  [...document.querySelectorAll("[data-part]")].map((place) => {
    const element = place.querySelector(".figure");
    const [name, figure] = [place.dataset.part, element ? new Figure(element) : null];
    figure?.on("plotly_click", ({ points: [hit] }) => picked(answer[name], hit).forEach(([control, value]) => set(control, [value])));
    if (element) hold(element, () => answer?.[name], set);
    return [name, { place, figure }];
  }),
);
let answer = null;
let asking = new AbortController();
let proving = find("checks").childElementCount > 0; // once asked for, checks follow every change
let writing = 0;

/** The request that the controls say. */
function request() {
  const said = { text: find("text").value, model: find("model").value, broken: find("broken").checked };
  if (form.elements.step) said.step = Number(form.elements.step.value);
  for (const { dataset } of document.querySelectorAll("[data-control]")) {
    const { control: name, kind } = dataset;
    const inputs = [...document.querySelectorAll(`[data-control="${name}"] [name]`)];
    if (kind === "sliders") said[name] = inputs.map((input) => input.valueAsNumber);
    else if (kind === "heads") said[name] = inputs.filter(({ checked }) => checked).map(({ value }) => Number(value));
    else if (kind === "switch") said[name] = inputs[0].checked;
    else if (kind === "choice" || kind === "text") said[name] = inputs[0].value;
    else if (inputs[0].value !== "") said[name] = Number(inputs[0].value);
  }
  return said;
}

/** Give a control other values, as if by hand. @param {string} name @param {number[]} values */
function set(name, values) {
  const inputs = document.querySelectorAll(`[data-control="${name}"] [name]`);
  inputs.forEach((input, i) => {
    input.value = values[i];
    const output = input.parentElement.querySelector("output");
    if (output) output.value = input.value;
  });
  if (inputs.length) ask();
}

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
  const again = (inS) => setTimeout(() => asking.signal === signal && ask(), 1000 * inS);
  const reply = await answered(post(form.dataset.call, signal));
  if (!reply) {
    if (signal.aborted) return;
    notice("The server does not answer. What you typed is kept; the page asks again by itself.");
    again(2);
    return;
  }
  const { isGood, said, retryAfterS } = reply;
  notice(isGood ? "" : said.detail);
  if (!isGood && retryAfterS) again(retryAfterS);
  if (!isGood) return;
  answer = said;
  draw();
  document.body.classList.remove("stale");
  if (proving) await prove(signal);
}

/** What a call brings; null where the server is away, or a newer ask came in between. */
async function answered(call) {
  try {
    return await call;
  } catch (error) {
    if (error.name === "AbortError" || error instanceof TypeError) return null; // TypeError: what fetch throws
    throw error;
  }
}

async function prove(signal) {
  const reply = await answered(post(`${form.dataset.call}/checks`, signal));
  if (!reply && !signal.aborted) return notice("The server does not answer: press the button again.");
  if (!reply) return;
  const { isGood, said } = reply;
  if (!isGood) return notice(said.detail);
  find("checks").replaceChildren(
    ...said.checks.map(({ name, measured, most, passed, least }) => {
      const line = document.createElement("li");
      const [verdict, value] = [document.createElement("b"), document.createElement("code")];
      line.dataset.passed = passed;
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
  const colour = (name) => style.getPropertyValue(name).trim();
  const palette = { colours: ["--violet", "--accent", "--third", "--faint"].map(colour), diverging: layout.colorscale.diverging, ink: colour("--hatch"), paper: colour("--paper") };
  for (const [name, { place, figure }] of parts) {
    const part = answer[name];
    place.querySelector("figcaption").textContent = part.title;
    const drawn = figureOf(part, palette);
    if (drawn) figure.draw(drawn);
    figure?.element.classList.toggle("picks", Boolean(part.picks || part.points?.some(({ picks }) => Object.keys(picks).length)));
    place.querySelector(".chips")?.replaceChildren(...chipsOf(part));
    place.querySelector("table")?.replaceChildren(...tableOf(part).map(rowOf).filter(Boolean));
  }
  for (const select of document.querySelectorAll('[data-kind="token"] select')) {
    const chosen = select.value;
    const options = answer.tokens.map(({ position, text }) => new Option(`${position} ${text}`, position));
    select.replaceChildren(select.options[0], ...options);
    select.value = Number(chosen) < answer.tokens.length ? chosen : "";
  }
  find("curl").textContent = `curl ${location.origin}${form.dataset.call} --json '${JSON.stringify(request()).replaceAll("'", "'\\''")}'`;
}

function rowOf(cells, i) {
  if (!cells) return null;
  const row = document.createElement("tr");
  cells.forEach((text, j) => {
    const cell = document.createElement(i && j ? "td" : i || j || text ? "th" : "td");
    if (cell.localName === "th") cell.scope = i ? "row" : "col";
    cell.textContent = text;
    row.append(cell);
  });
  return row;
}

function notice(said) {
  find("notice").textContent = said;
  find("notice").hidden = !said;
}

/** The address says what is shown, and the ways to other lessons keep text and model. */
function write() {
  clearTimeout(writing);
  const query = new URLSearchParams([...new FormData(form)].filter(([, value]) => value !== ""));
  try {
    history.replaceState(null, "", `${location.pathname}?${query}`);
  } catch {
    // Too long for this browser, or too often: the picture is right all the same.
  }
  for (const link of document.querySelectorAll("[data-keeps]")) {
    link.search = new URLSearchParams({ text: find("text").value, model: find("model").value });
  }
}

/** Another model has other layers and heads: the server makes the page anew for it, and keeps all that does not count them. */
function turnToModel() {
  const query = new FormData(form);
  for (const { dataset } of document.querySelectorAll('[data-kind="number"], [data-kind="heads"]')) query.delete(dataset.control);
  query.delete("step");
  location.assign(`${location.pathname}?${new URLSearchParams(query)}`);
}

function changed({ target }) {
  if (target.form !== form) return;
  if (target.name === "model") return turnToModel();
  const output = target.parentElement.querySelector("output");
  if (output && target.type === "range") output.value = target.value;
  ask();
}

/** Run a slider from its least to its most; another press stops it. */
function play(button) {
  const slider = find(button.dataset.plays);
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

document.addEventListener("click", ({ target }) => target.dataset.plays && play(target));
document.addEventListener("input", changed);
form.addEventListener("submit", (event) => {
  event.preventDefault();
  proving ||= event.submitter === find("prove");
  ask();
});
addEventListener("pagehide", write);
onScheme(() => answer && draw());
ask();
