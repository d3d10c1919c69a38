"""The classes that a model tells apart: their names and colours on its card."""

import dataclasses

from deeplab_tf.catalog.datasets import DATASETS
from deeplab_tf.catalog.palettes import default_palette
from deeplab_tf.data.find import find_dataset
from deeplab_tf.errors import DeepLabError
from deeplab_tf.weights import hugging_face
from deeplab_tf.weights.model_directory import ModelCard
from deeplab_tf.zoo.entry import ReleasedCheckpoint

_LARGEST_PALETTE = 256


def with_classes(card: ModelCard, dataset: str | None, entry: ReleasedCheckpoint | None) -> tuple[ModelCard, list[str]]:
    """Returns `card` with its data set, class names and colours, and a note if the data set is a guess."""
    num_classes = card.config.num_classes
    if dataset is not None:
        return with_dataset(card, dataset), []
    if entry and entry.dataset:
        return with_dataset(card, entry.dataset), []
    name = next((facts.name for facts in DATASETS.values() if facts.num_classes == num_classes), None)
    if name:
        return with_dataset(card, name), [f"--dataset={name} assumed: {num_classes} classes"]
    return dataclasses.replace(card, class_names=card.shown_names), []


def with_dataset(card: ModelCard, dataset: str) -> ModelCard:
    """Returns `card` with the classes, colours and photographs of a data set that `find_dataset` finds.

    Raises:
      DeepLabError: there is no such data set, it has other classes or bands than the model, or the card says already
        which classes the model tells apart, and they are others.
    """
    facts = find_dataset(dataset)
    config = card.config
    if facts.num_classes != config.num_classes:
        raise DeepLabError(
            f"--dataset={dataset} has {facts.num_classes} classes, the model {config.num_classes}; leave the flag out"
        )
    if card.dataset and facts.class_names != card.class_names:
        pairs = enumerate(zip(facts.class_names, card.class_names, strict=False))
        number, (one, other) = next((i, pair) for i, pair in pairs if pair[0] != pair[1])
        raise DeepLabError(
            f"--dataset={dataset} calls class {number} {one!r}, the model, trained on {card.dataset}, {other!r}; leave "
            "the flag out"
        )
    if facts.image and facts.image.channels != config.input_channels:
        raise DeepLabError(
            f"--dataset={dataset} has photographs of {facts.image.describe()}, the model reads "
            f"{config.input_channels} bands; leave the flag out"
        )
    return dataclasses.replace(
        card,
        dataset=facts.name,
        class_names=facts.class_names,
        palette=facts.palette[:_LARGEST_PALETTE],
        ignore_label=facts.ignore_label,
        image=facts.image or card.image,
    )


def with_class_names(card: ModelCard, said: hugging_face.Folder, dataset: str | None) -> tuple[ModelCard, list[str]]:
    """Returns `card` with the classes that a config.json names: those of a data set of the catalog, or its own."""
    plain = [name.casefold().replace(" ", "") for name in said.class_names]
    same = (f for f in DATASETS.values() if [n.casefold().replace(" ", "") for n in f.class_names] == plain)
    known = next(same, None)
    if dataset or known or not said.class_names:
        return with_classes(card, dataset or (known.name if known else None), None)
    names, palette = said.class_names, default_palette(said.class_names)
    return dataclasses.replace(card, class_names=names, palette=palette, ignore_label=said.ignore_label), []
