"""Style and filter script of the results page; inlined, and named by their hashes in the page's policy."""

STYLE = """
:root { --ground: #f6f7f9; --card: #ffffff; --text: #1b2127; --dim: #65707b; --line: #dde2e7;
  --link: #0b63b5; --bad: #b3261e; --warn: #8a5a00; --good: #1d7a46; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #15181c; --card: #1d2228; --text: #e9edf1; --dim: #97a1ab; --line: #303740;
    --link: #7cb8ff; --bad: #ff8a80; --warn: #ffc663; --good: #6fd49a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--text);
  font: 14px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
header, main { max-width: 1500px; margin: 0 auto; padding: 0 24px; }
h1 { font-size: 22px; margin: 24px 0 2px; }
p { margin: 2px 0; }
.counts { font-size: 16px; }
.notice, .dim { color: var(--dim); }
.failed { color: var(--bad); } .warning { color: var(--warn); }
.none { color: var(--warn); font-weight: 600; }
details { margin: 10px 0; } summary { cursor: pointer; color: var(--link); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 16px; margin: 8px 0; }
dt { color: var(--dim); }
dd { margin: 0; overflow-wrap: anywhere; font-family: ui-monospace, monospace; font-size: 13px; }
.filter { display: flex; gap: 8px; align-items: center; margin: 12px 0; } .filter[hidden] { display: none; }
.filter input { flex: 0 1 420px; } .filter input, .filter select { font: inherit; padding: 6px 10px;
  color: inherit; background: var(--card); border: 1px solid var(--line); border-radius: 6px; }
.filter output { color: var(--dim); }
main { padding-bottom: 40px; }
table { width: 100%; border-collapse: collapse; background: var(--card); border: 1px solid var(--line); }
th { position: sticky; top: 0; z-index: 1; background: var(--card); text-align: left; font-weight: 600;
  color: var(--dim); padding: 8px 10px; box-shadow: inset 0 -1px var(--line); }
td { vertical-align: top; padding: 10px; border-top: 1px solid var(--line); overflow-wrap: anywhere; }
td:nth-child(1) { width: 180px; } td:nth-child(2) { width: 200px; } td:nth-child(3) { width: 20%; }
td:nth-child(4) { min-width: 180px; } td:nth-child(5) { min-width: 150px; } td:nth-child(6) { width: 18%; }
td:nth-child(7) { white-space: nowrap; } td:nth-child(8) { min-width: 150px; }
tr[data-marks~="failed"] td { background: color-mix(in srgb, var(--bad) 8%, var(--card)); }
tr[hidden] { display: none; }
img { display: block; width: 160px; height: auto; border-radius: 4px; background: #000; }
ul { list-style: none; margin: 0; padding: 0; } svg { margin-right: 6px; }
a { color: var(--link); text-decoration: none; } a:hover { text-decoration: underline; }
.badge { font-size: 12px; padding: 0 7px; border: 1px solid; border-radius: 9px; white-space: nowrap; }
.badge.done { color: var(--good); }
@media (max-width: 900px) {
  header, main { padding: 0 12px; } thead { display: none; } table, tbody, tr, td { display: block; }
  td, td:nth-child(n) { width: auto; border: 0; padding: 4px 12px; } td:empty { display: none; }
  tr { border-top: 1px solid var(--line); padding: 8px 0; }
  td::before { content: attr(data-title); display: block; color: var(--dim); font-size: 12px; }
  td:first-child::before { content: none; } }
@media print { .filter { display: none; } tr { break-inside: avoid; } }
"""

SCRIPT = """
const form = document.querySelector(".filter"), text = document.getElementById("text");
const status_ = document.getElementById("status"), shown = document.getElementById("shown");
const rows = [...document.querySelectorAll("tbody tr")].map(row => [row, row.textContent.toLowerCase()]);
function filter() {
  const words = text.value.toLowerCase().split(/\\s+/).filter(Boolean);
  let count = 0;
  for (const [row, content] of rows) {
    const marks = row.dataset.marks.split(" ");
    const wanted = !status_.value || marks.includes(status_.value);
    row.hidden = !wanted || !words.every(word => content.includes(word));
    count += !row.hidden;
  }
  shown.textContent = count + " shown";
}
form.hidden = false;
form.addEventListener("submit", event => event.preventDefault());
form.addEventListener("input", filter);
filter();
"""
