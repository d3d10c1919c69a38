"""Where records lie: shards of our own under the release's keys; sets of TFDS are in test_tfds_folder.py."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from deeplab_tf.catalog import datasets
from deeplab_tf.config import DataConfig
from deeplab_tf.data import record_index
from deeplab_tf.data.build import BuildOptions, build_records
from deeplab_tf.data.locate import locate_records
from deeplab_tf.data.pairs import Pair
from deeplab_tf.errors import DeepLabError


def test_records_of_our_own(tmp_path):
    Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(tmp_path / "image.png")
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(tmp_path / "label.png")
    pairs = [Pair(str(tmp_path / "image.png"), str(tmp_path / "label.png"), str(i)) for i in range(5)]
    build_records({"train": pairs, "test": pairs[:2]}, datasets.DATASETS["shapes"], tmp_path / "out", BuildOptions(2))
    config = DataConfig(dataset="shapes", dataset_dir=str(tmp_path / "out"))
    train, test = locate_records(config, "train"), locate_records(config, "test")
    assert (len(train.index), len(test.index)) == (5, 2)
    assert (train.labelled, test.labelled) == (True, False)
    assert train.index.number.tolist() == [0, 1, 2, 0, 1]
    assert not train.keys
    with pytest.raises(DeepLabError, match="no files val-"):
        locate_records(config, "val")
    with pytest.raises(DeepLabError, match="dataset_dir is not set"):
        locate_records(DataConfig(), "train")
    assert record_index.count_examples(tmp_path / "out", "train") == 5


def test_labels_of_a_split_called_test(tmp_path):
    """Of the user's own data they are read where the records hold any; of the catalogue's sets never."""
    Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(tmp_path / "image.png")
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(tmp_path / "label.png")
    own = datasets.Dataset("own", 2, 255, ("rest", "cat"), datasets.DATASETS["shapes"].palette[:2], {}, "pascal")
    image, label = str(tmp_path / "image.png"), str(tmp_path / "label.png")
    splits = {"train": [Pair(image, label, "a")], "test": [Pair(image, label, "b")], "test_b": [Pair(image, None, "c")]}
    for name, facts, expected in (
        ("labelled", own, (True, True, False)),
        ("said", dataclasses.replace(own, unlabelled=("test",)), (True, False, True)),
        ("catalogue", datasets.DATASETS["shapes"], (True, False, False)),
        ("namesake", dataclasses.replace(own, name="shapes"), (True, True, False)),
    ):
        folder = str(tmp_path / name)
        build_records(splits, facts, folder, BuildOptions(1))
        if facts.unlabelled:
            (tmp_path / name / "dataset.json").write_text(datasets.dataset_json(facts))
        config = DataConfig(dataset_dir=folder)
        assert tuple(locate_records(config, split).labelled for split in splits) == expected, name
    build_records({"test": splits["test_b"]}, own, tmp_path / "without", BuildOptions(1))
    assert not locate_records(DataConfig(dataset="own", dataset_dir=str(tmp_path / "without")), "test").labelled
    assert datasets.read_dataset(tmp_path / "said").unlabelled == ("test",)
