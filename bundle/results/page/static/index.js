"use strict";
const byId = id => document.getElementById(id);
const form = document.querySelector(".filters"), body = document.querySelector("#cases tbody");
const [words, status_, modality, structure, found, warned] =
  ["words", "status", "modality", "structure", "found", "warned"].map(byId);
let rows = [...body.rows].map(element => ({
  element,
  text: element.textContent.toLowerCase(),
  sizes: JSON.parse(element.dataset.sizes),
  keys: [...element.cells].map(cell => cell.dataset.key ?? ""),
}));

/* Laying out thousands of rows takes seconds: more are shown as the reader comes to the end of them. */
const PORTION = 100;
let room = PORTION;

function matches(row, wanted) {
  const { status, modality: kind, warnings } = row.element.dataset;
  if (status_.value && status !== status_.value) return false;
  if (modality.value && kind !== modality.value) return false;
  if (warned.checked && warnings === "0") return false;
  const sizes = structure.value ? [row.sizes[structure.value]] : Object.values(row.sizes);
  const some = sizes.some(size => typeof size === "number");
  if (structure.value && sizes[0] === undefined) return false;
  if (found.value === "yes" && !some) return false;
  if (found.value === "no" && (some || status !== "done")) return false;
  return wanted.every(word => row.text.includes(word));
}

function filter() {
  const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  for (const row of rows) {
    const matching = matches(row, wanted);
    count += matching;
    row.element.hidden = !matching || count > room;
  }
  const all = rows.length === 1 ? "1 case" : `${rows.length} cases`;
  byId("shown").textContent = count === rows.length ? all : `${count} of ${all}`;
  byId("nothing").hidden = count > 0;
}

const ending = byId("more");
const watcher = new IntersectionObserver(([end]) => {
  if (end.isIntersecting && room < rows.length) show(room + PORTION);
}, { rootMargin: "1500px" });

/* The end is watched anew, since the observer tells of changes only and it may have stayed in sight. */
function show(portion) {
  room = portion;
  filter();
  watcher.unobserve(ending);
  watcher.observe(ending);
}

/* Of the structure that is chosen, else how many were found. */
function sizeKey(row, column) {
  const key = structure.value ? row.sizes[structure.value] : row.keys[column];
  return key === null || key === undefined || key === "" ? NaN : Number(key);
}

/* Rows without a value come last in either order. */
function sort(header) {
  const column = header.cellIndex, kind = header.dataset.sort;
  const descending = header.getAttribute("aria-sort") === "ascending";
  for (const other of document.querySelectorAll("[aria-sort]")) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const number = row => kind === "size" ? sizeKey(row, column) : row.keys[column] === "" ? NaN : Number(row.keys[column]);
  const collator = new Intl.Collator("en", { numeric: true });
  const keyed = rows.map((row, place) => ({ row, place, key: kind === "text" ? row.keys[column] : number(row) }));
  const missing = key => key === "" || Number.isNaN(key);
  keyed.sort((one, other) => {
    if (missing(one.key) || missing(other.key)) return missing(one.key) - missing(other.key) || one.place - other.place;
    const order = kind === "text" ? collator.compare(one.key, other.key) : one.key - other.key;
    return (descending ? -order : order) || one.place - other.place;
  });
  rows = keyed.map(({ row }) => row);
  for (const row of rows) row.element.hidden = true;
  body.append(...rows.map(row => row.element));
  show(PORTION);
}

for (const header of document.querySelectorAll("#cases th[data-sort]")) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...header.childNodes);
  button.addEventListener("click", () => sort(header));
  header.append(button);
}
form.hidden = false;
form.addEventListener("submit", event => event.preventDefault());
form.addEventListener("input", () => show(PORTION));
form.addEventListener("reset", () => setTimeout(show, 0, PORTION));
addEventListener("beforeprint", () => show(Infinity));
show(PORTION);
