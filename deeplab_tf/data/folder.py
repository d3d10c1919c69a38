"""The user's own data as pairs of files: a folder of images, one of labels, and the names of the classes.

  my_data/images/*.jpg  my_data/labels/*.png  my_data/train.txt  my_data/val.txt  my_data/class_names.txt

Other usual names are known: PASCAL VOC's folders, and one folder a split (images/train, labels/train) instead of lists.
"""

import os
import pathlib

from deeplab_tf.data import catalog
from deeplab_tf.data.pairs import IMAGE_EXTENSIONS, Pair, pair_files, read_list
from deeplab_tf.errors import DeepLabError

CLASS_NAMES_FILE = "class_names.txt"
_IMAGE_FOLDERS = ("images", "JPEGImages", "image", "img", "imgs")
_LABEL_FOLDERS = ("labels", "SegmentationClassRaw", "SegmentationClass", "masks", "annotations", "label", "mask")
_LIST_FOLDERS = ("ImageSets/Segmentation", "lists", "splits", ".")


def folder_facts(root: str | os.PathLike) -> catalog.Dataset:
    """Returns the facts of the data in `root`, from its dataset.json or its class_names.txt (a name a line).

    DeepLabError where there is neither.
    """
    folder = pathlib.Path(root)
    if (folder / catalog.DATASET_FILE).is_file():
        return catalog.read_dataset(folder)
    if not (folder / CLASS_NAMES_FILE).is_file():
        wanted = f"write the names of the classes, one a line, in label order, into {folder / CLASS_NAMES_FILE}"
        raise DeepLabError(f"{folder}: neither {catalog.DATASET_FILE} nor {CLASS_NAMES_FILE}; {wanted}")
    names = tuple(read_list(folder / CLASS_NAMES_FILE))
    return catalog.Dataset(
        name=folder.resolve().name,
        num_classes=len(names),
        ignore_label=255,
        class_names=names,
        palette=catalog.pascal_palette(len(names)),
        splits={},
        colour_map="pascal",
    )


def folder_splits(root: str | os.PathLike) -> dict[str, list[Pair]]:
    """Returns the pairs of each split: a list <split>.txt of ids, else a folder images/<split>, else all are `train`.

    An id is a path below the image folder without extension. DeepLabError where there are no images.
    """
    folder = pathlib.Path(root)
    images, labels = _first(folder, _IMAGE_FOLDERS, "images"), _first(folder, _LABEL_FOLDERS, "labels")
    lists = next((found for name in _LIST_FOLDERS if (found := _lists(folder / name))), [])
    if lists:
        return {file.stem: pair_files(read_list(file), images, labels, IMAGE_EXTENSIONS) for file in lists}
    parts = sorted(part.name for part in images.iterdir() if part.is_dir())
    splits = {part: _listed(images / part, labels / part) for part in parts} or {"train": _listed(images, labels)}
    empty = [split for split, pairs in splits.items() if not pairs]
    if empty:
        raise DeepLabError(f"{images}: no JPEG or PNG images for {', '.join(empty)}")
    return splits


def _first(folder: pathlib.Path, names: tuple[str, ...], what: str) -> pathlib.Path:
    for name in names:
        if (folder / name).is_dir():
            return folder / name
    raise DeepLabError(f"{folder}: no folder of {what}; expected {folder / what} (or one of {', '.join(names[1:])})")


def _lists(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(file for file in folder.glob("*.txt") if file.name != CLASS_NAMES_FILE)


def _listed(images: pathlib.Path, labels: pathlib.Path) -> list[Pair]:
    files = sorted(file for file in images.iterdir() if file.suffix.lower() in IMAGE_EXTENSIONS)
    return [Pair(str(file), str(labels / f"{file.stem}.png"), file.stem) for file in files]
