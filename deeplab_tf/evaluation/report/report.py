"""The report of an evaluation: metrics.json, per_image.csv, and report.html, which a browser opens without a network.

Memory stays bounded for any number of images: small pictures of all of them lie in a temporary file until it is known
which ones the page shows.
"""

import csv
import dataclasses
import io
import json
import math
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from deeplab_tf import files
from deeplab_tf.catalog.datasets import DATASETS, Dataset
from deeplab_tf.config import EvalConfig, ModelConfig
from deeplab_tf.config.fields import Options
from deeplab_tf.errors import DeepLabError
from deeplab_tf.evaluation.evaluate import Evaluation, evaluate_checkpoints
from deeplab_tf.evaluation.passes import SILENT, Observer, Pass, ScoredImage
from deeplab_tf.evaluation.report.page import Shown, render
from deeplab_tf.evaluation.report.tally import ImageScores, Tally, confused_pairs
from deeplab_tf.evaluation.report.thumbnails import Thumbnails
from deeplab_tf.inference.predictor import predictor_of
from deeplab_tf.ops.metrics import ConventionName, calibration_counts, expected_calibration_error
from deeplab_tf.version import __version__
from deeplab_tf.zoo.papers.row import PublishedResult
from deeplab_tf.zoo.published import RESULTS

_EACH_GROUP = 4  # images of each group that the page shows
_CALIBRATED = 100  # images whose probabilities are computed once more, at most
_BINS = 15  # classes of confidence
_RESAMPLES = 1000  # of the intervals
_LEVEL = 0.95
_NEAREST = 3  # published scores to show where none is of the same settings


def chosen(images: Sequence[ImageScores], most: int = _EACH_GROUP) -> dict[str, list[ImageScores]]:
    """Returns the worst, the middle and the best images by their own mean IoU, each once; those without one are not in.

    Args:
      images: all of them.
      most: the number of images of a group, at most.
    """
    order = sorted((image for image in images if not math.isnan(image.miou)), key=lambda image: image.miou)
    each = min(most, max(1, len(order) // 3))
    worst = order[:each]
    best = order[each:][::-1][:each]
    start = max(each, (len(order) - each) // 2)
    middle = order[start : max(start, min(start + each, len(order) - each))]
    groups = {"The worst images": worst, "Images in the middle": middle, "The best images": best}
    return {name: group for name, group in groups.items() if group}


# ---- collecting


def void_is_between(facts: Dataset) -> bool:
    """Returns whether a data set's void lies between the objects, where the papers' trimaps are.

    Of the data sets of the catalogue that is true of PASCAL VOC's alone.
    """
    return facts.class_names == DATASETS["pascal_voc_seg"].class_names


def conventions_for(facts: Dataset) -> list[ConventionName]:
    """Returns the conventions of mean IoU for a data set: the release's, and that of the benchmark with its classes."""
    own: dict[ConventionName, str] = {"voc": "pascal_voc_seg", "cityscapes": "cityscapes", "ade": "ade20k"}
    return ["release", *(name for name, known in own.items() if facts.class_names == DATASETS[known].class_names)]


class Collector:
    """Collects what a report needs of each image of an evaluation."""

    def __init__(self, work: Pass, config: EvalConfig) -> None:
        self.work = work
        self.config = config
        self.facts = work.facts
        self.tally = Tally(
            self.facts.num_classes,
            ignore_label=self.facts.ignore_label,
            around_void=void_is_between(self.facts),
            conventions=conventions_for(self.facts),
        )
        self._thumbnails = Thumbnails(self.facts.palette, self.facts.ignore_label)
        self._every = max(1, -(-work.records.count // _CALIBRATED))
        self._predictor = predictor_of(work.opened.loaded.model)
        self._calibration = np.zeros((3, _BINS))
        self._calibrated = 0

    def add(self, example: ScoredImage) -> None:
        """Adds an image."""
        scores = self.tally.add(example.label, example.prediction, example.name)
        self._thumbnails.add(example.image, example.label, example.prediction)
        # The CRF has probabilities of its own, and tiles are asked for where the whole image does not fit the memory.
        tiled = self.config.large_images == "tile"
        if (
            scores.index % self._every == 0
            and not self.config.crf
            and not tiled
            and self._predictor.gives_probabilities
        ):
            self._calibrate(example)

    def _calibrate(self, example: ScoredImage) -> None:
        seen = example.label != self.facts.ignore_label
        probabilities = self._predictor.probabilities(example.image[None].astype(np.float32), self.config.inference)[0]
        confidence = np.take_along_axis(probabilities, example.prediction[..., None], axis=-1)[..., 0]
        right = example.prediction == example.label
        self._calibration += calibration_counts(confidence[seen], right[seen], bins=_BINS)
        self._calibrated += 1

    def calibration(self) -> dict[str, Any] | None:
        """Returns "ece", "images", and of each class of confidence "confidence", "accuracy", "share"; or None."""
        number, confidence, right = self._calibration
        if not number.any():
            return None
        filled = np.where(number > 0, number, np.nan)
        return {
            "ece": expected_calibration_error(self._calibration),
            "images": self._calibrated,
            "confidence": confidence / filled,
            "accuracy": right / filled,
            "share": number / number.sum(),
        }

    def shown(self) -> list[Shown]:
        """Returns the images worth showing, with their pictures."""
        return [
            Shown(group, image, self._thumbnails.pictures(image.index), self.tally.shares(image.index))
            for group, images in chosen(self.tally.images).items()
            for image in images
        ]


def comparable(
    network: ModelConfig, config: EvalConfig, *, dataset: str, split: str, longest_side: int | None = None
) -> list[dict[str, Any]]:
    """Returns the published scores to compare an evaluation with.

    They are those of this network at the same scales, flips and size of the images. Where there is none, they are the
    nearest few of the same backbone on the same split.

    Args:
      network: of the evaluation.
      config: its scales, flips and CRF.
      dataset: the data set's name.
      split: the split's name.
      longest_side: the size that the images were resized to, if they were.

    Returns:
      Of each "name", "settings", "source", "miou" (0..1), and "same": whether the settings are those of the evaluation.
    """

    def bare(one: ModelConfig) -> ModelConfig:
        return dataclasses.replace(one, crop_size=None, image_pooling_crop_size=None)

    def same(row: PublishedResult) -> bool:
        settings = (config.eval_scales, config.add_flipped_images, config.crf, longest_side)
        return (row.scales, row.flip, row.crf, row.longest_side) == settings and bare(row.config) == bare(network)

    def differences(row: PublishedResult) -> int:
        values = [(getattr(row.config, f.name), getattr(network, f.name)) for f in dataclasses.fields(ModelConfig)]
        settings = ((row.scales, config.eval_scales), (row.longest_side, longest_side))
        return sum(a != b for a, b in (*values, *settings))

    here = [row for row in RESULTS.values() if (row.dataset, row.split, row.metric) == (dataset, split, "mIoU")]
    here = [row for row in here if row.config.model_variant == network.model_variant]
    rows = [row for row in here if same(row)] or sorted(here, key=differences)[:_NEAREST]
    return [
        {"name": r.name, "settings": r.settings, "source": r.source, "miou": r.score / 100, "same": same(r)}
        for r in rows
    ]


# ---- writing


def _plain(value: Any) -> Any:
    """Returns `value` as JSON has it: NaN is null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and math.isnan(value) else value


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
    return _plain(values)


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


def write_report(
    folder: str | os.PathLike[str], evaluation: Evaluation, collected: Collector, *, command: str = ""
) -> None:
    """Writes metrics.json, per_image.csv and report.html of an evaluation into `folder`, each whole or not at all.

    Args:
      folder: made where it is not there; a report that it holds is replaced.
      evaluation: of all images together.
      collected: of the images one by one.
      command: the command line of the evaluation, for the reader.

    Raises:
      DeepLabError: the folder cannot be written.
    """
    metrics = metrics_of(evaluation, collected, command=command)
    images = collected.tally.images
    contents = {
        "metrics.json": json.dumps(metrics, indent=1),
        "per_image.csv": _per_image(images, collected.facts.class_names),
        "report.html": render(metrics, images, collected.shown(), collected.facts.palette),
    }
    with files.growing(folder, list(contents), flag="--report", cure="choose another folder") as partial:
        for name, content in contents.items():
            (partial / name).write_text(content, encoding="utf-8")


class _Collecting(Observer):
    """Collects what a report needs of each pass, and passes everything else on to another observer."""

    def __init__(self, shown: Observer) -> None:
        self._shown = shown
        self._collected: Collector | None = None

    @property
    def collected(self) -> Collector:
        """What was collected of the last pass."""
        if self._collected is None:
            raise RuntimeError("no pass has begun")
        return self._collected

    def tell(self, line: str) -> None:
        self._shown.tell(line)

    def begin(self, work: Pass) -> None:
        self._collected = Collector(work, work.config)
        self._shown.begin(work)

    def scored(self, images: Iterator[ScoredImage]) -> None:
        for image in images:
            self.collected.add(image)

    def advance(self, count: int) -> None:
        self._shown.advance(count)


def report_checkpoints(
    config: EvalConfig,
    data: Mapping[str, Any],
    changes: Mapping[str, Any] | None = None,
    *,
    command: str = "",
    observer: Observer = SILENT,
    given: Collection[str] | None = None,
) -> Iterator[Evaluation]:
    """Scores checkpoints as `evaluate.evaluate_checkpoints` does, and writes a report of each into config.report.

    The report of a followed run is that of its newest checkpoint.

    Args:
      config: which checkpoints (see `following.follow`), which split, at which scales.
      data: the DataConfig fields that the user gives; the checkpoint's description has the others.
      changes: the ModelConfig fields that the user gives, for `loading.open_model`.
      command: the command line of the evaluation, for the reader.
      observer: told of the waiting, of each checkpoint and of each batch, but not of the pictures.
      given: as `evaluate_checkpoints` takes it.

    Raises:
      DeepLabError: the errors of `evaluate_checkpoints` and `write_report`; or config.report is unset.
    """
    if not config.report:
        raise DeepLabError("--report is missing; expected the folder to write")
    collecting = _Collecting(observer)
    for evaluation in evaluate_checkpoints(config, data, changes, observer=collecting, given=given):
        write_report(config.report, evaluation, collecting.collected, command=command)
        yield evaluation
