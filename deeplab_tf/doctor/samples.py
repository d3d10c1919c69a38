"""A data set on disk as the doctor looks at it: TFRecords, as TensorFlow reads them, or files, as build-data does."""

import dataclasses
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence

import tensorflow as tf
from google.protobuf.message import DecodeError

from deeplab_tf import files
from deeplab_tf.catalog import datasets
from deeplab_tf.config import DataConfig
from deeplab_tf.data import cityscapes, find, folder, record_index, records, tfds_folder
from deeplab_tf.data.annotations.conversion import Converted
from deeplab_tf.data.annotations.folder import Choice, annotated_folder
from deeplab_tf.data.class_names import TOO_MANY, named_classes
from deeplab_tf.data.file_tree import extension, files_below
from deeplab_tf.data.layouts import LABEL_EXTENSIONS
from deeplab_tf.data.locate import Located, locate_records
from deeplab_tf.data.pairing import EQUAL_STEMS
from deeplab_tf.data.pairs import Pair
from deeplab_tf.data.photographs import Exif, without_turn
from deeplab_tf.errors import DeepLabError, unknown_name

_CODES = {EQUAL_STEMS: "equal-stems", TOO_MANY: "too-many-classes"}  # of kinds of faults
_CITYSCAPES = "leftImg8bit"


class UnusableData(DeepLabError):
    """A folder is there, and build-data or train would not take it; `code` is that of the finding."""

    def __init__(self, error: DeepLabError, code: str) -> None:
        super().__init__(str(error))
        self.code = _CODES.get(getattr(error, "kind", ""), code)


@dataclasses.dataclass(frozen=True)
class Example:
    """One example as it is stored.

    Attributes:
      name: for messages: its file, or file and number of its record.
      stem: its own name, as the record stores it; empty where there is none.
      image: the encoded image of a record; None if it is missing, or in a file.
      label: the encoded label of a record; None if it is missing, or in a file.
      pair: its files, where it does not lie in a record.
      faults: (code, description) of each fault found so far.
    """

    name: str
    stem: str
    image: bytes | None = None
    label: bytes | None = None
    pair: Pair | None = None
    faults: tuple[tuple[str, str], ...] = ()

    def photograph(self) -> bytes:
        """Returns the encoded image; DeepLabError where it is missing or cannot be read.

        What EXIF data would turn, and TensorFlow reads as it is stored, comes from a record without them.
        """
        if self.pair is None:
            return without_turn(self.image or b"")
        try:
            return files.path(self.pair.image).read_bytes()
        except OSError as error:
            raise DeepLabError(f"{self.pair.image}: cannot be read ({error.strerror})") from None


@dataclasses.dataclass(frozen=True)
class DatasetOnDisk:
    """A data set on disk.

    Attributes:
      root: the folder.
      facts: what its labels mean.
      splits: split -> number of examples.
      examples: split -> its examples in order; those that cannot be read have faults.
      pairs: split -> pairs of files; None: the data lie in records.
      exif: whether build-data turns its photographs as their EXIF data say (see `PhotographOptions`).
      unlabelled: splits without labels.
      stated: what the dataset.json beside records says.
      unused: label files that belong to no example.
      assumed: whether `facts` are a guess, because nothing in the folder says what the labels mean.
      notes: what build-data tells of the folder.
    """

    root: str
    facts: datasets.Dataset
    splits: Mapping[str, int]
    examples: Callable[[str], Iterator[Example]]
    pairs: Mapping[str, Sequence[Pair]] | None = None
    exif: Exif = "auto"
    unlabelled: tuple[str, ...] = ()
    stated: datasets.Dataset | None = None
    unused: tuple[str, ...] = ()
    assumed: bool = False
    notes: tuple[str, ...] = ()

    @property
    def in_records(self) -> bool:
        """Whether the data lie in records, whose labels TensorFlow reads, or in files, which build-data reads."""
        return self.pairs is None


def open_data(
    dataset_dir: str | os.PathLike,
    *,
    dataset: str | None = None,
    splits: Sequence[str] = (),
    tfds_features: Sequence[str] | None = None,
) -> DatasetOnDisk:
    """Returns the data set in a folder: of TFRecords where it holds shards, else of images with labels or annotations.

    Args:
      dataset_dir: the folder.
      dataset: what the labels mean, as --dataset of the other commands; None: what the folder says, else the release's
        default.
      splits: the splits to open; none: all.
      tfds_features: as --tfds_features of the other commands.

    Raises:
      UnusableData: the folder is there, and build-data would not take it: names of classes, layout, annotations.
      DeepLabError: there is no such folder, data set or split, or nothing in it.
    """
    path = os.fspath(dataset_dir)
    if not files.path(path).is_dir():
        is_file = f"is a file; give its folder, {os.path.dirname(path) or '.'}"
        problem = is_file if files.path(path).is_file() else "no such folder"
        raise DeepLabError(f"--dataset_dir={path}: {problem}; expected TFRecords, or images and labels")
    if (dataset or "").startswith(tfds_folder.PREFIX) or records.find_splits(path):
        data = _from_records(path, dataset, tuple(tfds_features) if tfds_features else None)
    else:
        data = _from_files(path, dataset)
    for split in splits:
        if split not in data.splits:
            raise unknown_name(f"split of {path}", split, data.splits)
    chosen = {split: count for split, count in data.splits.items() if not splits or split in splits}
    return dataclasses.replace(data, splits=chosen)


# ---- records


def _from_records(path: str, dataset: str | None, features: tuple[str, ...] | None) -> DatasetOnDisk:
    prepared = (dataset or "").startswith(tfds_folder.PREFIX)
    described = not prepared and find.is_described(path)
    try:
        stated = datasets.read_dataset(files.path(path)) if described else None
    except DeepLabError as error:
        raise UnusableData(error, "dataset-json") from None
    facts = find.find_dataset(dataset, path, features)
    names = facts.splits if prepared else records.find_splits(path)
    config = DataConfig(dataset=dataset, dataset_dir=path, tfds_features=features)
    located = {split: locate_records(config, split) for split in names}
    return DatasetOnDisk(
        root=path,
        facts=facts,
        splits={split: len(where.index) for split, where in located.items()},
        examples=lambda split: _records(located[split]),
        unlabelled=tuple(split for split, where in located.items() if not where.labelled),
        stated=stated,
        assumed=not described and not dataset,
    )


def _records(located: Located) -> Iterator[Example]:
    index = located.index
    for fault in index.faults:
        name, _, reason = os.path.basename(fault).rpartition(": ")
        yield Example(name, "", faults=(("unreadable", f"cannot be read: {reason}"),))
    for shard, offset, number in zip(index.shard, index.offset, index.number, strict=True):
        file = index.files[shard]
        name = f"{os.path.basename(file)}: record {number}"
        try:
            content = record_index.RecordAt(tf.constant(file), tf.constant(offset)).get_single_element().numpy()
            features = tf.train.Example.FromString(content).features.feature
        except (tf.errors.OpError, DecodeError) as error:
            problem = "is not a tf.train.Example" if isinstance(error, DecodeError) else "does not match its checksum"
            yield Example(name, "", faults=(("unreadable", f"{problem} (damaged)"),))
            continue
        keys = (located.keys.get(key, key) for key in (records.IMAGE, records.LABEL, records.FILENAME))
        image, label, image_name = (b"".join(features[key].bytes_list.value) for key in keys)
        stem = image_name.decode(errors="replace")
        faults = (("missing-label", "has no label"),) if located.labelled and not label else ()
        yield Example(f"{name} ({stem})" if stem else name, stem, image, label or None, faults=faults)


def record_names(located: Located) -> Iterator[str]:
    """Yields the name that each record stores, "" where there is none or it cannot be read."""
    return (example.stem for example in _records(located))


# ---- files


def _from_files(path: str, dataset: str | None) -> DatasetOnDisk:
    if files.path(os.path.join(path, _CITYSCAPES)).is_dir():
        facts = find.find_dataset(dataset or "cityscapes", path)
        return _of_pairs(path, facts, cityscapes.cityscapes_splits(path))
    named = None
    try:
        named = find.find_dataset(dataset, path) if dataset else named_classes(path)
    except DeepLabError as error:
        if dataset:
            raise
        raise UnusableData(error, "class-names") from None
    scratch = tempfile.mkdtemp(prefix="deeplab_doctor_")
    try:
        data = _of_folder(path, named, scratch)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    weakref.finalize(data.examples, shutil.rmtree, scratch, ignore_errors=True)
    return data


def _of_folder(path: str, named: datasets.Dataset | None, scratch: str) -> DatasetOnDisk:
    """Returns the user's own data; the labels of annotations are drawn into the folder `scratch`."""
    try:
        found = annotated_folder(path, named, Choice(), scratch)
    except files.UnwritableError:
        raise
    except DeepLabError as error:
        raise UnusableData(error, "annotations") from None
    if isinstance(found, Converted):
        data = _of_pairs(path, found.facts, found.splits)
        return dataclasses.replace(data, exif="apply", notes=found.notes)
    notes = [found] if found else []
    try:
        splits = folder.folder_splits(path, notes.append)
    except DeepLabError as error:
        raise UnusableData(error, "layout") from None
    facts = named or datasets.dataset(datasets.DEFAULT_DATASET)
    used = {pair.label for of_split in splits.values() for pair in of_split if pair.label}
    label_dirs = {os.path.relpath(os.path.dirname(label), path) for label in used}
    labels = [file for file in files_below(path) if extension(file) in LABEL_EXTENSIONS]
    present = [file for file in labels if (os.path.dirname(file) or ".") in label_dirs]
    pictures = {pair.image for of_split in splits.values() for pair in of_split}
    unused = [file for file in present if os.path.join(path, file) not in used | pictures]
    data = _of_pairs(path, facts, splits)
    return dataclasses.replace(data, unused=tuple(unused), assumed=named is None, notes=tuple(notes))


def _of_pairs(path: str, facts: datasets.Dataset, pairs: Mapping[str, Sequence[Pair]]) -> DatasetOnDisk:
    def examples(split: str) -> Iterator[Example]:
        return (Example(os.path.relpath(pair.image, path), pair.filename, pair=pair) for pair in pairs[split])

    return DatasetOnDisk(
        root=path,
        facts=facts,
        splits={split: len(of_split) for split, of_split in pairs.items()},
        examples=examples,
        pairs=pairs,
        unlabelled=tuple(s for s, of_split in pairs.items() if all(pair.label is None for pair in of_split)),
    )
