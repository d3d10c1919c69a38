"""ImageNet checkpoints opened as classifiers, with the layers that a segmentation leaves out."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import keras

from deeplab_tf.arch import ARCHITECTURES
from deeplab_tf.config import ModelConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.network.classifier import build_classifier
from deeplab_tf.weights.inferred_config import infer_config
from deeplab_tf.weights.loading import weights_path
from deeplab_tf.weights.names import AVERAGE
from deeplab_tf.weights.sources import open_source
from deeplab_tf.weights.tf1 import Receipt, averaged, load_source
from deeplab_tf.zoo import lookup


@dataclasses.dataclass(frozen=True)
class OpenedClassifier:
    """A classifier with its weights.

    Attributes:
      model: images [b, h, w, 3] of 0..255 -> logits [b, classes].
      config: of its backbone.
      classes: their number.
      side: pixels of the sides of the pictures that it takes.
      receipt: what became of every variable of the file.
      notes: what a user should know of how the file was read.
    """

    model: keras.Model
    config: ModelConfig
    classes: int
    side: int
    receipt: Receipt
    notes: tuple[str, ...]


def open_classifier(path: str | os.PathLike[str], changes: Mapping[str, Any] | None = None) -> OpenedClassifier:
    """Opens ImageNet weights as the classifier that they are.

    Moving averages (slim's checkpoints have them) take the places of the weights that have one, as in the published
    accuracies.

    Args:
      path: as in `weights.loading.open_model`: a checkpoint of TensorFlow 1, its archive, or a name of the zoo.
      changes: explicit fields of ModelConfig.

    Raises:
      DeepLabError: nothing is there, it is damaged or not recognised, or holds no classifier.
    """
    name = os.fspath(path)
    entry = lookup.CHECKPOINTS.get(name) or lookup.find_by_file(name)
    with open_source(weights_path(path)) as source:
        config, _, notes = infer_config(source, changes or {}, entry)
        architecture = ARCHITECTURES[config.model_variant]
        end = architecture.classifier
        kernel = source.shapes.get(f"{architecture.scope}/{end.logits}/weights") if end else None
        if end is None or kernel is None:
            known = ", ".join(e.name for e in lookup.CHECKPOINTS.values() if e.kind == "backbone")
            raise DeepLabError(
                f"{source.path}: holds no ImageNet classifier of {config.model_variant}; expected a checkpoint as "
                f"published for ImageNet, with its logits (the zoo has {known})"
            )
        tail = source.shapes.get(f"{architecture.scope}/{end.tail}/weights") if end.tail else None
        model = build_classifier(config, kernel[-1], tail_filters=tail[-1] if tail else None, zeros=True)
        if any(variable.endswith(f"/{AVERAGE}") for variable in source.shapes):
            source = averaged(source)
        receipt = load_source(model, source)
    relevant = [note for note in notes if not note.startswith("--output_stride")]
    return OpenedClassifier(model, config, kernel[-1], end.side, receipt, (*receipt.notes, *relevant))
