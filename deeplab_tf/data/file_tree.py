"""The files below a folder, listed once: hidden files left out, links followed, names in one Unicode spelling."""

import os
import unicodedata
from collections.abc import Iterator
from typing import TYPE_CHECKING

from deeplab_tf import files
from deeplab_tf.errors import DeepLabError

if TYPE_CHECKING:
    from deeplab_tf.files import AnyPath

_LEFT_OUT = ("thumbs.db", "desktop.ini", "__macosx")  # of Windows and macOS, besides names with a dot first


def files_below(root: str | os.PathLike[str]) -> list[str]:
    """Returns the paths of all files below a folder, relative to it, with / between folders, sorted.

    Links to files and folders are followed, but not in circles.
    """
    if files.is_remote(root):
        return sorted(_remote_files(files.path(root), ""))
    return sorted(_local_files(str(files.path(root)), "", ()))


def _is_shown(name: str) -> bool:
    return not name.startswith(".") and name.lower() not in _LEFT_OUT


def _local_files(folder: str, start: str, above: tuple[str, ...]) -> Iterator[str]:
    """Yields the files of a folder; `above` are the real paths of the folders on the way to it."""
    real = os.path.realpath(folder)
    if real in above or not os.path.isdir(folder):
        return
    try:
        with os.scandir(folder) as entries:
            shown = sorted((entry.name, _is_folder(entry)) for entry in entries if _is_shown(entry.name))
    except OSError as error:
        raise DeepLabError(f"{folder}: cannot be listed ({error.strerror}); expected a folder of data") from None
    for name, is_folder in shown:
        if is_folder:
            yield from _local_files(os.path.join(folder, name), f"{start}{name}/", (*above, real))
        else:
            yield start + name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a link to itself; what needs the file says so


def _remote_files(folder: "AnyPath", start: str) -> Iterator[str]:
    if not folder.is_dir():
        return
    for name in (entry.name for entry in folder.iterdir() if _is_shown(entry.name)):
        # Asking for the kind of each entry takes a request; folders of data have no extension.
        if not os.path.splitext(name)[1] and (folder / name).is_dir():
            yield from _remote_files(folder / name, f"{start}{name}/")
        else:
            yield start + name


def key(path: str) -> str:
    """Returns a path in the spelling that compares: Unicode composed, its extension in small letters."""
    stem, extension = os.path.splitext(unicodedata.normalize("NFC", path))
    return stem + extension.lower()


def without_extension(path: str) -> str:
    """Returns a path without its extension, Unicode composed."""
    return os.path.splitext(unicodedata.normalize("NFC", path))[0]


def extension(path: str) -> str:
    """Returns the extension in small letters, with its dot."""
    return os.path.splitext(path)[1].lower()
