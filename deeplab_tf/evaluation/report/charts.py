"""Charts as SVG text for a page. They take their colours from the page's CSS classes and need nothing else."""

import math
from collections.abc import Sequence
from html import escape

_WIDTH, _HEIGHT = 420, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 24, 14, 44
_CHARACTER = 7  # the width of one


class _Axes:
    """The plane of a chart: x from 0 to `x_end`, y from `y_start` to 1 as percent."""

    def __init__(self, x_end: float, y_start: float = 0.0) -> None:
        self._x_end = x_end
        self._y_start = y_start

    def x(self, value: float) -> float:
        """Returns where a value lies from the left."""
        return round(_LEFT + (_WIDTH - _LEFT - _RIGHT) * value / self._x_end, 1)

    def y(self, value: float) -> float:
        """Returns where a value lies from the top."""
        share = (value - self._y_start) / (1 - self._y_start)
        return round(_HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * share, 1)

    def drawn(
        self, x_ticks: Sequence[tuple[float, str]], x_label: str, levels: Sequence[tuple[float, str]] = ()
    ) -> str:
        """Returns the lines of the grid, by default of tenths or fifths, the numbers beside them, and the name of x."""
        low = self.y(self._y_start)
        right = _WIDTH - _RIGHT
        step = 0.2 if self._y_start < 0.5 else 0.1
        shares = [round(1 - step * i, 6) for i in range(6) if 1 - step * i > self._y_start - 1e-9]
        heights = [(self.y(v), text) for v, text in levels or [(v, f"{100 * v:.0f} %") for v in shares]]
        parts = [f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y}" y2="{y}"/>' for y, _ in heights]
        parts += [f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{text}</text>' for y, text in heights]
        parts += [f'<text x="{self.x(v)}" y="{low + 17}" text-anchor="middle">{escape(t)}</text>' for v, t in x_ticks]
        middle = (_LEFT + right) / 2
        return "".join(parts) + f'<text x="{middle}" y="{_HEIGHT - 6}" text-anchor="middle">{escape(x_label)}</text>'


def _figure(title: str, content: str) -> str:
    head = f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">'
    return f"{head}{content}</svg>"


def _floor(values: Sequence[float]) -> float:
    """Returns the largest tenth below all values, at most 0.5: the start of an axis that shows their differences."""
    return min(0.5, max(0, int(10 * min(values, default=0) - 0.5)) / 10)


def line_chart(title: str, x: Sequence[float], series: Sequence[tuple[str, Sequence[float]]], *, x_label: str) -> str:
    """Returns named curves over `x`, which differ in dashes and marks, not in colour alone.

    Args:
      title: for readers of the screen.
      x: the places of the values, from 0.
      series: the name and the values of each curve, shares in 0..1; NaN is left out.
      x_label: the name of x.
    """
    axes = _Axes(max(x), _floor([v for _, values in series for v in values if v == v]))
    ticks: list[tuple[float, str]] = []
    for value in x:
        text = f"{value:g}"
        last, before = ticks[-1] if ticks else (-math.inf, "")
        if axes.x(value) - axes.x(last) > max(24, _CHARACTER * (len(before) + len(text)) / 2 + 8):
            ticks.append((value, text))
    parts = [axes.drawn(ticks, x_label)]
    for number, (name, values) in enumerate(series):
        points = [(axes.x(a), axes.y(v)) for a, v in zip(x, values, strict=True) if v == v]
        path = " ".join(f"{a},{b}" for a, b in points)
        parts.append(f'<polyline class="curve c{number}" points="{path}"/>')
        parts += [_mark(number, a, b) for a, b in points]
        row = _HEIGHT - _BOTTOM - 14 - 20 * (len(series) - 1 - number)
        left = _WIDTH - _RIGHT - 150
        parts.append(f'<polyline class="curve c{number}" points="{left},{row} {left + 30},{row}"/>')
        parts.append(f'{_mark(number, left + 15, row)}<text x="{left + 38}" y="{row + 4}">{escape(name)}</text>')
    return _figure(title, "".join(parts))


def _mark(number: int, x: float, y: float) -> str:
    if number % 2:
        return f'<rect class="mark c{number}" x="{x - 3.5:.1f}" y="{y - 3.5:.1f}" width="7" height="7"/>'
    return f'<circle class="mark c{number}" cx="{x}" cy="{y}" r="4"/>'


def amount_chart(title: str, x: Sequence[float], values: Sequence[float]) -> str:
    """Returns the curve of an amount of 0 and more, such as a loss, over steps.

    Args:
      title: for readers of the screen.
      x: the steps, rising.
      values: of each step.
    """
    top = _round_up(max(values))
    axes = _Axes(max(x) or 1)
    levels = [(part / 4, f"{top * part / 4:g}") for part in range(5)]
    ticks = [(v, f"{v:,.0f}") for v in (0, _round_up(max(x)) / 2) if v <= max(x)]
    points = " ".join(f"{axes.x(a)},{axes.y(v / top)}" for a, v in zip(x, values, strict=True))
    return _figure(title, f'{axes.drawn(ticks, "step", levels)}<polyline class="curve c0" points="{points}"/>')


def _round_up(value: float) -> float:
    """Returns the next of 1, 2, 4, 8, 10 times a power of ten; 1 for what is not above 0."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 4, 8, 10) if step * power >= value * (1 - 1e-9))


def calibration_chart(
    title: str, confidence: Sequence[float], accuracy: Sequence[float], shares: Sequence[float]
) -> str:
    """Returns accuracy over confidence as dots beside the diagonal.

    Args:
      title: for readers of the screen.
      confidence: the mean of each bin, in 0..1; NaN for a bin without pixels, which is left out.
      accuracy: of each bin, in 0..1.
      shares: of the pixels in each bin, which the size of its dot shows.
    """
    axes = _Axes(1.0)
    parts = [axes.drawn([(v / 5, f"{20 * v} %") for v in range(6)], "confidence")]
    parts.append(f'<polyline class="ideal" points="{axes.x(0)},{axes.y(0)} {axes.x(1)},{axes.y(1)}"/>')
    dots = [(axes.x(c), axes.y(a), s) for c, a, s in zip(confidence, accuracy, shares, strict=True) if c == c]
    parts.append(f'<polyline class="curve c0" points="{" ".join(f"{a},{b}" for a, b, _ in dots)}"/>')
    parts += [f'<circle class="mark c0" cx="{a}" cy="{b}" r="{3 + 9 * s**0.5:.1f}"/>' for a, b, s in dots]
    return _figure(title, "".join(parts))
