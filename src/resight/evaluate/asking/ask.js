"use strict";
const { design, photos, shown } = JSON.parse(document.getElementById("content").textContent);
const at = (id) => document.getElementById(id);
const place = "resight ask " + design.id;
const KEYS = { s: "same", d: "different", c: "unsure", " ": "unsure" };
const WORDS = { same: "same", different: "different", unsure: "can’t say" };
let answers = kept();
let now = shown.findIndex((_, k) => !answers[k]);
if (now < 0) now = shown.length;

// A browser may keep nothing for a file, or forbid it; then the answers live as long as the page.
function kept() {
  try {
    const found = JSON.parse(localStorage.getItem(place)) ?? {};
    const right = Object.entries(found).filter(([k, v]) => shown[k] && Object.hasOwn(WORDS, v));
    return Object.fromEntries(right);
  } catch {
    return {};
  }
}

function keep() {
  try {
    localStorage.setItem(place, JSON.stringify(answers));
  } catch {}
}

function file() {
  const saved = new Date().toISOString();
  return JSON.stringify({ format: 1, kind: "answers", saved, design, answers }, null, 1) + "\n";
}

function draw() {
  const over = now >= shown.length;
  for (const id of ["pictures", "choices"]) at(id).hidden = over;
  at("done").hidden = !over;
  const count = Object.keys(answers).length;
  at("bar").value = count;
  at("count").textContent = `${Math.min(now + 1, shown.length)} of ${shown.length}`;
  at("back").disabled = now === 0;
  at("text").value = file();
  if (over) {
    const sums = Object.entries(WORDS).map(([word, said]) => {
      const times = Object.values(answers).filter((one) => one === word).length;
      return `${times} ${said}`;
    });
    at("sums").textContent = sums.join(", ");
    return;
  }
  ["left", "right"].forEach((side, k) => {
    const source = photos[shown[now][k]];
    at(side).src = source || "data:,";
    at(side).alt = (k ? "Right" : "Left") + (source ? " photo" : " photo, which can’t be shown");
  });
  for (const button of document.querySelectorAll("[data-answer]"))
    button.setAttribute("aria-pressed", String(answers[now] === button.dataset.answer));
}

// The focus goes to the question, so that Space says "can't say" and presses no button.
function go(to, said) {
  now = to;
  draw();
  const over = now >= shown.length;
  const next = over ? "All pairs answered" : `Pair ${now + 1} of ${shown.length}`;
  at("heard").textContent = said ? `${said}. ${next}` : next;
  at(over ? "all" : "question").focus({ preventScroll: true });
}

function answer(word) {
  if (now >= shown.length) return;
  answers[now] = word;
  keep();
  go(now + 1, WORDS[word]);
}

function back() {
  if (now > 0) go(now - 1, "");
}

function save() {
  const link = document.createElement("a");
  const address = URL.createObjectURL(new Blob([file()], { type: "application/json" }));
  link.href = address;
  link.download = "answers.json";
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 60000);
  at("text").value = file();
  at("copying").open = true;
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const on = event.target.closest?.("button, summary, textarea");
  if (on?.id === "text" || (on && event.key === " ")) return;
  if (event.key === "ArrowLeft") back();
  else if (Object.hasOwn(KEYS, event.key.toLowerCase())) answer(KEYS[event.key.toLowerCase()]);
  else return;
  event.preventDefault();
});
for (const button of document.querySelectorAll("[data-answer]"))
  button.addEventListener("click", () => answer(button.dataset.answer));
at("back").addEventListener("click", back);
at("save").addEventListener("click", save);
draw();
