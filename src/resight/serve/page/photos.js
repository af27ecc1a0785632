// Photos that people bring: read, made small enough to send, kept for "back" while the page is open.

const LONGEST = 1600; // pixels: far above what a network looks at, quick over a phone's connection
const LARGE = 1_500_000; // bytes: below, a photo is sent as it is

const kept = new Map();
let last = Number(sessionStorage.getItem("resight-photos") || 0);

/**
 * A photo: `file` as it came (what is added to a gallery), `sent` what is searched with, `bitmap`
 * upright and small enough to draw, null where this browser cannot read the format.
 */
export async function readPhoto(file) {
  const photo = { file, sent: file, bitmap: null, width: 0, height: 0, name: file.name || "photo" };
  try {
    photo.bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    return photo; // HEIC in Chromium, say: the service may well read it
  }
  photo.width = photo.bitmap.width;
  photo.height = photo.bitmap.height;
  const scale = LONGEST / Math.max(photo.width, photo.height);
  if (file.size > LARGE && scale < 1) {
    const small = draw(photo.bitmap, scale);
    photo.bitmap = await createImageBitmap(small);
    photo.sent = await jpeg(small);
    photo.width = small.width;
    photo.height = small.height;
  }
  return photo;
}

function draw(bitmap, scale, [x1, y1, x2, y2] = [0, 0, 1, 1]) {
  const [w, h] = [(x2 - x1) * bitmap.width, (y2 - y1) * bitmap.height];
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(w * scale));
  canvas.height = Math.max(1, Math.round(h * scale));
  canvas.getContext("2d").drawImage(
    bitmap, x1 * bitmap.width, y1 * bitmap.height, w, h, 0, 0, canvas.width, canvas.height);
  return canvas;
}

const jpeg = (canvas) => new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.92));

/** A part of a photo as a file: `box` in fractions. */
export const cut = (photo, box) => jpeg(draw(photo.bitmap, 1, box));

/** A number under which these photos are found again, for history.state. */
export function keep(photos) {
  kept.set(++last, photos);
  sessionStorage.setItem("resight-photos", last); // a reload must not give a number twice
  if (kept.size > 20) kept.delete(kept.keys().next().value);
  return last;
}

/** The photos of a number; undefined after a reload. */
export const photosOf = (number) => kept.get(number);

/** "0.1,0.2,0.8,0.9" as four fractions, null where it is no box. */
export function boxOf(text) {
  const box = (text ?? "").split(",").map(Number);
  const fits = box.length === 4 && box.every((v) => v >= 0 && v <= 1);
  return fits && box[2] > box[0] && box[3] > box[1] ? box : null;
}

export const boxText = (box) => box.map((v) => Number(v.toFixed(4))).join(",");

export const pixels = (box, width, height) =>
  [box[0] * width, box[1] * height, box[2] * width, box[3] * height].map(Math.round);
