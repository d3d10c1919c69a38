"""What compiles a training step, TensorFlow or XLA, by the option and the devices (`compilation_of`)."""

from collections.abc import Collection

import keras
import tensorflow as tf

from deeplab_tf.config import TrainConfig
from deeplab_tf.errors import DeepLabError

# XLA makes a step on a GPU up to four times as fast; on CPUs it is not faster, and takes minutes to compile.
_GAINING = frozenset({"GPU", "TPU"})


def device_kinds(model: keras.Model, strategy: tf.distribute.Strategy | None) -> Collection[str]:
    """Returns the kinds of the devices that train `model`: CPU, GPU, TPU."""
    if strategy is not None:
        names = strategy.extended.worker_devices
    else:
        names = [variable.value.device for variable in model.weights]
    kinds = {tf.DeviceSpec.from_string(name).device_type for name in names}
    return {kind for kind in kinds if kind} or {"CPU"}


def compiled_by_xla(config: TrainConfig, model: keras.Model, strategy: tf.distribute.Strategy | None) -> bool:
    """Returns whether XLA compiles the step.

    Args:
      config: its jit_compile; auto: XLA where all devices are GPUs or TPUs.
      model: the network, on its devices.
      strategy: of the step.

    Raises:
      DeepLabError: jit_compile=false on a TPU, which runs nothing else.
    """
    kinds = set(device_kinds(model, strategy))
    if "TPU" in kinds and config.jit_compile == "false":
        raise DeepLabError("jit_compile=false: a TPU runs what XLA compiles only; expected auto, or other devices")
    return kinds <= _GAINING if config.jit_compile == "auto" else config.jit_compile == "true"
