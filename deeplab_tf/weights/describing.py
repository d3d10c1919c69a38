"""The network of weights, told without making its variables."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from deeplab_tf import files
from deeplab_tf.catalog.datasets import DATASETS
from deeplab_tf.config import ModelConfig
from deeplab_tf.weights import hub
from deeplab_tf.weights.inferred_config import infer_config
from deeplab_tf.weights.loading import carried_card, no_such, said_by, weights_path
from deeplab_tf.weights.model_directory import ModelCard
from deeplab_tf.weights.recognize import Kind
from deeplab_tf.weights.sources import MODEL_FILE, index_of, open_source, strip_checkpoint_suffix
from deeplab_tf.zoo import lookup


@dataclasses.dataclass(frozen=True)
class Described:
    """The network of weights that training starts from, without its variables.

    Attributes:
      config: the network, as it was trained.
      kind: "segmentation", or "backbone": its head is that of the defaults.
      class_names: of the classes that it tells apart; () where nothing says which these are.
      folded: whether its batch norms are folded into the convolutions, as in a .tflite.
    """

    config: ModelConfig
    kind: Kind
    class_names: tuple[str, ...]
    folded: bool


def describe_weights(path: str | os.PathLike[str], changes: Mapping[str, Any] | None = None) -> Described:
    """Returns the network that a file, a folder or a checkpoint of the zoo has the weights of.

    Args:
      path: as in `open_model`.
      changes: fields of ModelConfig that decide what the shapes do not.

    Raises:
      DeepLabError: nothing is there, it is damaged or not recognised, or it contradicts `changes`.
    """
    name = os.fspath(path)
    path = hub.fetch(name) if hub.is_hub(name) else path
    local = files.path(path)
    prefix = strip_checkpoint_suffix(local)
    zoo = name in lookup.CHECKPOINTS and not local.exists()
    if not zoo and os.sep not in name and not local.exists() and not index_of(prefix).exists():
        raise no_such(name)
    folder = prefix.parent if index_of(prefix).is_file() else local
    with open_source(weights_path(path)) as source:
        norms = [variable for variable in source.shapes if variable.endswith("/moving_mean")]
        folded = bool(norms) and not any(source.read(variable).any() for variable in norms)
        if not zoo and (folder / MODEL_FILE).is_file():
            card = ModelCard.read(folder)
            return Described(card.config, card.kind, card.class_names, folded)
        if said := said_by(folder, changes or {}):
            return Described(said.config, said.kind, said.class_names, folded)
        entry = lookup.CHECKPOINTS[name] if zoo else lookup.find_by_file(local)
        config, kind, _ = infer_config(source, changes or {}, entry)
        if card := carried_card(source, config):
            return Described(config, kind, card.class_names, folded)
    facts = DATASETS.get(entry.dataset or "") if entry else None
    known = facts.class_names if facts and kind == "segmentation" and facts.num_classes == config.num_classes else ()
    return Described(config, kind, known, folded)
