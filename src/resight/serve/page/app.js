// The page: its head, the view that the address asks for, and the keys.

import { ask, forgetKey, hasKey, onKeyNeeded } from "./api.js";
import { h } from "./dom.js";
import { listen } from "./dropzone.js";
import { galleryView } from "./gallery.js";
import { hitKeys } from "./hits.js";
import { mapView } from "./map.js";
import { askKey, errorBox, question, undoLast } from "./notices.js";
import { reportsView } from "./reports.js";
import { searchView } from "./search.js";
import { follow, link, read } from "./state.js";
import { applyTheme, themeButton } from "./theme.js";

const KEYS = [
  ["r / w", "the hit in focus is right / wrong"], ["u", "undo"], ["← →", "through the hits"],
  ["Enter", "all images of the object"], ["Ctrl V", "search with a copied picture"],
  ["/", "find an object by name"], ["n", "new search"], ["?", "these keys"],
];

async function start() {
  applyTheme();
  onKeyNeeded(askKey);
  const main = document.getElementById("main");
  let gallery;
  try {
    gallery = await ask("v1/gallery");
  } catch (problem) {
    main.replaceChildren(errorBox(problem, () => location.reload()));
    return;
  }
  document.title = `${gallery.name ?? "resight"} · resight`;
  listen(gallery.limits);
  const places = {
    search: [searchView, "Search"], gallery: [galleryView, "Gallery"], map: [mapView, "Map"],
    reports: [reportsView, "Reports"],
  };
  const offered = (view) => ["search", "gallery"].includes(view) || gallery.offers?.includes(view);
  const nav = document.getElementById("nav");
  const links = {};
  for (const [view, [, words]] of Object.entries(places)) {
    links[view] = h("a", { ...link({ view }), hidden: !offered(view) }, words);
    nav.append(links[view]);
  }
  const side = document.getElementById("side");
  if (hasKey()) {
    side.append(h("button", { type: "button", class: "quiet", onclick: () => { forgetKey(); location.reload(); } }, "Forget key"));
  }
  side.append(themeButton());

  const views = {};
  let current = null, place = null;
  const placeOf = (s) => [s.view, s.photos, s.image, s.like, s.object, s.tab, s.report].join();
  const show = (state, how) => {
    const name = places[state.view] ? state.view : "search";
    if (current !== name) {
      current = name;
      const room = h("div", { class: `view ${name}-view` });
      main.replaceChildren(room);
      views[name] = places[name][0](room, gallery);
      for (const [view, one] of Object.entries(links)) {
        if (view === name) one.setAttribute("aria-current", "page");
        else one.removeAttribute("aria-current");
      }
    }
    views[name].update(state);
    if (how?.moved) {
      // Another place is shown from its top; a filter or box changes what is here, without a jump.
      if (place !== placeOf(state) && !how.back) scrollTo({ top: 0 });
      if (document.activeElement === document.body) main.focus({ preventScroll: true });
    }
    place = placeOf(state);
  };
  follow(show);
  addEventListener("keydown", (event) => keys(event, links));
  show(read());
}

function keys(event, links) {
  const typing = event.target.closest?.("input:not([type=checkbox], [type=radio]), select, textarea, dialog");
  if (event.key === "Escape" && typing && !event.target.closest("dialog")) event.target.blur();
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches?.("[type=radio]") && event.key.startsWith("Arrow")) return;
  if (event.key === "u") undoLast();
  else if (event.key === "n") links.search.click();
  else if (event.key === "/") {
    if (!document.getElementById("find")) links.gallery.click();
    document.getElementById("find")?.focus();
  } else if (event.key === "?") help();
  else if (!hitKeys(event)) return;
  event.preventDefault();
}

function help() {
  question("Keys", h("dl", { class: "keys" }, KEYS.map(([key, words]) =>
    [h("dt", {}, h("kbd", {}, key)), h("dd", {}, words)])), { yes: "Close", no: null });
}

start();
