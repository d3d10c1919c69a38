"""What is scored near boundaries, against hand-drawn maps and against distances measured pair by pair."""

import math

import numpy as np
import pytest
from scipy import ndimage

from deeplab_tf.ops.boundary import boundary_counts, contour_f_scores, contours, trimap_matrices
from deeplab_tf.ops.metrics import class_scores, confusion_matrix


def maps(seed: int, shape=(13, 17)) -> tuple[np.ndarray, np.ndarray]:
    """Blobs of 0, 1, 2 with some void; predictions of 0, 1, 3 where they are wrong."""
    random = np.random.default_rng(seed)
    label = ndimage.zoom(random.integers(0, 3, (4, 5)), (shape[0] / 4, shape[1] / 5), order=0)
    wrong = ndimage.zoom(random.random((7, 9)) < 0.4, (shape[0] / 7, shape[1] / 9), order=0)
    prediction = np.where(wrong, random.choice([0, 1, 3], shape), label)
    label[random.random(shape) < 0.05] = 255
    return label, prediction


def places(mask: np.ndarray) -> list[tuple[int, int]]:
    return [tuple(map(int, place)) for place in np.argwhere(mask)]


def chessboard(a, b) -> int:
    return max(abs(a[0] - b[0]), abs(a[1] - b[1]))


def slow_contours(labels: np.ndarray, label_of: int) -> list[tuple[int, int]]:
    found = []
    for y, x in places(labels == label_of):
        beside = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        inside = [p for p in beside if 0 <= p[0] < labels.shape[0] and 0 <= p[1] < labels.shape[1]]
        if any(labels[p] != label_of for p in inside):
            found.append((y, x))
    return found


def test_contours_by_hand():
    labels = np.array([[0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1], [0, 255, 1, 1]])
    expected = [[0, 0, 1, 1], [0, 1, 1, 1], [0, 1, 1, 0], [1, 0, 1, 0]]
    np.testing.assert_array_equal(contours(labels), np.array(expected, bool))


@pytest.mark.parametrize("around_void", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_bands_against_distances_measured_one_by_one(seed, around_void):
    label, prediction = maps(seed)
    edges = places(label == 255)
    if not around_void:
        edges = [place for c in range(3) for place in slow_contours(label, c)]
    found = trimap_matrices(label, prediction, 5, widths=(1, 2, 5), around_void=around_void)
    for width, matrix in zip((1, 2, 5), found, strict=True):
        expected = np.zeros((5, 5), np.int64)
        for place in places(label != 255):
            distance = min(chessboard(place, edge) for edge in edges) + (not around_void)
            if distance <= width:
                expected[label[place], prediction[place]] += 1
        assert matrix.dtype == np.int64
        np.testing.assert_array_equal(matrix, expected)


def test_bands_as_wide_as_the_picture_are_all_of_it():
    label, prediction = maps(0)
    last = trimap_matrices(label, prediction, 5, widths=(3, 40))[-1]
    np.testing.assert_array_equal(last, confusion_matrix(label, prediction, 5))


def test_without_void_there_is_no_band():
    label = np.zeros((6, 6), int)
    assert not trimap_matrices(label, label, 2).any() and not trimap_matrices(label, label, 2, around_void=False).any()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("ratio", [0.02, 0.1, 0.2])
def test_boundary_iou_against_erosions_of_each_class(seed, ratio):
    label, prediction = maps(seed)
    width = max(1, round(ratio * math.hypot(*label.shape)))
    masked = np.where(label == 255, 255, prediction)

    def region(mask):
        eroded = ndimage.binary_erosion(np.pad(mask, 1), np.ones((3, 3)), iterations=width)[1:-1, 1:-1]
        return mask & ~eroded

    iou = class_scores(boundary_counts(label, prediction, 5, ratio=ratio))["iou"]
    for c in range(5):
        true, found = region(label == c), region(masked == c)
        union = (true | found).sum()
        expected = (true & found).sum() / union if union else math.nan
        assert iou[c] == pytest.approx(expected, abs=1e-12, nan_ok=True), c


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("ratio", [0.0075, 0.05, 0.1])
def test_contour_f_score_against_distances_measured_one_by_one(seed, ratio):
    label, prediction = maps(seed)
    masked, reach = np.where(label == 255, 255, prediction), ratio * math.hypot(*label.shape)

    def near(points, others):
        return sum(any(math.dist(p, q) <= reach for q in others) for p in points) / len(points) if points else 0.0

    found = contour_f_scores(label, prediction, 5, ratio=ratio)
    for c in range(5):
        true, guessed = slow_contours(label, c), slow_contours(masked, c)
        recall, precision = near(true, guessed), near(guessed, true)
        f = 2 * recall * precision / (recall + precision) if recall + precision else 0.0
        assert found[c] == pytest.approx(f if true or guessed else math.nan, abs=1e-12, nan_ok=True), c


def test_a_perfect_prediction_is_perfect_whatever_it_says_of_void():
    label, _ = maps(1)
    prediction = np.where(label == 255, 1, label)
    iou, f = class_scores(boundary_counts(label, prediction, 3))["iou"], contour_f_scores(label, prediction, 3)
    assert np.all(iou == 1) and np.all(f == 1)


def test_a_shifted_square_by_hand():
    """2 pixels too far right: of rings 2 wide (144 pixels each) the two shared strips are 18 x 2."""
    label, prediction = np.zeros((2, 60, 60), int)
    label[20:40, 20:40], prediction[20:40, 22:42] = 1, 1
    assert class_scores(boundary_counts(label, prediction, 2))["iou"][1] == pytest.approx(72 / (2 * 144 - 72))
    assert contour_f_scores(label, prediction, 2, ratio=0.03)[1] == 1  # 2.5 pixels reach
    assert contour_f_scores(label, prediction, 2, ratio=0.01)[1] < 0.75


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_the_score_of_a_class_does_not_depend_on_its_number(dtype):
    """Maps are often 8-bit, and ADE20K has 151 classes: what is computed from a class's number must not overflow."""
    label, prediction = maps(0)
    moved = [np.where(found == 255, 255, found + 100).astype(dtype) for found in (label, prediction)]
    expected = contour_f_scores(label, prediction, 5)
    np.testing.assert_array_equal(contour_f_scores(*moved, 105)[100:], expected)
