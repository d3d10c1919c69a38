"""The user's own data as pairs of files: a folder of images, a folder of labels, and the names of the classes.

  my_data/images/*.jpg  my_data/labels/*.png  my_data/train.txt  my_data/val.txt  my_data/class_names.txt

Other common names work too: PASCAL VOC's folders, and a folder for each split (images/train, labels/train) in place of
the lists.
"""

import os

from deeplab_tf import files
from deeplab_tf.catalog import datasets, palettes
from deeplab_tf.data.pairs import IMAGE_EXTENSIONS, Pair, pair_files, read_list, split_name
from deeplab_tf.errors import DeepLabError

CLASS_NAMES_FILE = "class_names.txt"
_IMAGE_FOLDERS = ("images", "JPEGImages", "image", "img", "imgs")
_LABEL_FOLDERS = ("labels", "SegmentationClassRaw", "SegmentationClass", "masks", "annotations", "label", "mask")
_LIST_FOLDERS = ("ImageSets/Segmentation", "lists", "splits", ".")


def folder_facts(root: str | os.PathLike) -> datasets.Dataset:
    """Returns the facts of the data in `root`, from its dataset.json or its class_names.txt (one name per line).

    Raises:
      DeepLabError: neither file exists, or one cannot be read.
    """
    description_file = os.path.join(root, datasets.DATASET_FILE)
    names_file = os.path.join(root, CLASS_NAMES_FILE)
    if files.path(description_file).is_file():
        return datasets.parse_dataset(files.path(description_file).read_bytes(), description_file)
    if not files.path(names_file).is_file():
        wanted = f"write the names of the classes, one a line, in label order, into {names_file}"
        raise DeepLabError(f"{root}: neither {datasets.DATASET_FILE} nor {CLASS_NAMES_FILE}; {wanted}")
    names = tuple(read_list(names_file))
    return datasets.Dataset(
        name=files.path(root).resolve().name,
        num_classes=len(names),
        ignore_label=255,
        class_names=names,
        palette=palettes.pascal_palette(len(names)),
        splits={},
        colour_map="pascal",
    )


def folder_splits(root: str | os.PathLike) -> dict[str, list[Pair]]:
    """Returns the pairs of each split.

    The splits are those of the lists <split>.txt of ids; without lists, those of the folders images/<split>; without
    such folders, all images are `train`. An id is a path below the image folder without its extension.

    Raises:
      DeepLabError: a folder is missing, or a split has no images.
    """
    images = _first_folder(root, _IMAGE_FOLDERS, "images")
    labels = _first_folder(root, _LABEL_FOLDERS, "labels")
    lists = _split_lists(root)
    if lists:
        return {split_name(file): pair_files(read_list(file), images, labels, IMAGE_EXTENSIONS) for file in lists}
    subfolders = [os.path.basename(path) for path in files.find(images, "*") if files.path(path).is_dir()]
    splits = {name: _pairs_in(os.path.join(images, name), os.path.join(labels, name)) for name in subfolders}
    splits = splits or {"train": _pairs_in(images, labels)}
    empty = [split for split, pairs in splits.items() if not pairs]
    if empty:
        raise DeepLabError(f"{images}: no images for {', '.join(empty)}")
    return splits


def _first_folder(root: str | os.PathLike, names: tuple[str, ...], what: str) -> str:
    for name in names:
        if files.path(os.path.join(root, name)).is_dir():
            return os.path.join(root, name)
    wanted = os.path.join(root, what)
    raise DeepLabError(f"{root}: no folder of {what}; expected {wanted} (or one of {', '.join(names[1:])})")


def _split_lists(root: str | os.PathLike) -> list[str]:
    """Returns the lists of the first of the usual folders that has any."""
    for name in _LIST_FOLDERS:
        texts = files.find(os.path.join(root, name), "*.txt")
        lists = [file for file in texts if os.path.basename(file) != CLASS_NAMES_FILE]
        if lists:
            return lists
    return []


def _pairs_in(images: str, labels: str) -> list[Pair]:
    """Returns the pairs of the images directly in a folder."""
    pairs = []
    for file in files.find(images, "*"):
        stem, extension = os.path.splitext(os.path.basename(file))
        if extension.lower() in IMAGE_EXTENSIONS:
            pairs.append(Pair(file, os.path.join(labels, f"{stem}.png"), stem))
    return pairs
