"""What every format of annotations is read into: pictures with their shapes, in the order in which they are listed."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Literal, TypeAlias, TypeVar

import numpy as np

from deeplab_tf.errors import DeepLabError

DrawingOrder: TypeAlias = Literal["as_listed", "largest_first"]
Ring: TypeAlias = np.ndarray  # float64 [n, 2], x and y in pixels; (0, 0) is the upper left corner of the first pixel


@dataclasses.dataclass(frozen=True)
class Polygon:
    """The union of parts, each an outer ring with holes cut out of it."""

    parts: tuple[tuple[Ring, tuple[Ring, ...]], ...]


@dataclasses.dataclass(frozen=True)
class Ellipse:
    """An ellipse; a circle has two equal radii. Pixels, and `angle` in degrees, clockwise as the picture is seen."""

    centre: tuple[float, float]
    radii: tuple[float, float]
    angle: float = 0.0


@dataclasses.dataclass(frozen=True)
class Bitmap:
    """Pixels, bool [h, w], the first of which lies at column `left` and row `top` of the picture."""

    pixels: np.ndarray
    left: int = 0
    top: int = 0


@dataclasses.dataclass(frozen=True)
class Unusable:
    """What has no area, or none that is known; `why` completes "3 shapes left out: "."""

    why: str


@dataclasses.dataclass(frozen=True)
class Shape:
    """One annotated object.

    Attributes:
      label: the name of its class.
      outline: where it is.
      where: names it in messages, as "p0.json: shape 2" does.
      crowd: its pixels are to be ignored where nothing else is drawn.
      height: of two shapes the higher is drawn later, unless the largest is drawn first (CVAT's z_order).
    """

    label: str
    outline: Polygon | Ellipse | Bitmap | Unusable
    where: str
    crowd: bool = False
    height: int = 0


@dataclasses.dataclass(frozen=True)
class AnnotatedPicture:
    """A picture and its shapes.

    Attributes:
      file: the picture as the annotations name it, with / between folders.
      folders: where to look for it first.
      source: the file that names it.
      where: names it in messages.
      shapes: in the order of the file; their numbers are pixels, or shares of width and height where `relative`.
      size: (height, width) as announced, or None.
      split: train, val, test or another, where the annotations say it; None: the folders do.
      relative: the shapes' numbers are shares.
      other_names: what the file may be called instead.
      embedded: the picture's own bytes, where the annotations hold them.
    """

    file: str
    folders: tuple[str, ...]
    source: str
    where: str
    shapes: tuple[Shape, ...]
    size: tuple[int, int] | None = None
    split: str | None = None
    relative: bool = False
    other_names: tuple[str, ...] = ()
    embedded: Callable[[], bytes] | None = None


@dataclasses.dataclass(frozen=True)
class Annotations:
    """The annotations of a folder.

    Attributes:
      format: its name, one of `formats.FORMATS`.
      drawing_order: what the format means by the order of its shapes.
      class_names: returns the names the format declares, in its order, or those that occur, sorted.
      pictures: yields the pictures one by one; an error is the fault of one picture or file, and the others follow.
      others_are_background: a picture that is not named has nothing on it, by the format's rule.
      left_out: what was not read, one line each.
      lists: which lists beside the annotations say the split of a picture: any; named: those called train.txt, val.txt
        or test.txt; none, since the format has lists of its own.
    """

    format: str
    drawing_order: DrawingOrder
    class_names: Callable[[], tuple[str, ...]]
    pictures: Callable[[], Iterator[AnnotatedPicture | DeepLabError]]
    others_are_background: bool = False
    left_out: tuple[str, ...] = ()
    lists: Literal["any", "named", "none"] = "any"


_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def attempt(read: Callable[[_Item], _Result], item: _Item) -> _Result | DeepLabError:
    """Returns `read(item)`, or the error that it raises: the fault of one item must not hide those of others."""
    try:
        return read(item)
    except DeepLabError as error:
        return error


def all_of(
    read: Callable[[str], Iterator[AnnotatedPicture | DeepLabError]], file: str
) -> Iterator[AnnotatedPicture | DeepLabError]:
    """Yields the pictures of a file, and in the end the error of the file, if there is one."""
    try:
        yield from read(file)
    except DeepLabError as error:
        yield error
