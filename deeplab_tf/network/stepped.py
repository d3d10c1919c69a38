"""What a training step asks of the layers that behave differently in it: `Stepped`, which they implement."""

import contextlib
import dataclasses
from collections.abc import Collection, Iterator

import keras
import tensorflow as tf

from deeplab_tf.config import TrainConfig
from deeplab_tf.network.depthwise import kernel_gradient_by_sums

_LAYER_SEED = 1_000_003
_REPLICA_SEED = 2**32


@dataclasses.dataclass(frozen=True)
class StepBatch:
    """The batch, or part of one, that a training step runs next. The tensors are int64 scalars.

    Attributes:
      step: updates before this one.
      number: batches and parts of batches before this one; what is drawn at random is a function of it.
      quantize_delay_step: the step from which quantised training rounds; below 0: never.
    """

    step: tf.Tensor
    number: tf.Tensor
    quantize_delay_step: int = -1


class Stepped:
    """A Keras layer that behaves differently in a training step than in a forward pass.

    Attributes:
      draws: whether it draws at random, so that it needs a seed of its own.
      keeps_float32: whether it computes in float32 in mixed precision too.
    """

    draws = False
    keeps_float32 = False

    def for_step(self, config: TrainConfig, seed: int) -> contextlib.AbstractContextManager[None]:
        """Returns a context in which the layer behaves as `config` says; afterwards it is as it was.

        Args:
          config: of the training.
          seed: one for each layer that draws.
        """
        del config, seed
        return contextlib.nullcontext()

    def begin_batch(self, batch: StepBatch) -> None:
        """Takes what depends on the batch that is run next; called within the context, once for each replica."""
        del batch


@contextlib.contextmanager
def replaced(layer: object, **values: object) -> Iterator[None]:
    """Gives `layer` other values of its attributes for the duration of the context."""
    before = {name: getattr(layer, name) for name in values}
    try:
        for name, value in values.items():
            setattr(layer, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(layer, name, value)


@contextlib.contextmanager
def as_trained(model: keras.Model, config: TrainConfig, *, still: Collection[str] = ()) -> Iterator[None]:
    """Has the layers of `model` behave as in a training step while one is traced; afterwards they are as they were.

    Args:
      model: from `build_model`.
      config: of the training. The layer of number i among those that draw has the seed `config.seed` + i * 1000003.
      still: names of layers whose batch norm keeps its statistics, whatever `config` says.
    """
    held = dataclasses.replace(config, freeze_batch_norm=True)
    mixed = None if config.mixed_precision == "none" else f"mixed_{config.mixed_precision}"
    drawing = 0
    with contextlib.ExitStack() as stack:
        for layer in model.layers:
            name = str(layer.name)
            stepped = layer if isinstance(layer, Stepped) else None
            if stepped:
                options = held if name in still else config
                stack.enter_context(stepped.for_step(options, (config.seed + drawing * _LAYER_SEED) % 2**31))
                drawing += stepped.draws
            elif config.jit_compile == "true" and isinstance(layer, keras.layers.DepthwiseConv2D):
                stack.enter_context(kernel_gradient_by_sums(layer))
            if mixed and not (isinstance(layer, keras.layers.InputLayer) or (stepped and stepped.keeps_float32)):
                stack.enter_context(replaced(layer, dtype_policy=mixed))
        yield


@contextlib.contextmanager
def in_float32(model: keras.Model) -> Iterator[None]:
    """Has the layers of `model` compute in float32 while a function is traced, whatever policy they were made under."""
    with contextlib.ExitStack() as stack:
        for layer in model.layers:
            if layer.compute_dtype != "float32":
                stack.enter_context(replaced(layer, dtype_policy="float32"))
        yield


def begin_batch(model: keras.Model, batch: StepBatch) -> None:
    """Tells the layers of `model` of the batch that is run next; within `as_trained`."""
    for layer in model.layers:
        if isinstance(layer, Stepped):
            layer.begin_batch(batch)


def replica_seed(seed: tf.Tensor) -> tf.Tensor:
    """Returns the seed int64 [2] of a layer's draws in this replica; that of the first one is `seed` itself.

    It is asked for where the layer is called: replicas are traced by turns, and share the layer's attributes.
    """
    context = tf.distribute.get_replica_context()
    replica = 0 if context is None else context.replica_id_in_sync_group
    return tf.cast(seed, tf.int64) + tf.stack([_REPLICA_SEED * tf.cast(replica, tf.int64), tf.constant(0, tf.int64)])
