// All images on a plane, like ones near each other: to wander through, to circle and list.

import { ask, query } from "./api.js";
import { button, count, h, quiet } from "./dom.js";
import { pickedList } from "./picked.js";
import { coloursOf, legend, nameOf } from "./mapcolours.js";
import { painter } from "./mapdraw.js";
import { inside, listen } from "./mapmoves.js";
import { errorBox, say } from "./notices.js";
import { change, go, link, read } from "./state.js";
import { isDark } from "./theme.js";

const AGAIN = 1500; // milliseconds until it is asked whether a map is made
const EDGE = 44, TOOLS = 56; // pixels left free around the whole map, and for the buttons below
const NEAREST = [40, 40000]; // pixels per unit

export function mapView(root, gallery) {
  let shown = null; // the column that it is coloured by
  let current = null; // the map that is drawn
  let timer = 0;

  async function fetch_(by) {
    clearTimeout(timer);
    let found;
    try {
      found = await ask(query("v1/map", { by }));
    } catch (problem) {
      current = null;
      root.replaceChildren(errorBox(problem, again));
      return;
    }
    if (shown !== by || !root.isConnected) return;
    if (found.points.length) current = current ? current.renew(found) : drawn(root, gallery, found, again);
    else empty(found.making);
    if (found.making || (!found.current && found.images)) {
      timer = setTimeout(() => root.isConnected && fetch_(by), found.points.length ? 4 * AGAIN : AGAIN);
    }
  }

  function empty(making) {
    current = null;
    root.replaceChildren(h("div", { class: "state map-wait" },
      h("h1", { tabIndex: -1 }, making ? "Laying out the map" : "Nothing to map yet"),
      h("p", { role: "status" }, making
        ? "Images that are alike come to lie side by side. With thousands of them this takes a minute; searches go on meanwhile."
        : "Add images, and like ones lie side by side here."),
      making && h("i", { class: "orbit", "aria-hidden": "true" }),
      h("a", { ...link({ view: "gallery" }), class: "as-button" }, "To the objects")));
  }

  function again() {
    shown = null;
    update(read());
  }

  function update(state) {
    const by = state.by ?? "object";
    if (by === shown) return;
    if (shown === null && !current) empty(true);
    shown = by;
    fetch_(by);
  }

  return { update, again };
}

function drawn(root, gallery, first, again) {
  const canvas = h("canvas", { tabIndex: 0, role: "application" });
  const name = h("p", { class: "map-name", hidden: true });
  const note = h("p", { class: "map-note faint", role: "status" });
  const legendPlace = h("div");
  const picked = h("section", { class: "map-list", "aria-label": "Chosen images", hidden: true });
  let told, points, chosen = null; // chosen: a set of images, where only these are shown
  let lasso = false, withPictures = true, only = "";
  let eye = { scale: 300, left: -1, top: -1 }, width = 0, height = 0, frame = 0, path = null;
  const redraw = () => { frame ||= requestAnimationFrame(paint); };
  const paints = painter(canvas, redraw);

  const loop = button("Circle some", "lasso", () => {
    lasso = !lasso;
    loop.setAttribute("aria-pressed", lasso);
    canvas.classList.toggle("lasso", lasso);
  }, { class: "quiet", "aria-pressed": "false", title: "Draw a ring around images to list them" });
  const thumbs = button("Pictures", "photo", () => {
    withPictures = !withPictures;
    thumbs.setAttribute("aria-pressed", withPictures);
    redraw();
  }, { class: "quiet", "aria-pressed": "true" });
  const whole = button("Whole map", "box", () => { chosen = null; mask(); fit(); keep(); }, { class: "quiet" });
  const by = h("select", { id: "map-by", onchange: () => change({ by: by.value === "object" ? undefined : by.value, at: undefined }) });
  const filter = h("input", { type: "search", placeholder: "all", "aria-label": "Show only names with", autocomplete: "off",
    oninput: quiet(() => { only = filter.value.trim().toLowerCase(); mask(); }, 120) });
  const stage = h("div", { class: "map" }, canvas, name, h("div", { class: "map-tools" }, loop, thumbs,
    button("Nearer", "plus", () => zoom(1.6), { bare: true, class: "quiet" }),
    button("Farther", "minus", () => zoom(1 / 1.6), { bare: true, class: "quiet" }),
    whole, button("List what is in sight", "images", () => choose(inSight()), { class: "quiet" })));
  root.replaceChildren(h("h1", { class: "unseen", tabIndex: -1 }, "Map"),
    h("div", { class: "map-head" },
      h("div", { class: "field" }, h("label", { for: "map-by" }, "Coloured by"), by),
      h("div", { class: "field map-filter" }, h("span", { class: "label" }, "Show only"), filter),
      legendPlace, note),
    stage, picked);

  function take(found) {
    told = found;
    const n = found.points.length;
    points = { x: new Float32Array(n), y: new Float32Array(n), ids: new Float64Array(n), shown: new Uint8Array(n), colours: null };
    found.points.forEach(([x, y, id], i) => { points.x[i] = x; points.y[i] = y; points.ids[i] = id; });
    by.replaceChildren(...found.columns.map((column) => h("option", { value: column, selected: column === found.by }, column)));
    filter.closest(".field").hidden = Boolean(found.values);
    canvas.setAttribute("aria-label", `Map of ${count(n, "image")}. Arrow keys move, plus and minus zoom, Enter lists what is in sight.`);
    const part = n < found.images ? ` of ${found.images.toLocaleString("en")}` : "";
    note.textContent = `${n.toLocaleString("en")}${part} ${found.images === 1 ? "image" : "images"}`
      + (found.making ? " · being laid out anew" : found.method === "PCA" && found.images > 30 ? " · coarse layout: the service lacks openTSNE" : "");
    colours();
    mask();
  }
  function colours() {
    points.colours = coloursOf(told, isDark());
    legendPlace.replaceChildren(legend(told, isDark()));
    redraw();
  }
  function mask() {
    points.shown = Uint8Array.from(points.ids, (id, i) =>
      (!chosen || chosen.has(id)) && (!only || told.values || nameOf(told, i).toLowerCase().includes(only)) ? 1 : 0);
    redraw();
  }
  function paint() {
    frame = 0;
    if (canvas.isConnected) paints.paint(points, eye, { withPictures: withPictures && !path, path, stroke: getComputedStyle(canvas).color });
  }

  // --- where one looks
  const at = (i) => [(points.x[i] - eye.left) * eye.scale, (points.y[i] - eye.top) * eye.scale];
  function fit() {
    const seen = [...points.ids.keys()].filter((i) => points.shown[i]);
    let [x1, y1, x2, y2] = [1, 1, -1, -1];
    for (const i of seen) {
      x1 = Math.min(x1, points.x[i]); x2 = Math.max(x2, points.x[i]);
      y1 = Math.min(y1, points.y[i]); y2 = Math.max(y2, points.y[i]);
    }
    const room = [Math.max(80, width - 2 * EDGE), Math.max(80, height - 2 * EDGE - TOOLS)];
    const scale = clamp(Math.min(room[0] / (x2 - x1 || 0.1), room[1] / (y2 - y1 || 0.1)));
    eye = { scale, left: (x1 + x2) / 2 - width / scale / 2, top: (y1 + y2) / 2 - (height - TOOLS) / scale / 2 };
    redraw();
  }
  const clamp = (scale) => Math.min(NEAREST[1], Math.max(NEAREST[0], scale));
  function zoom(factor, x = width / 2, y = height / 2) {
    const scale = clamp(eye.scale * factor);
    eye = { scale, left: eye.left + x / eye.scale - x / scale, top: eye.top + y / eye.scale - y / scale };
    redraw();
    keep();
  }
  function pan(dx, dy) {
    eye = { ...eye, left: eye.left - dx / eye.scale, top: eye.top - dy / eye.scale };
    redraw();
    keep();
  }
  /** The middle and the scale stand in the address. */
  const keep = quiet(() => {
    if (!canvas.isConnected) return;
    const middle = [eye.left + width / eye.scale / 2, eye.top + height / eye.scale / 2];
    change({ at: [...middle.map((v) => v.toFixed(4)), Math.round(eye.scale)].join(",") }, { replace: true });
  }, 400);
  function look() {
    const [x, y, scale] = (read().at ?? "").split(",").map(Number);
    if (!(scale > 0) || !Number.isFinite(x + y)) { fit(); return; }
    eye = { scale: clamp(scale), left: x - width / clamp(scale) / 2, top: y - height / clamp(scale) / 2 };
    redraw();
  }

  const indices = (test) => [...points.ids.keys()].filter((i) => points.shown[i] && test(...at(i)));
  const inSight = () => indices((x, y) => x >= 0 && y >= 0 && x < width && y < height);
  function nearest(x, y, most) {
    let best = -1, found = most * most;
    for (let i = 0; i < points.x.length; i++) {
      if (!points.shown[i]) continue;
      const [px, py] = at(i);
      const d = (px - x) ** 2 + (py - y) ** 2;
      if (d < found) [best, found] = [i, d];
    }
    return best;
  }

  function choose(some) {
    const ids = some.map((i) => points.ids[i]);
    const list = () => pickedList(picked, ids, gallery, {
      again: () => { again(); list(); }, // what was moved or removed shows on both
      only: () => { chosen = new Set(ids); mask(); fit(); stage.scrollIntoView({ block: "nearest" }); },
    });
    list();
    say(`${count(ids.length, "image")} listed below the map.`);
  }

  listen(canvas, {
    pan, zoom, fit, name,
    lasso: () => lasso,
    path: (ring) => { path = ring; redraw(); },
    ring: (ring) => choose(indices((x, y) => inside([x, y], ring))),
    list: () => choose(inSight()),
    named: (x, y) => { const i = nearest(x, y, 18); return i < 0 ? null : nameOf(told, i); },
    open: (x, y) => { const i = nearest(x, y, 40); if (i >= 0) go({ view: "search", image: String(points.ids[i]) }); },
  });
  const themed = () => { if (canvas.isConnected) colours(); else removeEventListener("themechange", themed); };
  addEventListener("themechange", themed);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", themed);
  new ResizeObserver(() => {
    const first = !width;
    [width, height] = [canvas.clientWidth, canvas.clientHeight];
    canvas.width = Math.round(width * devicePixelRatio);
    canvas.height = Math.round(height * devicePixelRatio);
    if (first && width) look();
    redraw();
  }).observe(canvas);
  take(first);
  const self = { renew(found) { take(found); return self; } };
  return self;
}
