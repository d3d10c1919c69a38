"""Records of one's own from a folder to scores, without --dataset: their classes are theirs in every command."""

import json
import pathlib

import numpy as np
import PIL.Image
import pytest
from commands import finished, one_line

import deeplab_tf
from deeplab_tf.config import DataConfig
from deeplab_tf.tools import build_data, train, vis
from deeplab_tf.tools import eval as eval_tool
from deeplab_tf.weights.loading import open_model

NAMES = ("rest", "cat", "dog")
SMALL = ("--model_variant=tiny", "--aspp_convs_filters=16", "--train_crop_size=33,33", "--train_batch_size=2")
SMALL += ("--training_number_of_steps=2",)


@pytest.fixture(scope="module")
def records(tmp_path_factory) -> str:
    """Records of a folder of three classes whose labels hold 0, 1, 2 in every picture."""
    root = tmp_path_factory.mktemp("own")
    random = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in "abcd":
            for folder in ("images", "labels"):
                (root / "pets" / folder / split).mkdir(parents=True, exist_ok=True)
            label = np.zeros((40, 44), np.uint8)
            label[:, 12:24] = 1
            label[:, 30:] = 2
            image = random.integers(0, 60, (40, 44, 3), np.uint8) + (label * 80)[..., None].astype(np.uint8)
            PIL.Image.fromarray(image).save(root / "pets" / "images" / split / f"{name}.png")
            PIL.Image.fromarray(label).save(root / "pets" / "labels" / split / f"{name}.png")
    (root / "pets" / "class_names.txt").write_text("\n".join(NAMES))
    out = root / "records"
    assert finished(build_data, "--dataset=folder", f"--root={root / 'pets'}", f"--output_dir={out}") == 0
    return str(out)


@pytest.fixture(scope="module")
def run(records, tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("run") / "run"
    assert finished(train, f"--dataset_dir={records}", f"--train_logdir={folder}", *SMALL) == 0
    return folder


def test_training_takes_their_classes(run):
    loaded = open_model(run)
    assert (loaded.card.config.num_classes, loaded.card.class_names) == (3, NAMES)
    assert (loaded.card.dataset, loaded.card.ignore_label) == ("pets", 255)
    assert loaded.model.output_shape[-1] == 3


def test_scores_are_of_their_classes(records, run, tmp_path, capsys):
    where = (f"--checkpoint_dir={run}", f"--dataset_dir={records}", "--max_number_of_evaluations=1")
    assert finished(eval_tool, *where, f"--eval_logdir={tmp_path / 'eval'}", "--eval_crop_size=65,65") == 0
    printed = capsys.readouterr().out
    rows = [line.split() for line in printed.splitlines()]
    assert [row[2] for row in rows if row and "_class_" in row[0]] == list(NAMES)
    assert ["dataset", "pets"] in rows
    line = json.loads((tmp_path / "eval" / "metrics.jsonl").read_text())
    assert sorted(name for name in line if "_class_" in name) == [f"eval/miou_1.0_class_{i}" for i in range(3)]


def test_a_batch_has_their_labels(records):
    batch = next(iter(deeplab_tf.make_dataset(DataConfig(dataset_dir=records), split="val", training=False)))
    assert set(np.unique(batch["label"])) == {0, 1, 2, 255}


@pytest.mark.parametrize("command", ["train", "eval", "vis"])
def test_a_contradiction_is_one_line_before_anything_is_done(command, records, run, tmp_path, capsys):
    place = tmp_path / "new"
    given = {
        "train": (train, f"--train_logdir={place}", *SMALL),
        "eval": (eval_tool, f"--eval_logdir={place}", f"--checkpoint_dir={run}"),
        "vis": (vis, f"--vis_logdir={place}", f"--checkpoint_dir={run}"),
    }
    assert finished(*given[command], f"--dataset_dir={records}", "--dataset=shapes") == 1
    message = one_line(capsys.readouterr().err)
    assert "dataset=shapes has 9 classes (background, circle, triangle, ...)" in message
    assert f"{records}/dataset.json beside the records has 3 classes (rest, cat, dog)" in message
    assert not place.exists()


def test_a_recipe_takes_their_classes_or_contradicts(records, tmp_path, capsys):
    """v3plus_xception65 names no data set, shapes_resnet is for its own."""
    values = train.flags.FlagValues()
    train.define(values)
    values(["train", "--config=v3plus_xception65", f"--dataset_dir={records}"])
    assert train.experiment(values).model.num_classes == 3
    given = (f"--dataset_dir={records}", f"--train_logdir={tmp_path / 'new'}")
    assert finished(train, "--config=shapes_resnet", *given) == 1
    assert "dataset=shapes has 9 classes" in one_line(capsys.readouterr().err)


def test_the_same_names_in_another_order_are_not_scored(records, run, tmp_path, capsys):
    other = tmp_path / "records"
    other.mkdir()
    for file in pathlib.Path(records).iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    facts = json.loads((other / "dataset.json").read_text())
    (other / "dataset.json").write_text(json.dumps({**facts, "class_names": ["rest", "dog", "cat"]}))
    where = (f"--checkpoint_dir={run}", f"--dataset_dir={other}", f"--eval_logdir={tmp_path / 'eval'}")
    assert finished(eval_tool, *where, "--max_number_of_evaluations=1") == 1
    message = one_line(capsys.readouterr().err)
    assert "have 'cat' as class 2" in message and "as class 1" in message
    assert not (tmp_path / "eval").exists()
