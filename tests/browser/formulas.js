// Two functions that test_formulas.py runs in a page: `gather` puts the formulas of all lessons on it, `ink` measures
// their shapes in a screenshot. A box is [left, top, right, bottom] in CSS pixels of the page.
({
  /**
   * Shows only the formulas of these pages. Returns the fonts that they loaded, and the shapes that must be drawn,
   * each with its own box and the box of its content.
   * @param {string[]} pages
   */
  async gather(pages) {
    const article = document.createElement("article");
    article.className = "lesson";
    for (const address of pages) {
      const reply = await fetch(`${address}?model=lookback-gpt`);
      const page = new DOMParser().parseFromString(await reply.text(), "text/html");
      for (const formula of page.querySelectorAll(".formula")) {
        formula.dataset.slug = address.split("/").at(-1);
        article.append(document.adoptNode(formula));
      }
    }
    document.querySelector("main").replaceChildren(article);
    article.getBoundingClientRect(); // the layout asks for the font
    await document.fonts.ready;

    const boxOf = (elements) => {
      const rects = elements.map((element) => element.getBoundingClientRect());
      const [left, top] = ["left", "top"].map((edge) => Math.min(...rects.map((rect) => rect[edge])));
      const [right, bottom] = ["right", "bottom"].map((edge) => Math.max(...rects.map((rect) => rect[edge])));
      return [left + scrollX, top + scrollY, right + scrollX, bottom + scrollY];
    };
    const shapes = (kind, selector, contentOf) =>
      [...article.querySelectorAll(selector)].map((element) => {
        const { slug } = element.closest(".formula").dataset;
        return { kind, slug, box: boxOf([element]), content: boxOf(contentOf(element)) };
      });
    const isFence = (element) => element.matches("mo[fence=true]");
    const formulas = [...article.querySelectorAll(".formula")];
    return {
      formulas: formulas.map(({ dataset }) => dataset.slug),
      cut: formulas.filter((formula) => formula.scrollHeight > formula.clientHeight).map(({ dataset }) => dataset.slug),
      fonts: [...document.fonts].filter(({ status }) => status === "loaded").map(({ family }) => family.replaceAll('"', "")),
      shapes: [
        ...shapes("radical", "msqrt, mroot", (root) => [...root.children]),
        ...shapes("bracket", "mo[fence=true]", (mo) => [...mo.parentElement.children].filter((child) => !isFence(child))),
        ...shapes("brace", "munder > :not(mo) + mo", (mo) => [mo.previousElementSibling]),
      ],
    };
  },

  /**
   * Where the pixels of each shape begin and end (`ink`), and those of its content (`content`): vertically for radicals
   * and brackets, horizontally for braces; null if there are none. For radicals also the largest fraction of the
   * content's width that one row of pixels covers, above the middle of the content (`bar`).
   * @param {{png: string, shapes: object[], ratio: number}} screenshot `ratio` is screenshot pixels per CSS pixel
   */
  async ink({ png, shapes, ratio }) {
    const bytes = Uint8Array.from(atob(png), (character) => character.charCodeAt(0));
    const image = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
    const { width, height } = image;
    const pen = new OffscreenCanvas(width, height).getContext("2d");
    pen.drawImage(image, 0, 0);
    const { data } = pen.getImageData(0, 0, width, height);
    const paper = data.slice(-4); // the last pixel
    const isInk = (x, y) => [0, 1, 2].some((channel) => Math.abs(data[4 * (y * width + x) + channel] - paper[channel]) > 90);

    const pixels = (begin, end) => {
      const first = Math.floor(begin * ratio);
      return Array.from({ length: Math.ceil(end * ratio) - first }, (_, i) => first + i);
    };
    const count = (values, isCounted) => values.filter(isCounted).length;
    const rows = ([left, top, right, bottom]) => {
      const across = pixels(left, right);
      return pixels(top, bottom).map((y) => [y / ratio, count(across, (x) => isInk(x, y)) / across.length]);
    };
    const columns = ([left, top, right, bottom]) => {
      const down = pixels(top, bottom);
      return pixels(left, right).map((x) => [x / ratio, count(down, (y) => isInk(x, y)) / down.length]);
    };
    const span = (lines) => {
      const positions = lines.filter(([, inked]) => inked > 0).map(([position]) => position);
      return positions.length ? [positions[0], positions.at(-1)] : null;
    };

    return shapes.map(({ kind, box, content }) => {
      const [left, top, right, bottom] = content;
      if (kind === "brace") return { ink: span(columns([left, box[1], right, box[3]])), content: [left, right] };
      if (kind === "bracket") return { ink: span(rows(box)), content: span(rows(content)) };
      const above = rows([left, box[1] - 3, right, (top + bottom) / 2]); // Firefox draws the bar above the box
      const bar = Math.max(...above.map(([, inked]) => inked));
      return { ink: span(rows([box[0], box[1] - 3, left, box[3]])), content: span(rows([left, top + 2, right, bottom])), bar };
    });
  },
})
