"""The place of each record of a split, and the keys of its contents: TFRecords of build-data or of TFDS."""

import dataclasses
import struct
from collections.abc import Mapping

import google.protobuf.message
import numpy as np
import tensorflow as tf

from deeplab_tf import files
from deeplab_tf.catalog.datasets import DATASETS
from deeplab_tf.config import DataConfig
from deeplab_tf.data import find, record_index, records, tfds_folder
from deeplab_tf.errors import DeepLabError

_UNLABELLED_SPLIT = "test"  # the only split whose labels the release does not read
_ABSENT = "deeplab_tf/absent/"  # the prefix of keys that no record has
_PNG_KINDS = {0: "grey", 2: "colour", 3: "palette", 4: "grey", 6: "colour"}


@dataclasses.dataclass(frozen=True)
class Located:
    """The records of a split.

    Attributes:
      index: where each record begins.
      keys: the release's key -> the key in these records, where they differ.
      labelled: whether the split has labels to read.
    """

    index: record_index.RecordIndex
    keys: Mapping[str, str]
    labelled: bool


def locate_records(config: DataConfig, split: str) -> Located:
    """Returns where the records of a split are. Of each record only the head is read.

    Raises:
      DeepLabError: there are no such records, a file is missing, or the first mask of a data set of TFDS is not an
        8-bit grey PNG (TensorFlow would read the greys of its colours as classes).
    """
    if config.dataset and config.dataset.startswith(tfds_folder.PREFIX):
        return _locate_prepared(config, config.dataset, split)
    if not config.dataset_dir:
        raise DeepLabError("dataset_dir is not set; expected the folder with the TFRecord shards")
    index = record_index.index_shards(records.find_shards(config.dataset_dir, split))
    return Located(index, {}, _has_labels(config, split, index))


def _has_labels(config: DataConfig, split: str, index: record_index.RecordIndex) -> bool:
    """Returns whether the labels of a split are read: dataset.json decides, for `test` else the first record.

    The labels of a `test` of the catalogue's sets are not read, as in the release.
    """
    if split != _UNLABELLED_SPLIT and not find.is_described(config.dataset_dir):
        return True
    facts = find.find_dataset(config.dataset, config.dataset_dir, config.tfds_features)
    if split in facts.unlabelled:
        return False
    if split != _UNLABELLED_SPLIT:
        return True
    return facts.name not in DATASETS and len(index) > 0 and bool(_first_content(index, records.LABEL))


def _locate_prepared(config: DataConfig, name: str, split: str) -> Located:
    prepared = tfds_folder.read_prepared(name, config.dataset_dir, config.tfds_features)
    shards = prepared.shards(split)
    index = record_index.index_shards([shard.file for shard in shards])
    first = np.array([shard.first for shard in shards])
    last = np.array([shard.last for shard in shards])
    wanted = (index.number >= first[index.shard]) & (index.number < last[index.shard])
    index = dataclasses.replace(
        index,
        shard=index.shard[wanted],
        offset=index.offset[wanted],
        number=index.number[wanted],
        checksum=index.checksum[wanted],
    )
    if len(index):
        _check_mask(prepared, index)
    keys = {key: _ABSENT + key for key in (records.FILENAME, records.HEIGHT, records.WIDTH)}
    keys |= {records.IMAGE: prepared.image, records.LABEL: prepared.mask}
    if prepared.file_name:
        keys[records.FILENAME] = prepared.file_name
    return Located(index, keys, labelled=True)


def _check_mask(prepared: tfds_folder.Prepared, index: record_index.RecordIndex) -> None:
    """Raises DeepLabError if the first mask is a colour picture, whose greys would be read as labels."""
    file = index.files[index.shard[0]]
    content = _first_content(index, prepared.mask)
    if records.image_format(content) != "png":
        problem = f"begins with {content[:8]!r}"
    else:
        depth, kind = content[24:26]  # bit depth and colour type in the header of every PNG
        if depth == 8 and _PNG_KINDS.get(kind) == "grey":
            return
        problem = f"is a {depth}-bit {_PNG_KINDS.get(kind, 'strange')} PNG"
    raise DeepLabError(
        f"{prepared.name}: the first {prepared.mask} in {file} {problem}; expected 8-bit grey PNGs of class indices; "
        "write the set as files and build it with deeplab-tf build-data, which reads palettes and colours"
    )


def _first_content(index: record_index.RecordIndex, key: str) -> bytes:
    """Returns what the first record stores under `key`; nothing if it lacks the key or cannot be parsed."""
    with files.path(index.files[index.shard[0]]).open("rb") as stream:
        stream.seek(index.offset[0])
        (length,) = struct.unpack("<Qxxxx", stream.read(12))
        content = stream.read(length)
    try:
        features = tf.train.Example.FromString(content).features.feature
    except google.protobuf.message.DecodeError:
        return b""
    return b"".join(features[key].bytes_list.value)
