// All images on a plane, like ones near each other: dots from afar, pictures from near.

import { askIfThere, blobOf, thumbnailOf } from "./api.js";
import { button, count, h } from "./dom.js";
import { tile } from "./hits.js";
import { errorBox, say } from "./notices.js";
import { go, link } from "./state.js";
import { isDark } from "./theme.js";

const NEAR = 140; // so many images in sight are shown as pictures
const LISTED = 120;

export function mapView(root) {
  let ready = false;
  return {
    update() { if (!ready) { ready = true; open(root, () => { ready = false; this.update(); }); } },
    again() {},
  };
}

async function open(root, again) {
  root.replaceChildren(h("div", { class: "map-wait state" }, h("p", {}, "Laying out the map …")));
  let found;
  try {
    found = await askIfThere("v1/map");
  } catch (problem) {
    root.replaceChildren(errorBox(problem, again));
    return;
  }
  if (!found?.points?.length) {
    root.replaceChildren(h("div", { class: "state" }, h("h1", {}, "No map yet"),
      h("p", {}, "The service makes it when the gallery has images enough. Until then its objects are a list."),
      h("a", { ...link({ view: "gallery" }), class: "as-button" }, "To the objects")));
    return;
  }
  draw(root, found);
}

function draw(root, { points, objects }) {
  const canvas = h("canvas", { tabIndex: 0, role: "application", "aria-label": `Map of ${count(points.length, "image")}. Arrow keys move, plus and minus zoom, Enter lists what is in sight.` });
  const name = h("p", { class: "map-name", hidden: true });
  const listed = h("section", { class: "map-list", "aria-label": "Chosen images", hidden: true });
  let lasso = false;
  const loop = button("Lasso", "lasso", () => {
    lasso = !lasso;
    loop.setAttribute("aria-pressed", lasso);
    canvas.classList.toggle("lasso", lasso);
  }, { class: "quiet", "aria-pressed": "false" });
  const stage = h("div", { class: "map" }, canvas, name, h("div", { class: "map-tools" }, loop,
    button("Nearer", "plus", () => zoom(1.5), { class: "quiet" }),
    button("Whole map", "box", () => { fit(); redraw(); }, { class: "quiet" }),
    button("List what is in sight", "images", () => choose(inSight()), { class: "quiet" })));
  root.replaceChildren(h("h1", { class: "unseen" }, "Map"), stage, listed);
  const pen = canvas.getContext("2d");
  const box = bounds(points);
  let scale = 1, left = 0, top = 0, width = 0, height = 0, frame = 0, path = null;
  const pictures = new Map();

  const colour = objects.map((_, i) => [(i * 137.508) % 360, 55 + (i % 3) * 12]);
  const at = (p) => [(p[0] - left) * scale, (p[1] - top) * scale];
  const inSight = () => points.filter((p) => { const [x, y] = at(p); return x > -20 && y > -20 && x < width + 20 && y < height + 20; });

  function fit() {
    scale = 0.9 * Math.min(width / (box.w || 1), height / (box.h || 1));
    left = box.x + box.w / 2 - width / scale / 2;
    top = box.y + box.h / 2 - height / scale / 2;
  }
  function zoom(by, x = width / 2, y = height / 2) {
    const [mx, my] = [left + x / scale, top + y / scale];
    scale *= by;
    left = mx - x / scale;
    top = my - y / scale;
    redraw();
  }
  const redraw = () => { frame ||= requestAnimationFrame(paint); };

  function paint() {
    frame = 0;
    if (!canvas.isConnected) return;
    const dark = isDark();
    pen.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    pen.clearRect(0, 0, width, height);
    const seen = inSight();
    const near = seen.length <= NEAR;
    const size = near ? Math.min(88, Math.max(34, Math.sqrt((width * height) / (seen.length || 1)) * 0.5)) : points.length > 5000 ? 3 : 6;
    for (const p of seen) {
      const [x, y] = at(p);
      const [hue, sat] = colour[p[3]] ?? [0, 0];
      const picture = near && pictureOf(p[2]);
      if (picture?.width) {
        const s = size / Math.max(picture.width, picture.height);
        pen.drawImage(picture, x - (picture.width * s) / 2, y - (picture.height * s) / 2, picture.width * s, picture.height * s);
      } else {
        pen.fillStyle = `hsl(${hue} ${sat}% ${dark ? 66 : 44}%)`;
        const r = near ? 6 : size;
        if (points.length > 5000) pen.fillRect(x - r / 2, y - r / 2, r, r); // round ones take ten times as long
        else { pen.beginPath(); pen.arc(x, y, r / 2, 0, 7); pen.fill(); }
      }
    }
    if (path) {
      pen.strokeStyle = getComputedStyle(canvas).color;
      pen.lineWidth = 2;
      pen.beginPath();
      path.forEach(([x, y], i) => (i ? pen.lineTo(x, y) : pen.moveTo(x, y)));
      pen.stroke();
    }
  }

  function pictureOf(id) {
    if (!pictures.has(id)) {
      if (pictures.size > 1500) pictures.clear();
      pictures.set(id, {});
      blobOf(thumbnailOf(id)).then(createImageBitmap).then((p) => { pictures.set(id, p); redraw(); }, () => {});
    }
    return pictures.get(id);
  }

  function nearest(x, y, most = 44) {
    let best = null, found = most * most;
    for (const p of points) {
      const [px, py] = at(p);
      const d = (px - x) ** 2 + (py - y) ** 2;
      if (d < found) [best, found] = [p, d];
    }
    return best;
  }

  function choose(chosen) {
    listed.hidden = false;
    listed.replaceChildren(h("header", { class: "browse-head" }, h("h2", { tabIndex: -1 }, count(chosen.length, "image")),
      button("Close", "wrong", () => { listed.hidden = true; }, { class: "quiet" })),
    h("ul", { class: "grid images" }, chosen.slice(0, LISTED).map((p) => h("li", { class: "image" },
      h("a", { ...link({ view: "search", image: String(p[2]) }), "aria-label": `Search from an image of ${objects[p[3]] ?? "no name"}` }, tile(thumbnailOf(p[2]), objects[p[3]] ?? "")),
      h("span", { class: "name faint" }, objects[p[3]] ?? "no name")))),
    chosen.length > LISTED ? h("p", { class: "faint" }, `The first ${LISTED} are shown.`) : "");
    say(`${count(chosen.length, "image")} listed below the map.`);
    listed.querySelector("h2").focus();
    listed.scrollIntoView({ block: "nearest" });
  }

  // --- pointer: drag to move, wheel or two fingers to zoom, a press opens
  const fingers = new Map();
  let start = null;
  const place = (e) => { const r = canvas.getBoundingClientRect(); return [e.clientX - r.left, e.clientY - r.top]; };
  canvas.addEventListener("pointerdown", (e) => {
    canvas.setPointerCapture(e.pointerId);
    fingers.set(e.pointerId, place(e));
    start = { at: place(e), moved: false };
    if (lasso) path = [place(e)];
  });
  canvas.addEventListener("pointermove", (e) => {
    const now = place(e);
    const before = fingers.get(e.pointerId);
    if (!before) {
      const p = nearest(...now, 14);
      name.hidden = !p;
      if (p) { name.textContent = objects[p[3]] ?? "no name"; name.style.translate = `${now[0] + 14}px ${now[1] + 14}px`; }
      return;
    }
    if (Math.hypot(now[0] - start.at[0], now[1] - start.at[1]) > 4) start.moved = true;
    if (path) path.push(now);
    else if (fingers.size === 2) {
      const other = [...fingers].find(([id]) => id !== e.pointerId)[1];
      const span = (a) => Math.hypot(a[0] - other[0], a[1] - other[1]) || 1;
      zoom(span(now) / span(before), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
    } else { left -= (now[0] - before[0]) / scale; top -= (now[1] - before[1]) / scale; }
    fingers.set(e.pointerId, now);
    redraw();
  });
  const up = (e) => {
    fingers.delete(e.pointerId);
    if (path) {
      const ring = path;
      path = null;
      redraw();
      if (start?.moved) choose(inSight().filter((p) => inside(at(p), ring)));
    } else if (start && !start.moved && e.type === "pointerup") {
      const p = nearest(...place(e));
      if (p) go({ view: "search", image: String(p[2]) });
    }
    start = fingers.size ? start : null;
  };
  canvas.addEventListener("pointerup", up);
  canvas.addEventListener("pointercancel", up);
  canvas.addEventListener("wheel", (e) => { e.preventDefault(); zoom(Math.exp(-e.deltaY * 0.0018), ...place(e)); }, { passive: false });
  canvas.addEventListener("keydown", (e) => {
    const way = { ArrowLeft: [-60, 0], ArrowRight: [60, 0], ArrowUp: [0, -60], ArrowDown: [0, 60] }[e.key];
    if (way) { left += way[0] / scale; top += way[1] / scale; redraw(); }
    else if (e.key === "+" || e.key === "=") zoom(1.4);
    else if (e.key === "-") zoom(1 / 1.4);
    else if (e.key === "0") { fit(); redraw(); }
    else if (e.key === "Enter") choose(inSight());
    else return;
    e.preventDefault();
  });
  addEventListener("themechange", redraw);
  new ResizeObserver(() => {
    const first = !width;
    [width, height] = [canvas.clientWidth, canvas.clientHeight];
    canvas.width = width * devicePixelRatio;
    canvas.height = height * devicePixelRatio;
    if (first) fit();
    redraw();
  }).observe(canvas);
}

function bounds(points) {
  let [x1, y1, x2, y2] = [Infinity, Infinity, -Infinity, -Infinity];
  for (const [x, y] of points) {
    x1 = Math.min(x1, x); y1 = Math.min(y1, y); x2 = Math.max(x2, x); y2 = Math.max(y2, y);
  }
  return { x: x1, y: y1, w: x2 - x1, h: y2 - y1 };
}

/** Whether a point lies in a ring: crossings of a ray, odd. */
function inside([x, y], ring) {
  let odd = false;
  for (let i = 0, j = ring.length - 1; i < ring.length; j = i++) {
    const [[xi, yi], [xj, yj]] = [ring[i], ring[j]];
    if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) odd = !odd;
  }
  return odd;
}
