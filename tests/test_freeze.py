"""The two phases of a frozen backbone: what stays to the bit, when the rest begins, runs that stop and go on there."""

import dataclasses
import os
import shutil
import signal

import numpy as np
import pytest
import tensorflow as tf
from commands import everything, finished, one_line
from observers import Recorder
from record_files import write_shapes
from test_train_step import small_batch, small_model, snapshot

from deeplab_tf.config import DataConfig, Experiment, ModelConfig, RunConfig, TrainConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.network.build import build_model
from deeplab_tf.tools import train as command
from deeplab_tf.training.optimizers import in_backbone
from deeplab_tf.training.step import make_train_step
from deeplab_tf.training.train import train
from deeplab_tf.weights.tf1 import save_tf1_checkpoint, variable_map, write_tensors

# Batch norm learns, so that a backbone that is not frozen moves in its statistics too.
LEARNS = TrainConfig(base_learning_rate=0.01, dropout=False)
# Where nothing else is said the optimizer is momentum.
KINDS = {
    "adam": {"optimizer": "adam"},
    "changed gradients, and averages": {
        "gradient_accumulation_steps": 2,
        "last_layer_gradient_multiplier": 10.0,
        "weight_decay": 0.1,
        "ema_decay": 0.5,
    },
    "bfloat16": {"mixed_precision": "bfloat16"},
    "float16": {"mixed_precision": "float16"},
    "compiled": {"jit_compile": True},
}


def moved(before: dict, after: dict) -> tuple[set[str], set[str]]:
    """Returns the names of the backbone's and of the head's variables that differ."""
    names = {name for name in before if before[name].tobytes() != after[name].tobytes()}
    return {name for name in names if in_backbone(name)}, {name for name in names if not in_backbone(name)}


@pytest.mark.parametrize(
    "kind", ["adam", *(pytest.param(kind, marks=pytest.mark.heavy) for kind in KINDS if kind != "adam")]
)
def test_the_head_alone_learns_first_then_all(kind):
    config = dataclasses.replace(LEARNS, freeze="backbone", freeze_steps=2, **KINDS[kind])
    model = small_model()
    step = make_train_step(model, config)
    slots = {name: v for name, v in step.state.items() if in_backbone(name) and ("Momentum" in name or "Adam" in name)}
    start = snapshot(model)
    for _ in range(2):
        step(*small_batch())
    frozen = snapshot(model)
    backbone, head = moved(start, frozen)
    assert backbone == set(), "variables and statistics of the backbone stay to the bit"
    assert any(name.endswith("moving_mean") for name in head) and "logits/semantic/weights" in head
    assert slots and all(not np.any(value.numpy()) for value in slots.values())
    if config.ema_decay:
        name = "Tiny/Conv/weights"
        assert np.array_equal(step.state[f"{name}/ExponentialMovingAverage"].numpy(), frozen[name])
    later = 8 if kind == "float16" else 1  # whose first gradients overflow
    for _ in range(later):
        step(*small_batch())
    backbone, _ = moved(frozen, snapshot(model))
    assert {"Tiny/Conv/weights", "Tiny/Conv/BatchNorm/moving_mean"} <= backbone
    assert all(np.any(value.numpy()) for name, value in slots.items() if "Conv/weights" in name)
    assert int(step.state["global_step"]) == 2 + later


def test_without_steps_it_holds_for_the_whole_run():
    model = small_model()
    step = make_train_step(model, dataclasses.replace(LEARNS, freeze="backbone"))
    start = snapshot(model)
    for _ in range(3):
        step(*small_batch())
    assert moved(start, snapshot(model))[0] == set()
    assert not [name for name in (*step.variables, *step.state) if in_backbone(name) and name != "global_step"]


@pytest.mark.heavy
def test_the_second_phase_is_that_of_a_new_run():
    """Slots and Adam's powers of the backbone begin at freeze_steps: its first update is a first update of Adam."""
    config = dataclasses.replace(LEARNS, optimizer="adam", fine_tune_batch_norm=False)
    late, model = dataclasses.replace(config, freeze="backbone", freeze_steps=2), small_model()
    step = make_train_step(model, late)
    for _ in range(2):
        step(*small_batch())
    frozen = snapshot(model)
    step(*small_batch())
    other = small_model()
    for name, variable in variable_map(other).items():
        variable.assign(frozen[name])
    make_train_step(other, config)(*small_batch())
    found, expected = snapshot(model), snapshot(other)
    assert all(np.array_equal(found[name], expected[name]) for name in found if in_backbone(name))
    assert not np.array_equal(found["logits/semantic/weights"], expected["logits/semantic/weights"])
    assert float(step.state["beta1_power_1"]) == pytest.approx(0.9**2)
    assert float(step.state["beta1_power"]) == pytest.approx(0.9**4)


def test_without_freeze_nothing_is_new():
    step = make_train_step(small_model(), dataclasses.replace(LEARNS, optimizer="adam"))
    assert "beta1_power_1" not in step.state
    assert step.still_layers(first_phase=False) == set()


# Runs.

MODEL = ModelConfig(model_variant="tiny", aspp_convs_filters=16, num_classes=9)


@pytest.fixture(scope="module")
def dataset_dir(tmp_path_factory) -> str:
    return write_shapes(tmp_path_factory.mktemp("records"), "train", 10, (49, 41))


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> str:
    tf.keras.utils.set_random_seed(1)
    prefix = tmp_path_factory.mktemp("weights") / "model.ckpt"
    save_tf1_checkpoint(build_model(MODEL), prefix)
    return str(prefix)


def experiment(dataset_dir, folder, weights, *, run=None, **update) -> Experiment:
    options = {"training_number_of_steps": 5, "base_learning_rate": 0.01, "freeze": "backbone", "freeze_steps": 3}
    data = DataConfig(dataset="shapes", dataset_dir=dataset_dir, crop_size=(33, 33), batch_size=4)
    options = TrainConfig(**{**options, **update})
    places = {"train_logdir": str(folder), "tf_initial_checkpoint": weights, "deterministic": True, "log_steps": 1}
    return Experiment(MODEL, options, data, RunConfig(**{**places, "save_interval_secs": 0, **(run or {})}))


def tensors(folder, step: int) -> dict[str, np.ndarray]:
    reader = tf.train.load_checkpoint(str(folder / f"model.ckpt-{step}"))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def left(whole, stop: int, folder):
    """Returns a folder as the run that is now whole had it when it was killed after saving step `stop`."""
    shutil.copytree(whole, folder)
    for file in folder.glob("model.ckpt-*"):
        if int(file.stem.rpartition("-")[2]) > stop:
            file.unlink()
    return folder


@pytest.mark.heavy
@pytest.mark.parametrize("optimizer", ["adam", "momentum"])
def test_a_run_goes_on_bit_for_bit_before_at_and_after_the_boundary(dataset_dir, weights, tmp_path, optimizer):
    """One is stopped by a signal; the others are as a kill leaves them."""
    whole = tmp_path / "whole"
    update = {"optimizer": "adam", "ema_decay": 0.9} if optimizer == "adam" else {}
    train(experiment(dataset_dir, whole, weights, run={"keep_checkpoints": 9}, **update))
    expected = tensors(whole, 5)
    folders = [left(whole, 2, tmp_path / "before"), left(whole, 4, tmp_path / "after")]
    if optimizer == "adam":

        def report(progress):
            if progress.step == 3:
                os.kill(os.getpid(), signal.SIGTERM)

        folders.append(tmp_path / "stopped")
        assert train(experiment(dataset_dir, folders[-1], weights, **update), observer=Recorder(report)).step == 3
    else:  # whose slots after the boundary are of the kind that Adam's are
        folders[1] = left(whole, 3, tmp_path / "at")
    for folder in folders:
        assert train(experiment(dataset_dir, folder, weights, **update)).step == 5
        found = tensors(folder, 5)
        differ = {n for n in expected if expected[n].tobytes() != found[n].tobytes()}
        assert differ == set() == {*expected} ^ {*found}, folder.name
    start, boundary = tensors(whole, 0), tensors(whole, 3)
    names = [n for n in start if in_backbone(n) and n not in ("global_step", "beta1_power", "beta2_power")]
    assert names and all(start[n].tobytes() == boundary[n].tobytes() for n in names)


@pytest.mark.heavy
def test_averages_begin_at_the_initial_weights(dataset_dir, weights, tmp_path):
    update = {"freeze": "none", "freeze_steps": 0, "ema_decay": 0.9, "training_number_of_steps": 1}
    train(experiment(dataset_dir, tmp_path / "run", weights, **update))
    first = tensors(tmp_path / "run", 0)
    name = "Tiny/Conv/weights"
    assert np.array_equal(first[name], first[f"{name}/ExponentialMovingAverage"])


@pytest.mark.heavy
def test_statistics_measured_anew_are_those_of_the_head(dataset_dir, weights, tmp_path):
    update = {"freeze_steps": 0, "training_number_of_steps": 1}
    run = {"unfold_batch_norm": 2, "recalibrate_batch_norm": 2}
    train(experiment(dataset_dir, tmp_path / "run", weights, run=run, **update))
    start, end = tensors(tmp_path / "run", 0), tensors(tmp_path / "run", 1)
    initial = tensors_of(weights)
    assert {n for n in initial if in_backbone(n) and not np.array_equal(initial[n], start[n])} == set()
    assert not np.array_equal(initial["aspp0/BatchNorm/moving_mean"], start["aspp0/BatchNorm/moving_mean"])
    assert {n for n in start if in_backbone(n) and not np.array_equal(start[n], end[n])} == {"global_step"}
    assert not np.array_equal(start["aspp0/BatchNorm/moving_mean"], end["aspp0/BatchNorm/moving_mean"])


@pytest.mark.heavy
def test_slots_of_the_initial_weights_do_not_become_those_of_the_backbone(dataset_dir, weights, tmp_path):
    update = {"freeze": "none", "freeze_steps": 0, "training_number_of_steps": 1}
    train(experiment(dataset_dir, tmp_path / "first", weights, **update))
    update = {"freeze_steps": 1, "training_number_of_steps": 2}
    train(experiment(dataset_dir, tmp_path / "run", str(tmp_path / "first"), **update))
    slots = {n: v for n, v in tensors(tmp_path / "run", 0).items() if n.endswith("Momentum")}
    assert not [name for name, value in slots.items() if in_backbone(name) and np.any(value)]
    assert np.any(slots["logits/semantic/weights/Momentum"])


# Mistakes.


@pytest.mark.heavy
def test_a_backbone_of_random_numbers_is_not_frozen(dataset_dir, weights, tmp_path):
    with pytest.raises(DeepLabError, match="^freeze=backbone: needs tf_initial_checkpoint; a backbone of random numbe"):
        train(experiment(dataset_dir, tmp_path / "run", None))
    values = {name: value for name, value in tensors_of(weights).items() if not name.startswith("Tiny/Conv/")}
    write_tensors(tmp_path / "part" / "model.ckpt", values)
    with pytest.raises(DeepLabError, match="^freeze=backbone: 5 variables of the backbone are not in .*Tiny/Conv/"):
        train(experiment(dataset_dir, tmp_path / "run", str(tmp_path / "part" / "model.ckpt")))
    assert not (tmp_path / "run").exists()


def tensors_of(prefix: str) -> dict[str, np.ndarray]:
    reader = tf.train.load_checkpoint(prefix)
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"freeze_steps": 5}, "freeze_steps=5: needs freeze=backbone"),
        ({"freeze": "head"}, "freeze='head': expected one of none, backbone"),
        ({"freeze": "backbone", "freeze_steps": -1}, "freeze_steps=-1: expected a number of at least 0"),
        (
            {"freeze": "backbone", "freeze_steps": 10, "training_number_of_steps": 10},
            "freeze_steps=10: expected fewer than training_number_of_steps=10, or 0: the whole run",
        ),
    ],
)
def test_options_that_do_not_belong_together(options, message):
    with pytest.raises(DeepLabError, match=f"^{message}$"):
        TrainConfig(**options)


def test_quantised_training_keeps_no_backbone():
    model = build_model(dataclasses.replace(MODEL, crop_size=(33, 33), quantize_delay_step=0))
    with pytest.raises(DeepLabError, match="freeze=backbone with quantize_delay_step=0"):
        make_train_step(model, dataclasses.replace(LEARNS, freeze="backbone"))


def test_a_flag_that_would_do_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert finished(command, "--train_logdir=exp", "--dataset_dir=records", "--freeze_steps=0") == 1
    expected = "tool: --freeze_steps=0 would do nothing: it needs --freeze=backbone; leave it out or give that"
    assert one_line(capsys.readouterr().err) == expected
    assert not everything(tmp_path)
