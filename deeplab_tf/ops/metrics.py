"""Segmentation scores from one confusion matrix, in int64 so that shards add up exactly.

A score of no pixels (0/0) is NaN, and is left out of the means over classes. The scores need only `Counts` of a matrix,
three numbers for each class; the leading axes of these may be images, or resamplings of a data set.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

# The groups that Cityscapes scores besides its classes (cityscapesScripts, helpers/labels.py), by train id.
CITYSCAPES_CATEGORIES: Mapping[str, tuple[int, ...]] = {
    "flat": (0, 1),
    "construction": (2, 3, 4),
    "object": (5, 6, 7),
    "nature": (8, 9),
    "sky": (10,),
    "human": (11, 12),
    "vehicle": (13, 14, 15, 16, 17, 18),
}


@dataclasses.dataclass(frozen=True)
class Convention:
    """The classes that a mean IoU is taken over.

    They are those from `first` on; a class in neither labels nor predictions scores `absent`, or None: is left out.
    """

    first: int = 0
    absent: float | None = None


ConventionName = Literal["release", "voc", "cityscapes", "ade"]
# release: tf.metrics.mean_iou. voc: VOCevalseg.m of the devkit, in which 0/0 spoils the mean. cityscapes:
# evalPixelLevelSemanticLabeling.py; `merged_classes` gives its categories. ade: the scene parsing challenge's
# evaluation of 150 of our 151 classes (0 is unlabelled), in which an absent one scores 0.
CONVENTIONS: Mapping[ConventionName, Convention] = {
    "release": Convention(),
    "voc": Convention(absent=math.nan),
    "cityscapes": Convention(),
    "ade": Convention(first=1, absent=0.0),
}


class Counts(NamedTuple):
    """Pixels of each class, int64 [..., classes]: those predicted rightly, those labelled, those predicted."""

    hits: np.ndarray
    labelled: np.ndarray
    predicted: np.ndarray


def _within(values: np.ndarray, end: int) -> bool:
    return not values.size or (values.min() >= 0 and values.max() < end)


def confusion_matrix(
    labels: np.ndarray, predictions: np.ndarray, num_classes: int, *, ignore_label: int = 255
) -> np.ndarray:
    """Returns counts int64 [num_classes, num_classes]: rows are the true classes, columns the predicted ones.

    Args:
      labels: integers of any shape.
      predictions: integers of the same shape.
      num_classes: number of classes.
      ignore_label: pixels with this label do not count.

    Raises:
      ValueError: the shapes differ, or a label or prediction is not in 0..num_classes - 1.
    """
    if labels.shape != predictions.shape:
        raise ValueError(f"labels {labels.shape} and predictions {predictions.shape} differ in shape")
    rows = max(num_classes, ignore_label + 1)
    if not (_within(labels, rows) and _within(predictions, num_classes)):
        # Ignored pixels may hold any prediction. Taking them out takes ten times as long as counting, so it is not done
        # unless a value is out of range.
        counted = labels != ignore_label
        labels = labels[counted]
        predictions = predictions[counted]
        for name, values in (("label", labels), ("prediction", predictions)):
            if not _within(values, num_classes):
                raise ValueError(f"{name} {values.min()}..{values.max()} outside 0..{num_classes - 1}")
    cells = labels.astype(np.int64)
    cells *= num_classes
    cells += predictions
    counts = np.bincount(cells.ravel(), minlength=rows * num_classes).reshape(rows, num_classes)
    if ignore_label >= 0:
        counts[ignore_label] = 0
    if counts[num_classes:].any():
        present = np.flatnonzero(counts.any(axis=1))
        raise ValueError(f"label {present[0]}..{present[-1]} outside 0..{num_classes - 1}")
    return counts[:num_classes]


def counts_of(matrix: np.ndarray) -> Counts:
    """Returns the counts [..., classes] of confusion matrices [..., classes, classes]."""
    # A view of the diagonal would keep the whole matrix.
    return Counts(np.diagonal(matrix, axis1=-2, axis2=-1).copy(), matrix.sum(-1), matrix.sum(-2))


def merged_classes(matrix: np.ndarray, groups: Sequence[Sequence[int]]) -> np.ndarray:
    """Returns the confusion matrix [groups, groups] of groups of classes; classes in no group are left out."""
    member = np.array([[index in group for index in range(len(matrix))] for group in groups], np.int64)
    return member @ matrix @ member.T


def _ratio(part: Any, whole: Any) -> np.ndarray:
    """Returns part / whole in float64, NaN where whole is 0; both are arrays or numbers."""
    part, whole = np.broadcast_arrays(np.asarray(part, np.float64), np.asarray(whole, np.float64))
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def class_mean(values: np.ndarray) -> np.ndarray:
    """Returns the mean over the last axis of the values that are not NaN; NaN if there are none."""
    good = ~np.isnan(values)
    return _ratio(np.where(good, values, 0).sum(-1), good.sum(-1))


def class_scores(counts: Counts) -> dict[str, np.ndarray]:
    """Returns "iou", "dice" (F1), "accuracy" (recall) and "precision" of each class, float64 [..., classes]."""
    hits, labelled, predicted = counts
    return {
        "iou": _ratio(hits, labelled + predicted - hits),
        "dice": _ratio(2 * hits, labelled + predicted),
        "accuracy": _ratio(hits, labelled),
        "precision": _ratio(hits, predicted),
    }


def convention_miou(counts: Counts, convention: ConventionName = "release") -> np.ndarray:
    """Returns the mean IoU, float64 [...], over the classes of CONVENTIONS[convention]."""
    rule = CONVENTIONS[convention]
    iou = class_scores(counts)["iou"][..., rule.first :]
    if rule.absent is None:
        return class_mean(iou)
    return np.where(np.isnan(iou), rule.absent, iou).mean(-1)


def overall_scores(counts: Counts) -> dict[str, np.ndarray]:
    """Returns the scores over all classes, float64 [...].

    "miou" (convention release), "pixel_accuracy", "mean_accuracy" (mPA, over the classes with labels),
    "frequency_weighted_iou", "mean_dice", and "kappa" (Cohen's: 1 is perfect, 0 is chance).
    """
    of_class = class_scores(counts)
    total = counts.labelled.sum(-1)
    right = _ratio(counts.hits.sum(-1), total)
    shares = [_ratio(part, total[..., None]) for part in (counts.labelled, counts.predicted)]
    chance = (shares[0] * shares[1]).sum(-1)
    return {
        "miou": class_mean(of_class["iou"]),
        "pixel_accuracy": right,
        "mean_accuracy": class_mean(of_class["accuracy"]),
        "frequency_weighted_iou": (shares[0] * np.nan_to_num(of_class["iou"])).sum(-1),
        "mean_dice": class_mean(of_class["dice"]),
        "kappa": _ratio(right - chance, 1 - chance),
    }


def iou_per_class(matrix: np.ndarray) -> np.ndarray:
    """Returns intersection over union float64 [classes]; NaN for a class in neither labels nor predictions."""
    return class_scores(counts_of(matrix))["iou"]


def mean_iou(matrix: np.ndarray, convention: ConventionName = "release") -> float:
    """Returns the mean IoU of a confusion matrix.

    By default it is over the classes with a non-empty union, as in the release's eval (tf.metrics.mean_iou).
    """
    return float(convention_miou(counts_of(matrix), convention))


def pixel_accuracy(matrix: np.ndarray) -> float:
    """Returns the share of pixels predicted rightly, among those that count."""
    return float(_ratio(np.trace(matrix), matrix.sum()))


def bootstrap_sums(counts: Counts, *, resamples: int = 1000, seed: int = 0) -> Counts:
    """Returns the sums [resamples, classes] of the counts of images drawn anew, with replacement.

    Counts of the same number of images with the same `seed` are of the same draws, as a paired bootstrap needs.

    Args:
      counts: of each image, [images, classes]; of at least one image.
      resamples: number of draws, each of as many images as there are.
      seed: of the draws.
    """
    random = np.random.default_rng(seed)
    images = len(counts.hits)
    table = np.concatenate(counts, axis=-1).astype(np.float64)
    draws = (np.bincount(random.integers(0, images, images), minlength=images) for _ in range(resamples))
    return Counts(*np.split(np.stack([draw @ table for draw in draws]), 3, axis=-1))


def percentile_interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Returns (low, high), between which a share `level` of some values [n] lies; those that are NaN are left out."""
    values = values[~np.isnan(values)]
    low, high = np.quantile(values, (0.5 - level / 2, 0.5 + level / 2)) if len(values) else (math.nan, math.nan)
    return float(low), float(high)


def bootstrap_intervals(
    counts: Counts, *, resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Returns the percentile interval of each of `overall_scores` when the images are drawn anew, with replacement.

    It tells how much the score would differ on other images like these; training again makes it differ more.

    Args:
      counts: of each image, [images, classes].
      resamples: number of draws.
      level: share of the draws within the interval.
      seed: of the draws.

    Returns:
      name -> (low, high); both are NaN for fewer than two images.
    """
    if len(counts.hits) < 2:
        return dict.fromkeys(overall_scores(counts), (math.nan, math.nan))
    sums = bootstrap_sums(counts, resamples=resamples, seed=seed)
    return {name: percentile_interval(values, level) for name, values in overall_scores(sums).items()}


def calibration_counts(confidence: np.ndarray, right: np.ndarray, *, bins: int = 15) -> np.ndarray:
    """Returns float64 [3, bins]: number of pixels, sum of confidences, number of right predictions, by confidence.

    Sums of such arrays are those of several images.

    Args:
      confidence: probabilities in 0..1 of the predicted classes; NaN, from weights that diverged, is left out.
      right: bool of equal shape, whether the prediction is the label.
      bins: number of bins, which are equally wide.
    """
    known = ~np.isnan(confidence)
    confidence = confidence[known]
    right = right[known]
    index = np.minimum((confidence * bins).astype(np.int64), bins - 1).ravel()
    weights = (None, confidence.ravel(), right.ravel())
    return np.stack([np.bincount(index, weight, minlength=bins).astype(np.float64) for weight in weights])


def expected_calibration_error(counts: np.ndarray) -> float:
    """Returns the mean gap between confidence and accuracy of `calibration_counts`, weighted by pixels.

    Source: the ECE of Guo et al. 2017.
    """
    number, confidence, right = counts
    return float(_ratio(np.abs(confidence - right).sum(), number.sum()))
