"""What compiles a training step, TensorFlow or XLA (`compiler_of`), and what XLA says where it cannot (`refusal`)."""

import dataclasses
import re

import tensorflow as tf

from deeplab_tf.config import TrainConfig
from deeplab_tf.errors import DeepLabError, is_out_of_memory
from deeplab_tf.training.precision import Hardware

_OF_SYNCED_NORMS = (
    "sync_batch_norm sums statistics between the devices in the midst of the network, which XLA cannot compile here"
)


@dataclasses.dataclass(frozen=True)
class Compiler:
    """What compiles a step.

    Attributes:
      xla: whether it is XLA; else TensorFlow runs the step.
      why_not: why auto leaves to TensorFlow what XLA compiles elsewhere; "" where the option asks for nothing else.
    """

    xla: bool
    why_not: str = ""


def compiler_of(config: TrainConfig, hardware: Hardware, replicas: int) -> Compiler:
    """Returns what compiles the step.

    Args:
      config: its jit_compile; auto: XLA on GPUs and TPUs.
      hardware: the devices of this process that train.
      replicas: the devices that share a batch, over all processes.

    Raises:
      DeepLabError: jit_compile=false on a TPU, which runs nothing else; jit_compile=true on several other devices whose
        batch norms share their statistics.
    """
    if hardware.kind == "TPU":
        if config.jit_compile == "false":
            raise DeepLabError("jit_compile=false: a TPU runs what XLA compiles only; expected auto, or other devices")
        return Compiler(xla=True)
    synced = config.sync_batch_norm and config.fine_tune_batch_norm and not config.freeze_batch_norm
    if replicas > 1 and synced:
        if config.jit_compile == "true":
            raise DeepLabError(f"jit_compile=true: {_OF_SYNCED_NORMS}; expected auto or false, or no sync_batch_norm")
        wanted = config.jit_compile == "auto" and hardware.kind == "GPU"
        return Compiler(xla=False, why_not=_OF_SYNCED_NORMS if wanted else "")
    return Compiler(xla=hardware.kind == "GPU" if config.jit_compile == "auto" else config.jit_compile == "true")


# What the input, another worker or a signal ends a step with, and compiling does not.
_OF_OTHERS = (
    tf.errors.OutOfRangeError,
    tf.errors.CancelledError,
    tf.errors.AbortedError,
    tf.errors.UnavailableError,
    tf.errors.DeadlineExceededError,
)
_OF_INPUT = re.compile(r"Iterator\w*GetNext|\w+Dataset\w*::")
# Names of functions, the options that a message repeats after them, and the numbers of several errors.
_CLUTTER = re.compile(r"\{\{function_node .*?\}\} ?|\[(_XlaMustCompile[^\]]*)?\](?= on |$)|^\(\d+\) [A-Z_]+: ")
_NODE = re.compile(r"\{\{node (.*?)\}\}")
# What comes before the reason: where the operation was made.
_OF_TRACES = re.compile(r'\d+ root error|Graph execution error|Detected at node|<stack traces|File "')
_LONGEST = 240


def refusal(error: Exception) -> str | None:
    """Returns why XLA did not compile a step, in a line; None where the error is of the input, memory or others.

    error: of the first call of the step. XLA reports what it cannot compile under several codes.
    """
    if not isinstance(error, tf.errors.OpError) or isinstance(error, _OF_OTHERS) or is_out_of_memory(error):
        return None
    if _OF_INPUT.search(str(error)):
        return None
    lines = [
        _NODE.sub(r"\1", _CLUTTER.sub("", line.strip())).strip()
        for line in str(getattr(error, "message", error)).splitlines()
    ]
    telling = [line for line in lines if line and not _OF_TRACES.match(line)]
    text = telling[0] if telling else type(error).__name__
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
