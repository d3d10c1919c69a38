"""`load` and `load_backbone`: models with their weights, whole, with a new head, or without one."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import keras

from deeplab_tf import files
from deeplab_tf.config import ModelConfig
from deeplab_tf.network.backbone import build_backbone
from deeplab_tf.network.build import build_model
from deeplab_tf.network.model import Network
from deeplab_tf.weights import keras_file
from deeplab_tf.weights.loading import Loaded, open_model
from deeplab_tf.weights.variables import variable_map


def with_new_head(loaded: Loaded, num_classes: int) -> Loaded:
    """Returns a network for other classes with the weights that fit, and a new head; a backbone gets a whole one.

    The receipt says which variables are new, and which of the source had no place.
    """
    config = dataclasses.replace(loaded.card.config, num_classes=num_classes)
    if config.decoder_output_is_logits:
        config = dataclasses.replace(config, decoder_filters=num_classes)
    model = build_model(config)
    before, variables = variable_map(loaded.model), variable_map(model)
    kept = {name: entry for name, entry in loaded.receipt.loaded.items() if name in variables}
    kept = {name: entry for name, entry in kept.items() if list(variables[name].shape) == entry["shape"]}
    for name in kept:
        variables[name].assign(before[name])
    entries = {name: {**entry, "target": variables[name].path} for name, entry in kept.items()}
    replaced = {
        name: {"shape": entry["shape"], "reason": f"of a head for other classes than {num_classes}"}
        for name, entry in loaded.receipt.loaded.items()
        if name not in kept
    }
    new = tuple(name for name in variables if name not in kept)
    skipped = {**loaded.receipt.skipped, **replaced}
    receipt = dataclasses.replace(loaded.receipt, loaded=entries, skipped=skipped, new=new)
    names = tuple(f"class {i}" for i in range(num_classes))
    facts: dict[str, Any] = {"kind": "segmentation", "dataset": None, "class_names": names, "palette": ()}
    card = dataclasses.replace(loaded.card, config=config, **facts, train_split=None, training_side=None)
    card.attach(model)
    return Loaded(card, model, receipt, {}, loaded.notes)


def load(
    path: str | os.PathLike[str], *, class_names: Sequence[str] | None = None, **changes: Any
) -> tuple[ModelConfig, keras.Model]:
    """Returns the configuration and the model, with its weights, of any file or folder that holds weights.

    The checkpoint that ships with the package needs no network:

    >>> config, model = deeplab_tf.load("shapes_resnet")
    >>> config.model_variant, config.num_classes, config.output_stride
    ('small_resnet', 9, 16)
    >>> model.output_shape
    (None, None, None, 9)

    For other classes it keeps what fits and begins a new head:

    >>> config, model = deeplab_tf.load("shapes_resnet", num_classes=3)
    >>> print(model.receipt.summary())
    115 variables loaded, 2 new: logits/semantic/weights, logits/semantic/biases; ...

    Names of classes travel with a model, also in the files that Keras saves:

    >>> _, model = deeplab_tf.load("shapes_resnet", class_names=["sky", "tree", "road"])
    >>> model.class_names
    ('sky', 'tree', 'road')

    Args:
      path: a model directory, a TF1 checkpoint (prefix, folder or .tar.gz), a frozen .pb or .tflite of the
        release, a .caffemodel of DeepLab v1 or v2, a .keras or .h5 that Keras saved of a whole model, a .weights.h5, or
        a name that `deeplab-tf zoo` lists (downloaded once).
      class_names: the names of the classes, by their index. Where they are more or fewer than the classes of the
        weights, the head is new, as with `num_classes`; else they only replace the names.
      **changes: fields of ModelConfig that the weights do not tell, such as `crop_size=(513, 513)`, or that may differ
        from training, such as `output_stride=8`. With another `num_classes` than the weights' the head is new, and
        weights of a backbone alone get a whole head.

    Returns:
      (config, model). The model's `receipt` says what became of every variable.

    Raises:
      DeepLabError: nothing is there, it is damaged or not recognised, or it contradicts `changes`.
    """
    changes = dict(changes)
    if class_names is not None and not keras_file.is_weights_alone(files.path(path)):
        changes.setdefault("num_classes", len(class_names))
    num_classes = None if keras_file.is_weights_alone(files.path(path)) else changes.pop("num_classes", None)
    loaded = open_model(path, changes)
    backbone = loaded.card.kind == "backbone"
    if num_classes is not None and (backbone or num_classes != loaded.card.config.num_classes):
        loaded = with_new_head(loaded, num_classes)
    if isinstance(loaded.model, Network):
        loaded.model.receipt = loaded.receipt
        if class_names is not None:
            loaded.model.class_names = class_names
    return loaded.card.config, loaded.model


def load_backbone(path: str | os.PathLike[str], **changes: Any) -> tuple[ModelConfig, keras.Model]:
    """Returns the configuration and the backbone alone, with its weights, as `build_backbone` builds it.

    >>> config, backbone = deeplab_tf.load_backbone("shapes_resnet", crop_size=(65, 65))
    >>> backbone.output["features"].shape
    (None, 5, 5, 128)

    Args:
      path: as in `load`: weights of a whole network, or of a backbone.
      **changes: fields of ModelConfig, as in `load`.

    Raises:
      DeepLabError: as `load` raises it.
    """
    loaded = open_model(path, changes)
    if loaded.card.kind == "backbone":
        return loaded.card.config, loaded.model
    backbone = build_backbone(loaded.card.config, zeros=True)
    before = variable_map(loaded.model)
    for name, variable in variable_map(backbone).items():
        variable.assign(before[name])
    return loaded.card.config, backbone
