"""Records say what they are: the dataset.json beside them decides, and nobody may contradict it."""

import dataclasses
import json

import pytest

from deeplab_tf.catalog.datasets import DATASETS, dataset_json
from deeplab_tf.data.find import find_dataset
from deeplab_tf.errors import DeepLabError

OWN = {"name": "three", "class_names": ["rest", "cat", "dog"], "palette": [[0, 0, 0], [1, 2, 3], [4, 5, 6]]}
OWN |= {"ignore_label": 200, "splits": {"train": 7}, "label_map": [[3, 0]]}


@pytest.fixture
def described(tmp_path):
    def write(name: str = "records", /, **changes) -> str:
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "dataset.json").write_text(json.dumps({**OWN, **changes}))
        return str(tmp_path / name)

    return write


def test_the_file_beside_the_records_decides(described):
    found = find_dataset(None, described())
    assert (found.name, found.class_names, found.ignore_label) == ("three", ("rest", "cat", "dog"), 200)
    assert found.palette == ((0, 0, 0), (1, 2, 3), (4, 5, 6)) and found.label_map == ((3, 0),)
    assert find_dataset("three", described()) == found


def test_without_it_the_default_is_the_releases(tmp_path):
    for folder in (None, "", str(tmp_path), str(tmp_path / "nothing")):
        assert find_dataset(None, folder) is DATASETS["pascal_voc_seg"]
        assert find_dataset("shapes", folder) is DATASETS["shapes"]


@pytest.mark.parametrize(
    ("changes", "first", "second"),
    [
        ({}, "21 classes (background, aeroplane, bicycle, ...), ignore label 255", "3 classes (rest, cat, dog), "),
        ({"ignore_label": 255}, "21 classes (background, aeroplane, bicycle, ...)", "3 classes (rest, cat, dog);"),
        ({"class_names": ["rest"], "palette": [[0, 0, 0]]}, "21 classes", "1 class (rest), ignore label 200"),
    ],
)
def test_a_name_that_contradicts_is_an_error_with_both(described, changes, first, second):
    folder = described(**changes)
    with pytest.raises(DeepLabError) as caught:
        find_dataset("pascal_voc_seg", folder)
    message = str(caught.value)
    assert message.startswith(f"dataset=pascal_voc_seg has {first}") and "\n" not in message
    assert f"but {folder}/dataset.json beside the records has {second}" in message
    assert "leave dataset out" in message and "dataset=three" in message


@pytest.mark.parametrize("number", [0, 8, 20])
def test_one_other_name_is_shown_wherever_it_is(described, number):
    voc = DATASETS["pascal_voc_seg"]
    names = [*voc.class_names]
    names[number] = "Person"
    folder = described(class_names=names, palette=voc.palette, ignore_label=255)
    with pytest.raises(DeepLabError, match=f"class {number} '{voc.class_names[number]}', but .* class {number} 'Per"):
        find_dataset("pascal_voc_seg", folder)


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_records_of_the_catalogue_are_those_of_the_catalogue(described, tmp_path, name):
    """Those of build-data have a dataset.json, which lacks what only the catalogue knows."""
    facts = DATASETS[name]
    folder = described()
    built = dataclasses.replace(facts, splits={"val": 3}, label_map=((254, 0),))
    (tmp_path / "records" / "dataset.json").write_text(dataset_json(built))
    for asked in (None, name):
        assert find_dataset(asked, folder) == built


def test_the_same_classes_under_another_name(described, tmp_path):
    folder = described()
    described("other", name="pets", palette=[[9, 9, 9]] * 3, splits={}, label_map=[])
    found = find_dataset(str(tmp_path / "other"), folder)
    assert (found.name, found.palette, found.splits) == ("pets", ((9, 9, 9),) * 3, {"train": 7})
    assert found.label_map == ((3, 0),), "how the records are stored they alone know"


def test_other_classes_under_a_name_of_the_catalogue(described, tmp_path):
    """By its name a data set is found to be one that weights were trained on."""
    for folder in (described("records", name="cityscapes"), described("cityscapes", name="cityscapes")):
        found = find_dataset(None, folder)
        assert (found.name, found.num_classes) == ("own_cityscapes", 3)
        assert find_dataset("own_cityscapes", folder) == found
        with pytest.raises(DeepLabError, match=r"dataset=cityscapes has 19 classes .*\(or give dataset=own_citysc"):
            find_dataset("cityscapes", folder)
    assert find_dataset(folder, None).name == "own_cityscapes"


def test_a_name_is_never_a_folder_of_the_working_directory(described, tmp_path, monkeypatch):
    described("pets")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DeepLabError, match=r"unknown dataset 'pets'.*with a separator: \./pets"):
        find_dataset("pets")
    for place in ("./pets", "pets/", "pets/dataset.json", "pets/../pets", str(tmp_path / "pets")):
        assert find_dataset(place).class_names == ("rest", "cat", "dog")
    monkeypatch.chdir(tmp_path / "pets")
    for place in (".", "dataset.json", "../pets"):
        assert find_dataset(place).name == "three"
    described("shapes", name="mine")
    monkeypatch.chdir(tmp_path)
    assert find_dataset("shapes") is DATASETS["shapes"]


def test_what_is_not_there(described, tmp_path):
    with pytest.raises(DeepLabError, match="unknown dataset 'four'.*dataset.json beside the records calls them three"):
        find_dataset("four", described())
    with pytest.raises(DeepLabError, match=r"nothing/dataset.json: cannot be read \(No such file"):
        find_dataset(str(tmp_path / "nothing"))
    (tmp_path / "records" / "dataset.json").write_text("{")
    for name in (None, "shapes", "three"):
        with pytest.raises(DeepLabError, match="dataset.json: not JSON"):
            find_dataset(name, str(tmp_path / "records"))
