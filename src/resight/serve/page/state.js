// What is shown, held by the address, so that a link opens it again and "back" goes back.
//
//   ?image=17&level=both&f.brand=A&f.price=5..20      a search from an image of the gallery
//   ?view=gallery&object=red+shoe                     an object
// A photo cannot stand in an address: history.state has a number for it (see photos.js).

const PLAIN = ["view", "image", "like", "level", "rerank", "box", "object", "q", "tab", "by", "at", "report"];
const followers = new Set();

/** The state an address says: plain words, `filters` {column: [values]}, `photos` a number. */
export function read(search = location.search, kept = history.state) {
  const words = new URLSearchParams(search);
  const state = { view: "search", filters: {}, photos: kept?.photos ?? null };
  for (const name of PLAIN) if (words.get(name)) state[name] = words.get(name);
  for (const [name, value] of words)
    if (name.startsWith("f.")) (state.filters[name.slice(2)] ??= []).push(value);
  return state;
}

export function addressOf(state) {
  const words = new URLSearchParams();
  for (const name of PLAIN)
    if (state[name] && !(name === "view" && state.view === "search")) words.set(name, state[name]);
  for (const [name, values] of Object.entries(state.filters ?? {}))
    for (const value of values) words.append(`f.${name}`, value);
  const text = words.toString();
  return location.pathname + (text ? `?${text}` : "");
}

/** Shows another state. With `replace` no step is left in the history (a box being adjusted). */
export function go(state, { replace = false } = {}) {
  const next = { filters: {}, ...state };
  const kept = next.photos ? { photos: next.photos } : null;
  history[replace ? "replaceState" : "pushState"](kept, "", addressOf(next));
  tell({ moved: !replace });
}

export function change(parts, options) {
  go({ ...read(), ...parts }, options);
}

export function follow(task) {
  followers.add(task);
}

function tell(how) {
  const state = read();
  for (const task of followers) task(state, how);
}

addEventListener("popstate", () => tell({ moved: true, back: true }));

/** Props of a real link to a state: opened in a tab by the browser, shown at once by us. */
export function link(state) {
  return {
    href: addressOf(state),
    onclick: (event) => {
      if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey || event.button) return;
      event.preventDefault();
      go(state);
    },
  };
}
