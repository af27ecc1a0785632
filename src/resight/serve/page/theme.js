// Dark or light: as the system has it, or as chosen here.

import { h, icon } from "./dom.js";

const NEXT = { auto: "light", light: "dark", dark: "auto" };
const SAID = { auto: "as the system", light: "light", dark: "dark" };
const chosen = () => localStorage.getItem("resight-theme") ?? "auto";

export const isDark = () => (chosen() === "auto" ? matchMedia("(prefers-color-scheme: dark)").matches : chosen() === "dark");

export function applyTheme() {
  const theme = chosen();
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
}

export function themeButton() {
  const press = h("button", { type: "button", class: "bare", onclick: () => {
    localStorage.setItem("resight-theme", NEXT[chosen()]);
    applyTheme();
    show();
    dispatchEvent(new Event("themechange"));
  } });
  const show = () => {
    press.replaceChildren(icon(chosen()));
    press.title = `Colours: ${SAID[chosen()]}`;
    press.setAttribute("aria-label", press.title);
  };
  show();
  return press;
}
