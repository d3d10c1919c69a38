"""Layers of ResNets that train without batch norm: group norm and weight-standardised convolutions."""

from typing import Any

import keras
import tensorflow as tf

from deeplab_tf.errors import DeepLabError
from deeplab_tf.ops.normalisation import group_normalized, standardized

_register = keras.saving.register_keras_serializable(package="deeplab_tf")


@_register
class StandardizedConv2D(keras.layers.Conv2D):
    """A convolution by its standardised kernel (release: core/conv2d_ws.py); the L2 term is of the kernel itself."""

    def convolution_op(self, inputs: tf.Tensor, kernel: Any) -> tf.Tensor:
        """Returns the maps convolved by the standardised `kernel`; Keras's layer calls it."""
        return super().convolution_op(inputs, standardized(kernel))


@_register
class GroupNormalization(keras.layers.Layer):
    """Group norm as slim's, whose epsilon is 1e-6 and whose statistics are always those of the maps themselves."""

    def __init__(self, groups: int = 32, epsilon: float = 1e-6, **kwargs: Any):
        super().__init__(**kwargs)
        self.groups = groups
        self.epsilon = epsilon

    def build(self, input_shape: Any) -> None:
        """Makes gamma and beta; DeepLabError where the groups do not divide the channels."""
        channels = input_shape[-1]
        if channels % self.groups:
            raise DeepLabError(
                f"group_norm_groups={self.groups}: {self.name.replace('.', '/')} has {channels} channels; expected a "
                "number that divides them"
            )
        self.gamma = self.add_weight(name="gamma", shape=(channels,), initializer="ones")
        self.beta = self.add_weight(name="beta", shape=(channels,), initializer="zeros")
        self.built = True

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the normalised maps [b, h, w, c]."""
        gamma, beta = (tf.cast(tf.convert_to_tensor(value), tf.float32) for value in (self.gamma, self.beta))
        return group_normalized(inputs, gamma, beta, groups=self.groups, epsilon=self.epsilon)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the shape of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {**super().get_config(), "groups": self.groups, "epsilon": self.epsilon}
