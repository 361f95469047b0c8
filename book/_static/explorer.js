// A slider over K: of the table's rows those of the chosen K are shown. Without it all are.
"use strict";
for (const explorer of document.querySelectorAll(".explorer")) {
  const form = explorer.querySelector("form");
  const slider = form.querySelector("input");
  const numbers = slider.dataset.numbers.split(",");
  const show = () => {
    const k = numbers[slider.value];
    form.querySelector("output").textContent = k;
    slider.setAttribute("aria-valuetext", `K = ${k}`);
    for (const row of explorer.querySelectorAll("tbody tr")) row.hidden = row.dataset.k !== k;
  };
  slider.addEventListener("input", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  show();
}
