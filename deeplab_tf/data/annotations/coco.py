"""COCO's instances as JSON: polygons of several parts, run lengths, crowds (cocodataset.org/#format-data).

Of a file only the place of each annotation is kept, so that the 860,000 of COCO's own take little memory.
"""

import array
import dataclasses
import os
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import IO, Any

import numpy as np

from deeplab_tf import files
from deeplab_tf.data.annotations.coco_index import CocoIndex, Id, identity_of
from deeplab_tf.data.annotations.drawn import AnnotatedPicture, Annotations, Bitmap, Polygon, Shape, Unusable, attempt
from deeplab_tf.data.annotations.reading import (
    checked,
    field,
    flat_points,
    picture_size,
    shown,
    slashes,
    split_of_file,
)
from deeplab_tf.data.annotations.run_lengths import compressed_counts, runs
from deeplab_tf.data.annotations.streamed_json import Element, parse_element
from deeplab_tf.errors import DeepLabError


@dataclasses.dataclass
class _Index(CocoIndex):
    """The annotations of a picture are kept by their places in the file."""

    used: set[Id] = dataclasses.field(default_factory=set)
    numbers: dict[Id, int] = dataclasses.field(default_factory=dict)
    owners: array.array = dataclasses.field(default_factory=lambda: array.array("q"))
    starts: array.array = dataclasses.field(default_factory=lambda: array.array("q"))
    lengths: array.array = dataclasses.field(default_factory=lambda: array.array("q"))

    def add_annotation(self, element: Element, place: str) -> None:
        values = checked(element.rough, dict, place)
        if "segments_info" in values:
            raise DeepLabError(f"{place}: panoptic segments; --annotation_format=coco_panoptic reads them")
        if isinstance(values.get("image_id"), str) or isinstance(values.get("category_id"), str):
            values = parse_element(element.content, place)
        owner = identity_of(values, "image_id", place)
        self.used.add(identity_of(values, "category_id", place))
        self.owners.append(self.numbers.setdefault(owner, len(self.numbers)))
        self.starts.append(element.start)
        self.lengths.append(len(element.content))

    def require_whole(self) -> None:
        for key, met, known in (("image_id", self.numbers, self.pictures), ("category_id", self.used, self.categories)):
            if strange := [one for one in met if one not in known]:
                among = "images" if key == "image_id" else "categories"
                what = f"annotations of {key} {shown(strange[0])}, which is not among the {among}"
                raise DeepLabError(f"{self.file}: {what}")


def open_coco(places: Sequence[str]) -> Annotations:
    """Returns the annotations of COCO files, one a split; a file is named for its split, or lies in its folder.

    Raises:
      DeepLabError: a file is damaged, or refers to pictures or categories that it lacks.
    """
    indices = [_Index.read(file) for file in places]

    def class_names() -> tuple[str, ...]:
        names: dict[str, None] = {}
        for index in indices:
            names |= dict.fromkeys(_names(index))
        return tuple(names)

    def pictures() -> Iterator[AnnotatedPicture | DeepLabError]:
        for index in indices:
            yield from _pictures(index)

    unused = [f"{i.file}: category {n!r} is the set's own name, and no class" for i in indices for n in _set_names(i)]
    return Annotations("coco", "largest_first", class_names, pictures, left_out=tuple(unused))


def _set_names(index: _Index) -> list[str]:
    """Returns categories that stand for the set: Roboflow's first is the parent of the others, without annotations."""
    unused = {name for identity, name in index.categories.items() if identity not in index.used}
    return sorted(unused & index.parents) if len(index.categories) > 1 else []


def _names(index: _Index) -> list[str]:
    """Returns the names of the classes in the order of the ids."""
    dropped = set(_set_names(index))
    return [name for name in index.ordered_categories() if name not in dropped]


def _pictures(index: _Index) -> Iterator[AnnotatedPicture | DeepLabError]:
    owners = np.frombuffer(index.owners, np.int64) if index.owners else np.zeros(0, np.int64)
    order = np.argsort(owners, kind="stable")
    bounds = np.searchsorted(owners[order], np.arange(len(index.numbers) + 1))
    with files.path(index.file).open("rb") as stream:
        for identity in index.pictures:
            number = index.numbers.get(identity)
            mine = () if number is None else order[bounds[number] : bounds[number + 1]]
            contents = [_content(stream, index, int(i)) for i in mine]
            yield attempt(lambda one, contents=contents: _picture(index, one, index.pictures[one], contents), identity)


def _content(stream: IO[bytes], index: _Index, number: int) -> bytes:
    stream.seek(index.starts[number])
    return stream.read(index.lengths[number])


def _picture(index: _Index, identity: Id, values: dict[str, Any], contents: list[bytes]) -> AnnotatedPicture:
    where = f"{index.file}: image {shown(identity)}"
    name = slashes(field(values, "file_name", str, where))
    size = picture_size(values["height"], values["width"], f"{where} ({name})")
    here = os.path.dirname(index.file)
    above = os.path.dirname(here)
    # COCO's own pictures lie in train2017 beside annotations/, Roboflow's in the folder of the JSON file.
    stem = re.sub(r"^.*?_", "", pathlib.PurePosixPath(slashes(index.file)).stem)
    split = split_of_file(index.file)
    names = (stem, split or "")
    folders = [
        here,
        *(os.path.join(above, p, n) for p in ("images", "") for n in names),
        *(os.path.join(here, n) for n in names),
        os.path.join(above, "images"),
    ]
    shapes = tuple(_shape(index, parse_element(content, where), size, f"{where} ({name})") for content in contents)
    return AnnotatedPicture(name, (*folders, above), index.file, f"{where} ({name})", shapes, size, split)


def _shape(index: _Index, values: dict[str, Any], size: tuple[int, int], where: str) -> Shape:
    where = f"{where}: annotation {shown(values.get('id'))}"
    label = index.categories[values["category_id"]]
    crowd = values.get("iscrowd") or 0
    if crowd not in (0, 1):
        raise DeepLabError(f"{where}: iscrowd={shown(crowd)}; expected 0 or 1")
    found = values.get("segmentation")
    return Shape(label, _outline(found, size, where), where, crowd=bool(crowd))


def _outline(found: Any, size: tuple[int, int], where: str) -> Polygon | Bitmap | Unusable:
    if found is None or found == []:
        return Unusable("boxes without a segmentation")
    where = f"{where}: segmentation"
    if isinstance(found, dict):
        return Bitmap(_run_lengths(found, size, where))
    parts = checked(found, list, where)
    if not isinstance(parts[0], list):
        parts = [parts]  # one part without its own brackets
    return Polygon(tuple((flat_points(part, where), ()) for part in parts))


def _run_lengths(values: dict[str, Any], size: tuple[int, int], where: str) -> np.ndarray:
    """Returns the pixels of run lengths, bool [h, w]; they run down the columns."""
    announced = values.get("size")
    if announced != list(size):
        raise DeepLabError(f"{where}: size {shown(announced)}, but the image announces {list(size)} (height, width)")
    counts = values.get("counts")
    found = compressed_counts(counts, where) if isinstance(counts, str) else checked(counts, list, f"{where}: counts")
    return runs(found, size[0] * size[1], where).reshape(size[::-1]).T
