"""The network as it is exported, run by TensorFlow itself: batch norms folded into kernels, and those constants.

TensorFlow arranges constant kernels for the processor once, where those of variables are arranged for every picture. It
is no replacement for `TensorFlowBackend`, which shares the model's weights, follows them, and has the release's order
of operations: a folded norm rounds otherwise. So its classes are compared before it is used, as those of any library.
"""

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from deeplab_tf.config import ExportConfig, ModelConfig
from deeplab_tf.inference.folded_graph import read_weights
from deeplab_tf.inference.graph import Segmentation, as_function, build_graph_def
from deeplab_tf.inference.libraries import told
from deeplab_tf.inference.predictor import TensorFlowBackend
from deeplab_tf.network.sizes import needs_fixed_size

_LOGITS = ExportConfig(format="frozen_pb", outputs=("logits",), export_upsample="none")


class _Network(Segmentation):
    """The network alone, for images that are padded already."""

    def _padded(self, pixels: tf.Tensor, inner: Any) -> tf.Tensor:
        return pixels


class FrozenBackend(TensorFlowBackend):
    """Runs a copy of the network with the weights it has when a graph is first needed: a `Backend`.

    Args:
      model: from `build_model` or `load`. The caller keeps it: the model may keep the backend.
    """

    name = "TensorFlow, frozen"

    def logits(self, images: np.ndarray | tf.Tensor, config: ModelConfig) -> tf.Tensor:
        """Returns the logits of images; see `Backend`.

        Raises:
          DeepLabError: TensorFlow cannot run the graph.
        """
        with told(self.name):
            return super().logits(images, config)

    def release(self) -> None:
        """Gives the memory of the weights back; they are copied anew where the network is run again."""
        self._networks.clear()

    def _compiled(self, config: ModelConfig):
        config = config if needs_fixed_size(config) else dataclasses.replace(config, crop_size=None)
        height, width = config.crop_size or (None, None)
        network = _Network(config, read_weights(self._the_model()), _LOGITS, "tensorflow")
        graph = build_graph_def(network, (None, height, width, config.input_channels), tf.float32)
        run = as_function(graph, network.outputs).get_concrete_function()
        (name,) = run.structured_outputs
        return lambda images: run(tf.convert_to_tensor(images))[name]
