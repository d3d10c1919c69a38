"""Windows: the part of a resized picture that a random scale, crop and flip keep, without computing the rest."""

from collections.abc import Sequence
from typing import NamedTuple, cast

import tensorflow as tf

from deeplab_tf.data.transforms import (
    index_below,
    nearest_indices,
    pad_to,
    resize_image,
    sample_positions,
    sample_ratio,
    scaled_size,
)

# One fast op resizes the whole picture, unless the result has this many times the pixels of the window that is kept.
_WASTE = 2.1


_BLOCK = 19  # rows that are sampled together; 513 is a multiple of it


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
        return sample_positions(self.shape, self.size, self.offset, self.extent)

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
    offset = index_below(draws[:2], size - extent + 1)
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
    rows, columns = nearest_indices(window.shape, window.positions)
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
    ratio = sample_ratio(window.shape, window.size)
    first = tf.cast(window.offset, tf.float32) * ratio
    last = tf.cast(window.offset + window.extent - 1, tf.float32) * ratio
    last = tf.minimum(tf.cast(tf.math.ceil(last), tf.int32), window.shape - 1)
    return tf.cast(tf.floor(first), tf.int32), last + 1


def fill(array: tf.Tensor, window: Window, crop_size: Sequence[int], value: Sequence[float] | float) -> tf.Tensor:
    """Returns the window [h, w, c] padded to `crop_size`: below, and on the right, or on the left if it is mirrored."""
    left = tf.where(window.mirrored, crop_size[1] - window.extent[1], 0)
    short = tf.reduce_any(window.extent < crop_size)
    padded = tf.cond(short, lambda: pad_to(array, crop_size, value, left=left), lambda: array)
    return tf.ensure_shape(padded, [*crop_size, array.shape[-1]])
