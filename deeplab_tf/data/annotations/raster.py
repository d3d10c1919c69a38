"""Shapes drawn into a label: which pixels a shape covers, in which order shapes cover each other, ignored borders.

A pixel belongs to a shape if its centre lies inside. pycocotools draws the polygons, with vertices rounded to fifths of
a pixel, so that COCO's annotations give COCO's masks; where an edge crosses itself, the even-odd rule decides.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from deeplab_tf.data.annotations.drawn import Bitmap, DrawingOrder, Ellipse, Polygon, Ring, Shape, Unusable
from deeplab_tf.data.annotations.reading import needs
from deeplab_tf.data.annotations.run_lengths import compressed_counts, runs

Tell = Callable[[str, str], None]  # takes what was found, and where


@dataclasses.dataclass(frozen=True)
class Painting:
    """How shapes become a label.

    Attributes:
      label_of: the label of each class name.
      background: the label where nothing is drawn.
      ignore_label: the label of what is not counted.
      order: `largest_first`, or `as_listed`: by height, and in the order of the file.
      border: pixels on either side of a boundary between two classes that become the ignore label.
    """

    label_of: Mapping[str, int]
    background: int
    ignore_label: int
    order: DrawingOrder
    border: int = 0


def paint(shapes: Sequence[Shape], size: tuple[int, int], painting: Painting, tell: Tell) -> np.ndarray:
    """Returns the label of a picture, uint8 [h, w].

    Crowds lie below everything else.

    Args:
      shapes: in the order of the file; every label is a key of `painting.label_of`.
      size: (height, width) of the picture.
      painting: classes, order and border.
      tell: takes what was left out, or is doubtful.
    """
    label = np.full(size, painting.background, np.uint8)
    patches = []
    for shape in shapes:
        patch = patch_of(shape, size, tell)
        if patch is not None:
            patches.append((shape, patch))
    if painting.order == "largest_first":
        patches.sort(key=lambda one: (not one[0].crowd, -int(np.count_nonzero(one[1].pixels))))
    else:
        patches.sort(key=lambda one: (not one[0].crowd, one[0].height))
    for shape, patch in patches:
        height, width = patch.pixels.shape
        window = label[patch.top : patch.top + height, patch.left : patch.left + width]
        window[patch.pixels] = painting.ignore_label if shape.crowd else painting.label_of[shape.label]
    return ignore_borders(label, painting.border, painting.ignore_label) if painting.border else label


def ignore_borders(label: np.ndarray, width: int, ignore_label: int) -> np.ndarray:
    """Returns a label, uint8 [h, w], whose pixels within `width` of a pixel of another class are ignored.

    A diagonal step counts as one. Ignored pixels make no boundary.
    """
    from scipy import ndimage

    values = label.astype(np.int16)
    ignored = label == ignore_label
    window = 2 * width + 1
    highest = ndimage.maximum_filter(np.where(ignored, -1, values), window, mode="nearest")
    lowest = ndimage.minimum_filter(np.where(ignored, 256, values), window, mode="nearest")
    return np.where(highest != lowest, np.uint8(ignore_label), label)


def patch_of(shape: Shape, size: tuple[int, int], tell: Tell) -> Bitmap | None:
    """Returns the pixels of the picture that a shape covers, or None, and tells why."""
    outline = shape.outline
    if isinstance(outline, Unusable):
        tell(f"left out: {outline.why}", shape.where)
        return None
    if isinstance(outline, Polygon):
        patch = _polygon_patch(outline, size, shape.where, tell)
    else:
        patch = _ellipse_patch(outline, size) if isinstance(outline, Ellipse) else _cut(outline, size)
    if patch is None or not patch.pixels.any():
        if not isinstance(outline, Polygon) or any(len(outer) > 2 for outer, _ in outline.parts):
            tell("left out: without the centre of a pixel of the picture inside", shape.where)
        return None
    return patch


def _polygon_patch(polygon: Polygon, size: tuple[int, int], where: str, tell: Tell) -> Bitmap | None:
    rings = [(ring, number == 0) for outer, holes in polygon.parts for number, ring in enumerate((outer, *holes))]
    box = _box([ring for ring, is_outer in rings if is_outer and len(ring) > 2], size)
    for ring, _ in rings:
        if len(ring) < 3:
            tell("left out: polygons of fewer than 3 points", where)
    if box is None:
        return None
    left, top, width, height = box
    pixels = np.zeros((height, width), bool)
    crossed = False
    for outer, holes in polygon.parts:
        covered, twice = _filled(outer, size, box)
        crossed |= twice
        for hole in holes:
            cut, twice = _filled(hole, size, box)
            covered &= ~cut
            crossed |= twice
        pixels |= covered
    if crossed:
        tell("drawn by the even-odd rule: polygons that cross themselves", where)
    return Bitmap(pixels, left, top)


def _box(rings: Sequence[Ring], size: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """Returns (left, top, width, height) of the pixels of the picture that hold all rings, or None without any."""
    if not rings:
        return None
    low = np.maximum(np.floor(np.min([ring.min(axis=0) for ring in rings], axis=0)), 0).astype(int)
    high = np.minimum(np.ceil(np.max([ring.max(axis=0) for ring in rings], axis=0)), size[::-1]).astype(int)
    if np.any(high <= low):
        return None
    return int(low[0]), int(low[1]), int(high[0] - low[0]), int(high[1] - low[1])


def _filled(ring: Ring, size: tuple[int, int], box: tuple[int, int, int, int]) -> tuple[np.ndarray, bool]:
    """Returns the pixels of a box that a ring encloses, bool [height, width], and whether it crosses itself visibly."""
    try:
        from pycocotools import mask
    except ImportError as error:
        raise needs(error) from None
    left, top, width, height = box
    if len(ring) > 2 and (ring.min() < 0 or np.any(ring.max(axis=0) > size[::-1])):
        ring = clipped(ring, size)  # pycocotools would walk along all of an edge, however far it goes
    if len(ring) < 3:
        return np.zeros((height, width), bool), False
    # Rounded to fifths here, as pycocotools does it for the whole picture, so that the box makes no difference.
    local = (np.trunc(ring * 5 + 0.5) - (5 * left, 5 * top)) / 5
    (encoded,) = mask.frPyObjects([local.ravel().tolist()], height, width)
    text = encoded["counts"]
    counts = compressed_counts(text if isinstance(text, str) else text.decode(), "polygon")
    pixels = runs(counts, height * width, "polygon").reshape(width, height).T
    return pixels, _crosses(local, pixels)


def _crosses(ring: Ring, pixels: np.ndarray) -> bool:
    """Returns whether the area within the lines differs from what was drawn by more than the lines are long.

    Loops of the other direction count as negative, and what is enclosed twice counts twice, so only rings that cross
    themselves differ. A hole on a bridge, as COCO and YOLO write them, does not.
    """
    following = np.roll(ring, -1, axis=0)
    area = abs(np.sum(ring[:, 0] * following[:, 1] - following[:, 0] * ring[:, 1])) / 2
    return bool(abs(area - np.count_nonzero(pixels)) > np.hypot(*(following - ring).T).sum() + 2)


def clipped(ring: Ring, size: tuple[int, int]) -> Ring:
    """Returns the part of a ring that lies within the picture (Sutherland and Hodgman 1974).

    What lies outside becomes lines along the edges of the picture.
    """
    for axis, limit, sign in ((0, 0, 1), (0, size[1], -1), (1, 0, 1), (1, size[0], -1)):
        depth = sign * (ring[:, axis] - limit)
        corners = []
        for number, corner in enumerate(ring):
            before = number - 1
            if (depth[before] < 0) != (depth[number] < 0):
                share = depth[before] / (depth[before] - depth[number])
                crossing = ring[before] + share * (corner - ring[before])
                crossing[axis] = limit
                corners.append(crossing)
            if depth[number] >= 0:
                corners.append(corner)
        ring = np.array(corners, np.float64).reshape(-1, 2)
        if not len(ring):
            break
    return ring


def _ellipse_patch(ellipse: Ellipse, size: tuple[int, int]) -> Bitmap | None:
    turn = math.radians(ellipse.angle)
    cosine, sine = math.cos(turn), math.sin(turn)
    reach = (
        math.hypot(ellipse.radii[0] * cosine, ellipse.radii[1] * sine),
        math.hypot(ellipse.radii[0] * sine, ellipse.radii[1] * cosine),
    )
    box = _box([np.array([np.subtract(ellipse.centre, reach), np.add(ellipse.centre, reach)])], size)
    if box is None or min(ellipse.radii) <= 0:
        return None
    left, top, width, height = box
    across = np.arange(left, left + width) + 0.5 - ellipse.centre[0]
    down = (np.arange(top, top + height) + 0.5 - ellipse.centre[1])[:, None]
    along, beside = across * cosine + down * sine, down * cosine - across * sine
    return Bitmap((along / ellipse.radii[0]) ** 2 + (beside / ellipse.radii[1]) ** 2 <= 1, left, top)


def _cut(bitmap: Bitmap, size: tuple[int, int]) -> Bitmap | None:
    """Returns the part of a bitmap that lies within the picture."""
    height, width = bitmap.pixels.shape
    left, top = max(0, bitmap.left), max(0, bitmap.top)
    right, bottom = min(size[1], bitmap.left + width), min(size[0], bitmap.top + height)
    if right <= left or bottom <= top:
        return None
    pixels = bitmap.pixels[top - bitmap.top : bottom - bitmap.top, left - bitmap.left : right - bitmap.left]
    return Bitmap(pixels, left, top)
