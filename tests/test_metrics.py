"""Scores against cases computed by hand."""

import numpy as np
import pytest

from deeplab_tf.metrics import confusion_matrix, iou_per_class, mean_iou, pixel_accuracy


def test_by_hand():
    labels = np.array([[0, 0, 1], [1, 2, 255]])
    predictions = np.array([[0, 1, 1], [1, 0, 3]])
    matrix = confusion_matrix(labels, predictions, 5)
    assert matrix.dtype == np.int64 and matrix.sum() == 5
    assert matrix[0, 0] == 1 and matrix[0, 1] == 1 and matrix[1, 1] == 2 and matrix[2, 0] == 1
    # Class 3 is predicted only where the label is ignored, class 4 nowhere: neither has a union.
    assert np.allclose(iou_per_class(matrix), [1 / 3, 2 / 3, 0, np.nan, np.nan], equal_nan=True)
    assert mean_iou(matrix) == pytest.approx(1 / 3, abs=1e-15)
    assert pixel_accuracy(matrix) == pytest.approx(3 / 5, abs=1e-15)


def test_shards_add_up():
    random = np.random.default_rng(0)
    labels, predictions = random.integers(0, 4, (2, 6, 8, 8))
    parts = sum(confusion_matrix(a, b, 4) for a, b in zip(labels, predictions, strict=True))
    assert np.array_equal(parts, confusion_matrix(labels, predictions, 4))


def test_nothing_counted_is_nan():
    matrix = confusion_matrix(np.full((2, 2), 255), np.zeros((2, 2), int), 3)
    assert np.isnan(mean_iou(matrix)) and np.isnan(pixel_accuracy(matrix))


def test_what_is_out_of_range_is_an_error():
    with pytest.raises(ValueError, match="label 7"):
        confusion_matrix(np.array([7]), np.array([0]), 3)
    with pytest.raises(ValueError, match="prediction -1"):
        confusion_matrix(np.array([0]), np.array([-1]), 3)
    with pytest.raises(ValueError, match="shape"):
        confusion_matrix(np.zeros((2, 2), int), np.zeros(4, int), 3)
