"""LabelMe's JSON, one file a picture (github.com/wkentaro/labelme, label_file.py and utils/shape.py)."""

import base64
import io
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import PIL.Image

from deeplab_tf.data.annotations.drawn import (
    AnnotatedPicture,
    Annotations,
    Bitmap,
    Ellipse,
    Polygon,
    Shape,
    Unusable,
    attempt,
)
from deeplab_tf.data.annotations.reading import (
    checked,
    field,
    optional,
    picture_size,
    points,
    read_json,
    shown,
    slashes,
)
from deeplab_tf.errors import DeepLabError
from deeplab_tf.ops.images import PILLOW_ERRORS

_WITHOUT_AREA = {
    "line": "lines, which have no area",
    "linestrip": "lines, which have no area",
    "point": "points, which have no area",
    "points": "points, which have no area",
}


def open_labelme(places: Sequence[str]) -> Annotations:
    """Returns the annotations of LabelMe's files. The folders train, val and test they may lie in are splits.

    The order of the shapes in a file is the order they are drawn in, as in LabelMe's own labelme2voc.
    """

    def class_names() -> tuple[str, ...]:
        names: set[str] = set()
        for picture in pictures():
            if isinstance(picture, AnnotatedPicture):
                names |= {shape.label for shape in picture.shapes}
        return tuple(sorted(names))

    def pictures() -> Iterator[AnnotatedPicture | DeepLabError]:
        for file in places:
            yield attempt(_picture, file)

    return Annotations("labelme", "as_listed", class_names, pictures)


def _picture(file: str) -> AnnotatedPicture:
    values = read_json(file)
    here = os.path.dirname(file)
    name = slashes(optional(values, "imagePath", str, file, "")) or os.path.basename(file).removesuffix(".json")
    size = None
    if values.get("imageHeight") is not None or values.get("imageWidth") is not None:
        size = picture_size(values.get("imageHeight"), values.get("imageWidth"), file)
    shapes = field(values, "shapes", list, file)
    data = optional(values, "imageData", str, file, "")
    parent = os.path.dirname(here)
    beside = (here, *(os.path.join(parent, other) for other in ("images", "JPEGImages", "imgs", "img")), parent)
    return AnnotatedPicture(
        name,
        beside,
        file,
        file,
        tuple(
            _shape(checked(one, dict, f"{file}: shape {n}"), f"{file}: shape {n}") for n, one in enumerate(shapes, 1)
        ),
        size,
        embedded=(lambda: _decoded(data, f"{file}: imageData")) if data else None,
    )


def _decoded(text: str, where: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise DeepLabError(f"{where}: not base64 ({error}); save the file again in LabelMe") from None


def _shape(values: dict[str, Any], where: str) -> Shape:
    label = field(values, "label", str, where).strip()
    kind = optional(values, "shape_type", str, where, "polygon")
    return Shape(label, _outline(values, kind, where), where)


def _outline(values: dict[str, Any], kind: str, where: str) -> Polygon | Ellipse | Bitmap | Unusable:
    if kind in _WITHOUT_AREA:
        return Unusable(_WITHOUT_AREA[kind])
    corners = points(field(values, "points", list, where), f"{where}: points")
    if kind in ("polygon", "oriented_rectangle"):
        return Polygon(((corners, ()),))
    if kind not in ("rectangle", "circle", "mask"):
        raise DeepLabError(f"{where}: shape_type {shown(kind)}; expected polygon, rectangle, circle or mask")
    if len(corners) != 2 and not (kind == "rectangle" and len(corners) == 4):
        raise DeepLabError(f"{where}: a {kind} of {len(corners)} points; expected 2")
    if kind == "mask":
        return _mask(field(values, "mask", str, where), corners, where)
    if kind == "circle":
        radius = float(np.hypot(*(corners[1] - corners[0])))
        return Ellipse((float(corners[0, 0]), float(corners[0, 1])), (radius, radius))
    (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
    return Polygon(((np.array([(left, top), (right, top), (right, bottom), (left, bottom)]), ()),))


def _mask(text: str, corners: np.ndarray, where: str) -> Bitmap:
    """Returns the pixels of LabelMe's shape_type mask: a picture of the box whose first and last pixels are given."""
    try:
        with PIL.Image.open(io.BytesIO(_decoded(text, f"{where}: mask")), formats=["PNG"]) as image:
            pixels = np.asarray(image).astype(bool)
    except PILLOW_ERRORS as error:
        raise DeepLabError(f"{where}: mask: no picture that can be decoded ({error})") from None
    pixels = pixels if pixels.ndim == 2 else np.any(pixels, axis=-1)
    left, top = (int(value) for value in corners.min(axis=0))
    return Bitmap(pixels, left, top)
