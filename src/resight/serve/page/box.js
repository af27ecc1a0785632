// The photo that is searched with, and a box on it: drawn, moved, sized and cleared by pointer or keys.

import { h } from "./dom.js";

const SMALLEST = 0.04; // of a side
const STEP = 0.02;
const CORNERS = ["nw", "ne", "sw", "se"];
const clamp = (v, low = 0, high = 1) => Math.min(high, Math.max(low, v));

/**
 * A stage with a picture. `box` is four fractions or null, `changed(box)` is called when it was
 * set by a person. Gives the element, with `.clear()` and `.begin()` (a box to adjust).
 */
export function boxStage(picture, { box = null, changed, label }) {
  const hint = "box-hint";
  const frame = h("div", { class: "box", hidden: true },
    ...CORNERS.map((at) => h("i", { class: `handle ${at}`, data: { at } })));
  const stage = h("div", {
    class: "stage", tabIndex: 0, role: "group", "aria-label": label,
    "aria-describedby": hint, "aria-roledescription": "photo with a box",
  }, picture, frame, h("span", { id: hint, class: "unseen" },
    "Press Enter for a box, arrow keys to move it, with Shift to size it, Delete to clear it."));

  const show = () => {
    frame.hidden = !box;
    if (!box) return;
    frame.style.left = `${box[0] * 100}%`;
    frame.style.top = `${box[1] * 100}%`;
    frame.style.width = `${(box[2] - box[0]) * 100}%`;
    frame.style.height = `${(box[3] - box[1]) * 100}%`;
  };
  const set = (next) => { box = next; show(); changed(box); };

  // --- pointer
  let drag = null;
  const at = (event) => {
    const r = stage.getBoundingClientRect();
    return [clamp((event.clientX - r.left) / r.width), clamp((event.clientY - r.top) / r.height)];
  };
  stage.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    const handle = event.target.dataset?.at;
    const inside = event.target === frame;
    // A finger on the bare photo scrolls the page; the button gives it a box to take hold of.
    if (event.pointerType === "touch" && !handle && !inside) return;
    const from = at(event);
    if (handle) drag = { fixed: opposite(box, handle), before: box };
    else if (inside) drag = { from, start: box, before: box };
    else drag = { fixed: from, before: box };
    stage.setPointerCapture(event.pointerId);
    event.preventDefault();
    stage.focus({ preventScroll: true });
  });
  stage.addEventListener("pointermove", (event) => {
    if (!drag) return;
    const [x, y] = at(event);
    if (drag.start) box = moved(drag.start, x - drag.from[0], y - drag.from[1]);
    else {
      const [fx, fy] = drag.fixed;
      box = [Math.min(x, fx), Math.min(y, fy), Math.max(x, fx), Math.max(y, fy)];
    }
    show();
  });
  const end = (event) => {
    if (!drag) return;
    const { before } = drag;
    drag = null;
    const large = box && box[2] - box[0] >= SMALLEST && box[3] - box[1] >= SMALLEST;
    if (event.type === "pointercancel" || !large) { box = before; show(); return; }
    if (String(box) !== String(before)) changed(box);
  };
  stage.addEventListener("pointerup", end);
  stage.addEventListener("pointercancel", end);

  // --- keys
  stage.addEventListener("keydown", (event) => {
    if (event.target !== stage) return;
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (event.key === "Enter" && !box) begin();
    else if ((event.key === "Delete" || event.key === "Backspace") && box) set(null);
    else if (way && box && event.shiftKey) {
      set([box[0], box[1], clamp(box[2] + way[0] * STEP, box[0] + SMALLEST),
        clamp(box[3] + way[1] * STEP, box[1] + SMALLEST)]);
    } else if (way && box) set(moved(box, way[0] * STEP, way[1] * STEP));
    else return;
    event.preventDefault();
    event.stopPropagation();
  });

  function begin() {
    set([0.2, 0.2, 0.8, 0.8]);
    stage.focus({ preventScroll: true });
  }
  show();
  return Object.assign(stage, { begin, clear: () => set(null), put: (b) => { box = b; show(); } });
}

function opposite(box, corner) {
  return [corner.includes("w") ? box[2] : box[0], corner.includes("n") ? box[3] : box[1]];
}

function moved([x1, y1, x2, y2], dx, dy) {
  const [mx, my] = [clamp(dx, -x1, 1 - x2), clamp(dy, -y1, 1 - y2)];
  return [x1 + mx, y1 + my, x2 + mx, y2 + my];
}
