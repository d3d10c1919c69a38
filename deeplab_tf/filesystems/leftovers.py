"""What is being written: its names, and the removal of what processes that were killed have left of it."""

import contextlib
import functools
import os
import pathlib
import shutil
import time
import uuid
import zlib
from typing import TYPE_CHECKING, TypeAlias, Union

from deeplab_tf.filesystems.processes import lives, this_machine

if TYPE_CHECKING:
    from deeplab_tf.filesystems.remote import RemotePath

_AnyPath: TypeAlias = Union[pathlib.Path, "RemotePath"]

_PARTIAL = ".partial-"  # begins the names


@functools.lru_cache(maxsize=1)
def _machine() -> str:
    return f"{zlib.crc32(this_machine().encode('utf-8', 'surrogateescape')):08x}"


def partial_path(folder: _AnyPath, end: str = "") -> _AnyPath:
    """Returns the name of something to be written in a folder: short, as a name as long as can be may follow.

    It tells the process, so that what a killed one had begun goes when the next writes there.
    """
    if isinstance(folder, pathlib.Path):
        _remove_forsaken(folder)
    return folder / f"{_PARTIAL}{_machine()}-{os.getpid()}-{uuid.uuid4().hex[:12]}{end}"


@functools.lru_cache(maxsize=1024)  # a look for each folder that this process writes to
def _remove_forsaken(folder: pathlib.Path) -> None:
    """Removes what processes of this machine that do not live any more had begun to write in a folder."""
    for left_over in folder.glob(f"{_PARTIAL}{_machine()}-*"):
        process = left_over.name.split("-")[2]
        if process.isdecimal() and not lives(int(process)):
            remove(left_over)


def remove(place: _AnyPath) -> None:
    """Removes a file or a folder, if it is there."""
    with contextlib.suppress(OSError):
        if not place.is_dir():
            place.unlink(missing_ok=True)
        elif isinstance(place, pathlib.Path):
            shutil.rmtree(place)
        else:
            place.rmtree()


def remove_partial(folder: _AnyPath) -> None:
    """Removes what a process that was killed had been writing in `folder`, for the one process that writes there."""
    for left_over in folder.glob(f"{_PARTIAL}*"):
        remove(left_over)


def sweep(folder: pathlib.Path, seconds: float) -> None:
    """Removes what has been begun in a folder that many processes may write to, and not touched for so many seconds."""
    for left_over in folder.glob(f"{_PARTIAL}*"):
        with contextlib.suppress(OSError):
            if time.time() - left_over.stat().st_mtime > seconds:
                remove(left_over)
