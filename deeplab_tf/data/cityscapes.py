"""Cityscapes as pairs of files, from the folders as they are downloaded (datasets/build_cityscapes_data.py)."""

import os
import pathlib
from collections.abc import Sequence

from deeplab_tf.data import catalog
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


def cityscapes_splits(root: str | os.PathLike, *, splits: Sequence[str] = ()) -> dict[str, list[Pair]]:
    """Returns the pairs of each split, in order of file names; the release's three by default, those that are there.

    Labels are *_labelTrainIds.png where the data set's own script has made them, else *_labelIds.png, whose ids are
    translated. DeepLabError for an unknown split, or where an asked one has no images.
    """
    folder = pathlib.Path(root)
    for split in splits:
        if split not in _SPLITS:
            raise unknown_name("split of cityscapes", split, _SPLITS)
    found = {split: _pairs(folder, *_SPLITS[split]) for split in splits or _DEFAULT}
    if not splits:
        found = {split: pairs for split, pairs in found.items() if pairs}
    if not found or not all(found.values()):
        raise DeepLabError(
            f"cityscapes_root={root}: no images leftImg8bit/<split>/<city>/*{_IMAGE_END}; expected the folder that "
            "holds leftImg8bit and gtFine"
        )
    return found


def _pairs(root: pathlib.Path, labels: str, folders: Sequence[str]) -> list[Pair]:
    images = [file for name in folders for file in sorted((root / "leftImg8bit" / name).glob(f"*/*{_IMAGE_END}"))]
    return [_pair(root, labels, image) for image in images]


def _pair(root: pathlib.Path, labels: str, image: pathlib.Path) -> Pair:
    name = image.name.removesuffix(_IMAGE_END)
    folder = root / labels / image.parent.parent.name / image.parent.name
    train_ids, ids = (folder / f"{name}_{labels}_{kind}.png" for kind in ("labelTrainIds", "labelIds"))
    if ids.is_file() and not train_ids.is_file():
        return Pair(str(image), str(ids), name, catalog.DATASETS["cityscapes"].evaluation_ids)
    return Pair(str(image), str(train_ids), name)
