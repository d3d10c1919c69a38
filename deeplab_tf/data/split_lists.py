"""The lists of a folder that say which images belong to which split.

A line is an id, a name or a path of an image, alone or with its label: p00; p00.jpg; images/p00.jpg labels/p00.png.
Texts that are not lists (README.txt, names of classes) are told apart by what their lines name.
"""

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence

from deeplab_tf import files
from deeplab_tf.data.class_names import NAME_FILES
from deeplab_tf.data.file_tree import extension, key, without_extension
from deeplab_tf.data.layouts import LABEL_EXTENSIONS, Layout, is_split
from deeplab_tf.data.pairing import LabelFiles, label_files, record_name, relative
from deeplab_tf.data.pairs import IMAGE_EXTENSIONS, Pair, split_name
from deeplab_tf.errors import DeepLabError

_FOLDERS = ("imagesets/segmentation", "lists", "splits", "imagesets", "")
_ADDRESS = re.compile(r"(https?|ftp)://", re.IGNORECASE)  # of the Web: a list of sources lies beside many data sets
_APART = re.compile(r"\s*[,;\t]\s*|\s+")


@dataclasses.dataclass(frozen=True)
class Images:
    """The images of a folder by every way in which a list may name them.

    Attributes:
      root: the folder.
      sources: where they lie, with their labels.
      names: path relative to the root or to a folder of images -> images, with and without their extensions.
      labels: path relative to the root or to a folder of labels -> label.
    """

    root: str
    sources: Mapping[str, LabelFiles]
    names: Mapping[str, Sequence[str]]
    labels: Mapping[str, str]

    def find(self, text: str) -> str | None:
        """Returns the image (relative to the root, or absolute where it lies elsewhere) that a text names, or None.

        Raises:
          DeepLabError: it names several.
        """
        if extension(text) in IMAGE_EXTENSIONS and _is_elsewhere(text, self.root):
            return text
        for name in _spellings(text):
            found = self.names.get(name, ())
            if len(found) > 1:
                listed = " and ".join(os.path.join(self.root, path) for path in found[:2])
                raise DeepLabError(f"{text!r} means {listed}; name it with its extension, or remove one")
            if found:
                return found[0]
        return None

    def find_label(self, text: str) -> str:
        """Returns the path of the label that a text names alone or first, whether or not it is there."""
        first = _APART.split(text)[0]
        for one in (text, first):
            if extension(one) in LABEL_EXTENSIONS and _is_elsewhere(one, self.root):
                return one
            for name in _spellings(one):
                if name in self.labels:
                    return os.path.join(self.root, self.labels[name])
        return os.path.join(self.root, first.replace("\\", "/").lstrip("/"))


def _spellings(text: str) -> list[str]:
    """Returns what a path in a list may mean: below the root, or absolute on the machine where it was written."""
    path = key(text.replace("\\", "/").removeprefix("./"))
    if not path.startswith("/") and not re.match(r"[A-Za-z]:/", path):
        return [path]
    parts = path.split("/")[1:]
    return ["/".join(parts[start:]) for start in range(len(parts))]


def _is_elsewhere(text: str, root: str) -> bool:
    """Returns whether a text is the absolute path of a file outside the folder."""
    if not os.path.isabs(text) and not files.is_remote(text):
        return False
    return not text.startswith(f"{files.path(root).absolute()}/") and files.path(text).is_file()


def known_images(root: str, layout: Layout, paths: Sequence[str]) -> Images:
    """Returns the images of a folder, by their names; `paths` are all its files."""
    names: dict[str, list[str]] = {}
    sources: dict[str, LabelFiles] = {}
    labels = {key(path): path for path in paths}

    def add(name: str, image: str) -> None:
        found = names.setdefault(name, [])
        if image not in found:
            found.append(image)

    for source in layout.listed:
        one = label_files(root, source)
        sources |= dict.fromkeys(source.images, one)
    for source in (*layout.listed, *layout.sources):
        for image in source.images:
            for path in dict.fromkeys((image, relative(image, source.folder))):
                add(key(path), image)
                add(without_extension(path), image)
        for label in source.labels:
            labels.setdefault(key(relative(label, source.label_folder)), label)
    return Images(root, sources, names, labels)


def listed_splits(images: Images, paths: Sequence[str]) -> tuple[dict[str, list[Pair]], list[str]]:
    """Returns the pairs of each split that a list names, in the order of the list, and lines on what was not taken.

    Args:
      images: those of the folder.
      paths: all files of the folder, among which are the lists.

    Raises:
      DeepLabError: a list cannot be read, is empty, or names an image twice.
    """
    for folder in _FOLDERS:
        texts = [path for path in paths if os.path.dirname(path).lower() == folder and extension(path) == ".txt"]
        splits: dict[str, list[Pair]] = {}
        refused: list[str] = []
        for path in texts:
            if folder == "" and os.path.basename(path).lower() in NAME_FILES:
                continue
            pairs, problem = _read(images, path)
            if pairs is None:
                refused.append(f"{path} ({problem})")
            else:
                splits[split_name(path)] = pairs
        if splits:
            taken = ", ".join(f"{split}.txt" for split in splits)
            return splits, [f"lists of images: {taken}; not lists: {', '.join(refused)}"] if refused else []
    return {}, []


def _read(images: Images, path: str) -> tuple[list[Pair] | None, str]:
    """Returns the pairs of a list, or None and why it is not one: fewer than half of its lines name images."""
    file = os.path.join(images.root, path)
    must_be = is_split(split_name(path))
    try:
        text = files.path(file).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DeepLabError(f"{file}: cannot be read ({error.strerror}); expected a list of images") from None
    except UnicodeDecodeError as error:
        if must_be:
            raise DeepLabError(f"{file}: not UTF-8 text ({error}); expected a list of images, one a line") from None
        return None, "not UTF-8 text"
    pairs: list[Pair] = []
    found = 0
    for line in filter(None, map(str.strip, text.splitlines())):
        is_address = not must_be and _ADDRESS.match(line)
        pair, named = (_missing(images, line), False) if is_address else _pair_of(images, file, line)
        if must_be and not named and files.is_remote(line):
            _require_file_system(file, line)
        if named or not line.startswith("#"):
            pairs.append(pair)
            found += named
    if not must_be and 2 * found < max(1, len(pairs)):
        return None, f"{found} of {len(pairs)} lines name images"
    repeated = len(pairs) - len({pair.image for pair in pairs})
    if repeated or not pairs:
        what = f"{repeated} ids are repeated" if repeated else "the list is empty"
        raise DeepLabError(f"{file}: {what}; expected different ids, one a line")
    return pairs, ""


def _require_file_system(file: str, line: str) -> None:
    try:
        files.path(line)
    except DeepLabError as error:
        raise DeepLabError(f"{file}: {error}") from None


def _pair_of(images: Images, file: str, line: str) -> tuple[Pair, bool]:
    """Returns the pair of a line, and whether its image was found. A name may hold spaces."""
    try:
        if image := images.find(line):
            return _paired(images, image, None), True
        for gap in _APART.finditer(line):
            if image := images.find(line[: gap.start()]):
                return _paired(images, image, images.find_label(line[gap.end() :].strip())), True
    except DeepLabError as error:
        raise DeepLabError(f"{file}: {error}") from None
    return _missing(images, line), False


def _paired(images: Images, image: str, label: str | None) -> Pair:
    """Returns the pair of an image, with the label that the list names or that has the image's name."""
    one = images.sources.get(image)
    if one is None:  # an image outside the folder
        name = os.path.splitext(os.path.basename(image))[0]
        return Pair(image, label or _missing(images, name).label, name)
    found = one.label_of(image) if label is None else None
    label = label or (os.path.join(images.root, found) if found else one.expected(image))
    return Pair(os.path.join(images.root, image), label, record_name(one.source, image))


def _missing(images: Images, line: str) -> Pair:
    """Returns the pair of an id without an image, as it is expected."""
    one = next(iter(images.sources.values()), None)
    folder = one.source.folder if one else ""
    label_folder = one.source.label_folder if one else ""
    known = extension(line) in IMAGE_EXTENSIONS
    image = os.path.join(images.root, folder, line if known else f"{line}.jpg")
    stem = os.path.splitext(line)[0] if known else line
    end = "_mask.png" if label_folder == folder else ".png"
    return Pair(image, os.path.join(images.root, label_folder, stem + end), stem)
