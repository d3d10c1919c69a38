"""COCO's panoptic segmentation: a JSON file and a PNG a picture, whose colours number its segments.

A segment's number is red + 256 green + 65536 blue; 0 is what nobody has labelled, and is ignored
(cocodataset.org/#format-data, "Panoptic Segmentation"; the VOID of panopticapi).
"""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from typing import IO, Any

import numpy as np

from deeplab_tf import files
from deeplab_tf.data.annotations.coco_index import CocoIndex, Id, identity_of, require_new
from deeplab_tf.data.annotations.drawn import AnnotatedPicture, Annotations, Bitmap, Shape, Unusable, attempt
from deeplab_tf.data.annotations.reading import (
    checked,
    field,
    picture_size,
    read_bytes,
    shown,
    slashes,
    split_of_file,
)
from deeplab_tf.data.annotations.streamed_json import Element, parse_element
from deeplab_tf.errors import DeepLabError
from deeplab_tf.ops.images import PILLOW_ERRORS, opened_image

_IGNORED = "__ignore__"  # of classes.class_table
_VOID = 0


@dataclasses.dataclass
class _Index(CocoIndex):
    """The annotation of a picture is kept by its place in the file."""

    places: dict[Id, tuple[int, int]] = dataclasses.field(default_factory=dict)  # start and length in the file

    def add_annotation(self, element: Element, place: str) -> None:
        picture = identity_of(checked(parse_element(element.content, place), dict, place), "image_id", place)
        require_new(picture, self.places, element, place)
        self.places[picture] = (element.start, len(element.content))

    def require_whole(self) -> None:
        if strange := [picture for picture in self.places if picture not in self.pictures]:
            what = f"the annotation of image_id {shown(strange[0])}, which is not among the images"
            raise DeepLabError(f"{self.file}: {what}")


def open_coco_panoptic(places: Sequence[str]) -> Annotations:
    """Returns the annotations of panoptic files, one a split, whose PNGs lie beside it or in a folder of its name.

    Things and stuff alike are classes, in the order of their ids.

    Raises:
      DeepLabError: a file is damaged, or refers to pictures that it lacks.
    """
    indices = [_Index.read(file) for file in places]

    def class_names() -> tuple[str, ...]:
        names: dict[str, None] = {}
        for index in indices:
            names |= dict.fromkeys(index.ordered_categories())
        return tuple(names)

    def pictures() -> Iterator[AnnotatedPicture | DeepLabError]:
        for index in indices:
            with files.path(index.file).open("rb") as stream:
                for identity in index.places:
                    yield attempt(lambda one, stream=stream, index=index: _picture(index, one, stream), identity)

    return Annotations("coco_panoptic", "as_listed", class_names, pictures)


def _picture(index: _Index, identity: Id, stream: IO[bytes]) -> AnnotatedPicture:
    values = index.pictures[identity]
    where = f"{index.file}: image {shown(identity)}"
    name = slashes(field(values, "file_name", str, where))
    where = f"{where} ({name})"
    size = picture_size(values["height"], values["width"], where)
    start, length = index.places[identity]
    stream.seek(start)
    annotation = checked(parse_element(stream.read(length), where), dict, where)
    segments = _segments(_png_of(index.file, slashes(field(annotation, "file_name", str, where)), where), size)
    listed = field(annotation, "segments_info", list, where)
    shapes = _shapes(index, [checked(one, dict, where) for one in listed], segments, where)
    split = split_of_file(index.file)
    here = os.path.dirname(index.file)
    above = os.path.dirname(here)
    stem = os.path.splitext(os.path.basename(index.file))[0].removeprefix("panoptic_")
    names = (stem, split or "")
    folders = [os.path.join(place, part, one) for place in (here, above) for part in ("images", "") for one in names]
    return AnnotatedPicture(name, (*folders, here, above), index.file, where, shapes, size, split)


def _png_of(file: str, name: str, where: str) -> str:
    """Returns the PNG of the segments: in a folder that is called as the JSON file, or beside it."""
    here = os.path.dirname(file)
    stem = os.path.splitext(os.path.basename(file))[0]
    base = os.path.basename(name)
    candidates = [os.path.join(here, stem, base), os.path.join(here, base)]
    if not name.startswith("/") and ".." not in name.split("/"):  # never outside of the folder
        candidates.insert(1, os.path.join(here, name))
    found = next((place for place in candidates if files.path(place).is_file()), None)
    if found is None:
        raise DeepLabError(
            f"{where}: missing segments {candidates[0]}; unpack the PNGs beside {os.path.basename(file)}"
        )
    return found


def read_segments(file: str) -> np.ndarray:
    """Returns the numbers of the segments in a PNG, uint32 [h, w]: red + 256 green + 65536 blue; opacity is left out.

    Raises:
      DeepLabError: the file cannot be read or is no such picture.
    """
    try:
        with opened_image(read_bytes(file)) as image:
            mode = image.mode
            pixels = np.asarray(image).astype(np.uint32)
    except DeepLabError as error:
        raise DeepLabError(str(error) if file in str(error) else f"{file}: {error}") from None
    except PILLOW_ERRORS as error:
        raise DeepLabError(f"{file}: not an image that can be read ({error}); expected a PNG of segments") from None
    if mode not in ("RGB", "RGBA"):
        raise DeepLabError(f"{file}: a picture of mode {mode}; expected RGB of 8 bits, whose colours number segments")
    return pixels[..., 0] + 256 * pixels[..., 1] + 65536 * pixels[..., 2]


def _segments(file: str, size: tuple[int, int]) -> np.ndarray:
    """Returns `read_segments` of a file that has the size (height, width) which is announced."""
    segments = read_segments(file)
    if segments.shape != size:
        found = f"{segments.shape[0]} x {segments.shape[1]}"
        raise DeepLabError(f"{file}: {found} pixels, but the image announces {size[0]} x {size[1]} (height x width)")
    return segments


def _shapes(index: _Index, listed: list[dict[str, Any]], segments: np.ndarray, where: str) -> tuple[Shape, ...]:
    numbers, inverse = np.unique(segments, return_inverse=True)
    inverse = inverse.reshape(segments.shape)
    positions = {int(number): position for position, number in enumerate(numbers)}
    shapes: list[Shape] = []
    for values in listed:
        identity = identity_of(values, "id", where)
        place = f"{where}: segment {shown(identity)}"
        category = identity_of(values, "category_id", place)
        if category not in index.categories:
            raise DeepLabError(f"{place}: category_id {shown(category)}, which is not among the categories")
        crowd = values.get("iscrowd") or 0
        if crowd not in (0, 1):
            raise DeepLabError(f"{place}: iscrowd={shown(crowd)}; expected 0 or 1")
        position = positions.pop(identity, None) if isinstance(identity, int) and identity != _VOID else None
        outline = Unusable("segments without a pixel in the PNG") if position is None else _patch(inverse == position)
        shapes.append(Shape(index.categories[category], outline, place, crowd=bool(crowd)))
    void = positions.pop(_VOID, None)
    if positions:
        raise DeepLabError(
            f"{where}: segment {min(positions)} of the PNG is not in segments_info; take the PNG of this file"
        )
    if void is not None:
        shapes.append(Shape(_IGNORED, _patch(inverse == void), f"{where}: void"))
    return tuple(shapes)


def _patch(pixels: np.ndarray) -> Bitmap:
    """Returns pixels, bool [h, w], of which some are set, cut to the box around them."""
    rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
    top, left = int(rows[0]), int(columns[0])
    return Bitmap(pixels[top : rows[-1] + 1, left : columns[-1] + 1], left, top)
