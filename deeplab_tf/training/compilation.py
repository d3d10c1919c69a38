"""What compiles a training step, TensorFlow or XLA, by the option and the devices (`compiled_by_xla`)."""

import keras
import tensorflow as tf

from deeplab_tf.config import TrainConfig
from deeplab_tf.errors import DeepLabError


def device_kinds(model: keras.Model, strategy: tf.distribute.Strategy | None) -> set[str]:
    """Returns the kinds of the devices that train `model`: CPU, GPU, TPU."""
    if strategy is not None:
        names = strategy.extended.worker_devices
    else:
        names = [variable.value.device for variable in model.weights]
    kinds = {tf.DeviceSpec.from_string(name).device_type for name in names}
    return {kind for kind in kinds if kind} or {"CPU"}


def on_tpu(model: keras.Model, strategy: tf.distribute.Strategy | None) -> bool:
    """Returns whether TPUs train `model`, where the strategy itself has XLA compile what it runs."""
    return "TPU" in device_kinds(model, strategy)


def compiled_by_xla(config: TrainConfig, model: keras.Model, strategy: tf.distribute.Strategy | None) -> bool:
    """Returns whether XLA compiles the step.

    Args:
      config: its jit_compile; auto: XLA on one GPU and on TPUs.
      model: the network, on its devices.
      strategy: of the step.

    Raises:
      DeepLabError: jit_compile=false on a TPU, which runs nothing else; jit_compile=true on several other devices,
        whose sums of gradients XLA cannot compile.
    """
    if on_tpu(model, strategy):
        if config.jit_compile == "false":
            raise DeepLabError("jit_compile=false: a TPU runs what XLA compiles only; expected auto, or other devices")
        return True
    if strategy is not None and strategy.num_replicas_in_sync > 1:
        if config.jit_compile == "true":
            raise DeepLabError("jit_compile=true: expected one device (a TPU's step is always compiled); leave it out")
        return False
    return device_kinds(model, strategy) == {"GPU"} if config.jit_compile == "auto" else config.jit_compile == "true"
