"""The layers of a network as TensorFlow operations: weights are constants, batch norms are folded into convolutions.

The code that builds the Keras model (network/backbone.py, network/head.py) runs here on an InferenceGraph, which emits
operations where Graph makes layers: there is no second description of any network.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, cast

import keras
import numpy as np
import tensorflow as tf

from deeplab_tf.arch.spec import Architecture
from deeplab_tf.arch.units import GroupNorm, Norm
from deeplab_tf.errors import DeepLabError
from deeplab_tf.inference.convolutions import Geometry, depthwise_convolution, full_convolution, sides_of, taken_in
from deeplab_tf.inference.graph_weights import is_large
from deeplab_tf.network.fake_quantization import FakeQuantize, fake_quantized, weights_as_used
from deeplab_tf.network.graph import Graph, Maps
from deeplab_tf.network.layers import PIXEL_SCALE
from deeplab_tf.network.lite_arithmetic import LiteLayer, whole
from deeplab_tf.network.normalisation import StandardizedConv2D
from deeplab_tf.ops.normalisation import group_normalized

Weights = Mapping[str, Mapping[str, np.ndarray]]


def read_weights(model: keras.Model) -> Weights:
    """Returns layer name -> variable name -> array, kernels rounded where the model is for quantised training."""
    return {layer.name: weights_as_used(layer) for layer in model.layers if layer.weights}


# The kernels of a layer, and whether each is depthwise; strides and rates belong to the first, a norm to the last.
_KERNELS: dict[type, tuple[tuple[str, bool], ...]] = {
    keras.layers.Conv2D: (("kernel", False),),
    StandardizedConv2D: (("kernel", False),),
    keras.layers.DepthwiseConv2D: (("kernel", True),),
    keras.layers.SeparableConv2D: (("depthwise_kernel", True), ("pointwise_kernel", False)),
}


@dataclasses.dataclass(frozen=True)
class _FoldedNorm:
    """A batch norm by its moving statistics, float64 [channels]: x * factor + offset."""

    factor: np.ndarray
    offset: np.ndarray


class InferenceGraph(Graph):
    """Emits the operations of the network, with constant weights and batch norms folded into the convolutions.

    Takes and returns tensors of the graph that is being built, where `Graph` has Keras tensors.

    Args:
      weights: from `read_weights`.
      target: "tensorflow", "tflite" or "onnx" (see inference.convolutions).
      quantized: whether the network is of quantised training.
      as_file: see `Graph`.
      aligned: see `Graph`.
      products: whether convolutions of single pixels by large kernels are products of matrices. TensorFlow arranges
        the kernel of a convolution anew in each run if it is a variable, and takes the matrix of a product as it is.
      apart: gets the values of kernels and biases by the names of placeholders that the graph then holds in their
        places; None: the graph holds the values.
    """

    def __init__(
        self,
        weights: Weights,
        *,
        target: str,
        quantized: bool = False,
        as_file: bool = False,
        aligned: bool = True,
        products: bool = False,
        apart: dict[str, np.ndarray] | None = None,
    ):
        super().__init__(quantized=quantized, as_file=as_file, aligned=aligned)
        self._weights, self._target, self._apart, self._products = weights, target, apart, products
        self._emitters: dict = {}  # output of a convolution -> what emits it anew with a norm folded in
        self._constants: dict[tuple, tf.Tensor] = {}  # one of each, however many scales use it
        self._padded: dict = {}  # output of a padding -> what was padded, and the margins
        self._rows: dict = {}  # output of a product of matrices -> its rows, and the shape they are read as

    def op(self, make: type[keras.layers.Layer], scope: str, inputs: Maps | Sequence[Maps], **options: object) -> Maps:
        """Returns the output of a layer without weights, in float32 whatever the policy is. Dropout is no operation."""
        if issubclass(make, keras.layers.Dropout):
            return inputs
        options = {"dtype": "float32", **options}
        if issubclass(make, keras.layers.ReLU) and cast(tf.Tensor, inputs).ref() in self._rows:
            rows, shape = self._rows[cast(tf.Tensor, inputs).ref()]  # of which and of the product TensorFlow makes one
            return self._as_maps(super().op(make, scope, rows, **options), shape)
        return super().op(make, scope, inputs, **options)

    def _as_maps(self, rows: tf.Tensor, shape: Sequence[Any]) -> tf.Tensor:
        """Returns rows [b * h * w, channels] as maps [b, h, w, channels]; `shape` is [b, h, w]."""
        maps = tf.reshape(rows, [*shape, rows.shape[-1]])
        self._rows[maps.ref()] = rows, shape
        return maps

    def pad(self, x: Maps, scope: str, kernel: int, rate: int = 1) -> Maps:
        """Returns `x` with zeros around as `Graph.pad`; a convolution that follows takes them in."""
        padded, total = super().pad(x, scope, kernel, rate), (kernel - 1) * rate
        margin = [total // 2, total - total // 2]
        self._padded[padded.ref()] = x, [[0, 0], margin, margin, [0, 0]]
        return padded

    def norm(self, x: Maps, scope: str, constants: Norm) -> Maps:
        """Returns `x` normalised by the moving statistics: the convolution it came from, with other weights.

        The convolution without the norm is left unused, and dropped with the other dead ends of the graph. A group norm
        depends on its maps, and is a few operations.
        """
        if isinstance(constants, GroupNorm):
            gamma, beta = (self._constant(self._values(scope)[leaf], scope, leaf) for leaf in ("gamma", "beta"))
            return group_normalized(x, gamma, beta, groups=constants.groups, epsilon=constants.epsilon)
        values = {name: value.astype(np.float64) for name, value in self._values(scope).items()}
        factor = values["gamma"] / np.sqrt(values["moving_variance"] + constants.epsilon)
        folded = _FoldedNorm(factor, values["beta"] - values["moving_mean"] * factor)
        if x.ref() in self._emitters:
            return self._emitters[x.ref()](norm=folded)
        return x * folded.factor.astype(np.float32) + folded.offset.astype(np.float32)

    def _values(self, scope: str) -> Mapping[str, np.ndarray]:
        return self._weights[scope.replace("/", ".")]

    def preprocess(self, images: Maps, scope: str, architecture: Architecture) -> Maps:
        """Returns `images` as the backbone reads them; for eight bits in steps of known ranges."""
        if self.as_file or not (self.quantized and self._target == "tflite"):
            return super().preprocess(images, scope, architecture)
        images = fake_quantized(images, 0.0, 255.0)
        if architecture.preprocessing != "scale":
            return super().preprocess(images, scope, architecture)
        return self.fake_quantised(fake_quantized(images * PIXEL_SCALE, 0.0, 2.0) - 1.0, f"{scope}/preprocess_quant")

    def weighted(self, scope: str, make: type[keras.layers.Layer], inputs: Maps, **options: object) -> Maps:
        """Returns the output of a convolution, or of the rounding to a range."""
        if make is FakeQuantize:
            return fake_quantized(inputs, *(float(self._values(scope)[leaf]) for leaf in ("min", "max")))
        if issubclass(make, LiteLayer):
            return make.calculate(inputs, {n: self._constant(v, scope, n) for n, v in self._values(scope).items()})
        if make not in _KERNELS:
            raise DeepLabError(f"layer {scope} ({make.__name__}) cannot be exported; expected a convolution")
        geometry = Geometry.of(options)
        emit = functools.partial(self._convolution, scope, _KERNELS[make], inputs, geometry)
        outputs = emit()
        self._emitters[outputs.ref()] = emit
        return outputs

    def _constant(self, value: np.ndarray, *key: object) -> tf.Tensor:
        if key not in self._constants:
            value = np.asarray(value, np.float32)
            if self._apart is None:
                self._constants[key] = tf.constant(value)
            else:
                self._constants[key] = tf.compat.v1.placeholder(tf.float32, value.shape, name="Const")
                self._apart[self._constants[key].op.name] = value
        return self._constants[key]

    def _convolution(
        self,
        scope: str,
        kernels: Sequence[tuple[str, bool]],
        x: tf.Tensor,
        geometry: Geometry,
        norm: _FoldedNorm | None = None,
    ) -> tf.Tensor:
        """Emits a convolution with its bias, and with a batch norm folded into both."""
        values, shape = self._values(scope), None
        x, geometry = self._with_padding_taken_in(x, geometry, values[kernels[0][0]].shape[0])
        bias, product = values.get("bias"), None
        with tf.name_scope(scope):
            if "input_step" in values:  # the integers of a file of eight bits, whose sums stay integers
                x = whole(x, self._constant(values["input_step"], scope, "input_step"))
                product = (values["input_step"] * values["kernel_step"]) * (1.0 if norm is None else norm.factor)
            for number, (leaf, depthwise) in enumerate(kernels, start=1):
                kernel = values[leaf]
                if product is not None:
                    kernel = np.rint(kernel / (values["kernel_step"][:, None] if depthwise else values["kernel_step"]))
                elif norm and number == len(kernels):
                    kernel = kernel * (norm.factor[:, None] if depthwise else norm.factor)
                kernel = kernel.astype(np.float32, copy=False)
                if depthwise and self._target == "tensorflow":
                    kernel = np.tile(kernel, (1, 1, geometry.rates[1], 1))
                constant = self._constant(kernel, scope, leaf, norm is None)
                if self._products and kernel.shape[:2] == (1, 1) and geometry.stride == 1 and is_large(kernel):
                    shape = [tf.shape(x)[0], *sides_of(x)]
                    x = tf.matmul(tf.reshape(x, (-1, kernel.shape[2])), tf.reshape(constant, kernel.shape[2:]))
                else:
                    convolve = depthwise_convolution if depthwise else full_convolution
                    x = convolve(x, constant, geometry, self._target)
                geometry = Geometry()  # stride and rate belong to the first of a separable convolution's two
            x = x if product is None else x * self._constant(product, scope, "product_step", norm is None)
            if norm:
                bias = norm.offset + (0.0 if bias is None else bias * norm.factor)
            x = x if bias is None else tf.nn.bias_add(x, self._constant(bias, scope, "bias", norm is None))
            return x if shape is None else self._as_maps(x, shape)

    def _with_padding_taken_in(self, x: tf.Tensor, geometry: Geometry, kernel: int) -> tuple[tf.Tensor, Geometry]:
        """Returns what a convolution reads, and how, without the padding before it where it can do that itself."""
        if geometry.rates != (1, 1) or geometry.padding != "VALID" or x.ref() not in self._padded:
            return x, geometry
        inner, margins = self._padded[x.ref()]
        padding = taken_in(inner, margins, kernel, geometry.stride, self._target)
        return (x, geometry) if padding is None else (inner, dataclasses.replace(geometry, padding=padding))
