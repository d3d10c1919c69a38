"""The comparison of two reports of the same images: differences of scores, with intervals by a paired bootstrap.

Both are drawn with the same images each time, so that what makes an image hard for both does not widen the interval.
"""

import dataclasses
import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from deeplab_tf import files
from deeplab_tf.documents.json_files import plain
from deeplab_tf.errors import DeepLabError
from deeplab_tf.evaluation.report.comparison_page import render
from deeplab_tf.evaluation.report.counts import ReportCounts, read_counts
from deeplab_tf.ops.metrics import Counts, bootstrap_sums, class_scores, overall_scores, percentile_interval

_RESAMPLES = 1000
_LEVEL = 0.95
_FILES = ("compare.html", "compare.json")
_NAMES = {
    "miou": "mean IoU",
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean accuracy",
    "frequency_weighted_iou": "weighted IoU",
    "mean_dice": "mean Dice",
    "kappa": "kappa",
}


def compare(first: str | os.PathLike[str], second: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns the differences between two reports, as compare.json has them: of the second from the first.

    Args:
      first: the folder of a report, as `deeplab-tf eval --report` writes it.
      second: another, of the same images and classes.

    Returns:
      "a" and "b": what was compared; "level", "resamples"; "scores": a list of "name", "a", "b", "difference", "low",
      "high" (0..1; None where undefined); "classes": the same of the IoU of each class, and "labelled", its share of
      the pixels; "images": "name", "a", "b", "difference" of the mean IoU of each image.

    Raises:
      DeepLabError: one is not a report, or the two are not of the same images, labels and classes.
    """
    one, other = read_counts(first), read_counts(second)
    _require_same_classes((str(first), one), (str(second), other))
    other = _in_order_of((str(first), one), (str(second), other))
    counts = one.counts(), other.counts()
    labelled = counts[0].labelled
    differ = np.flatnonzero((labelled != counts[1].labelled).any(1))
    if len(differ):
        raise DeepLabError(
            f"{first} and {second} were made on other labels: {len(differ)} of {len(labelled)} images have other "
            f"pixels, {one.images[differ[0]].name!r} among them; evaluate both on the same records, at the same size"
        )
    draws = [bootstrap_sums(part, resamples=_RESAMPLES) if len(labelled) > 1 else None for part in counts]
    sums = [Counts(*(values.sum(0) for values in part)) for part in counts]
    overall = [overall_scores(part) for part in sums]
    drawn = [overall_scores(part) if part else None for part in draws]
    scores = [
        {"name": title, **_difference(overall[0][key], overall[1][key], *(d[key] if d else None for d in drawn))}
        for key, title in _NAMES.items()
    ]
    ious = [class_scores(part)["iou"] for part in sums]
    drawn_ious = [class_scores(part)["iou"] if part else None for part in draws]
    columns = [[part[:, i] if part is not None else None for part in drawn_ious] for i in range(len(one.class_names))]
    classes = [
        {"name": name, **_difference(ious[0][i], ious[1][i], *columns[i])} for i, name in enumerate(one.class_names)
    ]
    for row, pixels in zip(classes, sums[0].labelled, strict=True):
        row["labelled"] = float(pixels / max(1, sums[0].labelled.sum()))
    mious = [overall_scores(part)["miou"] for part in counts]
    images = [{"name": image.name, **_pair(*pair)} for image, *pair in zip(one.images, *mious, strict=True)]
    return {
        **{name: _subject(*pair) for name, pair in zip("ab", ((first, one), (second, other)), strict=True)},
        "level": _LEVEL,
        "resamples": _RESAMPLES,
        "scores": scores,
        "classes": classes,
        "images": images,
    }


def _subject(folder: str | os.PathLike[str], counts: ReportCounts) -> dict[str, Any]:
    names = ("checkpoint", "step", "dataset", "split", "palette")
    return {"report": str(folder), **{name: getattr(counts, name) for name in names}}


def _pair(one: float | np.ndarray, other: float | np.ndarray) -> dict[str, Any]:
    """Returns "a", "b" and "difference" as JSON has them."""
    return plain({"a": float(one), "b": float(other), "difference": float(other - one)})


def _difference(
    one: np.ndarray, other: np.ndarray, ones: np.ndarray | None, others: np.ndarray | None
) -> dict[str, Any]:
    """Returns the pair with "low" and "high", the ends of the interval of the difference between the draws."""
    ends = (math.nan, math.nan) if ones is None or others is None else percentile_interval(others - ones, _LEVEL)
    return {**_pair(one, other), **plain(dict(zip(("low", "high"), ends, strict=True)))}


def _require_same_classes(first: tuple[str, ReportCounts], second: tuple[str, ReportCounts]) -> None:
    (place, one), (place2, other) = first, second
    if one.class_names == other.class_names:
        return
    if len(one.class_names) != len(other.class_names):
        what = f"{len(one.class_names)} and {len(other.class_names)}"
    else:
        pairs = enumerate(zip(one.class_names, other.class_names, strict=True))
        what = next(f"class {i} is {a!r} and {b!r}" for i, (a, b) in pairs if a != b)
    raise DeepLabError(f"{place} and {place2} are of other classes: {what}; compare evaluations of the same data set")


def _in_order_of(first: tuple[str, ReportCounts], second: tuple[str, ReportCounts]) -> ReportCounts:
    """Returns the counts of the second report with its images in the order of the first.

    Names that repeat, or are empty, are taken in their order.
    """
    (place, one), (place2, other) = first, second
    names, others = ([image.name for image in counts.images] for counts in (one, other))
    if names == others:
        return other
    if sorted(names) == sorted(others) and len(set(names)) == len(names):
        by_name = {image.name: image for image in other.images}
        return dataclasses.replace(other, images=tuple(by_name[name] for name in names))
    missing = sorted(set(names) ^ set(others))
    where = [part for part, there in ((place, names), (place2, others)) if missing and missing[0] in there]
    what = f"{missing[0]!r} is in {where[0]} alone" if missing else "their names repeat, in another order"
    raise DeepLabError(
        f"{place} and {place2} were made on other images ({len(names)} and {len(others)}): {what}; evaluate both on "
        "the same split"
    )


def comparison_table(found: Mapping[str, Any]) -> str:
    """Returns what `compare` returns as text for a terminal, in percent and points."""
    rows = [("", "A", "B", "B - A", f"{100 * found['level']:.0f} % interval")]
    rows += [_row(row) for row in found["scores"]]
    rows += [("", "", "", "", ""), ("IoU of", "", "", "", "")]
    rows += [_row(row) for row in found["classes"]]
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    aligned = [[row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in rows]
    better, worse = (sum(sign * (i["difference"] or 0) > 0 for i in found["images"]) for sign in (1, -1))
    number = len(found["images"])
    heads = [f"{name.upper()}  {found[name]['report']}: {found[name]['checkpoint']}" for name in "ab"]
    ending = f"{number:,} images: B is better in {better:,}, worse in {worse:,}"
    return "\n".join([*heads, "", *("  ".join(row).rstrip() for row in aligned), "", ending])


def _row(row: Mapping[str, Any]) -> tuple[str, ...]:
    def shown(value: float | None, form: str) -> str:
        return "-" if value is None else f"{100 * value:{form}}"

    ends = [shown(row[name], "+.2f") for name in ("low", "high")]
    interval = "-" if "-" in ends else " to ".join(ends)
    return (row["name"], shown(row["a"], ".2f"), shown(row["b"], ".2f"), shown(row["difference"], "+.2f"), interval)


def write_comparison(folder: str | os.PathLike[str], found: Mapping[str, Any]) -> None:
    """Writes compare.html and compare.json of what `compare` returns into `folder`, each whole or not at all.

    Raises:
      DeepLabError: the folder cannot be written.
    """
    contents: Sequence[str] = (render(found), json.dumps(found, indent=1) + "\n")
    with files.growing(folder, list(_FILES), flag="--output_dir", cure="choose another folder") as partial:
        for name, content in zip(_FILES, contents, strict=True):
            (partial / name).write_text(content, encoding="utf-8")
