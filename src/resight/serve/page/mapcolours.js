// What a map is coloured by: names apart, numbers along a ramp; and the legend that says so.

import { h } from "./dom.js";

// Twelve that are told apart on light and on dark, also by most who see colours otherwise.
const FEW = [
  [196, 62, 8], [15, 122, 160], [120, 94, 196], [74, 128, 30], [201, 61, 119], [172, 118, 0],
  [0, 135, 108], [116, 84, 62], [76, 104, 220], [160, 60, 160], [110, 130, 20], [110, 116, 122],
];
const RAMP = [[68, 40, 120], [50, 96, 150], [30, 148, 138], [110, 195, 90], [244, 214, 60]];
const NONE = [150, 158, 160];
const SHOWN = 12; // names in a legend

const packed = ([r, g, b]) => (255 << 24 | b << 16 | g << 8 | r) >>> 0;
const lighter = ([r, g, b]) => [r, g, b].map((v) => Math.round(v + (255 - v) * 0.34));

/** The colour of each point (Uint32Array, ABGR), for a light or dark page. */
export function coloursOf({ names, of, values }, dark) {
  const shade = dark ? lighter : (c) => c;
  if (values) {
    const [low, high] = span(values);
    return Uint32Array.from(values, (v) => packed(shade(v === null ? NONE : along((v - low) / (high - low || 1)))));
  }
  const own = names.map((_, i) => packed(shade(colour(i, names.length))));
  const none = packed(shade(NONE));
  return Uint32Array.from(of, (i) => (i < 0 ? none : own[i]));
}

function colour(i, count) {
  if (count <= FEW.length) return FEW[i];
  const [hue, light] = [(i * 137.508) % 360, 40 + (i % 3) * 9];
  return fromHsl(hue, 62 - (i % 2) * 14, light);
}

function fromHsl(hue, saturation, light) {
  const a = (saturation / 100) * Math.min(light / 100, 1 - light / 100);
  return [0, 8, 4].map((n) => {
    const k = (n + hue / 30) % 12;
    return Math.round(255 * (light / 100 - a * Math.max(-1, Math.min(k - 3, 9 - k, 1))));
  });
}

function span(values) {
  let [low, high] = [Infinity, -Infinity];
  for (const v of values) if (v !== null) { low = Math.min(low, v); high = Math.max(high, v); }
  return [low, high];
}

function along(share) {
  const at = Math.min(RAMP.length - 1.001, Math.max(0, share * (RAMP.length - 1)));
  const [from, to, part] = [RAMP[Math.floor(at)], RAMP[Math.floor(at) + 1], at % 1];
  return from.map((v, i) => Math.round(v + (to[i] - v) * part));
}

/** The name of a point, for people. */
export function nameOf({ names, of, values }, i) {
  if (values) return values[i] === null ? "none" : String(values[i]);
  return names[of[i]] ?? "no name";
}

/** Names with their colours, or a ramp with its ends. */
export function legend({ names, values }, dark) {
  const shade = dark ? lighter : (c) => c;
  const css = (c) => `rgb(${shade(c).join(" ")})`;
  if (values) {
    const [low, high] = span(values);
    const bar = h("i", { class: "ramp" });
    bar.style.background = `linear-gradient(to right, ${RAMP.map(css).join(", ")})`;
    return h("p", { class: "map-legend" }, String(low), bar, String(high));
  }
  if (!names.length) return h("p", { class: "map-legend" }, "none has one");
  if (names.length > SHOWN) return h("p", { class: "map-legend" }, `${names.length.toLocaleString("en")} kinds`);
  return h("ul", { class: "map-legend" }, names.map((name, i) => {
    const swatch = h("i", { class: "swatch" });
    swatch.style.background = css(colour(i, names.length));
    return h("li", {}, swatch, name);
  }));
}
