"""Several steps a call: equal to single ones in weights, slots and log, whatever falls due in between."""

import dataclasses
import os
import pathlib
import signal

import numpy as np
import pytest
import tensorflow as tf
from observers import Recorder
from record_files import write_shapes

import deeplab_tf
from deeplab_tf.config import DataConfig, EvalConfig, Experiment, ModelConfig, RunConfig, TrainConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.training.loop import Pace, SingleSteps, StepLoop
from deeplab_tf.training.progress import InputAdvice
from deeplab_tf.training.step import make_train_step
from deeplab_tf.training.train import train
from deeplab_tf.weights.run_directory import RunDirectory
from deeplab_tf.weights.tf1 import save_tf1_checkpoint

MODEL = ModelConfig(model_variant="tiny", aspp_convs_filters=16)
TIMES = ("images_per_second", "waiting", "seconds_left")


@pytest.fixture(scope="module")
def dataset_dir(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("records")
    write_shapes(folder, "val", 3, (49, 41))
    return write_shapes(folder, "train", 10, (49, 41))


def run(dataset_dir, folder, *, update=None, data=None, observer=None, **options):
    update = {
        "training_number_of_steps": 12,
        "base_learning_rate": 0.01,
        "fine_tune_batch_norm": True,
        **(update or {}),
    }
    records = {"dataset": "shapes", "dataset_dir": str(dataset_dir), "crop_size": (33, 33), "batch_size": 4}
    asked = Experiment(
        MODEL,
        TrainConfig(**update),
        DataConfig(**{**records, **(data or {})}),
        RunConfig(**{"log_steps": 5, "train_logdir": str(folder), **options}),
        EvalConfig(eval_split="val", eval_crop_size=(49, 41)),
    )
    return train(asked, observer=observer)


def tensors(folder) -> dict[str, np.ndarray]:
    reader = tf.train.load_checkpoint(str(RunDirectory(folder).latest()))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def log(folder) -> list[dict]:
    """Returns the lines of the log, less what is a matter of time."""
    lines = [line for line in RunDirectory(folder).lines() if "step" in line]
    return [{name: value for name, value in line.items() if name not in TIMES} for line in lines]


def assert_equal(first, second):
    a, b = tensors(first), tensors(second)
    assert set(a) == set(b)
    assert [name for name in a if a[name].tobytes() != b[name].tobytes()] == []
    assert log(first) == log(second)


@pytest.mark.heavy
def test_nothing_that_is_due_is_passed_by(dataset_dir, tmp_path):
    """Steps that no loop divides, scores every third step, a log that is shorter than a loop, and a stop between."""
    update = {"training_number_of_steps": 8}
    options = {"update": update, "mode": "train_and_eval", "eval_interval_steps": 3, "log_steps": 5}
    run(dataset_dir, tmp_path / "single", steps_per_loop=1, **options)

    def stop(progress):
        if progress.step == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    outcome = run(dataset_dir, tmp_path / "loops", observer=Recorder(stop), steps_per_loop=10, **options)
    assert outcome.stopped and outcome.step == 5, "a signal waits for the loop at hand only"
    assert run(dataset_dir, tmp_path / "loops", steps_per_loop=7, **options).step == 8
    assert [line["step"] for line in log(tmp_path / "loops")] == [5, 8]
    scores = [RunDirectory(tmp_path / name).lines("scores.jsonl") for name in ("single", "loops")]
    assert [line["step"] for line in scores[1]] == [3, 6, 8] and scores[0] == scores[1]
    assert_equal(tmp_path / "single", tmp_path / "loops")
    started = RunDirectory(tmp_path / "loops").events()
    assert [event["steps_per_loop"] for event in started if event["event"] == "started"] == [10, 7]


@pytest.mark.heavy
def test_a_frozen_backbone_thaws_in_time(dataset_dir, tmp_path):
    """With gradients of parts of a batch, which one update adds up, in a loop too."""
    initial = tmp_path / "weights" / "model.ckpt"
    save_tf1_checkpoint(deeplab_tf.build_model(dataclasses.replace(MODEL, num_classes=9)), initial)
    update = {"freeze": "backbone", "freeze_steps": 3, "training_number_of_steps": 7, "gradient_accumulation_steps": 2}
    for name, steps in (("single", 1), ("loops", 10)):
        run(dataset_dir, tmp_path / name, update=update, steps_per_loop=steps, tf_initial_checkpoint=str(initial))
    assert [line["step"] for line in log(tmp_path / "loops")] == [5, 7]
    assert_equal(tmp_path / "single", tmp_path / "loops")


@pytest.mark.heavy
def test_a_loss_that_is_not_finite_in_a_loop_ends_the_run(dataset_dir, tmp_path):
    update = {"base_learning_rate": 1e30, "training_number_of_steps": 12}
    with pytest.raises(DeepLabError, match="the loss is .* before step 5; .*model.ckpt-0 is intact"):
        run(dataset_dir, tmp_path / "run", update=update, steps_per_loop=10)
    assert RunDirectory(tmp_path / "run").steps() == [0]


@pytest.mark.heavy
def test_a_damaged_record_in_a_loop_is_named(dataset_dir, tmp_path):
    """The run begins: its first batch, and the first record, are sound."""
    content = bytearray(next(pathlib.Path(dataset_dir).glob("train-*")).read_bytes())
    (tmp_path / "records").mkdir()
    last = len(content) - 40
    content[last : last + 8] = bytes(8)
    (tmp_path / "records" / "train-00000-of-00001.tfrecord").write_bytes(content)
    with pytest.raises(DeepLabError, match="train-00000-of-00001.tfrecord: record 9.*checksum does not match"):
        run(tmp_path / "records", tmp_path / "run", steps_per_loop=10, data={"batch_size": 1}, log_steps=100)
    assert RunDirectory(tmp_path / "run").steps() == [0]


@pytest.mark.heavy
def test_each_step_is_saved_where_that_is_asked_for(dataset_dir, tmp_path):
    update = {"training_number_of_steps": 3}
    run(dataset_dir, tmp_path / "run", update=update, steps_per_loop=10, save_interval_secs=0)
    assert RunDirectory(tmp_path / "run").steps() == [0, 1, 2, 3]


@pytest.fixture(scope="module")
def step():
    model = deeplab_tf.build_model(dataclasses.replace(MODEL, crop_size=(33, 33)))
    return make_train_step(model, TrainConfig(training_number_of_steps=100))


def constant_batches(count: int = -1) -> tf.data.Dataset:
    batch = {"image": tf.zeros([2, 33, 33, 3]), "label": tf.ones([2, 33, 33, 1], tf.int32)}
    return tf.data.Dataset.from_tensors(batch).repeat(count)


def test_loops_of_all_lengths_are_one_function_on_the_devices(step):
    loop = StepLoop(step, iter(constant_batches()), Pace(10, 100))
    assert [loop(most).count for most in (1, 3, 100)] == [1, 3, 10]
    assert loop.compiled.experimental_get_tracing_count() == 1
    (function,) = loop.compiled._list_all_concrete_functions()
    graph = function.graph.as_graph_def()
    names = {node.op for part in (graph.node, *(one.node_def for one in graph.library.function)) for node in part}
    assert "While" in names and "IteratorGetNext" in names
    assert not names & {"PyFunc", "PyFuncStateless", "EagerPyFunc", "PrintV2", "Timestamp"}


def test_batches_that_end_are_told(step):
    for update in (
        StepLoop(step, iter(constant_batches(3)), Pace(10, 10)),
        SingleSteps(step, iter(constant_batches(0))),
    ):
        with pytest.raises(DeepLabError, match="the input has ended before the training"):
            update(10)


def test_auto_takes_about_a_second():
    pace = Pace("auto", 50)
    assert pace.steps() == 1
    assert pace.note(1, 90.0, traced=True) == 0, "the time of compiling"
    assert pace.steps() == 2
    assert pace.note(2, 0.2, traced=False) == 0
    assert pace.steps() == 10
    assert pace.within(0.35) == 3 and pace.within(-1) == 1 and pace.within(1e300) >= 50
    assert pace.note(10, 1.5, traced=False) == pytest.approx(0.5), "slower by half than the fastest"
    assert pace.steps() == 6
    pace.note(6, 0.006, traced=False)
    assert pace.steps() == 50, "at most as many as lie between two lines of the log"
    pace.note(50, 30.0, traced=True)
    assert pace.steps() == 2 and pace.note(2, 8.0, traced=False) == 0, "another function has other steps"
    assert pace.steps() == 1, "a slow step is a loop of its own"


def test_the_cache_is_recommended_once():
    advice = InputAdvice(cached=False, epoch=5)
    assert [list(advice.lines(waiting, 10)) for waiting in (0.9, 0.1)] == [[], []]
    (line,) = advice.lines(0.11, 20)
    assert line.startswith("Note: 11% of the time is spent waiting for data: --decoded_cache=FOLDER")
    assert not list(advice.lines(0.9, 30))
    advice = InputAdvice(cached=True, epoch=25)
    assert [list(advice.lines(0.5, steps)) for steps in (10, 20)] == [[], []], "the first epoch fills the cache"
    (line,) = advice.lines(0.5, 30)
    assert f"the {os.cpu_count()} processors" in line and "decoded_cache" not in line


@pytest.mark.parametrize("given", ["-1", "many", "", 0, True, 1.5, None])
def test_numbers_of_steps_that_make_no_sense(given):
    with pytest.raises(DeepLabError, match=rf"steps_per_loop={given!r}: expected auto, or a number of steps"):
        RunConfig(steps_per_loop=given)


def test_numbers_of_steps():
    given = ("auto", "AUTO", " 10 ", 7)
    assert [RunConfig(steps_per_loop=value).steps_per_loop for value in given] == ["auto", "auto", 10, 7]
