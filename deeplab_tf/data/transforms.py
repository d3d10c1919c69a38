"""What the release does to one example before the network sees it, as pure functions (core/preprocess_utils.py).

image is [h, w, c], label [h, w, 1]. Every resize has aligned corners: bilinear for images, nearest with halves away
from zero for labels. The random ones take their numbers as arguments, so that image and label share them and a run can
repeat them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from deeplab_tf.errors import DeepLabError

# The whole picture is resized, by one fast op, unless it has so many times the pixels of the window that is kept.
_WASTE = 2.1
_BLOCK = 19  # rows that are sampled together; 513 is a multiple

# ---- sizes


def range_size(
    height: tf.Tensor, width: tf.Tensor, *, minimum: int, maximum: int | None = None, factor: int | None = None
) -> tf.Tensor:
    """Returns the int32 [2] size of `resize_to_range`, in the release's float32 arithmetic (trap 28)."""
    height, width = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
    ratio = tf.constant(minimum, tf.float32) / tf.minimum(height, width)
    size = _floored(height * ratio, width * ratio)
    if maximum is not None:
        limit = float(maximum - (maximum - 1) % factor if factor else maximum)
        ratio = tf.constant(limit, tf.float32) / tf.maximum(height, width)
        too_large = tf.cast(tf.reduce_max(size), tf.float32) > limit
        size = tf.where(too_large, _floored(height * ratio, width * ratio), size)
    if factor:
        size += (factor - (size - 1) % factor) % factor
    return size


def _floored(height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.floor(tf.stack([height, width])), tf.int32)


def scale_values(minimum: float, maximum: float, step: float) -> np.ndarray:
    """Returns the float32 scales that training chooses from: both ends, `step` apart (trap 29).

    Step 0 gives the two ends between which any scale is drawn. DeepLabError for a negative or reversed range.
    """
    if minimum < 0 or minimum > maximum:
        raise DeepLabError(f"min_scale_factor={minimum}, max_scale_factor={maximum}: expected 0 <= min <= max")
    if minimum == maximum:
        return np.array([minimum], np.float32)
    if step == 0:
        return np.array([minimum, maximum], np.float32)
    return np.linspace(minimum, maximum, int((maximum - minimum) / step + 1), dtype=np.float32)


def draw_scale(values: np.ndarray, step: float, draw: tf.Tensor) -> tf.Tensor:
    """Returns one of `scale_values` (any between two of them where `step` is 0) for a uniform draw in [0, 1)."""
    if step == 0 and len(values) == 2:
        return values[0] + draw * (values[1] - values[0])
    return tf.gather(tf.constant(values), _below(draw, len(values)))


def scaled_size(size: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    """Returns trunc(size * scale), int32 [2]; not the (d - 1) * s + 1 of the network (trap 14)."""
    return tf.cast(tf.cast(size, tf.float32) * scale, tf.int32)


def _below(draw: tf.Tensor, count: tf.Tensor | int) -> tf.Tensor:
    """Returns an int32 in [0, count), uniform for a uniform draw in [0, 1); or several for several."""
    product = tf.cast(draw * tf.cast(count, tf.float32), tf.int32)
    return tf.minimum(product, count - 1)  # the product may round up


# ---- resizing


def resize_image(image: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Returns float32 [*size, c], bilinear: the op of the release."""
    image, size = tf.convert_to_tensor(image), tf.convert_to_tensor(size, tf.int32)

    def resized(array):
        return tf.raw_ops.ResizeBilinear(images=array[None], size=size, align_corners=True, half_pixel_centers=False)[0]

    # The op makes a pixel of floats in half the time of one of bytes, to the same bits: worth a cast of few pixels.
    enlarged = tf.reduce_prod(size) > tf.reduce_prod(tf.shape(image)[:2])
    return tf.cond(enlarged, lambda: resized(tf.cast(image, tf.float32)), lambda: resized(image))


def resize_label(label: tf.Tensor, size: tf.Tensor, *, axis: int = 0) -> tf.Tensor:
    """Returns an integer label resized to `size` along `axis` and the next (1 for the release's layout [n, h, w])."""
    shape, size = tf.shape(label)[axis : axis + 2], tf.convert_to_tensor(size, tf.int32)
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
    """Returns both resized so that the short side is `minimum`, or the long one at most `maximum`.

    The sides are rounded up to k * factor + 1. The release's scripts always keep the aspect ratio, up to that rounding;
    otherwise both sides become the longer one.
    """
    shape = tf.shape(image)
    size = range_size(shape[0], shape[1], minimum=minimum, maximum=maximum, factor=factor)
    if not keep_aspect_ratio:
        size = tf.repeat(tf.reduce_max(size), 2)
    return resize_image(image, size), None if label is None else resize_label(label, size)


def _ratio(shape: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Returns how far apart in the source two neighbours of the result lie, float32 [2]."""
    return tf.cast(shape - 1, tf.float32) / tf.cast(tf.maximum(size - 1, 1), tf.float32)


def _positions(shape: tf.Tensor, size: tf.Tensor, offset: tf.Tensor, extent: tf.Tensor) -> list[tf.Tensor]:
    """Returns where the rows and the columns `extent` at `offset` of the result lie in the source.

    float32, rounded as the release's ops do.
    """
    spans = zip(tf.unstack(offset), tf.unstack(offset + extent), tf.unstack(_ratio(shape, size)), strict=True)
    return [tf.cast(tf.range(first, end), tf.float32) * ratio for first, end, ratio in spans]


def _nearest(shape: tf.Tensor, positions: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Returns the rows and the columns (int32) of a source of `shape` that are nearest to its `positions`."""
    nearest = []
    for at, last in zip(positions, tf.unstack(shape - 1), strict=True):
        below = tf.floor(at)
        up = tf.cast(at - below >= 0.5, tf.int32)  # floor(at + 0.5) would round once too often
        nearest.append(tf.minimum(tf.cast(below, tf.int32) + up, last))
    return nearest


# ---- windows: the part of a resized picture that is kept, without computing the rest


class Window(NamedTuple):
    """What a random scale, crop and flip keep of a picture: `extent` at `offset` of the picture of `shape` resized to
    `size` (int32 [2] each: height, width), mirrored or not (bool)."""

    shape: tf.Tensor
    size: tf.Tensor
    offset: tf.Tensor
    extent: tf.Tensor
    mirrored: tf.Tensor

    @property
    def positions(self) -> list[tf.Tensor]:
        """Where the rows and the columns lie in the picture, float32."""
        return _positions(self.shape, self.size, self.offset, self.extent)

    @property
    def unscaled(self) -> tf.Tensor:
        """Whether the picture keeps its size."""
        return tf.reduce_all(self.size == self.shape)

    @property
    def wasteful(self) -> tf.Tensor:
        """Whether resizing the whole picture costs more than sampling the window (which is slower a pixel)."""
        pixels, kept = (tf.cast(tf.reduce_prod(side), tf.float32) for side in (self.size, self.extent))
        return pixels > _WASTE * kept


def draw_window(shape: tf.Tensor, draws: tf.Tensor, *, scale: tf.Tensor, crop_size: Sequence[int]) -> Window:
    """Returns the window of a picture of `shape` for three uniform draws in [0, 1): row, column and flip.

    As the release: offsets over all places in the scaled and padded picture, both ends included; a flip up to 0.5.
    """
    size = scaled_size(shape, scale)
    extent = tf.minimum(size, crop_size)
    offset = _below(draws[:2], size - extent + 1)
    return Window(shape, size, offset, extent, draws[2] <= 0.5)


def source_box(window: Window) -> tf.Tensor:
    """Returns the part of the picture that `image_window` looks at, int32 [4]: top, left, height, width.

    With two pixels more on each side, as the edge of a partly decoded JPEG is not exact.
    """
    first, end = _needed(window)
    first, last = tf.maximum(first - 2, 0), tf.minimum(end + 2, window.shape)
    box = tf.concat([first, last - first], axis=0)
    return tf.where(window.unscaled | window.wasteful, box, tf.concat([[0, 0], window.shape], axis=0))


def label_window(label: tf.Tensor, window: Window, crop_size: Sequence[int], ignored: int) -> tf.Tensor:
    """Returns the window of an integer label [h, w, 1], padded to [*crop_size, 1] with `ignored` as `fill` pads."""
    rows, columns = _nearest(window.shape, window.positions)
    plane = label[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1, 0]
    rows, columns = (
        tf.pad(index - index[0], [[0, side - tf.size(index)]], constant_values=tf.shape(plane)[axis])
        for axis, (index, side) in enumerate(zip((rows, columns), crop_size, strict=True))
    )
    columns = tf.cond(window.mirrored, lambda: tf.reverse(columns, [0]), lambda: columns)
    # Picking rows copies them as they lie; so the columns are picked as rows of the transposed plane.
    for index in (rows, columns):
        nowhere = tf.fill([1, tf.shape(plane)[1]], tf.cast(ignored, plane.dtype))
        plane = tf.transpose(tf.gather(tf.concat([plane, nowhere], axis=0), index))
    return tf.ensure_shape(plane, crop_size)[..., None]


def image_window(image: tf.Tensor, window: Window, corner: tf.Tensor | Sequence[int] = (0, 0)) -> tf.Tensor:
    """Returns the window of an image, float32. `image` begins at `corner` of the picture (see source_box).

    The values are those of the release's op but for their last bits: positions are rounded as it rounds them.
    tf.image.crop_and_resize rounds otherwise, which on a sharp edge shows in the second decimal.
    """

    def cut(array, offset):
        part = tf.slice(array, tf.concat([offset, [0]], axis=0), tf.concat([window.extent, [3]], axis=0))
        return tf.cond(window.mirrored, lambda: tf.reverse(part, [1]), lambda: part)

    return tf.cond(
        window.unscaled,
        lambda: tf.cast(cut(image, window.offset - corner), tf.float32),
        lambda: tf.cond(
            window.wasteful,
            lambda: _sampled(image, window, corner),
            lambda: cut(resize_image(image, window.size), window.offset),
        ),
    )


def _sampled(image: tf.Tensor, window: Window, corner: tf.Tensor | Sequence[int]) -> tf.Tensor:
    first, end = _needed(window)
    band = tf.slice(image, tf.concat([first - corner, [0]], axis=0), tf.concat([end - first, [3]], axis=0))
    start = tf.unstack(tf.cast(first, tf.float32))
    rows, columns = (at - start[axis] for axis, at in enumerate(window.positions))
    columns = tf.cond(window.mirrored, lambda: tf.reverse(columns, [0]), lambda: columns)
    # A row lies together in memory; so the columns are sampled as rows of the transposed band.
    band = tf.cast(band, tf.float32)
    for at in (columns, rows):
        band = _sampled_rows(tf.transpose(band, [1, 0, 2]), at)
    return band


def _sampled_rows(array: tf.Tensor, at: tf.Tensor) -> tf.Tensor:
    """Returns the rows of [n, m, 3] at the positions `at` (float32, rising or falling), each between its neighbours.

    As products of matrices: a block of the wanted rows needs but a few of the given ones, which are read once.
    """
    (n, m), count = tf.unstack(tf.shape(array)[:2]), tf.size(at)
    blocks = (count + _BLOCK - 1) // _BLOCK
    at = tf.reshape(tf.concat([at, tf.repeat(at[-1:], blocks * _BLOCK - count)], axis=0), [blocks, _BLOCK])
    low, high = tf.floor(tf.reduce_min(at, axis=1)), tf.math.ceil(tf.reduce_max(at, axis=1))
    near = low[:, None] + tf.range(tf.reduce_max(high - low) + 1)
    weights = tf.nn.relu(1 - tf.abs(at[:, :, None] - near[:, None, :]))
    rows = tf.gather(tf.reshape(array, [n, 3 * m]), tf.minimum(tf.cast(near, tf.int32), n - 1))
    # Not the op behind @, whose library (oneDNN) keeps compiled code of each shape and thread: hundreds of MB.
    sampled = tf.raw_ops.BatchMatMulV3(x=weights, y=rows, Tout=tf.float32)
    return tf.reshape(tf.reshape(sampled, [blocks * _BLOCK, 3 * m])[:count], [count, m, 3])


def _needed(window: Window) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the first pixel that the window is interpolated from and the one after the last, int32 [2] each."""
    ratio = _ratio(window.shape, window.size)
    first, last = (tf.cast(at, tf.float32) * ratio for at in (window.offset, window.offset + window.extent - 1))
    last = tf.minimum(tf.cast(tf.math.ceil(last), tf.int32), window.shape - 1)
    return tf.cast(tf.floor(first), tf.int32), last + 1


# ---- padding, cropping, flipping


def pad_to(array: tf.Tensor, size: Sequence[int] | tf.Tensor, value: Sequence[float] | float, *, left=0) -> tf.Tensor:
    """Returns [h, w, c] padded with `value` (a number or one a channel) below, and right but for `left` columns.

    A side that is long enough already stays.
    """
    channels, (height, width) = array.shape[-1], tf.unstack(tf.shape(array)[:2])
    below, beside = (tf.maximum(size[i] - side, 0) for i, side in enumerate((height, width)))

    def padded(pixels, value):  # as a matrix, which the op pads in half the time
        paddings = [[0, below], [channels * left, channels * (beside - left)]]
        flat = tf.pad(tf.reshape(pixels, [height, channels * width]), paddings, constant_values=value)
        return tf.reshape(flat, [height + below, width + beside, channels])

    values = {float(v) for v in np.ravel(value)}
    if len(values) == 1:
        return padded(array, tf.cast(values.pop(), array.dtype))
    value = tf.constant(value, array.dtype)
    return padded(array - value, tf.zeros([], array.dtype)) + value


def pad_to_bounding_box(
    image: tf.Tensor, offset_height: int, offset_width: int, target_height: int, target_width: int, pad_value: float
) -> tf.Tensor:
    """Returns a rank 3 or 4 image placed at an offset in a larger one of `pad_value`, in its own dtype.

    tf.errors.InvalidArgumentError with the release's messages where it does not fit; DeepLabError for another rank.
    """
    image = tf.convert_to_tensor(image)
    if image.shape.rank not in (3, 4):
        raise DeepLabError(f"Wrong image tensor rank: {image.shape.rank}, expected 3 or 4")
    height, width = tf.unstack(tf.shape(image)[-3:-1])
    after_height, after_width = target_height - offset_height - height, target_width - offset_width - width
    fits = "target size not possible with the given target offsets"
    checks = (
        tf.debugging.assert_greater_equal(target_height, height, "target_height must be >= height"),
        tf.debugging.assert_greater_equal(target_width, width, "target_width must be >= width"),
        tf.debugging.assert_non_negative(tf.minimum(after_height, after_width), fits),
    )
    paddings = [[offset_height, after_height], [offset_width, after_width], [0, 0]]
    with tf.control_dependencies([check for check in checks if check is not None]):
        paddings = [[0, 0]] * (image.shape.rank - 3) + paddings
        return tf.pad(image, paddings, constant_values=tf.cast(pad_value, image.dtype))


def random_crop(images: Sequence[tf.Tensor], size: Sequence[int], draws: tf.Tensor) -> list[tf.Tensor]:
    """Returns the same window of all [h, w, c] `images`; two uniform `draws` in [0, 1) place it, both ends included.

    tf.errors.InvalidArgumentError with the release's messages where sizes differ or the window does not fit.
    """
    height, width = tf.unstack(tf.shape(images[0])[:2])
    checks = [tf.debugging.assert_greater_equal((height, width), size, "Crop size greater than the image size.")]
    for image in images[1:]:
        shape = tf.shape(image)
        checks.append(tf.debugging.assert_equal(shape[0], height, "Wrong height for tensor"))
        checks.append(tf.debugging.assert_equal(shape[1], width, "Wrong width for tensor"))
    with tf.control_dependencies([check for check in checks if check is not None]):
        top, left = _below(draws[0], height - size[0] + 1), _below(draws[1], width - size[1] + 1)
    return [image[top : top + size[0], left : left + size[1]] for image in images]


def flip(images: Sequence[tf.Tensor], draw: tf.Tensor, *, probability: float = 0.5, axis: int = 1) -> list[tf.Tensor]:
    """Returns all `images` reversed along `axis` where `draw` <= `probability`, and else as they are.

    tf.reverse, as a slice with a step of -1 takes twelve times as long.
    """
    turned = draw <= probability
    return [
        tf.cond(turned, lambda image=image: tf.reverse(image, [axis]), lambda image=image: image) for image in images
    ]


def fill(array: tf.Tensor, window: Window, crop_size: Sequence[int], value: Sequence[float] | float) -> tf.Tensor:
    """Returns the window [h, w, c] padded to `crop_size`: below, and on the right, or left where it is mirrored."""
    left = tf.where(window.mirrored, crop_size[1] - window.extent[1], 0)
    short = tf.reduce_any(window.extent < crop_size)
    padded = tf.cond(short, lambda: pad_to(array, crop_size, value, left=left), lambda: array)
    return tf.ensure_shape(padded, [*crop_size, array.shape[-1]])
