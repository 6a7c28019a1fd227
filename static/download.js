// Saving what a page shows as a file.

/** A file name made of the letters, digits and dots of a title, joined by hyphens. @param {string} title */
export const fileName = (title) => (title.match(/[\p{L}\p{N}.]+/gu) ?? ["lookback"]).join("-").slice(0, 120);

/** Save a file under this name, as a click on a link does. @param {Blob} blob @param {string} name */
export function saveAs(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000); // not before the browser has read it
}
