"""The figures of `benchmark --what=inference` as a Markdown table and as a bar chart."""

import html
from collections.abc import Sequence

from deeplab_tf.benchmarks.inference import Measurement


def table(rows: Sequence[dict]) -> str:
    """Returns the figures as a Markdown table."""
    lines = [
        "| model | size | batch | runtime | ms (middle half) | images/s | ms/megapixel | GMAC/s | of matmul | "
        "upsampling and argmax | MB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows[:-1]:
        height, width = row["size"]
        low, high = row["ms_middle_half"]
        after = row["share_after_logits"]
        lines.append(
            f"| {row['model']} | {height} x {width} | {row['batch']} | {row['runtime']} "
            f"| {row['ms']:.1f} ({low:.1f} to {high:.1f}) | {row['images_per_s']:.2f} | {row['ms_per_megapixel']:.0f} "
            f"| {row['gmac_per_s']:.1f} | {100 * row['share_of_matmul']:.0f} % "
            f"| {'' if after is None else f'{100 * after:.0f} %'} | {row['memory_mb']:.0f} |"
        )
    lines += [""] if any("of_best" in row for row in rows) else []
    for row in rows:
        if "of_best" in row:
            height, width = row["size"]
            name = f"{row['model']}, {height} x {width}, batch {row['batch']}"
            lines.append(f"* {name}: auto takes {row['of_best']:.3f} of the best candidate's time ({row['best']})")
    return "\n".join([*lines, f"\nmatrix product: {rows[-1]['gmac_per_s']:.1f} GMAC/s"])


# Of the chart, in pixels: the height of a bar and of the gap below it, the longest bar, the mean width of a letter.
_BAR = 20
_GAP = 8
_LONGEST = 480
_LETTER = 7.8


def chart(rows: Sequence[dict]) -> str:
    """Returns an SVG with a bar of the milliseconds for an image for each combination, in light or dark colours."""
    bars = [
        (Measurement(row["model"], row["runtime"], row["size"], row["batch"], 0).label, row["ms"] / row["batch"])
        for row in rows[:-1]
    ]
    longest = max(value for _, value in bars)
    parts = []
    names = round(max(_LETTER * len(label) for label, _ in bars)) + 16
    for number, (label, value) in enumerate(bars):
        top = 40 + number * (_BAR + _GAP)
        length = max(1.0, _LONGEST * value / longest)
        middle = top + _BAR * 0.7
        parts.append(f'<text x="{names - 8}" y="{middle:.1f}" text-anchor="end">{html.escape(label)}</text>')
        parts.append(f'<rect x="{names}" y="{top}" width="{length:.1f}" height="{_BAR}" rx="3"/>')
        parts.append(f'<text x="{names + length + 6:.1f}" y="{middle:.1f}">{value:.1f} ms</text>')
    style = (
        "text{font:13px system-ui,sans-serif;fill:#222}rect{fill:#1759b8}"
        "@media(prefers-color-scheme:dark){text{fill:#e9eaec}rect{fill:#7fb2ff}}"
    )
    height = 40 + len(bars) * (_BAR + _GAP)
    width = names + _LONGEST + 90
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}">'
    title = '<text x="8" y="22">Milliseconds an image, from pixels to classes (shorter is better)</text>'
    return f"{head}<style>{style}</style>{title}{''.join(parts)}</svg>\n"
