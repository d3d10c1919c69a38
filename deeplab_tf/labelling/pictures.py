"""`LabelPicture`: a picture to label, where it lies and under which name its label is written."""

import dataclasses
import hashlib
import os
import re
from collections.abc import Mapping, Sequence

import numpy as np

from deeplab_tf import files
from deeplab_tf.data.file_tree import extension, files_below, key
from deeplab_tf.data.pairs import IMAGE_EXTENSIONS
from deeplab_tf.errors import DeepLabError


@dataclasses.dataclass(frozen=True)
class Place:
    """A place in a picture to look at.

    Attributes:
      box: left, top, width and height, as shares of the picture's sides, 0..1.
      score: how unsure the model is there, or how sure that the label is wrong, 0..1.
      labelled, predicted: classes, for a place at which label and model contradict each other; else None.
    """

    box: tuple[float, float, float, float]
    score: float
    labelled: int | None = None
    predicted: int | None = None


@dataclasses.dataclass(frozen=True)
class LabelPicture:
    """A picture to label.

    Attributes:
      name: its path below the folder of pictures, with / between folders: what the page shows.
      file: its path.
      stem: the path of its label below labels/, without extension, and of its copy below images/.
      label: the file of the label that it has already, to start from; None: the model's mask is the start.
      places: where to look first; (): where the model is unsure.
    """

    name: str
    file: str
    stem: str
    label: str | None = None
    places: tuple[Place, ...] = ()

    @property
    def identity(self) -> str:
        """What the page's requests call it: letters and digits, the same at each start."""
        return hashlib.sha256(self.name.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def pictures_below(folder: str | os.PathLike[str], output: str | os.PathLike[str]) -> list[str]:
    """Returns the names of the pictures below a folder, without those in `output`, sorted.

    Raises:
      DeepLabError: there is no such folder, or no picture in it.
    """
    place = files.path(folder)
    if not place.is_dir():
        kind = "is a file" if place.is_file() else "no such folder"
        raise DeepLabError(f"--images={folder}: {kind}; expected a folder of photographs")
    inside = _relative(str(output), str(folder))
    found = [name for name in files_below(folder) if extension(name) in IMAGE_EXTENSIONS]
    if inside is not None:
        if not inside:
            raise DeepLabError(f"--output={output}: is the folder of the photographs; choose another")
        found = [name for name in found if not name.startswith(f"{inside}/")]
    if not found:
        raise DeepLabError(f"--images={folder}: no images in this folder; expected {', '.join(IMAGE_EXTENSIONS)}")
    return found


def _relative(inner: str, outer: str) -> str | None:
    """Returns the path of a folder below another, "" for the same one; None: it lies elsewhere."""
    if files.is_remote(inner) or files.is_remote(outer):
        return None
    path = os.path.relpath(os.path.realpath(inner), os.path.realpath(outer)).replace(os.sep, "/")
    return None if path == ".." or path.startswith("../") else path.removeprefix(".")


def stems_of(names: Sequence[str], known: Mapping[str, str]) -> dict[str, str]:
    """Returns a stem for each picture, different for all and such that a list, and any file system, can hold it.

    Args:
      names: of the pictures.
      known: name -> stem, of those that have a label already, which they keep.
    """
    stems = {name: known[name] for name in names if name in known}
    taken = {key(stem).lower() for stem in known.values()}
    for name in names:
        if name in stems:
            continue
        stem = _plain(os.path.splitext(name)[0])
        number = 1
        while key(_numbered(stem, number)).lower() in taken:
            number += 1
        stems[name] = _numbered(stem, number)
        taken.add(key(stems[name]).lower())
    return stems


def _numbered(stem: str, number: int) -> str:
    return stem if number == 1 else f"{stem}-{number}"


def _plain(stem: str) -> str:
    """Returns a path without what a list of images, one a line, cannot hold."""
    text = stem.encode("utf-8", "replace").decode("utf-8")
    parts = (re.sub(r"[\x00-\x1f\x7f\x85\u2028\u2029\\]", "_", part).strip() for part in text.split("/"))
    return "/".join(part.lstrip("#.").strip() or "_" for part in parts)


def as_box(rows: slice, columns: slice, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Returns a place in an array of `size` (height, width) as `Place.box`."""
    height, width = size
    box = np.array([columns.start / width, rows.start / height, 0, 0])
    box[2:] = (columns.stop - columns.start) / width, (rows.stop - rows.start) / height
    left, top, wide, high = (round(float(value), 5) for value in box)
    return left, top, wide, high
