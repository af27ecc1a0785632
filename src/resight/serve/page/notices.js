// Words to the person: what a screen reader hears, what stands at the foot with "Undo", questions.

import { h, button } from "./dom.js";

const STAY = 8000; // milliseconds
let current = null;

/** Says something to a screen reader only. */
export function say(words) {
  const live = document.getElementById("live");
  live.textContent = "";
  setTimeout(() => (live.textContent = words), 50); // a change is what is read out
}

/**
 * A line at the foot for a few seconds. `undo` takes the step back; `then` runs when it is too
 * late for that (also when the page is left), so that nothing is lost that can still be undone.
 */
export function notice(words, { undo, then, kind = "" } = {}) {
  current?.finish();
  const place = document.getElementById("notices");
  const line = h("div", { class: `notice ${kind}` }, h("span", {}, words));
  let open = true;
  let timer = setTimeout(() => finish(), STAY);
  const finish = (undone = false, leaving = false) => {
    if (!open) return;
    open = false;
    clearTimeout(timer);
    line.remove();
    if (current === mine) current = null;
    if (!undone) then?.(leaving);
  };
  const takeBack = async () => {
    finish(true);
    await undo();
  };
  if (undo) line.append(button("Undo", null, takeBack, { class: "quiet", title: "Undo (u)" }));
  line.append(button("Dismiss", "wrong", () => finish(), { bare: true, class: "bare" }));
  // Nobody is hurried who is reading or about to press.
  const hold = () => clearTimeout(timer);
  const release = () => { clearTimeout(timer); timer = setTimeout(() => finish(), STAY); };
  line.addEventListener("pointerenter", hold);
  line.addEventListener("pointerleave", release);
  line.addEventListener("focusin", hold);
  line.addEventListener("focusout", release);
  place.replaceChildren(line);
  const mine = { finish, undo: undo && takeBack };
  current = mine;
}

/** Takes the last step back, where that is still possible; the key u. */
export function undoLast() {
  current?.undo?.();
}

addEventListener("pagehide", () => current?.finish(false, true));

export function trouble(problem) {
  if (problem.name !== "AbortError") notice(problem.message, { kind: "trouble" });
}

/** An error where the answer would have been, with what to do about it. */
export function errorBox(problem, again) {
  const line = h("p", {}, problem.message);
  const box = h("div", { class: "state", role: "alert" },
    h("h2", {}, problem.status === 429 ? "A moment, please" : "That did not work"), line);
  if (again) {
    const press = button("Try again", null, again, { class: "primary" });
    box.append(press);
    if (problem.retry) countDown(press, problem.retry, again);
  }
  return box;
}

function countDown(press, seconds, again) {
  const label = press.querySelector("span");
  const step = () => {
    if (!press.isConnected && seconds < 1) return;
    if (seconds <= 0) { again(); return; }
    label.textContent = `Again in ${seconds} s`;
    seconds -= 1;
    setTimeout(() => press.isConnected && step(), 1000);
  };
  setTimeout(step, 0);
}

/** A question in a dialog: resolves to what `read` makes of the form, null where it was left. */
export function question(title, body, { yes = "OK", no = "Cancel", read = () => true } = {}) {
  return new Promise((resolve) => {
    let given = null;
    const form = h("form", { method: "dialog", onsubmit: () => (given = read()) },
      h("h2", { id: "question" }, title), body,
      h("div", { class: "row end" },
        no && button(no, null, () => dialog.close(), { class: "quiet" }),
        h("button", { class: "primary", type: "submit" }, yes)));
    const dialog = h("dialog", { "aria-labelledby": "question",
      onclose: () => { dialog.remove(); resolve(given); } }, form);
    document.body.append(dialog);
    dialog.showModal();
  });
}

export async function askKey(wrong) {
  const input = h("input", { id: "key", type: "password", autocomplete: "off", required: true });
  const body = h("div", { class: "field" },
    wrong && h("p", { class: "warn" }, "That key is not known here."),
    h("label", { for: "key" }, "This gallery is opened with a key. It is kept until you close the tab."),
    input);
  return question("Your key", body, { yes: "Open", read: () => input.value.trim() || null });
}
