"""Decoded pictures on disk, so that a picture is decoded once and later epochs read only the pixels they look at.

A file a record, which is mapped into memory: a tensor lies on it, and of a window that is cut from the tensor only the
pages are read. Files are written under another name first, so that any number of processes may share a folder, and it
may be deleted at any time. The folder below it is named for all that decides the pixels: another set's are never found.
"""

import dataclasses
import errno
import os
import shutil
import struct
import sys
import uuid
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from deeplab_tf.data import places
from deeplab_tf.errors import DeepLabError

_HEAD = struct.Struct("<4qi")  # height, width; those that the record says; bytes of the name that follows
_START = 4096  # where the image begins. TensorFlow copies what does not begin at a multiple of 64 bytes.
_ALIGNED = 64
_RESERVE = 1 << 30  # bytes of the disk that are left to others: a full one would stop the next checkpoint
_NOTHING = (False, np.zeros((0, 0, 3), np.uint8), np.zeros((0, 0, 1), np.uint8), b"", np.int64(0), np.int64(0))


@dataclasses.dataclass
class DecodedCache:
    """The decoded examples of one split in `folder`, by the numbers of their records."""

    folder: str
    writable: bool = True

    def example(self, record: tf.Tensor, decode: Callable[[], dict[str, tf.Tensor]]) -> dict[str, tf.Tensor]:
        """Returns what `decode` returns: from the file of `record`, or by decoding, and then there is such a file.

        decode: gives an example as `examples.checked_example` does, of the whole picture. One that stands in for a
        damaged record ("skipped" is not 0) is not kept. Runs in a graph, in the process that made it.
        """
        kinds = (tf.bool, tf.uint8, tf.uint8, tf.string, tf.int64, tf.int64)
        found, image, label, name, height, width = tf.numpy_function(self._read, [record], kinds)

        def read() -> dict[str, tf.Tensor]:
            return {
                "image": tf.ensure_shape(image, [None, None, 3]),
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
            stored = [example[key] for key in ("image", "label", "image_name", "height", "width", "skipped")]
            with tf.control_dependencies([tf.numpy_function(self._write, [record, *stored], tf.bool)]):
                return {key: tf.identity(value) for key, value in example.items()}

        return tf.cond(tf.ensure_shape(found, []), read, decoded)

    def _file(self, record: int) -> str:
        return os.path.join(self.folder, f"{int(record):07d}.pixels")

    def _read(self, record: int) -> tuple:
        """Returns whether there is a whole file of `record`; image, label, name, height and width as the record says.

        The arrays lie on the file: they are no copies, and no pixel is read.
        """
        try:
            content = np.memmap(self._file(record), np.uint8, "r")
            *sides, length = _HEAD.unpack_from(content)
        except (OSError, ValueError, struct.error):  # not there, empty, too short
            return _NOTHING
        (rows, columns), (middle, end) = sides[:2], _ends(*sides[:2])
        if len(content) != end:  # the machine went down before all of it was on the disk
            return _NOTHING
        image = content[_START : _START + 3 * rows * columns].reshape(rows, columns, 3)
        name = content[_HEAD.size : _HEAD.size + length].tobytes()
        return True, image, content[middle:end].reshape(rows, columns, 1), name, *map(np.int64, sides[2:])

    def _write(self, record: int, image: np.ndarray, label: np.ndarray, name: bytes, height, width, skipped) -> bool:
        """Writes the file of `record` and returns whether it did. An error ends the keeping, not the reading."""
        (middle, end), sides = _ends(*image.shape[:2]), image.shape[:2]
        head = _HEAD.pack(*sides, height, width, len(name)) + name
        if skipped or not self.writable or len(head) > _START:
            return False
        try:
            self._write_parts(self._file(record), ((0, head), (_START, image), (middle, label)), end)
        except OSError as error:
            self._give_up(error)
        return self.writable

    def _write_parts(self, file: str, parts: tuple, size: int):
        os.makedirs(self.folder, exist_ok=True)
        if shutil.disk_usage(self.folder).free < _RESERVE + size:
            raise OSError(errno.ENOSPC, "the disk is full but for a last gibibyte, which is left to checkpoints")
        temporary = os.path.join(self.folder, f".{uuid.uuid4().hex}")
        try:
            with open(temporary, "wb") as stream:
                for place, part in parts:
                    stream.seek(place)
                    stream.write(part)
            os.replace(temporary, file)
        except OSError:
            if os.path.exists(temporary):
                os.remove(temporary)
            raise

    def _give_up(self, error: OSError):
        if self.writable:
            self.writable = False
            print(
                f"decoded_cache: {self.folder} cannot be written ({error.strerror or error}); what it holds is read, "
                "other pictures are decoded each time. Make room, or name a folder on another disk",
                file=sys.stderr,
            )


def _ends(height: int, width: int) -> tuple[int, int]:
    """Returns where in a file the label begins, and where the file ends."""
    image = _START + 3 * height * width
    label = image + -image % _ALIGNED
    return label, label + height * width


def open_cache(folder: str, identity: str) -> DecodedCache:
    """Returns the cache of the split whose examples are `identity`. DeepLabError where its folder cannot be made."""
    if places.is_remote(folder):
        raise DeepLabError(f"decoded_cache={folder}: expected a folder of this machine; files elsewhere are not mapped")
    path = os.path.join(folder, identity)
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise DeepLabError(
            f"decoded_cache={folder}: cannot be made ({reason}); expected a folder to write to"
        ) from error
    return DecodedCache(path)
