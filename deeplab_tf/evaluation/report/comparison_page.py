"""The page of a comparison of two reports, one HTML file."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from deeplab_tf.evaluation.report.elements import cell, document, percent, swatch, table

_MOST_ROWS = 2000  # of the table of images


def _points(value: float | None) -> str:
    return "&ndash;" if value is None else f"{100 * value:+.2f}".replace("-", "&minus;")


def _change(value: float | None) -> str:
    """Returns the cell of a difference, which sorts by its number."""
    kind = "" if not value else " up" if value > 0 else " down"
    return f'<td class="n{kind}" data-v="{math.nan if value is None else value:.6g}">{_points(value)}</td>'


def _interval(row: Mapping[str, Any], widest: float) -> str:
    """Returns the cell of an interval: its ends, and a line over the range of all with 0 in its middle."""
    low, high = row["low"], row["high"]
    if low is None or high is None:
        return '<td class="span" data-v="nan">&ndash;</td>'
    left, right, dot = (50 + 50 * value / widest for value in (low, high, row["difference"] or 0))
    kind = "unclear" if low <= 0 <= high else "up" if low > 0 else "down"
    mark = f'<i style="left:{left:.2f}%;width:{right - left:.2f}%"></i><b style="left:{dot:.2f}%"></b>'
    text = f"{_points(low)} to {_points(high)}"
    return f'<td class="span {kind}" data-v="{low:.6g}"><span>{text}</span><span class="range">{mark}</span></td>'


def _scores(rows: Sequence[Mapping[str, Any]], heads: Sequence[str], what: str) -> str:
    """Returns the table of scores, or of classes."""
    ends = [abs(row[name]) for row in rows for name in ("low", "high", "difference") if row[name] is not None]
    widest = max(ends, default=0) or 1
    cells = [
        (
            f"<td>{head}{escape(row['name'])}</td>",
            cell(row["a"], 2),
            cell(row["b"], 2),
            _change(row["difference"]),
            _interval(row, widest),
            *((cell(row["labelled"], 2),) if "labelled" in row else ()),
        )
        for row, head in zip(rows, heads, strict=True)
    ]
    columns = (what, "A", "B", "B &minus; A", "interval", *(("labelled",) if "labelled" in rows[0] else ()))
    return table(columns, cells)


def _images(images: Sequence[Mapping[str, Any]]) -> str:
    order = sorted(images, key=lambda image: -abs(image["difference"] or 0))
    rows = [
        (f"<td>{escape(one['name']) or '&ndash;'}</td>", cell(one["a"]), cell(one["b"]), _change(one["difference"]))
        for one in order[:_MOST_ROWS]
    ]
    changes = [one["difference"] for one in images if one["difference"] is not None]
    counts = (sum(change > 0 for change in changes), sum(change < 0 for change in changes))
    left = f" The {_MOST_ROWS:,} that differ most; compare.json has all." if len(images) > len(rows) else ""
    text = f"B is better in {counts[0]:,} of {len(images):,} images and worse in {counts[1]:,}."
    return f"<p>{text} The mean IoU of each image by itself:{left}</p>{table(('image', 'A', 'B', 'B &minus; A'), rows)}"


def _verdict(row: Mapping[str, Any], level: float) -> str:
    if row["low"] is None:
        return "Of one image alone, nothing tells how far another would move the difference."
    between = f"{_points(row['low'])} to {_points(row['high'])} points"
    if row["low"] <= 0 <= row["high"]:
        return f"The {100 * level:.0f} % interval, {between}, holds 0: images like these do not tell them apart."
    better = "B" if row["low"] > 0 else "A"
    return f"The {100 * level:.0f} % interval, {between}, does not hold 0: {better} is better on images like these."


def render(found: Mapping[str, Any]) -> str:
    """Returns the page of what `comparison.compare` returns, as HTML."""
    rows = "".join(
        f"<dt>{name.upper()}</dt><dd>{escape(found[name]['checkpoint'])}, step {found[name]['step']:,}"
        f'<div class="faint">{escape(found[name]["report"])}</div></dd>'
        for name in "ab"
    )
    miou = found["scores"][0]
    subject = f"{found['a']['dataset']} {found['a']['split']}"
    swatches = [swatch(colour) for colour in found["a"]["palette"]]
    content = f"""<h1>{escape(subject)}: mean IoU {percent(miou["a"], 2)} and {percent(miou["b"], 2)}</h1>
<dl class="two">{rows}</dl>
<p><strong>{_points(miou["difference"])} points.</strong> {_verdict(miou, found["level"])}</p>
<h2>Scores</h2>
<p class="faint">Intervals are of the difference, from {found["resamples"]:,} draws of as many images with replacement,
the same images for both (paired bootstrap). The line in the middle is 0. Training again moves scores besides.</p>
{_scores(found["scores"], [""] * len(found["scores"]), "score")}
<h2>IoU of the classes</h2>{_scores(found["classes"], swatches, "class")}
<h2>Images</h2>{_images(found["images"])}"""
    return document(f"{subject} - deeplab_tf compare", content)
