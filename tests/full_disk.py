"""A disk that is full after some writes: what Python, NumPy and TensorFlow then write below a folder fails."""

import builtins
import errno
import io
import os
import pathlib
from typing import Any

import tensorflow as tf

from deeplab_tf import files

_SAVE = tf.raw_ops.SaveV2


def _full(place: object) -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(place))


class FullDisk:
    """Counts the writes below a folder, and refuses number `room` + 1 and those after it, as a full disk does.

    A write is what the operating system would see: a part of a file, its allocation, a checkpoint of TensorFlow.

    Attributes:
      done: number of writes so far.
    """

    def __init__(self, monkeypatch, folder: pathlib.Path, room: float = float("inf")) -> None:
        self.done = 0
        self._folder = os.fspath(folder)
        self._room = room
        for module in (builtins, io):
            monkeypatch.setattr(module, "open", self.open)
        monkeypatch.setattr(files, "allocate", self.allocate)
        monkeypatch.setattr(tf.raw_ops, "SaveV2", self.save)
        monkeypatch.setattr(tf.io, "TFRecordWriter", self._records(tf.io.TFRecordWriter))

    def write(self, place: object) -> None:
        """Counts a write to a place, or refuses it."""
        if not os.path.abspath(os.fspath(str(place))).startswith(self._folder):
            return
        if self.done >= self._room:
            raise _full(place)
        self.done += 1

    def open(self, file: Any, mode: str = "r", *arguments: Any, **options: Any):
        """Opens a file as `io.open` does; one to be written is refused at its writes."""
        stream = io.TextIOWrapper if "b" not in mode else None
        if isinstance(file, int) or options.get("opener") or not set(mode) & set("wax+"):
            return _OPEN(file, mode, *arguments, **options)
        raw = _Raw(self, file, mode.replace("b", "").replace("t", ""))
        if "b" in mode and (options.get("buffering") == 0 or arguments[:1] == (0,)):
            return raw
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        texts = {name: options.get(name) for name in ("encoding", "errors", "newline")}
        return buffered if stream is None else stream(buffered, **texts)

    def allocate(self, stream: Any, size: int) -> None:
        """Refuses the allocation of a file."""
        self.write(stream.name)
        _ALLOCATE(stream, size)

    def save(self, **arguments: Any):
        """Saves a checkpoint, or a half of it."""
        prefix = arguments["prefix"]
        place = prefix.numpy().decode() if hasattr(prefix, "numpy") else str(prefix)
        try:
            self.write(place)
        except OSError as error:
            pathlib.Path(f"{place}.data-00000-of-00001.tempstate").write_bytes(b"")
            raise tf.errors.ResourceExhaustedError(None, None, f"{place}; {error.strerror}") from None
        return _SAVE(**arguments)

    def _records(self, writer: Any):
        disk = self

        class Writer(writer):
            def __init__(self, path, *arguments):
                super().__init__(path, *arguments)
                self._place = path

            def write(self, record):
                try:
                    disk.write(self._place)
                except OSError as error:
                    raise tf.errors.ResourceExhaustedError(None, None, f"{self._place}; {error.strerror}") from None
                super().write(record)

        return Writer


_OPEN = io.open
_ALLOCATE = files.allocate


class _Raw(io.FileIO):
    """A file whose writes the disk counts."""

    def __init__(self, disk: FullDisk, file: Any, mode: str) -> None:
        self._disk = disk
        super().__init__(file, mode)

    def write(self, content: Any) -> int:
        self._disk.write(self.name)
        return super().write(content)
