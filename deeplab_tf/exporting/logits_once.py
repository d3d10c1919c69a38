"""A backend that runs the network once for each input, for a picture of which both classes and probabilities are asked.

It keeps what it has run: it is for one picture, and goes away with it.
"""

import numpy as np
import tensorflow as tf

from deeplab_tf.config import ModelConfig
from deeplab_tf.inference.predictor import Backend


class LogitsOnce:
    """Passes on to another backend what it has not been asked yet: a `Backend`.

    Args:
      backend: runs the network.
    """

    def __init__(self, backend: Backend):
        self.name, self.batches, self._backend = backend.name, backend.batches, backend
        self._seen: dict[tuple[ModelConfig, tuple[int, ...], bytes], np.ndarray | tf.Tensor] = {}

    def logits(self, images: np.ndarray | tf.Tensor, config: ModelConfig) -> np.ndarray | tf.Tensor:
        """Returns the logits of images; see `Backend`."""
        values = np.asarray(images)
        key = config, values.shape, values.tobytes()
        if key not in self._seen:
            self._seen[key] = self._backend.logits(images, config)
        return self._seen[key]

    def upsampled_classes(self, logits: np.ndarray | tf.Tensor, size: tuple[int, int]) -> np.ndarray:
        """Returns the classes of logits at `size`; see `Backend`."""
        return self._backend.upsampled_classes(logits, size)

    def prepare(self) -> None:
        """Does what the other backend does before the first image comes."""
        self._backend.prepare()
