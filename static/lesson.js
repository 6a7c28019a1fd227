// A lesson page: every change is sent to the server at once, and its result is drawn. The newest request wins.

import { chipsOf, makePanelView } from "./lesson_panels.js";
import { onThemeChange } from "./theme.js";

/** @type {import("./types.js").Find} */
const find = (id) => document.getElementById(id);
/** @typedef {import("./types.js").Check} Check */
/** @typedef {import("./types.js").LessonResult} LessonResult */
/** @typedef {import("./types.js").Problem} Problem */
/** @typedef {{isGood: true, body: LessonResult & {checks: Check[]}, retryAfterS: number}} Good */
/** @typedef {{isGood: false, body: Problem, retryAfterS: number}} Bad */
/** @typedef {HTMLElement & {timer?: number}} PlayButton with its timer while a slider runs */

const form = find("lesson");
const slug = form.dataset.call.split("/").at(-1);
document.body.classList.add("has-script");

/** @type {Map<string, {element: HTMLElement, view: ReturnType<typeof makePanelView> | null, details: HTMLDetailsElement | null}>} */
const panels = new Map(
  [.../** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("[data-panel]"))].map((element) => {
    /** @type {HTMLElement | null} */
    const figureElement = element.querySelector(".figure");
    const name = element.dataset.panel;
    const onSelect = (/** @type {string} */ control, /** @type {number} */ value) => setControl(control, [value]);
    const view = figureElement ? makePanelView(figureElement, { onSelect, onDrag: setControl }) : null;
    const details = element.querySelector("details");
    details?.addEventListener("toggle", () => drawTable(name));
    return [name, { element, view, details }];
  }),
);
/** @type {LessonResult | null} */
let result = null;
let requesting = new AbortController();
let isChecking = find("checks").childElementCount > 0; // once requested, the checks run after every change
let addressTimer = 0;

/** The request that the controls describe. */
function requestBody() {
  /** @type {Record<string, unknown>} */
  const body = { text: find("text").value, model: find("model").value, broken: find("broken").checked };
  const step = /** @type {HTMLInputElement | null} */ (form.elements.namedItem("step"));
  if (step) body.step = Number(step.value);
  for (const { dataset } of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("[data-control]"))) {
    const { control: name, kind } = dataset;
    const inputs = inputsOf(name);
    if (kind === "sliders") body[name] = inputs.map((input) => input.valueAsNumber);
    else if (kind === "heads") body[name] = inputs.filter(({ checked }) => checked).map(({ value }) => Number(value));
    else if (kind === "switch") body[name] = inputs[0].checked;
    else if (kind === "choice" || kind === "text") body[name] = inputs[0].value;
    else if (inputs[0].value !== "") body[name] = Number(inputs[0].value);
  }
  return body;
}

/** The form fields of a control. @param {string} name @returns {HTMLInputElement[]} for a choice, a select element */
const inputsOf = (name) => [...document.querySelectorAll(`[data-control="${name}"] [name]`)].map((input) => /** @type {HTMLInputElement} */ (input));

/** Set the values of a control, as if by hand. @param {string} name @param {number[]} values */
function setControl(name, values) {
  const inputs = inputsOf(name);
  inputs.forEach((input, i) => {
    input.value = String(values[i]);
    const output = input.parentElement.querySelector("output");
    if (output) output.value = input.value;
  });
  if (inputs.length) update();
}

/** Send the request to an address of the API. @param {string} address @param {AbortSignal} signal @returns {Promise<Good | Bad>} */
async function post(address, signal) {
  const headers = { "Content-Type": "application/json" };
  const reply = await fetch(address, { method: "POST", headers, body: JSON.stringify(requestBody()), signal });
  return { isGood: reply.ok, body: await reply.json(), retryAfterS: Number(reply.headers.get("Retry-After")) };
}

/** Request the result of what the controls say, and draw it. */
async function update() {
  requesting.abort();
  requesting = new AbortController();
  const { signal } = requesting;
  clearTimeout(addressTimer);
  addressTimer = setTimeout(updateAddress, 250);
  document.body.classList.add("stale");
  if (!find("text").value) return notice(find("text").dataset.whenEmpty, "quiet");
  if (!find("notice").classList.contains("waiting")) notice(""); // it belonged to the previous request
  const retry = (/** @type {number} */ inS) => setTimeout(() => requesting.signal === signal && update(), 1000 * inS);
  const reply = await nullIfUnanswered(post(form.dataset.call, signal));
  if (!reply) {
    if (signal.aborted) return;
    notice("The server does not answer. What you typed is kept; the page tries again by itself.", "waiting");
    retry(2);
    return;
  }
  notice(reply.isGood === true ? "" : reply.body.detail, reply.retryAfterS ? "waiting" : "");
  if (!reply.isGood && reply.retryAfterS) retry(reply.retryAfterS);
  if (!reply.isGood) return;
  result = reply.body;
  draw();
  document.body.classList.remove("stale");
  if (isChecking) await runChecks(signal);
}

/** A reply; null if the server cannot be reached or a newer request aborted this one.
 *  @param {Promise<Good | Bad>} reply */
async function nullIfUnanswered(reply) {
  try {
    return await reply;
  } catch (error) {
    if (/** @type {Error} */ (error).name === "AbortError" || error instanceof TypeError) return null; // fetch throws a TypeError if the network fails
    throw error;
  }
}

/** Request the checks, and list their results. @param {AbortSignal} signal */
async function runChecks(signal) {
  const reply = await nullIfUnanswered(post(`${form.dataset.call}/checks`, signal));
  if (!reply && !signal.aborted) return notice("The server does not answer: press the button again.");
  if (!reply) return;
  if (reply.isGood === false) return notice(reply.body.detail);
  find("checks").replaceChildren(...reply.body.checks.map(checkLine));
}

/** A check as an item of the list. @param {Check} check */
function checkLine({ name, measured, minimum, maximum, passed, reason }) {
  const line = document.createElement("li");
  const [verdict, value] = [document.createElement("b"), document.createElement("code")];
  line.dataset.passed = String(passed);
  if (passed === null) {
    verdict.textContent = "does not apply";
    line.append(verdict, ` ${name}: ${reason}`);
    return line;
  }
  verdict.textContent = passed ? "✓ holds" : "✗ fails";
  value.textContent = measured === null ? "not finite" : formatValue(measured);
  const bound = maximum === null ? `at least ${formatValue(minimum)}` : `at most ${formatValue(maximum)}`;
  line.append(verdict, ` ${name} (measured `, value, `, ${bound})`);
  return line;
}

/** Draw the result. */
function draw() {
  const style = getComputedStyle(document.documentElement);
  const colour = (/** @type {string} */ name) => style.getPropertyValue(name).trim();
  const palette = { colours: ["--violet", "--accent", "--third", "--faint"].map(colour), ink: colour("--hatch") };
  for (const [name, { element, view }] of panels) {
    const panel = result[name];
    element.querySelector("figcaption").textContent = panel.title;
    view?.draw(panel, palette, `${slug} ${result.model} ${panel.title}`);
    if (panel.kind === "chips") element.querySelector(".chips")?.replaceChildren(...chipsOf(panel));
    else drawTable(name);
  }
  for (const select of /** @type {NodeListOf<HTMLSelectElement>} */ (document.querySelectorAll('[data-kind="token"] select'))) {
    const chosen = select.value;
    const options = result.tokens.map(({ position, text }) => new Option(`${position} ${text}`, String(position)));
    select.replaceChildren(select.options[0], ...options);
    select.value = Number(chosen) < result.tokens.length ? chosen : "";
  }
  find("curl").textContent = `curl ${location.origin}${form.dataset.call} --json '${JSON.stringify(requestBody()).replaceAll("'", "'\\''")}'`;
}

/** Fill the table of a panel if it is open: with 200 tokens it has 40,000 cells. @param {string} name */
function drawTable(name) {
  const { element, details } = panels.get(name);
  const panel = result?.[name];
  if (!details || !panel || panel.kind === "chips") return; // before the first result, the table is the server's
  const table = element.querySelector("table");
  table.replaceChildren();
  if (!details.open) return;
  const [headings, ...lines] = tableOf(panel);
  if (headings) table.createTHead().append(rowOf(headings, 0));
  table.createTBody().append(...lines.map((cells, i) => rowOf(cells, i + 1)));
}

/** A panel's numbers as rows of texts: first the column headings, or null; then each row's heading and numbers.
 *  @param {Exclude<import("./types.js").Panel, import("./types.js").PanelKinds["chips"]>} panel @returns {(string[] | null)[]} */
function tableOf(panel) {
  if (panel.kind === "heatmap") return [["", ...panel.columns], ...panel.values.map((row, i) => [panel.rows[i], ...row.map(formatValue)])];
  if (panel.kind === "cube") {
    const lines = panel.values.flatMap((sheet, k) => sheet.map((row, i) => [`${panel.sheets[k]}: ${panel.rows[k][i]}`, ...row.map(formatValue)]));
    return [["", ...panel.columns], ...lines];
  }
  if (panel.kind === "curves") {
    const names = [panel.x_axis, ...panel.lines.map(({ name }) => name)];
    return [names, ...panel.lines[0].x.map((x, i) => [formatValue(x), ...panel.lines.map(({ y }) => formatValue(y[i]))])];
  }
  if (panel.kind === "points")
    return [["", panel.x_axis, panel.y_axis], ...panel.points.map(({ name, group, x, y }) => [`${group} ${name}`, formatValue(x), formatValue(y)])];
  const names = panel.kind === "bars" ? panel.labels : panel.names;
  return [null, ...panel.values.map((value, i) => [names[i], formatValue(value)])];
}

/** A value as text: whole numbers in full, others with four digits, words as they are. templating's format_value does the same.
 *  @param {number | string | null} value */
function formatValue(value) {
  if (value === null) return "none";
  if (typeof value === "string") return value;
  return Number.isInteger(value) ? value.toLocaleString("en") : String(Number(value.toPrecision(4)));
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

/** Show a message, or hide it if empty. @param {string} message
 *  @param {"" | "waiting" | "quiet"} kind an error, a temporary problem, or a missing text */
function notice(message, kind = "") {
  find("notice").textContent = message;
  find("notice").hidden = !message;
  for (const name of ["waiting", "quiet"]) find("notice").classList.toggle(name, name === kind);
}

/** The fields that a form without files would send. @param {HTMLFormElement} sender */
const fieldsOf = (sender) => /** @type {[string, string][]} */ ([...new FormData(sender)]);

/** Write the controls into the address, and text and model into the links to other lessons. */
function updateAddress() {
  clearTimeout(addressTimer);
  const query = new URLSearchParams(fieldsOf(form).filter(([, value]) => value !== ""));
  try {
    history.replaceState(null, "", `${location.pathname}?${query}`);
  } catch {
    // The address is too long for this browser, or changes too often: the picture is still right.
  }
  for (const link of /** @type {NodeListOf<HTMLAnchorElement>} */ (document.querySelectorAll("[data-keeps-text]"))) {
    link.search = String(new URLSearchParams({ text: find("text").value, model: find("model").value }));
  }
}

/** Load the page again for another model, which has other layers and heads; keep all controls that do not count them. */
function switchModel() {
  const query = new URLSearchParams(fieldsOf(form));
  /** @type {NodeListOf<HTMLElement>} */
  const counters = document.querySelectorAll('[data-kind="number"], [data-kind="heads"]');
  for (const { dataset } of counters) query.delete(dataset.control);
  query.delete("step");
  location.assign(`${location.pathname}?${query}`);
}

/** @param {Event} event */
function onInput(event) {
  const target = /** @type {HTMLInputElement} */ (event.target);
  if (target.form !== form) return;
  if (target.name === "model") return switchModel();
  const output = target.parentElement.querySelector("output");
  if (output && target.type === "range") output.value = target.value;
  update();
}

/** Run a slider to its maximum; a second press stops it. @param {PlayButton} button */
function play(button) {
  const slider = /** @type {HTMLInputElement} */ (find(button.dataset.plays));
  const stop = () => {
    clearInterval(button.timer);
    button.timer = 0;
    button.textContent = "Play";
  };
  if (button.timer) return stop();
  if (slider.value === slider.max) slider.value = slider.min;
  button.textContent = "Stop";
  button.timer = setInterval(() => {
    if (document.body.classList.contains("stale")) return; // the last step is not drawn yet
    if (slider.value === slider.max) return stop();
    slider.stepUp();
    slider.dispatchEvent(new Event("input", { bubbles: true }));
  }, 200);
}

document.addEventListener("click", (event) => {
  const target = /** @type {PlayButton} */ (event.target);
  if (target.dataset.plays) play(target);
});
document.addEventListener("input", onInput);
form.addEventListener("submit", (event) => {
  event.preventDefault();
  isChecking ||= event.submitter === find("prove");
  update();
});
addEventListener("pagehide", updateAddress);
onThemeChange(() => result && draw());
update();
