"""Finds a data set by its name: in the catalogue, in a folder, beside records, or among those TFDS has prepared."""

import dataclasses
import pathlib
from collections.abc import Sequence

from deeplab_tf.catalog.datasets import DATASET_FILE, DATASETS, Dataset, dataset_from_json, read_dataset
from deeplab_tf.data import tfds_folder
from deeplab_tf.errors import DeepLabError


def find_dataset(name: str, dataset_dir: str | None = None, tfds_features: Sequence[str] | None = None) -> Dataset:
    """Returns the data set called `name`: of the catalogue, of a folder or file, of the dataset.json beside the records
    in `dataset_dir`, or one that TensorFlow Datasets has prepared (tfds_folder.read_prepared says how they are named).
    DeepLabError as read_dataset and read_prepared."""
    if name.startswith(tfds_folder.PREFIX):
        return _prepared_dataset(tfds_folder.read_prepared(name, dataset_dir, tfds_features))
    beside = pathlib.Path(dataset_dir or "") / DATASET_FILE
    if name not in DATASETS and dataset_dir and beside.is_file():
        facts = read_dataset(beside)
        if facts.name == name:
            return facts
    return read_dataset(name)


def _prepared_dataset(prepared: tfds_folder.Prepared) -> Dataset:
    """Returns the facts of a set of TFDS: from a dataset.json in its folder, the catalogue, or its mask's feature."""
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
