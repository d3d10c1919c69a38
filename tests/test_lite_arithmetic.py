"""LiteRT's integer arithmetic in float32, against the same in integers."""

import numpy as np
import pytest
import tensorflow as tf

from deeplab_tf.network.lite_arithmetic import LiteAdd, LiteConcatenate, LiteRequantize, LiteRound
from deeplab_tf.weights.lite_pixels import sum_factors

RANGE = {"min": -128 * 0.05, "max": 127 * 0.05, "output_step": 0.05}  # levels from -128 to 127
EVERY = np.arange(-255, 256)


def _calculated(make, inputs, **numbers):
    numbers = {name: tf.constant(value, tf.float32) for name, value in (RANGE | numbers).items()}
    return np.rint(make.calculate(inputs, numbers).numpy() / np.float32(0.05)).astype(int)


@pytest.mark.parametrize("steps", [(0.05, 0.05), (0.0377, 0.0491), (0.3, 0.002), (0.0499, 0.00007)])
def test_sums_are_those_of_integers(steps):
    first, second = (part.reshape(-1) for part in np.meshgrid(EVERY, EVERY))
    factors = sum_factors(steps, RANGE["output_step"])
    parts = [(part * np.float32(step)).astype(np.float32) for part, step in zip((first, second), steps, strict=True)]
    found = _calculated(LiteAdd, parts, input_steps=steps, factors=factors)
    factor, power = factors[:2].astype(np.int64), int(factors[2])
    expected = (first * factor[0] + second * factor[1] + power // 2) // power
    np.testing.assert_array_equal(found, np.clip(expected, -128, 127))


def test_halves_of_sums_of_products_go_to_even_and_those_of_means_up():
    sums = np.asarray([[[[-3, -1, 1, 3, 5, 9999]]]], np.float32)
    product = np.full(6, 0.025, np.float32)
    assert _calculated(LiteRequantize, sums * product, product_step=product).ravel().tolist() == [-2, 0, 0, 2, 2, 127]
    means = np.asarray([-1.5, -0.5, 0.5, 1.5, 0.4998, 9999.0], np.float32) * np.float32(0.05)
    assert _calculated(LiteRound, means).ravel().tolist() == [-1, 0, 1, 2, 0, 127]


def test_parts_that_are_joined_have_the_step_of_all():
    ratio = 100 / 256 / 0.4  # a factor of 0.4 in 8 bits behind the point
    parts = [EVERY.astype(np.float32)[None] * np.float32(step) for step in (0.02, 0.05)]
    found = _calculated(LiteConcatenate, parts, ratios=(ratio, 1.0))
    first = np.floor(EVERY * 100 / 256 + 0.5)
    np.testing.assert_array_equal(found[0], np.concatenate([first, np.clip(EVERY, -128, 127)]))
