"""Records of one's own from a folder to scores, without --dataset: their classes are theirs in every command."""

import json
import pathlib
import shutil

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
    """A run of two steps with a checkpoint after each."""
    folder = tmp_path_factory.mktemp("run") / "run"
    given = (f"--dataset_dir={records}", f"--train_logdir={folder}", "--save_interval_secs=0")
    assert finished(train, *given, *SMALL) == 0
    return folder


@pytest.mark.heavy
def test_training_takes_their_classes(run):
    loaded = open_model(run)
    assert (loaded.card.config.num_classes, loaded.card.class_names) == (3, NAMES)
    assert (loaded.card.dataset, loaded.card.ignore_label) == ("pets", 255)
    assert loaded.model.output_shape[-1] == 3


@pytest.mark.heavy
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


# ---- one number


@pytest.mark.heavy
@pytest.mark.parametrize("crop", ["97,65", ""])
def test_a_run_and_eval_give_one_number(crop, records, tmp_path, capsys):
    """The run's own crop, scales, flips and resizing are those of eval, which is told nothing of them."""
    folder = tmp_path / "run"
    own = (f"--eval_crop_size={crop}", "--eval_scales=0.75,1.25", "--add_flipped_images", "--min_resize_value=49")
    given = (f"--dataset_dir={records}", f"--train_logdir={folder}", *SMALL, *own, "--keep_best")
    assert finished(train, *given, "--mode=train_and_eval", "--eval_batch_size=2") == 0
    scored = json.loads((folder / "scores.jsonl").read_text().splitlines()[-1])
    name = "eval/miou_0.75_1.25_flipped_overall"
    # Where the options are found does not depend on what they are: each of the places once.
    for place in (folder, folder / "best") if crop else (folder / "model.ckpt-2",):
        logs = tmp_path / f"eval of {place.name}"
        where = (f"--checkpoint_dir={place}", f"--dataset_dir={records}", f"--eval_logdir={logs}")
        assert finished(eval_tool, *where, "--max_number_of_evaluations=1") == 0
        line = json.loads((logs / "metrics.jsonl").read_text())
        assert (line[name], line["pixel_accuracy"]) == (scored["miou"], scored["pixel_accuracy"])
    if not crop:
        again = (f"--train_logdir={folder}", f"--dataset_dir={records}", "--mode=eval")
        assert finished(train, *again) == 0
        assert json.loads((folder / "eval" / "metrics.jsonl").read_text())[name] == scored["miou"]
        return
    # What is given counts.
    where = (f"--checkpoint_dir={folder}", f"--dataset_dir={records}", f"--eval_logdir={tmp_path / 'other'}")
    told = ("--eval_scales=1", "--noadd_flipped_images", "--eval_crop_size=129,129", "--max_number_of_evaluations=1")
    capsys.readouterr()
    assert finished(eval_tool, *where, *told) == 0
    assert "[129, 129]" in capsys.readouterr().out
    assert "eval/miou_1.0_overall" in json.loads((tmp_path / "other" / "metrics.jsonl").read_text())


def test_ones_own_colours_are_drawn(records, run, tmp_path):
    where = (f"--checkpoint_dir={run}", "--vis_crop_size=65,65", "--max_number_of_iterations=1")
    other = tmp_path / "records"
    other.mkdir()
    for file in pathlib.Path(records).iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    facts = json.loads((other / "dataset.json").read_text())
    colours = [[9, 9, 9], [1, 200, 3], [4, 5, 206]]
    (other / "dataset.json").write_text(json.dumps({**facts, "palette": colours}))
    for flags, expected in (
        ((), {(9, 9, 9), (1, 200, 3), (4, 5, 206)}),
        (("--colormap_type=pascal",), {(0, 0, 0), (128, 0, 0), (0, 128, 0)}),
    ):
        out = tmp_path / f"vis{len(flags)}"
        assert finished(vis, *where, *flags, f"--dataset_dir={other}", f"--vis_logdir={out}") == 0
        drawn = np.asarray(PIL.Image.open(out / "segmentation_results" / "000000_prediction.png").convert("RGB"))
        assert {tuple(map(int, colour)) for colour in drawn.reshape(-1, 3)} <= expected


@pytest.mark.heavy
def test_eval_takes_the_checkpoint_before_a_damaged_one(records, run, tmp_path, capsys, monkeypatch):
    from deeplab_tf.evaluation import following

    monkeypatch.setattr(following, "_POLL_SECONDS", 0.01)
    folder = pathlib.Path(shutil.copytree(run, tmp_path / "run"))

    def evaluated(*damaged: int):
        for step in damaged:
            file = folder / f"model.ckpt-{step}.data-00000-of-00001"
            content = bytearray(file.read_bytes())
            content[len(content) // 2] ^= 1
            file.write_bytes(bytes(content))
        logs = tmp_path / f"eval{len(damaged)}"
        where = (f"--checkpoint_dir={folder}", f"--dataset_dir={records}", f"--eval_logdir={logs}")
        capsys.readouterr()
        status = finished(eval_tool, *where, "--max_number_of_evaluations=1", "--eval_crop_size=65,65")
        return status, capsys.readouterr(), logs

    status, printed, logs = evaluated(2)
    assert status == 0 and "model.ckpt-2 vanished or is not whole" in printed.out
    assert json.loads((logs / "metrics.jsonl").read_text())["step"] == 1
    status, printed, logs = evaluated(0, 1)
    assert status == 1 and "none of its 3 checkpoints is whole" in one_line(printed.err)
    assert not logs.exists()
