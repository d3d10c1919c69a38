"""The pairs of image and label files of ADE20K (SceneParse150), as datasets/build_ade20k_data.py pairs them."""

import os

from deeplab_tf import files
from deeplab_tf.data.pairs import Pair
from deeplab_tf.errors import DeepLabError


def ade20k_splits(
    train_images: str | os.PathLike,
    train_labels: str | os.PathLike,
    val_images: str | os.PathLike,
    val_labels: str | os.PathLike,
) -> dict[str, list[Pair]]:
    """Returns the pairs of train and val: every *.jpg of an image folder, with the label <stem>.png.

    The pairs are sorted by name. (The release shuffles them here, without a seed; this package shuffles when it reads.)
    The stored name is the file's name with its extension. (The release stores the whole path, which differs between
    machines; vis derives the same output name from either.)

    Raises:
      DeepLabError: a folder has no images.
    """
    folders = {"train": (train_images, train_labels), "val": (val_images, val_labels)}
    return {split: _pairs(image_folder, label_folder) for split, (image_folder, label_folder) in folders.items()}


def _pairs(image_folder: str | os.PathLike, label_folder: str | os.PathLike) -> list[Pair]:
    images = files.find(image_folder, "*.jpg")
    if not images:
        raise DeepLabError(f"{image_folder}: no *.jpg images; expected a folder of ADEChallengeData2016/images")
    pairs = []
    for image in images:
        name = os.path.basename(image)
        pairs.append(Pair(image, os.path.join(label_folder, f"{name.removesuffix('.jpg')}.png"), name))
    return pairs
