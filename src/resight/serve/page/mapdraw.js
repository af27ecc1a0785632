// The map's canvas: tens of thousands of dots straight into its pixels, pictures above them.

import { ask } from "./api.js";

const CELL = 76; // pixels that a picture has for itself, at least
const KEPT = 3000; // pictures
const BATCH = 100; // asked for at once
const SIDE = 96; // pixels of a kept picture

/**
 * Draws `points`: {x, y: Float32Array in [-1, 1], ids, colours: Uint32Array (ABGR), shown: Uint8Array}.
 * `eye` is {scale, left, top}: pixels per unit, and what lies in the corner.
 */
export function painter(canvas, changed) {
  const pen = canvas.getContext("2d");
  const pictures = pictureStore(changed);
  let image = null, words = null; // the pixels, and the same four bytes at a time
  let levels = new Map(), levelsOf = null;

  function paint(points, eye, { withPictures, path, stroke }) {
    const ratio = devicePixelRatio;
    const [wide, high] = [canvas.width, canvas.height];
    if (!wide || !high) return;
    if (image?.width !== wide || image.height !== high) {
      image = pen.createImageData(wide, high);
      words = new Uint32Array(image.data.buffer);
    } else words.fill(0);
    dots(points, eye, ratio, wide, high);
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.putImageData(image, 0, 0);
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    if (withPictures) drawPictures(points, eye, wide / ratio, high / ratio);
    if (path) {
      pen.strokeStyle = stroke;
      pen.fillStyle = stroke;
      pen.lineWidth = 2;
      pen.beginPath();
      path.forEach(([x, y], i) => (i ? pen.lineTo(x, y) : pen.moveTo(x, y)));
      pen.stroke();
      pen.globalAlpha = 0.08;
      pen.fill();
      pen.globalAlpha = 1;
    }
  }

  function dots({ x, y, colours, shown }, eye, ratio, wide, high) {
    const scale = eye.scale * ratio, [left, top] = [eye.left, eye.top];
    const crowd = Math.max(1, Math.log10(x.length + 1) - 2);
    const nearness = Math.max(0, Math.log2(eye.scale / 300));
    const radius = ratio * Math.min(7, 3.4 / crowd + 0.55 * nearness);
    const stamp = disc(radius);
    const edge = Math.ceil(radius) + 1;
    for (let i = 0; i < x.length; i++) {
      if (!shown[i]) continue;
      const px = Math.round((x[i] - left) * scale), py = Math.round((y[i] - top) * scale);
      if (px < edge || py < edge || px >= wide - edge || py >= high - edge) continue;
      const colour = colours[i] & 0xffffff;
      for (let s = 0; s < stamp.length; s += 3) {
        const at = (py + stamp[s + 1]) * wide + px + stamp[s];
        const cover = stamp[s + 2];
        if (words[at] >>> 24 <= cover) words[at] = (colour | (cover << 24)) >>> 0;
      }
    }
  }

  /** One point for each square of a grid that moves with the map, so that pictures stay in place. */
  function drawPictures(points, eye, width, height) {
    if (levelsOf !== points.shown) { levels = new Map(); levelsOf = points.shown; }
    const power = Math.ceil(2 * Math.log2(CELL / eye.scale)); // of the root of two
    const side = 2 ** (power / 2);
    if (!levels.has(power)) {
      if (levels.size > 12) levels = new Map();
      levels.set(power, leaders(points, side));
    }
    const size = Math.min(96, side * eye.scale * 0.68);
    const wanted = [];
    const right = eye.left + width / eye.scale, bottom = eye.top + height / eye.scale;
    for (const i of levels.get(power)) {
      if (points.x[i] < eye.left - side || points.x[i] > right + side) continue;
      if (points.y[i] < eye.top - side || points.y[i] > bottom + side) continue;
      const px = (points.x[i] - eye.left) * eye.scale, py = (points.y[i] - eye.top) * eye.scale;
      const picture = pictures.get(points.ids[i]);
      if (!picture) { wanted.push(points.ids[i]); continue; }
      if (!picture.width) continue;
      pen.fillStyle = css(points.colours[i]);
      pen.beginPath();
      pen.roundRect(px - size / 2 - 2, py - size / 2 - 2, size + 4, size + 4, size * 0.14 + 2);
      pen.fill();
      pen.drawImage(picture, px - size / 2, py - size / 2, size, size);
    }
    pictures.want(wanted);
  }

  return { paint };
}

/** Of each square the point that is nearest to its middle, where none beside it is in the way. */
function leaders({ x, y, shown }, side) {
  const best = new Map();
  for (let i = 0; i < x.length; i++) {
    if (!shown[i]) continue;
    const [column, row] = [Math.floor(x[i] / side), Math.floor(y[i] / side)];
    const key = column * 4194304 + row;
    const off = Math.abs(x[i] / side - column - 0.5) + Math.abs(y[i] / side - row - 0.5);
    const had = best.get(key);
    if (!had || off < had[1]) best.set(key, [i, off]);
  }
  const taken = new Map();
  for (const [key, [i]] of best) {
    let free = true;
    for (const dx of [-4194304, 0, 4194304]) {
      for (const dy of [-1, 0, 1]) {
        const j = taken.get(key + dx + dy);
        if (j !== undefined && Math.abs(x[i] - x[j]) < 0.56 * side && Math.abs(y[i] - y[j]) < 0.56 * side) free = false;
      }
    }
    if (free) taken.set(key, i);
  }
  return Int32Array.from(taken.values());
}

/** A disc as (dx, dy, alpha 0 … 255), softened at its edge. */
function disc(radius) {
  const found = [];
  const reach = Math.ceil(radius);
  for (let dy = -reach; dy <= reach; dy++) {
    for (let dx = -reach; dx <= reach; dx++) {
      const cover = Math.min(1, Math.max(0, radius + 0.5 - Math.hypot(dx, dy)));
      if (cover > 0.05) found.push(dx, dy, Math.round(255 * cover));
    }
  }
  return Int32Array.from(found);
}

const css = (abgr) => `rgb(${abgr & 255} ${(abgr >> 8) & 255} ${(abgr >> 16) & 255})`;

/** Small pictures by image, fetched many at once when the map has stood still for a moment. */
function pictureStore(changed) {
  const kept = new Map();
  let waiting = [], timer = 0, busy = false;

  async function load() {
    timer = 0;
    if (busy || !waiting.length) return;
    busy = true;
    const some = waiting.splice(0, BATCH);
    for (const id of some) kept.set(id, {});
    try {
      const found = await ask(`v1/thumbnails?${some.map((id) => `image=${id}`).join("&")}`);
      await Promise.all(Object.entries(found.thumbnails).map(async ([id, text]) => {
        kept.set(Number(id), await framed(text).catch(() => ({})));
      }));
    } catch {
      for (const id of some) kept.delete(id); // asked for again when it is drawn again
      await new Promise((done) => setTimeout(done, 2000));
    }
    busy = false;
    while (kept.size > KEPT) kept.delete(kept.keys().next().value);
    changed();
    if (waiting.length) timer ||= setTimeout(load, 0);
  }

  return {
    get(id) {
      const found = kept.get(id);
      if (found?.width) { kept.delete(id); kept.set(id, found); } // the last used goes last
      return found;
    },
    want(ids) {
      waiting = ids;
      if (ids.length) timer ||= setTimeout(load, 90);
    },
  };
}

/** A JPEG in base64 as a square with round corners. */
async function framed(text) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const picture = await createImageBitmap(new Blob([bytes], { type: "image/jpeg" }));
  const square = document.createElement("canvas");
  square.width = square.height = SIDE;
  const pen = square.getContext("2d");
  pen.beginPath();
  pen.roundRect(0, 0, SIDE, SIDE, SIDE * 0.14);
  pen.clip();
  const scale = Math.max(SIDE / picture.width, SIDE / picture.height);
  const [w, h] = [picture.width * scale, picture.height * scale];
  pen.drawImage(picture, (SIDE - w) / 2, (SIDE - h) / 2, w, h);
  picture.close();
  return square;
}
