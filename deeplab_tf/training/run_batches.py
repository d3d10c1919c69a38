"""The records that a run trains on, and their batches from any update on."""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf

from deeplab_tf.catalog.datasets import Dataset
from deeplab_tf.config import DataConfig, RunConfig
from deeplab_tf.data.examples import named_batches, open_records
from deeplab_tf.data.identity import records_identity
from deeplab_tf.data.locate import locate_records
from deeplab_tf.data.parallel import kept_parallel
from deeplab_tf.data.pipeline import BatchPart, evaluation_batches, training_batches
from deeplab_tf.data.record_sample import training_side
from deeplab_tf.data.unlabelled import Mixed, Unlabelled


class RunBatches:
    """The batches of a run, which its seed decides. Records are located at once, and opened where batches are read.

    Args:
      facts: of the data set.
      data: how it is read and augmented.
      run: its split, the pictures without labels, whether it is deterministic.
      seed: of order and augmentation.

    Attributes:
      identity: of the records, by content; see `records_identity`.
      images: the number of labelled records.
      unlabelled: the pictures without labels; None: there are none.

    Raises:
      DeepLabError: there are no such records, or they are damaged.
    """

    def __init__(self, facts: Dataset, data: DataConfig, run: RunConfig, seed: int):
        self._data, self._run, self._seed = data, run, seed
        self._located = locate_records(data, run.train_split)
        self.identity = records_identity(facts, run.train_split, self._located)
        self.images = len(self._located.index)
        self.unlabelled = Unlabelled.of(run, data)

    def training_side(self) -> int | None:
        """Returns what `ModelCard.training_side` says of these records."""
        return training_side(self._data, self._located)

    @property
    def epoch_steps(self) -> int:
        """The number of updates that see every labelled record once."""
        batch = self._data.batch_size
        labelled = batch - self.unlabelled.of_batch(batch) if self.unlabelled else batch
        return -(-self.images // labelled)

    def dataset(
        self,
        part: tuple[int, int],
        pieces: int,
        *,
        start: int,
        steps: int | None = None,
        as_bytes: bool = False,
    ) -> tf.data.Dataset:
        """Returns batches of the training.

        Args:
          part: see `Devices.iterate`.
          pieces: the same.
          start: the number of updates before the first.
          steps: the number of updates; None: without end.
          as_bytes: as they cross to the devices; see `training_batches`.
        """
        # Opened here: the records lie on the host that this is called for.
        source = open_records(self._data, self._run.train_split, self._located)
        batches = training_batches(
            Mixed(source, self.unlabelled) if self.unlabelled else source,
            self._seed,
            start_step=start,
            part=BatchPart(*part, pieces),
            steps=steps,
            as_bytes=as_bytes,
        )
        batches = batches.map(lambda batch: {key: batch[key] for key in ("image", "label")})
        return kept_parallel(batches) if self._run.deterministic else batches

    def read_ahead(self, part: tuple[int, int], pieces: int, *, start: int) -> tf.data.Dataset:
        """Returns the batches behind `start` updates as bytes, of which the first has been read."""
        first = list(self.dataset(part, pieces, start=start, steps=1, as_bytes=True))
        rest = self.dataset(part, pieces, start=start + 1, as_bytes=True)
        with tf.device("CPU"):
            read: Any = tf.nest.map_structure(lambda *values: tf.stack(values), *first)
        return tf.data.Dataset.from_tensor_slices(read).concatenate(rest)

    def batch_of(self, step: int, replicas: int) -> Mapping[str, tf.Tensor]:
        """Returns the first of `replicas` parts of the batch of update `step`, counted from 1; reads it again."""
        return next(named_batches(self.dataset((0, replicas), 1, start=step - 1, steps=1)))

    def images_from(self, start: int, count: int) -> Iterator[tf.Tensor]:
        """Yields the images of `count` batches behind `start` updates."""
        return (batch["image"] for batch in itertools.islice(self.dataset((0, 1), 1, start=start), count))

    def try_first_record(self) -> None:
        """Reads the first record, which the first batch need not hold; DeepLabError where it is unsound."""
        if not self._data.skip_corrupt_records:
            alone = dataclasses.replace(self._data, batch_size=1, cut_mix=None, crop_size=None)
            next(named_batches(evaluation_batches(open_records(alone, self._run.train_split, self._located))))
