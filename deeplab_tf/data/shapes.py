"""A synthetic data set: drawings of eight shapes, which differ in outline alone, on textured grounds.

A picture is a pure function of (seed, index). To be equal on every machine it uses only raw PCG64 draws and arithmetic
that IEEE 754 rounds in one way (+ - * / sqrt, comparisons, floor): no sin or cos, no fonts, no matrix products.
"""

import dataclasses
import io
import os
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from PIL import Image

from deeplab_tf import files
from deeplab_tf.catalog import datasets
from deeplab_tf.data.outlines import OUTLINES, Floats
from deeplab_tf.errors import DeepLabError, unknown_name
from deeplab_tf.ops import pictures

SMALLEST_SIDE = 16
# Each split has its own range of indices, so that the size of one never moves a picture into another.
FIRST_INDEX = {"train": 0, "val": 1_000_000, "test": 2_000_000}

_DATASET = datasets.DATASETS["shapes"]
_VISIBLE = 0.55  # a shape that would leave less than this share of an earlier one visible is not drawn


def shapes_example(seed: int, index: int, *, height: int = 129, width: int = 129) -> tuple[np.ndarray, np.ndarray]:
    """Returns picture `index` of the data set of `seed`: (image, label).

    The image is uint8 [height, width, 3]. The label is uint8 [height, width]: 0 is background, 1..8 are the shapes in
    the order of catalog.datasets.DATASETS["shapes"].class_names, 255 is a seam two pixels wide around every shape. Up
    to five shapes have random classes, sizes, rotations, places, colours and textures; later ones cover earlier ones.

    Raises:
      DeepLabError: seed or index is negative, or a side is below 16 pixels.
    """
    _check(seed, index, height, width)
    random = _Random(seed, index)
    painter = _Painter(random, height, width)
    for _ in range(random.below(4) + 2):
        painter.add(random)
    return painter.image(random), painter.label()


def write_shapes(
    folder: str | os.PathLike,
    *,
    splits: Mapping[str, int] = _DATASET.splits,
    seed: int = 0,
    height: int = 129,
    width: int = 129,
) -> files.AnyPath:
    """Writes the data set in the layout of PASCAL VOC, and returns the folder.

    Writes JPEGImages/<id>.jpg (quality 95), SegmentationClass/<id>.png (mode P, label values as palette indices) and
    ImageSets/Segmentation/<split>.txt (one id per line; ids are <split>_000000 and up). It writes all or nothing: the
    files grow in a sibling folder that takes the name `folder` when it is complete.

    Args:
      folder: the folder to write, which does not exist or is empty.
      splits: split (train, val or test) -> number of pictures.
      seed: of the data set.
      height: of the pictures in pixels.
      width: of the pictures in pixels.

    Raises:
      DeepLabError: the folder is not empty, a split is unknown, or `shapes_example` refuses seed or size.
    """
    folder = files.path(folder)
    _check(seed, 0, height, width)
    _check_splits(splits)
    if files.is_taken(folder):
        raise DeepLabError(f"{folder} is there and not an empty folder; name a new one, or remove it first")
    with files.growing(folder, durable=False) as growing:
        for split, count in splits.items():
            _write_split(growing, split, count, seed, (height, width))
    return folder


def _check_splits(splits: Mapping[str, int]) -> None:
    for split, count in splits.items():
        if split not in FIRST_INDEX:
            raise unknown_name("split of shapes", split, FIRST_INDEX)
        if not 0 < count <= 1_000_000:
            raise DeepLabError(f"{count} images in split {split}: expected 1 to 1000000")
    if not splits:
        raise DeepLabError("no splits given: expected for instance train=4000, val=500")


def _write_split(folder: files.AnyPath, split: str, count: int, seed: int, size: tuple[int, int]) -> None:
    images, labels, lists = (folder / n for n in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"))
    for made in (images, labels, lists):
        made.mkdir(parents=True, exist_ok=True)
    names = []
    for name, image, label in encoded_shapes(split, count, seed=seed, height=size[0], width=size[1]):
        (images / f"{name}.jpg").write_bytes(image)
        (labels / f"{name}.png").write_bytes(pictures.palette_png(label, _DATASET.palette))
        names.append(name)
    (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")


def encoded_shapes(
    split: str, count: int, *, seed: int = 0, height: int = 129, width: int = 129
) -> Iterator[tuple[str, bytes, np.ndarray]]:
    """Yields the first `count` pictures of a split as `write_shapes` writes them: id, JPEG, label uint8 [h, w]."""
    for i in range(count):
        image, label = shapes_example(seed, FIRST_INDEX[split] + i, height=height, width=width)
        stream = io.BytesIO()
        # Full chroma: halved, it would smear the coloured textures over the outlines.
        Image.fromarray(image).save(stream, "JPEG", quality=95, subsampling=0)
        yield f"{split}_{i:06d}", stream.getvalue(), label


def _check(seed: int, index: int, height: int, width: int) -> None:
    if seed < 0 or index < 0:
        raise DeepLabError(f"shapes of seed {seed}, index {index}: expected numbers of at least 0")
    if min(height, width) < SMALLEST_SIDE:
        raise DeepLabError(f"shapes of {height} x {width} pixels: expected sides of at least {SMALLEST_SIDE}")


class _Random:
    """Random numbers from the raw stream of PCG64, because NumPy may change its distributions between versions."""

    def __init__(self, seed: int, index: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence([seed, index]))

    def unit(self) -> float:
        """Returns a number in [0, 1)."""
        return (int(self._bits.random_raw()) >> 11) * 2.0**-53

    def between(self, low: float, high: float) -> float:
        """Returns a number in [low, high)."""
        return low + (high - low) * self.unit()

    def below(self, count: int) -> int:
        """Returns an integer in [0, count)."""
        return int(self.unit() * count)

    def bytes(self, *shape: int) -> np.ndarray:
        """Returns uint8 noise of `shape`."""
        count = int(np.prod(shape))
        raw = np.atleast_1d(self._bits.random_raw((count + 7) // 8)).astype("<u8")
        return raw.view(np.uint8)[:count].reshape(shape)

    def rotation(self) -> tuple[float, float]:
        """Returns (cosine, sine) of a random angle."""
        # cos and sin round differently between machines; the rational parametrisation of the circle does not.
        t = self.between(-0.41421356, 0.41421356)  # the tangent of half the angle: up to an eighth of a turn either way
        cosine = (1 - t * t) / (1 + t * t)
        sine = 2 * t / (1 + t * t)
        return ((cosine, sine), (-sine, cosine), (-cosine, -sine), (sine, -cosine))[self.below(4)]


@dataclasses.dataclass(frozen=True)
class _Shape:
    """One outline on the picture.

    Attributes:
      label: its class.
      box: the rows and the columns of the picture that hold it.
      distance: float32 [box h, box w], the distance to the outline in pixels, negative inside.
    """

    label: int
    box: tuple[slice, slice]
    distance: Floats


def _draw_shape(random: _Random, height: int, width: int) -> _Shape:
    """Returns a shape of random class, size, rotation, stretch and place."""
    number = random.below(len(OUTLINES))
    radius = random.between(0.16, 0.34) * min(height, width)
    stretch = random.between(0.87, 1.15)
    centre = (random.between(0.1, 0.9) * height, random.between(0.1, 0.9) * width)
    reach = 1.2 * radius + 2
    rows = slice(max(0, int(centre[0] - reach)), min(height, int(centre[0] + reach) + 1))
    columns = slice(max(0, int(centre[1] - reach)), min(width, int(centre[1] + reach) + 1))
    u, v = _rotated_coordinates(random, (rows, columns), centre)
    x = u * np.float32(stretch / radius)
    y = v * np.float32(1 / (stretch * radius))
    return _Shape(number + 1, (rows, columns), OUTLINES[number](x, y) * np.float32(radius))


def _rotated_coordinates(
    random: _Random, box: tuple[slice, slice], centre: tuple[float, float]
) -> tuple[Floats, Floats]:
    """Returns the coordinates (u, v) of the pixel centres in `box` along two axes at a random angle, from `centre`.

    float32 [box h, box w] each, in pixels.
    """
    rows = np.arange(box[0].start, box[0].stop, dtype=np.float32)[:, None] + np.float32(0.5 - centre[0])
    columns = np.arange(box[1].start, box[1].stop, dtype=np.float32)[None, :] + np.float32(0.5 - centre[1])
    cosine, sine = (np.float32(part) for part in random.rotation())
    return columns * cosine + rows * sine, rows * cosine - columns * sine


# ---- textures: functions of coordinates u, v and of a period, all in pixels. They return float32 in [0, 1], the share
# of the second of two colours.

_Texture = Callable[[_Random, Floats, Floats, np.float32], Floats]


def _wave(u: Floats, period: np.float32) -> Floats:
    """Returns soft stripes: 0 in one half of each period, 1 in the other, with ramps a pixel wide between them."""
    cycles = u / period
    return np.clip(
        (abs(cycles - np.floor(cycles) - np.float32(0.5)) - np.float32(0.25)) * period + np.float32(0.5), 0, 1
    )


def _gradient(random: _Random, u: Floats, v: Floats, period: np.float32) -> Floats:
    low = u.min()
    return (u - low) / (u.max() - low + 1)


def _stripes(random: _Random, u: Floats, v: Floats, period: np.float32) -> Floats:
    return _wave(u, period)


def _checks(random: _Random, u: Floats, v: Floats, period: np.float32) -> Floats:
    a = _wave(u, period)
    b = _wave(v, period)
    return a * b + (1 - a) * (1 - b)


def _dots(random: _Random, u: Floats, v: Floats, period: np.float32) -> Floats:
    x, y = (w / period - np.floor(w / period) - np.float32(0.5) for w in (u, v))
    return np.clip((np.float32(0.32) - np.sqrt(x * x + y * y)) * period + np.float32(0.5), 0, 1)


def _noise(random: _Random, u: Floats, v: Floats, period: np.float32) -> Floats:
    """Returns random levels at the points of a grid, interpolated linearly between them."""
    height, width = u.shape
    cell = period * np.float32(0.6)
    rows = np.arange(height, dtype=np.float32) / cell
    columns = np.arange(width, dtype=np.float32) / cell
    top = rows.astype(np.int64)
    left = columns.astype(np.int64)
    levels = random.bytes(int(top[-1]) + 2, int(left[-1]) + 2).astype(np.float32) * np.float32(1 / 255)
    levels = _between_rows(levels, top, rows)
    return np.ascontiguousarray(_between_rows(levels.T, left, columns).T)


def _between_rows(levels: Floats, above: np.ndarray, position: Floats) -> Floats:
    """Returns the interpolation of the rows `above` (int64 [n]) of `levels` and the next ones at `position` [n]."""
    part = (position - above.astype(np.float32))[:, None]
    return levels[above] * (1 - part) + levels[above + 1] * part


_TEXTURES: tuple[_Texture, ...] = (_gradient, _stripes, _checks, _dots, _noise)


class _Painter:
    """The picture while it is drawn: its colours, the shape that owns each pixel, and the area of each shape."""

    def __init__(self, random: _Random, height: int, width: int) -> None:
        self._size = (height, width)
        self._grounds: list[tuple[int, ...]] = []  # the main colour of each texture so far
        self._labels = [0]  # the class of each shape; the background comes first
        self._areas = [height * width]  # the pixels of each shape before others covered it
        self._owner = np.zeros(self._size, np.int64)  # [h, w], the shape of each pixel, an index of `_labels`
        self._canvas = self._texture(random, (slice(0, height), slice(0, width)))

    def add(self, random: _Random) -> None:
        """Draws a shape over the others, unless it would cover too much of one."""
        shape = _draw_shape(random, *self._size)
        colours = self._texture(random, shape.box)
        inside = shape.distance <= 0
        owner = self._owner[shape.box]
        if not inside.any() or self._hides(owner, inside):
            return
        owner[inside] = len(self._labels)
        self._labels.append(shape.label)
        self._areas.append(int(inside.sum()))
        cover = np.clip(np.float32(0.5) - shape.distance, 0, 1)[:, :, None]
        canvas = self._canvas[shape.box]
        canvas += (colours - canvas) * cover

    def _hides(self, owner: np.ndarray, inside: np.ndarray) -> bool:
        """Returns whether a shape with the pixels `inside` (bool) of a box with these owners would cover too much."""
        left = np.bincount(self._owner.ravel(), minlength=len(self._areas))
        left -= np.bincount(owner[inside], minlength=len(self._areas))
        return any(seen < _VISIBLE * area for seen, area in zip(left[1:], self._areas[1:], strict=True))

    def _texture(self, random: _Random, box: tuple[slice, slice]) -> Floats:
        """Returns float32 [box h, box w, 3]: two colours, the first unlike those used before, mixed by a pattern."""
        first = max((_draw_colour(random) for _ in range(5)), key=self._unlikeness)
        self._grounds.append(first)
        other = _draw_colour(random)
        contrast = random.between(0.15, 0.45)
        step = np.array([(b - a) * contrast for a, b in zip(first, other, strict=True)], np.float32)
        pattern = _TEXTURES[random.below(len(_TEXTURES))]
        period = np.float32(max(3.0, random.between(0.035, 0.11) * min(self._size)))
        u, v = _rotated_coordinates(random, box, (0.0, 0.0))
        return np.array(first, np.float32) + pattern(random, u, v, period)[:, :, None] * step

    def _unlikeness(self, colour: tuple[int, ...]) -> int:
        return min((sum(abs(a - b) for a, b in zip(colour, g, strict=True)) for g in self._grounds), default=0)

    def image(self, random: _Random) -> np.ndarray:
        """Returns the picture, uint8 [h, w, 3], under uneven light and with the noise of a camera."""
        whole = (slice(0, self._size[0]), slice(0, self._size[1]))
        u, v = _rotated_coordinates(random, whole, (0.0, 0.0))
        light = _gradient(random, u, v, np.float32(0)) * np.float32(0.35) + np.float32(0.75)
        grain = random.bytes(*self._size, 3).astype(np.float32) - np.float32(127.5)
        lit = self._canvas * light[:, :, None] + grain * np.float32(random.between(0.0, 0.12))
        return np.clip(lit + np.float32(0.5), 0, 255).astype(np.uint8)

    def label(self) -> np.ndarray:
        """Returns the class of every pixel, uint8 [h, w], with 255 on both sides of every change of owner."""
        owner = self._owner
        label = np.array(self._labels, np.uint8)[owner]
        rows = owner[1:] != owner[:-1]
        columns = owner[:, 1:] != owner[:, :-1]
        for seam, change in ((label[1:], rows), (label[:-1], rows), (label[:, 1:], columns), (label[:, :-1], columns)):
            seam[change] = _DATASET.ignore_label
        return label


def _draw_colour(random: _Random) -> tuple[int, ...]:
    return tuple(random.below(256) for _ in range(3))
