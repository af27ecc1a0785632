// Filters made from the gallery's own columns, and the level: what is compared.

import { button, count, h, quiet } from "./dom.js";
import { change, read } from "./state.js";

const LEVELS = {
  image: ["Image", "Each image on its own; an object once, by its most similar image"],
  object: ["Object", "All images of an object together"],
  both: ["Both", "Objects as a whole, each shown by its most similar image"],
};
const RERANKS = {
  aqe: "Mean with the nearest", dba: "Neighbours' means", kreciprocal: "Mutual neighbours",
  diffusion: "Diffusion over the gallery", spatial: "Geometry of matched points",
};
const CHIPS = 8; // values; more become a list to choose from

/** {brand: ["A", "B"], price: ["5..20"]} as the filter language has it; "" for none. */
export function whereOf(filters, columns) {
  const kinds = new Map((columns ?? []).map((c) => [c.name, c.kind]));
  const name = (column) => "`" + column.replaceAll("`", "``") + "`";
  const text = (value) => `'${value.replaceAll("'", "''")}'`;
  const parts = [];
  for (const [column, values] of Object.entries(filters)) {
    if (!kinds.has(column)) continue; // of another gallery
    if (kinds.get(column) === "number") {
      const [low, high] = values[0].split("..");
      if (isNumber(low)) parts.push(`${name(column)} >= ${low}`);
      if (isNumber(high)) parts.push(`${name(column)} <= ${high}`);
    } else parts.push(`${name(column)} in (${values.map(text).join(", ")})`);
  }
  return parts.join(" and ");
}

const isNumber = (text) => text !== undefined && text !== "" && Number.isFinite(Number(text));

/** The controls; they write to the address, which starts the search. */
export function controls(gallery, state) {
  const level = state.level ?? gallery.level;
  const levels = h("fieldset", { class: "levels" }, h("legend", {}, "Compare by"),
    h("div", { class: "segments" }, Object.entries(LEVELS).map(([value, [words, title]]) =>
      h("label", { title }, h("input", {
        type: "radio", name: "level", value, checked: value === level,
        onchange: () => change({ level: value === gallery.level ? undefined : value }),
      }), h("span", {}, words)))));
  const again = rerank(gallery, state);
  const columns = (gallery.columns ?? []).filter((c) => c.kind === "number" || c.values?.length > 1);
  const set = Object.values(state.filters).flat().length;
  const wide = matchMedia("(min-width: 60rem)").matches;
  if (!columns.length && wide) return [levels, again];
  return [wide && levels, wide && again, h("details", { class: "filters", open: set > 0 || wide },
    h("summary", {}, wide ? "Filters" : "Filters and level", h("span", { class: "badge", hidden: !set }, String(set))),
    !wide && levels, !wide && again,
    columns.map((column) => (column.kind === "number" ? range : choice)(column, state.filters)),
    columns.length > 0 && button("Clear filters", "wrong", () => {
      change({ filters: {} });
      for (const input of document.querySelectorAll(".filters :is(input:not([type=radio]), select)")) {
        if (input.type === "checkbox") input.checked = false; else input.value = "";
      }
    }, { class: "quiet clear-filters" }))];
}

/** The ways to look at the nearest once more that the service offers, as "rerank:NAME". */
export const rerankings = (gallery) => (gallery.offers ?? [])
  .filter((one) => one.startsWith("rerank:")).map((one) => one.slice("rerank:".length));

function rerank(gallery, state) {
  const ways = rerankings(gallery);
  if (!ways.length) return null;
  const said = (way) => way.split("+").map((part) => RERANKS[part] ?? part).join(", then ").toLowerCase();
  const select = h("select", { id: "rerank", onchange: () => change({ rerank: select.value || undefined }) },
    h("option", { value: "" }, "as they are nearest"),
    ways.map((way) => h("option", { value: way, selected: way === state.rerank }, said(way))));
  return h("div", { class: "field" }, h("label", { for: "rerank" }, "Ordered by"), select);
}

function write(column, values) {
  const filters = { ...read().filters };
  if (values.length) filters[column] = values; else delete filters[column];
  change({ filters });
  const badge = document.querySelector(".filters .badge");
  const set = Object.values(filters).flat().length;
  badge.textContent = set;
  badge.hidden = !set;
}

function choice({ name, values }, filters) {
  const chosen = () => read().filters[name] ?? [];
  const toggle = (value, on) =>
    write(name, on ? [...chosen(), value] : chosen().filter((other) => other !== value));
  if (values.length <= CHIPS) {
    return h("fieldset", {}, h("legend", {}, name), h("div", { class: "chips" },
      values.map((value) => h("label", { class: "chip" }, h("input", {
        type: "checkbox", checked: (filters[name] ?? []).includes(String(value)),
        onchange: (event) => toggle(String(value), event.target.checked),
      }), h("span", {}, String(value))))));
  }
  const id = `filter-${name}`;
  const select = h("select", { id, onchange: () => write(name, select.value ? [select.value] : []) },
    h("option", { value: "" }, "any"),
    values.map((v) => h("option", { value: v, selected: filters[name]?.[0] === String(v) }, String(v))));
  return h("div", { class: "field" }, h("label", { for: id }, name), select);
}

function range({ name }, filters) {
  const [low, high] = (filters[name]?.[0] ?? "..").split("..");
  const set = quiet(() => {
    const [a, b] = [from.value.trim(), to.value.trim()];
    write(name, a || b ? [`${a}..${b}`] : []);
  }, 400);
  const end = (value, words) => h("input", {
    type: "number", step: "any", value, placeholder: words, "aria-label": `${name}, ${words}`, oninput: set,
  });
  const [from, to] = [end(low, "from"), end(high, "to")];
  return h("fieldset", {}, h("legend", {}, name), h("div", { class: "range" }, from, h("span", {}, "–"), to));
}

export const filtersSaid = (filters) => {
  const set = Object.keys(filters).length;
  return set ? `among what passes ${count(set, "filter")}` : "";
};
