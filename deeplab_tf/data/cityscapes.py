"""The pairs of image and label files of Cityscapes, from its downloaded folders (datasets/build_cityscapes_data.py)."""

import os
from collections.abc import Sequence

from deeplab_tf import files
from deeplab_tf.catalog import datasets
from deeplab_tf.data.pairs import Pair
from deeplab_tf.errors import DeepLabError, unknown_name

# Split -> its label folder, and its image folders below leftImg8bit.
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
    """Returns the pairs of each split, sorted by file name.

    Labels are *_labelTrainIds.png where the data set's own script has made them, else *_labelIds.png, whose ids are
    translated.

    Args:
      root: the folder that holds leftImg8bit.
      splits: the splits to return; by default those of the release's three that have images.
      label_root: the folder that holds gtFine and gtCoarse, if they are not in `root`.

    Raises:
      DeepLabError: a split is unknown, or a requested one has no images.
    """
    for split in splits:
        if split not in _SPLITS:
            raise unknown_name("split of cityscapes", split, _SPLITS)
    pairs_of = {split: _pairs(root, label_root or root, *_SPLITS[split]) for split in splits or _DEFAULT}
    if not splits:
        pairs_of = {split: pairs for split, pairs in pairs_of.items() if pairs}
    if not pairs_of or not all(pairs_of.values()):
        raise DeepLabError(
            f"cityscapes_root={root}: no images leftImg8bit/<split>/<city>/*{_IMAGE_END}; expected the folder that "
            "holds leftImg8bit and gtFine"
        )
    return pairs_of


def _pairs(root: str | os.PathLike, label_root: str | os.PathLike, labels: str, folders: Sequence[str]) -> list[Pair]:
    return [
        _pair(os.path.join(label_root, labels, folder), labels, image)
        for folder in folders
        for image in files.find(os.path.join(root, "leftImg8bit", folder), f"*/*{_IMAGE_END}")
    ]


def _pair(folder: str, labels: str, image: str) -> Pair:
    city, file = image.replace(os.sep, "/").split("/")[-2:]
    name = file.removesuffix(_IMAGE_END)
    train_ids = os.path.join(folder, city, f"{name}_{labels}_labelTrainIds.png")
    ids = os.path.join(folder, city, f"{name}_{labels}_labelIds.png")
    if files.path(ids).is_file() and not files.path(train_ids).is_file():
        return Pair(image, ids, name, datasets.DATASETS["cityscapes"].evaluation_ids)
    return Pair(image, train_ids, name)
