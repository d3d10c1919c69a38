"""Cityscapes as pairs of files, from the folders as they are downloaded (datasets/build_cityscapes_data.py)."""

import os
from collections.abc import Sequence

from deeplab_tf.catalog import datasets
from deeplab_tf.data import places
from deeplab_tf.data.pairs import Pair
from deeplab_tf.errors import DeepLabError, unknown_name

# Split -> label folder and the image folders it takes.
_SPLITS = {
    "train_fine": ("gtFine", ("train",)),
    "val_fine": ("gtFine", ("val",)),
    "test_fine": ("gtFine", ("test",)),
    "trainval_fine": ("gtFine", ("train", "val")),
    "train_coarse": ("gtCoarse", ("train", "train_extra")),
    "trainval_coarse": ("gtCoarse", ("train", "train_extra", "val")),
}
_DEFAULT = ("train_fine", "val_fine", "test_fine")
_IMAGE_END = "_leftImg8bit.png"


def cityscapes_splits(
    root: str | os.PathLike, *, splits: Sequence[str] = (), label_root: str | os.PathLike | None = None
) -> dict[str, list[Pair]]:
    """Returns the pairs of each split, in order of file names; the release's three by default, those that are there.

    `label_root` is where gtFine is if not beside leftImg8bit. Labels are *_labelTrainIds.png where the data set's own
    script has made them, else *_labelIds.png, whose ids are translated. DeepLabError for an unknown split, or where an
    asked one has no images.
    """
    for split in splits:
        if split not in _SPLITS:
            raise unknown_name("split of cityscapes", split, _SPLITS)
    found = {split: _pairs(root, label_root or root, *_SPLITS[split]) for split in splits or _DEFAULT}
    if not splits:
        found = {split: pairs for split, pairs in found.items() if pairs}
    if not found or not all(found.values()):
        raise DeepLabError(
            f"cityscapes_root={root}: no images leftImg8bit/<split>/<city>/*{_IMAGE_END}; expected the folder that "
            "holds leftImg8bit and gtFine"
        )
    return found


def _pairs(root: str | os.PathLike, label_root: str | os.PathLike, labels: str, folders: Sequence[str]) -> list[Pair]:
    return [
        _pair(os.path.join(label_root, labels, folder), labels, image)
        for folder in folders
        for image in places.find(os.path.join(root, "leftImg8bit", folder), f"*/*{_IMAGE_END}")
    ]


def _pair(folder: str, labels: str, image: str) -> Pair:
    city, file = image.replace(os.sep, "/").split("/")[-2:]
    name = file.removesuffix(_IMAGE_END)
    train_ids, ids = (
        os.path.join(folder, city, f"{name}_{labels}_{kind}.png") for kind in ("labelTrainIds", "labelIds")
    )
    if places.is_file(ids) and not places.is_file(train_ids):
        return Pair(image, ids, name, datasets.DATASETS["cityscapes"].evaluation_ids)
    return Pair(image, train_ids, name)
