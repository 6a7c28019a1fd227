// What every page with a text shows of it: tokens, the chosen head and the grid of all heads, drawn for every view.

import { layersAndHeads, sayDrawn, sayFacts } from "./form.js";
import { Grid } from "./grid.js";
import { Head } from "./head.js";
import { chooseTokens, drawDropped, drawSink, drawTokens, drawUnfinished } from "./panels.js";
import { firstShare } from "./picture.js";
import { onView } from "./reader.js";
import { onScheme } from "./theme.js";

/** @type {import("./types.js").Find} */
const find = (id) => document.getElementById(id);

/** @type {import("./reader.js").View | null} */
export let view = null; // what is drawn

/**
 * Draw every view that comes back. After the form is filled in, and before it is followed.
 * @param {(picture: import("./picture.js").Picture) => void} drawMore what the page alone shows of a new picture
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
      drawTokens(find("tokens"), picture.tokens, picture.header.query);
      drawDropped(find("dropped"), picture.header);
      head.draw(picture);
      drawMore(picture);
      grid.draw(picture, layersAndHeads());
      sayDrawn(view);
    }
    drawSink(find("sink"), picture.header.n, firstShare(picture));
    drawUnfinished(find("grid-state"), picture, layersAndHeads()[0]);
    sayFacts(seen);
  });

  chooseTokens(find("tokens"));

  onScheme(() => {
    head.redraw();
    redrawMore();
    grid.redraw();
  });
}
