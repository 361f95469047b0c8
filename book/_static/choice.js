// A list of names: of the parts below it the one of the chosen name is shown. Without it all are.
"use strict";
for (const choice of document.querySelectorAll(".choice:not([data-ready])")) {
  choice.dataset.ready = "";
  const form = choice.querySelector("form");
  const list = form.querySelector("select");
  const show = () => [...choice.querySelectorAll(":scope > div")].forEach((part, at) => { part.hidden = at !== list.selectedIndex; });
  list.addEventListener("change", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  show();
}
