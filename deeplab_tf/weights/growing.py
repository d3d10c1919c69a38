"""A network with more classes: its last layer grown, all other weights as they were."""

import dataclasses
import math
from collections.abc import Sequence

import keras
import numpy as np

from deeplab_tf.arch import head
from deeplab_tf.catalog.datasets import Dataset
from deeplab_tf.catalog.palettes import further_colours
from deeplab_tf.errors import DeepLabError
from deeplab_tf.network.build import build_model
from deeplab_tf.weights.model_directory import ModelCard
from deeplab_tf.weights.tf1 import variable_map

_MOST_CLASSES = 254  # labels are bytes, and one of them is ignored


def grown_classes(card: ModelCard, added: Sequence[str]) -> Dataset:
    """Returns the classes of a model with the `added` ones after them, in colours that it does not use yet.

    Raises:
      DeepLabError: a name is empty, there twice or a class already; there are more classes than labels; or nothing says
        what the classes of the model are called.
    """
    if not card.class_names:
        raise DeepLabError(
            "nothing says which classes the model tells apart; convert it with --dataset, then extend it"
        )
    twice = [name for i, name in enumerate(added) if name in (*card.class_names, *added[:i]) or not name.strip()]
    if twice or not added:
        names = ", ".join(card.class_names[:8]) + (", ..." if len(card.class_names) > 8 else "")
        raise DeepLabError(
            f"--add={','.join(added)}: {twice[0] if twice else ''!r} is not a new name; expected the names of classes "
            f"that the model does not have; it has {names}"
        )
    names = (*card.class_names, *added)
    if len(names) > _MOST_CLASSES:
        raise DeepLabError(f"--add: {len(names)} classes in all; expected at most {_MOST_CLASSES}, labels are bytes")
    used = card.shown_palette[: len(card.class_names)]
    return Dataset(
        name=f"{card.dataset or 'own'}_extended",
        num_classes=len(names),
        ignore_label=card.ignore_label if card.ignore_label >= len(names) else 255,
        class_names=names,
        palette=(*used, *further_colours(used, len(added))),
        splits={},
        colour_map="pascal",
    )


def grown_network(model: keras.Model, card: ModelCard, new: int, *, background: int) -> keras.Model:
    """Returns a network of `new` more classes, which begin as equal parts of the class `background`.

    All weights are those of `model`, to the bit, but the bias of `background`. The new classes have its weights, and
    its probability is divided among it and them, so that those of the other old classes stay (Cermelli et al. 2020,
    Modeling the Background, arXiv 2002.00718, section 3.3).

    Args:
      model: the network of `card`.
      card: its description.
      new: the number of new classes.
      background: one of the old classes.

    Raises:
      DeepLabError: the network has no last layer that can grow.
    """
    config = card.config
    if config.decoder_output_is_logits or config.quantize_as_file or card.kind == "backbone":
        reason = "a backbone" if card.kind == "backbone" else "its decoder gives the classes, or it is one of 8 bits"
        raise DeepLabError(f"the network has no last layer that can grow ({reason}); expected logits behind a decoder")
    larger = build_model(dataclasses.replace(config, num_classes=config.num_classes + new))
    ours = variable_map(model)
    branches = sum(name.startswith(head.LOGITS) and name.endswith("biases") for name in ours)
    for name, variable in variable_map(larger).items():
        value = ours[name].numpy()
        if name.startswith(head.LOGITS):
            value = np.concatenate([value, *[value[..., background : background + 1]] * new], axis=-1)
        if name.startswith(head.LOGITS) and name.endswith("biases"):
            sharing = [background, *range(config.num_classes, config.num_classes + new)]
            value[sharing] -= np.float32(math.log(new + 1) / branches)
        variable.assign(value)
    return larger
