"""The pairs of image and label files of PASCAL VOC 2012, and train_aug, the release's training split of 10,582 images.

The release uses train_aug but does not ship it; `train_aug` derives it from SBD.
"""

import os

from deeplab_tf import files
from deeplab_tf.data.pairs import Pair, pair_files, read_list, split_name
from deeplab_tf.errors import DeepLabError

TRAIN_AUG_SIZE = 10582


def voc_splits(
    image_folder: str | os.PathLike,
    label_folder: str | os.PathLike,
    list_folder: str | os.PathLike,
    *,
    image_format: str = "jpg",
) -> dict[str, list[Pair]]:
    """Returns the pairs of each split, one for every *.txt in `list_folder` (datasets/build_voc2012_data.py).

    Labels may be palette PNGs (SegmentationClass) as well as the release's SegmentationClassRaw.

    Raises:
      DeepLabError: there are no lists, or one cannot be read.
    """
    lists = files.find(list_folder, "*.txt")
    if not lists:
        raise DeepLabError(f"list_folder={list_folder}: no *.txt files; expected one a split, with an id a line")
    extensions = [f".{image_format}"]
    return {split_name(file): pair_files(read_list(file), image_folder, label_folder, extensions) for file in lists}


def train_aug(
    splits: dict[str, list[Pair]], sbd_dir: str | os.PathLike, *, expected: int = TRAIN_AUG_SIZE
) -> list[Pair]:
    """Returns the augmented training split: SBD's train and val and VOC's train, without VOC's val, sorted by id.

    Labels are VOC's own if it has them, else SBD's (cls/<id>.mat); photographs are VOC's, or SBD's if VOC lacks them.

    Args:
      splits: those of `voc_splits`; train and val are needed.
      sbd_dir: SBD's folder, benchmark_RELEASE, or dataset below it.
      expected: the number of images that the split must have; 0: any.

    Raises:
      DeepLabError: SBD or a VOC list is missing, or the number of images is not the expected one.
    """
    folder = _sbd_folder(sbd_dir)
    for split in ("train", "val"):
        if split not in splits:
            raise DeepLabError(f"train_aug needs the list {split}.txt of PASCAL VOC beside the others")
    own = {pair.filename: pair for pair in splits["train"]}
    held_out = {pair.filename for pair in splits["val"]}
    listed = [name for split in ("train", "val") for name in read_list(os.path.join(folder, f"{split}.txt"))]
    ids = {*listed, *own} - held_out
    if expected and len(ids) != expected:
        raise DeepLabError(
            f"sbd_dir={sbd_dir}: train_aug would have {len(ids)} images, expected {expected}; are all lists complete? "
            f"--train_aug_size={len(ids)} takes it as it is"
        )
    first = next(iter(own.values()))
    photos = os.path.dirname(first.image)
    extension = os.path.splitext(first.image)[1]
    return [own.get(name) or _sbd_pair(name, folder, photos, extension) for name in sorted(ids)]


def _sbd_pair(name: str, folder: str, photos: str, extension: str) -> Pair:
    image = os.path.join(photos, name + extension)
    if not files.path(image).is_file():
        image = os.path.join(folder, "img", f"{name}.jpg")
    return Pair(image, os.path.join(folder, "cls", f"{name}.mat"), name)


def _sbd_folder(folder: str | os.PathLike) -> str:
    for below in ("", "dataset", os.path.join("benchmark_RELEASE", "dataset")):
        if files.path(os.path.join(folder, below, "cls")).is_dir():
            return os.path.join(folder, below)
    raise DeepLabError(f"sbd_dir={folder}: no folder cls of *.mat files there, nor in dataset/ below it")
