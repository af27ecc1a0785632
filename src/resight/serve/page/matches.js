// Lines between the points of photo and hit that geometry has matched.

import { ask, blobOf, pictureOf } from "./api.js";
import { button, count, h } from "./dom.js";
import { question, trouble } from "./notices.js";

const MOST = 80; // lines; more are a thicket
const GAP = 16;

/** A button that shows them, where a hit has some: [[x1, y1, x2, y2], …] in pixels, upright. */
export function matchesOf(hit, search, words) {
  if (!hit.matches?.length || !(search.photos?.length || search.image)) return null;
  const said = count(hit.matches.length, "point matches", "points match");
  return button(said, "lines", () => show(hit, search, said).catch(trouble),
    { bare: !words, class: words ? "quiet" : "bare", title: said });
}

async function show(hit, search, said) {
  const [left, right] = await Promise.all([
    search.photos?.length ? ofPhoto(search.photos[hit.photo ?? 0]) : ofImage(search.image), ofImage(hit.image)]);
  const canvas = h("canvas", { class: "matches", role: "img", "aria-label": `${said} between the photo and ${hit.object ?? "the image"}` });
  const wide = Math.min(1100, innerWidth - 64) * Math.min(2, devicePixelRatio);
  const beside = innerWidth > 600;
  draw(canvas, left, right, hit.matches, wide, beside);
  const asked = question(said, canvas, { yes: "Close", no: null });
  canvas.closest("dialog").classList.add("wide");
  await asked;
}

/** A picture, and where the upright original lies on it: pixels there to pixels of the picture. */
async function ofPhoto(photo) {
  if (!photo.bitmap) throw new Error("This browser cannot show the photo.");
  const scale = photo.bitmap.width / photo.width;
  return { picture: photo.bitmap, put: (x, y) => [x * scale, y * scale] };
}

async function ofImage(id) {
  const [told, blob] = await Promise.all([ask(`v1/images/${id}`), blobOf(pictureOf(id))]);
  const picture = await createImageBitmap(blob);
  const [x0, y0, x1, y1] = told.box ?? [0, 0, told.width ?? picture.width, told.height ?? picture.height];
  return { picture, put: (x, y) => [((x - x0) * picture.width) / (x1 - x0), ((y - y0) * picture.height) / (y1 - y0)] };
}

function draw(canvas, left, right, matches, wide, beside) {
  const share = beside ? (wide - GAP) / 2 : wide;
  const [a, b] = [left, right].map(({ picture }) => Math.min(share / picture.width, (beside ? 0.62 : 0.34) * innerHeight * 2 / picture.height));
  const at = beside
    ? [[share - left.picture.width * a, 0], [share + GAP, 0]]
    : [[(wide - left.picture.width * a) / 2, 0], [(wide - right.picture.width * b) / 2, left.picture.height * a + GAP]];
  canvas.width = wide;
  canvas.height = beside ? Math.max(left.picture.height * a, right.picture.height * b) : at[1][1] + right.picture.height * b;
  const pen = canvas.getContext("2d");
  pen.drawImage(left.picture, ...at[0], left.picture.width * a, left.picture.height * a);
  pen.drawImage(right.picture, ...at[1], right.picture.width * b, right.picture.height * b);
  const step = Math.max(1, matches.length / MOST);
  for (let i = 0; i < matches.length; i += step) {
    const [x1, y1, x2, y2] = matches[Math.floor(i)];
    const [p, q] = [left.put(x1, y1), right.put(x2, y2)];
    const from = [at[0][0] + p[0] * a, at[0][1] + p[1] * a], to = [at[1][0] + q[0] * b, at[1][1] + q[1] * b];
    pen.strokeStyle = pen.fillStyle = `hsl(${(i * 47) % 360} 85% 62%)`;
    pen.lineWidth = 1.5;
    pen.beginPath();
    pen.moveTo(...from);
    pen.lineTo(...to);
    pen.stroke();
    for (const end of [from, to]) { pen.beginPath(); pen.arc(...end, 3, 0, 7); pen.fill(); }
  }
}
