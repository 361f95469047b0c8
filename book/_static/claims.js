// The page of all claims: filters, and columns that sort. Without it everything is shown.
"use strict";
const table = document.querySelector("table.claims");
const body = table.tBodies[0];
const rows = [...body.rows];
const form = document.querySelector("form.filters");
const fields = [...form.querySelectorAll("select")];

function filter() {
  for (const row of rows) row.hidden = fields.some((f) => f.value && row.dataset[f.name] !== f.value);
  form.querySelector("output").textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} rows`;
}

// A link to a claim shows it, whatever was filtered out.
function reveal() {
  const row = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!row || !body.contains(row)) return;
  if (row.hidden) form.reset();
  filter();
  row.scrollIntoView();
}

function sort(column, down) {
  const key = (row) => row.cells[column].dataset.sort ?? row.cells[column].querySelector(".judged, a, b")?.textContent ?? row.cells[column].textContent;
  const numbers = "sort" in rows[0].cells[column].dataset;
  const order = (a, b) => (down ? -1 : 1) * (numbers ? a - b : a.localeCompare(b));
  const compare = (a, b) => (a && b ? order(a, b) : !a - !b); // what has no number comes last
  body.append(...[...rows].sort((a, b) => compare(key(a), key(b))));
}

const heads = [...table.tHead.rows[0].cells];
heads.forEach((head, column) => {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...head.childNodes);
  head.append(button);
  button.addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    sort(column, down);
  });
});
form.addEventListener("change", filter);
form.addEventListener("submit", (event) => event.preventDefault());
form.hidden = false;
addEventListener("hashchange", reveal);
filter();
reveal();
