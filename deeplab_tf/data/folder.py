"""The user's own data as pairs of files: a folder of images, one of labels, and the names of the classes.

  my_data/images/*.jpg  my_data/labels/*.png  my_data/train.txt  my_data/val.txt  my_data/class_names.txt

Other usual names are known: PASCAL VOC's folders, and one folder a split (images/train, labels/train) instead of lists.
"""

import os

from deeplab_tf.catalog import datasets, palettes
from deeplab_tf.data import places
from deeplab_tf.data.pairs import IMAGE_EXTENSIONS, Pair, pair_files, read_list, split_name
from deeplab_tf.errors import DeepLabError

CLASS_NAMES_FILE = "class_names.txt"
_IMAGE_FOLDERS = ("images", "JPEGImages", "image", "img", "imgs")
_LABEL_FOLDERS = ("labels", "SegmentationClassRaw", "SegmentationClass", "masks", "annotations", "label", "mask")
_LIST_FOLDERS = ("ImageSets/Segmentation", "lists", "splits", ".")


def folder_facts(root: str | os.PathLike) -> datasets.Dataset:
    """Returns the facts of the data in `root`, from its dataset.json or its class_names.txt (a name a line).

    DeepLabError where there is neither.
    """
    described, names_file = (os.path.join(root, name) for name in (datasets.DATASET_FILE, CLASS_NAMES_FILE))
    if places.is_file(described):
        return datasets.parse_dataset(places.read_bytes(described), described)
    if not places.is_file(names_file):
        wanted = f"write the names of the classes, one a line, in label order, into {names_file}"
        raise DeepLabError(f"{root}: neither {datasets.DATASET_FILE} nor {CLASS_NAMES_FILE}; {wanted}")
    names = tuple(read_list(names_file))
    return datasets.Dataset(
        name=os.path.basename(str(root).rstrip("/") if places.is_remote(root) else os.path.realpath(root)),
        num_classes=len(names),
        ignore_label=255,
        class_names=names,
        palette=palettes.pascal_palette(len(names)),
        splits={},
        colour_map="pascal",
    )


def folder_splits(root: str | os.PathLike) -> dict[str, list[Pair]]:
    """Returns the pairs of each split: a list <split>.txt of ids, else a folder images/<split>, else all are `train`.

    An id is a path below the image folder without extension. DeepLabError where there are no images.
    """
    images, labels = _first(root, _IMAGE_FOLDERS, "images"), _first(root, _LABEL_FOLDERS, "labels")
    lists = next((found for name in _LIST_FOLDERS if (found := _lists(os.path.join(root, name)))), [])
    if lists:
        return {split_name(file): pair_files(read_list(file), images, labels, IMAGE_EXTENSIONS) for file in lists}
    parts = [os.path.basename(path) for path in places.find(images, "*") if places.is_dir(path)]
    splits = {part: _listed(os.path.join(images, part), os.path.join(labels, part)) for part in parts}
    splits = splits or {"train": _listed(images, labels)}
    empty = [split for split, pairs in splits.items() if not pairs]
    if empty:
        raise DeepLabError(f"{images}: no JPEG or PNG images for {', '.join(empty)}")
    return splits


def _first(root: str | os.PathLike, names: tuple[str, ...], what: str) -> str:
    for name in names:
        if places.is_dir(os.path.join(root, name)):
            return os.path.join(root, name)
    wanted = os.path.join(root, what)
    raise DeepLabError(f"{root}: no folder of {what}; expected {wanted} (or one of {', '.join(names[1:])})")


def _lists(folder: str) -> list[str]:
    return [file for file in places.find(folder, "*.txt") if os.path.basename(file) != CLASS_NAMES_FILE]


def _listed(images: str, labels: str) -> list[Pair]:
    names = [os.path.splitext(os.path.basename(file)) + (file,) for file in places.find(images, "*")]
    return [
        Pair(file, os.path.join(labels, f"{stem}.png"), stem)
        for stem, extension, file in names
        if extension.lower() in IMAGE_EXTENSIONS
    ]
