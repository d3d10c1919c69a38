"""A path within a file whose scheme TensorFlow has no file system for: one line that names it, nothing written."""

import json
import pathlib
import types
import uuid

import numpy as np
import pytest
from annotated import box_mask, converted, yolo
from commands import everything, finished, one_line
from record_files import encoded

from deeplab_tf import files
from deeplab_tf.catalog.datasets import DATASETS, dataset_json
from deeplab_tf.config import ModelConfig
from deeplab_tf.data.find import find_dataset
from deeplab_tf.errors import DeepLabError
from deeplab_tf.evaluation import following
from deeplab_tf.tools import build_data
from deeplab_tf.weights.model_directory import ModelCard
from deeplab_tf.weights.sources import MODEL_FILE

NONE = "foo:// is no file system that TensorFlow has here; expected a path, or one of "
PHOTO = np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3)
BUILD = ("--dataset=folder", "--num_shards=1", "--num_processes=1")


@pytest.fixture
def own(tmp_path, monkeypatch) -> pathlib.Path:
    """A folder with one photograph and its label."""
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "own"
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    (root / "images" / "a.png").write_bytes(encoded(PHOTO))
    (root / "labels" / "a.png").write_bytes(encoded(np.ones((20, 30), np.uint8)))
    (root / "class_names.txt").write_text("rest\ncat\n")
    return root


@pytest.mark.parametrize("name", ["train.txt", "fold_1.txt"])
@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("foo://bucket/a.png", "foo://bucket/a.png"),
        ("images/a.png foo://bucket/l.png", "foo://bucket/l.png"),
        ("  foo://bucket/b c.jpg", "foo://bucket/b c.jpg"),
    ],
)
def test_a_list_that_names_such_a_file_is_an_error(own, name, line, named, capsys):
    (own / name).write_text(f"{line}\n")
    before = everything(own.parent)
    assert finished(build_data, *BUILD, f"--root={own}", "--output_dir=out") == 1
    assert one_line(capsys.readouterr().err).startswith(f"tool: {own / name}: {named}: {NONE}")
    assert everything(own.parent) == before


def test_an_id_with_such_a_scheme_is_one_line_in_a_list_of_a_split(own, capsys):
    (own / "val.txt").write_text("a\nfoo://bucket/a\n")
    assert finished(build_data, *BUILD, f"--root={own}", "--output_dir=out") == 1
    assert one_line(capsys.readouterr().err).startswith(f"tool: {own / 'val.txt'}: foo://bucket/a: {NONE}")


def test_addresses_of_the_web_in_another_text_are_no_list(own, capsys):
    (own / "sources.txt").write_text("https://photos.example/a.png\nHTTP://photos.example/b.jpg 2019\n")
    assert finished(build_data, *BUILD, f"--root={own}", "--output_dir=out") == 0
    assert json.loads(pathlib.Path("out/dataset.json").read_text())["splits"] == {"train": 1}
    (own / "train.txt").write_text("https://photos.example/a.png\n")
    assert finished(build_data, *BUILD, f"--root={own}", "--output_dir=again") == 1
    assert f"{own / 'train.txt'}: https://photos.example/a.png: https:// is no file" in capsys.readouterr().err
    assert not pathlib.Path("again").exists()


# ---- YOLO's lists, which name pictures by paths


def yolo_of_list(root: files.AnyPath, scratch: pathlib.Path, lines: str) -> files.AnyPath:
    yolo(scratch)
    text = (scratch / "data.yaml").read_text().replace("train: images/train", "train: list.txt")
    (scratch / "data.yaml").write_text(text)
    (scratch / "list.txt").write_text(lines)
    if root != scratch:
        files.copy(scratch, root)
    return root


@pytest.mark.parametrize("line", ["images/train/a.jpg", "./images/../images/train/a.jpg", "{root}/images/train/a.jpg"])
@pytest.mark.parametrize("elsewhere", [False, True], ids=["local", "bucket"])
def test_a_list_of_yolo_names_pictures_wherever_they_are(tmp_path, line, elsewhere):
    root = files.path(f"ram://{uuid.uuid4().hex}/own") if elsewhere else tmp_path
    yolo_of_list(root, tmp_path, line.format(root=root) + "\n")
    np.testing.assert_array_equal(converted(root)[1]["train"]["a"], box_mask(10, 5, 30, 25, 2))


@pytest.mark.parametrize(
    ("line", "named"),
    [("foo://bucket/images/a.jpg", f"foo://bucket/labels/a.txt: {NONE}"), ("/content/images/a.jpg", "/content/images")],
)
def test_a_picture_of_another_machine_is_not_taken_for_an_empty_one(tmp_path, line, named):
    yolo_of_list(tmp_path, tmp_path, f"{line}\n")
    with pytest.raises(DeepLabError) as caught:
        converted(tmp_path)
    assert str(caught.value).startswith(f"1 faults, nothing was written:\n  {named}")


@pytest.mark.parametrize("train", ["../images", "../../own/../images", "ram://other/images", "foo://bucket/images"])
@pytest.mark.parametrize("path", [None, ".", "ram://other", "foo://bucket"])
def test_the_folders_of_a_data_yaml_lie_below_it_in_a_bucket_too(tmp_path, train, path):
    root = files.path(f"ram://{uuid.uuid4().hex}/own")
    yolo(tmp_path)
    files.copy(tmp_path / "images", root.parent / "images")
    files.copy(tmp_path / "labels", root / "labels")
    with (root / "data.yaml").open("w") as text:
        text.write(f"names: [dog, cat]\ntrain: {train}\n" + (f"path: {path}\n" if path else ""))
    with pytest.raises(DeepLabError) as caught:
        converted(root)
    assert str(caught.value) == f"{root}/data.yaml: train={train}: not below {root}; correct the path"


# ---- what describes data and models


def test_the_name_in_a_dataset_json_is_a_name(tmp_path):
    facts = json.loads(dataset_json(DATASETS["shapes"])) | {"name": "foo://bucket/x"}
    (tmp_path / "dataset.json").write_text(json.dumps(facts))
    assert find_dataset(None, str(tmp_path)).name == "foo://bucket/x"
    with pytest.raises(DeepLabError, match=f"^foo://bucket/y: {NONE}.*; {tmp_path}/dataset.json beside the records"):
        find_dataset("foo://bucket/y", str(tmp_path))


def test_the_cell_in_a_card(tmp_path):
    values = ModelCard(config=ModelConfig(model_variant="tiny")).to_json()
    values["config"]["dense_prediction_cell_json"] = "foo://bucket/cell.json"
    (tmp_path / MODEL_FILE).write_text(json.dumps(values))
    with pytest.raises(DeepLabError, match=f"^dense_prediction_cell_json=foo://bucket/cell.json: {NONE}"):
        ModelCard.read(tmp_path)


def test_the_data_set_of_a_card():
    def opened(dataset: str | None) -> types.SimpleNamespace:
        card = ModelCard(config=ModelConfig(model_variant="tiny"), dataset=dataset)
        return types.SimpleNamespace(path="models/m", loaded=types.SimpleNamespace(card=card))

    for known in (None, "shapes", "tfds:voc/2007", "own/x", "ram://x"):
        following._require_known(opened(known))
    expected = f"^models/m: it was trained on the data set foo://bucket/x: {NONE}.*; give --dataset$"
    with pytest.raises(DeepLabError, match=expected):
        following._require_known(opened("foo://bucket/x"))
