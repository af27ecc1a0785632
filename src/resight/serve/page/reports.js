// The evaluations that exist: their figures at a glance, and each report as it was written.

import { ask, placeOf, query } from "./api.js";
import { count, h, icon } from "./dom.js";
import { errorBox } from "./notices.js";
import { link, read } from "./state.js";
import { endless } from "./tiles.js";

const PAGE = 40;

export function reportsView(root) {
  let shown = null;

  function update(state) {
    const key = state.report ?? "list";
    if (key === shown) return;
    shown = key;
    if (state.report) one(root, state.report, again);
    else list(root);
  }

  function again() {
    shown = null;
    update(read());
  }

  return { update, again };
}

function list(root) {
  const total = h("p", { class: "faint total", role: "status" });
  const rows = h("ul", { class: "reports" });
  root.replaceChildren(h("section", { class: "browse" },
    h("header", { class: "browse-head" }, h("div", {}, h("h1", { tabIndex: -1 }, "Reports"), total)),
    h("div", {}, rows)));
  endless(rows, (offset) => ask(query("v1/reports", { offset, limit: PAGE })),
    (page) => page.reports.map(entry), {
      first: (page) => (total.textContent = count(page.total, "report")),
      empty: () => h("li", { class: "state" }, h("h2", {}, "No reports"),
        h("p", {}, "Start the service with --reports and a folder of evaluations.")),
    });
}

const percent = (v) => (100 * v).toFixed(1);

function entry(report) {
  const main = report.scores[0];
  const rest = report.scores.slice(1);
  const title = h("span", { class: "report-title" }, report.title);
  return h("li", { class: "report" },
    h("div", { class: "report-words" },
      report.page ? h("a", link({ view: "reports", report: report.report }), title) : title,
      h("p", { class: "faint" }, [main && main.title, day(report.when), main?.queries && `${count(main.queries, "query", "queries")}`]
        .filter(Boolean).join(" · ")),
      rest.length > 0 && h("p", { class: "faint" }, rest.map((score) =>
        `${score.protocol || score.title}: ${score.primary} ${percentOf(score)}`).join(" · "))),
    main && h("dl", { class: "figures" }, Object.entries(main.figures).slice(0, 4).map(([name, value], at) =>
      h("div", { class: at ? "" : "main" }, h("dt", {}, name), h("dd", {}, percent(value),
        !at && main.interval && main.interval[0] !== null && h("small", {}, `${percent(main.interval[0])} – ${percent(main.interval[1])}`))))));
}

const percentOf = (score) => (score.primary in score.figures ? percent(score.figures[score.primary]) : "–");

function day(when) {
  const date = new Date(when ?? NaN);
  return Number.isNaN(date.getTime()) ? "" : date.toLocaleDateString("en", { year: "numeric", month: "short", day: "numeric" });
}

async function one(root, id, again) {
  const place = h("div", { class: "report-page", "aria-busy": "true" });
  root.replaceChildren(h("section", { class: "browse" },
    h("p", {}, h("a", { ...link({ view: "reports" }), class: "way-back" }, icon("back"), " All reports")), place));
  try {
    const report = await ask(`v1/reports/${encodeURIComponent(id)}`);
    if (!place.isConnected) return;
    if (!report.page) throw new Error("There is no page of this evaluation; resight report makes one.");
    const frame = h("iframe", { title: report.title, src: placeOf(report.page) });
    frame.setAttribute("sandbox", ""); // nothing in it runs, and it is of no origin
    place.removeAttribute("aria-busy");
    place.replaceChildren(h("header", { class: "browse-head" }, h("h1", { tabIndex: -1 }, report.title),
      h("a", { href: placeOf(report.page), target: "_blank", rel: "noopener", class: "as-button" }, "In a tab of its own")), frame);
  } catch (problem) {
    place.replaceChildren(errorBox(problem, again));
  }
}
