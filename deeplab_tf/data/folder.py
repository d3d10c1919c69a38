"""The user's own data as pairs of files: a folder of images, a folder of labels, and the names of the classes.

  my_data/images/*.jpg  my_data/labels/*.png  my_data/train.txt  my_data/val.txt  my_data/class_names.txt

Other common layouts and names work too: see `data.layouts`, `data.split_lists` and `data.class_names`.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence

from deeplab_tf import files
from deeplab_tf.catalog import datasets
from deeplab_tf.data.class_names import CLASS_NAMES_FILE, class_notes, named_classes
from deeplab_tf.data.file_tree import files_below
from deeplab_tf.data.layouts import IMAGE_FOLDERS, LABEL_FOLDERS, Layout, find_layout
from deeplab_tf.data.pairing import label_files, source_pairs
from deeplab_tf.data.pairs import Pair
from deeplab_tf.data.split_lists import known_images, listed_splits
from deeplab_tf.data.splitting import Division, divide
from deeplab_tf.errors import DeepLabError

_MAY_LACK_LABELS = ("test", "unlabel", "predict", "infer")  # beginnings of the names of splits


@dataclasses.dataclass(frozen=True)
class FolderData:
    """The user's own data: the classes, the pairs of each split, and what the user should know, one line each."""

    facts: datasets.Dataset
    splits: Mapping[str, Sequence[Pair]]
    notes: Sequence[str]


def read_folder(root: str | os.PathLike) -> FolderData:
    """Returns the data in `root`; raises DeepLabError as `folder_facts` and `folder_splits` do."""
    facts = folder_facts(root)
    notes = class_notes(facts)
    return FolderData(facts, folder_splits(root, notes.append), notes)


def divided(data: FolderData, division: Division | None) -> FolderData:
    """Returns the data with train divided into train and val; without a `division` a line says how, if none is there.

    Raises:
      DeepLabError: as `splitting.divide` does.
    """
    if division is None:
        told = [f"{split} is the only split: --val_share=0.2 divides it into train and val" for split in data.splits]
        return dataclasses.replace(data, notes=[*data.notes, *(told if len(told) == 1 else [])])
    splits, note = divide(data.splits, division)
    facts = dataclasses.replace(data.facts, built={**data.facts.built, **division.described()})
    return FolderData(facts, splits, [*data.notes, note])


def folder_facts(root: str | os.PathLike) -> datasets.Dataset:
    """Returns the facts of the data in `root`, from its dataset.json or a file that names the classes.

    Raises:
      DeepLabError: there is no such folder or file, one cannot be read, or two disagree.
    """
    if not files.path(root).is_dir():
        raise DeepLabError(f"root={root}: no such folder; expected the one that holds images and labels")
    facts = named_classes(root)
    if facts is None:
        wanted = (
            f"write the names of the classes, one a line, in label order, into {os.path.join(root, CLASS_NAMES_FILE)}"
        )
        raise DeepLabError(f"{root}: neither {datasets.DATASET_FILE} nor {CLASS_NAMES_FILE}; {wanted}")
    return facts


def folder_splits(root: str | os.PathLike, tell: Callable[[str], object] = lambda _: None) -> dict[str, list[Pair]]:
    """Returns the pairs of each split.

    The splits are those of the lists <split>.txt; without lists, those of folders called as splits (train, val...);
    without such folders, all images are `train`. Of a split called test without a single label the pairs have none.

    Args:
      root: the folder.
      tell: called with each line that the user should know.

    Raises:
      DeepLabError: a folder is missing, a split has no images, or two images have one name.
    """
    root = os.fspath(root)
    paths = files_below(root)
    layout = find_layout(paths)
    _require_both(root, layout)
    splits, notes = listed_splits(known_images(root, layout, paths), paths)
    if not splits:
        for source in layout.sources:
            pairs = splits.setdefault(source.split or "train", [])
            pairs += source_pairs(label_files(root, source))
    empty = [split for split, pairs in splits.items() if not pairs]
    if empty or not splits:
        raise DeepLabError(f"{root}: no images for {', '.join(empty) or 'any split'}")
    unlabelled = [split for split, pairs in splits.items() if _lacks_labels(split, pairs)]
    for split in unlabelled:
        splits[split] = [dataclasses.replace(pair, label=None) for pair in splits[split]]
    told = [f"no labels for {split}: its records hold images alone" for split in unlabelled]
    for note in (*layout.notes, *notes, *told):
        tell(note)
    return splits


def _require_both(root: str, layout: Layout) -> None:
    """Raises DeepLabError if there are no images or no labels."""
    if layout.missing:
        usual = IMAGE_FOLDERS if layout.missing == "images" else LABEL_FOLDERS
        wanted = os.path.join(root, usual[0])
        raise DeepLabError(
            f"{root}: no folder of {layout.missing}; expected {wanted} (or one of {', '.join(usual[1:8])}), the same "
            "in folders for each split, or labels beside the images as a_mask.png"
        )


def _lacks_labels(split: str, pairs: Sequence[Pair]) -> bool:
    """Returns whether a split may go without labels, as its name says, and has not a single one."""
    if not split.lower().startswith(_MAY_LACK_LABELS):
        return False
    return not any(pair.label and files.path(pair.label).is_file() for pair in pairs)
