"""The release's preprocessing of one example, as pure functions (core/preprocess_utils.py).

An image is [h, w, c], a label [h, w, 1]. Every resize has aligned corners: bilinear for images, nearest with halves
away from zero for labels. Functions with random effects take their random numbers as arguments, so that image and
label share them and a run can repeat them.
"""

from collections.abc import Sequence
from typing import NamedTuple, cast

import numpy as np
import tensorflow as tf

from deeplab_tf.errors import DeepLabError
from deeplab_tf.ops.resizing import legacy_bilinear

# One fast op resizes the whole picture, unless the result has this many times the pixels of the window that is kept.
_WASTE = 2.1
_BLOCK = 19  # rows that are sampled together; 513 is a multiple of it

# ---- sizes


def range_size(
    height: tf.Tensor, width: tf.Tensor, *, minimum: int, maximum: int | None = None, factor: int | None = None
) -> tf.Tensor:
    """Returns the size of `resize_to_range`, int32 [2], in the release's float32 arithmetic (trap 28).

    Args:
      height: int32 scalar, of the picture.
      width: int32 scalar.
      minimum: pixels of the shorter side.
      maximum: pixels of the longer side at most.
      factor: both sides become multiples of this, plus one.
    """
    height = tf.cast(height, tf.float32)
    width = tf.cast(width, tf.float32)
    ratio = tf.constant(minimum, tf.float32) / tf.minimum(height, width)
    size = _floored(height * ratio, width * ratio)
    if maximum is not None:
        limit = float(maximum - (maximum - 1) % factor if factor else maximum)
        ratio = tf.constant(limit, tf.float32) / tf.maximum(height, width)
        too_large = tf.cast(tf.reduce_max(size), tf.float32) > limit
        size = tf.where(too_large, _floored(height * ratio, width * ratio), size)
    if factor:
        size += tf.math.floormod(factor - tf.math.floormod(size - 1, factor), factor)
    return size


def _floored(height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.floor(tf.stack([height, width])), tf.int32)


def scale_values(minimum: float, maximum: float, step: float) -> np.ndarray:
    """Returns the scales that training chooses from, float32 [n]: both ends included, `step` apart (trap 29).

    With a step of 0 these are the two ends, between which any scale is drawn.

    Raises:
      DeepLabError: the range is negative or reversed.
    """
    if minimum < 0 or minimum > maximum:
        raise DeepLabError(f"min_scale_factor={minimum}, max_scale_factor={maximum}: expected 0 <= min <= max")
    if minimum == maximum:
        return np.array([minimum], np.float32)
    if step == 0:
        return np.array([minimum, maximum], np.float32)
    return np.linspace(minimum, maximum, int((maximum - minimum) / step + 1), dtype=np.float32)


def draw_scale(values: np.ndarray, step: float, draw: tf.Tensor) -> tf.Tensor:
    """Returns one of `scale_values`, or any scale between two if `step` is 0, for a uniform draw in [0, 1)."""
    if step == 0 and len(values) == 2:
        return values[0] + draw * (values[1] - values[0])
    return tf.gather(tf.constant(values), _below(draw, len(values)))


def scaled_size(size: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    """Returns trunc(size * scale), int32 [2]; not the (d - 1) * s + 1 of the network (trap 14)."""
    return tf.cast(tf.cast(size, tf.float32) * scale, tf.int32)


def _below(draw: tf.Tensor, count: tf.Tensor | int) -> tf.Tensor:
    """Returns int32 numbers in [0, count), uniform for uniform draws in [0, 1), of the shape of `draw`."""
    product = tf.cast(draw * tf.cast(count, tf.float32), tf.int32)
    return tf.minimum(product, count - 1)  # the float32 product may round up to the count


# ---- resizing


def resize_image(image: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Returns an image resized to `size` (int32 [2]) by the release's bilinear op: float32 [*size, c]."""
    image = tf.convert_to_tensor(image)
    size = tf.convert_to_tensor(size, tf.int32)

    def resized(array: tf.Tensor) -> tf.Tensor:
        return legacy_bilinear(array[None], size)[0]

    # The op computes a pixel from floats in half the time that it takes from bytes, with the same bits. That pays for
    # the cast if the input has fewer pixels than the output.
    enlarged = tf.reduce_prod(size) > tf.reduce_prod(tf.shape(image)[:2])
    return tf.cond(enlarged, lambda: resized(tf.cast(image, tf.float32)), lambda: resized(image))


def resize_label(label: tf.Tensor, size: tf.Tensor, *, axis: int = 0) -> tf.Tensor:
    """Returns an integer label resized to `size` (int32 [2]) along `axis` and the next axis, by nearest neighbours.

    axis: 0 for [h, w, c]; 1 for the release's layout [n, h, w].
    """
    shape = tf.shape(label)[axis : axis + 2]
    size = tf.convert_to_tensor(size, tf.int32)
    rows, columns = _nearest(shape, _positions(shape, size, tf.zeros(2, tf.int32), size))
    return tf.gather(tf.gather(label, columns, axis=axis + 1), rows, axis=axis)


def resize_to_range(
    image: tf.Tensor,
    label: tf.Tensor | None = None,
    *,
    minimum: int,
    maximum: int | None = None,
    factor: int | None = None,
    keep_aspect_ratio: bool = True,
) -> tuple[tf.Tensor, tf.Tensor | None]:
    """Returns image and label resized so that the shorter side is `minimum`, or the longer one at most `maximum`.

    Args:
      image: [h, w, c].
      label: [h, w, 1], or None.
      minimum: pixels of the shorter side.
      maximum: pixels of the longer side at most; it wins over `minimum`.
      factor: both sides are rounded up to k * factor + 1.
      keep_aspect_ratio: if False, both sides become the longer one. The release's scripts always keep the ratio, up to
        the rounding.
    """
    shape = tf.shape(image)
    size = range_size(shape[0], shape[1], minimum=minimum, maximum=maximum, factor=factor)
    if not keep_aspect_ratio:
        size = tf.repeat(tf.reduce_max(size), 2)
    return resize_image(image, size), None if label is None else resize_label(label, size)


def _ratio(shape: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Returns the distance in the source of two neighbouring pixels of the result, float32 [2]: rows, columns."""
    return tf.cast(shape - 1, tf.float32) / tf.cast(tf.maximum(size - 1, 1), tf.float32)


def _positions(shape: tf.Tensor, size: tf.Tensor, offset: tf.Tensor, extent: tf.Tensor) -> list[tf.Tensor]:
    """Returns the positions in the source of `extent` rows and columns of the result, from `offset` on.

    Two float32 vectors, rounded as the release's ops round them.

    Args:
      shape: int32 [2], height and width of the source.
      size: int32 [2], of the whole result.
      offset: int32 [2], the first row and column.
      extent: int32 [2], the numbers of rows and columns.
    """
    spans = zip(tf.unstack(offset), tf.unstack(offset + extent), tf.unstack(_ratio(shape, size)), strict=True)
    return [tf.cast(tf.range(first, end), tf.float32) * ratio for first, end, ratio in spans]


def _nearest(shape: tf.Tensor, positions: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Returns the rows and the columns (int32) of a source of `shape` that are nearest to the float `positions`."""
    nearest = []
    for position, last in zip(positions, tf.unstack(shape - 1), strict=True):
        below = tf.floor(position)
        # floor(position + 0.5) would round the sum first, and so take a position just below a half for the half.
        up = tf.cast(position - below >= 0.5, tf.int32)
        nearest.append(tf.minimum(tf.cast(below, tf.int32) + up, last))
    return nearest


# ---- windows: the part of a resized picture that is kept, without computing the rest


class Window(NamedTuple):
    """The part of a picture that a random scale, crop and flip keep.

    Attributes:
      shape: int32 [2], height and width of the picture.
      size: int32 [2], height and width that the picture is resized to.
      offset: int32 [2], the first row and column of the resized picture that are kept.
      extent: int32 [2], the numbers of rows and columns that are kept.
      mirrored: bool, whether left and right are exchanged.
    """

    shape: tf.Tensor
    size: tf.Tensor
    offset: tf.Tensor
    extent: tf.Tensor
    mirrored: tf.Tensor

    @property
    def positions(self) -> list[tf.Tensor]:
        """The positions of the window's rows and columns in the picture, float32."""
        return _positions(self.shape, self.size, self.offset, self.extent)

    @property
    def unscaled(self) -> tf.Tensor:
        """Whether the picture keeps its size."""
        return tf.reduce_all(self.size == self.shape)

    @property
    def wasteful(self) -> tf.Tensor:
        """Whether resizing the whole picture costs more than sampling the window, which is slower for each pixel."""
        pixels, kept = (tf.cast(tf.reduce_prod(side), tf.float32) for side in (self.size, self.extent))
        return pixels > _WASTE * kept


def draw_window(shape: tf.Tensor, draws: tf.Tensor, *, scale: tf.Tensor, crop_size: Sequence[int]) -> Window:
    """Returns the window of a picture for three uniform draws in [0, 1): row, column and flip.

    As in the release, the offset is uniform over all places in the scaled and padded picture, both ends included, and a
    draw of at most 0.5 flips.

    Args:
      shape: int32 [2], height and width of the picture.
      draws: float32 [3].
      scale: float32 scalar.
      crop_size: height and width.
    """
    size = scaled_size(shape, scale)
    extent = tf.minimum(size, crop_size)
    offset = _below(draws[:2], size - extent + 1)
    return Window(shape, size, offset, extent, draws[2] <= 0.5)


def source_box(window: Window) -> tf.Tensor:
    """Returns the part of the picture that `image_window` reads, int32 [4]: top, left, height, width.

    It has two extra pixels on each side, because the edge of a partly decoded JPEG is not exact.
    """
    first, end = _needed(window)
    first = tf.maximum(first - 2, 0)
    end = tf.minimum(end + 2, window.shape)
    box = tf.concat([first, end - first], axis=0)
    return tf.where(window.unscaled | window.wasteful, box, tf.concat([[0, 0], window.shape], axis=0))


def label_window(label: tf.Tensor, window: Window, crop_size: Sequence[int], ignored: int) -> tf.Tensor:
    """Returns the window of an integer label [h, w, 1], padded to [*crop_size, 1] with `ignored` like `fill`."""
    rows, columns = _nearest(window.shape, window.positions)
    plane = label[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1, 0]
    # The padding points at a row and a column of `ignored` that the loop below appends, so that one gather cuts, flips,
    # resizes and pads.
    rows, columns = (
        tf.pad(index - index[0], [[0, side - tf.size(index)]], constant_values=tf.shape(plane)[axis])
        for axis, (index, side) in enumerate(zip((rows, columns), crop_size, strict=True))
    )
    columns = tf.cond(window.mirrored, lambda: tf.reverse(columns, [0]), lambda: columns)
    # Gathering rows copies contiguous memory, gathering columns does not: so the columns are gathered as rows of the
    # transposed plane.
    for index in (rows, columns):
        nowhere = tf.fill([1, tf.shape(plane)[1]], tf.cast(ignored, plane.dtype))
        plane = tf.transpose(tf.gather(tf.concat([plane, nowhere], axis=0), index))
    return tf.ensure_shape(plane, crop_size)[..., None]


def image_window(image: tf.Tensor, window: Window, corner: tf.Tensor | Sequence[int] = (0, 0)) -> tf.Tensor:
    """Returns the window of an image [h, w, channels], float32 [*window.extent, channels].

    The values equal those of the release's op except in their last bits, because positions are rounded as it rounds
    them. (tf.image.crop_and_resize rounds differently, which shows in the second decimal at a sharp edge.)

    Args:
      image: the picture, or the part of it in `source_box(window)`.
      window: what to keep.
      corner: row and column of the picture at which `image` begins.
    """
    return tf.cond(
        window.unscaled,
        lambda: tf.cast(cut_window(image, window, corner), tf.float32),
        lambda: tf.cond(
            window.wasteful,
            lambda: _sampled(image, window, corner),
            lambda: cut_window(resize_image(image, window.size), window, (0, 0)),
        ),
    )


def cut_window(image: tf.Tensor, window: Window, corner: tf.Tensor | Sequence[int]) -> tf.Tensor:
    """Returns the window of a picture that has its size already, of the image's dtype; see `image_window`."""
    extent = tf.concat([window.extent, [cast(int, image.shape[-1])]], axis=0)
    part = tf.slice(image, tf.concat([window.offset - corner, [0]], axis=0), extent)
    return tf.cond(window.mirrored, lambda: tf.reverse(part, [1]), lambda: part)


def _sampled(image: tf.Tensor, window: Window, corner: tf.Tensor | Sequence[int]) -> tf.Tensor:
    first, end = _needed(window)
    extent = tf.concat([end - first, [cast(int, image.shape[-1])]], axis=0)
    band = tf.slice(image, tf.concat([first - corner, [0]], axis=0), extent)
    start = tf.unstack(tf.cast(first, tf.float32))
    rows, columns = (position - start[axis] for axis, position in enumerate(window.positions))
    columns = tf.cond(window.mirrored, lambda: tf.reverse(columns, [0]), lambda: columns)
    # A row is contiguous in memory, a column is not: so the columns are sampled as rows of the transposed band.
    band = tf.cast(band, tf.float32)
    for positions in (columns, rows):
        band = _sampled_rows(tf.transpose(band, [1, 0, 2]), positions)
    return band


def _sampled_rows(array: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
    """Returns rows interpolated linearly between those of `array` [n, m, c], float32 [count, m, c].

    positions: float32 [count], rising or falling.
    """
    # Gathering two neighbours for each wanted row would read the array twice and more. Neighbouring positions share
    # their neighbours, so each block of _BLOCK rows is one matrix product with the few rows that the block lies
    # between: interpolation weights [_BLOCK, k] times rows [k, c m].
    n, m = tf.unstack(tf.shape(array)[:2])
    channels = cast(int, array.shape[-1])
    count = tf.size(positions)
    blocks = (count + _BLOCK - 1) // _BLOCK
    padding = tf.repeat(positions[-1:], blocks * _BLOCK - count)
    positions = tf.reshape(tf.concat([positions, padding], axis=0), [blocks, _BLOCK])
    low = tf.floor(tf.reduce_min(positions, axis=1))
    high = tf.math.ceil(tf.reduce_max(positions, axis=1))
    near = low[:, None] + tf.range(tf.reduce_max(high - low) + 1)  # the rows that each block lies between
    weights = tf.nn.relu(1 - tf.abs(positions[:, :, None] - near[:, None, :]))
    rows = tf.gather(tf.reshape(array, [n, channels * m]), tf.minimum(tf.cast(near, tf.int32), n - 1))
    # Not the op behind @: its library (oneDNN) keeps compiled code for each shape and thread, hundreds of MB in all.
    sampled = tf.raw_ops.BatchMatMulV3(x=weights, y=rows, Tout=tf.float32)
    rows = tf.reshape(sampled, [blocks * _BLOCK, channels * m])[:count]
    return tf.reshape(rows, [count, m, channels])


def _needed(window: Window) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the first pixel that the window is interpolated from and the one after the last, int32 [2] each."""
    ratio = _ratio(window.shape, window.size)
    first = tf.cast(window.offset, tf.float32) * ratio
    last = tf.cast(window.offset + window.extent - 1, tf.float32) * ratio
    last = tf.minimum(tf.cast(tf.math.ceil(last), tf.int32), window.shape - 1)
    return tf.cast(tf.floor(first), tf.int32), last + 1


# ---- padding


def pad_to(
    array: tf.Tensor,
    size: Sequence[int] | tf.Tensor,
    value: Sequence[float] | float,
    *,
    left: tf.Tensor | int = 0,
) -> tf.Tensor:
    """Returns an array [h, w, c] padded to `size` below and on the right, or on the left with the `left` first columns.

    Args:
      array: [h, w, c]; a side that is long enough already stays.
      size: height and width.
      value: of the padding, one number or one for each channel.
      left: the number of padding columns that go to the left.
    """
    channels = cast(int, array.shape[-1])
    height, width = tf.unstack(tf.shape(array)[:2])
    below = tf.maximum(size[0] - height, 0)
    beside = tf.maximum(size[1] - width, 0)

    def padded(pixels: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
        # As a matrix, which the op pads in half the time.
        paddings = [[0, below], [channels * left, channels * (beside - left)]]
        flat = tf.pad(tf.reshape(pixels, [height, channels * width]), paddings, constant_values=value)
        return tf.reshape(flat, [height + below, width + beside, channels])

    values = {float(v) for v in np.ravel(value)}
    if len(values) == 1:
        return padded(array, tf.cast(values.pop(), array.dtype))
    colour = tf.constant(value, array.dtype)
    return padded(array - colour, tf.zeros([], array.dtype)) + colour


def fill(array: tf.Tensor, window: Window, crop_size: Sequence[int], value: Sequence[float] | float) -> tf.Tensor:
    """Returns the window [h, w, c] padded to `crop_size`: below, and on the right, or on the left if it is mirrored."""
    left = tf.where(window.mirrored, crop_size[1] - window.extent[1], 0)
    short = tf.reduce_any(window.extent < crop_size)
    padded = tf.cond(short, lambda: pad_to(array, crop_size, value, left=left), lambda: array)
    return tf.ensure_shape(padded, [*crop_size, array.shape[-1]])
