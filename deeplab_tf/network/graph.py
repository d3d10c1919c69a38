"""Graph, which adds the operations of the release to a functional model: each layer once, named by its TF1 scope."""

import contextlib
import copy
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias, cast

import keras
import tensorflow as tf

from deeplab_tf.arch.spec import Architecture
from deeplab_tf.arch.units import GroupNorm, Norm
from deeplab_tf.errors import DeepLabError
from deeplab_tf.network.fake_quantization import FAKE_QUANTISED, FakeQuantize
from deeplab_tf.network.layers import (
    Bound,
    FusedBatchNorm,
    HardSwish,
    QSigmoid,
    ResizeBilinear,
    ScalePixels,
    SubtractMean,
    UnitPixels,
)
from deeplab_tf.network.lite_arithmetic import LITE, InputLevels, LiteAdd, LiteConcatenate, LiteRequantize, LiteRound
from deeplab_tf.network.normalisation import GroupNormalization, StandardizedConv2D
from deeplab_tf.ops.resizing import scale_dimension

# Maps [b, h, w, channels], height and width perhaps unknown: Keras tensors, or in an exported graph TensorFlow's.
Maps: TypeAlias = keras.KerasTensor | tf.Tensor

_ACTIVATIONS: dict[str, tuple[type, dict]] = {
    "relu": (keras.layers.ReLU, {}),
    "relu6": (keras.layers.ReLU, {"max_value": 6.0}),
    "hard_swish": (HardSwish, {}),
    "q_sigmoid": (QSigmoid, {}),
    "sigmoid": (keras.layers.Activation, {"activation": "sigmoid"}),
    "bound": (Bound, {}),
}
# In an int8 file these end the operation before them; any other tensor has a range of its own, unless it only picks or
# mixes the values of one that has.
_FUSED = ("relu", "relu6")
_NEW_RANGE = (keras.layers.Concatenate, keras.layers.Multiply)


# The release's weight initialisers. "resnet" is slim's variance scaling (factor 2, fan-in, std sqrt(1.3 * 2 / fan_in)
# before truncation); Keras divides by the truncated normal's own deviation instead, hence its scale here.
_INITIALIZERS: dict[str, tuple[type, dict[str, object]]] = {
    "truncated_normal": (keras.initializers.TruncatedNormal, {"stddev": 0.09}),
    "resnet": (
        keras.initializers.VarianceScaling,
        {"scale": 2.6 * 0.87962566103423978**2, "mode": "fan_in", "distribution": "truncated_normal"},
    ),
    "nas": (keras.initializers.VarianceScaling, {"scale": 1.0 / 3.0, "mode": "fan_in", "distribution": "uniform"}),
    "glorot": (keras.initializers.GlorotUniform, {}),
}
_INITIALIZER_NAMES = ("kernel_initializer", "depthwise_initializer", "pointwise_initializer")


def initializer(kind: str | float) -> keras.initializers.Initializer:
    """Returns the initialiser: a standard deviation (truncated normal), or truncated_normal, resnet, nas or glorot."""
    if not isinstance(kind, str):
        return keras.initializers.TruncatedNormal(stddev=kind)
    make, options = _INITIALIZERS[kind]
    return make(**options)


@contextlib.contextmanager
def _undrawn(layer: keras.layers.Layer) -> Iterator[None]:
    """Lets kernels that are created in the context start at 0; the layer's description keeps how they are drawn."""
    drawn = {name: getattr(layer, name) for name in _INITIALIZER_NAMES if hasattr(layer, name)}
    for name in drawn:
        setattr(layer, name, keras.initializers.Zeros())
    try:
        yield
    finally:
        for name, how in drawn.items():
            setattr(layer, name, how)


@dataclasses.dataclass(frozen=True)
class Window:
    """What a convolution looks at.

    Attributes:
      kernel: height and width, or the side of a square.
      stride: between its positions.
      rate: between the pixels it reads (atrous convolution), vertical and horizontal, or one for both.
      explicit_padding: matters for a stride above 1 only: kernel - 1 zeros around, then VALID; else SAME.
    """

    kernel: int | tuple[int, int] = 1
    stride: int = 1
    rate: int | tuple[int, int] = 1
    explicit_padding: bool = False


POINTWISE = Window()


@dataclasses.dataclass(frozen=True)
class After:
    """What follows a convolution: a norm (under <scope>/BatchNorm or GroupNorm) or a bias, then an activation.

    `activation` is one of relu, relu6, hard_swish, q_sigmoid, sigmoid, bound; None: none.
    """

    norm: Norm | None = None
    bias: bool = False
    activation: str | None = None


class Graph:
    """Adds layers to a functional graph, each named by its TF1 scope with "." for "/".

    A layer with weights exists once a scope: asking again, or starting from the layers of another model, shares it.
    Layers without weights are new each time.

    Args:
      shared: layers of another model, by their names, to begin with.
      zeros: draw no weights: all kernels start at 0.
      quantized: kernels and maps are what eight bits hold of them, in the places where an int8 file rounds them.
      as_file: of a quantised graph: it calculates as LiteRT does with the 8-bit file of its weights.
      aligned: resizes align corners.

    Attributes:
      number: of the copy of the network that is being added, from 0; see `numbered`.
      standardized: whether the kernels of convolutions are standardised; see `standardizing`.
    """

    def __init__(
        self,
        *,
        shared: Mapping[str, keras.layers.Layer] | None = None,
        zeros: bool = False,
        quantized: bool = False,
        as_file: bool = False,
        aligned: bool = True,
    ):
        self.aligned = aligned
        self.quantized = quantized
        self.as_file = quantized and as_file
        self._calculates_as_file = self.as_file
        self.number = 0
        self.standardized = False
        self._layers = dict(shared or {})
        self._zeros = zeros

    def numbered(self, number: int) -> "Graph":
        """Returns the same graph for another copy of the network, at another scale of an image pyramid.

        The copies share their layers with weights; the names of the others end in the copy's number.
        """
        other = copy.copy(self)
        other.number = number
        return other

    def standardizing(self) -> "Graph":
        """Returns the same graph, whose convolutions standardise their kernels."""
        other = copy.copy(self)
        other.standardized = True
        return other

    def weighted(self, scope: str, make: type[keras.layers.Layer], inputs: Maps, **options: object) -> Maps:
        """Returns the output of the layer with weights at `scope`, which `make` makes with `options` if it is new."""
        name = scope.replace("/", ".")
        if name not in self._layers:
            held = LITE if self.as_file else FAKE_QUANTISED
            make = held.get(make, make) if self.quantized else make
            layer = self._layers[name] = make(name=name, **options)
            with _undrawn(layer) if self._zeros else contextlib.nullcontext():
                return layer(inputs)
        return self._layers[name](inputs)

    def op(self, make: type[keras.layers.Layer], scope: str, inputs: Maps | Sequence[Maps], **options: object) -> Maps:
        """Returns the output of a layer without weights; `scope` ends in the name of the operation."""
        if self._calculates_as_file and make is keras.layers.Concatenate:
            return self.weighted(f"{scope}_quant", LiteConcatenate, cast(Any, inputs))
        suffix = f".copy{self.number}" if self.number else ""
        x = make(name=scope.replace("/", ".") + suffix, **options)(inputs)
        return self.fake_quantised(x, f"{scope}_quant") if make in _NEW_RANGE else x

    def fake_quantised(self, x: Maps, scope: str, as_file: type[keras.layers.Layer] = FakeQuantize) -> Maps:
        """Returns `x` as eight bits hold it, in quantised training; `scope` is that of its range.

        `as_file` is the layer that rounds as LiteRT does in this place.
        """
        return self.weighted(scope, as_file if self._calculates_as_file else FakeQuantize, x) if self.quantized else x

    def preprocess(self, images: Maps, scope: str, architecture: Architecture) -> Maps:
        """Returns `images` (0..255) as the backbone reads them."""
        if self.as_file:
            return self.weighted(f"{scope}/preprocess_quant", InputLevels, images)
        if architecture.preprocessing == "scale":
            x = self.op(ScalePixels, f"{scope}/preprocess", images)
        elif architecture.preprocessing == "unit":
            x = self.op(UnitPixels, f"{scope}/preprocess", images)
        else:
            x = self.op(SubtractMean, f"{scope}/preprocess", images, mean=architecture.mean)
        return self.fake_quantised(x, f"{scope}/preprocess_quant")

    def activation(
        self, x: Maps, scope: str, activation: str | None, as_file: type[keras.layers.Layer] = FakeQuantize
    ) -> Maps:
        """Returns `x` activated by one of the activations of `After`; None leaves it. See `fake_quantised`."""
        if activation is None:
            return x
        make, options = _ACTIVATIONS[activation]
        return self.fake_quantised(self.op(make, f"{scope}/{activation}", x, **options), f"{scope}/act_quant", as_file)

    def add(self, parts: Sequence[Maps], scope: str, activation: str | None = None) -> Maps:
        """Returns the sum, activated; `scope` ends in the name of the operation."""
        whole, fused = scope.rpartition("/")[0], activation in _FUSED
        if self._calculates_as_file and len(parts) == 2:  # the ends of the range are all that is left of an activation
            x = self.weighted(f"{whole}/act_quant" if fused else f"{scope}_quant", LiteAdd, cast(Any, parts))
            return x if fused else self.activation(x, whole, activation)
        x = self.op(keras.layers.Add, scope, parts)
        x = x if fused else self.fake_quantised(x, f"{scope}_quant")
        return self.activation(x, whole, activation)

    def norm(self, x: Maps, scope: str, constants: Norm) -> Maps:
        """Returns `x` normalised under `scope`, the scope that holds gamma and beta."""
        if isinstance(constants, GroupNorm):
            options = {"groups": constants.groups, "epsilon": constants.epsilon}
            return self.weighted(scope, GroupNormalization, x, **options)
        return self.weighted(scope, FusedBatchNorm, x, momentum=constants.decay, epsilon=constants.epsilon)

    def pad(self, x: Maps, scope: str, kernel: int, rate: int = 1) -> Maps:
        """Returns `x` with (kernel - 1) * rate zeros around, the odd one behind: VALID then is aligned at any size."""
        total = (kernel - 1) * rate
        sides = (total // 2, total - total // 2)
        return self.op(keras.layers.ZeroPadding2D, f"{scope}/pad", x, padding=(sides, sides))

    def _finish(self, x: Maps, scope: str, after: After) -> Maps:
        kind = "GroupNorm" if isinstance(after.norm, GroupNorm) else "BatchNorm"
        x = x if after.norm is None else self.norm(x, f"{scope}/{kind}", after.norm)
        if after.activation in _FUSED:
            return self.activation(x, scope, after.activation, LiteRequantize)
        return self.activation(self.fake_quantised(x, f"{scope}/conv_quant", LiteRequantize), scope, after.activation)

    def _convolved(
        self, make: type[keras.layers.Layer], x: Maps, scope: str, window: Window, options: Mapping[str, object]
    ) -> Maps:
        # SAME adds as few zeros as the size needs, the odd one behind: with a stride it samples an even map at other
        # places than an odd one. With all zeros added first, the places are the same at any size.
        padded = window.explicit_padding and window.stride > 1
        picked = 1
        if padded:
            assert isinstance(window.kernel, int) and isinstance(window.rate, int)
            x = self.pad(x, scope, window.kernel, window.rate)
            # Keras has no stride beside a rate: every position is computed then, and those of the stride are picked.
            picked = window.stride if window.rate > 1 else 1
        x = self.weighted(
            scope,
            make,
            x,
            kernel_size=window.kernel,
            strides=window.stride // picked,
            dilation_rate=window.rate,
            padding="valid" if padded else "same",
            **options,
        )
        if picked == 1:
            return x
        return self.op(keras.layers.MaxPooling2D, f"{scope}/pick", x, pool_size=1, strides=picked)

    def conv(
        self, x: Maps, scope: str, filters: int, window: Window, after: After, init: str | float = "glorot"
    ) -> Maps:
        """Returns a convolution with what follows it. `init` is a kind of `initializer`."""
        options = {"filters": filters, "use_bias": after.bias, "kernel_initializer": initializer(init)}
        make = StandardizedConv2D if self.standardized else keras.layers.Conv2D
        return self._finish(self._convolved(make, x, scope, window, options), scope, after)

    def depthwise(
        self, x: Maps, scope: str, window: Window, after: After, init: str | float = "truncated_normal"
    ) -> Maps:
        """Returns a depthwise convolution (multiplier 1, no bias) with what follows it."""
        options = {"use_bias": False, "depthwise_initializer": initializer(init)}
        return self._finish(self._convolved(keras.layers.DepthwiseConv2D, x, scope, window, options), scope, after)

    def separable(self, x: Maps, scope: str, filters: int, window: Window, init: str | float = "nas") -> Maps:
        """Returns the fused separable convolution of the NAS cells: nothing between its two parts, nothing after."""
        if self.quantized:
            raise DeepLabError(
                "quantize_delay_step: the NAS cells cannot be trained quantised (their separable convolutions are one "
                "operation here and two in an int8 file); expected another model_variant, or -1"
            )
        inits = {"depthwise_initializer": initializer(init), "pointwise_initializer": initializer(init)}
        options = {"filters": filters, "use_bias": False, **inits}
        return self._convolved(keras.layers.SeparableConv2D, x, scope, window, options)

    def split_separable(self, x: Maps, scope: str, filters: int, window: Window, after: After) -> Maps:
        """Returns the split separable convolution: <scope>_depthwise and <scope>_pointwise, each with `after`."""
        x = self.depthwise(x, f"{scope}_depthwise", window, after, init=0.33)
        return self.conv(x, f"{scope}_pointwise", filters, POINTWISE, after, init=0.06)

    def resize(
        self,
        x: Maps,
        scope: str,
        *,
        size: Sequence[int] | None = None,
        like: Maps | None = None,
        scale: float = 1.0,
        rounded: bool = True,
    ) -> Maps:
        """Returns `x` resized to `size`, or to the size of `like` times `scale`; unchanged where it fits already.

        A file of eight bits rounds what is between its levels, so that a graph of one does, unless it is not `rounded`:
        images, and outputs.
        """
        x = self._interpolated(x, scope, size, like, scale)
        return self.fake_quantised(x, f"{scope}/resize_quant", LiteRound) if self.as_file and rounded else x

    def _interpolated(self, x: Maps, scope: str, size: Sequence[int] | None, like: Maps | None, scale: float) -> Maps:
        if size is None:
            assert like is not None
            height, width = like.shape[1:3]
            if height is None or width is None:
                return self.op(ResizeBilinear, f"{scope}/resize", [x, like], scale=scale, **self._corners())
            size = (scale_dimension(height, scale), scale_dimension(width, scale))
        if tuple(x.shape[1:3]) == tuple(size):
            return x
        return self.op(ResizeBilinear, f"{scope}/resize", x, size=size, **self._corners())

    def _corners(self) -> dict[str, bool]:
        return {} if self.aligned else {"aligned": False}
