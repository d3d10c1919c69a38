"""RemotePath: a path with a scheme, such as gs://bucket/run, with the methods of pathlib.Path.

It is an epath.Path over tf.io.gfile. TensorFlow is imported when a file system is asked something, not before.
"""

import fnmatch
import functools
import io
import os
import pathlib
import re
import sys
import types
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, TypeVar

from etils import epath

from deeplab_tf.errors import DeepLabError
from deeplab_tf.filesystems.remote_errors import os_errors

_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]*"
_Remote = TypeVar("_Remote", bound="RemotePath")
# To a type checker epath, which imports lazily, says nothing.
_Path = pathlib.PurePosixPath if TYPE_CHECKING else epath.Path


def remote_path(place: str | os.PathLike) -> "RemotePath":
    """Returns a path with a scheme. DeepLabError where TensorFlow has no file system for that."""
    found = RemotePath(place)
    scheme, _, rest = os.fspath(place).partition("://")
    try:
        _require_file_system(scheme)
    except DeepLabError as error:
        raise DeepLabError(f"{place}: {error}") from None
    if scheme == "gs" and not rest.partition("/")[0]:
        raise DeepLabError(f"{place}: names no bucket; expected gs://bucket/folder")
    if scheme == "file" and not rest.startswith("/"):
        raise DeepLabError(f"{place}: names a host, not a folder; expected file:///folder, or the path alone")
    return found


@functools.cache
def _require_file_system(scheme: str):
    """Tells epath, hence TensorFlow Datasets too, of a scheme, if TensorFlow has a file system for it."""
    known = sorted(name for name in _gfile().get_registered_schemes() if name)
    if scheme not in known:
        listed = ", ".join(f"{name}://" for name in known)
        raise DeepLabError(
            f"{scheme}:// is no file system that TensorFlow has here; expected a path, or one of {listed}"
        )
    try:
        epath.Path(f"{scheme}://")
    except KeyError:
        epath.register_path_cls(f"{scheme}://")(RemotePath)


def _gfile():
    import tensorflow as tf

    return tf.io.gfile


class _Stream(io.RawIOBase):
    """The bytes of a file of TensorFlow's as a stream of Python's, to read (r), to write (w) or to add to (a)."""

    def __init__(self, place: str, mode: str) -> None:
        self._place = place
        self._mode = mode
        self._file = _gfile().GFile(place, f"{mode}b")
        with os_errors(place):
            self._size = _gfile().stat(place).length if mode == "r" else 0
            if mode != "r":
                self._file.write(b"")  # makes the file: what forbids it is told here

    def readable(self) -> bool:
        return self._mode == "r"

    def writable(self) -> bool:
        return self._mode != "r"

    def seekable(self) -> bool:
        return self._mode == "r"

    def readinto(self, buffer: memoryview) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        with os_errors(self._place):
            content = self._file.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def write(self, content: memoryview) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        with os_errors(self._place):
            self._file.write(bytes(content))
        return len(content)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        place = {os.SEEK_SET: 0, os.SEEK_CUR: self.tell(), os.SEEK_END: self._size}[whence] + offset
        self._file.seek(place)
        return place

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        if not self.closed:
            with os_errors(self._place):
                self._file.close()
        super().close()


def _encoded(part: str | os.PathLike) -> str:
    return re.sub(f"^({_SCHEME}:)///", r"/\1/", os.fspath(part))


class RemotePath(_Path):
    """A path with a scheme, on one of TensorFlow's file systems: what pathlib.Path is for this machine.

    Its errors are Python's own: FileNotFoundError and its like, and RemoteError for what has none.
    """

    # To its base ram://a/b is ram:/a/b, and file:///a, with nothing between // and /, is /file:/a: a root marks that.
    if sys.version_info < (3, 12):

        def __new__(cls, *parts: str | os.PathLike) -> "RemotePath":
            """Returns the path of `parts`, one below the other."""
            return super().__new__(cls, *map(_encoded, parts))

    else:

        def __init__(self, *parts: str | os.PathLike) -> None:
            super().__init__(*map(_encoded, parts))

    def __str__(self) -> str:
        names = self.parts[bool(self.root) :]
        if not names or not names[0].endswith(":"):
            return "/".join(names)
        return f"{names[0]}//{self.root}{'/'.join(names[1:])}"

    def __fspath__(self) -> str:
        return str(self)

    def __repr__(self) -> str:
        return f"RemotePath({str(self)!r})"

    def is_absolute(self) -> bool:
        """Returns True: a scheme leaves nothing open."""
        return True

    def absolute(self: _Remote) -> _Remote:
        """Returns the path itself."""
        return self

    def resolve(self: _Remote, strict: bool = False) -> _Remote:
        """Returns the path itself."""
        return self

    def expanduser(self: _Remote) -> _Remote:
        """Returns the path itself."""
        return self

    # ---- looking

    def stat(self) -> types.SimpleNamespace:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Returns st_size in bytes, st_mtime in seconds, and is_directory."""
        with os_errors(self):
            found = _gfile().stat(str(self))
        seconds = found.mtime_nsec / 1e9
        return types.SimpleNamespace(st_size=found.length, st_mtime=seconds, is_directory=found.is_directory)

    def exists(self) -> bool:
        """Returns whether there is a file or a folder."""
        return self._kind() is not None

    def is_file(self) -> bool:
        """Returns whether there is a file."""
        return self._kind() == "file"

    def is_dir(self) -> bool:
        """Returns whether there is a folder."""
        return self._kind() == "folder"

    def _kind(self) -> str | None:
        if len(self.parts) < 2:
            return "folder"  # gs:// alone, of which nothing can be asked
        try:
            if not self.stat().is_directory:
                return "file"
        except FileNotFoundError:
            return None
        except PermissionError:
            # Who may read and write the files of a bucket need not have the right to ask for the bucket.
            if self.parts[0] == "gs:" and len(self.parts) == 2:
                return "folder"
            raise
        return "folder" if not self._in_memory or self._is_folder_of_memory() else None

    # TensorFlow's ram:// takes whatever a name begins with for a folder (run/mod, where there is run/model.ckpt), lists
    # what begins like a folder as if it were inside, and adds to a file that is written anew.

    @property
    def _in_memory(self) -> bool:
        return self.parts[0] == "ram:"

    def _in_memory_glob(self, end: str) -> list[str]:
        return _gfile().glob(re.sub(r"([*?[\\])", r"\\\1", str(self)) + end)

    def _is_folder_of_memory(self) -> bool:
        return len(self.parts) == 1 or bool(self._in_memory_glob("") or self._in_memory_glob("/*"))

    def _names(self) -> list[str]:
        if self._in_memory:
            return [name.rpartition("/")[2] for name in self._in_memory_glob("/*")]
        return [name.rstrip("/") for name in _gfile().listdir(str(self))]

    def iterdir(self: _Remote) -> Iterator[_Remote]:
        """Yields what is in the folder, in any order."""
        if self.is_file():
            raise NotADirectoryError(20, "Not a directory", str(self))
        if not self.is_dir():
            raise FileNotFoundError(2, "No such file or directory", str(self))
        with os_errors(self):
            names = self._names()
        yield from (self / name for name in names)

    def glob(self: _Remote, pattern: str) -> Iterator[_Remote]:
        """Yields what matches `pattern` in the folder, in any order; the folder itself is no pattern."""
        first, _, rest = pattern.partition("/")
        entries = list(self.iterdir()) if self.is_dir() else []
        if first == "**":
            yield from self.glob(rest)
            for folder in (entry for entry in entries if entry.is_dir()):
                yield from folder.glob(pattern)
            return
        for entry in entries:
            if fnmatch.fnmatchcase(entry.name, first):
                yield from entry.glob(rest) if rest else (entry,)

    def rglob(self: _Remote, pattern: str) -> Iterator[_Remote]:
        """Yields what matches `pattern` in the folder or below it, in any order."""
        return self.glob(f"**/{pattern}")

    # ---- reading and writing

    def open(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> IO:
        """Opens the file for reading (r), writing (w) or adding at its end (a), as bytes (b) or UTF-8."""
        kind = mode.strip("bt")
        if kind not in ("r", "w", "a"):
            raise ValueError(f"mode={mode!r}: expected r, w or a, and b for bytes")
        if self.is_dir():
            raise IsADirectoryError(21, "Is a directory", str(self))
        if kind == "w" and self._in_memory:
            self.unlink(missing_ok=True)
        stream = _Stream(str(self), kind)
        buffered = io.BufferedReader(stream) if kind == "r" else io.BufferedWriter(stream)  # pyright: ignore[reportArgumentType]
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding or "utf-8", errors, newline)

    def read_text(self, encoding: str | None = None, errors: str | None = None) -> str:
        """Returns the contents of a text file."""
        with self.open("r", encoding=encoding, errors=errors) as stream:
            return stream.read()

    def read_bytes(self) -> bytes:
        """Returns the contents of a file."""
        with self.open("rb") as stream:
            return stream.read()

    def write_text(self, data: str, encoding: str | None = None, errors: str | None = None) -> int:
        """Writes a text file."""
        with self.open("w", encoding=encoding, errors=errors) as stream:
            return stream.write(data)

    def write_bytes(self, data: bytes) -> int:
        """Writes a file."""
        with self.open("wb") as stream:
            return stream.write(data)

    def mkdir(self, mode: int | None = None, parents: bool = False, exist_ok: bool = False) -> None:
        """Makes a folder, with `parents` those above it too."""
        kind = self._kind()
        if kind == "file" or (kind and not exist_ok):
            raise FileExistsError(17, "File exists", str(self))
        if kind:
            return
        # In a bucket nothing need be above it, and asking for the bucket takes a right that a writer need not have.
        make = _gfile().makedirs if parents and self.parts[0] != "gs:" else _gfile().mkdir
        with os_errors(self):
            make(str(self))

    def unlink(self, missing_ok: bool = False) -> None:
        """Removes a file."""
        try:
            with os_errors(self):
                _gfile().remove(str(self))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def rmdir(self) -> None:
        """Removes a folder that is empty."""
        if any(self.iterdir()):
            raise OSError(39, "Directory not empty", str(self))
        self.rmtree()

    def rmtree(self, missing_ok: bool = False) -> None:
        """Removes a folder with what is in it."""
        try:
            for entry in list(self.iterdir()):
                (entry.rmtree if entry.is_dir() else entry.unlink)(missing_ok=True)
            with os_errors(self):
                _gfile().rmtree(str(self))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def replace(self: _Remote, target: str | os.PathLike) -> _Remote:
        """Gives a file another name, in place of what has that name."""
        with os_errors(target):
            _gfile().rename(str(self), os.fspath(target), overwrite=True)
        return type(self)(target)
