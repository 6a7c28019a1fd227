// What every page with a text shows of it: tokens, the chosen head and the grid of all heads, drawn for every view.

import { choose, now, onShow } from "./address.js";
import { layersAndHeads, sayDrawn, sayFacts } from "./form.js";
import { Grid } from "./grid.js";
import { Head } from "./head.js";
import { chooseTokens, drawDropped, drawSink, drawTokens, drawUnfinished } from "./panels.js";
import { meanToFirstToken } from "./picture.js";
import { onView } from "./reader.js";
import { onLook } from "./theme.js";

/** @type {import("./types.js").Find} */
const find = (id) => document.getElementById(id);

/** @type {import("./reader.js").View | null} */
export let view = null; // what is drawn

/**
 * Draw every view that comes back. After the form is filled in, and before it is followed.
 * @param {(picture: import("./picture.js").Picture, text: string) => void} drawMore what the page alone shows of a new picture
 * @param {() => void} redrawMore the same in other colours
 */
export function drawViews(drawMore, redrawMore) {
  const grid = new Grid(find("grid"), find("grid-name"));
  const head = new Head();

  onView((seen) => {
    const [before, { picture }] = [view?.picture, seen];
    view = seen;
    if (picture.head === before?.head) grid.add(picture); // more thumbnails of what is shown already
    else {
      drawTokens(find("tokens"), picture.tokens, picture.header.query, seen.text);
      drawDropped(find("dropped"), picture.header);
      head.draw(picture);
      drawMore(picture, seen.text);
      grid.draw(picture, layersAndHeads());
      sayDrawn(view);
    }
    drawSink(find("sink"), picture.header.n_tokens, meanToFirstToken(picture));
    drawUnfinished(find("grid-state"), picture, layersAndHeads()[0]);
    sayFacts(seen);
  });

  chooseTokens(find("tokens"));
  followEnd(find("follow-end"));

  onLook(() => {
    head.redraw();
    redrawMore();
    grid.redraw();
  });
}

/** While a token is chosen, a button lets the last one be followed again. @param {HTMLElement} button */
function followEnd(button) {
  const draw = () => (button.hidden = now().query === null);
  button.addEventListener("click", () => {
    /** @type {HTMLElement | null} */
    const last = find("tokens").querySelector("li:last-child .token");
    last?.focus(); // this button will go
    choose(null);
  });
  onShow(draw);
  draw();
}
