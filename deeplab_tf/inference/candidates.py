"""What `--runtime=auto` chooses from (`Candidates`), and the clock and screen that it has (`Surroundings`)."""

import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from deeplab_tf.inference.libraries import Library
from deeplab_tf.inference.litert import LiteFiles
from deeplab_tf.inference.predictor import Backend

TENSORFLOW = "tf"
FROZEN = "tf_frozen"


def _to_screen(line: str) -> None:
    print(line, file=sys.stderr)


@dataclasses.dataclass(frozen=True)
class Surroundings:
    """What measuring needs of its surroundings.

    Attributes:
      tell: is called with a line to show.
      quiet: gives a context in which what libraries write on the screen is not shown.
      clock: seconds, counted from anywhere.
    """

    tell: Callable[[str], None] = _to_screen
    quiet: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext
    clock: Callable[[], float] = time.perf_counter


class Frozen(Backend, Protocol):
    """What runs a copy of the weights in TensorFlow: `frozen.FrozenBackend`."""

    def release(self) -> None:
        """Gives the memory of the copy back."""
        ...


@dataclasses.dataclass(frozen=True)
class Candidates:
    """What may run a network.

    Attributes:
      tensorflow: runs everything.
      libraries: the others, by their names as options.
      files: the converted network, for the libraries.
      frozen: the exported graph in TensorFlow; None: it is no candidate.
    """

    tensorflow: Backend
    libraries: Mapping[str, Library]
    files: LiteFiles
    frozen: Frozen | None = None

    @property
    def others(self) -> list[str]:
        """The names of all but TensorFlow as it runs everything."""
        return [*([FROZEN] if self.frozen else []), *self.libraries]

    def shown(self, runtime: str) -> str:
        """Returns the name of one to be shown."""
        if runtime in self.libraries:
            return self.libraries[runtime].name
        return self.frozen.name if self.frozen and runtime == FROZEN else self.tensorflow.name
