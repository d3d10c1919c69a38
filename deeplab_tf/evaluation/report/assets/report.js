// A press on a column's head sorts its table: numbers by data-v, largest first, words by their text.
for (const button of document.querySelectorAll("table.sortable th button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th"), body = head.closest("table").tBodies[0];
    const column = head.cellIndex, before = head.getAttribute("aria-sort");
    const key = (row) => {
      const cell = row.cells[column];
      return "v" in cell.dataset ? parseFloat(cell.dataset.v) : cell.textContent.trim();
    };
    const rows = [...body.rows].map((row) => [key(row), row]);
    const numbers = rows.some(([value]) => typeof value === "number");
    const descending = before ? before === "ascending" : numbers;
    const sign = descending ? -1 : 1;
    rows.sort(([a], [b]) => {
      if (typeof a === "string") return sign * a.localeCompare(b, undefined, { numeric: true });
      if (isNaN(a) || isNaN(b)) return isNaN(a) - isNaN(b); // what has no score comes last either way
      return sign * (a - b);
    });
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    body.append(...rows.map(([, row]) => row));
  });
}
