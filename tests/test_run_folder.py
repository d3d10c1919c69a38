"""The folder of a run: nothing is written before the data are read, and it goes on with what may change alone."""

import dataclasses
import json
import pathlib
import shutil

import numpy as np
import pytest
from commands import everything
from observers import Recorder
from record_files import example_of, write_records, write_shapes

from deeplab_tf.catalog.datasets import DATASETS, dataset_json
from deeplab_tf.config import DataConfig, EvalConfig, Experiment, ModelConfig, RunConfig, TrainConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.training.train import train
from deeplab_tf.weights.run_directory import RunDirectory

TINY = ModelConfig(model_variant="tiny", aspp_convs_filters=16)


@pytest.fixture(scope="module")
def records(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("records")
    write_shapes(folder, "train", 6, (40, 40))
    write_shapes(folder, "val", 2, (40, 40))
    (folder / "dataset.json").write_text(dataset_json(DATASETS["shapes"]))
    return folder


def experiment(records, folder, *, steps=2, update=None, data=None, **run) -> Experiment:
    chosen = {"dataset_dir": str(records), "crop_size": (33, 33), "batch_size": 2, **(data or {})}
    return Experiment(
        TINY,
        TrainConfig(training_number_of_steps=steps, **(update or {})),
        DataConfig(**chosen),
        RunConfig(train_logdir=str(folder), **run),
        EvalConfig(eval_crop_size=(41, 41)),
    )


def described(folder) -> dict:
    return json.loads((pathlib.Path(folder) / "run.json").read_text())


# ---- nothing is written too early


def unreadable_first(folder: pathlib.Path):
    """Among so many records the first is in no first batch."""
    image = np.zeros((40, 40, 3), np.uint8)
    good = [example_of(f"p{i}", image, np.zeros((40, 40), np.uint8)) for i in range(40)]
    bad = example_of("bad", image, np.full((40, 40), 77, np.uint8))
    write_records(folder, "train", [bad, *good])


MISTAKES = {
    "split": (lambda folder: None, {"train_split": "trian"}, {}, "no files trian-"),
    "folder": (lambda folder: None, {}, {"dataset_dir": "no/such"}, "dataset_dir=no/such: no such folder"),
    "record": (unreadable_first, {}, {}, r"record 0 \(bad\).*77"),
    "crop": (lambda folder: None, {}, {"crop_size": None}, "crop_size is not set"),
    "scored split": (
        lambda folder: None,
        {"mode": "train_and_eval"},
        {"dataset_dir": "{only train}"},
        r"no files val-\*; it has splits train",
    ),
    "weights": (lambda folder: None, {"tf_initial_checkpoint": "no/such.ckpt"}, {}, "no such file"),
}


@pytest.mark.heavy
@pytest.mark.parametrize("present", [False, True])
def test_a_mistake_leaves_nothing_and_the_mended_command_works(present, records, tmp_path):
    """After each mistake all is as before; that no lock or the like is left either, one command shows for them all."""
    folder = tmp_path / "new" / "run"
    if present:
        folder.mkdir(parents=True)
    for name, (spoil, run, data, message) in MISTAKES.items():
        bad = tmp_path / name
        bad.mkdir()
        write_shapes(bad, "train", 3, (40, 40))
        spoil(bad)
        data = {key: str(bad) if value == "{only train}" else value for key, value in data.items()}
        before = everything(tmp_path)
        with pytest.raises(DeepLabError, match=message):
            train(experiment(bad if name == "record" else records, folder, data={"dataset": "shapes", **data}, **run))
        assert everything(tmp_path) == before, name
    assert train(experiment(records, folder, mode="train_and_eval")).step == 2


def test_a_lock_in_a_folder_with_other_files_stays_out_of_the_way(records, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(DeepLabError, match="no files trian-"):
        train(experiment(records, folder, train_split="trian"))
    assert everything(folder) == {"notes.txt"}


# ---- the data are known by their content


@pytest.fixture(scope="module")
def first_run(records, tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("first") / "run"
    train(experiment(records, folder))
    return folder


@pytest.fixture
def begun(first_run, tmp_path) -> pathlib.Path:
    """A run of two steps, which goes on wherever its folder is."""
    return pathlib.Path(shutil.copytree(first_run, tmp_path / "run"))


def copied(records, target: pathlib.Path, **facts) -> pathlib.Path:
    shutil.copytree(records, target)
    (target / "dataset.json").write_text(dataset_json(dataclasses.replace(DATASETS["shapes"], **facts)))
    return target


@pytest.mark.heavy
def test_moved_and_renamed_data_go_on(records, begun, tmp_path):
    moved = copied(records, tmp_path / "elsewhere", name="figures")
    for steps, data in (
        (3, {"dataset_dir": str(moved)}),
        (4, {"dataset_dir": str(moved), "dataset": "figures"}),
        (5, {"dataset_dir": str(moved), "dataset": str(records)}),
    ):
        assert train(experiment(records, begun, steps=steps, data=data)).step == steps
    held = described(begun)
    assert held["records"]["splits"]["train"]["records"] == 6 and held["records"]["classes"][1] == "circle"
    assert held["places"]["dataset_dir"] == str(moved)


@pytest.mark.heavy
def test_records_in_other_files_are_the_same_records(records, begun, tmp_path):
    from deeplab_tf.data.shapes import shapes_example

    pictures = [example_of(f"shapes_{i}", *shapes_example(0, i, height=40, width=40)) for i in range(6)]
    write_records(tmp_path / "sharded", "train", pictures, shards=3)
    data = {"dataset": "shapes", "dataset_dir": str(tmp_path / "sharded")}
    assert train(experiment(records, begun, steps=3, data=data)).step == 3
    write_records(tmp_path / "other order", "train", pictures[::-1])
    data["dataset_dir"] = str(tmp_path / "other order")
    with pytest.raises(
        DeepLabError, match=r"dataset_dir: 6 records of train \(\w{8}\) then, 6 records of train \(\w{8}\)"
    ):
        train(experiment(records, begun, steps=4, data=data))


@pytest.mark.heavy
def test_other_data_are_refused_and_both_are_shown(records, begun, tmp_path):
    before = everything(begun)
    more = tmp_path / "more"
    more.mkdir()
    write_shapes(more, "train", 7, (40, 40))
    data = {"dataset": "shapes", "dataset_dir": str(more)}
    with pytest.raises(
        DeepLabError, match=r"dataset_dir: 6 records of train .* then, 7 records.*--allow_change=dataset"
    ):
        train(experiment(records, begun, steps=3, data=data))
    named = copied(records, tmp_path / "named", class_names=tuple("abcdefghi"))
    with pytest.raises(DeepLabError, match=r"dataset: 9 classes \(background, .* then, 9 classes \(a, b, c") as caught:
        train(experiment(records, begun, steps=3, data={"dataset_dir": str(named)}, allow_change=("dataset_dir",)))
    assert "--allow_change" not in str(caught.value).partition("dataset: ")[2]
    assert everything(begun) == before


@pytest.mark.heavy
@pytest.mark.parametrize("spelled", ["shapes", "own/folder"])
def test_a_run_of_before_goes_on(spelled, records, begun, tmp_path):
    """Its run.json has the name alone, or the path that was given."""
    held = described(begun)
    old = {name: value for name, value in held.items() if name not in ("records", "evaluation", "places")}
    (begun / "run.json").write_text(json.dumps({**old, "dataset": spelled}))
    other = copied(records, tmp_path / "other", name="figures")
    with pytest.raises(DeepLabError, match=f"dataset: {spelled} then, figures now"):
        train(experiment(records, begun, steps=3, data={"dataset_dir": str(other)}))
    assert train(experiment(records, begun, steps=3)).step == 3
    assert described(begun)["records"] == held["records"], "from now on it is known by its content"


# ---- what may change


@pytest.mark.heavy
def test_what_is_allowed_changes_and_is_recorded(records, begun, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    write_shapes(other, "train", 5, (40, 40))
    data = {"dataset": "shapes", "dataset_dir": str(other), "batch_size": 4, "crop_size": (41, 49)}
    update = {"base_learning_rate": 0.02}
    with pytest.raises(DeepLabError) as caught:
        train(experiment(records, begun, steps=4, data=data, update=update))
    message = str(caught.value)
    assert "base_learning_rate: 0.0001 then, 0.02 now" in message and "train_batch_size: 2 then, 4 now" in message
    assert "train_crop_size: [33, 33] then, [41, 49] now" in message and "\n" not in message
    (flags,) = [part for part in message.split() if part.startswith("--allow_change=")]
    names = flags.partition("=")[2].split(",")
    assert set(names) == {"base_learning_rate", "train_batch_size", "train_crop_size", "dataset_dir"}
    observer = Recorder()
    changed = experiment(records, begun, steps=4, data=data, update=update, allow_change=names)
    assert train(changed, observer=observer).step == 4
    assert "Changed: train_batch_size from 2 to 4" in observer.lines
    held = described(begun)
    assert (held["batch_size"], held["crop_size"], held["base_learning_rate"]) == (4, [41, 49], 0.02)
    (change,) = held["changes"]
    assert change["step"] == 2 and change["train_batch_size"] == [2, 4]
    assert change["training_number_of_steps"] == [2, 4]
    assert change["dataset_dir"][1] == {"train": held["records"]["splits"]["train"]}
    card = json.loads((begun / "deeplab.json").read_text())
    assert card["config"]["crop_size"] == [41, 49] == held["model"]["crop_size"]
    # From now on these are the run's options.
    assert train(dataclasses.replace(changed, run=RunConfig(train_logdir=str(begun)))).step == 4
    with pytest.raises(DeepLabError, match="train_batch_size: 4 then, 2 now"):
        train(experiment(records, begun, steps=4))
    assert len(described(begun)["changes"]) == 1


def test_what_is_not_named_is_refused_with_the_rest(records, begun):
    update = {"base_learning_rate": 0.02, "optimizer": "adam"}
    with pytest.raises(DeepLabError) as caught:
        train(experiment(records, begun, update=update, allow_change=("base_learning_rate",)))
    assert "(optimizer: momentum then, adam now)" in str(caught.value)
    assert "--allow_change" not in str(caught.value), "it would not help"


@pytest.mark.heavy
def test_the_network_is_named_by_its_option(records, begun):
    asked = experiment(records, begun)
    other = dataclasses.replace(asked, model=dataclasses.replace(TINY, output_stride=8))
    with pytest.raises(DeepLabError, match=r"another experiment \(output_stride: None then, 8 now\); choose"):
        train(other)


@pytest.mark.parametrize("name", ["optimizer", "model_variant", "train_split", "dataset", "batchsize", "ema_decay"])
def test_names_that_may_not_change(name):
    with pytest.raises(DeepLabError) as caught:
        RunConfig(allow_change=f"train_batch_size,{name}")
    assert str(caught.value).startswith(f"allow_change={name}: must stay") and "train_crop_size" in str(caught.value)
    assert RunConfig(allow_change="batch_size,learning_power").allow_change == ("train_batch_size", "learning_power")


# ---- damaged checkpoints


def truncated(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def emptied(file):
    file.write_bytes(b"")


def flipped(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(bytes(content))


HALVES = (".index", ".data-00000-of-00001")


@pytest.mark.heavy
def test_those_before_damaged_checkpoints_are_taken(records, tmp_path):
    """Each but the first two is damaged in another way; what lacks a half must be the newest."""
    folder = tmp_path / "run"
    options = {"steps": 9, "save_interval_secs": 0, "keep_checkpoints": 10}
    assert train(experiment(records, folder, **options)).step == 9
    damages = [(how, suffix) for how in (truncated, emptied, flipped) for suffix in HALVES]
    damages += [(pathlib.Path.unlink, suffix) for suffix in HALVES]
    for step, (damage, suffix) in enumerate(damages, start=2):
        damage(folder / f"model.ckpt-{step}{suffix}")
    observer = Recorder()
    assert train(experiment(records, folder, **options), observer=observer).step == 9
    passed = [line for line in observer.lines if line.startswith("Passed over: ") and "\n" not in line]
    assert passed == observer.lines[:8], observer.lines
    for step, (damage, suffix) in enumerate(damages, start=2):
        assert len([line for line in passed if f"model.ckpt-{step}" in line]) == 1, (damage, suffix)
    assert observer.lines[8].endswith("model.ckpt-1")
    assert RunDirectory(folder).steps() == list(range(10)), "made again"
    assert [line["step"] for line in RunDirectory(folder).lines()] == list(range(1, 10)), "each once"
    aside = "".join(file.name for file in folder.iterdir() if file.name.endswith(".bad"))
    assert all(f"model.ckpt-{step}." in aside for step in range(2, 10)), "set aside, to be looked at"
    assert train(experiment(records, folder, resume="strict", **options)).step == 9


@pytest.mark.heavy
@pytest.mark.parametrize("damage", [flipped, pathlib.Path.unlink], ids=["flipped", "missing"])
def test_no_other_is_taken_for_a_damaged_checkpoint_where_that_is_asked_for(damage, records, begun):
    """What else is damaged is told apart from the whole by the same reading: the test before."""
    damage(begun / f"model.ckpt-2{HALVES[1]}")
    before = everything(begun)
    with pytest.raises(DeepLabError, match="^resume=strict: .*model.ckpt-2.*newest_whole goes on"):
        train(experiment(records, begun, resume="strict"))
    assert everything(begun) == before


@pytest.mark.heavy
def test_all_are_damaged(records, begun):
    for step in (0, 2):
        flipped(begun / f"model.ckpt-{step}.data-00000-of-00001")
    before = everything(begun)
    with pytest.raises(DeepLabError, match="no checkpoint that is whole .*model.ckpt-2.*model.ckpt-0.*another folder"):
        train(experiment(records, begun))
    assert everything(begun) == before


@pytest.mark.heavy
def test_a_first_checkpoint_that_was_cut_off_is_made_again(records, begun):
    for file in begun.glob("model.ckpt-2*"):
        file.unlink()
    (begun / "model.ckpt-0.index").unlink()
    observer = Recorder()
    assert train(experiment(records, begun), observer=observer).step == 2
    assert observer.lines[0].startswith("Passed over: ")


@pytest.mark.heavy
def test_the_shards_of_another_program_are_left_alone(records, begun):
    """A checkpoint of TensorFlow 1 may have its data in several files."""
    for suffix in (".index", ".data-00000-of-00002", ".data-00001-of-00002"):
        (begun / f"model.ckpt-9{suffix}").write_bytes(b"x")
    assert RunDirectory(begun).halves() == []
    train(experiment(records, begun, steps=3))
    assert (begun / "model.ckpt-9.index").exists()
