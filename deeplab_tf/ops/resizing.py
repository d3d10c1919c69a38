"""Resizing with aligned corners, as in the release: the arithmetic of sizes and the operations on arrays."""

from collections.abc import Sequence
from typing import cast, overload

import numpy as np
import tensorflow as tf


def static_dimensions(tensor: tf.Tensor, *axes: int) -> tuple[int, ...]:
    """Returns the sizes of `tensor` along `axes`, which must be known when a graph is traced.

    Raises:
      ValueError: one of them is not known.
    """
    sizes = tuple(size for axis in axes if (size := tensor.shape[axis]) is not None)
    if len(sizes) < len(axes):
        raise ValueError(f"a tensor of shape {tensor.shape}: expected known sizes of its axes {axes}")
    return sizes


@overload
def scale_dimension(size: int, scale: float) -> int: ...
@overload
def scale_dimension(size: tf.Tensor, scale: float) -> tf.Tensor: ...
def scale_dimension(size: int | tf.Tensor, scale: float) -> int | tf.Tensor:
    """Returns trunc((size - 1) * scale + 1), the release's size arithmetic (core/utils.py).

    Python numbers are computed in float64; int32 tensors in float32, as the release does.
    """
    if isinstance(size, int):
        return int((float(size) - 1.0) * scale + 1.0)
    return tf.cast((tf.cast(size, tf.float32) - 1.0) * tf.constant(scale, tf.float32) + 1.0, tf.int32)


def legacy_bilinear(maps: tf.Tensor | np.ndarray, size: Sequence[int] | tf.Tensor) -> tf.Tensor:
    """Returns `maps` [b, h, w, c] of any type of number resized to `size` (height, width), as float32.

    Corners are aligned: it is the release's operation, tf.compat.v1.image.resize_bilinear.
    """
    size = tf.convert_to_tensor(size, tf.int32)
    return tf.raw_ops.ResizeBilinear(images=maps, size=size, align_corners=True, half_pixel_centers=False)


def resize_bilinear(maps: tf.Tensor | np.ndarray, size: Sequence[int] | tf.Tensor) -> tf.Tensor:
    """Returns `legacy_bilinear` of `maps` in their own dtype."""
    return tf.cast(legacy_bilinear(maps, size), maps.dtype)


def with_edges(maps: tf.Tensor | np.ndarray) -> tf.Tensor:
    """Returns `maps` [b, h, w, c] with the last row and the last column once more.

    Resized with aligned corners to one pixel more than is wanted, and cut to that, they are what TensorFlow's resize
    gives without aligned corners (align_corners=False, half_pixel_centers=False).
    """
    maps = tf.concat([maps, maps[:, -1:]], axis=1)
    return tf.concat([maps, maps[:, :, -1:]], axis=2)


def resize_unaligned(maps: tf.Tensor | np.ndarray, size: Sequence[int] | tf.Tensor) -> tf.Tensor:
    """Returns `maps` [b, h, w, c] resized bilinearly to `size` without aligned corners."""
    height, width = size[0], size[1]
    more = cast("Sequence[int]", (height + 1, width + 1))
    return resize_bilinear(with_edges(maps), more)[:, :height, :width]


def resize_matrix(old: int, new: int) -> np.ndarray:
    """Returns the float32 [new, old] matrix that resizes one side bilinearly with aligned corners."""
    positions = np.arange(new) * ((old - 1) / (new - 1) if new > 1 else 0.0)
    low = np.minimum(positions.astype(int), max(old - 2, 0))
    matrix = np.zeros((new, old), np.float32)
    matrix[np.arange(new), low] = 1.0 - (positions - low)
    if old > 1:
        matrix[np.arange(new), low + 1] = positions - low
    return matrix


def resize_bilinear_by_matrix(maps: tf.Tensor, size: Sequence[int]) -> tf.Tensor:
    """Returns `maps` [b, h, w, c] of static size resized as by `resize_bilinear`, by two matrix products.

    It is for XLA, whose own bilinear resize is wrong for some pairs of sizes (a row or a column by the whole range of
    the data, seen on CPU); elsewhere it costs about three times as much as the operation.
    """
    height, width = static_dimensions(maps, 1, 2)
    rows = resize_matrix(height, size[0])
    columns = resize_matrix(width, size[1])
    tall = tf.einsum("oh,bhwc->bowc", rows, tf.cast(maps, tf.float32))
    return tf.cast(tf.einsum("pw,bowc->bopc", columns, tall), maps.dtype)


def resize_nearest(labels: tf.Tensor, size: Sequence[int] | tf.Tensor) -> tf.Tensor:
    """Returns integer `labels` [b, h, w] resized to the nearest pixel with aligned corners (halves go up)."""
    size = tf.convert_to_tensor(size, tf.int32)
    return tf.raw_ops.ResizeNearestNeighbor(images=tf.expand_dims(labels, -1), size=size, align_corners=True)[..., 0]
