"""Depthwise convolution for XLA: the gradient of its kernel is a sum of products, not a convolution."""

import itertools
from collections.abc import Callable
from typing import cast

import tensorflow as tf

from deeplab_tf.ops.resizing import static_dimensions


def depthwise_conv(
    maps: tf.Tensor, kernel: tf.Tensor, *, strides: tuple[int, int], padding: str, rate: tuple[int, int]
) -> tf.Tensor:
    """Returns a depthwise convolution [b, oh, ow, c] whose kernel's gradient is the sum over all places of products.

    It is that gradient by definition: the upstream's value times the one of `maps` that each of the kernel's weights
    meets there, added in float32. As a convolution it is the slowest part of a step on GPUs, see
    docs/accelerators.md. All else is tf.nn.depthwise_conv2d's to the bit.

    Args:
      maps: float [b, h, w, c] of any float type; the sizes h and w are static.
      kernel: [kh, kw, c, 1] of the same type.
      strides: down and across.
      padding: "valid" or "same".
      rate: of dilation, down and across; 1 where there is a stride.
    """

    @tf.custom_gradient
    def with_gradient(
        outputs: tf.Tensor, maps: tf.Tensor, kernel: tf.Tensor
    ) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, None, tf.Tensor]]]:
        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, None, tf.Tensor]:
            sums = _sums_of_products(maps, upstream, static_dimensions(kernel, 0, 1), strides, padding, rate)
            return upstream, None, tf.cast(sums, kernel.dtype)

        return outputs, gradient

    outputs = tf.nn.depthwise_conv2d(
        maps, tf.stop_gradient(kernel), (1, *strides, 1), padding.upper(), dilations=list(rate)
    )
    return cast(tf.Tensor, with_gradient(outputs, tf.stop_gradient(maps), kernel))


def _sums_of_products(
    maps: tf.Tensor,
    upstream: tf.Tensor,
    size: tuple[int, ...],
    strides: tuple[int, int],
    padding: str,
    rate: tuple[int, int],
) -> tf.Tensor:
    """Returns the gradient of a kernel of this size, float32 [kh, kw, c, 1]."""
    reaches = [
        (places - 1) * stride + 1 for places, stride in zip(static_dimensions(upstream, 1, 2), strides, strict=True)
    ]
    if padding == "same":
        margins = [
            max(reach + (weights - 1) * step - side, 0)
            for reach, weights, step, side in zip(reaches, size, rate, static_dimensions(maps, 1, 2), strict=True)
        ]
        maps = tf.pad(maps, [(0, 0), *((margin // 2, margin - margin // 2) for margin in margins), (0, 0)])
    upstream = tf.cast(upstream, tf.float32)
    sums = []
    for down, across in itertools.product(*map(range, size)):
        top, left = down * rate[0], across * rate[1]
        met = maps[:, top : top + reaches[0] : strides[0], left : left + reaches[1] : strides[1]]
        sums.append(tf.reduce_sum(tf.cast(met, tf.float32) * upstream, (0, 1, 2)))
    return tf.reshape(tf.stack(sums), (*size, -1, 1))
