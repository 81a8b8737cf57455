"""A report as one HTML file: no other files, no server, no script from elsewhere.

A click on a head sorts by it; words in the box keep the rows that have them all.
"""

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

from petl_modules.grid.tables import Table

STYLE = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
body { max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }
input { font: inherit; padding: .4rem .6rem; width: min(26rem, 100%);
  box-sizing: border-box; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: .5rem 0 2rem; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid #8885; text-align: right;
  white-space: nowrap; font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0;
  background: Canvas; }
th button { all: unset; cursor: pointer; font-weight: 600; }
th button:focus-visible { outline: 2px solid; }
th[aria-sort=ascending] button::after { content: " \\2191"; }
th[aria-sort=descending] button::after { content: " \\2193"; }
tr.published { font-style: italic;
  color: color-mix(in srgb, CanvasText 70%, Canvas); }
.plots { display: flex; flex-wrap: wrap; gap: 1rem; align-items: start; }
img { max-width: 100%; background: white; }
"""
SCRIPT = """
const number = text => {
  const found = text.replace(/,/g, '').match(/^([-+]?\\d+(?:\\.\\d+)?)([KM]?)/);
  return found ? found[1] * ({K: 1e3, M: 1e6}[found[2]] ?? 1) : null;
};
for (const button of document.querySelectorAll('th button'))
  button.onclick = () => {
    const head = button.parentNode, table = head.closest('table');
    const at = [...head.parentNode.children].indexOf(head);
    const down = head.getAttribute('aria-sort') === 'ascending';
    for (const other of head.parentNode.children) other.removeAttribute('aria-sort');
    head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
    const body = table.tBodies[0], rows = [...body.rows];
    const text = row => row.cells[at].textContent;
    const numeric = at > 0 && rows.some(row => number(text(row)) !== null);
    const compare = (a, b) => {
      if (!numeric) return text(a).localeCompare(text(b));
      const [x, y] = [number(text(a)), number(text(b))];
      return x === null || y === null ? 0 : x - y;
    };
    const empty = row => numeric && number(text(row)) === null;
    rows.sort((a, b) => empty(a) - empty(b) || (down ? -1 : 1) * compare(a, b));
    body.append(...rows);
  };
document.querySelector('#words').oninput = event => {
  const words = event.target.value.toLowerCase().split(/\\s+/).filter(Boolean);
  for (const row of document.querySelectorAll('tbody tr')) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every(word => text.includes(word));
  }
};
"""


def page(
    title: str,
    tables: Sequence[Table],
    notes: Sequence[str],
    plots: Sequence[Path],
    protocol: str = "",
) -> str:
    """The HTML text.

    Arguments
    ---------
    title : str
    tables : list of Table
    notes : list of str
        Said below the tables, such as what is missing.
    plots : list of Path
        PNG files, which are put into the text.
    protocol : str
        Paragraphs and lists in markdown, said above the tables.
    """
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1>",
        as_text(protocol),
        '<p><label>Keep rows with <input id="words" type="search" '
        'placeholder="words, such as lora whisper"></label></p>',
        *map(as_html, tables),
    ]
    if notes:
        items = "".join(f"<li>{escape(note)}</li>" for note in notes)
        parts.append(f"<h2>Missing, and in no mean</h2><ul>{items}</ul>")
    pictures = "\n".join(map(picture, plots))
    parts.append(f'<h2>Plots</h2>\n<div class="plots">{pictures}</div>')
    return "\n".join([*parts, f"<script>{SCRIPT}</script></body></html>", ""])


# Helpers


def as_html(table: Table) -> str:
    """A table with its title."""
    heads = "".join(
        f'<th scope="col"><button type="button">{escape(head)}</button></th>'
        for head in table.heads
    )
    rows = "\n".join(map(row_html, table.rows))
    return (
        f"<h2>{escape(table.title)}</h2>\n{as_text(table.note)}"
        f'<div class="wide"><table><thead><tr>{heads}'
        f"</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>"
    )


def as_text(markdown: str) -> str:
    """Paragraphs, and lists of one line an item, as HTML; nothing of nothing."""
    parts = []
    for part in filter(None, markdown.split("\n\n")):
        lines = part.split("\n")
        if all(line.startswith("- ") for line in lines):
            items = "".join(f"<li>{escape(line[2:])}</li>" for line in lines)
            parts.append(f"<ul>{items}</ul>\n")
        else:
            parts.append(f"<p>{escape(' '.join(lines))}</p>\n")
    return "".join(parts)


def row_html(cells: Sequence[str]) -> str:
    """A row; of papers in italics, and cells of fewer runs than there should be in
    bold."""
    published = cells[0].startswith("*")
    texts = []
    for cell in cells:
        bold = cell.startswith("**")
        text = escape(cell.strip("*"))
        texts.append(f"<td>{f'<b>{text}</b>' if bold else text}</td>")
    start = '<tr class="published">' if published else "<tr>"
    return f"{start}{''.join(texts)}</tr>"


def picture(path: Path) -> str:
    """A picture, in the text itself."""
    content = base64.b64encode(path.read_bytes()).decode()
    name = escape(path.stem.replace("_", " "))
    return f'<img alt="{name}" src="data:image/png;base64,{content}">'
