"""The files of a report: metrics.json, per_image.csv, counts.json, and report.html, which opens without a network."""

import csv
import dataclasses
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from deeplab_tf import files
from deeplab_tf.config.fields import Options
from deeplab_tf.documents.json_files import plain
from deeplab_tf.evaluation.evaluate import Evaluation
from deeplab_tf.evaluation.report.collecting import Collector
from deeplab_tf.evaluation.report.counts import COUNTS_FILE, ReportCounts
from deeplab_tf.evaluation.report.learning import read_learning
from deeplab_tf.evaluation.report.page import render
from deeplab_tf.evaluation.report.published import comparable
from deeplab_tf.evaluation.report.tally import ImageScores, confused_pairs
from deeplab_tf.version import __version__

_RESAMPLES = 1000  # of the intervals
_LEVEL = 0.95


def _changed(options: Options) -> dict[str, Any]:
    """Returns the fields of a configuration that are not its defaults."""
    fields = dataclasses.fields(options)
    return {f.name: getattr(options, f.name) for f in fields if getattr(options, f.name) != f.default}


def metrics_of(evaluation: Evaluation, collected: Collector, *, command: str = "") -> dict[str, Any]:
    """Returns the contents of metrics.json: scores in 0..1, None where there is nothing to score.

    Args:
      evaluation: of all images together.
      collected: of the images one by one.
      command: the command line of the evaluation, for the reader.
    """
    card = collected.work.opened.loaded.card
    records = collected.work.records
    config = collected.config
    facts = collected.facts
    tally = collected.tally
    scores = tally.scores()
    per_class, conventions, trimap = (scores.pop(name) for name in ("classes", "conventions", "trimap"))
    keys = ("class", "prediction", "pixels")
    side = records.config.max_resize_value
    settings = {**_changed(records.config), **_changed(config)}
    settings |= {name: getattr(config, name) for name in ("eval_scales", "eval_crop_size", "add_flipped_images")}
    values = {
        "checkpoint": evaluation.checkpoint,
        "step": evaluation.step,
        "dataset": facts.name,
        "split": records.split,
        "examples": len(tally.images),
        "contaminated": evaluation.contaminated,
        "scores": scores,
        "intervals": {"level": _LEVEL, "resamples": _RESAMPLES, "scores": tally.intervals(resamples=_RESAMPLES)},
        "conventions": conventions,
        "classes": [
            {"index": i, "name": name, **{key: column[i].item() for key, column in per_class.items()}}
            for i, name in enumerate(facts.class_names)
        ],
        "most_confused": [dict(zip(keys, pair, strict=True)) for pair in confused_pairs(tally.matrix)],
        "trimap": trimap,
        "calibration": collected.calibration(),
        "confusion_matrix": tally.matrix,
        "published": comparable(card.config, config, dataset=facts.name, split=records.split, longest_side=side),
        "configuration": {**card.config.to_json(), "output_stride": card.config.output_stride, **settings},
        "command": command,
        "version": __version__,
    }
    return plain(values)


_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # begins what a spreadsheet computes, or takes for such


def harmless_cell(value: object) -> object:
    """Returns a value for a cell of a CSV file; a spreadsheet shows a text as it is, whatever it begins with.

    The name of an image or a class is anybody's: =HYPERLINK(...) would be run when the file is opened. The cure is that
    of OWASP's page on CSV injection: an apostrophe in front.
    """
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _per_image(images: Sequence[ImageScores], names: Sequence[str]) -> str:
    """Returns the contents of per_image.csv; a score that is undefined is empty."""
    stream = io.StringIO()
    columns = [field.name for field in dataclasses.fields(ImageScores) if field.name != "confused"]
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*columns, "confused_class", "confused_prediction"])
    for image in images:
        values = [getattr(image, column) for column in columns]
        pair = [names[index] for index in image.confused or ()] or ["", ""]
        cells = [*("" if isinstance(v, float) and math.isnan(v) else v for v in values), *pair]
        writer.writerow(map(harmless_cell, cells))
    return stream.getvalue()


def _counts(metrics: Mapping[str, Any], collected: Collector) -> ReportCounts:
    """Returns the contents of counts.json, whose subject is that of metrics.json."""
    facts = collected.facts
    return ReportCounts(
        checkpoint=metrics["checkpoint"],
        step=metrics["step"],
        dataset=metrics["dataset"],
        split=metrics["split"],
        ignore_label=facts.ignore_label,
        class_names=facts.class_names,
        palette=facts.palette,
        images=tuple(collected.tally.image_counts()),
    )


def _page(metrics: Mapping[str, Any], collected: Collector) -> str:
    return render(
        metrics,
        collected.tally.images,
        collected.shown(),
        collected.facts.palette,
        galleries=collected.galleries(),
        learning=read_learning(metrics["checkpoint"]),
    )


def write_report(
    folder: str | os.PathLike[str], evaluation: Evaluation, collected: Collector, *, command: str = ""
) -> None:
    """Writes the files of a report into `folder`, each whole or not at all.

    Args:
      folder: made where it is not there; a report that it holds is replaced.
      evaluation: of all images together.
      collected: of the images one by one.
      command: the command line of the evaluation, for the reader.

    Raises:
      DeepLabError: the folder cannot be written.
    """
    metrics = metrics_of(evaluation, collected, command=command)
    contents = {
        "metrics.json": json.dumps(metrics, indent=1),
        "per_image.csv": _per_image(collected.tally.images, collected.facts.class_names),
        COUNTS_FILE: _counts(metrics, collected).to_json(),
        "report.html": _page(metrics, collected),
    }
    with files.growing(folder, list(contents), flag="--report", cure="choose another folder") as partial:
        for name, content in contents.items():
            (partial / name).write_text(content, encoding="utf-8")
