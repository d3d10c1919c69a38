"""CVAT's XML 1.1 "for images": polygons, boxes, ellipses and masks with a z-order (docs.cvat.ai, xml_format).

The files of videos are those of cvat_video.py.
"""

import math
import os
from collections.abc import Iterator, Sequence
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
    number,
    picture_size,
    shown,
    slashes,
    split_of,
    xml_elements,
)
from deeplab_tf.data.annotations.run_lengths import runs
from deeplab_tf.errors import DeepLabError

WITHOUT_AREA = {
    "polyline": "lines, which have no area",
    "points": "points, which have no area",
    "skeleton": "skeletons, which have no area",
    "cuboid": "cuboids, whose outline is not given",
}
DRAWN = ("polygon", "box", "ellipse", "mask")


def open_cvat(places: Sequence[str]) -> Annotations:
    """Returns the annotations of CVAT's files, of one task or of several jobs.

    The subset of a picture in CVAT is its split. Classes are in the order of the project's labels, of the first file
    that lists them; labels that a file does not list come after them as they occur.
    """

    def class_names() -> tuple[str, ...]:
        return label_names(places)

    def pictures() -> Iterator[AnnotatedPicture | DeepLabError]:
        for file in places:
            yield from all_of(_pictures, file)

    return Annotations("cvat", "as_listed", class_names, pictures)


def xml_of(file: str) -> Iterator[tuple[str, Any]]:
    """Yields ("start" or "end", element) of a file of CVAT's. DeepLabError where it cannot be read or is damaged."""
    try:
        with files.path(file).open("rb") as stream:
            yield from xml_elements(stream, file)
    except OSError as error:
        if isinstance(error, DeepLabError):
            raise
        raise DeepLabError(f"{file}: cannot be read ({error.strerror or error}); expected annotations") from None


def rooted(file: str) -> Iterator[tuple[Any, str, Any]]:
    """Yields what `xml_of` does, behind the root. DeepLabError where the root is not CVAT's."""
    root = None
    for event, element in xml_of(file):
        if root is None:
            root = element
            if root.tag != "annotations":
                raise DeepLabError(f"{file}: <{shown(root.tag)[1:-1]}>; expected CVAT's <annotations>")
        yield root, event, element


def label_names(places: Sequence[str]) -> tuple[str, ...]:
    """Returns the labels of CVAT's files: those that a file lists in their order, then others as they occur."""
    names: dict[str, None] = {}
    for file in places:
        listed, met = _names(file)
        names |= dict.fromkeys([*listed, *met])
    return tuple(names)


def _names(file: str) -> tuple[list[str], list[str]]:
    """Returns the labels that a file lists, and those that occur in it."""
    listed: list[str] = []
    met: dict[str, None] = {}
    try:
        for event, element in xml_of(file):
            if event == "start":
                continue
            if element.tag == "label" and element.findtext("name"):
                # The points of a skeleton are listed too, each as a label of the type points within it.
                listed += [element.findtext("name").strip()] if element.findtext("type") not in WITHOUT_AREA else []
            elif element.tag == "image":
                met |= dict.fromkeys(child.get("label", "").strip() for child in element if child.tag in DRAWN)
                element.clear()
            elif element.tag == "track":
                if any(child.tag in DRAWN for child in element):
                    met[element.get("label", "").strip()] = None
                element.clear()
    except DeepLabError:
        pass  # the same error comes when the pictures are read, with those of other files
    return listed, [name for name in met if name]


def _pictures(file: str) -> Iterator[AnnotatedPicture | DeepLabError]:
    for root, event, element in rooted(file):
        if event == "start":
            if element.tag == "track":
                raise DeepLabError(f"{file}: tracks of a video; --annotation_format=cvat_video reads them")
        elif element.tag == "image":
            try:
                yield _picture(file, element)
            except DeepLabError as error:
                yield error
            root.clear()


def _picture(file: str, element: Any) -> AnnotatedPicture:
    name = slashes(element.get("name") or "")
    where = f"{file}: image {shown(name)}"
    if not name:
        raise DeepLabError(f"{where}: no name")
    subset = element.get("subset") or ""
    here = os.path.dirname(file)
    size = None
    if element.get("height") is not None or element.get("width") is not None:
        size = picture_size(_attribute(element, "height", where), _attribute(element, "width", where), where)
    shapes = tuple(
        shape_of(child, f"{where}: {child.tag} {n}", child.get("label"))
        for n, child in enumerate(element, 1)
        if _is_shape(child)
    )
    folders = [os.path.join(here, "images", subset), os.path.join(here, "images"), here, os.path.join(here, subset)]
    return AnnotatedPicture(name, tuple(folders), file, where, shapes, size, split_of(subset))


def _is_shape(element: Any) -> bool:
    return element.tag in DRAWN or element.tag in WITHOUT_AREA


def _attribute(element: Any, key: str, where: str, default: float | None = None) -> float:
    text = element.get(key)
    if text is None and default is not None:
        return default
    return _number(text, f"{where}: {key}")


def _number(text: str | None, where: str) -> float:
    try:
        return number(float(text or ""), where)
    except ValueError as error:
        if isinstance(error, DeepLabError):
            raise
        raise DeepLabError(
            f"{where}: {shown(text)} where a number was expected; export the annotations again"
        ) from None


def shape_of(element: Any, where: str, label: str | None) -> Shape:
    """Returns the shape of an element of CVAT's, with the label of itself or of its track."""
    label = (label or "").strip()
    if not label:
        raise DeepLabError(f"{where}: no label")
    height = int(_attribute(element, "z_order", where, 0.0))
    return Shape(label, _outline(element, where), where, height=height)


def _outline(element: Any, where: str) -> Polygon | Ellipse | Bitmap | Unusable:
    if element.tag in WITHOUT_AREA:
        return Unusable(WITHOUT_AREA[element.tag])
    angle = _attribute(element, "rotation", where, 0.0)
    if element.tag == "polygon":
        pairs = [pair.split(",") for pair in (element.get("points") or "").split(";") if pair.strip()]
        if any(len(pair) != 2 for pair in pairs):
            raise DeepLabError(f"{where}: points={shown(element.get('points'))}; expected x,y;x,y;x,y")
        corners = [[_number(value, f"{where}: points") for value in pair] for pair in pairs]
        return Polygon(((np.array(corners, np.float64).reshape(-1, 2), ()),))
    if element.tag == "ellipse":
        across, down, wide, high = (_attribute(element, key, where) for key in ("cx", "cy", "rx", "ry"))
        return Ellipse((across, down), (wide, high), angle)
    if element.tag == "mask":
        return _mask(element, where)
    left, top, right, bottom = (_attribute(element, key, where) for key in ("xtl", "ytl", "xbr", "ybr"))
    corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
    return Polygon(((_turned(corners, angle), ()),))


def _turned(corners: np.ndarray, angle: float) -> np.ndarray:
    """Returns corners turned around their middle, by degrees clockwise as the picture is seen."""
    if not angle:
        return corners
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    middle = corners.mean(axis=0)
    return (corners - middle) @ np.array([[cosine, sine], [-sine, cosine]]) + middle


def _mask(element: Any, where: str) -> Bitmap:
    """Returns the pixels of run lengths in rows within a box."""
    left, top, width, height = (int(_attribute(element, key, where)) for key in ("left", "top", "width", "height"))
    if width <= 0 or height <= 0 or width * height > 1 << 30:
        raise DeepLabError(f"{where}: a mask of {width} x {height} pixels; expected a part of the picture")
    texts = (element.get("rle") or "").replace(" ", "").split(",")
    if not all(text.isascii() and text.isdigit() and len(text) < 12 for text in texts):
        raise DeepLabError(f"{where}: rle={shown(element.get('rle'))}; expected run lengths with commas between them")
    return Bitmap(runs([int(text) for text in texts], width * height, where).reshape(height, width), left, top)
