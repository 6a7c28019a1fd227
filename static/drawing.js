// What the home page and the training page have in common: they draw the tokens, the chosen head and the grid of all heads.

import { chooseQuery, currentState, onChange } from "./address.js";
import { chooseByToken, drawAttentionSink, drawDropped, drawGridProgress, drawTokens } from "./details.js";
import { modelShape, showDrawn, showFacts } from "./form.js";
import { Grid } from "./grid.js";
import { HeadPanel } from "./head.js";
import { meanToFirstToken } from "./client_state.js";
import { onView } from "./reader.js";
import { onThemeChange } from "./theme.js";

/** @type {import("./types.js").Find} */
const find = (id) => document.getElementById(id);

/** @type {import("./reader.js").View | null} */
export let view = null; // the one that is drawn

/**
 * Draw every view that arrives. Call it after `initForm` and before `startReader`.
 * @param {(clientState: import("./client_state.js").ClientState, text: string) => void} drawExtra draws what only this page shows
 * @param {() => void} redrawExtra draws it again in other colours
 */
export function drawViews(drawExtra, redrawExtra) {
  const grid = new Grid(find("grid"), find("grid-caption"));
  const head = new HeadPanel();

  onView((newView) => {
    const [before, { clientState }] = [view?.clientState, newView];
    view = newView;
    if (clientState.head === before?.head) grid.addLayers(clientState); // more thumbnails of the text that is already drawn
    else {
      drawTokens(find("tokens"), clientState.tokens, clientState.header.query, view.text);
      drawDropped(find("dropped"), clientState.header);
      head.draw(clientState);
      drawExtra(clientState, view.text);
      grid.draw(clientState, modelShape());
      showDrawn(view);
    }
    drawAttentionSink(find("sink"), clientState.header.n_tokens, meanToFirstToken(clientState));
    drawGridProgress(find("grid-progress"), clientState, modelShape()[0]);
    showFacts(view);
  });

  chooseByToken(find("tokens"));
  addFollowButton(find("follow-end"));

  onThemeChange(() => {
    head.redraw();
    redrawExtra();
    grid.redraw();
  });
}

/** While a token is chosen, a button makes the page follow the last token again. @param {HTMLElement} button */
function addFollowButton(button) {
  const draw = () => {
    button.hidden = currentState().query === null;
  };
  button.addEventListener("click", () => {
    /** @type {HTMLElement | null} */
    const last = find("tokens").querySelector("li:last-child .token");
    last?.focus(); // the button is about to be hidden, and would lose the focus
    chooseQuery(null);
  });
  onChange(draw);
  draw();
}
