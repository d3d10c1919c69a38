"""A report of an evaluation: metrics.json, per_image.csv, and report.html, which a browser opens without a network.

Memory stays bounded, whatever the number of images: small pictures of all wait in a temporary file until it is known
which are worth showing.
"""

import csv
import dataclasses
import io
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from deeplab_tf import files
from deeplab_tf.catalog.datasets import DATASETS, Dataset
from deeplab_tf.config import EvalConfig, ModelConfig
from deeplab_tf.evaluation.evaluate import Evaluation, evaluate_checkpoints
from deeplab_tf.evaluation.passes import SILENT, Observer, Pass, ScoredImage
from deeplab_tf.evaluation.report.page import Shown, render
from deeplab_tf.evaluation.report.tally import ImageScores, Tally, confused_pairs
from deeplab_tf.evaluation.report.thumbnails import Thumbnails
from deeplab_tf.inference.predictor import predictor_of
from deeplab_tf.ops.metrics import calibration_counts, expected_calibration_error
from deeplab_tf.version import __version__
from deeplab_tf.zoo.published import RESULTS

_EACH_GROUP = 4
_CALIBRATED, _BINS = 100, 15  # images whose probabilities are asked for, at most; classes of confidence
_RESAMPLES, _LEVEL = 1000, 0.95
_NEAREST = 3


def chosen(images: Sequence[ImageScores], most: int = _EACH_GROUP) -> dict[str, list[ImageScores]]:
    """Returns the worst, the middle and the best images by their own mean IoU, each once; those without any: none."""
    order = sorted((image for image in images if not math.isnan(image.miou)), key=lambda image: image.miou)
    each = min(most, max(1, len(order) // 3))
    worst, best = order[:each], order[each:][::-1][:each]
    start = max(each, (len(order) - each) // 2)
    middle = order[start : max(start, min(start + each, len(order) - each))]
    groups = {"The worst images": worst, "Images in the middle": middle, "The best images": best}
    return {name: group for name, group in groups.items() if group}


# ---- what is collected


def void_is_between(facts: Dataset) -> bool:
    """Returns whether a data set's void lies between the objects, where the papers' trimaps are: of those known here,
    PASCAL VOC's alone does."""
    return facts.class_names == DATASETS["pascal_voc_seg"].class_names


def conventions_for(facts: Dataset) -> list[str]:
    """Returns whose mean IoUs are worth telling: the release's, and that of the benchmark whose classes these are."""
    own = {"voc": "pascal_voc_seg", "cityscapes": "cityscapes", "ade": "ade20k"}
    return ["release", *(name for name, known in own.items() if facts.class_names == DATASETS[known].class_names)]


class Collector:
    """What a report needs of each image of an evaluation."""

    def __init__(self, work: Pass, config: EvalConfig):
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
        self._calibration = np.zeros((3, _BINS))
        self._calibrated = 0

    def add(self, example: ScoredImage):
        """Adds an image."""
        scores = self.tally.add(example.label, example.prediction, example.name)
        self._thumbnails.add(example.image, example.label, example.prediction)
        # The CRF's probabilities are others, and tiles are there because the whole image does not fit the memory.
        if scores.index % self._every == 0 and not self.config.crf and self.config.large_images != "tile":
            self._calibrate(example)

    def _calibrate(self, example: ScoredImage):
        predictor = predictor_of(self.work.opened.loaded.model)
        seen = example.label != self.facts.ignore_label
        found = predictor.probabilities(
            example.image[None].astype(np.float32),
            scales=self.config.eval_scales,
            flip=self.config.add_flipped_images,
        )[0]
        confidence = np.take_along_axis(found, example.prediction[..., None], axis=-1)[..., 0]
        right = example.prediction == example.label
        self._calibration += calibration_counts(confidence[seen], right[seen], bins=_BINS)
        self._calibrated += 1

    def calibration(self) -> dict | None:
        """Returns "ece", "images", and of each class of confidence "confidence", "accuracy", "share"; or None."""
        number, confidence, right = self._calibration
        if not number.any():
            return None
        filled = np.where(number > 0, number, np.nan)
        curves = {"confidence": confidence / filled, "accuracy": right / filled, "share": number / number.sum()}
        ece = expected_calibration_error(self._calibration)
        return {"ece": ece, "images": self._calibrated, **curves}

    def shown(self) -> list[Shown]:
        """Returns the images worth showing, with their pictures."""
        return [
            Shown(group, image, self._thumbnails.pictures(image.index), self.tally.shares(image.index))
            for group, images in chosen(self.tally.images).items()
            for image in images
        ]


def comparable(
    network: ModelConfig, config: EvalConfig, *, dataset: str, split: str, longest_side: int | None = None
) -> list[dict]:
    """Returns the published scores that an evaluation is to be compared with.

    "same": of this network at these scales, flips and size of the images (`longest_side`: what they are resized to);
    where there is none, the nearest few of the same backbone on the same split. Each: "name", "miou" (0..1),
    "settings", "source", "same".
    """

    def bare(one: ModelConfig) -> ModelConfig:
        return dataclasses.replace(one, crop_size=None, image_pooling_crop_size=None)

    def same(row) -> bool:
        how = (config.eval_scales, config.add_flipped_images, config.crf, longest_side)
        return (row.scales, row.flip, row.crf, row.longest_side) == how and bare(row.config) == bare(network)

    def differences(row) -> int:
        values = [(getattr(row.config, f.name), getattr(network, f.name)) for f in dataclasses.fields(ModelConfig)]
        settings = ((row.scales, config.eval_scales), (row.longest_side, longest_side))
        return sum(a != b for a, b in (*values, *settings))

    here = [row for row in RESULTS.values() if (row.dataset, row.split, row.metric) == (dataset, split, "mIoU")]
    here = [row for row in here if row.config.model_variant == network.model_variant]
    rows = [row for row in here if same(row)] or sorted(here, key=differences)[:_NEAREST]
    facts = ("name", "settings", "source")
    return [{**{f: getattr(r, f) for f in facts}, "miou": r.score / 100, "same": same(r)} for r in rows]


# ---- what is written


def _plain(value):
    """Returns `value` as JSON has it: NaN is null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _changed(options) -> dict[str, object]:
    """The fields of a configuration that are not its defaults."""
    fields = dataclasses.fields(options)
    return {f.name: getattr(options, f.name) for f in fields if getattr(options, f.name) != f.default}


def metrics_of(evaluation: Evaluation, collected: Collector, *, command: str = "") -> dict:
    """Returns what metrics.json holds: scores in 0..1, None where there is nothing to score."""
    card = collected.work.opened.loaded.card
    records = collected.work.records
    config, facts, tally = collected.config, collected.facts, collected.tally
    scores = tally.scores()
    per_class, conventions, trimap = (scores.pop(name) for name in ("classes", "conventions", "trimap"))
    keys = ("class", "prediction", "pixels")
    side = records.config.max_resize_value
    how = {**_changed(records.config), **_changed(config)}
    how |= {name: getattr(config, name) for name in ("eval_scales", "eval_crop_size", "add_flipped_images")}
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
        "configuration": {**card.config.to_json(), "output_stride": card.config.output_stride, **how},
        "command": command,
        "version": __version__,
    }
    return _plain(values)


def _per_image(images: Sequence[ImageScores], names: Sequence[str]) -> str:
    """Returns the contents of per_image.csv; a score that is undefined is empty."""
    stream = io.StringIO()
    columns = [field.name for field in dataclasses.fields(ImageScores) if field.name != "confused"]
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*columns, "confused_class", "confused_prediction"])
    for image in images:
        values = [getattr(image, column) for column in columns]
        pair = [names[index] for index in image.confused or ()] or ["", ""]
        writer.writerow([*("" if isinstance(v, float) and math.isnan(v) else v for v in values), *pair])
    return stream.getvalue()


def write_report(folder: str | os.PathLike, evaluation: Evaluation, collected: Collector, *, command: str = ""):
    """Writes metrics.json, per_image.csv and report.html of an evaluation into `folder`, each whole or not at all.

    Args:
      folder: made where it is not there; a report that it holds is replaced.
      evaluation: what `evaluate` came to.
      collected: what was seen meanwhile.
      command: as which the evaluation was started, for the reader.

    Raises:
      DeepLabError: the folder cannot be written.
    """
    metrics, images = metrics_of(evaluation, collected, command=command), collected.tally.images
    contents = {
        "metrics.json": json.dumps(metrics, indent=1),
        "per_image.csv": _per_image(images, collected.facts.class_names),
        "report.html": render(metrics, images, collected.shown(), collected.facts.palette),
    }
    with files.growing(folder, list(contents), flag="--report", cure="choose another folder") as partial:
        for name, content in contents.items():
            (partial / name).write_text(content, encoding="utf-8")


class _Collecting(Observer):
    """Collects what a report needs of each pass, and hands everything on to another observer."""

    def __init__(self, config: EvalConfig, shown: Observer):
        self._config = config
        self._shown = shown
        self.collected: Collector | None = None

    def tell(self, line: str) -> None:
        self._shown.tell(line)

    def begin(self, work: Pass) -> None:
        self.collected = Collector(work, self._config)
        self._shown.begin(work)

    def scored(self, images: Iterator[ScoredImage]) -> None:
        for image in images:
            self.collected.add(image)

    def advance(self, count: int) -> None:
        self._shown.advance(count)


def report_checkpoints(
    config: EvalConfig,
    data: Mapping[str, object],
    changes: Mapping[str, object] | None = None,
    *,
    command: str = "",
    observer: Observer = SILENT,
) -> Iterator[Evaluation]:
    """Does what `evaluate.evaluate_checkpoints` does, and writes a report of each into config.report.

    The report of a followed run is that of its newest checkpoint. Arguments and errors as there, but that `observer` is
    not told of the pictures that were scored; `command` as `write_report`.
    """
    collecting = _Collecting(config, observer)
    for evaluation in evaluate_checkpoints(config, data, changes, observer=collecting):
        write_report(config.report, evaluation, collecting.collected, command=command)
        yield evaluation
