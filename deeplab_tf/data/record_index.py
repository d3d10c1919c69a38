"""Where the records of shards begin, and a dataset that reads one of them.

`index_shards` reads sixteen bytes of each record, `RecordAt` reads one.
"""

import dataclasses
import os
import struct
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from deeplab_tf.data.records import find_shards

_RECORD_HEAD = 12  # bytes before the content of a record: its length, and the checksum of that
_READ_BYTES = 1 << 17  # the read buffer for one record; a larger record takes several reads


@dataclasses.dataclass(frozen=True)
class RecordIndex:
    """Where the records of some files begin.

    Attributes:
      files: paths of the shards.
      shard: int32 [n], the index in `files` of each record.
      offset: int64 [n], the byte of its file at which it begins.
      number: int64 [n], its number in its file, from 0.
      checksum: uint32 [n], the checksum that is stored for its content.
      faults: one line for each file whose end holds no readable records.
    """

    files: tuple[str, ...]
    shard: np.ndarray
    offset: np.ndarray
    number: np.ndarray
    checksum: np.ndarray
    faults: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.offset)


def index_shards(files: Sequence[str]) -> RecordIndex:
    """Returns the index of `files`. Each record takes one small read, whatever its size; nothing is decoded.

    At a length whose checksum is wrong, or that reaches beyond the end, the index of a file ends, and that is a fault.
    """
    parts = [_index_file(file) for file in files]
    offsets, checksums, faults = zip(*parts, strict=True) if parts else ((), (), ())
    counts = [len(offset) for offset in offsets]
    return RecordIndex(
        files=tuple(files),
        shard=np.repeat(np.arange(len(files), dtype=np.int32), counts),
        offset=np.concatenate([np.zeros(0, np.int64), *offsets]),
        number=np.concatenate([np.zeros(0, np.int64), *(np.arange(count) for count in counts)]),
        checksum=np.concatenate([np.zeros(0, np.uint32), *checksums]),
        faults=tuple(filter(None, faults)),
    )


def _index_file(file: str) -> tuple[np.ndarray, np.ndarray, str | None]:
    """Returns offsets (int64) and checksums (uint32) of the sound records, and the fault at which they end, if any."""
    offsets = []
    headers = []
    checksums = []
    position = 0
    # Unbuffered if possible: a buffer would read the whole file, record by record.
    local = os.path.isfile(file)
    size = os.path.getsize(file) if local else tf.io.gfile.stat(file).length
    with open(file, "rb", buffering=0) if local else tf.io.gfile.GFile(file, "rb") as stream:
        following = stream.read(12)
        while position + 12 <= size:
            headers.append(following)
            offsets.append(position)
            # One read for both: the checksum of this record's content, and the header of the next record.
            position += struct.unpack_from("<Q", following)[0] + 16
            stream.seek(min(position, size) - 4)
            content = stream.read(16)
            checksums.append(content[:4])
            following = content[4:]
    header = np.frombuffer(b"".join(headers), np.uint8).reshape(-1, 12)
    sound = _masked_crc32c(header[:, :8]) == np.ascontiguousarray(header[:, 8:]).view("<u4")[:, 0]
    good = len(sound) if sound.all() else int(np.argmin(sound))
    if good < len(sound):
        reason = "its length does not match its checksum (damaged, or not a TFRecord file)"
    elif position != size:
        good -= position > size
        reason = f"the file ends at byte {size}, before the record does (truncated)"
    else:
        reason = None
    start = offsets[good] if good < len(offsets) else position
    fault = reason and f"{file}: record {good} at byte {start}: {reason}"
    return np.array(offsets[:good], np.int64), np.frombuffer(b"".join(checksums[:good]), "<u4"), fault


def is_record_file(head: bytes, size: int) -> bool:
    """Returns whether a file of `size` bytes that begins with `head` is one of TFRecord: a length and its checksum."""
    if len(head) < _RECORD_HEAD or struct.unpack_from("<Q", head)[0] + _RECORD_HEAD + 4 > size:
        return False
    header = np.frombuffer(head[:_RECORD_HEAD], np.uint8)[None]
    return bool(_masked_crc32c(header[:, :8])[0] == struct.unpack_from("<I", head, 8)[0])


def _crc32c_table() -> np.ndarray:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(0x82F63B78), table >> 1)
    return table


_CRC32C = _crc32c_table()


def _masked_crc32c(rows: np.ndarray) -> np.ndarray:
    """Returns TFRecord's checksum of each row of bytes: uint8 [n, k] to uint32 [n]."""
    crc = np.full(len(rows), 0xFFFFFFFF, np.uint32)
    for column in rows.T:
        crc = _CRC32C[(crc ^ column) & 0xFF] ^ (crc >> 8)
    crc = ~crc
    return ((crc >> 15) | (crc << 17)) + np.uint32(0xA282EAD8)


class RecordAt(tf.data.Dataset):
    """The one record (string scalar) that begins at byte `offset` of `file`; tf.errors.DataLossError if damaged.

    For `get_single_element`, in a graph. Nothing before the record is read, and its checksum is verified: this is the
    op behind tf.data.TFRecordDataset, whose Python class cannot start inside a file.

    Args:
      file: string scalar, a path.
      offset: int64 scalar.
    """

    def __init__(self, file: tf.Tensor, offset: tf.Tensor) -> None:
        records = tf.raw_ops.TFRecordDatasetV2(
            filenames=file[None],
            compression_type="",
            buffer_size=tf.constant(_READ_BYTES, tf.int64),
            byte_offsets=offset[None],
        )
        one = tf.raw_ops.TakeDataset(
            input_dataset=records, count=tf.constant(1, tf.int64), output_types=[tf.string], output_shapes=[[]]
        )
        super().__init__(one)  # pyright: ignore[reportCallIssue] (missing in the stubs)

    def _inputs(self) -> list[tf.data.Dataset]:
        return []

    @property
    def element_spec(self) -> tf.TensorSpec:
        """A scalar string."""
        return tf.TensorSpec([], tf.string)


def count_examples(dataset_dir: str | os.PathLike, split: str) -> int:
    """Returns the number of sound records of a split; raises DeepLabError like `find_shards`."""
    return len(index_shards(find_shards(dataset_dir, split)))
