"""Panoptic segmentations as COCO stores them: scored against each other, and written (evaluation/eval_coco_format.py).

Such a set is a JSON file and a folder with a PNG a picture, whose colours number its segments
(cocodataset.org/#format-data, "Panoptic Segmentation").
"""

import collections
import concurrent.futures
import copy
import dataclasses
import json
import multiprocessing
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from deeplab_tf import files
from deeplab_tf.data.annotations.coco_panoptic import read_segments
from deeplab_tf.data.annotations.reading import checked, field, optional, read_json, shown, slashes
from deeplab_tf.errors import DeepLabError
from deeplab_tf.ops.images import png_bytes
from deeplab_tf.ops.panoptic import SegmentMetric, Segments

_LARGEST_ID = 256**3 - 1  # of a segment, in three channels
_TASK = 16  # images that a process scores at a time


class _Segment(NamedTuple):
    identity: int
    category: int
    crowd: bool


class _Image(NamedTuple):
    """One annotation: the place of its PNG, and its segments."""

    png: str
    segments: tuple[_Segment, ...]


@dataclasses.dataclass(frozen=True)
class PanopticSet:
    """A JSON file of panoptic segmentations.

    Attributes:
      file: its path.
      images: image id -> its PNG and segments, as listed.
      categories: category id -> its name and whether it consists of things; empty if the file does not list any.
    """

    file: str
    images: Mapping[int | str, _Image]
    categories: Mapping[int, tuple[str, bool]]

    @property
    def is_thing(self) -> list[bool]:
        """Whether each category consists of things; those that are not listed are stuff."""
        count = max(self.categories, default=-1) + 1
        return [self.categories.get(number, ("", False))[1] for number in range(count)]


@dataclasses.dataclass(frozen=True)
class ImageSegments:
    """One picture's segmentation, to be written.

    Attributes:
      name: the picture's file name; the PNG is called like it.
      category: category of each pixel, whole numbers [h, w].
      instance: instance of each pixel within its category, whole numbers [h, w].
    """

    name: str
    category: np.ndarray
    instance: np.ndarray


def read_panoptic(file: str | os.PathLike, folder: str | os.PathLike | None = None) -> PanopticSet:
    """Returns what a JSON file lists; the PNGs are read when they are scored.

    Args:
      file: the path of the JSON file.
      folder: that of the PNGs. None: the file's path without .json.

    Raises:
      DeepLabError: the file cannot be read or is no such file.
    """
    file = os.fspath(file)
    values = read_json(file)
    folder = os.fspath(folder) if folder is not None else file.removesuffix(".json")
    if not files.path(folder).is_dir():
        raise DeepLabError(f"{folder}: no such folder; expected the one with the PNGs that {file} lists")
    images: dict[int | str, _Image] = {}
    for position, found in enumerate(field(values, "annotations", list, file)):
        where = f"{file}: annotation {position}"
        annotation = checked(found, dict, where)
        identity = annotation.get("image_id")
        if isinstance(identity, bool) or not isinstance(identity, int | str):
            raise DeepLabError(f"{where}: image_id={shown(identity)}; expected a whole number")
        if identity in images:
            raise DeepLabError(f"{where}: image_id {shown(identity)} occurs twice; expected one annotation an image")
        name = slashes(field(annotation, "file_name", str, where))
        if not name or name.startswith("/") or ".." in name.split("/"):
            raise DeepLabError(f"{where}: file_name={shown(name)}; expected a name in {folder}")
        images[identity] = _Image(os.path.join(folder, name), tuple(_segments(annotation, where)))
    if not images:
        raise DeepLabError(f"{file}: no annotations; expected one for each image")
    return PanopticSet(file, images, _categories(values, file))


def _segments(annotation: dict[str, Any], where: str) -> Iterator[_Segment]:
    if "segments_info" not in annotation:
        raise DeepLabError(f"{where}: no segments_info; expected panoptic segmentations, not COCO's instances")
    known: set[int] = set()
    for found in field(annotation, "segments_info", list, where):
        values = checked(found, dict, where)
        identity = field(values, "id", int, where)
        place = f"{where}: segment {shown(identity)}"
        if not 0 <= identity <= _LARGEST_ID or identity in known:
            expected = "one entry each" if identity in known else f"0 to {_LARGEST_ID}, three channels of a PNG"
            raise DeepLabError(f"{place}: expected {expected}")
        known.add(identity)
        crowd = values.get("iscrowd", 0)
        if crowd not in (0, 1):
            raise DeepLabError(f"{place}: iscrowd={shown(crowd)}; expected 0 or 1")
        yield _Segment(identity, field(values, "category_id", int, place), bool(crowd))


def _categories(values: dict[str, Any], file: str) -> dict[int, tuple[str, bool]]:
    categories: dict[int, tuple[str, bool]] = {}
    for position, found in enumerate(optional(values, "categories", list, file, [])):
        where = f"{file}: category {position}"
        category = checked(found, dict, where)
        identity = field(category, "id", int, where)
        thing = category.get("isthing")
        if not 0 <= identity <= 2**16 or identity in categories:
            raise DeepLabError(f"{where}: id {shown(identity)}; expected a small whole number, each once")
        if thing not in (0, 1):
            raise DeepLabError(f"{where}: isthing={shown(thing)}; expected 0 or 1")
        categories[identity] = (optional(category, "name", str, where, str(identity)), bool(thing))
    return categories


def score_panoptic(
    metric: SegmentMetric, truth: PanopticSet, found: PanopticSet, *, processes: int = 0
) -> tuple[str, ...]:
    """Adds all images of a ground truth, with their predictions, to a metric.

    Crowds of the ground truth count as its ignored category; predictions have none (a mark iscrowd is not looked at).
    Pixels whose number is not listed are category 0.

    Args:
      metric: what the images are added to.
      truth: the ground truth.
      found: the predictions.
      processes: that share the images; 0: this one alone, -1: as many as there are processors.

    Returns:
      a line for each thing to know: predictions of other images, categories that are not listed.

    Raises:
      DeepLabError: an image lacks its prediction, or a PNG cannot be read or does not fit.
    """
    missing = [identity for identity in truth.images if identity not in found.images]
    if missing:
        what = f"no prediction for image_id {shown(missing[0])}"
        more = f" and {len(missing) - 1:,} others" if len(missing) > 1 else ""
        raise DeepLabError(f"{found.file}: {what}{more} of {truth.file}; expected one for each image")
    pairs = [(truth.images[identity], found.images[identity]) for identity in truth.images]
    tasks = [pairs[start : start + _TASK] for start in range(0, len(pairs), _TASK)]
    processes = os.cpu_count() or 1 if processes < 0 else processes
    empty = copy.deepcopy(metric)
    empty.reset()
    if processes and len(tasks) > 1:
        # Children begin anew: this process may have threads of TensorFlow's, which a fork would lose.
        spawn = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(min(processes, len(tasks)), spawn) as pool:
            parts = list(pool.map(_scored, [empty] * len(tasks), tasks))
    else:
        parts = [_scored(empty, task) for task in tasks]
    for part in parts:
        metric.merge(part)
    return tuple(_notes(metric.segments, truth, found))


def _notes(segments: Segments, truth: PanopticSet, found: PanopticSet) -> Iterator[str]:
    if others := [identity for identity in found.images if identity not in truth.images]:
        yield f"{found.file}: {len(others):,} predictions of images that {truth.file} does not list are left out"
    unlisted = set(range(len(truth.is_thing))) - set(truth.categories) - {segments.ignored_label}
    if truth.categories and unlisted:
        yield f"{truth.file}: no category has the id {min(unlisted)}; it is taken for stuff"


def _scored(metric: SegmentMetric, pairs: Sequence[tuple[_Image, _Image]]) -> SegmentMetric:
    part = copy.deepcopy(metric)
    for truth, found in pairs:
        maps = _maps(truth, part.segments, crowds=True), _maps(found, part.segments, crowds=False)
        part.compare_and_accumulate(*maps, image=truth.png)
    return part


def _maps(image: _Image, segments: Segments, *, crowds: bool) -> tuple[np.ndarray, np.ndarray]:
    """Returns the categories and the instances of a picture, int64 [h, w] each."""
    numbers, place = np.unique(read_segments(image.png), return_inverse=True)
    values = np.zeros((2, len(numbers)), np.int64)
    following: collections.Counter[int] = collections.Counter({segments.ignored_label: 1})  # its instance 0 is void
    for segment in image.segments:
        category = segments.ignored_label if crowds and segment.crowd else segment.category
        position = int(np.searchsorted(numbers, segment.identity))
        if position < len(numbers) and numbers[position] == segment.identity:
            values[:, position] = category, following[category]
        following[category] += 1
    category, instance = values[:, place]
    return category, instance


def results_table(metric: SegmentMetric, truth: PanopticSet, *, digits: int) -> str:
    """Returns the lines of the results: the groups, then every category that counts, in percent.

    Args:
      metric: what has been summed.
      truth: the ground truth, for the names of the categories and which of them are things.
      digits: to which a share of 1 is rounded; 3 give one decimal of a percentage.
    """
    parts = metric.parts()
    groups = metric.detailed_results(truth.is_thing if truth.categories else None)
    valid = np.flatnonzero(metric.valid())
    rows = [(group, [values[name] for name in parts], str(int(values["n"]))) for group, values in groups.items()]
    rows += [(truth.categories.get(int(i), (str(i), False))[0], [parts[n][i] for n in parts], "") for i in valid]
    width = max(len(name) for name, _, _ in rows)
    decimals = max(0, digits - 2)
    lines = [f"{'':<{width}}" + "".join(f"{name.upper():>9}" for name in parts) + f"{'n':>6}"]
    for name, values, count in rows:
        cells = "".join(f"{100 * round(float(value), digits):>9.{decimals}f}" for value in values)
        lines.append(f"{name:<{width}}{cells}{count:>6}".rstrip())
    return "\n".join(lines)


def write_panoptic(
    file: str | os.PathLike, images: Iterable[ImageSegments], categories: Mapping[int, tuple[str, bool]], *, void: int
) -> int:
    """Writes segmentations as COCO stores them: a PNG a picture in the folder of the file's name, then the JSON file.

    Args:
      file: the path of the JSON file, whose name ends in .json.
      images: the pictures' segmentations; image_id is their number, from 1.
      categories: category id -> its name and whether it consists of things.
      void: the category whose pixels belong to no segment.

    Returns:
      the number of pictures.

    Raises:
      DeepLabError: a picture has an unknown category or more than 16.7 million segments, or nothing can be written.
    """
    file = os.fspath(file)
    if not file.endswith(".json"):
        raise DeepLabError(f"{file}: expected a name that ends in .json")
    annotations: list[dict[str, Any]] = []
    described: list[dict[str, Any]] = []
    with files.growing(file.removesuffix(".json"), durable=False) as folder:
        for number, image in enumerate(images, 1):
            png, listed = _numbered(image, categories, void)
            name = f"{os.path.splitext(os.path.basename(image.name))[0]}.png"
            if (folder / name).exists():
                raise DeepLabError(f"{image.name}: another picture has become {name}; expected names that differ")
            (folder / name).write_bytes(png_bytes(png))
            height, width = png.shape[:2]
            described.append({"id": number, "file_name": image.name, "height": height, "width": width})
            annotations.append({"image_id": number, "file_name": name, "segments_info": listed})
    names = [{"id": number, "name": name, "isthing": int(thing)} for number, (name, thing) in categories.items()]
    with files.written(file) as target:
        target.write_text(json.dumps({"images": described, "annotations": annotations, "categories": names}), "utf-8")
    return len(described)


def _numbered(
    image: ImageSegments, categories: Mapping[int, tuple[str, bool]], void: int
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Returns the PNG of a picture, uint8 [h, w, 3], and what JSON says of its segments."""
    pairs = np.stack([image.category, image.instance], axis=-1).reshape(-1, 2).astype(np.int64)
    segments, place, areas = np.unique(pairs, axis=0, return_inverse=True, return_counts=True)
    if unknown := sorted(set(segments[:, 0].tolist()) - set(categories) - {void}):
        raise DeepLabError(f"{image.name}: category {unknown[0]}, which is not among the categories")
    if len(segments) > _LARGEST_ID:
        raise DeepLabError(f"{image.name}: {len(segments):,} segments; expected at most {_LARGEST_ID:,}")
    labelled = segments[:, 0] != void
    numbers = np.where(labelled, np.cumsum(labelled), 0)
    listed = [
        {"id": int(n), "category_id": int(category), "area": int(area), "iscrowd": 0}
        for n, category, area in zip(numbers, segments[:, 0], areas, strict=True)
        if n
    ]
    flat = numbers[place.ravel()].reshape(image.category.shape)
    return np.stack([flat % 256, flat // 256 % 256, flat // 65536], axis=-1).astype(np.uint8), listed
