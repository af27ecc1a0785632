// What a search found: a verdict in words first, then the objects, the nearest first.

import { ask, showThumbnail, thumbnailOf } from "./api.js";
import { button, count, h, icon } from "./dom.js";
import { notice, trouble } from "./notices.js";
import { link } from "./state.js";

/** A probability in words, for those who do not think in percent. */
export function inWords(p) {
  if (p >= 0.95) return "very likely";
  if (p >= 0.75) return "likely";
  if (p >= 0.4) return "possibly";
  if (p >= 0.1) return "unlikely";
  return "very unlikely";
}

export function percent(p) {
  if (p > 0.99 && p < 1) return "over 99 %";
  if (p < 0.01) return "under 1 %";
  return `${Math.round(p * 100)} %`;
}

const nameOf = (hit) => hit.object ?? "Without a name";

export function verdict(answer) {
  const [best] = answer.hits;
  if (!best) return { title: "Nothing passes these filters", words: "Clear a filter to search more of the gallery." };
  if (answer.no_match) {
    return { title: "Not in the gallery", tone: "none",
      words: "Nothing here comes as near as the same thing would. The nearest are shown all the same." };
  }
  if (best.probability === null || best.probability === undefined) {
    return { title: nameOf(best), before: "The nearest is",
      words: "This gallery is not calibrated yet, so likenesses are shown in place of probabilities." };
  }
  const words = inWords(best.probability);
  return { title: nameOf(best), before: `${words[0].toUpperCase()}${words.slice(1)} · ${percent(best.probability)}`, tone: "found" };
}

export function verdictBox(answer) {
  const { title, before, words, tone = "" } = verdict(answer);
  return h("header", { class: `verdict ${tone}` },
    before && h("p", { class: "before" }, before),
    h("h1", { tabIndex: -1 }, title),
    words && h("p", { class: "after" }, words));
}

/** For a screen reader, when the answer is there. */
export function said(answer) {
  const { title, before } = verdict(answer);
  return `${before ? `${before}: ` : ""}${title}. ${count(answer.hits.length, "object")} shown.`;
}

/** One picture of the gallery, in a square. */
export function tile(path, name) {
  const image = h("img", { alt: name, loading: "lazy", decoding: "async", draggable: false });
  const frame = h("span", { class: "tile" }, image);
  image.addEventListener("load", () => {
    const shape = image.naturalWidth / image.naturalHeight;
    if (shape < 0.7 || shape > 1.43) frame.classList.add("whole"); // cropping would hide the thing
  });
  image.addEventListener("error", () => {
    if (image.getAttribute("src")) frame.classList.add("missing");
  });
  showThumbnail(image, path);
  return frame;
}

/** The list of hits. `feedback(hit, right)` is told of answers; `addTo(object)` where one may add. */
export function hitList(answer, { search, addTo }) {
  return h("ol", { class: "hits" }, answer.hits.map((hit, at) => card(hit, at, answer, search, addTo)));
}

function card(hit, at, answer, search, addTo) {
  const name = nameOf(hit);
  const sure = hit.probability !== null && hit.probability !== undefined;
  const picture = tile(hit.thumbnail ?? thumbnailOf(hit.image), name);
  const to = hit.object === null
    ? link({ view: "search", image: String(hit.image) })
    : link({ view: "gallery", object: hit.object });
  const meter = h("span", { class: "meter" }, h("i"));
  meter.firstChild.style.width = `${Math.max(2, 100 * Math.max(0, sure ? hit.probability : hit.similarity))}%`;
  const answers = answerButtons(hit, answer, search);
  const item = h("li", { class: `hit${at === 0 && !answer.no_match ? " best" : ""}`, data: { image: hit.image } },
    h("a", { ...to, class: "hit-open", title: hit.why || null,
      "aria-label": `${name}, ${sure ? `${inWords(hit.probability)}, ${percent(hit.probability)}` : `likeness ${hit.similarity.toFixed(2)}`}, ${count(hit.images, "image")}` },
    picture),
    h("div", { class: "hit-words" },
      h("a", { ...to, class: "hit-name", tabIndex: -1 }, name),
      h("p", { class: "sure" }, meter, sure
        ? h("span", {}, `${inWords(hit.probability)} · ${percent(hit.probability)}`)
        : h("span", {}, `likeness ${hit.similarity.toFixed(2)}`)),
      h("div", { class: "hit-row" }, answers.element,
        h("a", { ...link({ view: "search", image: String(hit.image), level: search.level, filters: search.filters }),
          class: "bare", "aria-label": `Search from this image of ${name}`, title: "Search from this" }, icon("again")),
        addTo && hit.object !== null && button(`Add the photo to ${name}`, "plus", () => addTo(hit.object), { bare: true, class: "bare" }),
        h("span", { class: "faint" }, count(hit.images, "image")))));
  item.answer = answers.press;
  return item;
}

// --- right and wrong

function answerButtons(hit, answer, search) {
  let given = null; // true, false
  let number = null;
  const right = button(`${nameOf(hit)} is right`, "right", () => press(true), { bare: true, class: "bare say-right", title: "Right (r)" });
  const wrong = button(`${nameOf(hit)} is wrong`, "wrong", () => press(false), { bare: true, class: "bare say-wrong", title: "Wrong (w)" });
  const element = h("span", { class: "answers" }, right, wrong);
  const show = () => {
    right.setAttribute("aria-pressed", given === true);
    wrong.setAttribute("aria-pressed", given === false);
    const item = element.closest(".hit");
    item?.classList.toggle("is-right", given === true);
    item?.classList.toggle("is-wrong", given === false);
  };
  const takeBack = async () => {
    const old = number;
    [given, number] = [null, null];
    show();
    if (old !== null) await ask(`v1/feedback/${old}`, { method: "DELETE" }).catch(trouble);
  };
  async function press(is) {
    if (given === is) return takeBack();
    await takeBack();
    given = is;
    show();
    try {
      const form = new FormData();
      if (search.photos?.[0]) form.append("photo", search.photos[0].sent, "photo.jpg");
      form.append("answer", JSON.stringify({
        hit: hit.image, right: is, query_image: search.image ? Number(search.image) : null,
        request: answer.request ?? null,
      }));
      number = (await ask("v1/feedback", { method: "POST", form })).feedback;
      notice(is ? `Noted: ${nameOf(hit)} is right.` : `Noted: not ${nameOf(hit)}.`, { undo: takeBack });
    } catch (problem) {
      given = null;
      show();
      trouble(problem);
    }
  }
  right.setAttribute("aria-pressed", "false");
  wrong.setAttribute("aria-pressed", "false");
  return { element, press };
}

/** r and w for the hit that has the focus or is pointed at, else the best; arrows go through them. */
export function hitKeys(event) {
  const items = [...document.querySelectorAll(".hit")];
  if (!items.length) return false;
  const current = document.activeElement?.closest(".hit") ?? document.querySelector(".hit:hover");
  if (event.key === "r" || event.key === "w") {
    (current ?? items[0]).answer(event.key === "r");
    return true;
  }
  const way = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (way && document.activeElement?.closest(".hit")) {
    const next = items[items.indexOf(current) + way];
    next?.querySelector("a").focus();
    return true;
  }
  return false;
}
