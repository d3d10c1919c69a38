"""Whether weights have seen the images that they are scored on: which splits share images, and what came before."""

import os

from deeplab_tf.zoo.released import CHECKPOINTS

# The stretches of images that splits consist of, where their names do not say it. SBD's own images, without VOC's val,
# are `more`; `extra` are Cityscapes' coarse ones.
_PARTS = {
    "pascal_voc_seg": {"train_aug": {"train", "more"}},
    "cityscapes": {
        "train_coarse": {"train", "extra"},
        "trainval_coarse": {"train", "val", "extra"},
    },
}


def _parts(dataset: str | None, split: str) -> set[str]:
    plain = split.removesuffix("_fine") if dataset == "cityscapes" else split
    return _PARTS.get(dataset, {}).get(split) or ({"train", "val"} if plain == "trainval" else {plain})


def share_images(dataset: str | None, first: str, second: str) -> bool:
    """Returns whether two splits of a data set have images in common by their definition, as trainval and val have."""
    return bool(_parts(dataset, first) & _parts(dataset, second))


def _ancestry(dataset: str | None, train_split: str | None, source: str | None) -> list[tuple[str | None, str, str]]:
    """What weights were trained on: (data set, split, in which words), as far as it is known."""
    seen = [(dataset, train_split, f"the weights were trained on {train_split}")] if train_split else []
    name = os.path.basename(os.path.normpath(source or ""))
    for entry in CHECKPOINTS.values():
        archive = (entry.file or "").removesuffix(".tar.gz")
        if entry.train_split and name in (entry.name, entry.file, archive):
            seen.append(
                (entry.dataset, entry.train_split, f"they began as {entry.name}, trained on {entry.train_split}")
            )
    return seen


def contamination(
    dataset: str | None, split: str, *, train_dataset: str | None, train_split: str | None, source: str | None = None
) -> str | None:
    """Returns why a score would be of images the weights were trained on, one sentence; None where nothing says so.

    Args:
      dataset, split: what is scored.
      train_dataset, train_split: what the weights were trained on; None: not known.
      source: the weights that training began from (a path, an archive, a name of the zoo).
    """
    for seen, seen_split, words in _ancestry(train_dataset, train_split, source):
        if seen == dataset and share_images(dataset, seen_split, split):
            shared = "the split that is scored" if seen_split == split else f"which shares images with {split}"
            return f"{words}, {shared}: the score says nothing of new images"
    return None
