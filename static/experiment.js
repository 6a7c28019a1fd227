// The page of an experiment, a lesson or a tool: every change is sent to the server at once, and its panels are drawn as
// they arrive. The newest request wins.

import { announce } from "./announcer.js";
import { chipsOf, makePanelView } from "./experiment_panels.js";
import { Newest, Refused, Unreachable, linesOf, send } from "./request.js";
import { Store } from "./store.js";
import { onThemeChange } from "./theme.js";

/** @type {import("./types.js").Find} */
const find = (id) => document.getElementById(id);
/** @typedef {import("./types.js").ExperimentLine} ExperimentLine */
/** @typedef {import("./types.js").Panel} Panel */
/** @typedef {HTMLElement & {timer?: number}} PlayButton with its timer while a slider runs */
/** The state of the page is what its form would send. @typedef {{query: string}} State */
/** @typedef {{element: HTMLElement, view: ReturnType<typeof makePanelView> | null, details: HTMLDetailsElement | null, panel: Panel | null}} Place of a panel */

const form = find("experiment");
const { slug } = form.dataset;
const SLOW_MS = 700; // without a panel for this long, show that something is happening
document.body.classList.add("has-script");

/** @type {Store<State>} */
const store = new Store(({ query }) => `${location.pathname}?${query}`, (search) => ({ query: search.slice(1) }));
const panelsRequest = new Newest(notify);
const checksRequest = new Newest(notifyOfChecks);
let model = ""; // that computed the panels
let isChecking = find("checks")?.childElementCount > 0; // once requested, the checks run after every change
let slowTimer = 0;

/** @type {Map<string, Place>} */
const places = new Map(
  [.../** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("[data-panel]"))].map((element) => {
    /** @type {HTMLElement | null} */
    const figureElement = element.querySelector(".figure");
    const onSelect = (/** @type {string} */ control, /** @type {number} */ value) => setControl(control, [value], true);
    const view = figureElement ? makePanelView(figureElement, { onSelect, onDrag: setControl }) : null;
    const details = element.querySelector("details");
    const name = element.dataset.panel;
    details?.addEventListener("toggle", () => details.open && !details.querySelector("table") && places.get(name).panel && showTable(name));
    return [name, { element, view, details, panel: /** @type {Panel | null} */ (null) }];
  }),
);

/** The request that the controls describe. */
function requestBody() {
  /** @type {Record<string, unknown>} */
  const body = { text: find("text").value, model: find("model").value };
  if (find("broken")) body.broken = find("broken").checked;
  const [step, edits] = ["step", "edits"].map((name) => /** @type {HTMLInputElement | null} */ (form.elements.namedItem(name)));
  if (step) body.step = Number(step.value);
  if (edits) body.edits = edits.value;
  for (const { dataset } of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("[data-control]"))) {
    const { control: name, kind } = dataset;
    const inputs = inputsOf(name);
    if (kind === "sliders") body[name] = inputs.map((input) => input.valueAsNumber);
    else if (kind === "heads") body[name] = inputs.filter(({ checked }) => checked).map(({ value }) => Number(value));
    else if (kind === "switch") body[name] = inputs[0].checked;
    else if (kind === "choice" || kind === "text") body[name] = inputs[0].value;
    else if (inputs[0].value !== "") body[name] = Number(inputs[0].value);
  }
  return JSON.stringify(body);
}

/** The form fields of a control. @param {string} name @returns {HTMLInputElement[]} for a choice, a select element */
const inputsOf = (name) => [...document.querySelectorAll(`[data-control="${name}"] [name]`)].map((input) => /** @type {HTMLInputElement} */ (input));

/** What the form would send, as a query. */
function formQuery() {
  const fields = /** @type {[string, string][]} */ ([...new FormData(form)]);
  return String(new URLSearchParams(fields.filter(([, value]) => value !== "")));
}

/** Fill the form from a query: another state of this page. @param {string} query */
function fillForm(query) {
  const parameters = new URLSearchParams(query);
  for (const field of /** @type {Iterable<HTMLInputElement>} */ (form.elements)) {
    if (!field.name || field.type === "submit") continue;
    const values = parameters.getAll(field.name);
    if (field.type === "checkbox") field.checked = values.includes(field.value);
    else if (values.length === 1) setValue(field, values[0]);
    else if (field.tagName === "SELECT" && !values.length) field.value = "";
  }
  for (const name of new Set([...parameters.keys()].filter((key) => parameters.getAll(key).length > 1)))
    inputsOf(name).forEach((input, i) => input.type === "range" && setValue(input, parameters.getAll(name)[i]));
}

/** @param {HTMLInputElement} input @param {string} value */
function setValue(input, value) {
  input.value = value;
  const output = input.parentElement.querySelector("output");
  if (output && input.type === "range") output.value = input.value;
}

/** Set the values of a control, as if by hand. @param {string} name @param {number[]} values @param {boolean} [isStep] Back undoes it */
function setControl(name, values, isStep = false) {
  const inputs = inputsOf(name);
  inputs.forEach((input, i) => setValue(input, String(values[i])));
  if (inputs.length) changed(isStep);
}

/** The form has changed. @param {boolean} isStep whether Back undoes this change by itself; typing and sliding are too many */
function changed(isStep) {
  if (isStep) store.navigate({ query: formQuery() });
  else store.update({ query: formQuery() });
}

/** Request the panels of what the controls say. */
function request() {
  document.body.classList.add("stale");
  for (const { element } of places.values()) element.classList.add("waiting");
  for (const link of /** @type {NodeListOf<HTMLAnchorElement>} */ (document.querySelectorAll("[data-keeps-text]")))
    link.search = String(new URLSearchParams({ text: find("text").value, model: find("model").value }));
  if (!find("text").value) {
    panelsRequest.cancel();
    return showNotice(find("text").dataset.whenEmpty, "quiet");
  }
  if (!find("notice").classList.contains("waiting")) showNotice("", ""); // it belonged to the previous request
  clearTimeout(slowTimer);
  slowTimer = setTimeout(() => showProgress({}), SLOW_MS);
  panelsRequest.run(async (signal) => {
    const open = [...places].filter(([, { details }]) => details?.open).map(([name]) => ["open", name]);
    const address = `/fragments/${slug}/panels?${new URLSearchParams(open)}`;
    for await (const line of linesOf(await send(address, { body: requestBody(), signal }))) take(line);
    // A table may have been opened after the request.
    await Promise.all([...places].filter(([, { details }]) => details?.open && !details.querySelector("table")).map(([name]) => showTable(name)));
    finish();
  });
}

/** Take one line of a reply. @param {ExperimentLine} line */
function take({ model: name, tokens, name: panelName, panel, table = "", progress, problem, retry_after_s }) {
  if (problem) throw new Refused(problem, retry_after_s);
  if (name) model = name;
  if (tokens) fillTokens(tokens);
  if (progress) showProgress(progress);
  if (panel) {
    const place = places.get(panelName);
    place.panel = panel;
    draw(panelName);
    if (place.details) place.details.querySelector(".scroll").innerHTML = table; // the server's own markup, with escaped text
    place.element.classList.remove("waiting");
  }
}

/** All panels are here. */
function finish() {
  endProgress();
  document.body.classList.remove("stale");
  if (isChecking) runChecks();
  if (/** @type {HTMLDetailsElement} */ (find("curl-details")).open) showCurl();
}

/** Request the checks, and list them. */
function runChecks() {
  checksRequest.run(async (signal) => {
    find("checks").innerHTML = await fragment("checks", signal);
    const [lines, failing] = ["li", "[data-passed=false]"].map((items) => find("checks").querySelectorAll(items).length);
    announce(`Checks that fail: ${failing} of ${lines}.`);
  });
}

/** A part of the page as the server makes it: escaped text in our own markup. @param {string} name @param {AbortSignal} [signal] */
async function fragment(name, signal) {
  return (await send(`/fragments/${slug}/${name}`, { body: requestBody(), signal })).text();
}

/** Fill the open table of a panel. @param {string} name */
async function showTable(name) {
  const { details, panel } = places.get(name);
  const markup = await fragmentOrNothing(`table?panel=${name}`);
  if (places.get(name).panel === panel) details.querySelector(".scroll").innerHTML = markup;
}

async function showCurl() {
  find("curl").innerHTML = await fragmentOrNothing("curl");
}

/** A fragment that is only asked for beside the panels, whose request says what is wrong. @param {string} name */
async function fragmentOrNothing(name) {
  try {
    return await fragment(name);
  } catch (error) {
    if (error instanceof Refused || error instanceof Unreachable) return "";
    throw error;
  }
}

/** Draw a panel. @param {string} name */
function draw(name) {
  const { element, view, panel } = places.get(name);
  const style = getComputedStyle(document.documentElement);
  const colour = (/** @type {string} */ variable) => style.getPropertyValue(variable).trim();
  const palette = { colours: ["--violet", "--accent", "--third", "--faint"].map(colour), ink: colour("--hatch") };
  element.querySelector("figcaption").textContent = panel.title;
  view?.draw(panel, palette, `${slug} ${model} ${panel.title}`);
  if (panel.kind === "chips") element.querySelector(".chips").replaceChildren(...chipsOf(panel));
}

/** The tokens of the text, in every control that chooses one. @param {import("./types.js").Token[]} tokens */
function fillTokens(tokens) {
  for (const select of /** @type {NodeListOf<HTMLSelectElement>} */ (document.querySelectorAll('[data-kind="token"] select'))) {
    const chosen = select.value;
    const options = tokens.map(({ position, text }) => new Option(`${position} ${text}`, String(position)));
    select.replaceChildren(select.options[0], ...options);
    select.value = Number(chosen) < tokens.length ? chosen : "";
  }
}

/** Why there is no result. @param {string} message @param {boolean} isTemporary */
function notify(message, isTemporary) {
  endProgress();
  showNotice(message, isTemporary ? "waiting" : "");
}

/** @param {string} message */
function notifyOfChecks(message) {
  if (message) showNotice(message, "");
}

/** @param {string} message @param {"" | "waiting" | "quiet"} kind */
function showNotice(message, kind) {
  find("notice").textContent = message;
  announce(message);
  find("notice").hidden = !message;
  for (const name of ["waiting", "quiet"]) find("notice").classList.toggle(name, name === kind);
}

/** How far a slow experiment is. @param {NonNullable<ExperimentLine["progress"]>} progress */
function showProgress({ n_read, n_tokens, done = n_read, total = n_tokens }) {
  if (done !== undefined) clearTimeout(slowTimer);
  find("reading").hidden = false;
  const bar = find("progress");
  if (total) [bar.max, bar.value] = [total, done];
  else bar.removeAttribute("value");
}

function endProgress() {
  clearTimeout(slowTimer);
  find("reading").hidden = true;
}

/** Load the page again for another model, which has other layers and heads; keep all controls that do not count them. */
function switchModel() {
  const query = new URLSearchParams(formQuery());
  /** @type {NodeListOf<HTMLElement>} */
  const counters = document.querySelectorAll('[data-kind="layer"], [data-kind="head"], [data-kind="heads"]');
  for (const { dataset } of counters) query.delete(dataset.control);
  query.delete("step");
  location.assign(`${location.pathname}?${query}`);
}

/** @param {Event} event */
function onInput(event) {
  const target = /** @type {HTMLInputElement} */ (event.target);
  if (target.form !== form) return;
  if (target.name === "model") return switchModel();
  if (target.type === "range") setValue(target, target.value);
  changed(target.type === "checkbox" || target.tagName === "SELECT");
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

/** Set the controls that a link names, instead of loading its page. @param {HTMLAnchorElement} link */
function tryControls(link) {
  const query = new URLSearchParams(formQuery());
  for (const [name, value] of Object.entries(JSON.parse(link.dataset.controls))) {
    query.delete(name);
    for (const item of [value].flat()) if (item !== false) query.append(name, String(item));
  }
  fillForm(String(query));
  changed(true);
}

document.addEventListener("click", (event) => {
  const target = /** @type {PlayButton} */ (event.target);
  if (target.dataset.plays) play(target);
  const link = /** @type {HTMLAnchorElement | null} */ (target.closest("a[data-controls]"));
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  tryControls(link);
});
document.addEventListener("input", onInput);
form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (event.submitter !== find("prove")) return request();
  isChecking = true;
  runChecks();
});
find("curl-details").addEventListener("toggle", () => void showCurl());
find("cancel").addEventListener("click", () => {
  panelsRequest.cancel();
  endProgress();
  showNotice("Cancelled. Change something, or press Enter in the text, to compute it again.", "");
});
onThemeChange(() => {
  for (const [name, { panel }] of places) if (panel) draw(name);
});
store.init({ query: formQuery() });
store.onChange(({ query }) => {
  if (query !== formQuery()) fillForm(query);
  request();
});
request();
