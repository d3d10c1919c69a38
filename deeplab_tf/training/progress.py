"""How a training run is going: means and speed between two lines of its log, and the signals that end it."""

import dataclasses
import signal
import threading
import time
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from deeplab_tf.evaluation.passes import Observer


@dataclasses.dataclass(frozen=True)
class Progress:
    """The state of a run at one line of its log: updates done, mean losses since the last line, the rate of the last
    update, images a second, the share of the time that was spent waiting for data, and seconds to the end at this
    pace."""

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
    """An observer that is also told how the training itself goes."""

    def progressed(self, progress: Progress) -> None:
        """Called with each line of the log, every log_steps."""


class StopSignals:
    """Notes SIGTERM and SIGINT (control-C) while it is entered, so that the loop can end after the update at hand."""

    def __init__(self):
        self.received = self.interrupted = False
        self._before = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def _note(self, number, frame):
        del frame
        self.received = True
        self.interrupted = self.interrupted or number == signal.SIGINT

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)


class Meter:
    """Sums what the steps since the last line of the log gave."""

    def __init__(self, batch_size: int):
        self._batch_size = batch_size
        self._restart()

    def _restart(self):
        self._results, self._waited, self._start = [], 0.0, time.monotonic()

    def add(self, results: Mapping[str, tf.Tensor], waited: float):
        self._results.append(results)
        self._waited += waited

    def __bool__(self):
        return bool(self._results)

    def line(self, step: int, steps: int) -> Progress:
        """Returns the means, and begins anew. Reading the results waits for the device, so only here it is done."""

        def mean(name: str) -> float:
            return float(np.mean([float(results[name]) for results in self._results]))

        seconds = max(time.monotonic() - self._start, 1e-9)
        progress = Progress(
            step=step,
            steps=steps,
            learning_rate=float(self._results[-1]["learning_rate"]),
            images_per_second=len(self._results) * self._batch_size / seconds,
            waiting=min(1.0, self._waited / seconds),
            seconds_left=(steps - step) * seconds / len(self._results),
            total_loss=mean("total_loss"),
            cross_entropy=mean("cross_entropy"),
            regularization=mean("regularization"),
        )
        self._restart()
        return progress
