"""Supervisely's projects: meta.json, and in each data set img/ and ann/ with one JSON file a picture.

Source: docs.supervisely.com, "Supervisely annotation JSON format".
"""

import base64
import io
import os
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import PIL.Image

from deeplab_tf.data.annotations.drawn import AnnotatedPicture, Annotations, Bitmap, Polygon, Shape, Unusable, attempt
from deeplab_tf.data.annotations.reading import (
    checked,
    field,
    number,
    optional,
    picture_size,
    points,
    read_json,
    shown,
)
from deeplab_tf.errors import DeepLabError
from deeplab_tf.ops.images import PILLOW_ERRORS

_WITHOUT_AREA = {
    "line": "lines, which have no area",
    "point": "points, which have no area",
    "multipoint": "points, which have no area",
    "graph": "skeletons, which have no area",
    "cuboid": "cuboids, whose outline is not given",
}
_LARGEST_BITMAP = 1 << 28  # bytes of a PNG in an annotation


def open_supervisely(places: Sequence[str], meta: str | None) -> Annotations:
    """Returns the annotations of a project.

    Args:
      places: the files of the folders ann/.
      meta: the project's meta.json, which lists the classes; without it those that occur are taken.
    """

    def class_names() -> tuple[str, ...]:
        if meta:
            classes = field(read_json(meta), "classes", list, meta)
            return tuple(field(checked(one, dict, meta), "title", str, meta).strip() for one in classes)
        found = (picture for picture in pictures() if isinstance(picture, AnnotatedPicture))
        return tuple(sorted({shape.label for picture in found for shape in picture.shapes}))

    def pictures() -> Iterator[AnnotatedPicture | DeepLabError]:
        for file in places:
            yield attempt(_picture, file)

    return Annotations("supervisely", "as_listed", class_names, pictures)


def _picture(file: str) -> AnnotatedPicture:
    values = read_json(file)
    folder = os.path.dirname(os.path.dirname(file))
    size = field(values, "size", dict, file)
    objects = field(values, "objects", list, file)
    return AnnotatedPicture(
        os.path.basename(file).removesuffix(".json"),
        (os.path.join(folder, "img"),),
        file,
        file,
        tuple(
            _shape(checked(one, dict, f"{file}: object {n}"), f"{file}: object {n}") for n, one in enumerate(objects, 1)
        ),
        picture_size(size.get("height"), size.get("width"), file),
    )


def _shape(values: dict[str, Any], where: str) -> Shape:
    label = field(values, "classTitle", str, where).strip()
    kind = field(values, "geometryType", str, where)
    return Shape(label, _outline(values, kind, where), where)


def _outline(values: dict[str, Any], kind: str, where: str) -> Polygon | Bitmap | Unusable:
    if kind in _WITHOUT_AREA:
        return Unusable(_WITHOUT_AREA[kind])
    if kind == "bitmap":
        return _bitmap(field(values, "bitmap", dict, where), where)
    if kind not in ("polygon", "rectangle"):
        raise DeepLabError(f"{where}: geometryType {shown(kind)}; expected polygon, bitmap or rectangle")
    rings = field(values, "points", dict, where)
    outer = points(field(rings, "exterior", list, where), f"{where}: exterior")
    if kind == "rectangle" and len(outer) == 2:
        (left, top), (right, bottom) = outer.min(axis=0), outer.max(axis=0)
        outer = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
    holes = optional(rings, "interior", list, where, [])
    return Polygon(((outer, tuple(points(hole, f"{where}: interior") for hole in holes)),))


def _bitmap(values: dict[str, Any], where: str) -> Bitmap:
    """Returns the pixels of a PNG, compressed by zlib and written in base64, whose first pixel is `origin`."""
    where = f"{where}: bitmap"
    left, top = _pair(values.get("origin"), f"{where}: origin")
    try:
        unpacker = zlib.decompressobj()
        content = unpacker.decompress(base64.b64decode(field(values, "data", str, where)), _LARGEST_BITMAP)
        with PIL.Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            # The mask is the alpha channel where there is one.
            pixels = np.asarray(image.convert("RGBA"))[..., 3] if "A" in image.mode else np.asarray(image.convert("L"))
    except DeepLabError:
        raise
    except PILLOW_ERRORS as error:
        raise DeepLabError(f"{where}: no picture that can be decoded ({error}); export the annotations again") from None
    return Bitmap(pixels > 0, left, top)


def _pair(value: Any, where: str) -> tuple[int, int]:
    pair = checked(value, list, where)
    if len(pair) != 2:
        raise DeepLabError(f"{where}: {shown(pair)}; expected [x, y]")
    return int(number(pair[0], where)), int(number(pair[1], where))
