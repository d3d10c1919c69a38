"""One training step that is measured in a process of its own: what is asked, how it is timed, and the answer as JSON.

Nothing here imports TensorFlow or PyTorch: a process has one of them.
"""

import dataclasses
import json
import time
from collections.abc import Callable
from typing import Any

from deeplab_tf.benchmarks.peaks import StepPrecision
from deeplab_tf.errors import DeepLabError, first_line, is_out_of_memory, what_was_asked

_WARM_UP = 3  # steps after the first: libraries try their algorithms, allocators find their blocks
_TURN = 1.0  # seconds that a turn takes about
_MOST_STEPS = 20  # of a turn
_LONGEST = 300  # letters of an error


@dataclasses.dataclass(frozen=True)
class StepSpec:
    """A training step to measure.

    Attributes:
      network: its name, for `networks.named_network`.
      precision: float32, tf32 (float32 whose products a GPU rounds), bfloat16 or float16.
      device: cpu or gpu, the first one.
      batch: images of a step.
      crop: their height and width.
      rounds: turns that are timed.
      compiled: whether torch.compile compiles it; the project's own step follows its jit_compile=auto.
    """

    network: str
    precision: StepPrecision
    device: str
    batch: int
    crop: tuple[int, int]
    rounds: int
    compiled: bool = False

    @classmethod
    def of(cls, text: str) -> "StepSpec":
        """Returns the one that `text` has as JSON."""
        values = json.loads(text)
        return cls(**{**values, "crop": tuple(values["crop"])})

    def to_json(self) -> str:
        """Returns it as JSON."""
        return json.dumps(dataclasses.asdict(self))


def time_steps(step: Callable[[], Any], rounds: int, *, began: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Returns the seconds of the first step and, as a list, of a step in each of `rounds` turns.

    Args:
      step: begins a step and returns its loss, which waits for it where it becomes a float.
      rounds: the number of turns; each has as many steps as fit into a second, at least one.
      began: is called after the first step.
    """
    start = time.perf_counter()
    float(step())
    first = time.perf_counter() - start
    began()
    seconds = 0.0
    for _ in range(_WARM_UP):
        start = time.perf_counter()
        float(step())
        seconds = time.perf_counter() - start
    steps = max(1, min(_MOST_STEPS, round(_TURN / max(seconds, 1e-6))))
    turns = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(steps - 1):
            step()
        float(step())
        turns.append((time.perf_counter() - start) / steps)
    return {"first_step_s": first, "step_s": turns}


def _reason(error: Exception) -> str:
    """Returns an exception of any library in one line."""
    if isinstance(error, DeepLabError):
        return str(error)
    if is_out_of_memory(error):
        return f"not enough memory ({what_was_asked(error)})"
    return f"{type(error).__name__}: {first_line(error)}"[:_LONGEST]


def answer(measure: Callable[[StepSpec], dict[str, Any]], text: str) -> None:
    """Measures the StepSpec in `text`, and prints the figures, or the "error", as one line of JSON: the last one."""
    try:
        result = measure(StepSpec.of(text))
    except Exception as error:  # those of the libraries have nothing in common; the next measurement goes on
        result = {"error": _reason(error)}
    print(f"\n{json.dumps(result)}", flush=True)
