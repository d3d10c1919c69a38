"""Charts: where the points of a curve come to lie, and that it is SVG that parses."""

import math
import re
import xml.etree.ElementTree as ET

import pytest

from deeplab_tf.evaluation.report.charts import calibration_chart, line_chart


def points(element) -> list[tuple[float, float]]:
    return [tuple(map(float, pair.split(","))) for pair in element.get("points").split()]


def test_curves_are_drawn_to_scale():
    series = [("a < b", [0.5, 0.75, 1.0]), ("other", [0.55, math.nan, 0.9])]
    chart = ET.fromstring(line_chart("A title & more", [1, 11, 21], series, x_label="pixels"))
    assert chart.get("aria-label") == "A title & more"
    first, _, second, _ = (points(line) for line in chart.iter("polyline"))
    assert len(first) == 3 and len(second) == 2, "NaN is left out"
    (x0, y0), (x1, y1), (x2, y2) = first
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2) and y0 - y1 == pytest.approx(y1 - y2, abs=0.2) and y2 < y0
    scale = (y0 - y2) / 0.5
    assert [y0 - y for _, y in second] == pytest.approx([0.05 * scale, 0.4 * scale], abs=0.2)
    texts = [text.text for text in chart.iter("text")]
    assert {"a < b", "other", "pixels", "1", "11", "21", "100 %"} <= set(texts)
    assert len(list(chart.iter("circle"))) == 4 and len(list(chart.iter("rect"))) == 3, (
        "marks differ, not colours alone"
    )


def test_crowded_ticks_are_left_out():
    text = line_chart("t", [1, 2, 3, 40], [("a", [0.6] * 4)], x_label="")
    assert re.findall(r">(\d+)</text>", text) == ["1", "40"]
    text = line_chart("t", [700, 1386, 1500], [("a", [0.6] * 3)], x_label="")
    assert re.findall(r">(\d+)</text>", text) == ["700", "1386"], "long numbers need more room"


def test_calibration_lies_on_the_diagonal_where_it_is_perfect():
    chart = ET.fromstring(calibration_chart("t", [0.1, math.nan, 0.9], [0.1, math.nan, 0.9], [0.04, 0, 0.96]))
    ideal, curve = (points(line) for line in chart.iter("polyline"))
    (x0, y0), (x1, y1) = ideal
    for x, y in curve:
        assert (x - x0) / (x1 - x0) == pytest.approx((y - y0) / (y1 - y0), abs=1e-3)
    small, large = (float(circle.get("r")) for circle in chart.iter("circle"))
    assert large > 2 * small
