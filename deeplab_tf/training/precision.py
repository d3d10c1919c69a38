"""The precision of a training run: what mixed_precision=auto means on its devices, and what is told of it."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from deeplab_tf.config import ModelConfig, TrainConfig
from deeplab_tf.config.train import PRECISIONS
from deeplab_tf.network.precision import CAPABLE, bfloat16_of, compute_capability, device_name, is_rounded

AUTO = "auto"


@dataclasses.dataclass(frozen=True)
class Hardware:
    """The devices of this process that train.

    Attributes:
      kind: CPU, GPU or TPU.
      count: their number.
      gpus: the physical GPUs, where it is that.
    """

    kind: str
    count: int
    gpus: Sequence[Any] = ()

    @classmethod
    def of(cls, strategy: tf.distribute.Strategy | None) -> "Hardware":
        """Returns the devices of a strategy; of None the one that TensorFlow takes by itself."""
        gpus = tf.config.list_physical_devices("GPU")
        if strategy is None:
            return cls("GPU", 1, gpus[:1]) if gpus else cls("CPU", 1)
        names = [tf.DeviceSpec.from_string(name) for name in strategy.extended.worker_devices]
        kind = str(names[0].device_type)
        return cls(kind, len(names), [gpus[name.device_index] for name in names] if kind == "GPU" else ())

    @property
    def names(self) -> list[str]:
        """What the devices are called, one name each."""
        return [device_name(gpu) for gpu in self.gpus] or [self.kind] * self.count

    def described(self) -> str:
        """Returns the devices as they are printed: 2 x NVIDIA H200."""
        counts = {name: self.names.count(name) for name in self.names}
        return ", ".join(f"{count} x {name}" for name, count in counts.items())

    def rounds_float32(self) -> bool:
        """Returns whether the devices round float32 where TensorFlow's switch lets them."""
        return self.kind == "TPU" or any((compute_capability(gpu) or (0, 0)) >= CAPABLE for gpu in self.gpus)


def settled(
    config: TrainConfig, model: ModelConfig, hardware: Hardware, run: Mapping[str, Any] | None = None
) -> tuple[TrainConfig, str]:
    """Returns the options of an update with mixed_precision=auto replaced by what it means, and the reason.

    A run that goes on keeps its precision, for its checkpoints hold what that needs: on another machine auto is what it
    was where the run began.

    Args:
      config: the options; any other precision than auto stays, without a reason.
      model: the network; quantised training needs float32.
      hardware: the devices.
      run: the run.json of a run that goes on, {} or None for a new one.
    """
    if config.mixed_precision != AUTO:
        return config, ""
    gains, reason = bfloat16_of(hardware.kind, hardware.gpus)
    if model.quantized:
        gains, reason = False, f"quantize_delay_step={model.quantize_delay_step} needs float32"
    chosen = "bfloat16" if gains else "none"
    before = (run or {}).get("mixed_precision")
    if before in PRECISIONS and before not in (AUTO, chosen):
        chosen, reason = before, f"as the run began with it (run.json); here auto would be {chosen}: {reason}"
    return dataclasses.replace(config, mixed_precision=chosen), reason


def shown(config: TrainConfig) -> str:
    """Returns the precision of an update as it is told and logged: float32, bfloat16 or float16."""
    return "float32" if config.mixed_precision == "none" else config.mixed_precision


def precision_line(config: TrainConfig, hardware: Hardware, reason: str, *, tf32: bool) -> str | None:
    """Returns what to tell of the precision of a run; None for float32 on CPUs, which is nothing new.

    Args:
      config: as `settled` returns it.
      hardware: the devices.
      reason: from there too.
      tf32: the option of the run.
    """
    rounds = hardware.rounds_float32()
    if not (reason or rounds or config.mixed_precision != "none"):
        return "Note: --notf32 changes nothing here: these devices do not round float32" if not tf32 else None
    because = f" (--mixed_precision=auto: {reason})" if reason else ""
    if config.mixed_precision != "none":
        because += ", weights, batch norm's statistics and the loss in float32"
    switch = "on" if is_rounded(tf32) else "off"
    return f"Precision: {shown(config)}{because}" + (f"; TensorFloat-32 {switch}, for scores off" if rounds else "")
