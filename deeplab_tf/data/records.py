"""The release's tf.train.Example, which only this module writes and parses, and the shards of records.

Keys and defaults are those of datasets/build_data.py and datasets/data_generator.py. record_index.py finds a record
by its place.
"""

import glob
import os
import re
from collections.abc import Mapping, Sequence
from typing import Literal

import tensorflow as tf

from deeplab_tf import files
from deeplab_tf.catalog.image_facts import ImageFacts
from deeplab_tf.errors import DeepLabError
from deeplab_tf.ops.value_range import limits

IMAGE = "image/encoded"
LABEL = "image/segmentation/class/encoded"
FILENAME = "image/filename"
HEIGHT = "image/height"
WIDTH = "image/width"

# What is read of a record, with the defaults for missing keys (data_generator.py).
_FEATURES = {
    IMAGE: tf.io.FixedLenFeature([], tf.string, ""),
    LABEL: tf.io.FixedLenFeature([], tf.string, ""),
    FILENAME: tf.io.FixedLenFeature([], tf.string, ""),
    HEIGHT: tf.io.FixedLenFeature([], tf.int64, 0),
    WIDTH: tf.io.FixedLenFeature([], tf.int64, 0),
}
Format = Literal["jpeg", "png", "npy"]
_MAGIC: dict[bytes, Format] = {b"\xff\xd8\xff": "jpeg", b"\x89PNG\r\n\x1a\n": "png", b"\x93NUMPY": "npy"}
_SHARD_NAME = re.compile(r"-(\d{5,})-of-(\d{5,})")

# ---- one record


def image_format(content: bytes) -> Format | None:
    """Returns "jpeg", "png" or "npy" by the first bytes, or None; the name of a file may be wrong."""
    return next((name for magic, name in _MAGIC.items() if content.startswith(magic)), None)


def make_example(
    image: bytes, label: bytes | None, *, filename: str, height: int, width: int, channels: int = 3
) -> bytes:
    """Returns a serialized tf.train.Example under the release's keys (datasets/build_data.py: image_seg_to_tfexample).

    Args:
      image: an encoded JPEG or PNG, or the bytes of a .npy [h, w, channels], which is stored as it is. `image/format`
        says which of them; in the release it is the value of a flag.
      label: an encoded index PNG, or None for a picture without a label.
      filename: the name to store.
      height: of the image in pixels.
      width: of the image in pixels.
      channels: of the image.

    Raises:
      DeepLabError: the image is neither a JPEG nor a PNG nor a .npy, or the label is not a PNG.
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
    # Protobuf maps are unordered; serialise deterministically, so that equal records are equal bytes.
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return example.SerializeToString(deterministic=True)


def _bytes(value: bytes) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def _integer(value: int) -> tf.train.Feature:
    return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))


def parse_example(serialized: tf.Tensor, keys: Mapping[str, str] | None = None) -> dict[str, tf.Tensor]:
    """Returns the scalars that the release reads of a record: IMAGE, LABEL, FILENAME (strings), HEIGHT, WIDTH (int64).

    Runs in a graph.

    Args:
      serialized: string scalar, a tf.train.Example. A missing key becomes an empty string or 0.
      keys: the release's key -> the key in the record, where they differ.
    """
    stored = {key: (keys or {}).get(key, key) for key in _FEATURES}
    values = tf.io.parse_single_example(serialized, {stored[key]: feature for key, feature in _FEATURES.items()})
    return {key: values[stored[key]] for key in _FEATURES}


def decode_image(content: tf.Tensor) -> tf.Tensor:
    """Returns uint8 [h, w, 3] of an encoded JPEG or PNG; like in the release, the op recognises them by their bytes.

    JPEGs are decoded with TensorFlow's default method; its values are a few levels from Pillow's (17 were seen).
    """
    return tf.ensure_shape(tf.io.decode_png(content, channels=3), [None, None, 3])


def decode_photograph(parsed: Mapping[str, tf.Tensor], image: ImageFacts | None) -> tf.Tensor:
    """Returns the photograph of a record.

    Args:
      parsed: from `parse_example`.
      image: what the photographs of the data set are; None: 8-bit RGB.

    Returns:
      uint8 [h, w, 3] of 8-bit RGB; else float32 [h, w, channels] in 0..255, by the value range of the set, as
      `value_range.scaled` computes it.
    """
    content = parsed[IMAGE]
    if image is None:
        return decode_image(content)
    if image.is_png:
        pixels = tf.io.decode_png(content, channels=image.channels, dtype=tf.as_dtype(image.dtype))
    else:
        pixels = _decode_npy(content, image, tf.stack([parsed[HEIGHT], parsed[WIDTH]]))
    return tf.ensure_shape(_scaled(pixels, image), [None, None, image.channels])


def _decode_npy(content: tf.Tensor, image: ImageFacts, size: tf.Tensor) -> tf.Tensor:
    """Returns the values of a .npy of version 1.0; those of a single band in all channels. size: int64 [2]."""
    # The format (NEP 1): six bytes of magic, two of version, two for the length of the header, the header, the values.
    header = tf.io.decode_raw(tf.strings.substr(content, 8, 2), tf.uint16, little_endian=True)[0]
    start = 10 + tf.cast(header, tf.int32)
    values = tf.strings.substr(content, start, tf.strings.length(content) - start)
    pixels = tf.io.decode_raw(values, tf.as_dtype(image.dtype), little_endian=True)
    pixels = tf.reshape(pixels, tf.concat([size, [-1]], axis=0))
    return tf.broadcast_to(pixels, tf.concat([size, [image.channels]], axis=0))


def _scaled(pixels: tf.Tensor, image: ImageFacts) -> tf.Tensor:
    values = tf.cast(pixels, tf.float32)
    if image.is_byte:
        return values
    low, distance = limits(image)
    result = (values - low) / distance * 255.0
    return tf.clip_by_value(tf.where(tf.math.is_nan(result), 0.0, result), 0.0, 255.0)


def decode_part(content: tf.Tensor, box: tf.Tensor) -> tf.Tensor:
    """Returns the part of a JPEG in `box` (int32 [4]: top, left, height, width): uint8 [height, width, 3].

    Nothing beside or below the box is computed. The pixels equal those of `decode_image`, except at the edge of the
    box, where the decoder lacks the colour beyond; cut a little more than is needed.
    """
    return tf.ensure_shape(tf.image.decode_and_crop_jpeg(content, box, channels=3), [None, None, 3])


def decode_label(content: tf.Tensor) -> tf.Tensor:
    """Returns uint8 [h, w, 1] of an encoded index PNG.

    Of a palette PNG the op would return the greys of its colours; the builder stores indices as plain grey PNGs.
    """
    return tf.ensure_shape(tf.io.decode_png(content, channels=1), [None, None, 1])


# ---- shards


def shard_name(split: str, number: int, shards: int) -> str:
    """Returns the release's file name of shard `number` (from 0)."""
    return f"{split}-{number:05d}-of-{shards:05d}.tfrecord"


def shard_ranges(count: int, shards: int) -> list[range]:
    """Returns the items of each shard, `count` in all: ceil(count / shards) in all but the last shards (build_*.py)."""
    size = -(-count // shards)
    return [range(min(i * size, count), min((i + 1) * size, count)) for i in range(shards)]


def find_splits(dataset_dir: str | os.PathLike) -> list[str]:
    """Returns the names of the splits that have shards in an existing folder."""
    names = [entry.name for entry in files.path(dataset_dir).iterdir()]
    return sorted({name[: match.start()] for name in names if (match := _SHARD_NAME.search(name))})


def find_shards(dataset_dir: str | os.PathLike, split: str) -> tuple[str, ...]:
    """Returns the files `<dataset_dir>/<split>-*` in order, as the release finds them.

    Raises:
      DeepLabError: there are none, one of `-of-N` is missing, or the folder holds two builds.
    """
    folder = os.fspath(dataset_dir)
    if not files.path(folder).is_dir():
        raise DeepLabError(f"dataset_dir={folder}: no such folder; expected the one that holds {split}-*.tfrecord")
    shards = files.find(folder, f"{glob.escape(split)}-*")
    if not shards:
        splits = find_splits(folder)
        there = f"it has splits {', '.join(splits)}" if splits else "build it with deeplab-tf build-data"
        raise DeepLabError(f"dataset_dir={folder}: no files {split}-*; {there}")
    _check_complete(folder, split, shards)
    return tuple(shards)


def _check_complete(folder: str, split: str, shards: Sequence[str]) -> None:
    numbered = [match for file in shards if (match := _SHARD_NAME.search(os.path.basename(file)))]
    totals = sorted({int(match[2]) for match in numbered})
    if len(totals) > 1:
        raise DeepLabError(f"dataset_dir={folder}: {split} is there in {totals[0]} and in {totals[1]} shards; keep one")
    missing = sorted(set(range(*totals)) - {int(match[1]) for match in numbered})
    if missing:
        absent = shard_name(split, missing[0], totals[0])
        raise DeepLabError(f"dataset_dir={folder}: {absent} is missing ({len(missing)} of {totals[0]} shards are)")
