// What the theme calls its folds and buttons is what is written on them; and paper is white.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const named = document.querySelectorAll("details.hide > summary, .search-button-field");
  for (const element of named) element.removeAttribute("aria-label");
  // Its icons carry these words as titles.
  for (const button of document.querySelectorAll(".theme-switch-button"))
    button.setAttribute("aria-label", "Color mode: Light, Dark or System Settings");
});
const root = document.documentElement;
let theme;
addEventListener("beforeprint", () => { theme = root.dataset.theme; root.dataset.theme = "light"; });
addEventListener("afterprint", () => { root.dataset.theme = theme; });
