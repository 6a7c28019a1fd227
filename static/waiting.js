// While another model is shown in place of the default one: what the default model waits for, and a link to it.

import { onChange } from "./address.js";
import { announce } from "./announcer.js";
import { Refused, send } from "./request.js";

const POLL_MS = 1000;

/** Poll the server until the default model is ready, then switch to it. A user who has typed or chosen something gets
 *  the link instead. @param {HTMLElement} banner */
export function waitForDefault(banner) {
  /** @type {HTMLElement} */
  const status = banner.querySelector(".waiting");
  const link = banner.querySelector("a");
  let hasInteracted = false;
  onChange(({ model, text }) => {
    hasInteracted = true;
    link.href = `/?${new URLSearchParams({ model: banner.dataset.model, text })}`;
    banner.hidden = model === banner.dataset.model;
  });
  const poll = async () => {
    try {
      await send("/readyz");
      return onReady();
    } catch (error) {
      if (error instanceof Refused) status.textContent = error.problem.doing ?? ""; // else the server is away; reader.js says so
    }
    setTimeout(poll, POLL_MS);
  };
  const onReady = () => {
    if (!hasInteracted) return location.replace(link.href);
    banner.classList.add("ready");
    announce(`${banner.dataset.model} is ready.`);
  };
  setTimeout(poll, POLL_MS);
}
