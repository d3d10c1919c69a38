"""Every image and label of a data set, encoded and with the place to name: from TFRecords or from folders."""

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence

import tensorflow as tf
from google.protobuf.message import DecodeError

from deeplab_tf.catalog import datasets
from deeplab_tf.config import DataConfig
from deeplab_tf.data import cityscapes, find, folder, places, records, tfds_folder
from deeplab_tf.data.locate import Located, locate_records
from deeplab_tf.data.pairs import Pair
from deeplab_tf.errors import DeepLabError, unknown_name

DEFAULT = "pascal_voc_seg"  # the release's default of --dataset


@dataclasses.dataclass(frozen=True)
class Sample:
    """One example: what to call it, its encoded image and label (None: not there), what is wrong with it already, and
    the values of its label that stand for 0, 1, 2... (None: they are the classes)."""

    place: str
    image: bytes | None
    label: bytes | None
    faults: tuple[tuple[str, str], ...] = ()
    label_ids: tuple[int, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Data:
    """A data set on disk.

    Attributes:
      facts: what its labels mean; `assumed` where nothing in the folder says so.
      stored: whether it is records, whose labels TensorFlow reads, or files, which build-data reads.
      splits: split -> number of examples.
      samples: split -> its examples, one after the other; those that cannot be read have faults.
      unused: label files that belong to no example.
    """

    facts: datasets.Dataset
    assumed: bool
    stored: bool
    splits: Mapping[str, int]
    samples: Callable[[str], Iterator[Sample]]
    unused: tuple[str, ...] = ()


def open_data(
    dataset_dir: str | os.PathLike,
    *,
    dataset: str | None = None,
    splits: Sequence[str] = (),
    tfds_features: Sequence[str] | None = None,
) -> Data:
    """Returns the data set in a folder: of TFRecords where it holds shards, else of images and labels.

    Args:
      dataset_dir: the folder.
      dataset: what the labels mean, as --dataset of the other commands; None: what the folder says, else the release's
        default.
      splits: only these; none: all.
      tfds_features: as --tfds_features of the other commands.

    Raises:
      DeepLabError: no such folder, data set or split, or nothing in it.
    """
    path = os.fspath(dataset_dir)
    if not places.is_dir(path):
        cure = f"is a file; give its folder, {os.path.dirname(path) or '.'}"
        found = cure if places.is_file(path) else "no such folder"
        raise DeepLabError(f"--dataset_dir={path}: {found}; expected TFRecords, or images and labels")
    prepared = (dataset or "").startswith(tfds_folder.PREFIX)
    stored = prepared or bool(records.find_splits(path))
    features = tuple(tfds_features) if tfds_features else None
    facts, assumed = _facts(path, dataset, stored, features)
    data = _of_records(path, facts, assumed, prepared, features) if stored else _of_files(path, facts, assumed)
    for split in splits:
        if split not in data.splits:
            raise unknown_name(f"split of {path}", split, data.splits)
    chosen = {split: count for split, count in data.splits.items() if not splits or split in splits}
    return dataclasses.replace(data, splits=chosen)


def _facts(path: str, dataset: str | None, stored: bool, features) -> tuple[datasets.Dataset, bool]:
    if dataset:
        return find.find_dataset(dataset, path, features), False
    known = (datasets.DATASET_FILE, *(() if stored else (folder.CLASS_NAMES_FILE,)))
    if any(places.is_file(os.path.join(path, name)) for name in known):
        return folder.folder_facts(path), False
    if _is_cityscapes(path):
        return datasets.dataset("cityscapes"), False
    return datasets.dataset(DEFAULT), True


def _is_cityscapes(path: str) -> bool:
    return places.is_dir(os.path.join(path, "leftImg8bit"))


# ---- records


def _of_records(path: str, facts: datasets.Dataset, assumed: bool, prepared: bool, features) -> Data:
    names = facts.splits if prepared else records.find_splits(path)
    # Records are found by the folder; what their labels mean is known already.
    config = DataConfig(dataset=facts.name if prepared else DEFAULT, dataset_dir=path, tfds_features=features)
    located = {split: locate_records(config, split) for split in names}
    counts = {split: len(found.index) for split, found in located.items()}
    return Data(facts, assumed, True, counts, lambda split: _records(located[split]))


def _records(located: Located) -> Iterator[Sample]:
    index = located.index
    for fault in index.faults:
        place, _, words = os.path.basename(fault).rpartition(": ")
        yield Sample(place, None, None, (("unreadable", f"cannot be read: {words}"),))
    for shard, offset, number in zip(index.shard, index.offset, index.number, strict=True):
        file = index.files[shard]
        place = f"{os.path.basename(file)}: record {number}"
        try:
            content = records.RecordAt(tf.constant(file), tf.constant(offset)).get_single_element().numpy()
            features = tf.train.Example.FromString(content).features.feature
        except (tf.errors.OpError, DecodeError) as error:
            known = "is no tf.train.Example" if isinstance(error, DecodeError) else "does not match its checksum"
            yield Sample(place, None, None, (("unreadable", f"{known} (damaged)"),))
            continue
        keys = (located.keys.get(key, key) for key in (records.IMAGE, records.LABEL, records.FILENAME))
        image, label, name = (b"".join(features[key].bytes_list.value) for key in keys)
        named = name.decode(errors="replace")
        missing = (("missing-label", "has no label"),) if located.labelled and not label else ()
        label = label if located.labelled and label else None
        yield Sample(f"{place} ({named})" if named else place, image, label, missing)


# ---- files


def _of_files(path: str, facts: datasets.Dataset, assumed: bool) -> Data:
    pairs = cityscapes.cityscapes_splits(path) if _is_cityscapes(path) else folder.folder_splits(path)
    used = {pair.label for of_split in pairs.values() for pair in of_split}
    folders = () if _is_cityscapes(path) else {os.path.dirname(label) for label in used}  # there each has four files
    there = sorted(file for label_dir in folders for file in places.find(label_dir, "*"))
    unused = tuple(os.path.relpath(file, path) for file in there if file not in used and places.is_file(file))
    counts = {split: len(of_split) for split, of_split in pairs.items()}
    return Data(facts, assumed, False, counts, lambda split: (_sample(pair, path) for pair in pairs[split]), unused)


def _sample(pair: Pair, root: str) -> Sample:
    image, faults = _contents(pair.image, "image", root)
    label, more = _contents(pair.label, "label", root)
    return Sample(os.path.relpath(pair.image, root), image, label, faults + more, pair.label_ids)


def _contents(file: str, what: str, root: str) -> tuple[bytes | None, tuple[tuple[str, str], ...]]:
    try:
        return places.read_bytes(file), ()
    except FileNotFoundError:
        return None, ((f"missing-{what}", f"has no {os.path.relpath(file, root)}"),)
    except OSError as error:
        return None, (("unreadable", f"has a {what} that cannot be read ({error.strerror})"),)
