"""Layers that give the very numbers that LiteRT gives for a file of eight bits: its integer arithmetic, in float32.

Maps stay what the file's integers stand for, multiples of a step. A layer divides by the steps that it has from the
file, and calculates with the integers: float32 holds those up to 2**24 exactly, more than the sums of a network reach.
The rules are those of XNNPACK, which LiteRT runs by default. They matter to the last bit: a sum that is rounded the
other way moves the sums behind it, and in the end a part of the pixels. Nothing here is trained.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import keras
import tensorflow as tf

from deeplab_tf.network.carrier import Carrier

_register = keras.saving.register_keras_serializable(package="deeplab_tf")

Numbers = Mapping[str, tf.Tensor]

_LEVELS = 255.0
_HALF = 0.5
# Float32 may leave this much less of a half, which is to be rounded up. What is no half lies farther below it: means of
# up to 8192 values, and maps that were resized by a power of 2 up to 64.
_SLACK = 2.0**-14
# Factors of 21 bits times values of 9 are more than float32 holds: they are multiplied in two parts.
_PART = 2048.0


def whole(values: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
    """Returns the integers that multiples of `step` are, float32; the step is one, or one a channel."""
    return tf.round(values / step)


def _within(levels: tf.Tensor, numbers: Numbers) -> tf.Tensor:
    """Returns the multiples of the output's step that `levels` are, those beyond its range at its ends."""
    step = numbers["output_step"]
    lowest = whole(numbers["min"], step)
    return tf.clip_by_value(levels, lowest, lowest + _LEVELS) * step


class LiteLayer(keras.layers.Layer):
    """A layer whose weights are numbers of the file: `shapes` lists them.

    `calculate` gives the output by the inputs and these numbers, which a graph of constants has at hand.
    """

    calculate: ClassVar[Callable[[Any, Numbers], tf.Tensor]]

    def shapes(self, input_shape: Any) -> dict[str, tuple[int, ...]]:
        """Returns name -> shape of the numbers of a layer with these inputs."""
        del input_shape
        return {"min": (), "output_step": ()}

    def build(self, input_shape: Any) -> None:
        """Makes the numbers."""
        for name, shape in self.shapes(input_shape).items():
            self.add_weight(name=name, shape=shape, initializer="ones", trainable=False)
        self.built = True

    def call(self, inputs: Any) -> tf.Tensor:
        """Returns maps [b, h, w, c] of multiples of the output's step."""
        return type(self).calculate(
            inputs, {variable.name: tf.convert_to_tensor(variable) for variable in self.weights}
        )

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the shape of the input."""
        return input_shape


@_register
class InputLevels(Carrier, LiteLayer):
    """Gives each value of a pixel that the file gives it before its first convolution: `levels`.

    A file's levels are not quite the network's scale: MobileNetV2's read (x - 128) / 128 where training had
    x * 2 / 255 - 1, and what a converter wrote scales pixels in eight bits too.
    """

    def shapes(self, input_shape: Any) -> dict[str, tuple[int, ...]]:
        """Returns the shape of the values."""
        return {"levels": (256, int(input_shape[-1]))}

    @staticmethod
    def calculate(inputs: tf.Tensor, numbers: Numbers) -> tf.Tensor:
        """Returns the values for images of 0..255, rounded: halves down, as a cast of the padding does."""
        levels = numbers["levels"]
        channels: Any = inputs.shape[-1]
        pixels = tf.cast(tf.clip_by_value(tf.math.ceil(inputs - _HALF), 0.0, _LEVELS), tf.int32)
        return tf.gather(tf.reshape(levels, [-1]), pixels * channels + tf.range(channels))


@_register
class LiteRound(LiteLayer):
    """Rounds maps that were resized or averaged: halves up."""

    @staticmethod
    def calculate(inputs: tf.Tensor, numbers: Numbers) -> tf.Tensor:
        """Returns the rounded maps."""
        return _within(tf.floor(inputs / numbers["output_step"] + (_HALF + _SLACK)), numbers)


@_register
class LiteRequantize(LiteLayer):
    """Rounds the maps of a convolution, whose sums are multiples of its two steps' product: halves to even."""

    def shapes(self, input_shape: Any) -> dict[str, tuple[int, ...]]:
        """Returns the shapes of the numbers: a product for each channel."""
        return {**super().shapes(input_shape), "product_step": (int(input_shape[-1]),)}

    @staticmethod
    def calculate(inputs: tf.Tensor, numbers: Numbers) -> tf.Tensor:
        """Returns the rounded maps."""
        product = numbers["product_step"]
        return _within(tf.round(whole(inputs, product) * (product / numbers["output_step"])), numbers)


@_register
class LiteAdd(LiteLayer):
    """Adds two maps: each times a factor of 21 bits, `factors[0]` and `factors[1]`, and over a power of 2, the third.

    Their steps are `input_steps`. Halves are rounded up.
    """

    def shapes(self, input_shape: Any) -> dict[str, tuple[int, ...]]:
        """Returns the shapes of the numbers."""
        return {**super().shapes(input_shape), "input_steps": (2,), "factors": (3,)}

    @staticmethod
    def calculate(inputs: Sequence[tf.Tensor], numbers: Numbers) -> tf.Tensor:
        """Returns the rounded sum of the two."""
        factors, power = numbers["factors"][:2], numbers["factors"][2]
        high = tf.floor(factors / _PART)
        low = factors - high * _PART
        steps = numbers["input_steps"]
        parts = [whole(part, steps[number]) for number, part in enumerate(inputs)]
        below = parts[0] * low[0] + parts[1] * low[1] + power * _HALF
        above = parts[0] * high[0] + parts[1] * high[1] + tf.floor(below / _PART)
        return _within(tf.floor(above / (power / _PART)), numbers)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the shape of either input."""
        return input_shape[0]


@_register
class LiteConcatenate(LiteLayer):
    """Concatenates maps, each rounded to the step of all; `ratios` are what rounding the factor for that changes."""

    def shapes(self, input_shape: Any) -> dict[str, tuple[int, ...]]:
        """Returns the shapes of the numbers: a ratio for each input."""
        return {**super().shapes(input_shape), "ratios": (len(input_shape),)}

    @staticmethod
    def calculate(inputs: Sequence[tf.Tensor], numbers: Numbers) -> tf.Tensor:
        """Returns the rounded maps, one behind the other."""
        parts = [part * numbers["ratios"][number] for number, part in enumerate(inputs)]
        return _within(tf.floor(tf.concat(parts, -1) / numbers["output_step"] + (_HALF + _SLACK)), numbers)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the shape of the first input, with the channels of all."""
        return (*input_shape[0][:-1], sum(shape[-1] for shape in input_shape))


class _LiteConvolution(keras.layers.Layer):
    """What the convolutions share: the steps of input and kernel, that of the kernel for each channel of the output."""

    def _make_steps(self, channels: int) -> None:
        options: dict[str, Any] = {"initializer": "ones", "trainable": False}
        self.input_step = self.add_weight(name="input_step", shape=(), **options)
        self.kernel_step = self.add_weight(name="kernel_step", shape=(channels,), **options)

    # Keras's convolutions save their kernel and bias alone.
    def save_own_variables(self, store: Any) -> None:
        """Writes all variables; Keras calls it."""
        keras.layers.Layer.save_own_variables(self, store)

    def load_own_variables(self, store: Any) -> None:
        """Reads all variables; Keras calls it."""
        keras.layers.Layer.load_own_variables(self, store)


@_register
class LiteConv2D(_LiteConvolution, keras.layers.Conv2D):
    """A convolution of integers: its output is multiples of the product of both steps."""

    def build(self, input_shape: Any) -> None:
        """Makes kernel, bias and steps."""
        super().build(input_shape)
        self._make_steps(self.filters)

    def convolution_op(self, inputs: tf.Tensor, kernel: Any) -> tf.Tensor:
        """Returns the maps convolved by `kernel`; Keras's layer calls it."""
        step, by = tf.convert_to_tensor(self.input_step), tf.convert_to_tensor(self.kernel_step)
        sums = super().convolution_op(whole(inputs, step), whole(tf.convert_to_tensor(kernel), by))
        return sums * (step * by)


@_register
class LiteDepthwiseConv2D(_LiteConvolution, keras.layers.DepthwiseConv2D):
    """A depthwise convolution of integers, without bias: its output is multiples of the product of both steps."""

    def build(self, input_shape: Any) -> None:
        """Makes kernel and steps."""
        super().build(input_shape)
        self._make_steps(int(input_shape[-1]))

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the maps [b, h, w, c] convolved."""
        step, by = tf.convert_to_tensor(self.input_step), tf.convert_to_tensor(self.kernel_step)
        sums = keras.ops.depthwise_conv(
            whole(inputs, step),
            whole(tf.convert_to_tensor(self.kernel), by[:, None]),
            strides=self.strides,
            padding=self.padding,
            dilation_rate=self.dilation_rate,
        )
        return sums * (step * by)


# What stands for a layer in a network that rounds as its file.
LITE: dict[type, type[keras.layers.Layer]] = {
    keras.layers.Conv2D: LiteConv2D,
    keras.layers.DepthwiseConv2D: LiteDepthwiseConv2D,
}
# The names of the numbers, which are those of variables of these layers and of files.
NUMBERS = ("levels", "output_step", "product_step", "input_steps", "factors", "ratios", "input_step", "kernel_step")
