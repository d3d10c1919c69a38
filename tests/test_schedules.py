"""Learning rates: the original's figures, and the policies by hand."""

import json

import numpy as np
import pytest
import tensorflow as tf
from conftest import GOLDENS

from deeplab_tf.config import TrainConfig
from deeplab_tf.training.schedules import learning_rate

_GOLDEN = json.loads((GOLDENS / "misc" / "learning_rates.json").read_text())


def _name(case: dict) -> str:
    return f"{case['learning_policy']}-{case.get('slow_start_burnin_type', 'none')}-{case['slow_start_step']}"


@pytest.mark.parametrize("case", _GOLDEN, ids=_name)
def test_golden_rates(case):
    config = TrainConfig(**{name: value for name, value in case.items() if name != "values"})
    for step, rate in case["values"]:
        found = learning_rate(config, step)
        assert found.dtype == tf.float32
        assert float(found) == pytest.approx(rate, rel=1e-6, abs=0), step


def test_steps_may_be_tensors_and_compiled():
    config = TrainConfig(base_learning_rate=0.007, slow_start_step=100, slow_start_burnin_type="linear")
    steps = tf.constant([0, 1, 99, 100, 101, 29_999, 31_000], tf.int64)
    one_by_one = [float(learning_rate(config, int(step))) for step in steps]
    np.testing.assert_array_equal(learning_rate(config, steps), np.float32(one_by_one))
    np.testing.assert_array_equal(learning_rate(config, tf.cast(steps, tf.int32)), np.float32(one_by_one))
    compiled = tf.function(lambda step: learning_rate(config, step), jit_compile=True)
    # XLA multiplies by reciprocals, which shows where 1 - progress is a difference of nearly equal numbers.
    np.testing.assert_allclose(compiled(steps), one_by_one, rtol=5e-4)


def test_decay_steps_are_not_shortened_by_the_slow_start():
    config = TrainConfig(slow_start_step=100, decay_steps=1000, learning_power=1.0, base_learning_rate=1.0)
    assert float(learning_rate(config, 600)) == pytest.approx(0.5)
    assert float(learning_rate(config, 1100)) == 0.0


def test_cosine():
    options = {"base_learning_rate": 0.1, "end_learning_rate": 0.02, "training_number_of_steps": 1010}
    config = TrainConfig(learning_policy="cosine", slow_start_step=10, **options)
    found = [float(learning_rate(config, step)) for step in (9, 10, 260, 510, 1010, 2000)]
    quarter = 0.02 + 0.08 * (1 + np.sqrt(0.5)) / 2
    assert found == pytest.approx([1e-4, 0.1, quarter, 0.06, 0.02, 0.02], rel=1e-5)
