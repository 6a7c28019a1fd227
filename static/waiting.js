// While another model stands in for the default one: what that waits for, and the way to it once it is ready.

import { onShow } from "./address.js";

const ASK_MS = 1000;

/** Follow the default model until it is ready. @param {HTMLElement} place says so, and has a link to it */
export function awaitDefault(place) {
  /** @type {HTMLElement} */
  const words = place.querySelector(".waiting");
  const link = place.querySelector("a");
  let touched = false; // whoever has typed or chosen something is asked before the picture changes
  onShow(({ model, text }) => {
    touched = true;
    const address = new URLSearchParams({ model: place.dataset.model, text });
    link.href = `/?${address}`;
    place.hidden = model === place.dataset.model;
  });
  const ask = async () => {
    try {
      const answer = await fetch("/readyz");
      if (answer.ok) return ready();
      words.textContent = (await answer.json()).doing;
    } catch {
      // The server is away; the page says so elsewhere.
    }
    setTimeout(ask, ASK_MS);
  };
  const ready = () => {
    if (!touched) return location.replace(link.href);
    place.classList.add("ready");
  };
  setTimeout(ask, ASK_MS);
}
