"""Normalisation without the statistics of a batch: of maps in groups of channels, and of the kernels themselves."""

import numpy as np
import tensorflow as tf

STANDARDIZED_EPSILON = 1e-5  # the release's, added to the variance of a kernel (core/conv2d_ws.py)


def standardized(kernel: tf.Tensor | np.ndarray) -> tf.Tensor:
    """Returns a kernel [kh, kw, cin, cout] with mean 0 and variance 1 in each output channel (release: conv2d_ws.py).

    The variance is the biased one, to which 1e-5 is added.
    """
    kernel = tf.convert_to_tensor(kernel)
    mean = tf.reduce_mean(kernel, (0, 1, 2), keepdims=True)
    variance = tf.reduce_mean(tf.math.squared_difference(kernel, mean), (0, 1, 2), keepdims=True)
    return (kernel - mean) * tf.math.rsqrt(variance + STANDARDIZED_EPSILON)


def group_normalized(maps: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, *, groups: int, epsilon: float) -> tf.Tensor:
    """Returns maps normalised over height, width and the channels of each group (arXiv 1803.08494; slim's group_norm).

    Groups are of neighbouring channels. Moments are of each channel first and then of the group, so that no tensor has
    more than four dimensions, which exported files pay for.

    Args:
      maps: float [b, h, w, c].
      gamma: scale, float32 [c].
      beta: offset, float32 [c].
      groups: their number, which divides c.
      epsilon: added to the variance.
    """
    values = tf.cast(maps, tf.float32)
    mean = _over_groups(tf.reduce_mean(values, (1, 2)), groups)
    variance = _over_groups(tf.reduce_mean(tf.math.squared_difference(values, mean), (1, 2)), groups)
    gain = tf.math.rsqrt(variance + epsilon) * gamma
    return tf.cast(values * gain + (beta - mean * gain), maps.dtype)


def _over_groups(means: tf.Tensor, groups: int) -> tf.Tensor:
    """Returns the means [b, c] of channels as those of their groups, [b, 1, 1, c]."""
    channels = means.shape[-1]
    assert channels is not None
    size = channels // groups
    of_groups = tf.reduce_mean(tf.reshape(means, (-1, groups, size)), 2, keepdims=True)
    return tf.reshape(of_groups * tf.ones((1, 1, size), means.dtype), (-1, 1, 1, channels))
