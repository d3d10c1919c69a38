"""The encoded images and labels of a data set on disk, with names for messages: from TFRecords or from folders."""

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence

import tensorflow as tf
from google.protobuf.message import DecodeError

from deeplab_tf import files
from deeplab_tf.catalog import datasets
from deeplab_tf.config import DataConfig
from deeplab_tf.data import cityscapes, find, folder, records, tfds_folder
from deeplab_tf.data.locate import Located, locate_records
from deeplab_tf.data.pairs import Pair
from deeplab_tf.errors import DeepLabError, unknown_name

DEFAULT = datasets.DEFAULT_DATASET


@dataclasses.dataclass(frozen=True)
class EncodedExample:
    """One example as it is stored.

    Attributes:
      name: for messages: its file, or file and number of its record.
      image: encoded; None if it is missing.
      label: encoded; None if it is missing.
      faults: (code, description) of each fault found so far.
      label_ids: the values of the label that stand for the classes 0, 1, 2...; None: the values are the classes.
    """

    name: str
    image: bytes | None
    label: bytes | None
    faults: tuple[tuple[str, str], ...] = ()
    label_ids: tuple[int, ...] | None = None


@dataclasses.dataclass(frozen=True)
class DatasetOnDisk:
    """A data set on disk.

    Attributes:
      facts: what its labels mean.
      in_records: whether it lies in records, whose labels TensorFlow reads, or in files, which build-data reads.
      splits: split -> number of examples.
      examples: split -> its examples in order; those that cannot be read have faults.
      unused: label files that belong to no example.
      assumed: whether `facts` are a guess, because nothing in the folder says what the labels mean.
    """

    facts: datasets.Dataset
    in_records: bool
    splits: Mapping[str, int]
    examples: Callable[[str], Iterator[EncodedExample]]
    unused: tuple[str, ...] = ()
    assumed: bool = False


def open_data(
    dataset_dir: str | os.PathLike,
    *,
    dataset: str | None = None,
    splits: Sequence[str] = (),
    tfds_features: Sequence[str] | None = None,
) -> DatasetOnDisk:
    """Returns the data set in a folder: of TFRecords where it holds shards, else of images and labels.

    Args:
      dataset_dir: the folder.
      dataset: what the labels mean, as --dataset of the other commands; None: what the folder says, else the release's
        default.
      splits: the splits to open; none: all.
      tfds_features: as --tfds_features of the other commands.

    Raises:
      DeepLabError: there is no such folder, data set or split, or nothing in it.
    """
    path = os.fspath(dataset_dir)
    if not files.path(path).is_dir():
        is_file = f"is a file; give its folder, {os.path.dirname(path) or '.'}"
        problem = is_file if files.path(path).is_file() else "no such folder"
        raise DeepLabError(f"--dataset_dir={path}: {problem}; expected TFRecords, or images and labels")
    prepared = (dataset or "").startswith(tfds_folder.PREFIX)
    in_records = prepared or bool(records.find_splits(path))
    features = tuple(tfds_features) if tfds_features else None
    facts, assumed = _facts(path, dataset, in_records, features)
    data = _from_records(path, facts, prepared, features) if in_records else _from_files(path, facts)
    for split in splits:
        if split not in data.splits:
            raise unknown_name(f"split of {path}", split, data.splits)
    chosen = {split: count for split, count in data.splits.items() if not splits or split in splits}
    return dataclasses.replace(data, splits=chosen, assumed=assumed)


def _facts(
    path: str, dataset: str | None, in_records: bool, features: tuple[str, ...] | None
) -> tuple[datasets.Dataset, bool]:
    """Returns the facts of the data set in a folder, and whether they are a guess."""
    if dataset:
        return find.find_dataset(dataset, path, features), False
    descriptions = [datasets.DATASET_FILE] if in_records else [datasets.DATASET_FILE, folder.CLASS_NAMES_FILE]
    if any(files.path(os.path.join(path, name)).is_file() for name in descriptions):
        return folder.folder_facts(path), False
    if _is_cityscapes(path):
        return datasets.dataset("cityscapes"), False
    return datasets.dataset(DEFAULT), True


def _is_cityscapes(path: str) -> bool:
    return files.path(os.path.join(path, "leftImg8bit")).is_dir()


# ---- records


def _from_records(
    path: str, facts: datasets.Dataset, prepared: bool, features: tuple[str, ...] | None
) -> DatasetOnDisk:
    names = facts.splits if prepared else records.find_splits(path)
    # Only the folder matters here: the facts are known already.
    config = DataConfig(dataset=facts.name if prepared else None, dataset_dir=path, tfds_features=features)
    located = {split: locate_records(config, split) for split in names}
    counts = {split: len(where.index) for split, where in located.items()}
    return DatasetOnDisk(facts, True, counts, lambda split: _records(located[split]))


def _records(located: Located) -> Iterator[EncodedExample]:
    index = located.index
    for fault in index.faults:
        name, _, reason = os.path.basename(fault).rpartition(": ")
        yield EncodedExample(name, None, None, (("unreadable", f"cannot be read: {reason}"),))
    for shard, offset, number in zip(index.shard, index.offset, index.number, strict=True):
        file = index.files[shard]
        name = f"{os.path.basename(file)}: record {number}"
        try:
            content = records.RecordAt(tf.constant(file), tf.constant(offset)).get_single_element().numpy()
            features = tf.train.Example.FromString(content).features.feature
        except (tf.errors.OpError, DecodeError) as error:
            problem = "is not a tf.train.Example" if isinstance(error, DecodeError) else "does not match its checksum"
            yield EncodedExample(name, None, None, (("unreadable", f"{problem} (damaged)"),))
            continue
        keys = (located.keys.get(key, key) for key in (records.IMAGE, records.LABEL, records.FILENAME))
        image, label, image_name = (b"".join(features[key].bytes_list.value) for key in keys)
        if image_name:
            name += f" ({image_name.decode(errors='replace')})"
        missing = (("missing-label", "has no label"),) if located.labelled and not label else ()
        yield EncodedExample(name, image, label if located.labelled and label else None, missing)


# ---- files


def _from_files(path: str, facts: datasets.Dataset) -> DatasetOnDisk:
    pairs = cityscapes.cityscapes_splits(path) if _is_cityscapes(path) else folder.folder_splits(path)
    used = {pair.label for of_split in pairs.values() for pair in of_split if pair.label}
    # Cityscapes has four files for each label, of which one is used.
    folders = () if _is_cityscapes(path) else {os.path.dirname(label) for label in used}
    present = sorted(file for label_dir in folders for file in files.find(label_dir, "*"))
    spare = [file for file in present if file not in used and files.path(file).is_file()]
    unused = tuple(os.path.relpath(file, path) for file in spare)
    counts = {split: len(of_split) for split, of_split in pairs.items()}

    def examples(split: str) -> Iterator[EncodedExample]:
        return (_encoded_example(pair, path) for pair in pairs[split])

    return DatasetOnDisk(facts, False, counts, examples, unused)


def _encoded_example(pair: Pair, root: str) -> EncodedExample:
    image, faults = _contents(pair.image, "image", root)
    label, label_faults = _contents(pair.label, "label", root) if pair.label else (None, ())
    return EncodedExample(os.path.relpath(pair.image, root), image, label, faults + label_faults, pair.label_ids)


def _contents(file: str, what: str, root: str) -> tuple[bytes | None, tuple[tuple[str, str], ...]]:
    """Returns the bytes of an image or a label (`what`), or None and the fault of its file."""
    try:
        return files.path(file).read_bytes(), ()
    except FileNotFoundError:
        return None, ((f"missing-{what}", f"has no {os.path.relpath(file, root)}"),)
    except OSError as error:
        return None, (("unreadable", f"has a {what} that cannot be read ({error.strerror})"),)
