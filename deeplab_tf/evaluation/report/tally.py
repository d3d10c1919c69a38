"""Tally: the scores of a data set, added up image by image, and the table of its images."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from deeplab_tf.evaluation.report.counts import ImageCounts
from deeplab_tf.ops.boundary import TRIMAP_WIDTHS, boundary_counts, contour_f_scores, trimap_matrices
from deeplab_tf.ops.metrics import (
    CITYSCAPES_CATEGORIES,
    ConventionName,
    Counts,
    bootstrap_intervals,
    class_mean,
    class_scores,
    confusion_matrix,
    convention_miou,
    counts_of,
    mean_iou,
    merged_classes,
    overall_scores,
)


@dataclasses.dataclass(frozen=True)
class ImageScores:
    """One image: a row of per_image.csv. Shares and scores are in 0..1; NaN where nothing counts.

    Attributes:
      index: its place in the data set, from 0.
      name: its stored name.
      height: in pixels.
      width: in pixels.
      ignored: the share of its pixels that do not count.
      pixel_accuracy: of its own pixels.
      miou: over the classes in it or predicted in it.
      boundary_iou: over the same classes.
      boundary_f: over the same classes.
      confused: its most frequent mistake, (class, predicted class) as indices, or None.
      confused_share: that mistake's share of the pixels that count.
    """

    index: int
    name: str
    height: int
    width: int
    ignored: float
    pixel_accuracy: float
    miou: float
    boundary_iou: float
    boundary_f: float
    confused: tuple[int, int] | None
    confused_share: float


def confused_pairs(matrix: np.ndarray, most: int = 10) -> list[tuple[int, int, int]]:
    """Returns (class, predicted class, pixels) of a confusion matrix's most frequent mistakes, the worst first."""
    wrong = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = (np.unravel_index(cell, matrix.shape) for cell in order)
    return [(int(row), int(column), int(wrong[row, column])) for row, column in pairs if wrong[row, column]]


class Tally:
    """Sums over images, from which their scores follow.

    Tallies of parts of a data set, merged in order, give the scores of one pass to the last bit.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        ignore_label: int = 255,
        around_void: bool = True,
        conventions: Sequence[ConventionName] = ("release",),
    ) -> None:
        """Makes an empty tally.

        Args:
          num_classes: the number of classes.
          ignore_label: the label whose pixels do not count.
          around_void: whether the bands of the trimap are around void; see `boundary.trimap_matrices`.
          conventions: the mean IoUs to give, as named in `metrics.CONVENTIONS`.
        """
        self.around_void = around_void
        self._classes = num_classes
        self._ignore = ignore_label
        self._conventions = tuple(conventions)
        self.matrix = np.zeros((num_classes, num_classes), np.int64)
        self.trimap = np.zeros((len(TRIMAP_WIDTHS), num_classes, num_classes), np.int64)
        self.images: list[ImageScores] = []
        self._counts: list[Counts] = []
        self._boundary: list[Counts] = []
        self._f_scores: list[np.ndarray] = []

    def add(self, label: np.ndarray, prediction: np.ndarray, name: str = "") -> ImageScores:
        """Adds an image, two class maps of integers [h, w], and returns its own scores.

        ValueError for a label or a prediction that is out of range.
        """
        ignored = self._ignore
        matrix = confusion_matrix(label, prediction, self._classes, ignore_label=ignored)
        boundary = boundary_counts(label, prediction, self._classes, ignore_label=ignored)
        f_scores = contour_f_scores(label, prediction, self._classes, ignore_label=ignored)
        self.trimap += trimap_matrices(
            label, prediction, self._classes, ignore_label=ignored, around_void=self.around_void
        )
        self.matrix += matrix
        self._counts.append(counts_of(matrix))
        self._boundary.append(boundary)
        self._f_scores.append(f_scores)
        self.images.append(self._scores_of(matrix, boundary, f_scores, name, label.shape))
        return self.images[-1]

    def _scores_of(
        self, matrix: np.ndarray, boundary: Counts, f_scores: np.ndarray, name: str, shape: tuple[int, ...]
    ) -> ImageScores:
        seen = int(matrix.sum())
        overall = overall_scores(counts_of(matrix))
        row, column, wrong = next(iter(confused_pairs(matrix, 1)), (0, 0, 0))
        return ImageScores(
            index=len(self.images),
            name=name,
            height=shape[0],
            width=shape[1],
            ignored=1 - seen / math.prod(shape),
            pixel_accuracy=float(overall["pixel_accuracy"]),
            miou=float(overall["miou"]),
            boundary_iou=float(class_mean(class_scores(boundary)["iou"])),
            boundary_f=float(class_mean(f_scores)),
            confused=(row, column) if wrong else None,
            confused_share=wrong / seen if seen else math.nan,
        )

    def merge(self, other: "Tally") -> None:
        """Adds the images of another tally of the same kind, after those of this one."""
        self.matrix += other.matrix
        self.trimap += other.trimap
        start = len(self.images)
        self.images += [dataclasses.replace(image, index=image.index + start) for image in other.images]
        self._counts += other._counts
        self._boundary += other._boundary
        self._f_scores += other._f_scores

    def image_counts(self) -> Iterator[ImageCounts]:
        """Yields the counts of each image, for other scores of it."""
        for image, counts in zip(self.images, self._counts, strict=True):
            table = np.stack(counts, axis=1)
            rows = ((int(i), *map(int, table[i])) for i in np.flatnonzero(table.any(1)))
            yield ImageCounts(image.name, tuple((i, right, labelled, found) for i, right, labelled, found in rows))

    def extremes(self, number: int, most: int = 30) -> tuple[list[int], list[int]]:
        """Returns the images, by index, of the most wrong pixels of a class, and of its best IoU, `most` at most."""
        hits, labelled, predicted = (np.array([counts[i][number] for counts in self._counts]) for i in range(3))
        wrong = labelled + predicted - 2 * hits
        costly = [int(i) for i in np.argsort(-wrong, kind="stable")[:most] if wrong[i]]
        iou = np.where(labelled > 0, hits / np.maximum(1, labelled + predicted - hits), 0)
        best = [int(i) for i in np.argsort(-iou, kind="stable")[:most] if iou[i]]
        return costly, best

    def shares(self, index: int) -> list[tuple[int, float, float]]:
        """Returns (class, share labelled, share predicted) of the classes in an image, the largest first.

        The shares are of its pixels that count.
        """
        _, labelled, predicted = self._counts[index]
        total = max(1, int(labelled.sum()))
        order = np.argsort(-labelled, kind="stable")
        there = [int(i) for i in order if labelled[i] or predicted[i]]
        return [(i, float(labelled[i] / total), float(predicted[i] / total)) for i in there]

    def intervals(self, *, resamples: int = 1000, level: float = 0.95) -> dict[str, tuple[float, float]]:
        """Returns `bootstrap_intervals` of the images, and those of "boundary_iou" and "boundary_f"."""
        of_images = np.array([[image.boundary_f] for image in self.images])
        scored = (~np.isnan(of_images)).astype(np.int64)
        parts = {
            "boundary_iou": (_stacked(self._boundary), "miou"),
            "boundary_f": (Counts(np.nan_to_num(of_images), scored, scored), "pixel_accuracy"),  # their plain mean
        }
        intervals = bootstrap_intervals(_stacked(self._counts), resamples=resamples, level=level)
        for name, (counts, key) in parts.items():
            intervals[name] = bootstrap_intervals(counts, resamples=resamples, level=level)[key]
        return intervals

    def scores(self) -> dict[str, Any]:
        """Returns the scores of all images, in 0..1 except for kappa; NaN where nothing counts.

        `overall_scores` of all pixels, and "boundary_iou" (mean over classes), "boundary_f" (mean over images of their
        means over classes); "conventions": the mean IoU by each of the conventions; "classes": name of the score ->
        float64 [classes]; "trimap": "widths", "miou", "pixel_accuracy", "around".
        """
        f_scores = np.stack(self._f_scores)
        boundary = class_scores(Counts(*(part.sum(0) for part in _stacked(self._boundary))))["iou"]
        bands = overall_scores(counts_of(self.trimap))
        return {
            **{name: float(value) for name, value in overall_scores(counts_of(self.matrix)).items()},
            "boundary_iou": float(class_mean(boundary)),
            "boundary_f": float(class_mean(class_mean(f_scores))),
            "conventions": self._by_convention(),
            "classes": {
                **class_scores(counts_of(self.matrix)),
                "boundary_iou": boundary,
                "boundary_f": class_mean(f_scores.T),
                "labelled": self.matrix.sum(1),
                "predicted": self.matrix.sum(0),
            },
            "trimap": {
                "around": "void" if self.around_void else "class boundaries",
                "widths": list(TRIMAP_WIDTHS),
                **{name: bands[name] for name in ("miou", "pixel_accuracy")},
            },
        }

    def _by_convention(self) -> Mapping[str, float]:
        counts = counts_of(self.matrix)
        scores: dict[str, float] = {name: float(convention_miou(counts, name)) for name in self._conventions}
        if "cityscapes" in scores:
            scores["cityscapes categories"] = mean_iou(merged_classes(self.matrix, [*CITYSCAPES_CATEGORIES.values()]))
        return scores


def _stacked(counts: list[Counts]) -> Counts:
    return Counts(*(np.stack(part) for part in zip(*counts, strict=True)))
