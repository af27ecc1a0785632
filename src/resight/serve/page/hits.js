// What a search found: a verdict in words first, then the objects, the nearest first.

import { ask } from "./api.js";
import { button, count, h, icon } from "./dom.js";
import { notice, trouble } from "./notices.js";
import { matchesOf } from "./matches.js";
import { link } from "./state.js";
import { tile } from "./tiles.js";

/** A probability in words, for those who do not think in percent. */
export function inWords(p) {
  if (p >= 0.95) return "very likely";
  if (p >= 0.75) return "likely";
  if (p >= 0.4) return "possibly";
  if (p >= 0.1) return "unlikely";
  return "very unlikely";
}

export function percent(p) {
  if (p > 0.99 && p < 1) return "> 99 %";
  if (p < 0.01) return "< 1 %";
  return `${Math.round(p * 100)} %`;
}

const nameOf = (hit) => hit.object ?? "Without a name";

export function verdict(answer, search) {
  const [best] = answer.hits;
  if (search.like) return { title: `Like ${search.like}`, words: "The other objects, the most alike first." };
  if (!best) return { title: "Nothing passes these filters", words: "Clear a filter to search more of the gallery." };
  if (answer.no_match) {
    return { title: "Not in the gallery", tone: "none",
      words: "Things that are not here come as near as this, too. The nearest are shown all the same, with how likely each is if it is here after all." };
  }
  if (best.probability === null || best.probability === undefined) {
    return { title: nameOf(best), before: "The nearest is",
      words: "This level is not calibrated, so likenesses are shown in place of probabilities." };
  }
  const words = inWords(best.probability);
  return { title: nameOf(best), before: `${words[0].toUpperCase()}${words.slice(1)} · ${percent(best.probability)}`, tone: "found" };
}

const leads = (answer, search) => answer.hits.length > 0 && !answer.no_match && !search.like;

/** The verdict on its own, where no hit leads. */
export function verdictBox(answer, search) {
  if (leads(answer, search)) return "";
  const { title, before, words, tone = "" } = verdict(answer, search);
  return h("header", { class: `verdict ${tone}` },
    before && h("p", { class: "before" }, before),
    h("h1", { tabIndex: -1 }, title),
    words && h("p", { class: "after" }, words));
}

/** For a screen reader, when the answer is there. */
export function said(answer, search) {
  const { title, before } = verdict(answer, search);
  return `${before ? `${before}: ` : ""}${title}. ${count(answer.hits.length, "object")} shown.`;
}

/** The list of hits: where the best may be the thing, it leads, and the verdict is its heading. */
export function hitList(answer, { search, addTo }) {
  const first = leads(answer, search);
  return h("ol", { class: "hits" }, answer.hits.map((hit, at) =>
    card(hit, answer, search, addTo, first && at === 0 ? verdict(answer, search) : null)));
}

const isSure = (hit) => hit.probability !== null && hit.probability !== undefined;
/** A probability is that of a hit given that the thing is in the gallery at all. */
function sureness(hit, answer) {
  if (!isSure(hit)) return `likeness ${hit.similarity.toFixed(2)}`;
  return answer.no_match ? `if here, ${percent(hit.probability)}` : `${inWords(hit.probability)} · ${percent(hit.probability)}`;
}

/** Where every image stands for itself, their number says nothing of the object. */
const images = (hit, answer) => (answer.level === "image" ? null : count(hit.images, "image"));

function card(hit, answer, search, addTo, lead) {
  const name = nameOf(hit);
  const same = { level: search.level, filters: search.filters };
  const from = link({ view: "search", image: String(hit.image), ...same });
  const to = hit.object === null ? from : link({ view: "gallery", object: hit.object });
  // Right or wrong is said of a picture: there is none in a search by an object's name.
  const answers = search.like ? null : answerButtons(hit, answer, search, Boolean(lead));
  const adds = addTo && hit.object !== null;
  const row = h("div", { class: "hit-row" }, answers?.element,
    h("a", { ...from, class: lead ? "as-button quiet" : "bare", title: "Search from this",
      "aria-label": `Search from this image of ${name}` }, icon("again"), lead && h("span", {}, "Search from this")),
    adds && button(lead ? "Add the photo" : `Add the photo to ${name}`, "plus", () => addTo(hit.object),
      { bare: !lead, class: lead ? "quiet" : "bare", title: `Add the photo to ${name}` }),
    matchesOf(hit, search, Boolean(lead)));
  const item = h("li", { class: `hit${lead ? " best" : ""}`, data: { image: hit.image } },
    h("a", { ...to, class: "hit-open", title: hit.why || null,
      "aria-label": [name, sureness(hit, answer), images(hit, answer)].filter(Boolean).join(", ") },
    tile(hit.image, name)),
    h("div", { class: "hit-words" }, lead ? leadWords(hit, lead, to, images(hit, answer)) : [
      h("a", { ...to, class: "hit-name", tabIndex: -1 }, name),
      h("p", { class: "sure" }, h("span", {}, sureness(hit, answer)), images(hit, answer) && h("span", {}, images(hit, answer))),
      meter(hit)], row));
  item.answer = answers?.press;
  return item;
}

function leadWords(hit, { before, title, words, tone }, to, many) {
  const facts = Object.entries(hit.columns ?? {}).filter(([, value]) => value !== null && value !== "").slice(0, 4);
  return [h("header", { class: `verdict ${tone ?? ""}` },
    h("p", { class: "before" }, before),
    h("h1", { tabIndex: -1 }, title)),
  h("p", { class: "facts" }, hit.object !== null && h("a", to, many ? `All ${many}` : "All its images"),
    facts.map(([column, value]) => h("span", {}, `${column} `, h("b", {}, String(value))))),
  words && h("p", { class: "faint" }, words)];
}

function meter(hit) {
  const bar = h("span", { class: "meter" }, h("i"));
  bar.firstChild.style.width = `${Math.max(2, 100 * Math.max(0, isSure(hit) ? hit.probability : hit.similarity))}%`;
  return bar;
}

// --- right and wrong

function answerButtons(hit, answer, search, words) {
  let given = null; // true, false
  let number = null;
  const say = (yes, word) => button(words ? word : `${nameOf(hit)} is ${word.toLowerCase()}`, word.toLowerCase(),
    () => press(yes), { bare: !words, class: `${words ? "quiet" : "bare"} say-${word.toLowerCase()}`, title: `${word} (${word[0].toLowerCase()})` });
  const right = say(true, "Right"), wrong = say(false, "Wrong");
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
    (current ?? items[0]).answer?.(event.key === "r");
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
