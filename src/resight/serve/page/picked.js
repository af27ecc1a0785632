// Images picked on the map: listed, and moved or removed together.

import { ask, query } from "./api.js";
import { button, count, h } from "./dom.js";
import { mayWrite, move, remove } from "./editing.js";
import { trouble } from "./notices.js";
import { endless, imageItem } from "./tiles.js";

const PAGE = 60; // a filter names their ids, and has 2,000 letters
const MOST = 500; // that are moved or removed in one go

/** The images `ids` as a list in `place`; `only` shows them alone on the map. */
export function pickedList(place, ids, gallery, { again, only }) {
  place.hidden = false;
  const grid = h("ul", { class: "grid images" });
  const close = () => { stop(); place.hidden = true; };
  const few = ids.length && ids.length <= MOST;
  const all = async (task) => {
    try {
      const pages = [];
      for (let at = 0; at < ids.length; at += PAGE) pages.push(await images(ids.slice(at, at + PAGE)));
      task(pages.flat());
    } catch (problem) {
      trouble(problem);
    }
  };
  const elements = () => [...grid.children];
  place.replaceChildren(h("header", { class: "browse-head" },
    h("h2", { tabIndex: -1 }, ids.length ? count(ids.length, "image") : "No image there"),
    h("div", { class: "row" },
      ids.length > 0 && button("Only these on the map", "filter", only, { class: "quiet" }),
      few && mayWrite(gallery) && button("Move all", "move", () => all((found) => move(found, again)), { class: "quiet" }),
      few && mayWrite(gallery) && button("Remove all", "bin", () => all((found) => remove(found, elements(), again)), { class: "quiet" }),
      button("Close", "wrong", close, { class: "quiet" }))), h("div", {}, grid));
  const stop = ids.length ? endless(grid, async (offset) => ({
    images: await images(ids.slice(offset, offset + PAGE)),
    next: offset + PAGE < ids.length ? offset + PAGE : null,
  }), (page) => page.images.map((image) => imageItem(image, gallery, again, image.object ?? "no name")),
  { empty: () => h("li", { class: "wide faint" }, "They are no longer in the gallery.") }) : () => {};
  place.querySelector("h2").focus({ preventScroll: true });
  place.scrollIntoView({ block: "nearest" });
}

async function images(ids) {
  const found = await ask(query("v1/images", { where: `id in (${ids.join(", ")})`, limit: ids.length }));
  return found.images;
}
