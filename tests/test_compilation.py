"""What compiles a step, by the option and the devices, of which none but a CPU is needed; and what XLA refuses."""

import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf
from observers import Recorder
from record_files import write_shapes

import deeplab_tf
from deeplab_tf.config import DataConfig, Experiment, ModelConfig, RunConfig, TrainConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.training import session
from deeplab_tf.training.compilation import Compiler, compiler_of, refusal
from deeplab_tf.training.precision import Hardware
from deeplab_tf.training.replica import Replica
from deeplab_tf.training.step import TrainStep, make_train_step
from deeplab_tf.training.train import train
from deeplab_tf.weights.run_directory import RunDirectory
from deeplab_tf.weights.tf1 import variable_map

MODEL = ModelConfig(model_variant="tiny", num_classes=3, crop_size=(33, 33), aspp_convs_filters=16)


@pytest.mark.parametrize(
    ("kind", "count", "asked", "expected"),
    [
        ("CPU", 1, "auto", False),
        ("CPU", 1, "true", True),
        ("GPU", 1, "auto", True),
        ("GPU", 1, "false", False),
        ("GPU", 8, "auto", True),
        ("GPU", 8, "true", True),
        ("GPU", 8, "false", False),
        ("CPU", 2, "auto", False),
        ("CPU", 2, "true", True),
        ("TPU", 8, "auto", True),
        ("TPU", 1, "auto", True),
        ("TPU", 8, "true", True),
    ],
)
def test_what_compiles(kind, count, asked, expected):
    compiler = compiler_of(TrainConfig(jit_compile=asked), Hardware(kind, count), count)
    assert compiler == Compiler(xla=expected)


def test_a_tpu_runs_nothing_else():
    with pytest.raises(DeepLabError, match="jit_compile=false: a TPU"):
        compiler_of(TrainConfig(jit_compile="false"), Hardware("TPU", 8), 8)


def test_norms_that_share_statistics():
    """Between several devices, on one machine or more, and where batch norm is trained at all."""
    synced = TrainConfig(sync_batch_norm=True)
    for hardware, replicas in ((Hardware("GPU", 2), 2), (Hardware("GPU", 1), 2)):
        compiler = compiler_of(synced, hardware, replicas)
        assert not compiler.xla and compiler.why_not.startswith("sync_batch_norm sums statistics between the devices")
        with pytest.raises(DeepLabError, match="^jit_compile=true: sync_batch_norm .*; expected auto or false"):
            compiler_of(dataclasses.replace(synced, jit_compile="true"), hardware, replicas)
    assert compiler_of(synced, Hardware("CPU", 2), 2) == Compiler(xla=False)
    assert compiler_of(dataclasses.replace(synced, jit_compile="false"), Hardware("GPU", 2), 2) == Compiler(xla=False)
    assert compiler_of(synced, Hardware("GPU", 1), 1) == Compiler(xla=True)
    for idle in ({"fine_tune_batch_norm": False}, {"freeze_batch_norm": True}):
        assert compiler_of(dataclasses.replace(synced, **idle), Hardware("GPU", 2), 2) == Compiler(xla=True)


# What XLA refuses.

_NO_KERNEL = "Detected unsupported operations when trying to compile graph"


@pytest.fixture
def refused(monkeypatch):
    """Every step has an operation of the host, which XLA has no kernel for."""
    before_sum = Replica.before_sum

    def with_a_call_of_the_host(self, images, labels, step):
        images = tf.ensure_shape(tf.numpy_function(lambda x: x, [images], images.dtype), images.shape)
        return before_sum(self, images, labels, step)

    monkeypatch.setattr(Replica, "before_sum", with_a_call_of_the_host)


def asked_by_auto(step: TrainStep) -> TrainStep:
    """Returns the step as auto makes it on a GPU."""
    step._asked = "auto"
    return step


def batch(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return random.uniform(0, 255, (2, 33, 33, 3)).astype(np.float32), random.integers(0, 3, (2, 33, 33), np.int32)


@functools.cache
def weights() -> dict[str, np.ndarray]:
    return {name: variable.numpy() for name, variable in variable_map(deeplab_tf.build_model(MODEL)).items()}


def step_of(jit_compile: str) -> TrainStep:
    model = deeplab_tf.build_model(MODEL)
    for name, variable in variable_map(model).items():
        variable.assign(weights()[name])
    return make_train_step(model, TrainConfig(jit_compile=jit_compile, base_learning_rate=0.01))


def test_auto_goes_on_without_xla(refused):
    """With the same weights and batch: bit for bit what a step without XLA does."""
    step, plain, lines = asked_by_auto(step_of("true")), step_of("false"), []
    step.tell = lines.append
    assert step.compiled_by_xla
    for number in range(2):
        found, expected = step(*batch(number)), plain(*batch(number))
        assert {name: float(value) for name, value in found.items()} == {
            name: float(value) for name, value in expected.items()
        }
    assert (step.compiled_by_xla, step.config) == (False, plain.config)
    for name, variable in variable_map(plain.model).items():
        np.testing.assert_array_equal(variable.numpy(), variable_map(step.model)[name].numpy(), name)
    (line,) = lines
    assert line.startswith(f"Note: XLA cannot compile the step, TensorFlow runs it: {_NO_KERNEL}") and "PyFunc" in line
    assert "\n" not in line and len(line) < 320


def test_true_asks_for_xla_alone(refused):
    step = step_of("true")
    before = {name: variable.numpy() for name, variable in step.state.items()}
    with pytest.raises(
        DeepLabError, match=f"^jit_compile=true: XLA cannot compile the step .{_NO_KERNEL}.*; expected "
    ):
        step(*batch())
    assert all((variable.numpy() == before[name]).all() for name, variable in step.state.items())


@pytest.mark.heavy
@pytest.mark.parametrize("steps_per_loop", [1, 3])
def test_a_run_loses_nothing(refused, tmp_path, monkeypatch, steps_per_loop):
    """Neither a step nor a batch: a loop has taken the first one when XLA gives up."""
    records = write_shapes(tmp_path / "records", "train", 8, (40, 40))
    monkeypatch.setenv("DEEPLAB_TF_CACHE", str(tmp_path / "cache"))

    def run(name: str, jit_compile: str) -> list[str]:
        told = Recorder()
        model = ModelConfig(model_variant="tiny", aspp_convs_filters=16)
        update = TrainConfig(training_number_of_steps=4, jit_compile=jit_compile)
        data = DataConfig(dataset="shapes", dataset_dir=records, crop_size=(33, 33), batch_size=2)
        options = RunConfig(train_logdir=str(tmp_path / name), log_steps=1 if steps_per_loop == 1 else 4)
        options = dataclasses.replace(options, steps_per_loop=steps_per_loop)
        train(Experiment(model, update, data, options), observer=told)
        return told.lines

    run("plain", "false")
    made = session.make_train_step
    monkeypatch.setattr(session, "make_train_step", lambda *a, **k: asked_by_auto(made(*a, **k)))
    lines = run("auto", "true")
    assert [line for line in lines if "XLA" in line][1].startswith("Note: XLA cannot compile the step")
    assert not [line for line in lines if "first step took" in line]
    folders = [RunDirectory(tmp_path / name) for name in ("plain", "auto")]
    readers = [tf.train.load_checkpoint(str(folder.latest())) for folder in folders]
    for name in readers[0].get_variable_to_shape_map():
        np.testing.assert_array_equal(*(reader.get_tensor(name) for reader in readers), name)
    losses = [[line["total_loss"] for line in folder.lines()] for folder in folders]
    assert losses[0] == losses[1]
    assert [event["event"] for event in folders[1].events()] == ["started", "without_xla"]
    assert not (tmp_path / "cache" / "xla" / "times.json").exists()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (tf.errors.InvalidArgumentError(None, None, "{{function_node f}} Bad {{node x}}\nmore"), "Bad x"),
        (
            tf.errors.InternalError(
                None, None, "2 root error(s) found.\n  (0) INTERNAL: {{function_node f}} no ptxas\n"
            ),
            "no ptxas",
        ),
        (
            tf.errors.InternalError(
                None,
                None,
                "Graph execution error:\n\nDetected at node x defined at (most recent call last):\n"
                '  File "a.py", line 3, in f\n\n<stack traces unavailable>\nno ptxas\n\t [[x]]',
            ),
            "no ptxas",
        ),
        (tf.errors.UnimplementedError(None, None, ""), "UnimplementedError"),
        (tf.errors.InvalidArgumentError(None, None, "x" * 500), "x" * 240 + "..."),
        (tf.errors.InvalidArgumentError(None, None, "bad\n\t [[{{node IteratorGetNext}}]]"), None),
        (tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor"), None),
        (tf.errors.OutOfRangeError(None, None, "End of sequence"), None),
        (tf.errors.UnavailableError(None, None, "a worker"), None),
        (ValueError("x"), None),
        (DeepLabError("x"), None),
    ],
)
def test_what_is_a_refusal(error, reason):
    assert refusal(error) == reason
