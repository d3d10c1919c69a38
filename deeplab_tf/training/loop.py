"""Updates from an iterator of batches: one a call (`SingleSteps`), or several (`StepLoop`), and how many (`Pace`)."""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import tensorflow as tf

from deeplab_tf.errors import DeepLabError
from deeplab_tf.training.step import TrainStep

_LOGGED = ("total_loss", "cross_entropy", "regularization", "learning_rate")
_LONG = 1.0  # seconds that a loop takes where auto decides: so long a signal waits, and starting it costs nothing


@dataclasses.dataclass(frozen=True)
class Updates:
    """What came of some updates.

    Attributes:
      results: numbers of the step by name, a scalar of one update or [count].
      count: the number of updates.
      waited: seconds that they waited for their batches.
    """

    results: Mapping[str, Any]
    count: int
    waited: float


class Updater(Protocol):
    """Does updates."""

    def __call__(self, most: int) -> Updates:
        """Does some updates, at least one and at most `most`.

        Raises:
          DeepLabError: the batches have ended.
        """
        ...


def _ended() -> DeepLabError:
    return DeepLabError("the input has ended before the training: expected batches without end")


class SingleSteps:
    """Does one update a call, and does not wait for its results."""

    def __init__(self, step: TrainStep, batches: Iterator[Mapping]) -> None:
        self._step = step
        self._batches = batches

    def __call__(self, most: int) -> Updates:
        """Does one update; see `Updater`."""
        del most
        start = time.monotonic()
        batch = next(self._batches, None)
        if batch is None:
            raise _ended()
        waited = time.monotonic() - start
        return Updates(self._step(batch["image"], batch["label"]), 1, waited)


class Pace:
    """How many steps a loop takes: `asked`, or with "auto" as many as take about a second.

    The first loop of auto, which is traced and compiled, has one step, and the second two.

    Args:
      asked: steps_per_loop.
      most: steps that a loop of auto takes at most.
    """

    def __init__(self, asked: int | str, most: int) -> None:
        self._asked = asked
        self._most = most
        self._first = True
        self._last: float | None = None
        self._fastest: float | None = None

    def steps(self) -> int:
        """Returns the number of steps of the next loop, where nothing else bounds it."""
        if isinstance(self._asked, int):
            return self._asked
        if self._last is None:
            return 1 if self._first else min(2, self._most)
        return min(self._most, max(1, int(_LONG / self._last)))

    def within(self, seconds: float) -> int:
        """Returns the number of steps, at least 1, after which about `seconds` will have passed."""
        if self._last is None:
            return 1 if seconds <= 0 else self._most
        return max(1, int(min(seconds / self._last, 1e9)))

    def note(self, count: int, seconds: float, *, traced: bool) -> float:
        """Notes how long a loop of `count` steps took; returns the seconds above those of the fastest steps so far.

        traced: whether the loop was traced and compiled first, so that its time says nothing, and steps are others now.
        """
        self._first = False
        if traced:
            self._last = self._fastest = None
            return 0.0
        self._last = max(seconds / count, 1e-6)
        self._fastest = min(self._last, self._fastest or self._last)
        return seconds - count * self._fastest


class StepLoop:
    """Does several updates a call: a loop in the graph, which takes its batches from the iterator itself.

    Nothing comes back to the host before its end but one row of numbers for each step, and the number of steps is a
    tensor: loops of all lengths are one function, traced once (and once more where freeze_steps ends).

    How long the steps wait for data nobody sees in there, as TensorFlow has no clock in a graph of deterministic
    operations, and one on a device would have the host wait for that. It is estimated: the data is taken to be what
    makes steps slower than the fastest ones. Those at the beginning find batches that were read ahead while the step
    was compiled.

    Args:
      step: the update.
      batches: the iterator of the devices.
      pace: how many steps a loop takes.
      strategy: that of the step.
      again: returns the batches that follow the updates done. Where XLA cannot compile the step, the loop has taken a
        batch by then; without this the error is raised.
    """

    def __init__(
        self,
        step: TrainStep,
        batches: Iterator[Mapping],
        pace: Pace,
        *,
        strategy: tf.distribute.Strategy | None = None,
        again: Callable[[], Iterator[Mapping]] | None = None,
    ) -> None:
        self._again = again
        self._step = step
        self._batches = batches
        self._pace = pace
        self._strategy = strategy
        self._traced: set[bool] = set()
        self.compiled = tf.function(self._updates, autograph=False)

    def __call__(self, most: int) -> Updates:
        """Does as many updates as the pace has it; see `Updater`."""
        count = min(most, self._pace.steps())
        first_phase = self._step.in_first_phase()
        start = time.monotonic()

        def run() -> Any:
            return self.compiled(tf.constant(count), first_phase=first_phase).numpy()  # waits for the last step

        try:
            # XLA compiles what a loop of steps calls where the first loop of its phase runs.
            again = functools.partial(self._run_again, run) if self._again else None
            numbers = self._step.attempt(run, again, what=first_phase) if again else run()
        except tf.errors.OutOfRangeError:
            raise _ended() from None
        waited = self._pace.note(count, time.monotonic() - start, traced=first_phase not in self._traced)
        self._traced.add(first_phase)
        results = {name: numbers[:, column] for column, name in enumerate(_LOGGED)}
        return Updates(results, count, waited)

    def _run_again(self, run: Callable[[], Any]) -> Any:
        """Returns what `run` does, traced anew, with the batches that follow the updates done."""
        assert self._again
        self._batches = self._again()
        self._traced.clear()
        self.compiled = tf.function(self._updates, autograph=False)
        return run()

    def _updates(self, count: tf.Tensor, *, first_phase: bool) -> tf.Tensor:
        """Returns the numbers in _LOGGED of each of `count` (int32 scalar) updates, float32 [count, 4]."""
        rows = tf.TensorArray(tf.float32, count, element_shape=[len(_LOGGED)])

        def update(number: tf.Tensor, rows: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
            batch = next(self._batches)
            results = self._step.update(batch["image"], batch["label"], first_phase=first_phase)
            row = tf.stack([self._local(results[name]) for name in _LOGGED])
            return number + 1, rows.write(number, row)

        # A step needs the weights of the one before.
        start = tf.constant(0), rows
        _, rows = tf.while_loop(lambda number, _: number < count, update, start, parallel_iterations=1)
        return rows.stack()

    def _local(self, value: Any) -> tf.Tensor:
        """Returns the first device's part of a value."""
        return self._strategy.experimental_local_results(value)[0] if self._strategy else value
