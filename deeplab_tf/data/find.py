"""The search for a data set by its name: in the catalogue, in a folder, beside records, or among those of TFDS."""

import dataclasses
from collections.abc import Sequence

from deeplab_tf import files
from deeplab_tf.catalog.datasets import DATASET_FILE, DATASETS, Dataset, dataset_from_json, read_dataset
from deeplab_tf.data import tfds_folder
from deeplab_tf.errors import DeepLabError


def find_dataset(name: str, dataset_dir: str | None = None, tfds_features: Sequence[str] | None = None) -> Dataset:
    """Returns the facts of the data set called `name`.

    Args:
      name: a name of the catalogue or of the dataset.json in `dataset_dir`, a folder or file that describes a data set,
        or the name of one that TensorFlow Datasets has prepared (see `tfds_folder.read_prepared`).
      dataset_dir: the folder with the records, or the data_dir of TensorFlow Datasets.
      tfds_features: for TensorFlow Datasets, the features of image and mask.

    Raises:
      DeepLabError: there is no such data set, or its description cannot be read.
    """
    if name.startswith(tfds_folder.PREFIX):
        return _prepared_dataset(tfds_folder.read_prepared(name, dataset_dir, tfds_features))
    beside = files.path(dataset_dir or "") / DATASET_FILE
    if name not in DATASETS and dataset_dir and beside.is_file():
        facts = read_dataset(beside)
        if facts.name == name:
            return facts
    return read_dataset(name)


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
