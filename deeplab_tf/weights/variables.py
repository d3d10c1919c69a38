"""`variable_map`: the TF1 name of every variable of a Keras model; a table keyed by layer type gives the leaves."""

import keras

from deeplab_tf.errors import DeepLabError
from deeplab_tf.network.fake_quantization import FAKE_QUANTISED, FakeQuantize
from deeplab_tf.network.layers import FusedBatchNorm
from deeplab_tf.network.lite_arithmetic import (
    LITE,
    NUMBERS,
    InputLevels,
    LiteAdd,
    LiteConcatenate,
    LiteRequantize,
    LiteRound,
)
from deeplab_tf.network.normalisation import GroupNormalization, StandardizedConv2D

_LEAVES: dict[type, dict[str, str]] = {
    keras.layers.Conv2D: {"kernel": "weights", "bias": "biases"},
    keras.layers.DepthwiseConv2D: {"kernel": "depthwise_weights"},
    keras.layers.SeparableConv2D: {"depthwise_kernel": "depthwise_weights", "pointwise_kernel": "pointwise_weights"},
    FusedBatchNorm: {leaf: leaf for leaf in ("gamma", "beta", "moving_mean", "moving_variance")},
    StandardizedConv2D: {"kernel": "weights", "bias": "biases"},
    GroupNormalization: {"gamma": "gamma", "beta": "beta"},
    FakeQuantize: {"min": "min", "max": "max"},
}
_LEAVES |= {held: _LEAVES[plain] for plain, held in FAKE_QUANTISED.items()}
_OF_FILES = {number: number for number in NUMBERS}  # of eight bits
_LEAVES |= {lite: _LEAVES[plain] | _OF_FILES for plain, lite in LITE.items()}
_LEAVES |= dict.fromkeys(
    (InputLevels, LiteRound, LiteRequantize, LiteAdd, LiteConcatenate), {"min": "min", "max": "max"} | _OF_FILES
)


def variable_map(model: keras.Model) -> dict[str, keras.Variable]:
    """Returns TF1 variable name -> Keras variable, in the order of the layers."""
    variables: dict[str, keras.Variable] = {}
    for layer in model.layers:
        for variable in layer.weights or ():
            leaf = _LEAVES.get(type(layer), {}).get(variable.name)
            if leaf is not None:
                variables[f"{layer.name.replace('.', '/')}/{leaf}"] = variable
            elif "seed" not in variable.name:
                raise DeepLabError(f"layer {layer.name} ({type(layer).__name__}) has no TF1 name for {variable.name}")
    return variables
