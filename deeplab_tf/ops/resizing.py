"""Resizing with aligned corners, as the release's: the sizes, the operations on arrays, the layer."""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf


def scale_dimension(size, scale: float):
    """Returns trunc((size - 1) * scale + 1), the release's size arithmetic (core/utils.py).

    Python numbers are computed in float64; int32 tensors in float32, as the release does.
    """
    if isinstance(size, int):
        return int((float(size) - 1.0) * scale + 1.0)
    return tf.cast((tf.cast(size, tf.float32) - 1.0) * tf.constant(scale, tf.float32) + 1.0, tf.int32)


def resize_bilinear(maps, size):
    """Returns [b, h, w, c] `maps` resized with aligned corners by the release's legacy op, in their own dtype."""
    size = tf.convert_to_tensor(size, tf.int32)
    resized = tf.raw_ops.ResizeBilinear(images=maps, size=size, align_corners=True, half_pixel_centers=False)
    return tf.cast(resized, maps.dtype)


def resize_matrix(old: int, new: int) -> np.ndarray:
    """Returns the float32 [new, old] matrix that resizes one side bilinearly with aligned corners."""
    positions = np.arange(new) * ((old - 1) / (new - 1) if new > 1 else 0.0)
    low = np.minimum(positions.astype(int), max(old - 2, 0))
    matrix = np.zeros((new, old), np.float32)
    matrix[np.arange(new), low] = 1.0 - (positions - low)
    if old > 1:
        matrix[np.arange(new), low + 1] = positions - low
    return matrix


def resize_bilinear_by_matrix(maps, size: Sequence[int]):
    """Returns what `resize_bilinear` does, for static sizes, by two matrix products.

    For XLA, whose own bilinear resize is wrong for some pairs of sizes (a row or a column by the whole range of the
    data, seen on CPU); about three times the op's cost elsewhere.
    """
    rows, columns = (resize_matrix(maps.shape[i + 1], size[i]) for i in range(2))
    tall = tf.einsum("oh,bhwc->bowc", rows, tf.cast(maps, tf.float32))
    return tf.cast(tf.einsum("pw,bowc->bopc", columns, tall), maps.dtype)


def resize_nearest(labels, size):
    """Returns integer [b, h, w] `labels` resized to the nearest pixel with aligned corners (halves go up)."""
    size = tf.convert_to_tensor(size, tf.int32)
    return tf.raw_ops.ResizeNearestNeighbor(images=labels[..., None], size=size, align_corners=True)[..., 0]


@keras.saving.register_keras_serializable(package="deeplab_tf")
class ResizeBilinear(keras.layers.Layer):
    """Bilinear resize with aligned corners (the release's legacy op) of [b, h, w, c] maps.

    Either `size` = (height, width) is fixed, or the layer is called with [maps, reference] and the target is
    scale_dimension of the reference's height and width by `scale`. With `by_matrix` (training
    under XLA) all sizes are static.
    """

    by_matrix = False

    def __init__(self, size: Sequence[int] | None = None, scale: float = 1.0, **kwargs):
        super().__init__(**kwargs)
        self.size = tuple(size) if size else None
        self.scale = scale

    def call(self, inputs):
        maps, reference = (inputs, None) if self.size else inputs
        if self.by_matrix:
            size = self.size or [scale_dimension(d, self.scale) for d in reference.shape[1:3]]
            return resize_bilinear_by_matrix(maps, size)
        target = self.size
        if target is None:
            target = tf.shape(reference)[1:3]
            target = target if self.scale == 1.0 else scale_dimension(target, self.scale)
        return resize_bilinear(maps, target)

    def compute_output_shape(self, input_shape):
        if self.size:
            return (input_shape[0], *self.size, input_shape[-1])
        maps, reference = input_shape
        sides = [None if d is None else scale_dimension(d, self.scale) for d in reference[1:3]]
        return (maps[0], *sides, maps[-1])

    def get_config(self):
        return {**super().get_config(), "size": self.size, "scale": self.scale}
