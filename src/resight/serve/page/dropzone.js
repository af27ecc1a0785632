// Every way in for a photo: dropped anywhere, pasted, chosen, shot.

import { h, button } from "./dom.js";
import { keep, readPhoto } from "./photos.js";
import { notice } from "./notices.js";
import { go, read } from "./state.js";

const MOST = 8;
let most = MOST;

/** Takes files as a new query, or `add`s them to the photos that are searched with. */
export async function take(files, { add = [] } = {}) {
  const pictures = [...files].filter((f) => f.type.startsWith("image/") || /\.(hei[cf]|avif)$/i.test(f.name ?? ""));
  if (!pictures.length) {
    if (files.length) notice("That is not a picture. JPEG, PNG and WebP are read.", { kind: "trouble" });
    return;
  }
  const room = most - add.length;
  if (pictures.length > room)
    notice(`A search takes ${most} photos at most; the first ${most} are used.`);
  const photos = [...add, ...(await Promise.all(pictures.slice(0, room).map(readPhoto)))];
  const { level, filters } = read(); // what was set for the last search holds for the next
  go({ view: "search", level, filters, photos: keep(photos) });
}

/** A button that opens the file chooser; with `capture` the camera, on devices that have one. */
export function chooser(words, name, { capture = false, add, className = "", several = true } = {}) {
  const input = h("input", {
    type: "file", accept: "image/*", multiple: several && !capture, class: "hidden", tabIndex: -1,
    "aria-hidden": "true", // the button speaks for it
    onchange: () => { take([...input.files], { add: add?.() }); input.value = ""; },
  });
  if (capture) input.setAttribute("capture", "environment");
  return h("span", { class: capture ? "camera" : "" },
    button(words, name, () => input.click(), { class: className }), input);
}

/** The large field of the first view. */
export function dropzone() {
  return h("div", { class: "finder" },
    ...["nw", "ne", "sw", "se"].map((at) => h("i", { class: `corner ${at}` })),
    h("p", { class: "finder-words" },
      h("span", { class: "fine-only" }, "Drop a photo here, or paste one"),
      h("span", { class: "coarse-only" }, "Take a photo of it, or choose one")),
    h("div", { class: "row" },
      chooser("Take a photo", "photo", { capture: true, className: "primary large" }),
      chooser("Choose photos", "images", { className: "large choose" })),
    h("p", { class: "faint" }, "Several photos of one thing make one search."));
}

/** Dropping works on the whole page, and pasting wherever no text is being typed. */
export function listen(limits) {
  most = limits?.photos ?? MOST;
  let depth = 0; // dragenter and dragleave come for every element passed over
  const over = (on) => document.body.classList.toggle("dragging", on);
  addEventListener("dragenter", (event) => {
    if (event.dataTransfer?.types.includes("Files")) { depth += 1; over(true); }
  });
  addEventListener("dragleave", () => { depth = Math.max(0, depth - 1); if (!depth) over(false); });
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    depth = 0;
    over(false);
    take(event.dataTransfer.files);
  });
  addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (!files.length) return; // text goes where it was meant
    event.preventDefault();
    take(files);
  });
}
