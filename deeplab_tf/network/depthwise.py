"""Depthwise convolutions in a step that XLA compiles (`kernel_gradient_by_sums`)."""

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf

from deeplab_tf.ops.depthwise import depthwise_conv


def convolved_by_sums(layer: keras.layers.DepthwiseConv2D, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Returns the maps [b, h, w, c] convolved as `layer`, without bias, says; the gradient of `kernel` is a sum."""
    return depthwise_conv(inputs, kernel, strides=layer.strides, padding=layer.padding, rate=layer.dilation_rate)


@contextlib.contextmanager
def kernel_gradient_by_sums(layer: keras.layers.DepthwiseConv2D) -> Iterator[None]:
    """Has the gradient of the kernel of `layer`, one without bias, be calculated as a sum while a step is traced."""

    def call(inputs: tf.Tensor) -> tf.Tensor:
        return convolved_by_sums(layer, inputs, tf.convert_to_tensor(layer.kernel))

    layer.call = call  # Keras calls it in place of the one of the class
    try:
        yield
    finally:
        del layer.call
