"""The release's tf.train.Example, written and parsed here alone, and how records lie in shards.

Keys and defaults are those of datasets/build_data.py and datasets/data_generator.py. A record is found by its place:
`index_shards` notes where every record begins (sixteen bytes are read of each), `RecordAt` reads one.
"""

import dataclasses
import os
import re
import struct
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from deeplab_tf.errors import DeepLabError

IMAGE, LABEL = "image/encoded", "image/segmentation/class/encoded"
FILENAME, HEIGHT, WIDTH = "image/filename", "image/height", "image/width"

# What the reader takes of a record, and what it takes instead of a key that is not there (data_generator.py).
_FEATURES = {
    IMAGE: tf.io.FixedLenFeature([], tf.string, ""),
    LABEL: tf.io.FixedLenFeature([], tf.string, ""),
    FILENAME: tf.io.FixedLenFeature([], tf.string, ""),
    HEIGHT: tf.io.FixedLenFeature([], tf.int64, 0),
    WIDTH: tf.io.FixedLenFeature([], tf.int64, 0),
}
_MAGIC = {b"\xff\xd8\xff": "jpeg", b"\x89PNG\r\n\x1a\n": "png"}
_SHARD_NAME = re.compile(r"-(\d{5,})-of-(\d{5,})")
_READ_BYTES = 1 << 17  # read ahead of one record; larger ones take several reads

# ---- one record


def image_format(content: bytes) -> str | None:
    """Returns jpeg or png by the first bytes, None for anything else: what a file is called may be wrong."""
    return next((name for magic, name in _MAGIC.items() if content.startswith(magic)), None)


def make_example(
    image: bytes, label: bytes | None, *, filename: str, height: int, width: int, channels: int = 3
) -> bytes:
    """Returns a serialized tf.train.Example under the release's keys (datasets/build_data.py: image_seg_to_tfexample).

    image: an encoded JPEG or PNG, stored as it is; label: an encoded index PNG, or None for a picture without one.
    `image/format` tells the truth, unlike the release's, which is a flag. DeepLabError where the bytes are neither.
    """
    format_name = image_format(image)
    if format_name is None:
        raise DeepLabError(f"{filename}: begins with {image[:8]!r}; a record holds a JPEG or PNG image")
    if label is not None and image_format(label) != "png":
        raise DeepLabError(f"{filename}: its label begins with {label[:8]!r}; a record holds a PNG label")
    features = {
        IMAGE: _bytes(image),
        FILENAME: _bytes(filename.encode()),
        "image/format": _bytes(format_name.encode()),
        HEIGHT: _integer(height),
        WIDTH: _integer(width),
        "image/channels": _integer(channels),
    }
    if label is not None:
        features[LABEL] = _bytes(label)
        features["image/segmentation/class/format"] = _bytes(b"png")
    # A map field has no order of its own: equal records shall be equal bytes.
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return example.SerializeToString(deterministic=True)


def _bytes(value: bytes) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def _integer(value: int) -> tf.train.Feature:
    return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))


def parse_example(serialized: tf.Tensor, keys: Mapping[str, str] | None = None) -> dict[str, tf.Tensor]:
    """Returns the scalars that the release reads of a record: IMAGE, LABEL, FILENAME (strings), HEIGHT, WIDTH (int64).

    A missing key becomes an empty string or 0. `keys` says under which other keys they are stored. Runs in a graph.
    """
    stored = {key: (keys or {}).get(key, key) for key in _FEATURES}
    found = tf.io.parse_single_example(serialized, {stored[key]: feature for key, feature in _FEATURES.items()})
    return {key: found[stored[key]] for key in _FEATURES}


def decode_image(content: tf.Tensor) -> tf.Tensor:
    """Returns uint8 [h, w, 3] of an encoded JPEG or PNG: the op looks at the bytes, as the release does.

    JPEGs are decoded as TensorFlow does by default (golden/README.md: up to 5 levels beside Pillow's).
    """
    return tf.ensure_shape(tf.io.decode_png(content, channels=3), [None, None, 3])


def decode_part(content: tf.Tensor, box: tf.Tensor) -> tf.Tensor:
    """Returns decode_image(content) cut to `box` (int32 [4]: top, left, height, width), for a JPEG alone.

    What lies to the sides of the box or below is not computed. The same pixels, but for one at the edge of the box,
    where the decoder does not know the colour beyond: cut a little more than is needed.
    """
    return tf.ensure_shape(tf.image.decode_and_crop_jpeg(content, box, channels=3), [None, None, 3])


def decode_label(content: tf.Tensor) -> tf.Tensor:
    """Returns uint8 [h, w, 1] of an encoded index PNG.

    A palette PNG would come out as the grey of its colours; the builder stores plain ones.
    """
    return tf.ensure_shape(tf.io.decode_png(content, channels=1), [None, None, 1])


# ---- shards


def shard_name(split: str, number: int, shards: int) -> str:
    """Returns the release's file name of shard `number` (from 0)."""
    return f"{split}-{number:05d}-of-{shards:05d}.tfrecord"


def shard_ranges(count: int, shards: int) -> list[range]:
    """Returns which of `count` items each shard holds: ceil(count / shards) in all but the last ones (build_*.py)."""
    size = -(-count // shards)
    return [range(min(i * size, count), min((i + 1) * size, count)) for i in range(shards)]


def find_splits(dataset_dir: str | os.PathLike) -> list[str]:
    """Returns the names of the splits that have shards in a folder that is there."""
    names = tf.io.gfile.listdir(os.fspath(dataset_dir))
    return sorted({name[: match.start()] for name in names if (match := _SHARD_NAME.search(name))})


def find_shards(dataset_dir: str | os.PathLike, split: str) -> tuple[str, ...]:
    """Returns the files `<dataset_dir>/<split>-*` in order, as the release finds them.

    DeepLabError where there are none, where one of `-of-N` is missing, or where two builds lie in one folder.
    """
    folder = os.fspath(dataset_dir)
    if not tf.io.gfile.isdir(folder):
        raise DeepLabError(f"dataset_dir={folder}: no such folder; expected the one that holds {split}-*.tfrecord")
    files = sorted(tf.io.gfile.glob(os.path.join(folder, f"{split}-*")))
    if not files:
        splits = find_splits(folder)
        there = f"it has splits {', '.join(splits)}" if splits else "build it with deeplab-tf build-data"
        raise DeepLabError(f"dataset_dir={folder}: no files {split}-*; {there}")
    _check_complete(folder, split, files)
    return tuple(files)


def _check_complete(folder: str, split: str, files: Sequence[str]):
    numbered = [match for file in files if (match := _SHARD_NAME.search(os.path.basename(file)))]
    totals = sorted({int(match[2]) for match in numbered})
    if len(totals) > 1:
        raise DeepLabError(f"dataset_dir={folder}: {split} is there in {totals[0]} and in {totals[1]} shards; keep one")
    missing = sorted(set(range(*totals)) - {int(match[1]) for match in numbered})
    if missing:
        absent = shard_name(split, missing[0], totals[0])
        raise DeepLabError(f"dataset_dir={folder}: {absent} is missing ({len(missing)} of {totals[0]} shards are)")


@dataclasses.dataclass(frozen=True)
class RecordIndex:
    """Where the records of some files begin: record i is in `files[shard[i]]` at byte `offset[i]`, its shard's
    `number[i]`-th (from 0), and `checksum[i]` is the one stored for its content. `faults` tells of stretches that hold
    no records any more, one line each."""

    files: tuple[str, ...]
    shard: np.ndarray
    offset: np.ndarray
    number: np.ndarray
    checksum: np.ndarray
    faults: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.offset)


def index_shards(files: Sequence[str]) -> RecordIndex:
    """Returns the index of `files`: one small read a record, whatever its size, and nothing is decoded.

    A length whose checksum is wrong, or that reaches beyond the end, ends its file there and becomes a fault.
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
    """Returns offsets and checksums of the sound records, and what ended them before the end of the file."""
    offsets, headers, checksums, position = [], [], [], 0
    # Unbuffered where it can be: a buffer would read the whole file.
    local = os.path.isfile(file)
    size = os.path.getsize(file) if local else tf.io.gfile.stat(file).length
    with open(file, "rb", buffering=0) if local else tf.io.gfile.GFile(file, "rb") as stream:
        following = stream.read(12)
        while position + 12 <= size:
            headers.append(following)
            offsets.append(position)
            position += struct.unpack_from("<Q", following)[0] + 16
            stream.seek(min(position, size) - 4)
            ends = stream.read(16)
            checksums.append(ends[:4])
            following = ends[4:]
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
    """The one record (a scalar string) that begins at byte `offset` of `file`; tf.errors.DataLossError if damaged.

    For `get_single_element`, in a graph. Nothing before the record is read, and its checksum is checked: this is the
    reader of tf.data.TFRecordDataset, whose Python class cannot begin inside a file.
    """

    def __init__(self, file: tf.Tensor, offset: tf.Tensor):
        records = tf.raw_ops.TFRecordDatasetV2(
            filenames=file[None],
            compression_type="",
            buffer_size=tf.constant(_READ_BYTES, tf.int64),
            byte_offsets=offset[None],
        )
        one = tf.raw_ops.TakeDataset(
            input_dataset=records, count=tf.constant(1, tf.int64), output_types=[tf.string], output_shapes=[[]]
        )
        super().__init__(one)

    def _inputs(self):
        return []

    @property
    def element_spec(self) -> tf.TensorSpec:
        """A scalar string."""
        return tf.TensorSpec([], tf.string)


def count_examples(dataset_dir: str | os.PathLike, split: str) -> int:
    """Returns the number of sound records of a split. DeepLabError as `find_shards`."""
    return len(index_shards(find_shards(dataset_dir, split)))
