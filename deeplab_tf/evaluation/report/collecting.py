"""What a report needs of the images of an evaluation, collected one by one.

Memory stays bounded for any number of images: small pictures of all of them lie in a temporary file until it is known
which ones the page shows.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from deeplab_tf.catalog.datasets import DATASETS, Dataset
from deeplab_tf.config import EvalConfig
from deeplab_tf.evaluation.passes import Pass, ScoredImage
from deeplab_tf.evaluation.report.page import Gallery, Shown
from deeplab_tf.evaluation.report.tally import ImageScores, Tally
from deeplab_tf.evaluation.report.thumbnails import Thumbnails
from deeplab_tf.inference.predictor import predictor_of
from deeplab_tf.ops.metrics import ConventionName, calibration_counts, expected_calibration_error

_EACH_GROUP = 4  # images of each group that the page shows
_MOST_GALLERIES = 40  # classes that have pictures of their own
_EACH_CLASS = 3  # of them where the class costs most
_CALIBRATED = 100  # images whose probabilities are computed once more, at most
_BINS = 15  # classes of confidence


def _differing(order: Sequence[ImageScores], most: int, alike: Callable[[int, int], bool]) -> list[ImageScores]:
    """Returns the first images of `order` that look different, and where those are too few the first of the others."""
    found: list[ImageScores] = []
    for image in order:
        if len(found) < most and not any(alike(image.index, other.index) for other in found):
            found.append(image)
    return found + [image for image in order if image not in found][: most - len(found)]


def chosen(
    images: Sequence[ImageScores],
    most: int = _EACH_GROUP,
    alike: Callable[[int, int], bool] = lambda _one, _other: False,
) -> dict[str, list[ImageScores]]:
    """Returns the worst, the middle and the best images by their own mean IoU, each once; those without one are not in.

    Args:
      images: all of them.
      most: the number of images of a group, at most.
      alike: whether two images, by their indices, look so alike that one of them is enough in a group.
    """
    order = sorted((image for image in images if not math.isnan(image.miou)), key=lambda image: image.miou)
    each = min(most, max(1, len(order) // 3))
    worst = _differing(order, each, alike)
    order = [image for image in order if image not in worst]
    best = _differing(order[::-1], each, alike)
    order = [image for image in order if image not in best]
    middle = _differing(order[max(0, (len(order) - each) // 2) :], each, alike)
    groups = {"The worst images": worst, "Images in the middle": middle, "The best images": best}
    return {name: group for name, group in groups.items() if group}


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
            for group, images in chosen(self.tally.images, alike=self._thumbnails.alike).items()
            for image in images
        ]

    def galleries(self) -> list[Gallery]:
        """Returns pictures of each class, the most labelled first: where it costs most pixels, and where it is best."""
        labelled = self.tally.matrix.sum(1)
        found: list[Gallery] = []
        for number in np.argsort(-labelled, kind="stable")[:_MOST_GALLERIES].tolist():
            costly, best = self.tally.extremes(number)
            images = _differing([self.tally.images[i] for i in costly], _EACH_CLASS, self._thumbnails.alike)
            chosen_best = [self.tally.images[i] for i in best if self.tally.images[i] not in images][:1]
            shown = [(one, self._thumbnails.of_class(one.index, number)) for one in (*images, *chosen_best)]
            if shown:
                found.append(Gallery(number, shown))
        return found
