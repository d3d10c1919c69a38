"""The CRF's options: what the commands hand to `densecrf`, and what they refuse."""

import numpy as np
import pytest

from deeplab_tf.config import PredictConfig
from deeplab_tf.config.crf import CrfConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.ops.crf import densecrf

DEFAULTS = {"iterations": 10, "w1": 4.0, "w2": 3.0, "sigma_alpha": 67.0, "sigma_beta": 3.0, "sigma_gamma": 1.0}


def test_options_become_arguments():
    assert CrfConfig().crf_parameters is None
    assert CrfConfig(crf=True).crf_parameters == DEFAULTS
    given = PredictConfig(crf=True, crf_w1=5, crf_sigma_beta=10.0, crf_iterations=3).crf_parameters
    assert given == {**DEFAULTS, "iterations": 3, "w1": 5, "sigma_beta": 10.0}


def test_the_function_has_the_same_defaults():
    draws = np.random.default_rng(0)
    image = draws.integers(0, 256, (9, 12, 3), np.uint8)
    probabilities = draws.dirichlet(np.ones(3), (9, 12))
    np.testing.assert_array_equal(densecrf(image, probabilities), densecrf(image, probabilities, **DEFAULTS))
    for name, value in DEFAULTS.items():
        other = densecrf(image, probabilities, **{name: value / 2 if isinstance(value, float) else 1})
        assert not np.array_equal(other, densecrf(image, probabilities)), name


def test_options_without_their_crf_are_refused():
    with pytest.raises(DeepLabError, match="crf_w2=1.0: has no effect without crf"):
        PredictConfig(crf_w2=1.0)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("crf_iterations", -1, "of at least 0"),
        ("crf_w1", -0.5, "of at least 0"),
        ("crf_w2", float("inf"), "of at least 0"),
        ("crf_sigma_alpha", 0.0, "above 0"),
        ("crf_sigma_beta", float("nan"), "above 0"),
        ("crf_sigma_gamma", -1.0, "above 0"),
    ],
)
def test_values_out_of_range_are_refused(name, value, expected):
    with pytest.raises(DeepLabError, match=f"{name}={value}: expected a number {expected}"):
        CrfConfig(crf=True, **{name: value})
