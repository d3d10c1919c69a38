"""Layers for quantised training (release: --quantize_delay_step): they calculate with what eight bits can hold.

Gradients pass straight through the rounding (arXiv 1712.05877, section 3). A kernel has a scale for each output
channel, as LiteRT's have. A batch norm multiplies each of these channels by one number: a kernel that is rounded and
then has the norm folded in is the folded kernel rounded. So norms stay layers of their own, with any statistics,
and what is trained is what is exported.
"""

import contextlib
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from deeplab_tf.config import TrainConfig
from deeplab_tf.network.depthwise import convolved_by_sums
from deeplab_tf.network.normalisation import StandardizedConv2D
from deeplab_tf.network.stepped import StepBatch, Stepped, replaced
from deeplab_tf.ops.normalisation import standardized

_register = keras.saving.register_keras_serializable(package="deeplab_tf")

_LEVELS = 127  # of a kernel, on either side of 0
_FIRST_RANGE = 6.0  # TensorFlow 1's, on either side of 0, until the first batch
_DECAY = 0.999  # TensorFlow 1's
# No tensor of the int8 file may have a range of nothing.
_LEAST_RANGE = 1e-6


def rounded(kernel: tf.Tensor | np.ndarray, *, depthwise: bool) -> tf.Tensor:
    """Returns a kernel [kh, kw, cin, cout], depthwise [kh, kw, c, 1], as eight bits hold it.

    That is in multiples of its largest magnitude in each output channel over 127. The gradient is the kernel's own.
    """
    kernel = tf.convert_to_tensor(kernel)
    step = tf.reduce_max(tf.abs(kernel), (0, 1) if depthwise else (0, 1, 2), keepdims=True) / _LEVELS
    return kernel + tf.stop_gradient(tf.round(tf.math.divide_no_nan(kernel, step)) * step - kernel)


class _FakeQuantised(Stepped):
    """What the layers of quantised training share.

    In a training step `started`, a bool scalar, may say whether rounding has begun; otherwise it has.
    """

    started: tf.Tensor | None = None

    def for_step(self, config: TrainConfig, seed: int) -> contextlib.AbstractContextManager[None]:
        """Returns a context after which rounding has begun."""
        del config, seed
        return replaced(self, started=None)

    def begin_batch(self, batch: StepBatch) -> None:
        """Rounds from quantize_delay_step on."""
        delay = batch.quantize_delay_step
        self.started = batch.step >= delay if delay else None

    def _once_started(self, exact: tf.Tensor, quantised: tf.Tensor) -> tf.Tensor:
        return quantised if self.started is None else tf.where(self.started, quantised, exact)


# Files of weights know the two layers by these names.
@_register
class HeldConv2D(_FakeQuantised, keras.layers.Conv2D):
    """A convolution by its rounded kernel."""

    def convolution_op(self, inputs: tf.Tensor, kernel: Any) -> tf.Tensor:
        """Returns the maps convolved by the rounded `kernel`; Keras's layer calls it."""
        return super().convolution_op(inputs, self._once_started(kernel, rounded(kernel, depthwise=False)))


@_register
class HeldDepthwiseConv2D(_FakeQuantised, keras.layers.DepthwiseConv2D):
    """A depthwise convolution, without bias, by its rounded kernel."""

    by_sums = False

    def for_step(self, config: TrainConfig, seed: int) -> contextlib.AbstractContextManager[None]:
        """Returns a context after which rounding has begun; where XLA compiles the step, gradients are sums."""
        del seed
        return replaced(self, started=None, by_sums=config.jit_compile == "true")

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the maps [b, h, w, c] convolved by the rounded kernel."""
        exact = tf.convert_to_tensor(self.kernel)
        kernel = self._once_started(exact, rounded(exact, depthwise=True))
        if self.by_sums:
            return convolved_by_sums(self, inputs, kernel)
        return keras.ops.depthwise_conv(
            inputs,
            kernel,
            strides=self.strides,
            padding=self.padding,
            dilation_rate=self.dilation_rate,
        )


# What stands for a layer in quantised training.
FAKE_QUANTISED = {keras.layers.Conv2D: HeldConv2D, keras.layers.DepthwiseConv2D: HeldDepthwiseConv2D}


@_register
class FakeQuantize(_FakeQuantised, keras.layers.Layer):
    """Rounds maps to 256 values from `min` to `max`, one of them 0 (TensorFlow's fake_quant_with_min_max_vars).

    In a training step `batches` is the number of those seen before this one. The range then
    follows the least and the largest value of each: their mean over all batches so far, and from a thousand on a moving
    average, so that the first range counts for nothing (TensorFlow 1: MovingAvgQuantize).
    """

    batches: tf.Tensor | None = None

    def for_step(self, config: TrainConfig, seed: int) -> contextlib.AbstractContextManager[None]:
        """Returns a context after which rounding has begun and the range stays."""
        del config, seed
        return replaced(self, started=None, batches=None)

    def begin_batch(self, batch: StepBatch) -> None:
        """Follows one more batch."""
        super().begin_batch(batch)
        self.batches = batch.number

    def build(self, input_shape: Any) -> None:
        """Makes the two ends of the range."""
        del input_shape
        for name, value in (("min", -_FIRST_RANGE), ("max", _FIRST_RANGE)):
            start = keras.initializers.Constant(value)
            setattr(self, name, self.add_weight(name=name, shape=(), initializer=start, trainable=False))
        self.built = True

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Returns the rounded maps [b, h, w, c]; in training the range follows them first."""
        if training and self.batches is not None:
            self._follow(inputs, self.batches)
        low, high = tf.convert_to_tensor(self.min), tf.convert_to_tensor(self.max)
        return self._once_started(inputs, tf.quantization.fake_quant_with_min_max_vars(inputs, low, high))

    def _follow(self, inputs: tf.Tensor, batches: tf.Tensor):
        seen = [tf.minimum(tf.reduce_min(inputs), 0.0), tf.maximum(tf.reduce_max(inputs), 0.0)]
        number = tf.cast(batches, tf.float32)
        decay = tf.minimum(number / (number + 1.0), _DECAY)
        for variable, value in zip((self.min, self.max), seen, strict=True):
            variable.assign(variable * decay + tf.stop_gradient(value) * (1.0 - decay))

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the shape of the input."""
        return input_shape


def weights_as_used(layer: keras.layers.Layer) -> dict[str, np.ndarray]:
    """Returns variable name -> array of a layer's weights, as it calculates with them: rounded, or standardised.

    The arrays share the memory of the variables and cannot be written to; variables that change later get other memory.
    """
    values = {}
    for variable in layer.weights:
        tensor: Any = tf.convert_to_tensor(variable)  # which has the buffer that memoryview takes
        values[variable.name] = np.asarray(memoryview(tensor))
    if isinstance(layer, tuple(FAKE_QUANTISED.values())):
        depthwise = isinstance(layer, HeldDepthwiseConv2D)
        values["kernel"] = rounded(values["kernel"], depthwise=depthwise).numpy()
    if isinstance(layer, StandardizedConv2D):
        values["kernel"] = standardized(values["kernel"]).numpy()
    return values


def fake_quantized(maps: tf.Tensor, low: float, high: float) -> tf.Tensor:
    """Returns `maps` as `FakeQuantize` of this range gives them, for a graph of constants."""
    high = max(float(high), float(low) + _LEAST_RANGE)
    return tf.quantization.fake_quant_with_min_max_args(maps, float(low), high)
