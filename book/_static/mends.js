// What the theme leaves to be done: names, keys, paper.
"use strict";
// Its folds and buttons are called what is written on them.
document.addEventListener("DOMContentLoaded", () => {
  const named = document.querySelectorAll("details.hide > summary, .search-button-field");
  for (const element of named) element.removeAttribute("aria-label");
  // the icons carry these words as titles
  for (const button of document.querySelectorAll(".theme-switch-button"))
    button.setAttribute("aria-label", "Color mode: Light, Dark or System Settings");
});

// What scrolls sideways can be reached by keys. The theme sees to tables and code.
function reachable() {
  for (const box of document.querySelectorAll(".study-figure > div, .explorer"))
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
}
addEventListener("load", reachable);
addEventListener("resize", reachable);

const root = document.documentElement;
let theme; // of the screen: paper is white
addEventListener("beforeprint", () => { theme = root.dataset.theme; root.dataset.theme = "light"; });
addEventListener("afterprint", () => { root.dataset.theme = theme; });
