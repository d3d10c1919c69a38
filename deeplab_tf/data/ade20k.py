"""ADE20K (SceneParse150) as pairs of files (datasets/build_ade20k_data.py)."""

import os

from deeplab_tf.data import places
from deeplab_tf.data.pairs import Pair
from deeplab_tf.errors import DeepLabError


def ade20k_splits(
    train_images: str | os.PathLike,
    train_labels: str | os.PathLike,
    val_images: str | os.PathLike,
    val_labels: str | os.PathLike,
) -> dict[str, list[Pair]]:
    """Returns the pairs of train and val: all *.jpg of the image folders, each with the label <stem>.png.

    In order of names; the release shuffles them without a seed, which reading does here. The stored name is the file's,
    with its extension (the release stores the whole path, which no other machine has; what vis makes of it is equal).
    DeepLabError for a folder without images.
    """
    folders = {"train": (train_images, train_labels), "val": (val_images, val_labels)}
    return {split: _pairs(images, labels) for split, (images, labels) in folders.items()}


def _pairs(images: str | os.PathLike, labels: str | os.PathLike) -> list[Pair]:
    found = places.find(images, "*.jpg")
    if not found:
        raise DeepLabError(f"{images}: no *.jpg images; expected a folder of ADEChallengeData2016/images")
    names = map(os.path.basename, found)
    return [
        Pair(file, os.path.join(labels, f"{name.removesuffix('.jpg')}.png"), name)
        for file, name in zip(found, names, strict=True)
    ]
