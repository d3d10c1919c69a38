"""Scores during training: when they come, what is kept of the best, when patience ends; and what TensorBoard has."""

import dataclasses
import glob
import json

import numpy as np
import pytest
import tensorflow as tf
from networks import lively
from observers import Recorder
from record_files import write_shapes

import deeplab_tf
from deeplab_tf.config import DataConfig, EvalConfig, Experiment, ModelConfig, RunConfig, TrainConfig
from deeplab_tf.data.pipeline import make_dataset
from deeplab_tf.errors import DeepLabError
from deeplab_tf.network.build import build_model
from deeplab_tf.training import validation
from deeplab_tf.training.batch_statistics import recalibrate_batch_norm
from deeplab_tf.training.optimizers import initial_state
from deeplab_tf.training.step import trained_variables
from deeplab_tf.training.train import train
from deeplab_tf.weights.loading import open_model
from deeplab_tf.weights.model_directory import ModelCard
from deeplab_tf.weights.names import AVERAGE
from deeplab_tf.weights.run_directory import SCORES, RunDirectory
from deeplab_tf.weights.tf1 import variable_map

MODEL = ModelConfig(model_variant="tiny", aspp_convs_filters=16)


@pytest.fixture(scope="module")
def dataset_dir(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("records")
    write_shapes(folder, "train", 6, (49, 41))
    return write_shapes(folder, "val", 3, (40, 57))


@pytest.fixture
def data(dataset_dir) -> DataConfig:
    return DataConfig(dataset="shapes", dataset_dir=dataset_dir, crop_size=(33, 33), batch_size=2)


EVALUATION = EvalConfig(eval_crop_size=None, eval_batch_size=2)


def scored(folder) -> list[int]:
    return [line["step"] for line in RunDirectory(folder).lines(SCORES)]


@pytest.mark.heavy
def test_train_and_eval(data, tmp_path):
    observer = Recorder()
    options = {"mode": "train_and_eval", "eval_interval_steps": 2, "keep_best": True, "log_steps": 2}
    more = {"save_summaries_secs": 0, "save_summaries_images": True, "profile_logdir": None}
    run = RunConfig(train_logdir=str(tmp_path / "run"), **options, **more)
    update = TrainConfig(training_number_of_steps=5, ema_decay=0.5)
    train(Experiment(MODEL, update, data, run, EVALUATION), observer=observer)
    log = RunDirectory(tmp_path / "run").lines(SCORES)
    assert [line["step"] for line in log] == [2, 4, 5] and all(line["examples"] == 3 for line in log)
    assert all(0 <= line["miou"] <= 1 and len(line["iou_per_class"]) == 9 for line in log)
    assert "step 2: mIoU" in observer.lines[0] and observer.lines[0].endswith("the best so far")
    best = max(log, key=lambda line: line["miou"])["step"]
    kept = open_model(tmp_path / "run" / "best")
    assert RunDirectory(tmp_path / "run" / "best").steps() == [best]
    name = "Tiny/Conv/weights"
    held = tf.train.load_checkpoint(str(tmp_path / "run" / "best" / f"model.ckpt-{best}"))
    if best == 5:  # whatever was best: its averages are kept, not the weights of the last update
        last = tf.train.load_checkpoint(str(tmp_path / "run" / "model.ckpt-5"))
        assert np.array_equal(held.get_tensor(name), last.get_tensor(f"{name}/ExponentialMovingAverage"))
        assert not np.array_equal(held.get_tensor(name), last.get_tensor(name))
    assert kept.card.dataset == "shapes"
    _tensorboard_has(tmp_path / "run", log)


@pytest.mark.heavy
def test_scored_later_a_run_has_its_averages_and_their_statistics(data, tmp_path):
    run = {"mode": "train_and_eval", "recalibrate_batch_norm": 2, "train_logdir": str(tmp_path / "run")}
    update = TrainConfig(training_number_of_steps=3, ema_decay=0.5, base_learning_rate=0.05)
    train(Experiment(MODEL, update, data, RunConfig(**run), EVALUATION))
    model = open_model(tmp_path / "run").model
    found = deeplab_tf.evaluate(
        model, make_dataset(dataclasses.replace(data, crop_size=None), split="val", training=False)
    )
    (line,) = RunDirectory(tmp_path / "run").lines(SCORES)
    assert found["miou"] == line["miou"] and found["pixel_accuracy"] == line["pixel_accuracy"]

    # The statistics are those of the averages: measured anew, with them in place, they come out the same.
    reader = tf.train.load_checkpoint(str(tmp_path / "run" / "model.ckpt-3"))
    weights = {name: variable.numpy() for name, variable in variable_map(model).items()}
    name = "Tiny/Conv/weights"
    assert np.array_equal(weights[name], reader.get_tensor(f"{name}/{AVERAGE}"))
    assert not np.array_equal(weights[name], reader.get_tensor(name))
    batches = make_dataset(data, split="train", training=True, seed=update.seed, start_step=3)
    recalibrate_batch_norm(model, (batch["image"] for batch in batches.take(2)))
    for name, variable in variable_map(model).items():
        np.testing.assert_allclose(variable.numpy(), weights[name], rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.heavy
def test_pictures_are_padded_as_eval_pads_them(data, tmp_path):
    """The pooled feature is the mean over the padding too, as in the release."""
    config = dataclasses.replace(MODEL, num_classes=9, crop_size=(33, 33))
    crop = (81, 97)
    model = lively(config)
    run = RunConfig(train_logdir=str(tmp_path / "run"), mode="train_and_eval")
    (tmp_path / "run").mkdir()
    asked = Experiment(config, TrainConfig(), data, run, dataclasses.replace(EVALUATION, eval_crop_size=crop))
    found = validation.Validation(asked, ModelCard(config)).score(1, model, {})

    def evaluated(crop) -> np.ndarray:
        network = build_model(dataclasses.replace(config, crop_size=crop))
        network.set_weights(model.get_weights())
        batches = make_dataset(dataclasses.replace(data, crop_size=crop), split="val", training=False)
        return deeplab_tf.evaluate(network, batches)["confusion_matrix"]

    np.testing.assert_array_equal(found["confusion_matrix"], evaluated(crop))
    assert not np.array_equal(found["confusion_matrix"], evaluated(None))


def _tensorboard_has(folder, log):
    numbers, images, histograms = {}, {}, set()
    for file in glob.glob(str(folder / "events.*")):
        for event in tf.compat.v1.train.summary_iterator(file):
            for value in event.summary.value:
                kind = value.metadata.plugin_data.plugin_name
                if kind == "scalars":
                    numbers[value.tag, event.step] = float(tf.make_ndarray(value.tensor))
                elif kind == "images":
                    images[value.tag] = tf.io.decode_png(tf.make_ndarray(value.tensor)[2]).numpy()
                else:
                    histograms.add(value.tag)
    assert numbers["eval/miou_1.0_overall", 4] == pytest.approx(log[1]["miou"])
    written = RunDirectory(folder).lines()[0]
    assert numbers["total_loss", 2] == pytest.approx(written["total_loss"])
    assert numbers["learning_rate", 2] == pytest.approx(written["learning_rate"])
    assert images["samples/image"].shape == (33, 33, 3)
    assert set(np.unique(images["samples/label"])) <= {28 * label for label in range(9)} | {255 * 28 % 256}
    assert "Tiny/Conv/weights" in histograms


def _scores_of(monkeypatch, values):
    """Makes `score` return the next of `values`."""
    found = iter(values)

    def score(*_, **__):
        of_classes = {"iou_per_class": np.array([0.5, np.nan]), "confusion_matrix": np.diag([3, 0])}
        return {"miou": next(found), "pixel_accuracy": 0.5, **of_classes, "examples": 3}

    monkeypatch.setattr(validation, "score", score)


@pytest.mark.heavy
def test_patience(data, tmp_path, monkeypatch):
    _scores_of(monkeypatch, [0.2, 0.3, 0.25, 0.3, 0.9])
    options = {"mode": "train_and_eval", "eval_interval_steps": 1, "early_stop_patience": 2, "keep_best": True}
    run = RunConfig(train_logdir=str(tmp_path / "run"), **options)
    outcome = train(Experiment(MODEL, TrainConfig(training_number_of_steps=30), data, run, EVALUATION))
    assert (outcome.step, outcome.reason, outcome.stopped) == (4, "patience", False)
    assert scored(tmp_path / "run") == [1, 2, 3, 4]
    assert RunDirectory(tmp_path / "run" / "best").steps() == [2]
    again = train(Experiment(MODEL, TrainConfig(training_number_of_steps=30), data, run, EVALUATION))
    assert (again.step, again.reason) == (4, "patience"), "it stays ended"


@pytest.mark.heavy
def test_the_best_outlives_a_resumed_run(data, tmp_path, monkeypatch):
    """A run that lost steps may score them again; a better score that was kept is not replaced by a worse one."""
    _scores_of(monkeypatch, [0.3, 0.6, 0.5, 0.7])
    run = RunConfig(train_logdir=str(tmp_path / "run"), mode="train_and_eval", keep_best=True)
    card = ModelCard(MODEL, ignore_label=255)
    model = build_model(MODEL)
    state = initial_state(TrainConfig(), trained_variables(model, TrainConfig()))
    (tmp_path / "run").mkdir()
    scores = validation.Validation(Experiment(MODEL, data=data, run=run, evaluation=EVALUATION), card)
    best = RunDirectory(tmp_path / "run" / "best")
    scores.score(10, model, state)
    scores.score(20, model, state)
    assert best.steps() == [20]
    line = json.loads((tmp_path / "run" / SCORES).read_text().splitlines()[-1])
    assert line["iou_per_class"] == [0.5, None], "of a class without pixels there is none"
    RunDirectory(tmp_path / "run").forget_after(10)
    scores.score(15, model, state)
    assert best.steps() == [20] and scored(tmp_path / "run") == [10, 15]
    scores.score(16, model, state)
    assert best.steps() == [16], "an earlier step may be better"


@pytest.mark.heavy
def test_a_score_that_a_kill_prevented_is_made_up_for(data, tmp_path, monkeypatch):
    _scores_of(monkeypatch, [0.3])
    run = RunConfig(train_logdir=str(tmp_path / "run"), mode="train_and_eval")
    update = TrainConfig(training_number_of_steps=1)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(validation.Validation, "score", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        train(Experiment(MODEL, update, data, run, EVALUATION))
    assert RunDirectory(tmp_path / "run").steps() == [0, 1] and scored(tmp_path / "run") == []
    for _ in range(2):
        train(Experiment(MODEL, update, data, run, EVALUATION))
        assert scored(tmp_path / "run") == [1]


@pytest.mark.heavy
@pytest.mark.parametrize("killed", ["log", "save"])
def test_a_kill_while_the_best_are_kept_loses_neither_the_old_nor_the_new(killed, data, tmp_path, monkeypatch):
    _scores_of(monkeypatch, [0.3, 0.6, 0.5, 0.7])
    run = RunConfig(train_logdir=str(tmp_path / "run"), mode="train_and_eval", keep_best=True)
    model = build_model(MODEL)
    state = initial_state(TrainConfig(), trained_variables(model, TrainConfig()))
    (tmp_path / "run").mkdir()
    experiment, best = Experiment(MODEL, data=data, run=run, evaluation=EVALUATION), tmp_path / "run" / "best"

    def scores():
        return validation.Validation(experiment, ModelCard(MODEL, ignore_label=255))

    real = getattr(RunDirectory, killed)

    def ended(*arguments, **options):
        if killed == "save":
            real(*arguments, **options)
        raise KeyboardInterrupt

    scores().score(10, model, state)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(RunDirectory, killed, ended)
        scores().score(20, model, state)
    assert RunDirectory(best).steps() == ([20] if killed == "save" else [10])
    scores().score(30, model, state)
    assert RunDirectory(best).steps() == ([20] if killed == "save" else [30]), "0.5 is worse than 0.6, not than 0.3"
    scores().score(40, model, state)
    assert RunDirectory(best).steps() == [40]


@pytest.mark.parametrize("option", [{"early_stop_patience": 3}, {"keep_best": True}])
def test_scores_need_their_mode(option):
    with pytest.raises(DeepLabError, match="needs mode=train_and_eval"):
        RunConfig(**option)


def test_averages_take_the_place_of_the_weights_for_a_while():
    weights = {"a": tf.Variable([1.0]), "b": tf.Variable([2.0])}
    state = {"a/ExponentialMovingAverage": tf.Variable([5.0]), "a/Momentum": tf.Variable([9.0])}
    with validation.averages_in_place(weights, state):
        assert (weights["a"].numpy(), weights["b"].numpy()) == ([5.0], [2.0])
    assert weights["a"].numpy() == [1.0] and state["a/ExponentialMovingAverage"].numpy() == [5.0]
