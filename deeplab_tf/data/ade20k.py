"""ADE20K (SceneParse150) as pairs of files (datasets/build_ade20k_data.py)."""

import os
import pathlib

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
    return {split: _pairs(pathlib.Path(images), pathlib.Path(labels)) for split, (images, labels) in folders.items()}


def _pairs(images: pathlib.Path, labels: pathlib.Path) -> list[Pair]:
    found = sorted(images.glob("*.jpg"))
    if not found:
        raise DeepLabError(f"{images}: no *.jpg images; expected a folder of ADEChallengeData2016/images")
    return [Pair(str(file), str(labels / f"{file.stem}.png"), file.name) for file in found]
