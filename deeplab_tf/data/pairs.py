"""Pairs of an image file and a label file, and the lists of ids that name them."""

import dataclasses
import os
from collections.abc import Iterable

from deeplab_tf import files
from deeplab_tf.errors import DeepLabError
from deeplab_tf.ops.images import EXTENSIONS

IMAGE_EXTENSIONS = (*EXTENSIONS, ".npy")


@dataclasses.dataclass(frozen=True)
class Pair:
    """The files of one example.

    Attributes:
      image: path of the image.
      label: path of the label, or None.
      filename: the name that the record stores.
      label_ids: the values in the label that stand for the classes 0, 1, 2...; all others are ignored. None: the values
        are the classes.
    """

    image: str
    label: str | None
    filename: str
    label_ids: tuple[int, ...] | None = None


def pair_files(
    ids: Iterable[str], image_folder: str | os.PathLike, label_folder: str | os.PathLike, extensions: Iterable[str]
) -> list[Pair]:
    """Returns the pairs <image_folder>/<id><extension> and <label_folder>/<id>.png.

    Of several extensions the first whose file exists is taken. A missing file is reported when the pair is packed.
    """
    extensions = tuple(extensions)
    pairs = []
    for name in ids:
        candidates = [os.path.join(image_folder, name + extension) for extension in extensions]
        there = (file for file in candidates if files.path(file).is_file())
        image = next(there, candidates[0]) if candidates[1:] else candidates[0]
        pairs.append(Pair(image, os.path.join(label_folder, f"{name}.png"), name))
    return pairs


def read_list(file: str | os.PathLike) -> list[str]:
    """Returns the ids of a list file, which has one on each line.

    Raises:
      DeepLabError: the file is missing, not text or empty, or an id is repeated.
    """
    try:
        ids = [line.strip() for line in files.path(file).read_bytes().decode("utf-8-sig").splitlines() if line.strip()]
    except OSError as error:
        raise DeepLabError(f"{file}: cannot be read ({error.strerror}); expected a list of ids, one a line") from None
    except UnicodeDecodeError as error:
        raise DeepLabError(f"{file}: not UTF-8 text ({error}); expected a list of ids, one a line") from None
    repeated = len(ids) - len(set(ids))
    if repeated or not ids:
        what = f"{repeated} ids are repeated" if repeated else "the list is empty"
        raise DeepLabError(f"{file}: {what}; expected different ids, one a line")
    return ids


def split_name(list_file: str) -> str:
    """Returns the split of a list file: the file's name without folder and extension."""
    return os.path.splitext(os.path.basename(list_file))[0]
