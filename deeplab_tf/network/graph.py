"""Graph, which adds the operations of the release to a functional model: each layer once, named by its TF1 scope."""

from collections.abc import Callable, Mapping, Sequence

import keras

from deeplab_tf.arch.spec import Architecture, BatchNorm
from deeplab_tf.errors import DeepLabError
from deeplab_tf.network.fake_quantization import HELD, FakeQuantize
from deeplab_tf.network.layers import (
    Bound,
    FusedBatchNorm,
    HardSwish,
    QSigmoid,
    ResizeBilinear,
    ScalePixels,
    SubtractMean,
)
from deeplab_tf.ops.resizing import scale_dimension

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


def initializer(kind: str | float):
    """Returns the release's weight initialiser: a standard deviation (truncated normal) or one of resnet, nas, glorot.

    resnet is slim's variance scaling (factor 2, fan-in, std sqrt(1.3 * 2 / fan_in) before truncation); Keras divides
    by the truncated normal's own deviation instead, hence its scale here.
    """
    if isinstance(kind, float):
        return keras.initializers.TruncatedNormal(stddev=kind)
    if kind == "truncated_normal":
        return keras.initializers.TruncatedNormal(stddev=0.09)
    if kind == "resnet":
        return keras.initializers.VarianceScaling(2.6 * 0.87962566103423978**2, "fan_in", "truncated_normal")
    if kind == "nas":
        return keras.initializers.VarianceScaling(1.0 / 3.0, "fan_in", "uniform")
    return keras.initializers.GlorotUniform()


class Graph:
    """Adds layers to a functional graph, each named by its TF1 scope with "." for "/".

    A layer with weights exists once a scope: asking again, or starting from the layers of another model, shares it.
    Layers without weights are new each time; `copy` keeps their names apart when one graph holds several copies of the
    network (image pyramids). With `zeros` no weights are drawn: all kernels start at 0. While `quantized` is set,
    kernels and maps are what eight bits hold of them, in places where an int8 file rounds them.
    """

    quantized = False

    def __init__(self, *, shared: Mapping[str, keras.layers.Layer] | None = None, zeros: bool = False):
        self._layers = dict(shared or {})
        self._zeros = zeros
        self.copy = ""

    def _initializer(self, kind: str | float):
        return "zeros" if self._zeros else initializer(kind)

    def _weighted(self, scope: str, make: Callable[..., keras.layers.Layer], inputs, **options):
        name = scope.replace("/", ".")
        if name not in self._layers:
            make = HELD.get(make, make) if self.quantized else make
            self._layers[name] = make(name=name, **options)
        return self._layers[name](inputs)

    def op(self, make: Callable[..., keras.layers.Layer], scope: str, inputs, **options):
        """Returns the output of a layer without weights; `scope` ends in the name of the operation."""
        x = make(name=scope.replace("/", ".") + self.copy, **options)(inputs)
        return self.held(x, f"{scope}_quant") if make in _NEW_RANGE else x

    def held(self, x, scope: str):
        """Returns `x` as eight bits hold it, in quantised training; `scope` is that of its range."""
        return self._weighted(scope, FakeQuantize, x) if self.quantized else x

    def preprocess(self, images, scope: str, architecture: Architecture):
        """Returns `images` (0..255) as the backbone reads them."""
        if architecture.preprocessing == "scale":
            x = self.op(ScalePixels, f"{scope}/preprocess", images)
        else:
            x = self.op(SubtractMean, f"{scope}/preprocess", images, mean=architecture.mean)
        return self.held(x, f"{scope}/preprocess_quant")

    def activation(self, x, scope: str, activation: str | None):
        """Returns `x` activated by one of relu, relu6, hard_swish, q_sigmoid, sigmoid, bound; None leaves it."""
        if activation is None:
            return x
        make, options = _ACTIVATIONS[activation]
        return self.held(self.op(make, f"{scope}/{activation}", x, **options), f"{scope}/act_quant")

    def add(self, parts: Sequence, scope: str, activation: str | None = None):
        """Returns the sum, activated; `scope` ends in the name of the operation."""
        x = self.op(keras.layers.Add, scope, parts)
        x = x if activation in _FUSED else self.held(x, f"{scope}_quant")
        return self.activation(x, scope.rpartition("/")[0], activation)

    def norm(self, x, scope: str, constants: BatchNorm):
        """Returns `x` batch-normalised under `scope`, the scope that holds gamma and beta."""
        return self._weighted(scope, FusedBatchNorm, x, momentum=constants.decay, epsilon=constants.epsilon)

    def pad(self, x, scope: str, kernel: int, rate: int = 1):
        """Returns `x` with (kernel - 1) * rate zeros around, the odd one behind: VALID then is aligned at any size."""
        total = (kernel - 1) * rate
        sides = (total // 2, total - total // 2)
        return self.op(keras.layers.ZeroPadding2D, f"{scope}/pad", x, padding=(sides, sides))

    def _finish(self, x, scope: str, constants: BatchNorm | None, activation: str | None):
        x = x if constants is None else self.norm(x, f"{scope}/BatchNorm", constants)
        x = x if activation in _FUSED else self.held(x, f"{scope}/conv_quant")
        return self.activation(x, scope, activation)

    def _convolved(self, make, x, scope: str, kernel, *, stride: int, rate, explicit_padding: bool, **options):
        padded = explicit_padding and stride > 1
        # Keras has no stride beside a rate: every position then, and those of the stride picked from them.
        picked = stride if padded and rate > 1 else 1
        x = self.pad(x, scope, kernel, rate) if padded else x
        padding = "valid" if padded else "same"
        place = {"kernel_size": kernel, "strides": stride // picked, "dilation_rate": rate, "padding": padding}
        x = self._weighted(scope, make, x, **place, **options)
        return x if picked == 1 else self.op(keras.layers.MaxPooling2D, f"{scope}/pick", x, pool_size=1, strides=picked)

    def conv(
        self,
        x,
        scope: str,
        filters: int,
        kernel: int,
        *,
        stride: int = 1,
        rate: int = 1,
        explicit_padding: bool = False,
        bias: bool = False,
        norm: BatchNorm | None = None,
        activation: str | None = None,
        init: str | float = "glorot",
    ):
        """Returns convolution, batch norm (under <scope>/BatchNorm) or bias if asked, activation.

        `explicit_padding` matters for a stride above 1 only: kernel - 1 zeros around, then VALID; else SAME.
        """
        options = {"filters": filters, "use_bias": bias, "kernel_initializer": self._initializer(init)}
        place = {"stride": stride, "rate": rate, "explicit_padding": explicit_padding}
        x = self._convolved(keras.layers.Conv2D, x, scope, kernel, **place, **options)
        return self._finish(x, scope, norm, activation)

    def depthwise(
        self,
        x,
        scope: str,
        kernel: int | tuple[int, int],
        *,
        stride: int = 1,
        rate: int | tuple[int, int] = 1,
        explicit_padding: bool = False,
        norm: BatchNorm,
        activation: str | None = None,
        init: str | float = "truncated_normal",
    ):
        """Returns depthwise convolution (multiplier 1), batch norm, activation; padding as in `conv`."""
        options = {"use_bias": False, "depthwise_initializer": self._initializer(init)}
        place = {"stride": stride, "rate": rate, "explicit_padding": explicit_padding}
        x = self._convolved(keras.layers.DepthwiseConv2D, x, scope, kernel, **place, **options)
        return self._finish(x, scope, norm, activation)

    def separable(self, x, scope: str, filters: int, kernel: int, *, stride: int = 1, init: str | float = "nas"):
        """Returns the fused separable convolution of the NAS cells: nothing between its two parts, nothing after."""
        if self.quantized:
            raise DeepLabError(
                "quantize_delay_step: the NAS cells cannot be trained quantised (their separable convolutions are one "
                "operation here and two in an int8 file); expected another model_variant, or -1"
            )
        inits = {"depthwise_initializer": self._initializer(init), "pointwise_initializer": self._initializer(init)}
        place = {"stride": stride, "rate": 1, "explicit_padding": True}
        options = {"filters": filters, "use_bias": False, **inits}
        return self._convolved(keras.layers.SeparableConv2D, x, scope, kernel, **place, **options)

    def split_separable(self, x, scope: str, filters: int, kernel, *, rate=1, norm: BatchNorm, activation: str):
        """Returns the split separable convolution: <scope>_depthwise and <scope>_pointwise, each with norm."""
        options = {"norm": norm, "activation": activation}
        x = self.depthwise(x, f"{scope}_depthwise", kernel, rate=rate, init=0.33, **options)
        return self.conv(x, f"{scope}_pointwise", filters, 1, init=0.06, **options)

    def resize(self, x, scope: str, *, size: Sequence[int] | None = None, like=None, scale: float = 1.0):
        """Returns `x` resized to `size`, or to the size of `like` times `scale`; unchanged where it fits already."""
        if size is None and None not in like.shape[1:3]:
            size = [scale_dimension(d, scale) for d in like.shape[1:3]]
        if size is None:
            return self.op(ResizeBilinear, f"{scope}/resize", [x, like], scale=scale)
        if tuple(x.shape[1:3]) == tuple(size):
            return x
        return self.op(ResizeBilinear, f"{scope}/resize", x, size=size)
