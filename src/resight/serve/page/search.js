// The search view: a field for a photo; then the photo at the left and what was found at the right.

import { ask, blobOf, imageOf, pictureOf, query } from "./api.js";
import { boxStage } from "./box.js";
import { count, button, h, quiet } from "./dom.js";
import { chooser, dropzone } from "./dropzone.js";
import { add, addForm, mayWrite } from "./editing.js";
import { controls, filtersSaid, rerankings, whereOf } from "./filters.js";
import { hitList, said, verdictBox } from "./hits.js";
import { errorBox, say } from "./notices.js";
import { boxOf, boxText, cut, photosOf, pixels, readPhoto } from "./photos.js";
import { change, link, read } from "./state.js";
import { tile } from "./tiles.js";

const SHOWN = 24;
const answers = new Map(); // of searches made: "back" shows them at once

export function searchView(root, gallery) {
  let panelOf = null; // the query that the panel was made for
  let asked = null; // the search that is shown
  let running = null;
  let stage = null;
  let panel, results;

  const identity = (s) => (s.photos ? `photos ${s.photos}` : s.image ? `image ${s.image}` : s.like ? `like ${s.like}` : null);

  async function update(state) {
    const who = identity(state);
    if (!who || (state.photos && !photosOf(state.photos))) {
      running?.abort();
      document.body.classList.remove("searching");
      panelOf = asked = null;
      root.replaceChildren(landing(gallery, Boolean(state.photos)));
      return;
    }
    if (panelOf !== who) {
      panelOf = who;
      asked = null;
      panel = h("section", { class: "panel", "aria-label": "Your search" });
      results = h("section", { class: "results", "aria-label": "What was found" });
      root.replaceChildren(h("div", { class: "search" }, panel, results));
      fillPanel(state);
    } else stage?.put(boxOf(state.box));
    const level = state.level ?? gallery.level;
    const key = JSON.stringify([who, state.box, level, state.rerank, state.filters]);
    if (key !== asked) {
      asked = key;
      if (answers.has(key)) {
        settle();
        show(answers.get(key), state);
      } else await search(state, level, key);
    }
  }

  function again() {
    answers.clear(); // the gallery is another one now
    asked = null;
    update(read());
  }

  function fillPanel(state) {
    const photos = photosOf(state.photos) ?? [];
    const send = quiet((box) => change({ box: box ? boxText(box) : undefined }, { replace: true }), 250);
    const clear = button("Clear the box", "wrong", () => stage.clear(), { class: "quiet", hidden: !state.box });
    const mark = button("Mark the thing", "box", () => stage.begin(), { class: "quiet", hidden: Boolean(state.box) });
    const changed = (box) => {
      clear.hidden = !box;
      mark.hidden = Boolean(box);
      panel.querySelector(".query").classList.toggle("marking", Boolean(box)); // room for fingers
      send(box);
    };
    stage = null;
    const tools = h("div", { class: "row tools" });
    const top = h("div", { class: "query" });
    if (state.like) {
      top.append(h("p", { class: "query-name" }, "Objects like ", h("strong", {}, state.like)));
    } else {
      const picture = photos.length ? drawn(photos[0]) : tile(state.image, "the image that is searched with");
      stage = boxStage(picture, { box: boxOf(state.box), changed, label: "The photo that is searched with" });
      top.append(h("div", { class: "pictures" }, stage, photos.length > 1 && h("div", { class: "more-photos" },
        photos.slice(1).map((photo) => drawn(photo)))));
      tools.append(mark, clear);
    }
    top.classList.toggle("marking", Boolean(state.box));
    if (photos.length) tools.append(chooser("Add a photo", "plus", { className: "quiet", add: () => photos }));
    tools.append(chooser("New photo", "photo", { className: "quiet" }));
    top.append(tools);
    panel.replaceChildren(top, h("div", { class: "controls" }, controls(gallery, state)), h("div", { class: "write" }));
  }

  async function search(state, level, key) {
    running?.abort();
    running = new AbortController();
    const { signal } = running;
    document.body.classList.add("searching");
    // Old hits stay, dimmed, while a box or filter is changed: the page must not jump.
    results.setAttribute("aria-busy", "true");
    if (!results.querySelector(".hits")) results.replaceChildren(waiting());
    try {
      const answer = await run(state, level, gallery, signal);
      if (signal.aborted) return;
      if (answers.size > 30) answers.delete(answers.keys().next().value);
      answers.set(key, answer);
      show(answer, state);
    } catch (problem) {
      if (problem.name === "AbortError") return;
      asked = null;
      results.replaceChildren(errorBox(problem, again));
    } finally {
      if (!signal.aborted) settle();
    }
  }

  function settle() {
    running?.abort();
    results.removeAttribute("aria-busy");
    document.body.classList.remove("searching");
  }

  function show(answer, state) {
    const photos = photosOf(state.photos);
    const writes = mayWrite(gallery) && photos;
    const addTo = writes ? (object) => add(photos, object, again) : null;
    const among = filtersSaid(state.filters);
    root.firstChild.classList.toggle("unknown", answer.no_match === true);
    results.replaceChildren(verdictBox(answer, state),
      hitList(answer, { search: { ...state, photos }, addTo }),
      h("footer", { class: "timing" }, timing(answer, gallery), among && `, ${among}`, "."));
    const place = panel.querySelector(".write");
    if (writes && !place.contains(document.activeElement)) {
      const best = answer.hits[0];
      const likely = best && !answer.no_match && (best.probability ?? 0) >= 0.5;
      place.replaceChildren(addForm(photos, likely ? best.object : "", again));
    }
    say(said(answer, state));
  }

  return { update, again };
}

/** A photo of the person's, drawn: a canvas needs no address for it. */
function drawn(photo) {
  if (!photo.bitmap) {
    return h("p", { class: "no-preview" }, `${photo.name}: this browser cannot show it, the search reads it all the same.`);
  }
  const canvas = h("canvas", { width: photo.width, height: photo.height, role: "img", "aria-label": photo.name });
  canvas.getContext("2d").drawImage(photo.bitmap, 0, 0, photo.width, photo.height);
  return canvas;
}

async function run(state, level, gallery, signal) {
  const where = whereOf(state.filters, gallery.columns);
  const box = boxOf(state.box);
  const rerank = rerankings(gallery).includes(state.rerank) ? state.rerank : null;
  let photos = photosOf(state.photos);
  // A box on an image of the gallery is cut from its picture, the largest that the page can have.
  if (!photos && box && state.image) photos = [await readPhoto(await blobOf(pictureOf(state.image)))];
  if (photos) {
    const form = new FormData();
    // The service takes a region with one photo; of several, the first alone has a box, cut here.
    const region = box && photos.length === 1 && photos[0].width > 0;
    for (const [at, photo] of photos.entries()) {
      const part = box && !region && at === 0 && photo.bitmap;
      form.append("photo", part ? await cut(photo, box) : photo.sent, photo.name);
    }
    if (region) form.append("region", pixels(box, photos[0].width, photos[0].height).join(","));
    form.append("k", SHOWN);
    form.append("level", level);
    if (where) form.append("where", where);
    if (rerank) form.append("rerank", rerank);
    return ask("v1/search", { method: "POST", form, signal });
  }
  const json = { k: SHOWN, level };
  if (where) json.where = where;
  if (rerank) json.rerank = rerank;
  if (state.like) json.object = state.like;
  else json.image = Number(state.image);
  return ask("v1/search", { method: "POST", json, signal });
}

function timing({ milliseconds: ms, level }, gallery) {
  const taken = ms?.total ? ` in ${Math.round(ms.total)} ms` : "";
  const stages = ["queue", "decode", "embed", "search", "rerank"].filter((name) => ms?.[name] >= 0.5)
    .map((name) => `${name} ${Math.round(ms[name])}`).join(" · ");
  const looked = level === "image" ? count(gallery.images, "image") : count(gallery.objects, "object");
  return h("span", {}, `${looked} compared${taken}`, stages && h("span", { class: "stages" }, ` (${stages})`));
}

function waiting() {
  return h("div", { class: "waiting", "aria-hidden": "true" },
    h("i", { class: "bone title" }),
    h("div", { class: "hits" }, Array.from({ length: 8 }, () => h("i", { class: "bone" }))));
}

// --- before the first search

function landing(gallery, lost) {
  const samples = h("div", { class: "samples" });
  const view = h("section", { class: "landing" },
    h("h1", { tabIndex: -1 }, "Seen it before?"),
    h("p", { class: "lead" }, gallery.images
      ? `Show a photo. ${count(gallery.images, "image")} of ${count(gallery.objects, "object")} are looked through, and when it is not among them, that is what you are told.`
      : "This gallery is empty. Show a photo and give it a name, and it is the first."),
    lost && h("p", { class: "warn", role: "status" }, "The photo of this search is not kept when a page is loaded again. Show it once more."),
    dropzone(), samples);
  fillSamples(samples, gallery).catch(() => samples.remove()); // a help only
  return view;
}

/** Objects from all over the list, as queries for who has no photo at hand. */
async function fillSamples(place, gallery) {
  if (!gallery.objects) return;
  const many = Math.min(8, gallery.objects);
  const at = [...new Set(Array.from({ length: many }, (_, i) => Math.floor(((i + 0.5) * gallery.objects) / many)))];
  const found = await Promise.all(at.map((offset) => ask(query("v1/objects", { offset, limit: 1 }))));
  const objects = found.flatMap((page) => page.objects);
  if (!objects.length) return;
  place.append(h("h2", {}, "No photo at hand? Try one of these"), h("ul", { class: "strip" }, objects.map((one) => {
    const image = imageOf(one.thumbnail);
    return h("li", {}, h("a", {
      ...link(image ? { view: "search", image } : { view: "search", like: one.object }),
      "aria-label": `Search with an image of ${one.object}`,
    }, tile(image, one.object)));
  })));
}
