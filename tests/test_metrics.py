"""Scores against cases computed by hand, and against pixels counted one by one."""

import fractions
import json

import numpy as np
import PIL.Image
import pytest
from conftest import GOLDENS

from deeplab_tf.ops.metrics import (
    CITYSCAPES_CATEGORIES,
    Counts,
    bootstrap_intervals,
    calibration_counts,
    class_scores,
    confusion_matrix,
    counts_of,
    expected_calibration_error,
    iou_per_class,
    mean_iou,
    merged_classes,
    overall_scores,
    pixel_accuracy,
)

nan = float("nan")


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


# Class 2 is never predicted, 3 never labelled, 4 neither.
BY_HAND = np.array([[6, 2, 0, 0, 0], [1, 3, 0, 1, 0], [0, 2, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]])


def test_every_score_by_hand():
    found = class_scores(counts_of(BY_HAND))
    expected = {
        "iou": [6 / 9, 3 / 9, 0, 0, nan],
        "dice": [12 / 15, 6 / 12, 0, 0, nan],
        "accuracy": [6 / 8, 3 / 5, 0, nan, nan],
        "precision": [6 / 7, 3 / 7, nan, 0, nan],
    }
    assert list(found) == list(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-15, err_msg=name)
    chance = (8 * 7 + 5 * 7 + 2 * 0 + 0 * 1) / 15**2
    expected = {
        "miou": 1 / 4,
        "pixel_accuracy": 9 / 15,
        "mean_accuracy": (6 / 8 + 3 / 5 + 0) / 3,
        "frequency_weighted_iou": 8 / 15 * 6 / 9 + 5 / 15 * 3 / 9,
        "mean_dice": (12 / 15 + 6 / 12) / 4,
        "kappa": (9 / 15 - chance) / (1 - chance),
    }
    assert overall_scores(counts_of(BY_HAND)) == pytest.approx(expected, rel=1e-15)


def test_conventions_by_hand():
    assert mean_iou(BY_HAND, "release") == mean_iou(BY_HAND, "cityscapes") == pytest.approx(1 / 4, abs=1e-15)
    # The devkit divides 0 by 0 for class 4; without it, nothing differs.
    assert np.isnan(mean_iou(BY_HAND, "voc")) and mean_iou(BY_HAND[:4, :4], "voc") == pytest.approx(1 / 4, abs=1e-15)
    # ADE20K: without class 0, the absent class counts as 0.
    assert mean_iou(BY_HAND, "ade") == pytest.approx((3 / 9) / 4, abs=1e-15)


def test_categories_of_cityscapes_by_hand():
    assert sorted(sum(CITYSCAPES_CATEGORIES.values(), ())) == list(range(19))
    matrix = np.zeros((19, 19), np.int64)
    matrix[0, 1], matrix[1, 1], matrix[11, 12], matrix[13, 10] = 3, 2, 4, 5  # sidewalk, rider, and a car taken for sky
    merged = merged_classes(matrix, [*CITYSCAPES_CATEGORIES.values()])
    np.testing.assert_array_equal(iou_per_class(merged), [1, nan, nan, nan, 0, 1, 0])
    assert merged.dtype == np.int64 and merged.sum() == 14 and mean_iou(merged) == 0.5


def random_maps(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels of 0, 1, 2 and 255, predictions of 0, 1 and 3: 2 is never predicted, 3 never labelled, 4 absent."""
    random = np.random.default_rng(seed)
    labels = random.choice([0, 1, 2, 255], (9, 11), p=[0.5, 0.2, 0.2, 0.1])
    return labels, np.where(random.random((9, 11)) < 0.5, np.minimum(labels, 1), random.choice([0, 1, 3], (9, 11)))


def brute_force(labels: np.ndarray, predictions: np.ndarray, classes: int) -> tuple[dict, dict]:
    """Scores of each class and of all, from sets of pixels and exact fractions."""
    seen = [place for place in np.ndindex(labels.shape) if labels[place] != 255]
    true = [{p for p in seen if labels[p] == c} for c in range(classes)]
    found = [{p for p in seen if predictions[p] == c} for c in range(classes)]

    def share(part, whole):
        return fractions.Fraction(part, whole) if whole else None

    def mean(values):
        kept = [v for v in values if v is not None]
        return sum(kept, fractions.Fraction(0)) / len(kept)

    pairs = list(zip(true, found, strict=True))
    of_class = {
        "iou": [share(len(t & f), len(t | f)) for t, f in pairs],
        "dice": [share(2 * len(t & f), len(t) + len(f)) for t, f in pairs],
        "accuracy": [share(len(t & f), len(t)) for t, f in pairs],
        "precision": [share(len(t & f), len(f)) for t, f in pairs],
    }
    right = share(sum(len(t & f) for t, f in pairs), len(seen))
    chance = sum(share(len(t), len(seen)) * share(len(f), len(seen)) for t, f in pairs)
    overall = {
        "miou": mean(of_class["iou"]),
        "pixel_accuracy": right,
        "mean_accuracy": mean(of_class["accuracy"]),
        "frequency_weighted_iou": sum(
            share(len(t), len(seen)) * iou for (t, _), iou in zip(pairs, of_class["iou"], strict=True) if t
        ),
        "mean_dice": mean(of_class["dice"]),
        "kappa": (right - chance) / (1 - chance),
    }
    return of_class, overall


@pytest.mark.parametrize("seed", range(4))
def test_against_pixels_counted_one_by_one(seed):
    labels, predictions = random_maps(seed)
    counts = counts_of(confusion_matrix(labels, predictions, 5))
    of_class, overall = brute_force(labels, predictions, 5)
    for name, values in class_scores(counts).items():
        expected = [nan if value is None else float(value) for value in of_class[name]]
        np.testing.assert_allclose(values, expected, rtol=0, atol=1e-12, err_msg=name)
    assert overall_scores(counts) == pytest.approx({k: float(v) for k, v in overall.items()}, abs=1e-12)


@pytest.mark.parametrize("case", ["os16_single", "os8_ms_flip"])
def test_recorded_figures_of_recorded_predictions(shared, case):
    golden, total = json.loads((GOLDENS / "real" / "metrics.json").read_text())[case], 0
    for path in sorted((shared / "real" / "voc_mini" / "SegmentationClass").glob("*.png")):
        found = np.array(PIL.Image.open(GOLDENS / "real" / f"{path.stem}_{case}.png"))
        total = total + confusion_matrix(np.array(PIL.Image.open(path)), found, 21)
    assert mean_iou(total) == pytest.approx(golden["miou_over_classes_in_union"], abs=1e-6)
    assert pixel_accuracy(total) == pytest.approx(golden["pixel_accuracy"], abs=1e-6)
    for name, value in golden["iou"].items():
        assert iou_per_class(total)[int(name)] == pytest.approx(value, abs=1e-6)


def test_shards_add_up():
    random = np.random.default_rng(0)
    labels, predictions = random.integers(0, 4, (2, 6, 8, 8))
    parts = sum(confusion_matrix(a, b, 4) for a, b in zip(labels, predictions, strict=True))
    assert np.array_equal(parts, confusion_matrix(labels, predictions, 4))


@pytest.mark.parametrize("ignore", [0, 2, 255, 70000, -1])
@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.int64])
def test_any_ignore_label_and_kind_of_integer(ignore, kind):
    if not np.iinfo(kind).min <= ignore <= np.iinfo(kind).max:
        return
    labels, predictions = (np.random.default_rng(1).integers(0, 4, (2, 6, 7))).astype(kind)
    labels[2] = ignore
    predictions[2, 3] = 99  # whatever is said of it
    expected = np.zeros((4, 4), int)
    for truth, found in zip(labels.ravel().tolist(), predictions.ravel().tolist(), strict=True):
        if truth != ignore:
            expected[truth, found] += 1
    assert np.array_equal(confusion_matrix(labels, predictions, 4, ignore_label=ignore), expected)


def test_nothing_counted_is_nan():
    matrix = confusion_matrix(np.full((2, 2), 255), np.zeros((2, 2), int), 3)
    assert np.isnan(mean_iou(matrix)) and np.isnan(pixel_accuracy(matrix))
    assert all(np.isnan(value) for value in overall_scores(counts_of(matrix)).values())


def test_what_is_out_of_range_is_an_error():
    with pytest.raises(ValueError, match="label 7"):
        confusion_matrix(np.array([7]), np.array([0]), 3)
    with pytest.raises(ValueError, match="label 0..300"):
        confusion_matrix(np.array([0, 300, 255]), np.array([0, 0, 0]), 3)
    with pytest.raises(ValueError, match="prediction -1"):
        confusion_matrix(np.array([0]), np.array([-1]), 3)
    with pytest.raises(ValueError, match="shape"):
        confusion_matrix(np.zeros((2, 2), int), np.zeros(4, int), 3)


# ---- intervals and calibration


def test_intervals_are_those_of_the_binomial():
    """Of images with one pixel each, the accuracy's interval is known."""
    right, number = 300, 400
    hits = (np.arange(number) < right).astype(np.int64)[:, None]
    counts = Counts(hits, np.ones((number, 1), np.int64), hits)
    low, high = bootstrap_intervals(counts, resamples=4000)["pixel_accuracy"]
    spread = 1.96 * (0.75 * 0.25 / number) ** 0.5
    assert (low, high) == pytest.approx((0.75 - spread, 0.75 + spread), abs=0.005)
    assert bootstrap_intervals(counts, resamples=50) == bootstrap_intervals(counts, resamples=50)


def test_intervals_of_equal_images_are_points():
    one = counts_of(BY_HAND)
    for images in (2, 5):
        counts = Counts(*(np.stack([part] * images) for part in one))
        for name, (low, high) in bootstrap_intervals(counts, resamples=20).items():
            assert low == high == pytest.approx(overall_scores(one)[name], abs=1e-15)


def test_calibration_by_hand():
    confidence, right = np.array([[0.1, 0.95], [1.0, 0.9]]), np.array([[True, False], [True, True]])
    counts = calibration_counts(confidence, right, bins=10)
    assert counts[0].tolist() == [0, 1, 0, 0, 0, 0, 0, 0, 0, 3] and counts[2].tolist() == [0, 1] + [0] * 7 + [2]
    assert counts[1, 9] == pytest.approx(2.85, abs=1e-15)
    assert expected_calibration_error(counts) == pytest.approx((0.9 + 0.85) / 4, abs=1e-15)
    assert np.isnan(expected_calibration_error(np.zeros((3, 10))))
    with_nan = calibration_counts(np.append(confidence, nan), np.append(right, True), bins=10)
    np.testing.assert_array_equal(with_nan, counts)
