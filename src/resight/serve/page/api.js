// The one place that talks to the service. Addresses are relative: the page may live below a path.

const KEY = "resight-key";
let askForKey = async () => null; // set by the app; asks a person
let asking = null; // one question, however many requests wait for its answer

export class Problem extends Error {
  constructor(status, detail, retry = null) {
    super(detail);
    this.status = status;
    this.retry = retry; // seconds
  }
}

export function onKeyNeeded(ask) {
  askForKey = ask;
}

export const hasKey = () => Boolean(sessionStorage.getItem(KEY));

export function forgetKey() {
  sessionStorage.removeItem(KEY);
}

const address = (path) => new URL(path.replace(/^\//, ""), document.baseURI);

function headers(more = {}) {
  const key = sessionStorage.getItem(KEY);
  return key ? { ...more, Authorization: `Bearer ${key}` } : more;
}

async function problemOf(answer) {
  const retry = Number(answer.headers.get("Retry-After")) || null;
  let detail = "";
  try {
    const told = await answer.json();
    detail = told.detail || told.title || "";
  } catch {
    // not the service's own answer, a proxy's perhaps
  }
  if (answer.status === 429) {
    detail = `Many are asking at the moment. Try again in ${retry === 1 ? "a second" : `${retry || 5} seconds`}.`;
  }
  if (!detail) detail = `The service answered ${answer.status} ${answer.statusText}`.trim() + ".";
  return new Problem(answer.status, detail, answer.status === 429 ? retry || 5 : retry);
}

async function send(path, options) {
  for (;;) {
    let answer;
    const used = sessionStorage.getItem(KEY);
    try {
      answer = await fetch(address(path), { ...options, headers: headers(options.headers) });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Problem(0, "The service does not answer. Is it still running, and are you online?");
    }
    if (answer.ok) return answer;
    if (answer.status !== 401) throw await problemOf(answer);
    if (used === sessionStorage.getItem(KEY)) { // else another request was given a key meanwhile
      asking ??= askForKey(Boolean(used)).finally(() => (asking = null));
      const key = await asking;
      if (!key) throw new Problem(401, "A key is needed. Whoever runs this service can give you one.");
      sessionStorage.setItem(KEY, key);
    }
  }
}

/** An answer in JSON; null where there is none to give. */
export async function ask(path, { method = "GET", json, form, signal, keepalive } = {}) {
  const options = { method, signal, keepalive };
  if (json !== undefined) {
    options.body = JSON.stringify(json);
    options.headers = { "Content-Type": "application/json" };
  } else if (form) options.body = form;
  const answer = await send(path, options);
  return answer.status === 204 ? null : answer.json();
}

export function query(path, given) {
  const words = new URLSearchParams();
  for (const [name, value] of Object.entries(given))
    if (value !== undefined && value !== null && value !== "") words.set(name, value);
  const text = words.toString();
  return text ? `${path}?${text}` : path;
}

const LARGE = 170; // pixels of the screen above which a thumbnail looks blown up

/**
 * Shows an image of the gallery in an <img>: its thumbnail when it comes near the window, and the
 * larger picture after it where it is shown that large. With a key they are fetched, for an <img>
 * cannot carry one.
 */
export function showPicture(image, id) {
  if (!hasKey()) image.src = address(thumbnailOf(id));
  const watch = new IntersectionObserver(async (seen) => {
    if (!seen.some((entry) => entry.isIntersecting)) return;
    watch.disconnect();
    const large = Math.max(image.clientWidth, image.clientHeight) * devicePixelRatio > LARGE;
    try {
      if (hasKey()) await put(image, thumbnailOf(id));
    } catch {
      image.dispatchEvent(new Event("error"));
    }
    if (large) await put(image, pictureOf(id)).catch(() => {}); // the thumbnail stays
  }, { rootMargin: "300px" });
  watch.observe(image);
}

/** Another picture in an <img>, once it is there whole. */
async function put(image, path) {
  const held = hasKey() ? URL.createObjectURL(await blobOf(path)) : String(address(path));
  const ready = new Image();
  ready.src = held;
  await ready.decode();
  const freed = () => held.startsWith("blob:") && URL.revokeObjectURL(held);
  image.addEventListener("load", freed, { once: true });
  image.src = held;
}

/** The bytes of a picture. */
export const blobOf = async (path) => (await send(path, { method: "GET" })).blob();

export const thumbnailOf = (id) => `v1/images/${id}/thumbnail`;
export const pictureOf = (id) => `v1/images/${id}/picture`;

/** The image that an address of its thumbnail is of. */
export const imageOf = (path) => /images\/(\d+)/.exec(path ?? "")?.[1] ?? null;

/** An address of the service, for a frame or a tab. */
export const placeOf = (path) => String(address(path));
