"""Rounding kernels to 16 bits so that the sums of each output channel stay."""

import numpy as np
import pytest

from deeplab_tf.inference.tflite.half_precision import balanced_half


@pytest.fixture
def rows():
    return np.random.default_rng(3).normal(size=(40, 300)).astype(np.float32)


def test_each_value_is_the_nearest_or_one_beside_it(rows):
    found, near = balanced_half(rows), rows.astype(np.float16)
    assert found.dtype == np.float16
    beside = [np.nextafter(near, np.float16(limit)) for limit in (-9, 9)]
    assert np.all((found == near) | (found == beside[0]) | (found == beside[1]))


def test_sums_stay(rows):
    exact = rows.astype(np.float64).sum(1)
    nearest = np.abs(rows.astype(np.float16).astype(np.float64).sum(1) - exact)
    balanced = np.abs(balanced_half(rows).astype(np.float64).sum(1) - exact)
    assert balanced.mean() < 0.1 * nearest.mean()
    assert balanced.max() <= 2.0**-10  # the step of the values from 1 to 2


def test_few_values_move(rows):
    moved = np.mean(balanced_half(rows) != rows.astype(np.float16))
    assert 0 < moved < 0.2


def test_what_is_exact_stays():
    exact = np.array([[0.0, 1.0, -2.5, 0.125, 2.0**-14]], np.float32)
    assert np.array_equal(balanced_half(exact), exact.astype(np.float16))


def test_one_value_is_rounded_to_the_nearest():
    values = np.array([[1.0 + 0.4 * 2.0**-10], [1.0 + 0.6 * 2.0**-10], [-1.0 - 0.6 * 2.0**-10]], np.float32)
    assert np.array_equal(balanced_half(values), values.astype(np.float16))
