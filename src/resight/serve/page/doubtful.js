// What a person should look at: pairs nearly equal, and images far from the others of their object.

import { ask, query } from "./api.js";
import { count, h } from "./dom.js";
import { errorBox } from "./notices.js";
import { endless, imageItem } from "./tiles.js";

const PAGE = 24;
const AGAIN = 2000; // milliseconds until it is asked whether it is there

export async function doubtful(root, gallery, again, tabs) {
  const body = h("div", { class: "doubts" });
  const note = h("p", { class: "faint", role: "status" });
  root.replaceChildren(h("section", { class: "browse" },
    h("header", { class: "browse-head" }, h("div", {}, h("h1", { tabIndex: -1 }, "Doubtful"),
      h("p", { class: "faint" }, "Pictures that are nearly the same under two names, and pictures unlike the others of their object. Each may be right; have a look."))),
    tabs("doubtful"), note, body));
  const get = (kind, offset) => ask(query("v1/doubtful", { kind, offset, limit: PAGE }));
  let first;
  try {
    first = await Promise.all([get("pairs", 0), get("outliers", 0)]);
  } catch (problem) {
    body.replaceChildren(errorBox(problem, again));
    return;
  }
  if (!body.isConnected) return;
  const [pairs, far] = first;
  const waiting = pairs.making || !pairs.current;
  const found = pairs.total + far.total > 0;
  if (waiting && !found && gallery.images) {
    body.replaceChildren(h("div", { class: "state" }, h("h2", {}, "Comparing all images"),
      h("p", {}, "With thousands of them this takes a minute; searches go on meanwhile."), h("i", { class: "orbit", "aria-hidden": "true" })));
    setTimeout(() => body.isConnected && doubtful(root, gallery, again, tabs), AGAIN);
    return;
  }
  if (waiting && found) note.textContent = "The gallery has changed since; it is being compared anew.";
  if (!found) {
    body.replaceChildren(h("div", { class: "state" }, h("h2", {}, "Nothing stands out"),
      h("p", {}, "No two objects share a picture, and no image is far from its object.")));
    return;
  }
  body.replaceChildren(
    ...part("Nearly the same picture", `${count(pairs.total, "pair")}, the most alike first`, "pairs", pairs,
      (page) => page.pairs.map((pair) => pairItem(pair, gallery, again))),
    ...part("Unlike the others of its object", `${count(far.total, "image")}, the farthest first${far.usual ? `; a likeness of ${far.usual.toFixed(2)} is usual` : ""}`, "images", far,
      (page) => page.outliers.map((image) => outlier(image, gallery, again))));
  for (const [kind, told] of [["pairs", pairs], ["outliers", far]]) {
    const grid = body.querySelector(`.of-${kind}`);
    if (grid) endless(grid, (offset) => (offset ? get(kind, offset) : told), grid.draw, { empty: () => h("li") });
  }

  function part(title, words, look, told, draw) {
    if (!told.total) return [];
    const grid = h("ul", { class: `grid ${look} of-${told.kind}` });
    grid.draw = draw;
    return [h("header", {}, h("h2", {}, title), h("p", { class: "faint" }, words)), h("div", {}, grid)];
  }
}

function pairItem({ images, similarity, same_file: same }, gallery, again) {
  const words = same ? "the same file twice" : `likeness ${similarity.toFixed(3)}`;
  return h("li", { class: "pair" },
    h("ul", {}, images.map((image) => imageItem(image, gallery, again, image.object ?? "no name"))),
    h("p", { class: "faint" }, words));
}

function outlier(image, gallery, again) {
  const item = imageItem(image, gallery, again, image.object);
  item.append(h("p", { class: "faint" }, `likeness ${image.similarity.toFixed(2)}`));
  return item;
}
