// The gallery view: its objects, found by name; one object with all its images; what looks doubtful.

import { ask, imageOf, query } from "./api.js";
import { count, h, icon, quiet } from "./dom.js";
import { doubtful } from "./doubtful.js";
import { endless, imageItem, tile } from "./tiles.js";
import { say } from "./notices.js";
import { change, link, read } from "./state.js";

const PAGE = 60;

export function galleryView(root, gallery) {
  let shown = null;

  function update(state) {
    const key = JSON.stringify([state.object, state.tab, state.object ? null : "list"]);
    if (key === shown) return; // the name looked for is typed here: its list follows by itself
    shown = key;
    if (state.object) oneObject(root, gallery, state.object, again);
    else if (state.tab === "doubtful") doubtful(root, gallery, again, tabs);
    else list(root, gallery, state.q ?? "");
  }

  function again() {
    shown = null;
    update(read());
  }

  return { update, again };
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
        tile(imageOf(one.thumbnail), ""), h("span", { class: "name" }, one.object), h("span", { class: "faint" }, count(one.images, "image"))))),
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
