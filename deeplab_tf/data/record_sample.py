"""A bounded sample of a split's records: sizes of their pictures and pixels of each class, or the pictures themselves.

It needs none of TensorFlow's devices, so that it can be taken before these are chosen.
"""

import dataclasses
import io
import struct
from collections.abc import Mapping

import google.protobuf.message
import numpy as np
import PIL.Image
import tensorflow as tf

from deeplab_tf import files
from deeplab_tf.catalog.datasets import Dataset
from deeplab_tf.config import DataConfig
from deeplab_tf.data import records, transforms
from deeplab_tf.data.locate import Located, locate_records
from deeplab_tf.errors import DeepLabError
from deeplab_tf.ops.images import FORMATS, PILLOW_ERRORS

MOST_RECORDS = 256
_MOST_SIZES = 32  # records of which the size alone is wanted: each is read whole


@dataclasses.dataclass(frozen=True)
class RecordSample:
    """What was seen of a split.

    Attributes:
      records: the number of all records of the split.
      seen: the number of those that were read.
      sizes: int64 [n, 2], height and width of each picture that was read.
      counts: int64 [classes], pixels of each class in the labels that were read; 0 for an ignored class.
      around: int64 [classes], labelled pixels of the pictures that have the class.
    """

    records: int
    seen: int
    sizes: np.ndarray
    counts: np.ndarray
    around: np.ndarray


def sample_records(config: DataConfig, facts: Dataset, split: str) -> RecordSample:
    """Returns what at most MOST_RECORDS records, evenly spread over a split, hold: always the same ones.

    Records that cannot be read are passed over: training names them.

    Raises:
      DeepLabError: there are no records.
    """
    located = locate_records(config, split)
    total = len(located.index)
    if not total:
        raise DeepLabError(f"dataset_dir={config.dataset_dir}: the files {split}-* hold no records")
    chosen = _spread(total, MOST_RECORDS)
    sizes: list[tuple[int, int]] = []
    counts = np.zeros(facts.num_classes, np.int64)
    around = np.zeros(facts.num_classes, np.int64)
    for number in chosen:
        features = _features(located, int(number))
        size = _size(features)
        if size:
            sizes.append(size)
        if located.labelled:
            found = _classes(features[records.LABEL], facts, config.label_table)
            counts += found
            around[found > 0] += found.sum()
    if not sizes:
        raise DeepLabError(f"dataset_dir={config.dataset_dir}: not one of {len(chosen)} records of {split} can be read")
    return RecordSample(total, len(chosen), np.array(sizes, np.int64), counts, around)


def training_side(config: DataConfig, located: Located) -> int | None:
    """Returns the median longest side in pixels of the pictures of a split, as `_MOST_SIZES` of them say.

    It is that before scales and crops: where config resizes pictures (min_resize_value), that of the resized ones. No
    picture is decoded. None: not one of the records can be read.
    """
    read = (_size(_features(located, int(number))) for number in _spread(len(located.index), _MOST_SIZES))
    sizes = [size for size in read if size]
    if config.min_resize_value is not None:
        limits = {"minimum": config.min_resize_value, "maximum": config.max_resize_value}
        pairs = (map(tf.constant, size) for size in sizes)
        sizes = [transforms.range_size(*pair, **limits, factor=config.resize_factor).numpy() for pair in pairs]
    return round(float(np.median([max(size) for size in sizes]))) if sizes else None


def sample_pictures(config: DataConfig, split: str, most: int) -> list[tuple[str, bytes]]:
    """Returns the names and the encoded pictures of at most `most` records, evenly spread over a split.

    Raises:
      DeepLabError: there are no records.
    """
    located = locate_records(config, split)
    found = []
    for number in _spread(len(located.index), most):
        features = _features(located, int(number))
        name, content = features[records.FILENAME], features[records.IMAGE]
        if isinstance(name, bytes) and isinstance(content, bytes) and content:
            found.append((name.decode(errors="replace") or f"{split} {number + 1}", content))
    return found


def _spread(total: int, most: int) -> np.ndarray:
    """Returns at most `most` of `total` numbers, evenly spread: always the same ones."""
    return np.unique(np.linspace(0, max(0, total - 1), min(total, most)).round().astype(int))


def _features(located: Located, number: int) -> dict[str, bytes | int]:
    """Returns the release's keys of a record with their values, empty or 0 where it cannot be parsed."""
    index = located.index
    with files.path(index.files[index.shard[number]]).open("rb") as stream:
        stream.seek(index.offset[number])
        (length,) = struct.unpack("<Qxxxx", stream.read(12))
        content = stream.read(length)
    try:
        features = tf.train.Example.FromString(content).features.feature
    except google.protobuf.message.DecodeError:
        features = tf.train.Features().feature
    values: dict[str, bytes | int] = {}
    for key in (records.IMAGE, records.LABEL, records.FILENAME):
        values[key] = b"".join(features[located.keys.get(key, key)].bytes_list.value)
    for key in (records.HEIGHT, records.WIDTH):
        values[key] = sum(features[located.keys.get(key, key)].int64_list.value)
    return values


def _size(features: Mapping[str, bytes | int]) -> tuple[int, int] | None:
    """Returns height and width of a picture: as its record says, else as the picture's own header does."""
    height, width = features[records.HEIGHT], features[records.WIDTH]
    if isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0:
        return height, width
    try:
        with PIL.Image.open(io.BytesIO(bytes(features[records.IMAGE])), formats=FORMATS) as image:
            return image.height, image.width
    except PILLOW_ERRORS:
        return None


def _classes(content: bytes | int, facts: Dataset, renamed: Mapping[int, int]) -> np.ndarray:
    """Returns int64 [classes], the pixels of each class in an encoded label: zeros where it is not a grey PNG."""
    counts = np.zeros(256, np.int64)
    try:
        with PIL.Image.open(io.BytesIO(bytes(content)), formats=FORMATS) as image:
            if image.mode == "L":
                counts = np.bincount(np.asarray(image).ravel(), minlength=256).astype(np.int64)
    except PILLOW_ERRORS:
        pass
    mapped = np.zeros(256, np.int64)
    np.add.at(mapped, [renamed.get(value, value) for value in range(256)], counts)
    if facts.ignore_label < 256:
        mapped[facts.ignore_label] = 0
    return mapped[: facts.num_classes]
