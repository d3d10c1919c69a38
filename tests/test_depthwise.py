"""The depthwise convolution whose kernel's gradient is a sum."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from deeplab_tf.config import TrainConfig
from deeplab_tf.network.fake_quantization import HeldDepthwiseConv2D
from deeplab_tf.network.stepped import as_trained
from deeplab_tf.ops.depthwise import depthwise_conv

CASES = [  # height, width, kernel, strides, padding, rate
    ((9, 7), (3, 3), (1, 1), "same", (1, 1)),
    ((9, 8), (3, 3), (2, 2), "same", (1, 1)),
    ((8, 8), (5, 5), (2, 2), "same", (1, 1)),
    ((8, 9), (3, 3), (2, 2), "valid", (1, 1)),
    ((9, 9), (3, 3), (1, 1), "same", (2, 2)),
    ((5, 6), (3, 3), (1, 1), "same", (6, 6)),
    ((11, 9), (4, 2), (1, 1), "same", (1, 1)),
    ((11, 12), (3, 3), (1, 1), "valid", (2, 3)),
    ((1, 1), (3, 3), (1, 1), "same", (1, 1)),
]


def gradients(convolve, maps, kernel, compiled: bool):
    """Returns outputs, and the gradients of maps and kernel, for an upstream that differs from place to place."""

    def run(maps, kernel):
        with tf.GradientTape() as tape:
            tape.watch([maps, kernel])
            outputs = convolve(maps, kernel)
            weights = tf.sin(tf.reshape(tf.range(tf.size(outputs), dtype=tf.float32), tf.shape(outputs)))
            value = tf.reduce_sum(tf.cast(outputs, tf.float32) * weights)
        return outputs, *tape.gradient(value, [maps, kernel])

    return [tf.cast(part, tf.float32).numpy() for part in tf.function(run, jit_compile=compiled)(maps, kernel)]


@pytest.mark.parametrize(("size", "kernel_size", "strides", "padding", "rate"), CASES)
@pytest.mark.parametrize("compiled", [False, True])
def test_it_is_tensorflows(size, kernel_size, strides, padding, rate, compiled):
    random = np.random.default_rng(0)
    maps = tf.constant(random.normal(size=(2, *size, 3)), tf.float32)
    kernel = tf.constant(random.normal(size=(*kernel_size, 3, 1)), tf.float32)

    def ours(maps, kernel):
        return depthwise_conv(maps, kernel, strides=strides, padding=padding, rate=rate)

    def theirs(maps, kernel):
        return tf.nn.depthwise_conv2d(maps, kernel, (1, *strides, 1), padding.upper(), dilations=list(rate))

    found = gradients(ours, maps, kernel, compiled)
    expected = gradients(theirs, maps, kernel, compiled)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])
    np.testing.assert_allclose(found[2], expected[2], rtol=1e-5, atol=1e-5)


def test_sums_of_bfloat16_are_float32s():
    """A sum in bfloat16 would stand still at 256."""
    ones = tf.ones((1, 40, 40, 1), tf.bfloat16)
    kernel = tf.ones((1, 1, 1, 1), tf.bfloat16)
    with tf.GradientTape() as tape:
        tape.watch(kernel)
        outputs = depthwise_conv(ones, kernel, strides=(1, 1), padding="same", rate=(1, 1))
    gradient = tape.gradient(outputs, kernel)
    assert gradient.dtype == tf.bfloat16
    assert gradient.numpy().item() == 1600


def gradient_of_a_kernel_is_a_convolution(layer: keras.layers.Layer, config: TrainConfig) -> bool:
    """Returns whether XLA is given a convolution for it in a step."""
    model = keras.Sequential([keras.Input((9, 9, 4)), layer])

    @tf.function(jit_compile=True, autograph=False)
    def gradient(maps):
        with tf.GradientTape() as tape:
            value = tf.reduce_sum(model(maps) ** 2)
        return tape.gradient(value, layer.kernel.value)

    with as_trained(model, config):
        text = str(gradient.experimental_get_compiler_ir(tf.ones((1, 9, 9, 4)))(stage="hlo"))
    assert "convolution" in text  # the forward pass has one
    return "batch_group_count" in text


@pytest.mark.parametrize("kind", [keras.layers.DepthwiseConv2D, HeldDepthwiseConv2D])
def test_a_step_of_xla_has_no_convolution_for_it(kind):
    layer = kind(3, padding="same", use_bias=False)
    config = TrainConfig(jit_compile="true")
    assert not gradient_of_a_kernel_is_a_convolution(layer, config)
    assert gradient_of_a_kernel_is_a_convolution(layer, dataclasses.replace(config, jit_compile="false"))
    assert "call" not in vars(layer)
