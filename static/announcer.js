// What is said to a screen reader. A page has one live region, which changes only when something is to be said: not with
// every movement of a pointer.

/** Say a text, after what is being said; a text that was said last is not repeated. @param {string} text */
export function announce(text) {
  const region = document.getElementById("announcement");
  if (region.textContent !== text) region.textContent = text;
}
