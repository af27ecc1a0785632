// Elements without a library. Text only ever enters as text nodes: names in a gallery are data.

const SVG = "http://www.w3.org/2000/svg";

// Lines on a 24 × 24 field; one path each.
const ICONS = {
  photo: "M4 7h3l1.6-2.5h6.8L17 7h3v12H4zM12 16.4a3.6 3.6 0 1 0 0-7.2 3.6 3.6 0 0 0 0 7.2z",
  images: "M4 8h12v12H4zM8 8V4h12v12h-4",
  right: "M5 12.5l4.6 4.6L19.5 7",
  wrong: "M6.5 6.5l11 11M17.5 6.5l-11 11",
  again: "M10.5 17a6.5 6.5 0 1 0 0-13 6.5 6.5 0 0 0 0 13zM15.3 15.3L20.5 20.5",
  box: "M4 9V4h5M15 4h5v5M20 15v5h-5M9 20H4v-5",
  plus: "M12 5v14M5 12h14",
  minus: "M5 12h14",
  lines: "M4 7a2 2 0 1 0 4 0a2 2 0 1 0-4 0M16 17a2 2 0 1 0 4 0a2 2 0 1 0-4 0M16 6a2 2 0 1 0 4 0a2 2 0 1 0-4 0M8 7h8M7.4 8.5l9.2 7",
  bin: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
  move: "M4 12h15M13 6l6 6-6 6",
  back: "M20 12H5M11 6l-6 6 6 6",
  light: "M12 16a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM12 2.5v2M12 19.5v2M2.5 12h2M19.5 12h2M5.3 5.3l1.4 1.4M17.3 17.3l1.4 1.4M18.7 5.3l-1.4 1.4M6.7 17.3l-1.4 1.4",
  dark: "M19.5 14.5A8 8 0 0 1 9.5 4.5a8 8 0 1 0 10 10z",
  auto: "M12 20a8 8 0 1 0 0-16 8 8 0 0 0 0 16zM12 4v16M12 8h3.5M12 12h4M12 16h3.5",
  filter: "M4 6h16M7 12h10M10 18h4",
  lasso: "M12 4c5 0 8.5 2.4 8.5 5.6S17 15 12 15s-8.5-2.2-8.5-5.4S7 4 12 4zM8 14.6c-1.6 1.4-1.4 3.4.6 4.4",
};

/** An icon; it says nothing to a screen reader, the control around it does. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("class", "icon");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

/** An element: `on…` are listeners, `class` and `aria-…` attributes, all else properties. */
export function h(tag, given = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "data") Object.assign(element.dataset, value);
    else if (name === "class" || name === "role" || name === "for" || name.includes("-"))
      element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.flat(3).filter((c) => c !== null && c !== undefined && c !== false));
  return element;
}

/** A button with an icon, and words where there is room for them. */
export function button(words, name, onclick, more = {}) {
  const { bare, ...given } = more;
  const label = bare ? { "aria-label": words, title: words } : {};
  return h("button", { type: "button", onclick, ...label, ...given },
    name && icon(name), !bare && h("span", {}, words));
}

export const count = (n, one, many = `${one}s`) =>
  `${n.toLocaleString("en")} ${n === 1 ? one : many}`;

/** Runs `task` once things have been quiet for `wait` milliseconds. */
export function quiet(task, wait = 200) {
  let timer;
  return (...args) => {
    clearTimeout(timer);
    timer = setTimeout(() => task(...args), wait);
  };
}

/** Calls `task` when `element` comes near the window; gives the way to stop. */
export function nearby(element, task, margin = "600px") {
  const watch = new IntersectionObserver(
    (seen) => seen.some((entry) => entry.isIntersecting) && task(), { rootMargin: margin });
  watch.observe(element);
  return () => watch.disconnect();
}
