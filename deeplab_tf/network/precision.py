"""How exactly devices compute: TensorFloat-32, TensorFlow's switch for the whole process, and what has bfloat16.

With the switch on, which is TensorFlow's default, NVIDIA's GPUs from compute capability 8.0 on round the inputs of
float32 convolutions and products to 10 bits of mantissa, and TPUs round them to bfloat16's 7. TensorFlow reads it when
an operation runs, and XLA when it compiles (tensorflow/core/kernels/numeric_options_utils.h; `PrecisionConfig` of
tf2xla), so that what was traced follows it and a compiled step keeps what it was compiled with.
"""

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

# The compute capability of Ampere, the first GPUs that have TensorFloat-32 and compute in bfloat16 by tensor cores.
CAPABLE = (8, 0)


def compute_capability(gpu: Any) -> tuple[int, int] | None:
    """Returns the compute capability of a physical device; None for a GPU that has none, as AMD's."""
    found = tf.config.experimental.get_device_details(gpu).get("compute_capability")
    return (int(found[0]), int(found[1])) if found else None


def device_name(device: Any) -> str:
    """Returns the name of a physical device as its maker has it, "NVIDIA H200", or else as TensorFlow does."""
    return str(tf.config.experimental.get_device_details(device).get("device_name") or device.name)


def rounds_float32() -> bool:
    """Returns whether a device of this machine rounds float32 while the switch is on. Does not start devices."""
    capable = [compute_capability(gpu) or (0, 0) for gpu in tf.config.list_physical_devices("GPU")]
    return bool(tf.config.list_physical_devices("TPU")) or max(capable, default=(0, 0)) >= CAPABLE


def switched_on() -> bool:
    """Returns whether TensorFlow's switch is on."""
    return bool(tf.config.experimental.tensor_float_32_execution_enabled())


def is_rounded(allowed: bool) -> bool:
    """Returns whether float32 is rounded somewhere, where it is `allowed`, the option tf32."""
    return allowed and switched_on() and rounds_float32()


def exactness_line(allowed: bool, *, cure: str = "") -> str | None:
    """Returns what to tell of a command that runs networks; None where devices compute float32 exactly anyway.

    Args:
      allowed: the option tf32.
      cure: says how it becomes faster, where the command has an option for that.
    """
    if not rounds_float32():
        return "Note: --tf32 changes nothing here: no device of this machine rounds float32" if allowed else None
    if allowed:
        return "Precision: float32, rounded to TensorFloat-32 in convolutions: not the published pixels to the last one"
    return f"Precision: float32, not rounded to TensorFloat-32: the published pixels{cure}"


class _Holds:
    """The threads that hold the switch off, and how it was before the first of them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.count = 0
        self.before = True


_HOLDS = _Holds()


@contextlib.contextmanager
def exact_float32(*, unless: bool = False) -> Iterator[None]:
    """Computes float32 exactly for the duration of the context, on every device; on a CPU it always is.

    The switch belongs to the whole process: it is off while any thread is in such a context, and as it was before after
    the last one has left.

    Args:
      unless: leaves the switch as it is.
    """
    if unless:
        yield
        return
    switch = tf.config.experimental.enable_tensor_float_32_execution
    with _HOLDS.lock:
        if not _HOLDS.count:
            _HOLDS.before = switched_on()
            switch(False)
        _HOLDS.count += 1
    try:
        yield
    finally:
        with _HOLDS.lock:
            _HOLDS.count -= 1
            if not _HOLDS.count:
                switch(_HOLDS.before)


def bfloat16_of(kind: str, gpus: Sequence[Any]) -> tuple[bool, str]:
    """Returns whether the devices of a run gain from bfloat16, and why or why not.

    Args:
      kind: of the devices: CPU, GPU or TPU.
      gpus: the physical GPUs, where it is that.
    """
    if kind == "TPU":
        return True, "TPUs compute in it"
    if kind != "GPU":
        return False, "CPUs gain nothing from bfloat16"
    weakest = min(gpus, key=lambda gpu: compute_capability(gpu) or (0, 0))
    capability = compute_capability(weakest)
    has = "no compute capability" if capability is None else f"compute capability {capability[0]}.{capability[1]}"
    if capability is None or capability < CAPABLE:
        return False, f"{device_name(weakest)} has {has}, bfloat16 needs {CAPABLE[0]}.{CAPABLE[1]}"
    return True, f"{device_name(weakest)} has {has}"
