// Moving over the map: pointer, fingers, wheel and keys; and what a ring holds.

/** Pointer, fingers, wheel and keys. */
export function listen(canvas, to) {
  const fingers = new Map();
  let start = null, ring = null;
  const place = (e) => { const r = canvas.getBoundingClientRect(); return [e.clientX - r.left, e.clientY - r.top]; };
  canvas.addEventListener("pointerdown", (e) => {
    canvas.setPointerCapture(e.pointerId);
    fingers.set(e.pointerId, place(e));
    start = { at: place(e), moved: fingers.size > 1 };
    to.name.hidden = true;
    ring = to.lasso() && fingers.size === 1 ? [place(e)] : null;
    to.path(ring);
  });
  canvas.addEventListener("pointermove", (e) => {
    const now = place(e);
    const before = fingers.get(e.pointerId);
    if (!before) {
      const words = e.pointerType === "mouse" && to.named(...now);
      to.name.hidden = !words;
      if (words) { to.name.textContent = words; to.name.style.translate = `${now[0] + 14}px ${now[1] + 14}px`; }
      return;
    }
    if (Math.hypot(now[0] - start.at[0], now[1] - start.at[1]) > 4) start.moved = true;
    if (ring) { ring.push(now); to.path(ring); }
    else if (fingers.size === 2) {
      const other = [...fingers].find(([id]) => id !== e.pointerId)[1];
      const span = (a) => Math.hypot(a[0] - other[0], a[1] - other[1]) || 1;
      to.zoom(span(now) / span(before), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
      to.pan((now[0] - before[0]) / 2, (now[1] - before[1]) / 2);
    } else to.pan(now[0] - before[0], now[1] - before[1]);
    fingers.set(e.pointerId, now);
  });
  const up = (e) => {
    fingers.delete(e.pointerId);
    if (ring) {
      const made = ring;
      ring = null;
      to.path(null);
      if (start?.moved && e.type === "pointerup") to.ring(made);
    } else if (start && !start.moved && e.type === "pointerup") to.open(...place(e));
    if (!fingers.size) start = null;
  };
  canvas.addEventListener("pointerup", up);
  canvas.addEventListener("pointercancel", up);
  canvas.addEventListener("pointerleave", () => { to.name.hidden = true; });
  canvas.addEventListener("wheel", (e) => {
    e.preventDefault();
    to.zoom(Math.exp(-e.deltaY * (e.ctrlKey ? 0.01 : 0.0018)), ...place(e));
  }, { passive: false });
  canvas.addEventListener("keydown", (e) => {
    const way = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] }[e.key];
    if (way) to.pan(...way);
    else if (e.key === "+" || e.key === "=") to.zoom(1.4);
    else if (e.key === "-") to.zoom(1 / 1.4);
    else if (e.key === "0") to.fit();
    else if (e.key === "Enter") to.list();
    else return;
    e.preventDefault();
  });
}

/** Whether a point lies in a ring: crossings of a ray, odd. */
export function inside([x, y], ring) {
  let odd = false;
  for (let i = 0, j = ring.length - 1; i < ring.length; j = i++) {
    const [[xi, yi], [xj, yj]] = [ring[i], ring[j]];
    if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) odd = !odd;
  }
  return odd;
}
