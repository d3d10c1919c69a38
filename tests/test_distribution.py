"""Devices that share a batch: equal to one device, whatever carries them; TF_CONFIG and devices that make no sense."""

import json
import os
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from commands import finished
from record_files import write_shapes

from deeplab_tf.config import RunConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.tools import train
from deeplab_tf.training.distribution import Devices, make_devices
from deeplab_tf.weights.run_directory import RunDirectory

STEPS = 5


@pytest.fixture(scope="module")
def dataset_dir(tmp_path_factory) -> str:
    return write_shapes(tmp_path_factory.mktemp("records"), "train", 24, (65, 65))


def arguments(dataset_dir, folder, *more: str) -> list[str]:
    """Returns the flags of a run of the tiny network whose updates do not depend on how the batch is divided.

    Scales from 1 leave no padding: behind batch norm all its pixels are one number, and when rounding moves that over
    the bend of an activation, thousands of pixels go with it. Image pooling would have a batch norm over eight
    numbers, which makes 1.5e-4 of the same rounding.
    """
    flags = [f"--train_logdir={folder}", f"--dataset_dir={dataset_dir}", "--dataset=shapes", "--model_variant=tiny"]
    flags += ["--train_crop_size=65,65", "--train_batch_size=8", "--aspp_convs_filters=16", "--sync_batch_norm"]
    flags += ["--nodropout", "--min_scale_factor=1", "--noadd_image_level_feature"]
    flags += [f"--training_number_of_steps={STEPS}", "--base_learning_rate=0.01", "--log_steps=1"]
    return [*flags, *more]


def command(dataset_dir, folder, *more: str) -> list[str]:
    return [sys.executable, "-m", "deeplab_tf.tools.cli", "train", *arguments(dataset_dir, folder, *more)]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", **more}


def weights(folder) -> dict[str, np.ndarray]:
    reader = tf.train.load_checkpoint(str(RunDirectory(folder).prefix(STEPS)))
    names = [name for name in reader.get_variable_to_shape_map() if not name.endswith("Momentum")]
    return {name: reader.get_tensor(name) for name in names}


def largest_difference(first, second) -> float:
    assert set(first) == set(second)
    return max(float(np.max(np.abs(first[name] - second[name]))) for name in first)


@pytest.fixture(scope="module")
def alone(dataset_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone") / "run"
    assert finished(train, *arguments(dataset_dir, folder)) == 0
    return weights(folder)


def clones(dataset_dir, folder, steps: int) -> RunDirectory:
    more = ["--num_clones=2", "--clone_on_cpu", f"--steps_per_loop={steps}", "--log_steps=4"]
    subprocess.run(command(dataset_dir, folder, *more), check=True, env=environment(), capture_output=True)
    return RunDirectory(folder)


@pytest.fixture(scope="module")
def single(dataset_dir, tmp_path_factory) -> RunDirectory:
    """A run of two clones in single steps."""
    return clones(dataset_dir, tmp_path_factory.mktemp("single") / "run", 1)


@pytest.mark.heavy
def test_two_clones_are_one_device(single, alone):
    assert largest_difference(alone, weights(single.path)) < 1e-4


@pytest.mark.heavy
def test_clones_in_a_loop_are_clones_in_single_steps(dataset_dir, tmp_path, single):
    loops = clones(dataset_dir, tmp_path / "run", 10)
    first, second = (tf.train.load_checkpoint(str(run.prefix(STEPS))) for run in (single, loops))
    names = sorted(first.get_variable_to_shape_map())
    assert any(name.endswith("Momentum") for name in names)
    assert [n for n in names if first.get_tensor(n).tobytes() != second.get_tensor(n).tobytes()] == []
    assert [line["total_loss"] for line in single.lines()] == [line["total_loss"] for line in loops.lines()]


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [found.getsockname()[1] for found in sockets]
    for found in sockets:
        found.close()
    return ports


def start_workers(command: list[str], count: int = 2) -> list[subprocess.Popen]:
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(count)]}
    tasks = [json.dumps({"cluster": cluster, "task": {"type": "worker", "index": i}}) for i in range(count)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return [subprocess.Popen(command, env=environment(TF_CONFIG=task), **pipes) for task in tasks]


@pytest.mark.heavy
def test_two_workers_are_one_device(dataset_dir, tmp_path, alone):
    workers = start_workers(command(dataset_dir, tmp_path / "run", "--strategy=multi_worker"))
    said = [worker.communicate(timeout=240) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], said
    assert largest_difference(alone, weights(tmp_path / "run")) < 1e-4
    log = [line["step"] for line in RunDirectory(tmp_path / "run").lines()]
    assert log == list(range(1, STEPS + 1)), "only the chief writes"


@pytest.mark.heavy
def test_workers_stop_together_and_go_on(dataset_dir, tmp_path, alone):
    """SIGTERM reaches one of them only; all save and end after the same step, and go on from there."""
    run = RunDirectory(tmp_path / "run")
    workers = start_workers(command(dataset_dir, run.path, "--strategy=auto"))
    while not run.lines() and all(worker.poll() is None for worker in workers):
        time.sleep(0.1)
    workers[1].terminate()
    said = [worker.communicate(timeout=240) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], said
    assert len(run.steps()) == 2 and run.steps()[-1] < STEPS
    workers = start_workers(command(dataset_dir, run.path, "--strategy=auto"))
    said = [worker.communicate(timeout=240) for worker in workers]
    assert "Going on from" in said[0][0] and "Going on from" not in said[1][0]
    assert largest_difference(alone, weights(run.path)) < 1e-4


def tf_config(index: int = 0, **cluster: list[str]) -> str:
    return json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})


@pytest.mark.parametrize(
    ("variable", "options", "message"),
    [
        ("{", {}, "TF_CONFIG='{': expected"),
        ('{"cluster": {}}', {}, "TF_CONFIG=.*expected"),
        (
            tf_config(ps=["a:1"], worker=["b:1"]),
            {},
            "'ps'.*chief and worker only",
        ),
        (tf_config(3, worker=["a:1"]), {}, "task worker 3 is not in its cluster"),
        (
            tf_config(worker=["a:1", "b:1"]),
            {"strategy": "mirrored"},
            "several workers",
        ),
        ("", {"strategy": "multi_worker"}, "names no other workers.*--strategy=one_device"),
        ("", {"num_clones": 0}, "num_clones=0: expected a number of at least 1"),
        ("", {"strategy": "tpu", "tpu": ""}, "--tpu=: .*expected a TPU's name"),
    ],
)
def test_devices_that_make_no_sense(monkeypatch, variable, options, message):
    monkeypatch.setenv("TF_CONFIG", variable)
    with pytest.raises(DeepLabError, match=message):
        make_devices(RunConfig(**options))


def test_one_device_needs_no_strategy(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", tf_config(worker=["a:1"]))
    devices = make_devices(RunConfig())
    assert devices.strategy is None and devices.is_chief and devices.replicas == 1
    assert [Devices().any(flag) for flag in (True, False)] == [True, False]
    Devices().require_equal(3, "the step")
