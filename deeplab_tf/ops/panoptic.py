"""Panoptic quality and parsing covering, summed over images (evaluation/panoptic_quality.py, parsing_covering.py).

Panoptic quality is of "Panoptic Segmentation" (Kirillov et al., section 4), parsing covering of "DeeperLab" (Yang et
al., section 3.3). A segment is an instance of a category: two maps of whole numbers say which category and which of its
instances a pixel belongs to; the one instance of a category without instances is 0. Accumulators of parts of a data set
are added by `merge`.
"""

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from deeplab_tf.errors import DeepLabError

_MATCH = 0.5  # a pair of segments matches above this intersection over union; there is at most one
_ZERO = 1e-10  # a denominator below it gives 0
_Metric = TypeVar("_Metric", bound="SegmentMetric")


@dataclasses.dataclass(frozen=True)
class Segments:
    """How segments are numbered.

    Attributes:
      num_categories: categories are 0..num_categories - 1, besides the ignored one.
      ignored_label: the category whose pixels do not count; within or beyond the others.
      max_instances_per_category: instances are 0..max_instances_per_category - 1.
      offset: the numbers of all segments lie below it, as the release demands without checking it. None: no limit.
    """

    num_categories: int
    ignored_label: int
    max_instances_per_category: int
    offset: int | None = None

    def __post_init__(self) -> None:
        for name in ("num_categories", "max_instances_per_category"):
            if getattr(self, name) < 1:
                raise DeepLabError(f"{name}={getattr(self, name)}: expected 1 or more")
        if self.ignored_label < 0:
            raise DeepLabError(f"ignored_label={self.ignored_label}: expected 0 or more")

    @property
    def rows(self) -> int:
        """The number of categories with the ignored one."""
        return max(self.num_categories, self.ignored_label + 1)

    @property
    def void(self) -> int:
        """The number of the segment of pixels that nobody labelled."""
        return self.ignored_label * self.max_instances_per_category

    def numbers(self, category: np.ndarray, instance: np.ndarray, what: str) -> np.ndarray:
        """Returns the number of each pixel's segment, int64 [h, w]: category * max_instances_per_category + instance.

        Raises:
          DeepLabError: the maps differ in shape, hold no whole numbers, or numbers that are too large; the message
            begins with `what`.
        """
        maps = np.asarray(category), np.asarray(instance)
        if maps[0].shape != maps[1].shape or maps[0].ndim != 2 or not maps[0].size:
            shapes = f"categories {maps[0].shape} and instances {maps[1].shape}"
            raise DeepLabError(f"{what}: {shapes}; expected two maps [height, width] of one size")
        for name, found, count in (("category", maps[0], self.rows), ("instance", maps[1], self._most)):
            if not np.issubdtype(found.dtype, np.integer):
                raise DeepLabError(f"{what}: a map of {found.dtype} for the {name}; expected whole numbers")
            if found.min() < 0 or found.max() >= count:
                flag = "num_categories" if name == "category" else "max_instances_per_category"
                wrong = found.min() if found.min() < 0 else found.max()
                raise DeepLabError(f"{what}: {name} {wrong}; expected 0 to {count - 1} ({flag})")
        beyond = maps[0][(maps[0] >= self.num_categories) & (maps[0] != self.ignored_label)]
        if beyond.size:
            expected = f"0 to {self.num_categories - 1} (num_categories)"
            raise DeepLabError(f"{what}: category {beyond.max()}; expected {expected}")
        numbers = maps[0].astype(np.int64) * self._most + maps[1]
        if self.offset is not None and numbers.max() >= self.offset:
            raise DeepLabError(
                f"{what}: segment {numbers.max()} and offset={self.offset}; expected an offset above all segments, "
                f"{self.rows * self._most} for instance"
            )
        return numbers

    def category_of(self, number: np.ndarray) -> np.ndarray:
        """Returns the category of each segment."""
        return number // self._most

    @property
    def _most(self) -> int:
        return self.max_instances_per_category


class _Overlaps(NamedTuple):
    """The segments of one image, and how many pixels each pair of them shares.

    Attributes:
      truth, truth_area: the numbers of the segments of the ground truth, ascending, and their pixels.
      found, found_area: those of the prediction.
      rows, columns, shared: for each pair that meets, its places in `truth` and in `found`, and the pixels in common.
    """

    truth: np.ndarray
    truth_area: np.ndarray
    found: np.ndarray
    found_area: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    shared: np.ndarray


def _overlaps(truth: np.ndarray, found: np.ndarray) -> _Overlaps:
    truths, row, truth_area = np.unique(truth, return_inverse=True, return_counts=True)
    founds, column, found_area = np.unique(found, return_inverse=True, return_counts=True)
    pairs, shared = np.unique(row.ravel() * len(founds) + column.ravel(), return_counts=True)
    return _Overlaps(truths, truth_area, founds, found_area, pairs // len(founds), pairs % len(founds), shared)


class SegmentMetric(abc.ABC):
    """A sum over images of which a number for each category follows.

    Attributes:
      name: the metric's, which is among `parts`.
      segments: how segments are numbered.
      sums: float64 [k, rows], what `names` lists for each category; the ignored one has a row that does not count.
    """

    name: str
    names: tuple[str, ...]

    def __init__(self, segments: Segments) -> None:
        self.segments = segments
        self.sums = np.zeros([len(self.names), segments.rows])

    def compare_and_accumulate(
        self, truth: tuple[np.ndarray, np.ndarray], found: tuple[np.ndarray, np.ndarray], *, image: str = "an image"
    ) -> float:
        """Adds an image; returns `result` over all so far.

        Args:
          truth: the categories and the instances of the ground truth, whole numbers [h, w] each.
          found: those of the prediction, of the same size.
          image: its name, for messages.

        Raises:
          DeepLabError: the maps are no such maps; nothing has been added.
        """
        numbers = self.segments.numbers(*truth, f"{image}: ground truth")
        predicted = self.segments.numbers(*found, f"{image}: prediction")
        if numbers.shape != predicted.shape:
            sizes = " and ".join(f"{height} x {width}" for height, width in (numbers.shape, predicted.shape))
            raise DeepLabError(f"{image}: ground truth and prediction have {sizes} pixels (height x width)")
        self._add(numbers, predicted)
        return self.result()

    def merge(self: _Metric, other: _Metric) -> None:
        """Adds what another accumulator of the same kind has seen.

        Raises:
          DeepLabError: it has other options.
        """
        if type(other) is not type(self) or other.options != self.options:
            raise DeepLabError(f"merge: {other.name} with {other.options} into {self.name} with {self.options}")
        self.sums += other.sums

    def reset(self) -> None:
        """Forgets all images."""
        self.sums[:] = 0.0

    @property
    def options(self) -> tuple[object, ...]:
        """What accumulators that are merged agree on."""
        return (self.segments,)

    def result(self) -> float:
        """Returns the mean over all valid categories, in 0..1; 0 where there is none."""
        return _mean(self.result_per_category(), self.valid())

    def result_per_category(self) -> np.ndarray:
        """Returns the metric of each category, float64 [num_categories]; that of the ignored one means nothing."""
        return self.parts()[self.name]

    def detailed_results(self, is_thing: Sequence[bool] | None = None) -> dict[str, dict[str, float]]:
        """Returns group -> the means of `parts` over its valid categories, and their number `n`.

        Args:
          is_thing: whether each category consists of instances that can be counted; categories beyond it are stuff.
            With it there are the groups Things and Stuff beside All.
        """
        valid, parts = self.valid(), self.parts()
        groups = {"All": valid}
        if is_thing is not None:
            things = np.zeros(len(valid), bool)
            known = np.asarray(is_thing, bool)[: len(valid)]
            things[: len(known)] = known
            groups |= {"Things": valid & things, "Stuff": valid & ~things}
        return {
            group: {**{name: _mean(values, chosen) for name, values in parts.items()}, "n": int(chosen.sum())}
            for group, chosen in groups.items()
        }

    @abc.abstractmethod
    def parts(self) -> Mapping[str, np.ndarray]:
        """Returns the metric of each category and what it consists of, float64 [num_categories] each."""

    @abc.abstractmethod
    def valid(self) -> np.ndarray:
        """Returns whether each category counts, bool [num_categories]."""

    @abc.abstractmethod
    def _add(self, truth: np.ndarray, found: np.ndarray) -> None:
        """Adds an image, whose segments are numbered."""

    def _of(self, name: str) -> np.ndarray:
        return self.sums[self.names.index(name), : self.segments.num_categories]

    def _counted(self, present: np.ndarray) -> np.ndarray:
        """Returns the categories that are present, without the ignored one."""
        return present & (np.arange(self.segments.num_categories) != self.segments.ignored_label)

    def _count(self, name: str, numbers: np.ndarray, weights: np.ndarray | None = None) -> None:
        """Adds weights, or 1 each, to the categories of segments."""
        rows = self.segments.category_of(numbers)
        self.sums[self.names.index(name)] += np.bincount(rows, weights, minlength=self.sums.shape[1])


class PanopticQuality(SegmentMetric):
    """PQ = sum of the matches' intersection over union / (tp + fp / 2 + fn / 2), as sq * rq."""

    name = "pq"
    names = ("iou", "tp", "fn", "fp")

    def parts(self) -> Mapping[str, np.ndarray]:
        """Returns panoptic, segmentation and recognition quality of each category, float64 [num_categories] each."""
        matches = self._of("tp")
        segmentation = _ratio(self._of("iou"), matches)
        recognition = _ratio(matches, matches + self._of("fn") / 2 + self._of("fp") / 2)
        return {"pq": segmentation * recognition, "sq": segmentation, "rq": recognition}

    def valid(self) -> np.ndarray:
        """Returns whether each category has a segment, bool [num_categories]."""
        return self._counted(self._of("tp") + self._of("fn") + self._of("fp") > 0)

    def _add(self, truth: np.ndarray, found: np.ndarray) -> None:
        both = _overlaps(truth, found)
        category = self.segments.category_of
        ignored = category(both.truth) == self.segments.ignored_label
        on_void = _pixels_on(both, both.truth == self.segments.void)
        on_ignored = _pixels_on(both, ignored)

        union = both.truth_area[both.rows] + both.found_area[both.columns] - both.shared - on_void[both.columns]
        # A prediction that lies on void alone meets nothing that it could match.
        overlap = np.divide(both.shared, union, out=np.zeros(len(union)), where=union > 0)
        same = category(both.truth[both.rows]) == category(both.found[both.columns])
        matched = same & (overlap > _MATCH)
        self._count("iou", both.truth[both.rows[matched]], overlap[matched])
        self._count("tp", both.truth[both.rows[matched]])

        missed = ~ignored
        missed[both.rows[matched]] = False
        self._count("fn", both.truth[missed])
        wrong = on_ignored / both.found_area <= _MATCH
        wrong[both.columns[matched]] = False
        self._count("fp", both.found[wrong])


class ParsingCovering(SegmentMetric):
    """PC = the best intersection over union of each segment of the ground truth, weighted by its area.

    Pixels whose ground truth is the ignored category do not exist for it.
    """

    name = "pc"
    names = ("covered", "area")

    def __init__(self, segments: Segments, *, normalize_by_image_size: bool = True) -> None:
        super().__init__(segments)
        self.normalize_by_image_size = normalize_by_image_size

    @property
    def options(self) -> tuple[object, ...]:
        """What accumulators that are merged agree on."""
        return (self.segments, self.normalize_by_image_size)

    def parts(self) -> Mapping[str, np.ndarray]:
        """Returns the parsing covering of each category, float64 [num_categories]."""
        return {"pc": _ratio(self._of("covered"), self._of("area"))}

    def valid(self) -> np.ndarray:
        """Returns whether the ground truth has pixels of each category, bool [num_categories]."""
        return self._counted(self._of("area") > 0)

    def _add(self, truth: np.ndarray, found: np.ndarray) -> None:
        category = self.segments.category_of
        kept = category(truth) != self.segments.ignored_label
        if not kept.any():
            return
        both = _overlaps(truth[kept], found[kept])
        union = both.truth_area[both.rows] + both.found_area[both.columns] - both.shared
        same = category(both.truth[both.rows]) == category(both.found[both.columns])
        best = np.zeros(len(both.truth))
        np.maximum.at(best, both.rows[same], both.shared[same] / union[same])
        area = both.truth_area / (truth.size if self.normalize_by_image_size else 1)
        self._count("covered", both.truth, best * area)
        self._count("area", both.truth, area)


def _pixels_on(both: _Overlaps, chosen: np.ndarray) -> np.ndarray:
    """Returns how many pixels of each predicted segment lie on the `chosen` segments of the ground truth."""
    return np.bincount(both.columns, both.shared * chosen[both.rows], minlength=len(both.found))


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=np.abs(denominator) >= _ZERO)


def _mean(values: np.ndarray, chosen: np.ndarray) -> float:
    return float(values[chosen].mean()) if chosen.any() else 0.0
