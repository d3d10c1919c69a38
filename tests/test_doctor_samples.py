"""What the doctor reads: of every kind of data set the same, encoded; here a set of TFDS, the others in test_doctor."""

import io
import json

import numpy as np
import PIL.Image
import pytest
from commands import finished, one_line
from test_tfds_folder import CLASSES, arrays, data_dir, offline, prepare_two_views  # noqa: F401 (fixtures)

from deeplab_tf.doctor.dataset import check_dataset
from deeplab_tf.doctor.samples import open_data
from deeplab_tf.errors import DeepLabError
from deeplab_tf.tools import doctor as doctor_tool

NAME = "tfds:tiny_pets"


def decoded(content: bytes) -> np.ndarray:
    return np.array(PIL.Image.open(io.BytesIO(content)))


def test_a_set_of_tfds(data_dir):  # noqa: F811
    data = open_data(data_dir, dataset=NAME)
    assert data.in_records and not data.assumed and data.facts.class_names == tuple(CLASSES)
    assert dict(data.splits) == {"train": 11, "test": 3}
    numbers = []
    for example in data.examples("train"):
        assert not example.faults
        numbers.append(int(example.name.rpartition(" ")[2].removesuffix(")")))
        image, label = arrays(numbers[-1])
        np.testing.assert_array_equal(decoded(example.image), image)
        np.testing.assert_array_equal(decoded(example.label), label)
    assert sorted(numbers) == list(range(11))


def test_the_doctor_s_figures_of_it(data_dir):  # noqa: F811
    found = check_dataset(data_dir, dataset=NAME)
    assert found.codes == () and found.facts["examples"] == {"train": 11, "test": 3}
    values, counts = np.unique(np.concatenate([arrays(n)[1].ravel() for n in range(11)]), return_counts=True)
    assert found.facts["histogram"]["train"] == {str(v): int(c) for v, c in zip(values, counts, strict=True)}
    assert set(check_dataset(data_dir, dataset=NAME, splits=["test"]).facts["examples"]) == {"test"}


def test_features_that_are_named(tmp_path, capsys):
    name = prepare_two_views(tmp_path)
    (tmp_path / "other" / "1.2.0" / "dataset.json").write_text(json.dumps({"class_names": CLASSES}))
    flags = (f"--dataset_dir={tmp_path}", f"--dataset={name}")
    capsys.readouterr()  # what TFDS said
    assert finished(doctor_tool.run, *flags) == 1
    assert "--tfds_features=" in one_line(capsys.readouterr().err)
    data = open_data(tmp_path, dataset=name, tfds_features=["right", "ground"])
    (example,) = data.examples("train")
    np.testing.assert_array_equal(decoded(example.image), 255 - arrays(0)[0])
    assert finished(doctor_tool.run, *flags, "--tfds_features=right,ground") == 0
    assert "1 in train" in capsys.readouterr().out


def test_what_is_not_there(data_dir):  # noqa: F811
    with pytest.raises(DeepLabError, match="unknown split"):
        open_data(data_dir, dataset=NAME, splits=["validation"])
    with pytest.raises(DeepLabError, match="tfds:other_pets"):
        open_data(data_dir, dataset="tfds:other_pets")
