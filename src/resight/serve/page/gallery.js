// The gallery view: its objects, found by name; one object with all its images; what looks doubtful.

import { ask, askIfThere, query, thumbnailOf } from "./api.js";
import { count, h, icon, nearby, quiet } from "./dom.js";
import { editButtons, mayWrite } from "./editing.js";
import { tile } from "./hits.js";
import { errorBox, say } from "./notices.js";
import { change, link, read } from "./state.js";

const PAGE = 60;

export function galleryView(root, gallery) {
  let shown = null;

  function update(state) {
    const key = JSON.stringify([state.object, state.tab, state.object ? null : "list"]);
    if (key === shown) return; // the name looked for is typed here: its list follows by itself
    shown = key;
    if (state.object) oneObject(root, gallery, state.object, again);
    else if (state.tab === "doubtful") doubtful(root, gallery, again);
    else list(root, gallery, state.q ?? "");
  }

  function again() {
    shown = null;
    update(read());
  }

  return { update, again };
}

/** Pages put one below the other as the window comes near the end. */
function endless(place, ask_, draw, { empty, first }) {
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

const tabs = (current) => h("nav", { class: "tabs", "aria-label": "Gallery" },
  [["Objects", undefined], ["Doubtful", "doubtful"]].map(([words, tab]) =>
    h("a", { ...link({ view: "gallery", tab }), "aria-current": current === tab ? "page" : null }, words)));

function list(root, gallery, q) {
  const total = h("p", { class: "faint total", role: "status" });
  const grid = h("ul", { class: "grid" });
  const input = h("input", { type: "search", id: "find", value: q, placeholder: "Find by name", "aria-label": "Find an object by name", autocomplete: "off" });
  const place = h("div", {}, grid);
  const tabsPlace = h("div");
  root.replaceChildren(h("section", { class: "browse" },
    h("header", { class: "browse-head" }, h("div", {}, h("h1", { tabIndex: -1 }, gallery.name ?? "The gallery"), total), input),
    tabsPlace, place));
  let stop = null;
  const fill = (like) => {
    stop?.();
    stop = endless(grid, (offset) => ask(query("v1/objects", { like, offset, limit: PAGE })),
      (page) => page.objects.map((one) => h("li", {}, h("a", { ...link({ view: "gallery", object: one.object }), class: "object" },
        tile(one.thumbnail, ""), h("span", { class: "name" }, one.object), h("span", { class: "faint" }, count(one.images, "image"))))),
      {
        first: (page) => (total.textContent = like ? `${count(page.total, "object")} with “${like}”` : `${count(page.total, "object")}, ${count(gallery.images, "image")}`),
        empty: () => h("li", { class: "wide state" }, h("h2", {}, like ? "No object of that name" : "Nothing here yet"),
          h("p", {}, like ? "A part of the name is enough. Or search by a photo instead." : "Search with a photo and add it, or use resight gallery add.")),
      });
  };
  input.addEventListener("input", quiet(() => {
    const like = input.value.trim();
    change({ q: like || undefined }, { replace: true });
    fill(like);
  }));
  fill(q);
  if (gallery.offers?.includes("doubtful")) tabsPlace.append(tabs(undefined));
  else tabsPlace.remove();
}

function imageItem(image, gallery, again, more = null) {
  const item = h("li", { class: "image" });
  const name = image.name ?? `image ${image.image}`;
  item.append(
    h("a", { ...link({ view: "search", image: String(image.image) }), "aria-label": `Search from ${name}`, title: "Search from this" },
      tile(image.thumbnail ?? thumbnailOf(image.image), name)),
    h("div", { class: "hit-row" }, h("span", { class: "name faint", title: name }, more ?? name),
      mayWrite(gallery) ? editButtons(image, item, again) : null));
  return item;
}

function oneObject(root, gallery, name, again) {
  const total = h("p", { class: "faint total", role: "status" });
  const grid = h("ul", { class: "grid images" });
  root.replaceChildren(h("section", { class: "browse" },
    h("p", {}, h("a", { ...link({ view: "gallery" }), class: "way-back" }, icon("back"), " All objects")),
    h("header", { class: "browse-head" }, h("div", {}, h("h1", { tabIndex: -1 }, name), total),
      h("a", { ...link({ view: "search", like: name }), class: "as-button" }, icon("again"), h("span", {}, "Objects like it"))),
    h("div", {}, grid)));
  endless(grid, (offset) => ask(query(`v1/objects/${encodeURIComponent(name)}`, { offset, limit: PAGE })),
    (page) => page.images.map((image) => imageItem(image, gallery, again)),
    {
      first: (page) => { total.textContent = count(page.total, "image"); say(`${name}, ${count(page.total, "image")}`); },
      empty: () => h("li", { class: "wide state" }, h("h2", {}, "No images"), h("p", {}, "The last image of this object was moved or removed.")),
    });
}

async function doubtful(root, gallery, again) {
  const body = h("div", { "aria-busy": "true" });
  root.replaceChildren(h("section", { class: "browse" },
    h("header", { class: "browse-head" }, h("div", {}, h("h1", { tabIndex: -1 }, "Doubtful"),
      h("p", { class: "faint" }, "Images that look alike under different names, and images unlike the others of their object."))),
    tabs("doubtful"), body));
  try {
    const found = await askIfThere("v1/doubtful?limit=60");
    const pairs = found?.near_duplicates ?? [], far = found?.outliers ?? [];
    body.removeAttribute("aria-busy");
    if (!pairs.length && !far.length) {
      body.replaceChildren(h("div", { class: "state" }, h("h2", {}, "Nothing stands out"), h("p", {}, "No two objects share a picture, and no image is far from its object.")));
      return;
    }
    body.replaceChildren(
      pairs.length ? h("h2", {}, "Nearly the same picture") : "",
      h("ul", { class: "grid pairs" }, pairs.map(([a, b, likeness]) => h("li", { class: "pair" },
        h("ul", {}, [a, b].map((image) => imageItem(image, gallery, again, image.object ?? "no name"))),
        h("p", { class: "faint" }, `likeness ${likeness.toFixed(3)}`)))),
      far.length ? h("h2", {}, "Unlike the others of its object") : "",
      h("ul", { class: "grid images" }, far.map((image) => imageItem(image, gallery, again, `${image.object} · ${image.similarity.toFixed(2)}`))));
  } catch (problem) {
    body.replaceChildren(errorBox(problem, again));
  }
}
