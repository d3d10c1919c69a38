"""The operations of the release as Keras layers, and the graph that creates each layer once by its TF1 scope."""

from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

from deeplab_tf.arch.spec import RGB_MEAN, Architecture, BatchNorm
from deeplab_tf.errors import DeepLabError
from deeplab_tf.network.fake_quantization import HELD, FakeQuantize
from deeplab_tf.ops.resizing import ResizeBilinear, scale_dimension

_register = keras.saving.register_keras_serializable(package="deeplab_tf")


class _Elementwise(keras.layers.Layer):
    """A layer without weights whose output has its input's shape."""

    def compute_output_shape(self, input_shape):
        return input_shape


PIXEL_SCALE = np.float32(2.0 / 255.0)


@_register
class ScalePixels(_Elementwise):
    """Maps 0..255 to [-1, 1] as x * (2 / 255) - 1, the factor rounded to float32 once (feature_extractor.py)."""

    def call(self, inputs):
        return inputs * tf.cast(PIXEL_SCALE, inputs.dtype) - 1.0


@_register
class SubtractMean(_Elementwise):
    """Subtracts an RGB mean, by default the release's [123.15, 115.90, 103.06] (feature_extractor.py), from 0..255."""

    def __init__(self, mean: Sequence[float] = RGB_MEAN, **kwargs):
        super().__init__(**kwargs)
        self.mean = tuple(mean)

    def call(self, inputs):
        return inputs - tf.constant(self.mean, inputs.dtype)

    def get_config(self):
        return {**super().get_config(), "mean": self.mean}


@_register
class HardSwish(_Elementwise):
    """x * relu6(x + 3) / 6, the sixth in float32."""

    def call(self, inputs):
        return inputs * tf.nn.relu6(inputs + 3.0) * tf.cast(np.float32(1.0 / 6.0), inputs.dtype)


@_register
class QSigmoid(_Elementwise):
    """relu6(x + 3) * 0.16667: the release's literal, not a sixth."""

    def call(self, inputs):
        return tf.nn.relu6(inputs + 3.0) * tf.cast(0.16667, inputs.dtype)


@_register
class Bound(_Elementwise):
    """Clips to [-6, 6] (bounded activation)."""

    def call(self, inputs):
        return tf.clip_by_value(inputs, -6.0, 6.0)


_SMALLEST_EPSILON = 1.001e-5


@_register
class FusedBatchNorm(keras.layers.BatchNormalization):
    """Batch normalisation by TensorFlow's fused operation, as the release's.

    Unlike Keras's own layer, the batch variance that enters the moving average is the unbiased one (N / (N - 1)), and
    the moving statistics can stay, and be used, in training while gamma and beta are trained (`fixed_statistics`, the
    release's fine_tune_batch_norm=false). `synchronized` shares batch statistics among the replicas of a strategy.
    """

    fixed_statistics = False

    @property
    def fused_epsilon(self) -> float:
        """What the fused operation adds to the variance: it raises a smaller epsilon to this, as the original's did."""
        return max(self.epsilon, _SMALLEST_EPSILON)

    def call(self, inputs, training=None, mask=None):
        del mask
        update = bool(training) and self.trainable and not self.fixed_statistics
        if update and self.synchronized and tf.distribute.get_strategy().num_replicas_in_sync > 1:
            return self._call_synchronized(inputs)
        statistics = {} if update else {"mean": self.moving_mean, "variance": self.moving_variance}
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs,
            tf.cast(self.gamma, tf.float32),
            tf.cast(self.beta, tf.float32),
            epsilon=self.epsilon,
            is_training=update,
            **{key: tf.cast(value, tf.float32) for key, value in statistics.items()},
        )
        if update:
            self._update(mean, variance)
        return outputs

    def _update(self, mean, unbiased_variance):
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, unbiased_variance)):
            moving.assign_sub((moving - tf.cast(batch, moving.dtype)) * (1.0 - self.momentum))

    def _call_synchronized(self, inputs):
        replica, values = tf.distribute.get_replica_context(), tf.cast(inputs, tf.float32)
        # One after the other: the mean of the squares, less the square of the mean, would lose digits to a large mean.
        mean = replica.all_reduce(tf.distribute.ReduceOp.MEAN, tf.reduce_mean(values, [0, 1, 2]))
        squares = tf.reduce_mean(tf.math.squared_difference(values, mean), [0, 1, 2])
        variance = replica.all_reduce(tf.distribute.ReduceOp.MEAN, squares)
        number = tf.cast(tf.size(inputs[..., 0]) * replica.num_replicas_in_sync, tf.float32)
        self._update(mean, variance * number / tf.maximum(number - 1.0, 1.0))
        outputs = tf.nn.batch_normalization(values, mean, variance, self.beta, self.gamma, self.fused_epsilon)
        return tf.cast(outputs, inputs.dtype)


@_register
class Dropout(keras.layers.Dropout):
    """Dropout whose draws a training step may fix: with `step_seed`, int [2], they are a function of it.

    Keras's own seed is a variable, and one that replicas share.
    """

    step_seed = None

    def call(self, inputs, training=False):
        if self.step_seed is None or not training or not self.rate:
            return super().call(inputs, training=training)
        return tf.nn.experimental.stateless_dropout(inputs, self.rate, seed=self.step_seed)


@_register
class DropPath(_Elementwise):
    """Drops the whole input of some examples while a step trains, and raises the others by as much (nas_cell.py).

    Does nothing unless a training step sets `keep_prob`, a scalar, and `step_seed`, int [2]. `depth` says how far down
    the network the path lies, up to 1, for the step.
    """

    keep_prob, step_seed = None, None

    def __init__(self, depth: float = 1.0, **kwargs):
        super().__init__(**kwargs)
        self.depth = depth

    def call(self, inputs, training=None):
        if self.keep_prob is None or not training:
            return inputs
        draws = tf.random.stateless_uniform([tf.shape(inputs)[0], 1, 1, 1], self.step_seed)
        return inputs * tf.cast(tf.floor(self.keep_prob + draws) / self.keep_prob, inputs.dtype)

    def get_config(self):
        return {**super().get_config(), "depth": self.depth}


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
