"""The release's preprocessing of one example, as pure functions (core/preprocess_utils.py).

An image is [h, w, c], a label [h, w, 1]. Every resize has aligned corners: bilinear for images, nearest with halves
away from zero for labels. Functions with random effects take their random numbers as arguments, so that image and
label share them and a run can repeat them.
"""

from collections.abc import Sequence
from typing import cast

import numpy as np
import tensorflow as tf

from deeplab_tf.errors import DeepLabError
from deeplab_tf.ops.resizing import legacy_bilinear

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
    return tf.gather(tf.constant(values), index_below(draw, len(values)))


def scaled_size(size: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    """Returns trunc(size * scale), int32 [2]; not the (d - 1) * s + 1 of the network (trap 14)."""
    return tf.cast(tf.cast(size, tf.float32) * scale, tf.int32)


def index_below(draw: tf.Tensor, count: tf.Tensor | int) -> tf.Tensor:
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
    rows, columns = nearest_indices(shape, sample_positions(shape, size, tf.zeros(2, tf.int32), size))
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


def sample_ratio(shape: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Returns the distance in the source of two neighbouring pixels of the result, float32 [2]: rows, columns."""
    return tf.cast(shape - 1, tf.float32) / tf.cast(tf.maximum(size - 1, 1), tf.float32)


def sample_positions(shape: tf.Tensor, size: tf.Tensor, offset: tf.Tensor, extent: tf.Tensor) -> list[tf.Tensor]:
    """Returns the positions in the source of `extent` rows and columns of the result, from `offset` on.

    Two float32 vectors, rounded as the release's ops round them.

    Args:
      shape: int32 [2], height and width of the source.
      size: int32 [2], of the whole result.
      offset: int32 [2], the first row and column.
      extent: int32 [2], the numbers of rows and columns.
    """
    spans = zip(tf.unstack(offset), tf.unstack(offset + extent), tf.unstack(sample_ratio(shape, size)), strict=True)
    return [tf.cast(tf.range(first, end), tf.float32) * ratio for first, end, ratio in spans]


def nearest_indices(shape: tf.Tensor, positions: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Returns the rows and the columns (int32) of a source of `shape` that are nearest to the float `positions`."""
    nearest = []
    for position, last in zip(positions, tf.unstack(shape - 1), strict=True):
        below = tf.floor(position)
        # floor(position + 0.5) would round the sum first, and so take a position just below a half for the half.
        up = tf.cast(position - below >= 0.5, tf.int32)
        nearest.append(tf.minimum(tf.cast(below, tf.int32) + up, last))
    return nearest


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
