"""Pass, a checkpoint with the records that it is run over, and Observer, which an evaluation reports to."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from deeplab_tf.catalog.datasets import Dataset
from deeplab_tf.config import EvalConfig
from deeplab_tf.data.examples import ExampleSource
from deeplab_tf.data.pipeline import evaluation_batches
from deeplab_tf.inference.exported import Runnable


@dataclasses.dataclass(frozen=True)
class Opened:
    """A checkpoint that was read: its path or name, its number of updates (global_step), and the model with it.

    `config` has the options that it is run with: those of its run where the user gives none.
    """

    path: str
    step: int
    loaded: Runnable
    config: EvalConfig = dataclasses.field(default_factory=EvalConfig)


@dataclasses.dataclass(frozen=True, eq=False)
class Pass:
    """One checkpoint over the records of one split, opened and indexed once and passed on whole.

    Attributes:
      opened: the checkpoint.
      records: the examples, `records.count` of the split `records.split`; `records.config` has the options of reading.
    """

    opened: Opened
    records: ExampleSource

    @property
    def config(self) -> EvalConfig:
        """The options that it is run with; of `vis` they are a VisConfig."""
        return self.opened.config

    @property
    def facts(self) -> Dataset:
        """The data set of the records: its classes and its ignore label."""
        return self.records.facts

    @property
    def contaminated(self) -> str | None:
        """Why the weights have seen the images of the split, in one sentence; None where nothing says so."""
        return self.opened.loaded.card.seen(self.facts.name, self.records.split)

    def batches(self) -> tf.data.Dataset:
        """Returns the batches of `pipeline.make_dataset` for evaluation: every example once, in order."""
        return evaluation_batches(self.records)


@dataclasses.dataclass(frozen=True)
class ScoredImage:
    """One picture as it was scored, at its own size: image uint8 [h, w, 3], label and prediction integers [h, w]."""

    image: np.ndarray
    label: np.ndarray
    prediction: np.ndarray
    name: str = ""


class Observer:
    """The interface by which an evaluation reports what it does. This one is silent; override what you want to show.

    For each checkpoint `begin` is called first, then `scored` and `advance` after each batch; `tell` at any time.
    """

    def tell(self, line: str) -> None:
        """Called with a line that the user should read, for instance what is waited for."""

    def begin(self, work: Pass) -> None:
        """Called with a checkpoint that was read, before it is scored or drawn."""

    def scored(self, images: Iterator[ScoredImage]) -> None:
        """Called with the pictures of a batch that was scored; they are made when they are asked for."""

    def advance(self, count: int) -> None:
        """Called with the number of images that were done since the last call."""


SILENT = Observer()
