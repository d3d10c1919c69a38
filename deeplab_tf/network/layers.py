"""The operations of the release as Keras layers."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, cast

import keras
import numpy as np
import tensorflow as tf

from deeplab_tf.arch.spec import RGB_MEAN
from deeplab_tf.config import TrainConfig
from deeplab_tf.network.carrier import Carrier
from deeplab_tf.network.stepped import StepBatch, Stepped, replaced, replica_seed
from deeplab_tf.ops.resizing import (
    resize_bilinear,
    resize_bilinear_by_matrix,
    resize_unaligned,
    scale_dimension,
    static_dimensions,
)

_register = keras.saving.register_keras_serializable(package="deeplab_tf")


class _Elementwise(keras.layers.Layer):
    """A layer without weights whose output has its input's shape."""

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the shape of the input."""
        return input_shape


class _Pixels(Stepped, Carrier, _Elementwise):
    """A layer on pixels, which keep float32: bfloat16 has eight bits, which a resized or shifted pixel does not fit."""

    keeps_float32 = True

    def __init__(self, **kwargs: Any):
        super().__init__(**{"dtype": "float32", **kwargs})


PIXEL_SCALE = np.float32(2.0 / 255.0)


@_register
class ScalePixels(_Pixels):
    """Maps 0..255 to [-1, 1] as x * (2 / 255) - 1, the factor rounded to float32 once (feature_extractor.py)."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns images [b, h, w, 3] in -1..1."""
        return inputs * tf.cast(PIXEL_SCALE, inputs.dtype) - 1.0


@_register
class UnitPixels(_Pixels):
    """Maps 0..255 to [0, 1] as x / 255."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns images [b, h, w, 3] in 0..1."""
        return inputs / 255.0


@_register
class SubtractMean(_Pixels):
    """Subtracts an RGB mean, by default the release's [123.15, 115.90, 103.06] (feature_extractor.py), from 0..255."""

    def __init__(self, mean: Sequence[float] = RGB_MEAN, **kwargs: Any):
        super().__init__(**kwargs)
        self.mean = tuple(mean)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns images [b, h, w, 3] without their mean."""
        return inputs - tf.constant(self.mean, inputs.dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {**super().get_config(), "mean": self.mean}


@_register
class HardSwish(_Elementwise):
    """x * relu6(x + 3) / 6, the sixth in float32."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the activated maps [b, h, w, c]."""
        return inputs * tf.nn.relu6(inputs + 3.0) * tf.cast(np.float32(1.0 / 6.0), inputs.dtype)


@_register
class QSigmoid(_Elementwise):
    """relu6(x + 3) * 0.16667: the release's literal, not a sixth."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the activated maps [b, h, w, c]."""
        return tf.nn.relu6(inputs + 3.0) * tf.cast(0.16667, inputs.dtype)


@_register
class Bound(_Elementwise):
    """Clips to [-6, 6] (bounded activation)."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the activated maps [b, h, w, c]."""
        return tf.clip_by_value(inputs, -6.0, 6.0)


_SMALLEST_EPSILON = 1.001e-5


@_register
class FusedBatchNorm(Stepped, keras.layers.BatchNormalization):
    """Batch normalisation by TensorFlow's fused operation, as the release's.

    Unlike Keras's own layer, the batch variance that enters the moving average is the unbiased one (N / (N - 1)), and
    the moving statistics can stay, and be used, in training while gamma and beta are trained (`fixed_statistics`, the
    release's fine_tune_batch_norm=false). `synchronized` shares batch statistics among the replicas of a strategy.
    Where `gathered` is a tuple, each batch puts the moving mean and variance that it leads to there, and the variables
    stay as they are.
    """

    fixed_statistics = False
    gathered: tuple[tf.Tensor, ...] | None = None

    def for_step(self, config: TrainConfig, seed: int) -> contextlib.AbstractContextManager[None]:
        """Returns a context in which statistics are fixed and shared as `config` says."""
        del seed
        fixed = config.freeze_batch_norm or not config.fine_tune_batch_norm
        return replaced(self, fixed_statistics=fixed, synchronized=config.sync_batch_norm)

    @property
    def fused_epsilon(self) -> float:
        """What the fused operation adds to the variance: it raises a smaller epsilon to this, as the original's did."""
        return max(self.epsilon, _SMALLEST_EPSILON)

    def call(self, inputs: tf.Tensor, training: bool | None = None, mask: Any = None) -> tf.Tensor:
        """Returns the normalised maps [b, h, w, c]; with statistics of the batch the moving ones are updated."""
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

    def _update(self, mean: tf.Tensor, unbiased_variance: tf.Tensor):
        if self.gathered is not None:
            before = self.gathered or (self.moving_mean.value, self.moving_variance.value)
            values = zip(before, (mean, unbiased_variance), strict=True)
            self.gathered = tuple(moving - (moving - batch) * (1.0 - self.momentum) for moving, batch in values)
            return
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, unbiased_variance)):
            moving.assign_sub((moving - tf.cast(batch, moving.dtype)) * (1.0 - self.momentum))

    def _call_synchronized(self, inputs: tf.Tensor) -> tf.Tensor:
        replica, values = tf.distribute.get_replica_context(), tf.cast(inputs, tf.float32)
        # One after the other: the mean of the squares, less the square of the mean, would lose digits to a large mean.
        mean = replica.all_reduce(tf.distribute.ReduceOp.MEAN, tf.reduce_mean(values, [0, 1, 2]))
        squares = tf.reduce_mean(tf.math.squared_difference(values, mean), [0, 1, 2])
        variance = replica.all_reduce(tf.distribute.ReduceOp.MEAN, squares)
        number = tf.cast(tf.size(inputs[:, :, :, 0]) * replica.num_replicas_in_sync, tf.float32)
        self._update(mean, variance * number / tf.maximum(number - 1.0, 1.0))
        outputs = tf.nn.batch_normalization(values, mean, variance, self.beta, self.gamma, self.fused_epsilon)
        return tf.cast(outputs, inputs.dtype)


def dropped(maps: tf.Tensor, rate: float, seed: tf.Tensor) -> tf.Tensor:
    """Returns `maps`, of any float type, with some values dropped and the others raised by 1 / (1 - rate).

    The bits, and those of the gradient, are those of tf.nn.experimental.stateless_dropout. That one selects between the
    maps and a scalar, in the gradient too, and TensorFlow's layout optimizer, which has it choose between maps of
    another order, gives up on a whole graph for the scalar.

    Args:
      maps: [b, h, w, c].
      rate: the share that is dropped, 0 to below 1.
      seed: int [2], of which the draws are a function.
    """
    kept = tf.random.stateless_uniform(tf.shape(maps), seed, dtype=maps.dtype) >= rate
    zero = tf.zeros([1] * len(maps.shape), maps.dtype)
    scale = tf.constant(1.0 / (1.0 - rate), maps.dtype)

    @tf.custom_gradient
    def select(maps: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        return tf.where(kept, maps * scale, zero), lambda upstream: tf.where(kept, upstream, zero) * scale

    return cast(tf.Tensor, select(maps))


@_register
class Dropout(Stepped, keras.layers.Dropout):
    """Dropout whose draws a training step may fix: with `step_seed`, int [2], they are a function of it and replica.

    Keras's own seed is a variable, and one that replicas share.
    """

    draws = True
    step_seed: tf.Tensor | None = None
    _first_seed = 0

    def for_step(self, config: TrainConfig, seed: int) -> contextlib.AbstractContextManager[None]:
        """Returns a context in which features are dropped if `config.dropout` says so, by draws from `seed`."""
        return replaced(self, step_seed=None, _first_seed=seed, rate=self.rate if config.dropout else 0.0)

    def begin_batch(self, batch: StepBatch) -> None:
        """Draws anew: a run that resumes draws the same."""
        self.step_seed = tf.stack([tf.constant(self._first_seed, tf.int64), batch.number])

    def call(self, inputs: tf.Tensor, training: bool | None = False) -> tf.Tensor:
        """Returns the maps [b, h, w, c], in training with some values dropped and the others raised."""
        if self.step_seed is None or not training or not self.rate:
            return super().call(inputs, training=training)
        return dropped(inputs, self.rate, replica_seed(self.step_seed))


@_register
class DropPath(Stepped, _Elementwise):
    """Drops the whole input of some examples while a step trains, and raises the others by as much (nas_cell.py).

    Does nothing unless `keep_prob`, a scalar, and `step_seed`, int [2], are set for a training step. `depth` says how
    far down the network the path lies, up to 1.
    """

    draws = True
    keep_prob: tf.Tensor | None = None
    step_seed: tf.Tensor | None = None
    _first_seed = 0
    _trained_by: TrainConfig | None = None

    def __init__(self, depth: float = 1.0, **kwargs: Any):
        super().__init__(**kwargs)
        self.depth = depth

    def for_step(self, config: TrainConfig, seed: int) -> contextlib.AbstractContextManager[None]:
        """Returns a context in which paths are dropped as `config.drop_path_keep_prob` says, by draws from `seed`."""
        return replaced(self, keep_prob=None, step_seed=None, _first_seed=seed, _trained_by=config)

    def begin_batch(self, batch: StepBatch) -> None:
        """Draws anew; fewer paths are kept from step to step, down to drop_path_keep_prob (nas_cell.py)."""
        config = self._trained_by
        self.step_seed = tf.stack([tf.constant(self._first_seed, tf.int64), batch.number])
        if config is not None and config.drop_path_keep_prob < 1:
            progress = tf.cast(batch.step, tf.float32) / config.training_number_of_steps
            cell = 1.0 - self.depth * (1.0 - config.drop_path_keep_prob)
            self.keep_prob = 1.0 - tf.minimum(1.0, progress) * (1.0 - cell)

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Returns the maps [b, h, w, c], in training those of some examples dropped and the others raised."""
        if self.keep_prob is None or self.step_seed is None or not training:
            return inputs
        draws = tf.random.stateless_uniform(tf.stack([tf.shape(inputs)[0], 1, 1, 1]), replica_seed(self.step_seed))
        return inputs * tf.cast(tf.floor(self.keep_prob + draws) / self.keep_prob, inputs.dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {**super().get_config(), "depth": self.depth}


@_register
class ResizeBilinear(Stepped, keras.layers.Layer):
    """Bilinear resize with aligned corners (the release's legacy op) of [b, h, w, c] maps.

    Either `size` (height, width) is fixed, or the layer is called with [maps, reference] and the target is the
    reference's height and width, by `scale_dimension` with `scale`. With `by_matrix` (training under XLA) all sizes are
    static. Corners are aligned unless `aligned` is False.
    """

    by_matrix = False

    def __init__(self, size: Sequence[int] | None = None, scale: float = 1.0, *, aligned: bool = True, **kwargs: Any):
        super().__init__(**kwargs)
        self.aligned = aligned
        self.size = tuple(size) if size else None
        self.scale = scale

    def for_step(self, config: TrainConfig, seed: int) -> contextlib.AbstractContextManager[None]:
        """Returns a context in which XLA's own resize, which errs, is avoided where XLA compiles the step."""
        del seed
        return replaced(self, by_matrix=config.jit_compile == "true")

    def call(self, inputs: Any) -> tf.Tensor:
        """Returns the resized maps [b, height, width, c]; `inputs` are maps, or [maps, reference] without a `size`."""
        if self.size:
            maps, size = inputs, self.size
            return self._resized(maps, size)
        maps, reference = inputs
        if self.by_matrix:
            size = [scale_dimension(side, self.scale) for side in static_dimensions(reference, 1, 2)]
            return self._resized(maps, size)
        sides = tf.shape(reference)[1:3]
        return self._resized(maps, sides if self.scale == 1.0 else scale_dimension(sides, self.scale))

    def _resized(self, maps: tf.Tensor, size: Any) -> tf.Tensor:
        if not self.aligned:
            return resize_unaligned(maps, size)
        return resize_bilinear_by_matrix(maps, size) if self.by_matrix else resize_bilinear(maps, size)

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """Returns the shape of the resized maps; sides that follow an unknown side are None."""
        if self.size:
            return (input_shape[0], *self.size, input_shape[-1])
        maps, reference = input_shape
        sides = [None if side is None else scale_dimension(side, self.scale) for side in reference[1:3]]
        return (maps[0], *sides, maps[-1])

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        unaligned = {} if self.aligned else {"aligned": False}
        return {**super().get_config(), "size": self.size, "scale": self.scale, **unaligned}
