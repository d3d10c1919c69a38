"""The parts of the pages of a report and of a comparison: cells, tables, and the document with its style and script.

Each page is one HTML file that needs nothing else; its policy lets nothing be fetched.
"""

import importlib.resources
import math
from collections.abc import Iterable, Sequence
from html import escape

from deeplab_tf.ops.pictures import Colour

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def percent(value: float | None, digits: int = 1) -> str:
    """Returns a share as percent, or a dash where it is undefined."""
    return "&ndash;" if value is None or math.isnan(value) else f"{100 * value:.{digits}f}&nbsp;%"


def swatch(colour: Colour) -> str:
    """Returns the patch of a colour."""
    return f'<i class="swatch" style="background:rgb{tuple(colour)}"></i>'


def cell(value: float | None, digits: int = 1) -> str:
    """Returns the cell of a share, which sorts by its number."""
    number = math.nan if value is None else value
    return f'<td class="n" data-v="{number:.6g}">{percent(value, digits)}</td>'


def bar(value: float | None, kind: str = "") -> str:
    """Returns the cell of a share with its bar."""
    if value is None or math.isnan(value):
        return f'<td class="bar {kind}" data-v="nan">&ndash;</td>'
    return f'<td class="bar {kind}" data-v="{value:.6g}">{percent(value)}<i style="--v:{value:.4f}"></i></td>'


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, caption: str = "") -> str:
    """Returns a table of cells with their tags, which sorts by its columns and scrolls where it is too wide."""
    head = "".join(f'<th scope="col"><button type="button">{column}</button></th>' for column in columns)
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    title = f"<caption>{caption}</caption>" if caption else ""
    table = f'<table class="sortable">{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class="wide">{table}</div>'


def _asset(name: str) -> str:
    return (importlib.resources.files("deeplab_tf.evaluation.report") / "assets" / name).read_text(encoding="utf-8")


def document(title: str, content: str) -> str:
    """Returns a whole page.

    Args:
      title: as text, for the browser's tab.
      content: HTML, what stands in it.
    """
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{escape(title)}</title>
<style>{_asset("report.css")}</style>
</head>
<body>
<main>
{content}
</main>
<script>{_asset("report.js")}</script>
</body>
</html>
"""
