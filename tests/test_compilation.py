"""Whether XLA compiles a step, by the option and the devices, of which none but a CPU is needed."""

import types

import pytest

from deeplab_tf.config import TrainConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.training.compilation import compiled_by_xla, on_tpu


def model_on(kind: str):
    value = types.SimpleNamespace(device=f"/job:localhost/replica:0/task:0/device:{kind}:0")
    return types.SimpleNamespace(weights=[types.SimpleNamespace(value=value)])


def strategy_on(kind: str, count: int):
    devices = tuple(f"/job:worker/replica:0/task:0/device:{kind}:{i}" for i in range(count))
    return types.SimpleNamespace(extended=types.SimpleNamespace(worker_devices=devices), num_replicas_in_sync=count)


@pytest.mark.parametrize(
    ("kind", "count", "asked", "expected"),
    [
        ("CPU", 0, "auto", False),
        ("CPU", 0, "true", True),
        ("GPU", 0, "auto", True),
        ("GPU", 0, "false", False),
        ("GPU", 1, "auto", True),
        ("GPU", 8, "auto", False),
        ("GPU", 8, "false", False),
        ("CPU", 2, "auto", False),
        ("TPU", 8, "auto", True),
        ("TPU", 1, "auto", True),
        ("TPU", 8, "true", True),
    ],
)
def test_what_compiles(kind, count, asked, expected):
    """count: replicas of a strategy; 0: there is none."""
    strategy = strategy_on(kind, count) if count else None
    assert compiled_by_xla(TrainConfig(jit_compile=asked), model_on(kind), strategy) is expected
    assert on_tpu(model_on(kind), strategy) is (kind == "TPU")


@pytest.mark.parametrize(
    ("kind", "asked", "message"),
    [
        ("TPU", "false", "jit_compile=false: a TPU"),
        ("GPU", "true", "expected one device"),
        ("CPU", "true", "one device"),
    ],
)
def test_what_cannot_be(kind, asked, message):
    with pytest.raises(DeepLabError, match=message):
        compiled_by_xla(TrainConfig(jit_compile=asked), model_on(kind), strategy_on(kind, 2))
