// Pictures of the gallery in squares, and lists of them that grow as one goes down.

import { showPicture } from "./api.js";
import { h, nearby } from "./dom.js";
import { editButtons, mayWrite } from "./editing.js";
import { errorBox } from "./notices.js";
import { link } from "./state.js";

/** The small picture of an image, in a square; the larger one follows where there is room for it. */
export function tile(image, name) {
  const picture = h("img", { alt: name, loading: "lazy", decoding: "async", draggable: false });
  const frame = h("span", { class: "tile" }, picture);
  picture.addEventListener("load", () => {
    const shape = picture.naturalWidth / picture.naturalHeight;
    if (shape < 0.7 || shape > 1.43) frame.classList.add("whole"); // cropping would hide the thing
  });
  picture.addEventListener("error", () => {
    if (picture.getAttribute("src")) frame.classList.add("missing");
  });
  if (image) showPicture(picture, image);
  else frame.classList.add("missing");
  return frame;
}

/** An image in a list: a press searches from it, below what may be done with it. */
export function imageItem(image, gallery, again, more = null) {
  const item = h("li", { class: "image", data: { image: image.image } });
  const name = image.name ?? `image ${image.image}`;
  item.append(
    h("a", { ...link({ view: "search", image: String(image.image) }), "aria-label": `Search from ${name}`, title: "Search from this" },
      tile(image.image, name)),
    h("div", { class: "hit-row" }, h("span", { class: "name faint", title: name }, more ?? name),
      mayWrite(gallery) ? editButtons(image, item, again) : null));
  return item;
}

/** Pages put one below the other as the window comes near the end. */
export function endless(place, ask_, draw, { empty, first }) {
  const end = h("div", { class: "end", "aria-hidden": "true" });
  let next = 0, busy = false, stopped = false;
  const stop = nearby(end, more);
  async function more() {
    if (busy || stopped || next === null) return;
    busy = true;
    try {
      const page = await ask_(next);
      if (stopped) return;
      if (next === 0) { place.replaceChildren(); first?.(page); }
      place.append(...draw(page));
      if (next === 0 && !place.children.length) place.append(empty());
      next = page.next;
    } catch (problem) {
      if (problem.name !== "AbortError")
        place.append(h("li", { class: "wide" }, errorBox(problem, () => { place.lastChild.remove(); more(); })));
      return;
    } finally {
      busy = false;
    }
    if (next === null) { stop(); end.remove(); }
    else if (end.getBoundingClientRect().top < innerHeight + 600) more(); // still in sight: no event comes
  }
  place.after(end);
  more();
  return () => { stopped = true; stop(); end.remove(); };
}
