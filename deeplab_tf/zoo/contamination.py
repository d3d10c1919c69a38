"""Contamination: whether weights were trained on images that they are scored on, and how that is known."""

import os

from deeplab_tf.zoo.released import CHECKPOINTS

# The disjoint sets of images that a split is made of, where its name does not say it: `more` are SBD's own images
# without VOC's val, `extra` those that Cityscapes labels coarsely only.
_PARTS: dict[str, dict[str, set[str]]] = {
    "pascal_voc_seg": {"train_aug": {"train", "more"}},
    "cityscapes": {
        "train_coarse": {"train", "extra"},
        "trainval_coarse": {"train", "val", "extra"},
    },
}


def _parts(dataset: str | None, split: str) -> set[str]:
    if dataset in _PARTS and split in _PARTS[dataset]:
        return _PARTS[dataset][split]
    plain = split.removesuffix("_fine") if dataset == "cityscapes" else split
    return {"train", "val"} if plain == "trainval" else {plain}


def share_images(dataset: str | None, first: str, second: str) -> bool:
    """Returns whether two splits of a data set have images in common by their definition, as trainval and val have."""
    return bool(_parts(dataset, first) & _parts(dataset, second))


def _ancestry(dataset: str | None, train_split: str | None, source: str | None) -> list[tuple[str | None, str, str]]:
    """Returns what is known of the training: (data set, split, the beginning of a sentence that says so)."""
    trained_on: list[tuple[str | None, str, str]] = []
    if train_split:
        trained_on.append((dataset, train_split, f"the weights were trained on {train_split}"))
    name = os.path.basename(os.path.normpath(source or ""))
    for entry in CHECKPOINTS.values():
        archive = (entry.file or "").removesuffix(".tar.gz")
        if entry.train_split and name in (entry.name, entry.file, archive):
            began = f"they began as {entry.name}, trained on {entry.train_split}"
            trained_on.append((entry.dataset, entry.train_split, began))
    return trained_on


def contamination(
    dataset: str | None, split: str, *, train_dataset: str | None, train_split: str | None, source: str | None = None
) -> str | None:
    """Returns a sentence that says why a score would be of images the weights were trained on, or None.

    Args:
      dataset: the data set that is scored.
      split: the split that is scored.
      train_dataset: the data set the weights were trained on; None: not known.
      train_split: the split the weights were trained on; None: not known.
      source: the weights that training began from (a path, an archive, a name of the zoo).
    """
    for trained_dataset, trained_split, sentence in _ancestry(train_dataset, train_split, source):
        if trained_dataset == dataset and share_images(dataset, trained_split, split):
            shared = "the split that is scored" if trained_split == split else f"which shares images with {split}"
            return f"{sentence}, {shared}: the score says nothing of new images"
    return None
