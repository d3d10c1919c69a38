"""Progress of a training run: means and speed between two lines of its log, and the signals that end it."""

import dataclasses
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from deeplab_tf.evaluation.passes import Observer
from deeplab_tf.training.loop import Updates


@dataclasses.dataclass(frozen=True)
class Progress:
    """The state of a run at one line of its log.

    Attributes:
      step: number of updates done.
      steps: number of updates of the whole run.
      total_loss: the mean since the last line, as are the other two.
      cross_entropy: the configured loss, whichever that is.
      regularization: the L2 part.
      learning_rate: the policy's, of the last update.
      images_per_second: since the last line, over all devices.
      waiting: share of the time, 0..1, that was spent waiting for data.
      seconds_left: to the end of the run at this pace.
    """

    step: int
    steps: int
    total_loss: float
    cross_entropy: float
    regularization: float
    learning_rate: float
    images_per_second: float
    waiting: float
    seconds_left: float

    def tags(self) -> dict[str, float]:
        """Returns the numbers by their TensorBoard tags, the release's where it has them."""
        return {
            "total_loss": self.total_loss,
            "losses/cross_entropy": self.cross_entropy,
            "losses/regularization": self.regularization,
            "learning_rate": self.learning_rate,
            "images_per_second": self.images_per_second,
            "waiting_for_data": self.waiting,
        }


class TrainingObserver(Observer):
    """An observer that also gets the progress of the training."""

    def progressed(self, progress: Progress) -> None:
        """Called with each line of the log, every log_steps."""

    def described(self, lines: Iterable[str]) -> None:
        """Called at the start with what the run is: data, devices, folder."""

    def validated(self, miou: float) -> None:
        """Called with each score of run.mode=train_and_eval, 0..1."""


_WAITING = 0.1  # of the time between two lines of the log: from there on data is worth a line


class InputAdvice:
    """Says once what makes the input faster, where a run waits for it.

    Args:
      cached: whether decoded_cache is on.
      epoch: updates that see every record once.
    """

    def __init__(self, *, cached: bool, epoch: int) -> None:
        self._cached = cached
        self._epoch = epoch
        self._intervals = 0
        self._given = False

    def lines(self, waiting: float, steps: int) -> Iterator[str]:
        """Yields what to say after an interval of the log, once a run.

        The first interval says nothing, as it begins with compiling, nor does the first epoch of a cache, which fills
        it.

        Args:
          waiting: share of the interval, 0..1, that was spent waiting for data.
          steps: updates of this process so far.
        """
        self._intervals += 1
        filling = self._cached and steps <= self._epoch
        if self._given or self._intervals == 1 or filling or waiting <= _WAITING:
            return
        self._given = True
        if self._cached:
            cure = f"the {os.cpu_count()} processors of this machine do not keep up; more of them, or a faster disk, do"
        else:
            cure = "--decoded_cache=FOLDER, on a disk of this machine, decodes each picture once only"
        yield f"Note: {waiting:.0%} of the time is spent waiting for data: {cure}"


class StopSignals:
    """Notes SIGTERM and SIGINT (control-C) during the context, so that the loop can end after the update at hand.

    Outside the main thread, where Python allows no handlers, it notes nothing.

    Attributes:
      received: whether one of the two came.
      interrupted: whether SIGINT did.
    """

    def __init__(self) -> None:
        self.received = False
        self.interrupted = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame: object) -> None:
        del frame
        self.received = True
        self.interrupted = self.interrupted or number == signal.SIGINT

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


class Meter:
    """Collects the results of the steps since the last line of the log; false while there are none.

    Args:
      batch_size: images of a step, over all devices.
    """

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._restart()

    def _restart(self) -> None:
        self._results: list[Mapping[str, Any]] = []
        self._steps = 0
        self._waited = 0.0
        self._start = time.monotonic()

    def add(self, updates: Updates) -> None:
        """Adds what came of some updates."""
        self._results.append(updates.results)
        self._steps += updates.count
        self._waited += updates.waited

    def __bool__(self) -> bool:
        return bool(self._results)

    def line(self, step: int, steps: int) -> Progress:
        """Returns the progress at `step` of `steps`, and begins anew."""
        # Reading a result waits for the device. Done in each step, it would keep the next one from being queued.

        def values(name: str) -> np.ndarray:
            return np.concatenate([np.ravel(results[name]).astype(np.float64) for results in self._results])

        def mean(name: str) -> float:
            return float(np.mean(values(name)))

        seconds = max(time.monotonic() - self._start, 1e-9)
        progress = Progress(
            step=step,
            steps=steps,
            learning_rate=float(values("learning_rate")[-1]),
            images_per_second=self._steps * self._batch_size / seconds,
            waiting=min(1.0, self._waited / seconds),
            seconds_left=(steps - step) * seconds / self._steps,
            total_loss=mean("total_loss"),
            cross_entropy=mean("cross_entropy"),
            regularization=mean("regularization"),
        )
        self._restart()
        return progress
