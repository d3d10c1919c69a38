"""A cache of decoded pictures on disk: each is decoded once, and later epochs read only the pixels that they crop.

Each record has a file that is mapped into memory. The tensor shares the mapped memory, so that cutting a window from it
reads only the pages of that window. A file is written under another name and renamed, so that any number of processes
may share a folder; the folder may be deleted at any time. The subfolder is named by a digest of everything that decides
the pixels, so that no run reads the pictures of another data set. A checksum of each picture is compared the first time
that a process reads the file: one that a disk or a program has changed is decoded and written anew.
"""

import dataclasses
import errno
import os
import shutil
import struct
import sys
import zlib
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from deeplab_tf import files

# Height and width of the image; those stored in the record; length of the name after it; CRC-32 of what precedes, the
# name and the pixels.
_HEAD = struct.Struct("<4qiI")
_START = 4096  # byte at which the image begins
_ALIGNED = 64  # TensorFlow copies a tensor whose memory does not begin at a multiple of this
_RESERVE = 1 << 30  # bytes of the disk that stay free: on a full disk the next checkpoint could not be saved


def _checksum(*parts: bytes | memoryview) -> int:
    """Returns the CRC-32 of bytes that follow one another."""
    value = 0
    for part in parts:
        value = zlib.crc32(part, value)
    return value


@dataclasses.dataclass
class DecodedCache:
    """The decoded examples of one split in `folder`, by the numbers of their records.

    Attributes:
      folder: of this split's files.
      writable: False once a file could not be written; the cache then only reads.
      channels: of an image.
      dtype: of an image.
    """

    folder: str
    writable: bool = True
    channels: int = 3
    dtype: tf.DType = tf.uint8
    _sound: dict[int, int] = dataclasses.field(default_factory=dict[int, int], repr=False)  # record -> time of its file

    def example(self, record: tf.Tensor, decode: Callable[[], dict[str, tf.Tensor]]) -> dict[str, tf.Tensor]:
        """Returns the example of `record` from its file, or decodes it and writes the file.

        Runs in a graph, in the process that made it.

        Args:
          record: int64 scalar.
          decode: returns an example of the whole picture, as `labels.checked_example` does. An example that stands in
            for a damaged record ("skipped" is not 0) is not written.
        """
        dtypes = (tf.bool, self.dtype, tf.uint8, tf.string, tf.int64, tf.int64)
        cached, image, label, name, height, width = tf.numpy_function(self._read, [record], dtypes)

        def read() -> dict[str, tf.Tensor]:
            return {
                "image": tf.ensure_shape(image, [None, None, self.channels]),
                "label": tf.ensure_shape(label, [None, None, 1]),
                "image_name": tf.ensure_shape(name, []),
                "height": tf.ensure_shape(height, []),
                "width": tf.ensure_shape(width, []),
                "shape": tf.ensure_shape(tf.shape(image)[:2], [2]),
                "corner": tf.zeros(2, tf.int32),
                "skipped": tf.constant(0),
            }

        def decoded() -> dict[str, tf.Tensor]:
            example = decode()
            image, label, name = example["image"], example["label"], example["image_name"]
            sides = tf.stack([example["height"], example["width"]])
            stored = [record, image, label, name, sides, example["skipped"]]
            with tf.control_dependencies([tf.numpy_function(self._write, stored, tf.bool)]):
                return {key: tf.identity(value) for key, value in example.items()}

        return tf.cond(tf.ensure_shape(cached, []), read, decoded)

    @property
    def _pixel_bytes(self) -> int:
        return self.channels * self.dtype.size

    def _nothing(self) -> tuple[bool, np.ndarray, np.ndarray, bytes, np.int64, np.int64]:
        """Returns what `_read` returns of a record without a file."""
        image = np.zeros((0, 0, self.channels), self.dtype.as_numpy_dtype)
        return False, image, np.zeros((0, 0, 1), np.uint8), b"", np.int64(0), np.int64(0)

    def _label_start_and_end(self, height: int, width: int) -> tuple[int, int]:
        """Returns the byte of a file at which the label begins, and the size of the file."""
        image = _START + self._pixel_bytes * height * width
        label = image + -image % _ALIGNED
        return label, label + height * width

    def _file(self, record: int) -> str:
        return os.path.join(self.folder, f"{int(record):07d}.pixels")

    def _read(self, record: int) -> tuple[bool, np.ndarray, np.ndarray, bytes, np.int64, np.int64]:
        """Returns whether `record` has a complete file; image, label, name, and height and width as in the record.

        The arrays are views of the mapped file: nothing is copied, and no pixel is read yet.
        """
        try:
            content = np.memmap(self._file(record), np.uint8, "r")
            changed = os.stat(self._file(record)).st_mtime_ns
            *sides, length, checksum = _HEAD.unpack_from(content.data)
        except (OSError, ValueError, struct.error):  # missing, empty, too short
            return self._nothing()
        rows, columns, height, width = sides
        label_start, end = self._label_start_and_end(rows, columns)
        # The machine stopped before all of the file was on the disk, or another program has written to it.
        if min(*sides, length) < 0 or len(content) != end:
            return self._nothing()
        if self._sound.get(int(record)) != changed:
            head = _HEAD.pack(*sides, length, 0) + content[_HEAD.size : _HEAD.size + length].tobytes()
            if checksum != _checksum(head, content[_START:].data):
                return self._nothing()
            self._sound[int(record)] = changed
        stored = content[_START : _START + self._pixel_bytes * rows * columns].view(self.dtype.as_numpy_dtype)
        image = stored.reshape(rows, columns, self.channels)
        label = content[label_start:end].reshape(rows, columns, 1)
        name = content[_HEAD.size : _HEAD.size + length].tobytes()
        return True, image, label, name, np.int64(height), np.int64(width)

    def _write(
        self,
        record: int,
        image: np.ndarray,
        label: np.ndarray,
        name: bytes,
        sides: np.ndarray,
        skipped: np.int32,
    ) -> bool:
        """Writes the file of `record`, whose stored height and width are `sides`, and returns whether it did.

        After an error nothing more is written, and the run goes on by decoding.
        """
        rows, columns = image.shape[:2]
        label_start, end = self._label_start_and_end(rows, columns)
        head = _HEAD.pack(rows, columns, *sides, len(name), 0) + name
        if skipped or not self.writable or len(head) > _START:
            return False
        try:
            pixels = np.ascontiguousarray(image).view(np.uint8).data
            gap = bytes(label_start - _START - pixels.nbytes)
            checksum = _checksum(head, pixels, gap, label.data)
            head = _HEAD.pack(rows, columns, *sides, len(name), checksum) + name
            self._write_parts(self._file(record), ((0, head), (_START, pixels), (label_start, label.data)), end)
        except OSError as error:
            self._stop_writing(error)
        return self.writable

    def _write_parts(self, file: str, parts: Sequence[tuple[int, bytes | memoryview]], size: int) -> None:
        os.makedirs(self.folder, exist_ok=True)
        if shutil.disk_usage(self.folder).free < _RESERVE + size:
            raise OSError(errno.ENOSPC, "the disk is full but for a last gibibyte, which is left to checkpoints")
        # What the machine lost when it stopped is decoded again: no picture waits for the disk.
        with files.written(file, durable=False) as partial, partial.open("wb") as stream:
            for start, part in parts:
                stream.seek(start)
                stream.write(part)

    def _stop_writing(self, error: OSError) -> None:
        if self.writable:
            self.writable = False
            cure = "pictures that it lacks are decoded each time. Make room, or name a folder on another disk"
            print(files.unwritable(self.folder, error, flag="decoded_cache", cure=cure), file=sys.stderr)


def open_cache(folder: str, identity: str, *, channels: int = 3, dtype: tf.DType = tf.uint8) -> DecodedCache:
    """Returns the cache of the split whose examples have the digest `identity` (see `examples.ExampleSource`).

    `channels` and `dtype` are those of its images.

    Raises:
      DeepLabError: the folder is not on this machine, or cannot be made.
    """
    why = "expected a folder of this machine; files elsewhere cannot be mapped"
    path = files.local_path(folder, flag="decoded_cache", why=why) / identity
    with files.writing(folder, flag="decoded_cache", cure="expected a folder to write to"):
        path.mkdir(parents=True, exist_ok=True)
    return DecodedCache(str(path), channels=channels, dtype=dtype)
