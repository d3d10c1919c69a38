"""Summaries: the events of a run for TensorBoard, under the tags of the release's train.py."""

import contextlib
import os
from collections.abc import Iterator, Mapping

import numpy as np
import tensorflow as tf


class Summaries:
    """Writes the events of a run into its folder, unless `write` is False, as for a worker that is not the chief.

    Tags: total_loss, learning_rate, losses/cross_entropy, losses/regularization, images_per_second and
    waiting_for_data; a histogram of each variable under its TF1 name; samples/image, samples/label and
    samples/semantic, the last two times max(1, 255 // classes); the scores under their own tags.
    """

    def __init__(self, folder: str | os.PathLike[str], *, write: bool = True) -> None:
        self._writer = tf.summary.create_file_writer(str(folder)) if write else tf.summary.create_noop_writer()

    @contextlib.contextmanager
    def _at(self, step: int) -> Iterator[None]:
        with self._writer.as_default(step=step):
            yield
        self._writer.flush()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes one number for each tag."""
        with self._at(step):
            for tag, value in values.items():
                tf.summary.scalar(tag, value)

    def histograms(self, step: int, variables: Mapping[str, tf.Variable]) -> None:
        """Writes the distribution of each variable's values."""
        with self._at(step):
            for name, variable in variables.items():
                tf.summary.histogram(name, variable)

    def samples(self, step: int, images: np.ndarray, labels: np.ndarray, predictions: np.ndarray, classes: int) -> None:
        """Writes a batch: images [b, h, w, 3] in 0..255, labels and predictions [b, h, w] integers."""
        grey = max(1, 255 // classes)
        with self._at(step):
            tf.summary.image("samples/image", np.asarray(images, np.uint8))
            for tag, maps in (("samples/label", labels), ("samples/semantic", predictions)):
                tf.summary.image(tag, np.asarray(maps * grey, np.uint8)[..., None])
