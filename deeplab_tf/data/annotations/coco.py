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
from deeplab_tf.data.annotations.streamed_json import Element, elements, parse_element
from deeplab_tf.errors import DeepLabError

_Id = int | str


@dataclasses.dataclass
class _Index:
    """What is kept of a file: its pictures and categories, and where the annotations of each picture are."""

    file: str
    split: str | None
    pictures: dict[_Id, dict[str, Any]] = dataclasses.field(default_factory=dict)
    categories: dict[_Id, str] = dataclasses.field(default_factory=dict)
    parents: set[str] = dataclasses.field(default_factory=set)
    used: set[_Id] = dataclasses.field(default_factory=set)
    numbers: dict[_Id, int] = dataclasses.field(default_factory=dict)
    owners: array.array = dataclasses.field(default_factory=lambda: array.array("q"))
    starts: array.array = dataclasses.field(default_factory=lambda: array.array("q"))
    lengths: array.array = dataclasses.field(default_factory=lambda: array.array("q"))

    def add(self, element: Element) -> None:
        place = f"{self.file}: {element.key} at byte {element.start}"
        if element.key == "annotations":
            self._add_annotation(checked(element.rough, dict, place), element, place)
            return
        values = checked(parse_element(element.content, place), dict, place)
        known = self.pictures if element.key == "images" else self.categories
        identity = _identity(values, "id", place)
        if identity in known:
            raise DeepLabError(f"{place}: id {shown(identity)} occurs twice among the {element.key}; expected one each")
        if element.key == "images":
            self.pictures[identity] = {key: values.get(key) for key in ("file_name", "height", "width")}
        else:
            self.categories[identity] = field(values, "name", str, place).strip()
            parent = values.get("supercategory")
            self.parents |= {parent} if isinstance(parent, str) else set()

    def _add_annotation(self, values: dict[str, Any], element: Element, place: str) -> None:
        if "segments_info" in values:
            raise DeepLabError(f"{place}: panoptic segments; --annotation_format=coco_panoptic reads them")
        if isinstance(values.get("image_id"), str) or isinstance(values.get("category_id"), str):
            values = parse_element(element.content, place)
        owner = _identity(values, "image_id", place)
        self.used.add(_identity(values, "category_id", place))
        self.owners.append(self.numbers.setdefault(owner, len(self.numbers)))
        self.starts.append(element.start)
        self.lengths.append(len(element.content))

    def require_whole(self) -> None:
        if strange := [identity for identity in self.numbers if identity not in self.pictures]:
            raise DeepLabError(
                f"{self.file}: annotations of image_id {shown(strange[0])}, which is not among the images"
            )
        if strange := [identity for identity in self.used if identity not in self.categories]:
            what = f"annotations of category_id {shown(strange[0])}, which is not among the categories"
            raise DeepLabError(f"{self.file}: {what}")
        if not self.pictures:
            raise DeepLabError(f"{self.file}: no images; expected a list images, with file_name, height and width")


def _identity(values: dict[str, Any], key: str, place: str) -> _Id:
    value = values.get(key)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise DeepLabError(f"{place}: {key}={shown(value)}; expected a whole number")
    return value


def open_coco(places: Sequence[str]) -> Annotations:
    """Returns the annotations of COCO files, one a split; a file is named for its split, or lies in its folder.

    Raises:
      DeepLabError: a file is damaged, or refers to pictures or categories that it lacks.
    """
    indices = [_read_index(file) for file in places]

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


def _read_index(file: str) -> _Index:
    index = _Index(file, split_of_file(file))
    try:
        with files.path(file).open("rb") as stream:
            for element in elements(stream, file, ("images", "annotations", "categories")):
                index.add(element)
    except OSError as error:
        raise DeepLabError(f"{file}: cannot be read ({error.strerror or error}); expected COCO annotations") from None
    index.require_whole()
    return index


def _set_names(index: _Index) -> list[str]:
    """Returns categories that stand for the set: Roboflow's first is the parent of the others, without annotations."""
    unused = {name for identity, name in index.categories.items() if identity not in index.used}
    return sorted(unused & index.parents) if len(index.categories) > 1 else []


def _names(index: _Index) -> list[str]:
    """Returns the names of the classes in the order of the ids."""
    order = sorted(index.categories, key=lambda identity: (isinstance(identity, str), identity))
    dropped = set(_set_names(index))
    return [index.categories[identity] for identity in order if index.categories[identity] not in dropped]


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


def _picture(index: _Index, identity: _Id, values: dict[str, Any], contents: list[bytes]) -> AnnotatedPicture:
    where = f"{index.file}: image {shown(identity)}"
    name = slashes(field(values, "file_name", str, where))
    size = picture_size(values["height"], values["width"], f"{where} ({name})")
    here = os.path.dirname(index.file)
    above = os.path.dirname(here)
    # COCO's own pictures lie in train2017 beside annotations/, Roboflow's in the folder of the JSON file.
    stem = re.sub(r"^.*?_", "", pathlib.PurePosixPath(slashes(index.file)).stem)
    names = (stem, index.split or "")
    folders = [
        here,
        *(os.path.join(above, p, n) for p in ("images", "") for n in names),
        *(os.path.join(here, n) for n in names),
        os.path.join(above, "images"),
    ]
    shapes = tuple(_shape(index, parse_element(content, where), size, f"{where} ({name})") for content in contents)
    return AnnotatedPicture(name, (*folders, above), index.file, f"{where} ({name})", shapes, size, index.split)


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
