"""Label Studio's JSON export: polygons, rectangles and ellipses in hundredths of the picture, and brush strokes.

Sources: labelstud.io/guide/export, and brush.py of its converter for the run lengths of the brush.
"""

import math
import os
import re
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from deeplab_tf import files
from deeplab_tf.data.annotations.drawn import (
    AnnotatedPicture,
    Annotations,
    Bitmap,
    Ellipse,
    Polygon,
    Shape,
    Unusable,
    all_of,
)
from deeplab_tf.data.annotations.reading import (
    checked,
    field,
    number,
    optional,
    picture_size,
    points,
    shown,
    slashes,
)
from deeplab_tf.data.annotations.streamed_json import list_elements, parse_element
from deeplab_tf.data.pairs import IMAGE_EXTENSIONS
from deeplab_tf.errors import DeepLabError

_WITHOUT_AREA = {"keypointlabels": "points, which have no area", "vectorlabels": "lines, which have no area"}
_DRAWN = ("polygonlabels", "rectanglelabels", "ellipselabels", "brushlabels")
_CURE = "export the project as JSON"


def open_label_studio(places: Sequence[str]) -> Annotations:
    """Returns the annotations of exports in the format JSON (not JSON-MIN).

    Of several annotations of a task the one marked as ground truth is taken, or else the last; cancelled ones are not.
    """
    return _annotations("labelstudio", places, _picture)


def open_label_studio_min(places: Sequence[str]) -> Annotations:
    """Returns the annotations of exports in the format JSON-MIN: an object a task, whose tags hold the shapes.

    Of a task that several people have annotated there are several objects, and nothing says which one counts: they are
    refused.
    """
    return _annotations("labelstudio_min", places, _small_picture)


_Reader = Callable[[str, dict[str, Any], str], AnnotatedPicture | None]


def _annotations(kind: str, places: Sequence[str], read: _Reader) -> Annotations:
    def class_names() -> tuple[str, ...]:
        found = (picture for picture in pictures() if isinstance(picture, AnnotatedPicture))
        return tuple(sorted({shape.label for picture in found for shape in picture.shapes}))

    def pictures() -> Iterator[AnnotatedPicture | DeepLabError]:
        for file in places:
            yield from all_of(lambda one: _pictures(one, read), file)

    return Annotations(kind, "as_listed", class_names, pictures)


def _pictures(file: str, read: _Reader) -> Iterator[AnnotatedPicture | DeepLabError]:
    try:
        with files.path(file).open("rb") as stream:
            for element in list_elements(stream, file):
                where = f"{file}: task at byte {element.start}"
                try:
                    picture = read(file, checked(parse_element(element.content, where), dict, where), where)
                except DeepLabError as error:
                    yield error
                else:
                    if picture is not None:
                        yield picture
    except OSError as error:
        if isinstance(error, DeepLabError):
            raise
        raise DeepLabError(f"{file}: cannot be read ({error.strerror or error}); expected annotations") from None


def _picture(file: str, task: dict[str, Any], where: str) -> AnnotatedPicture | None:
    """Returns the picture of a task, or None where the task has not been annotated."""
    where = f"{file}: task {shown(task.get('id'))}" if "id" in task else where
    if "annotations" not in task and "completions" in task:
        raise DeepLabError(f"{where}: an export of Label Studio before version 1.0; {_CURE} from a newer one")
    name = _name(field(task, "data", dict, where), where)
    done = [checked(one, dict, where) for one in field(task, "annotations", list, f"{where} ({_CURE}, not JSON-MIN)")]
    done = [one for one in done if not one.get("was_cancelled")]
    if not done:
        return None
    chosen = next((one for one in done if one.get("ground_truth")), done[-1])
    results = [checked(one, dict, where) for one in field(chosen, "result", list, where)]
    return _annotated(file, name, results, where)


def _small_picture(file: str, task: dict[str, Any], where: str) -> AnnotatedPicture:
    """Returns the picture of a task of JSON-MIN: each tag is a list of shapes, which name their kind by a key."""
    where = f"{file}: task {shown(task.get('id'))}" if "id" in task else where
    if "annotations" in task and "data" in task:
        raise DeepLabError(f"{where}: an export as JSON; --annotation_format=labelstudio reads it")
    results = []
    for tag, values in task.items():
        shapes = [one for one in values if isinstance(one, dict)] if isinstance(values, list) else []
        for place, one in enumerate(shapes, 1):
            kind = next((key for key in (*_DRAWN, *_WITHOUT_AREA) if key in one), None)
            if kind is not None:
                size = {key: one.get(key) for key in ("original_width", "original_height")}
                results.append({"type": kind, "value": one, **size})
            elif {"points", "rle", "x", "radiusX"} & set(one):
                raise DeepLabError(f"{where}: {tag} {place}: a shape without a label; expected one")
    return _annotated(file, _name(task, where), results, where)


def _annotated(file: str, name: str, results: list[dict[str, Any]], where: str) -> AnnotatedPicture:
    """Returns a picture with the shapes among its results."""
    sizes = {_size(one, where) for one in results if one.get("original_width") is not None}
    if len(sizes) > 1:
        raise DeepLabError(f"{where}: results of pictures of {sorted(sizes)} (height, width); expected one size")
    kinds = {*_DRAWN, *_WITHOUT_AREA}
    shapes = [_shape(one, f"{where}: result {n}") for n, one in enumerate(results, 1) if str(one.get("type")) in kinds]
    here = os.path.dirname(file)
    base = os.path.basename(name)
    # An upload gets eight digits before its name.
    others = (re.sub(r"^[0-9a-f]{8}-", "", base),)
    folders = (here, os.path.join(here, "images"))
    return AnnotatedPicture(name, folders, file, where, tuple(shapes), next(iter(sizes), None), other_names=others)


def _name(data: dict[str, Any], where: str) -> str:
    """Returns the path in the address of a task's picture."""
    texts = [value for key, value in data.items() if isinstance(value, str) and (key == "image" or _is_picture(value))]
    if not texts:
        raise DeepLabError(f"{where}: no picture among {shown(sorted(data))}; expected data.image")
    address = urllib.parse.urlsplit(texts[0])
    local = urllib.parse.parse_qs(address.query).get("d")
    return slashes(local[0] if local else urllib.parse.unquote(address.path)).lstrip("/")


def _is_picture(text: str) -> bool:
    return urllib.parse.urlsplit(text.strip()).path.lower().endswith(IMAGE_EXTENSIONS)


def _size(result: dict[str, Any], where: str) -> tuple[int, int]:
    return picture_size(result.get("original_height"), result.get("original_width"), where)


def _shape(result: dict[str, Any], where: str) -> Shape:
    kind = result["type"]
    value = field(result, "value", dict, where)
    names = optional(value, kind, list, where, [])
    if len(names) != 1 or not isinstance(names[0], str):
        raise DeepLabError(f"{where}: labels {shown(names)}; expected one")
    outline = _outline(kind, value, _size(result, where), where)
    return Shape(names[0].strip(), outline, where)


def _outline(
    kind: str, value: dict[str, Any], size: tuple[int, int], where: str
) -> Polygon | Ellipse | Bitmap | Unusable:
    if kind in _WITHOUT_AREA:
        return Unusable(_WITHOUT_AREA[kind])
    scale = np.array(size[::-1]) / 100
    if kind == "polygonlabels":
        return Polygon(((points(field(value, "points", list, where), where) * scale, ()),))
    if kind == "brushlabels":
        if value.get("format") != "rle":
            raise DeepLabError(f"{where}: a brush of format {shown(value.get('format'))}; expected rle")
        return Bitmap(brush_mask(field(value, "rle", list, where), size, where))
    keys = ("x", "y", "radiusX", "radiusY") if kind == "ellipselabels" else ("x", "y", "width", "height")
    numbers = [number(value.get(key), f"{where}: {key}") for key in keys]
    left, top = np.array(numbers[:2]) * scale
    wide, high = np.array(numbers[2:]) * scale
    angle = number(value.get("rotation") or 0, f"{where}: rotation")
    if kind == "ellipselabels":
        return Ellipse((float(left), float(top)), (float(wide), float(high)), angle)
    # Label Studio turns a rectangle around its first corner, clockwise.
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    corners = np.array([(0, 0), (wide, 0), (wide, high), (0, high)])
    return Polygon(((corners @ np.array([[cosine, sine], [-sine, cosine]]) + (left, top), ()),))


def brush_mask(values: list[Any], size: tuple[int, int], where: str) -> np.ndarray:
    """Returns the pixels of a brush stroke, bool [h, w].

    The bytes `values` are one stream of bits: the number of samples (32 bits), the bits of a sample less one (5), four
    widths less one (4 each); then runs. A run has one bit, which says whether it repeats one sample, two bits that
    choose the width of its length less one, the length, and its samples. Samples are red, green, blue, alpha.

    Raises:
      DeepLabError: the stream is not of bytes, ends early, or is of another size.
    """
    if not values or set(map(type, values)) - {int} or not 0 <= min(values) <= max(values) <= 255:
        raise DeepLabError(f"{where}: rle={shown(values)}; expected bytes")
    bits = _Bits(bytes(values), where)
    total = bits.take(32)
    if total != size[0] * size[1] * 4:
        raise DeepLabError(f"{where}: rle of {total} samples; expected {size[1]} x {size[0]} x 4")
    depth = bits.take(5) + 1
    widths = [bits.take(4) + 1 for _ in range(4)]
    samples = np.zeros(total, np.uint8)
    position = 0
    while position < total:
        repeats = bits.take(1)
        end = min(total, position + 1 + bits.take(widths[bits.take(2)]))
        if repeats:
            samples[position:end] = bits.take(depth) > 0
        else:
            samples[position:end] = [bits.take(depth) > 0 for _ in range(end - position)]
        position = end
    return samples.reshape(*size, 4)[..., 3].astype(bool)


class _Bits:
    """Numbers of any width in a stream of bytes, the highest bit first."""

    def __init__(self, content: bytes, where: str):
        self._content = content
        self._position = 0
        self._where = where

    def take(self, width: int) -> int:
        first, self._position = self._position, self._position + width
        if self._position > 8 * len(self._content):
            raise DeepLabError(f"{self._where}: rle ends early; export the project again")
        last = (self._position + 7) // 8
        whole = int.from_bytes(self._content[first // 8 : last], "big")
        return whole >> (8 * last - self._position) & ((1 << width) - 1)
