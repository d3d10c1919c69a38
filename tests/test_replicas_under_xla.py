"""Several devices whose steps XLA compiles: equal to one device, and to the same devices without XLA."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from test_train_step import _STILL, largest_difference, run, small_batch, small_model

from deeplab_tf.config import TrainConfig

# variant, options, steps; those with statistics of the batch, which are of a device's own share, are compared with the
# same devices without XLA.
CASES = {
    "tiny": ("tiny", dataclasses.replace(_STILL, label_weights=(0.5, 1.0, 2.0)), 5),
    "in parts": (
        "tiny",
        dataclasses.replace(
            _STILL, optimizer="adam", adam_learning_rate=1e-5, gradient_accumulation_steps=2, ema_decay=0.9
        ),
        5,
    ),
    "frozen at first": ("tiny", dataclasses.replace(_STILL, freeze="backbone", freeze_steps=2), 4),
    "float16": ("tiny", dataclasses.replace(_STILL, mixed_precision="float16"), 5),
    "statistics": ("tiny", TrainConfig(dropout=False, base_learning_rate=1e-4, gradient_accumulation_steps=2), 2),
    "mobilenet_v2": ("mobilenet_v2", _STILL, 3),
}
_OWN_SHARE = ("statistics",)

_REPLICAS = """
import dataclasses, sys
sys.path.insert(0, "tests")
import numpy as np, tensorflow as tf
import conftest
devices = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], devices)
from test_replicas_under_xla import CASES
from test_train_step import small_batch, small_model
from deeplab_tf.training.step import make_train_step
from deeplab_tf.weights.tf1 import variable_map
strategy, arrays = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]), {}
path, jit_compile, *cases = sys.argv[1:]
for case in cases:
    variant, config, steps = CASES[case]
    with strategy.scope():
        model = small_model(variant)
        step = make_train_step(model, dataclasses.replace(config, jit_compile=jit_compile), strategy=strategy)
    assert step.compiled_by_xla is (jit_compile == "true")
    halves = [np.split(part, 2) for part in small_batch(4)]
    batch = [
        strategy.experimental_distribute_values_from_function(
            lambda context, half=half: tf.constant(half[context.replica_id_in_sync_group]))
        for half in halves
    ]
    variables = {name: variable.value for name, variable in variable_map(model).items()}
    if "loss_scale" in step.state:  # a step that overflows is skipped on all of them, and halves the scale once
        step.state["loss_scale"].assign(1e30)
        before = {name: variable.numpy() for name, variable in variables.items()}
        step(*batch)
        assert step.state["loss_scale"].numpy() == np.float32(1e30) / 2
        assert all((before[name] == variable.numpy()).all() for name, variable in variables.items())
        step.state["loss_scale"].assign(2.0**15)
        step.state["global_step"].assign(0)
    for _ in range(steps):
        losses = step(*batch)
    # Of what is trained, and its state, both devices hold the same; each has the moving statistics of its own share.
    alike = {name for name in variables if "moving" not in name} | set(step.state)
    for name, variable in {**variables, **step.state}.items():
        first, second = (part.numpy() for part in strategy.experimental_local_results(variable))
        assert name not in alike or (first == second).all(), name
        arrays[f"{case}/0/{name}"], arrays[f"{case}/1/{name}"] = first, second
    arrays[f"{case}/total_loss"] = losses["total_loss"].numpy()
np.savez(path, **arrays)
"""


def replicas(path, jit_compile: str, *cases: str) -> dict[str, np.ndarray]:
    command = [sys.executable, "-c", _REPLICAS, str(path), jit_compile, *cases]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    with np.load(path) as arrays:
        return dict(arrays)


def assert_as_one_device(found: dict[str, np.ndarray], case: str):
    variant, config, steps = CASES[case]
    half = config.mixed_precision == "float16"  # which has 11 bits
    total, expected, step = run(config, steps, model=small_model(variant), batch=small_batch(4))
    assert float(found[f"{case}/total_loss"]) == pytest.approx(total[-1], rel=1e-3 if half else 1e-5)
    if not half:  # of which the momenta are sums of gradients as large as the loss
        expected |= {name: variable.numpy() for name, variable in step.state.items()}
    of_case = {name: found[f"{case}/0/{name}"] for name in expected}
    assert largest_difference(expected, of_case) < (1e-3 if half else 1e-4)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory) -> dict[str, np.ndarray]:
    """All cases under XLA, in one process."""
    return replicas(tmp_path_factory.mktemp("compiled") / "found.npz", "true", *CASES)


@pytest.mark.heavy
@pytest.mark.parametrize("case", [case for case in CASES if case not in _OWN_SHARE])
def test_they_are_one_device(compiled, case):
    assert_as_one_device(compiled, case)


@pytest.mark.heavy
def test_statistics_are_as_without_xla(tmp_path, compiled):
    expected = replicas(tmp_path / "expected.npz", "false", *_OWN_SHARE)
    found = {name: value for name, value in compiled.items() if name.partition("/")[0] in _OWN_SHARE}
    name = next(name for name in expected if name.endswith("moving_mean"))
    assert (expected[name] != expected[name.replace("/0/", "/1/")]).any(), "each device has its own"
    assert largest_difference(expected, found) < 1e-4
