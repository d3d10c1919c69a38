"""The scores of a data set, image by image: what is added up, and the table of its images."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from deeplab_tf.ops.boundary import TRIMAP_WIDTHS, boundary_counts, contour_f_scores, trimap_matrices
from deeplab_tf.ops.metrics import (
    CITYSCAPES_CATEGORIES,
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
      index, name: its place in the data set, from 0, and its stored name.
      height, width: in pixels.
      ignored: share of its pixels that count nowhere.
      pixel_accuracy, miou, boundary_iou, boundary_f: its own scores, over the classes in it or predicted in it.
      confused: class -> prediction of its most frequent mistake, as indices, or None.
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
    """Returns (class, predicted class, pixels) of the most frequent mistakes of a confusion matrix, first the worst."""
    wrong = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = (np.unravel_index(cell, matrix.shape) for cell in order)
    return [(int(row), int(column), int(wrong[row, column])) for row, column in pairs if wrong[row, column]]


class Tally:
    """Scores of images as they come. Parts that were tallied apart are put together by `merge`, in order, and then are
    what one pass would have given, to the last bit."""

    def __init__(
        self,
        num_classes: int,
        *,
        ignore_label: int = 255,
        around_void: bool = True,
        conventions: Sequence[str] = ("release",),
    ):
        """`around_void` says what the bands of the trimap are around, see `boundary.trimap_matrices`; `conventions`,
        names of `metrics.CONVENTIONS`, which mean IoUs the classes have."""
        self._classes, self._ignore, self.around_void = num_classes, ignore_label, around_void
        self._conventions = tuple(conventions)
        self.matrix = np.zeros((num_classes, num_classes), np.int64)
        self.trimap = np.zeros((len(TRIMAP_WIDTHS), num_classes, num_classes), np.int64)
        self.images: list[ImageScores] = []
        self._counts: list[Counts] = []
        self._boundary: list[Counts] = []
        self._f_scores: list[np.ndarray] = []

    def add(self, label: np.ndarray, prediction: np.ndarray, name: str = "") -> ImageScores:
        """Adds an image: class maps, integers [h, w]. ValueError as `confusion_matrix`."""
        how = {"ignore_label": self._ignore}
        matrix = confusion_matrix(label, prediction, self._classes, **how)
        boundary = boundary_counts(label, prediction, self._classes, **how)
        f_scores = contour_f_scores(label, prediction, self._classes, **how)
        how["around_void"] = self.around_void
        self.trimap += trimap_matrices(label, prediction, self._classes, **how)
        self.matrix += matrix
        self._counts.append(counts_of(matrix))
        self._boundary.append(boundary)
        self._f_scores.append(f_scores)
        self.images.append(self._scores_of(matrix, boundary, f_scores, name, label.shape))
        return self.images[-1]

    def _scores_of(self, matrix, boundary: Counts, f_scores, name: str, shape: tuple[int, int]) -> ImageScores:
        seen, pixels = int(matrix.sum()), math.prod(shape)
        overall = overall_scores(counts_of(matrix))
        row, column, wrong = next(iter(confused_pairs(matrix, 1)), (0, 0, 0))
        return ImageScores(
            index=len(self.images),
            name=name,
            height=shape[0],
            width=shape[1],
            ignored=1 - seen / pixels,
            pixel_accuracy=float(overall["pixel_accuracy"]),
            miou=float(overall["miou"]),
            boundary_iou=float(class_mean(class_scores(boundary)["iou"])),
            boundary_f=float(class_mean(f_scores)),
            confused=(row, column) if wrong else None,
            confused_share=wrong / seen if seen else math.nan,
        )

    def merge(self, other: "Tally"):
        """Adds the images of another tally of the same kind, after those of this one."""
        self.matrix += other.matrix
        self.trimap += other.trimap
        start = len(self.images)
        self.images += [dataclasses.replace(image, index=image.index + start) for image in other.images]
        self._counts += other._counts
        self._boundary += other._boundary
        self._f_scores += other._f_scores

    def shares(self, index: int) -> list[tuple[int, float, float]]:
        """Returns (class, share labelled, share predicted) of each class in an image, of its pixels that count; first
        the largest."""
        _, labelled, predicted = self._counts[index]
        total, order = max(1, int(labelled.sum())), np.argsort(-labelled, kind="stable")
        there = [int(i) for i in order if labelled[i] or predicted[i]]
        return [(i, float(labelled[i] / total), float(predicted[i] / total)) for i in there]

    def intervals(self, **options) -> dict[str, tuple[float, float]]:
        """Returns `bootstrap_intervals` of the images, those of "boundary_iou" and "boundary_f" too."""
        of_images = np.array([[image.boundary_f] for image in self.images])
        scored = (~np.isnan(of_images)).astype(np.int64)
        parts = {
            "boundary_iou": (_stacked(self._boundary), "miou"),
            "boundary_f": (Counts(np.nan_to_num(of_images), scored, scored), "pixel_accuracy"),  # their plain mean
        }
        more = {name: bootstrap_intervals(counts, **options)[key] for name, (counts, key) in parts.items()}
        return {**bootstrap_intervals(_stacked(self._counts), **options), **more}

    def scores(self) -> dict[str, object]:
        """Returns what the images come to, all in 0..1 but kappa; NaN where nothing counts.

        `overall_scores` of all pixels, and "boundary_iou" (mean over classes), "boundary_f" (mean over images of their
        means over classes); "conventions": the mean IoU by each of the conventions; "classes": name of
        the score -> float64 [classes]; "trimap": "widths", "miou", "pixel_accuracy", "around".
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
        found = {name: float(convention_miou(counts_of(self.matrix), name)) for name in self._conventions}
        if "cityscapes" in found:
            found["cityscapes categories"] = mean_iou(merged_classes(self.matrix, [*CITYSCAPES_CATEGORIES.values()]))
        return found


def _stacked(counts: list[Counts]) -> Counts:
    return Counts(*(np.stack(part) for part in zip(*counts, strict=True)))
