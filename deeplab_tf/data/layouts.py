"""Where the images and the labels of a folder lie: the usual layouts, with their usual names in any case.

images/*.jpg             labels/*.png             also in folders below, as images/city/a.jpg and labels/city/a.png
images/train/*.jpg       masks/train/*.png        a folder for each split, as training or valid too
train/images/*.jpg       train/masks/*.png
train/*.jpg              train_labels/*.png
a.jpg                    labels/a.png
a.jpg                    a_mask.png               images and labels in one folder, or in one for each split
"""

import collections
import dataclasses
import os
import re
from collections.abc import Iterable, Sequence

from deeplab_tf.data.file_tree import extension
from deeplab_tf.data.pairs import IMAGE_EXTENSIONS

IMAGE_FOLDERS = ("images", "JPEGImages", "image", "img", "imgs", "photos", "rgb", "pictures")
LABEL_FOLDERS = (
    *("labels", "SegmentationClassRaw", "SegmentationClass", "masks", "annotations", "label", "mask", "gt"),
    *("SegmentationClassPNG", "groundtruth", "ground_truth", "annotation", "annot", "segmentation", "segmentations"),
)
LABEL_EXTENSIONS = (".png", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".pgm", ".ppm", ".jpg", ".jpeg")
_SPLIT_WORDS = "training|trainval|train|validation|valid|val|development|dev|testing|test|eval"
_SPLIT = re.compile(rf"(?:{_SPLIT_WORDS}|fold|split|part|extra|unlabell?ed)(?:[-_. ]\w+|\d+|_?aug)?", re.IGNORECASE)
_BOTH = re.compile(rf"({_SPLIT_WORDS})[-_. ]?(\w+)|(\w+?)[-_. ]?({_SPLIT_WORDS})", re.IGNORECASE)
_LABEL_WORDS = "masks?|labels?|labelids?|gt|seg|segmentation|annotation|annot|groundtruth|matte"
_LABEL_NAME = re.compile(rf"(.+)[-_. ](?:{_LABEL_WORDS}|L)|(?:{_LABEL_WORDS})[-_. ](.+)", re.IGNORECASE)
_IMAGE_NAME = re.compile(
    r"(.+)[-_. ](?:image|img|rgb|photo|sat|input)|(?:image|img|rgb|photo|sat)[-_. ](.+)", re.IGNORECASE
)


@dataclasses.dataclass(frozen=True)
class Source:
    """A folder of images and what belongs to it. Paths are relative to the root, without a slash at the end.

    Attributes:
      split: the split whose images these are; None: the folder does not say.
      folder: the folder of images.
      images: the images below it.
      label_folder: the folder of labels.
      labels: the labels below it.
    """

    split: str | None
    folder: str
    images: Sequence[str]
    label_folder: str
    labels: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where images and labels lie.

    Attributes:
      sources: the folders of images, one a split where folders are splits.
      listed: the folders that lists of images refer to.
      notes: lines on what was left aside.
      missing: "images" or "labels", if there are none.
    """

    sources: Sequence[Source]
    listed: Sequence[Source] = ()
    notes: Sequence[str] = ()
    missing: str | None = None


def is_split(name: str) -> bool:
    """Returns whether a folder or a list is called as splits are."""
    return _SPLIT.fullmatch(name) is not None


def find_layout(paths: Sequence[str]) -> Layout:
    """Returns where images and labels lie among the files `paths`, relative to the root."""
    pictures = [path for path in paths if extension(path) in IMAGE_EXTENSIONS]
    folders: dict[str, list[str]] = collections.defaultdict(list)
    for path in pictures:
        folders[path.partition("/")[0] if "/" in path else ""].append(path)
    image_folder, notes = _first(folders, IMAGE_FOLDERS, "images")
    if image_folder is not None:
        label_folder, more = _first(_of_labels(folders), LABEL_FOLDERS, "labels")
        if label_folder is not None:
            whole = Source(None, image_folder, folders[image_folder], label_folder, folders[label_folder])
            return Layout(_by_split(whole), [whole], [*notes, *more])
        mixed = _mixed(None, image_folder, folders[image_folder])
        return Layout([mixed], [mixed], notes, None if mixed.labels else "labels")
    sources = [source for split in folders if is_split(split) for source in _split_folder(split, folders)]
    if not sources:
        sources = _compound(folders) or _beside_images(folders)
    if not sources and pictures:
        flat = _mixed(None, "", pictures)
        sources = [flat] if flat.labels else []
    return Layout(sources, sources, missing=None if sources else "images")


def _of_labels(folders: dict[str, list[str]]) -> list[str]:
    """Returns the folders that hold files that may be labels."""
    return [folder for folder, paths in folders.items() if any(extension(p) in LABEL_EXTENSIONS for p in paths)]


def _first(folders: Iterable[str], names: Sequence[str], what: str) -> tuple[str | None, list[str]]:
    """Returns the first of the usual folders that holds pictures, and a line on others of the same kind."""
    there = [folder for name in names for folder in folders if folder.lower() == name.lower()]
    several = [f"{what} are taken from {there[0]}, not from {', '.join(there[1:])}"] if len(there) > 1 else []
    return (there[0] if there else None), several


def _inside(paths: Sequence[str], folder: str) -> list[str]:
    return [path for path in paths if path.startswith(f"{folder}/")] if folder else list(paths)


def _by_split(whole: Source) -> list[Source]:
    """Returns a source for each folder of images that is called as a split, or one for all of them."""
    below = list(dict.fromkeys(path.split("/")[1] for path in whole.images if path.count("/") > 1))
    if not any(map(is_split, below)):
        return [whole]
    label_splits = list(dict.fromkeys(path.split("/")[1] for path in whole.labels if path.count("/") > 1))
    sources: list[Source] = []
    for split in below:
        same = [name for name in label_splits if _meaning(name) == _meaning(split)]
        best = split if split in same else next(iter(same), None)
        # One folder of labels may serve all splits.
        folder = f"{whole.label_folder}/{best or split}" if best or label_splits else whole.label_folder
        inside = f"{whole.folder}/{split}"
        sources.append(Source(split, inside, _inside(whole.images, inside), folder, _inside(whole.labels, folder)))
    return sources


def _meaning(split: str) -> str:
    """Returns the usual word for a split."""
    word = split.lower()
    for usual, words in {
        "train": ("training",),
        "val": ("valid", "validation", "dev", "development"),
        "test": ("testing",),
    }.items():
        if word in words:
            return usual
    return word


def _beside_images(folders: dict[str, list[str]]) -> list[Source]:
    """Returns the source of images that lie in the root, with a folder of labels."""
    labels, _ = _first(_of_labels(folders), LABEL_FOLDERS, "labels")
    return [Source(None, "", folders[""], labels, folders[labels])] if "" in folders and labels else []


def _split_folder(split: str, folders: dict[str, list[str]]) -> list[Source]:
    """Returns the sources of <split>/images and <split>/masks, <split> and <split>_labels, or <split> with both."""
    paths = folders[split]
    below = list(dict.fromkeys(path.split("/")[1] for path in paths if path.count("/") > 1))
    images, _ = _first(below, IMAGE_FOLDERS, "images")
    labels, _ = _first(below, LABEL_FOLDERS, "labels")
    if images is not None:
        folder = f"{split}/{images}"
        label_folder = f"{split}/{labels or 'labels'}"
        return [Source(split, folder, _inside(paths, folder), label_folder, _inside(paths, label_folder))]
    beside = [name for name in folders if _role(name) == ("labels", _meaning(split))]
    if beside:
        return [Source(split, split, paths, beside[0], folders[beside[0]])]
    if (_role(split) or ("", ""))[0] in ("images", "labels"):
        return []  # train_images belongs to train_masks
    return [_mixed(split, split, paths)]


def _role(name: str) -> tuple[str, str] | None:
    """Returns what a folder called as a split and a kind holds, as train_masks or images-val do, and of which split."""
    match = _BOTH.fullmatch(name)
    if not match:
        return None
    split = _meaning(match[1] or match[4])
    kind = (match[2] or match[3]).lower()
    if kind in map(str.lower, IMAGE_FOLDERS):
        return "images", split
    return ("labels", split) if kind in map(str.lower, LABEL_FOLDERS) else None


def _compound(folders: dict[str, list[str]]) -> list[Source]:
    """Returns the sources of folders such as train_images and train_masks."""
    roles = {role: name for name in folders if (role := _role(name))}
    sources: list[Source] = []
    for (kind, split), name in roles.items():
        if kind == "images":
            match = _BOTH.fullmatch(name)
            written = (match[1] or match[4]) if match else split
            labels = roles.get(("labels", split), f"{written}_labels")
            sources.append(Source(written, name, folders[name], labels, folders.get(labels, [])))
    return sources


def _mixed(split: str | None, folder: str, paths: Sequence[str]) -> Source:
    """Returns the source of a folder of images and labels: a.jpg with a_mask.png or mask_a.png, or with a.png."""
    stems: dict[str, list[str]] = collections.defaultdict(list)
    for path in paths:
        stems[os.path.splitext(path)[0]].append(path)
    labels = {path for path in paths if any(stem != _stem(path) and stem in stems for stem in image_stems(_stem(path)))}
    if not labels:
        pairs = [sorted(found, key=lambda path: extension(path) == ".png") for found in stems.values()]
        if pairs and all(len(found) == 2 and extension(found[1]) == ".png" != extension(found[0]) for found in pairs):
            labels = {found[1] for found in pairs}
    return Source(split, folder, [p for p in paths if p not in labels], folder, [p for p in paths if p in labels])


def _stem(path: str) -> str:
    return os.path.splitext(path)[0]


def image_stems(label_stem: str) -> list[str]:
    """Returns the stems that the image of a label may have: a_mask belongs to a, and to a_image."""
    folder, slash, name = label_stem.rpartition("/")
    match = _LABEL_NAME.fullmatch(name)
    bare = (match[1] or match[2]) if match else None
    found = [name, *([bare] if bare else [])]
    return [folder + slash + one for one in found]


def bare_image_stem(stem: str) -> str:
    """Returns the stem of an image without a word that says that it is one: a_image is a."""
    folder, slash, name = stem.rpartition("/")
    match = _IMAGE_NAME.fullmatch(name)
    return folder + slash + ((match[1] or match[2]) if match else name)
