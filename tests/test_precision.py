"""Precision: who lets devices round float32, what mixed_precision=auto is on which device, and what is told of both."""

import threading
import types

import numpy as np
import pytest
import tensorflow as tf
from commands import finished
from networks import SMALL
from observers import Recorder
from record_files import write_shapes

from deeplab_tf.config import DataConfig, EvalConfig, Experiment, Inference, ModelConfig, RunConfig, TrainConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.inference.predictor import Predictor, TensorFlowBackend
from deeplab_tf.network.build import build_model
from deeplab_tf.network.precision import exact_float32, exactness_line, is_rounded, rounds_float32, switched_on
from deeplab_tf.tools import predict as predict_tool
from deeplab_tf.training.precision import Hardware, precision_line, settled
from deeplab_tf.training.step import make_train_step
from deeplab_tf.training.train import train
from deeplab_tf.weights.run_directory import RunDirectory
from deeplab_tf.weights.run_options import read_run

TINY = ModelConfig(model_variant="tiny", num_classes=3, crop_size=(33, 33), aspp_convs_filters=16)
AUTO = TrainConfig(mixed_precision="auto", training_number_of_steps=2)


def device(**details: object) -> types.SimpleNamespace:
    return types.SimpleNamespace(name=f"/physical_device:GPU:{len(details)}", details=details)


H200 = device(device_name="NVIDIA H200", compute_capability=(9, 0))
T4 = device(device_name="Tesla T4", compute_capability=(7, 5))
AMD = device(device_name="Radeon")


def machine(monkeypatch, *gpus, tpus=()):
    """Gives this machine these GPUs and TPUs, for whoever asks what it has."""
    there = {"GPU": list(gpus), "TPU": list(tpus)}
    listed = tf.config.list_physical_devices
    monkeypatch.setattr(
        tf.config, "list_physical_devices", lambda kind=None: there[kind] if kind in there else listed(kind)
    )
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda found: found.details)


# ---- TensorFloat-32


def test_the_switch_is_off_inside_and_as_before_afterwards():
    assert switched_on(), "TensorFlow's default"
    with exact_float32():
        assert not switched_on()
        with exact_float32(unless=True):
            assert not switched_on()
        with exact_float32():
            pass
        assert not switched_on()
    assert switched_on()
    with exact_float32(unless=True):
        assert switched_on()


def test_what_the_user_has_switched_off_stays_off():
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        with pytest.raises(ZeroDivisionError), exact_float32():
            raise ZeroDivisionError
        assert not switched_on()
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(True)


def test_threads_that_overlap_leave_it_as_it_was():
    """The one that came first leaves first: what it saw before must not come back while the other is at work."""
    entered, leave, seen = threading.Event(), threading.Event(), []

    def second():
        with exact_float32():
            entered.set()
            leave.wait(10)
            seen.append(switched_on())

    thread = threading.Thread(target=second)
    with exact_float32():
        thread.start()
        assert entered.wait(10)
    leave.set()
    thread.join()
    assert seen == [False] and switched_on()


class _Watching:
    """A backend that notes the switch where the network runs."""

    name, batches = "watching", True

    def __init__(self):
        self.seen = []

    def logits(self, images, config):
        del config
        self.seen.append(switched_on())
        return tf.zeros((*images.shape[:3], 6))

    def upsampled_classes(self, logits, size):
        self.seen.append(switched_on())
        return np.zeros((len(logits), *size), np.int32)

    def prepare(self):
        pass


@pytest.mark.parametrize("tf32", [False, True])
def test_prediction_gives_the_published_pixels_unless_told_otherwise(tf32):
    backend = _Watching()
    predictor, image = Predictor(SMALL, backend), np.zeros((1, 20, 30, 3), np.uint8)
    for inference in (Inference(tf32=tf32), Inference(flip=True, tf32=tf32), Inference(crf={}, tf32=tf32)):
        predictor.labels(image, inference)
        predictor.probabilities(image, inference)
    assert len(backend.seen) == 9 and set(backend.seen) == {tf32} and switched_on()


def test_what_devices_round(monkeypatch):
    assert not rounds_float32() and not is_rounded(True)
    machine(monkeypatch, T4)
    assert not rounds_float32()
    machine(monkeypatch, AMD)
    assert not rounds_float32()
    machine(monkeypatch, T4, H200)
    assert rounds_float32() and is_rounded(True) and not is_rounded(False)
    machine(monkeypatch, tpus=[device()])
    assert rounds_float32()


def test_commands_say_it_where_there_is_a_choice(monkeypatch):
    assert exactness_line(False) is None
    assert exactness_line(True).startswith("Note: --tf32 changes nothing here")
    machine(monkeypatch, H200)
    line = "Precision: float32, not rounded to TensorFloat-32: the published pixels (faster)"
    assert exactness_line(False, cure=" (faster)") == line
    assert "rounded to TensorFloat-32 in convolutions: not the published pixels" in exactness_line(True)


def test_a_command_says_it_once_and_first(monkeypatch, tmp_path, capsys):
    machine(monkeypatch, H200)
    line = (f"--checkpoint={tmp_path / 'nothing'}", f"--input={tmp_path}", f"--output_dir={tmp_path / 'out'}")
    assert finished(predict_tool, *line, "--tf32") == 1
    assert capsys.readouterr().out.startswith("Precision: float32, rounded")


# ---- mixed_precision=auto


@pytest.mark.parametrize(
    ("kind", "gpus", "expected", "reason"),
    [
        ("CPU", (), "none", "CPUs gain nothing"),
        ("TPU", (), "bfloat16", "TPUs compute in it"),
        ("GPU", (H200,), "bfloat16", "NVIDIA H200 has compute capability 9.0"),
        ("GPU", (T4,), "none", "Tesla T4 has compute capability 7.5, bfloat16 needs 8.0"),
        ("GPU", (H200, T4), "none", "Tesla T4"),
        ("GPU", (AMD,), "none", "Radeon has no compute capability"),
    ],
)
def test_auto_follows_the_devices(kind, gpus, expected, reason, monkeypatch):
    machine(monkeypatch, *gpus)
    hardware = Hardware(kind, max(1, len(gpus)), gpus)
    config, why = settled(AUTO, TINY, hardware)
    assert config.mixed_precision == expected and reason in why
    given, none = settled(TrainConfig(mixed_precision="float16"), TINY, hardware)
    assert given.mixed_precision == "float16" and not none


def test_quantised_training_is_float32(monkeypatch):
    machine(monkeypatch, H200)
    quantised = ModelConfig(quantize_delay_step=0, num_classes=3)
    config, why = settled(AUTO, quantised, Hardware("GPU", 1, (H200,)))
    assert config.mixed_precision == "none" and why == "quantize_delay_step=0 needs float32"


def test_a_run_keeps_the_precision_that_it_began_with(monkeypatch):
    machine(monkeypatch, H200)
    began = {"mixed_precision": "bfloat16"}
    config, why = settled(AUTO, TINY, Hardware("CPU", 1), began)
    assert config.mixed_precision == "bfloat16"
    assert why.startswith("as the run began with it (run.json); here auto would be none: CPUs")
    on_gpu = Hardware("GPU", 1, (H200,))
    assert settled(AUTO, TINY, on_gpu, {"mixed_precision": "none"})[0].mixed_precision == "none"
    assert settled(AUTO, TINY, on_gpu, {"mixed_precision": ["?"]})[0].mixed_precision == "bfloat16"


def test_the_line_of_a_run(monkeypatch):
    cpu = Hardware("CPU", 1)
    assert precision_line(TrainConfig(), cpu, "", tf32=True) is None
    assert precision_line(*settled(AUTO, TINY, cpu)[:1], cpu, "CPUs", tf32=True) == (
        "Precision: float32 (--mixed_precision=auto: CPUs)"
    )
    assert precision_line(TrainConfig(), cpu, "", tf32=False).startswith("Note: --notf32 changes nothing here")
    half = TrainConfig(mixed_precision="bfloat16")
    kept = ", weights, batch norm's statistics and the loss in float32"
    assert precision_line(half, cpu, "", tf32=True) == f"Precision: bfloat16{kept}"
    machine(monkeypatch, H200)
    gpu = Hardware.of(None)
    assert (gpu.kind, gpu.described()) == ("GPU", "1 x NVIDIA H200")
    config, why = settled(AUTO, TINY, gpu)
    assert precision_line(config, gpu, why, tf32=True) == (
        "Precision: bfloat16 (--mixed_precision=auto: NVIDIA H200 has compute capability 9.0)"
        f"{kept}; TensorFloat-32 on, for scores off"
    )
    assert (
        precision_line(TrainConfig(), gpu, "", tf32=False) == "Precision: float32; TensorFloat-32 off, for scores off"
    )


def test_a_step_settles_it_for_those_who_make_one():
    assert make_train_step(build_model(TINY), AUTO).config.mixed_precision == "none"


@pytest.mark.heavy
@pytest.mark.parametrize("tf32", [True, False])
def test_updates_may_round_and_scores_do_not(tf32, tmp_path, monkeypatch):
    data = DataConfig("shapes", write_shapes(tmp_path, "train", 2, (33, 33)), crop_size=(33, 33), batch_size=2)
    during: dict[str, bool] = {}
    upsampled = TensorFlowBackend.logits

    def logits(self, images, config):
        during["scores"] = switched_on()
        return upsampled(self, images, config)

    monkeypatch.setattr(TensorFlowBackend, "logits", logits)
    observer = Recorder(lambda progress: during.update(updates=switched_on()))
    options = RunConfig(train_logdir=str(tmp_path / "run"), mode="train_and_eval", tf32=tf32, log_steps=1)
    asked = Experiment(TINY, TrainConfig(training_number_of_steps=1), data, options, EvalConfig(eval_split="train"))
    train(asked, observer=observer)
    assert during == {"updates": tf32, "scores": False} and switched_on()


@pytest.mark.heavy
def test_a_run_records_what_it_was_started_with(tmp_path):
    data = DataConfig("shapes", write_shapes(tmp_path, "train", 4, (41, 41)), crop_size=(33, 33), batch_size=2)
    folder = tmp_path / "run"

    def run(precision: str, steps: int) -> list[str]:
        update = TrainConfig(mixed_precision=precision, training_number_of_steps=steps, learning_policy="step")
        told = Recorder()
        train(Experiment(TINY, update, data, RunConfig(train_logdir=str(folder), log_steps=1)), observer=told)
        return told.lines

    assert "Precision: float32 (--mixed_precision=auto: CPUs gain nothing from bfloat16)" in run("auto", 1)
    assert read_run(folder)["mixed_precision"] == "none"
    run("none", 2)
    started = {"event": "started", "devices": "1 x CPU", "precision": "float32", "tf32": False}
    events = RunDirectory(folder).events()
    assert [{name: event[name] for name in started} for event in events] == [started, started]
    assert [event["step"] for event in events] == [0, 1]
    assert [line["step"] for line in RunDirectory(folder).lines()] == [1, 2]
    with pytest.raises(DeepLabError, match=r"mixed_precision: none then, bfloat16 now"):
        run("bfloat16", 3)
    assert len(RunDirectory(folder).events()) == 2 and switched_on()
