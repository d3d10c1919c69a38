"""The search for a data set: by its name in the catalogue or of TFDS, in a folder, or by what lies beside records."""

import dataclasses
from collections.abc import Sequence

from deeplab_tf import files
from deeplab_tf.catalog.datasets import (
    DATASET_FILE,
    DATASETS,
    DEFAULT_DATASET,
    Dataset,
    dataset_from_json,
    is_place,
    read_dataset,
)
from deeplab_tf.config import DataConfig
from deeplab_tf.data import tfds_folder
from deeplab_tf.errors import DeepLabError

_SHOWN = 3  # names of classes in a message


def find_dataset(
    name: str | None = None, dataset_dir: str | None = None, tfds_features: Sequence[str] | None = None
) -> Dataset:
    """Returns the facts of a data set: what its records say they are, if they do, else what `name` says.

    The dataset.json beside the records decides. A `name` gives the same classes another name and other colours; it may
    not contradict the file.

    Args:
      name: a name of the catalogue or of the dataset.json in `dataset_dir`, a folder or file that describes a data set
        (with a separator, see `datasets.is_place`), or the name of one that TensorFlow Datasets has prepared (see
        `tfds_folder.read_prepared`). None: what the records say, or the release's default where they say nothing.
      dataset_dir: the folder with the records, or the data_dir of TensorFlow Datasets.
      tfds_features: for TensorFlow Datasets, the features of image and mask.

    Raises:
      DeepLabError: there is no such data set, its description cannot be read, or the records are of other classes or
        another ignore label than the data set called `name`.
    """
    if name and name.startswith(tfds_folder.PREFIX):
        return _prepared_dataset(tfds_folder.read_prepared(name, dataset_dir, tfds_features))
    if not is_described(dataset_dir):
        return _own(read_dataset(name)) if name and is_place(name) else read_dataset(name or DEFAULT_DATASET)
    file = files.path(dataset_dir or "") / DATASET_FILE
    facts = _own(read_dataset(file))
    if name in (None, facts.name):
        return facts
    try:
        asked = _own(read_dataset(name))
    except DeepLabError as error:
        raise DeepLabError(f"{error}; {file} beside the records calls them {facts.name}") from None
    different = _differences(asked, facts)
    if different:
        raise DeepLabError(
            f"dataset={name} has {', '.join(first for first, _ in different)}, but {file} beside the records has "
            f"{', '.join(second for _, second in different)}; leave dataset out to take the records as they are (or "
            f"give dataset={facts.name}), or give the records of {name} as dataset_dir"
        )
    # How the records are stored they alone know: the name and the colours are what can be asked for.
    asked_for = {key: getattr(asked, key) for key in ("name", "palette", "colour_map", "homepage", "terms")}
    return dataclasses.replace(facts, **asked_for, evaluation_ids=asked.evaluation_ids)


def dataset_of(config: DataConfig) -> Dataset:
    """Returns the facts of `config.dataset`, with the classes of `config.classes_of`.

    Raises:
      DeepLabError: as `find_dataset` raises it; or what classes_of names cannot be read.
    """
    facts = find_dataset(config.dataset, config.dataset_dir, config.tfds_features)
    if not config.classes_of:
        return facts
    named = _own(read_dataset(files.path(config.classes_of)))
    return dataclasses.replace(named, splits=facts.splits, unlabelled=facts.unlabelled, image=facts.image)


def is_described(dataset_dir: str | None) -> bool:
    """Returns whether the records in a folder say what they are, in a dataset.json beside them."""
    return bool(dataset_dir) and (files.path(dataset_dir) / DATASET_FILE).is_file()


def _own(facts: Dataset) -> Dataset:
    """Returns the facts of a dataset.json under a name that means them alone.

    Where the name is one of the catalogue, what the catalogue alone knows is added to the same classes. Other classes,
    say of a folder that happens to be called cityscapes, get another name: by its name a data set is found to be one
    that weights were trained on, and that scores are published of.
    """
    known = DATASETS.get(facts.name)
    if known is None:
        return facts
    if _differences(known, facts):
        return dataclasses.replace(facts, name=f"own_{facts.name}")
    return dataclasses.replace(facts, colour_map=known.colour_map, evaluation_ids=known.evaluation_ids)


def _differences(first: Dataset, second: Dataset) -> list[tuple[str, str]]:
    """Returns, for each fact that decides what a label means and that differs, how the one and the other has it."""
    found: list[tuple[str, str]] = []
    if first.num_classes != second.num_classes:
        found.append((_classes(first), _classes(second)))
    elif first.class_names != second.class_names:
        pairs = enumerate(zip(first.class_names, second.class_names, strict=True))
        number, (one, other) = next((i, pair) for i, pair in pairs if pair[0] != pair[1])
        found.append((f"class {number} {one!r}", f"class {number} {other!r}"))
    if first.ignore_label != second.ignore_label:
        found.append((f"ignore label {first.ignore_label}", f"ignore label {second.ignore_label}"))
    return found


def _classes(facts: Dataset) -> str:
    more = ", ..." if facts.num_classes > _SHOWN else ""
    noun = "class" if facts.num_classes == 1 else "classes"
    return f"{facts.num_classes} {noun} ({', '.join(facts.class_names[:_SHOWN])}{more})"


def _prepared_dataset(prepared: tfds_folder.Prepared) -> Dataset:
    """Returns the facts of a data set of TFDS: of its dataset.json, of the catalogue, or of its mask's feature."""
    names = prepared.class_names
    if (prepared.folder / DATASET_FILE).is_file():
        facts = read_dataset(prepared.folder)
    elif prepared.builder in tfds_folder.CATALOGUE:
        facts = DATASETS[tfds_folder.CATALOGUE[prepared.builder]]
    elif names:
        facts = dataset_from_json({"class_names": list(names)}, prepared.folder / DATASET_FILE)
    else:
        raise DeepLabError(
            f"{prepared.name}: the feature {prepared.mask} does not say which classes there are; write them into "
            f'{prepared.folder / DATASET_FILE}, as in {{"class_names": ["background", "cat"]}}'
        )
    sizes = {split: sum(lengths) for split, lengths in prepared.lengths.items()}
    return dataclasses.replace(facts, name=prepared.name, splits=sizes)
