"""Scores of several images: the same however they are put together, and each by itself as measured alone."""

import math

import numpy as np
import pytest

from deeplab_tf.evaluation.report.tally import Tally, confused_pairs
from deeplab_tf.ops.boundary import boundary_counts, contour_f_scores, trimap_matrices
from deeplab_tf.ops.metrics import bootstrap_intervals, class_scores, confusion_matrix, counts_of, mean_iou


def examples(count: int) -> list[tuple[np.ndarray, np.ndarray, str]]:
    random, found = np.random.default_rng(5), []
    for index in range(count):
        shape = (20 + index, 31)
        label = np.kron(random.integers(0, 4, (5, 7)), np.ones((8, 5), int))[: shape[0], : shape[1]]
        prediction = np.where(random.random(shape) < 0.2, random.integers(0, 5, shape), label)
        label[:, :2] = 255
        found.append((label, prediction, f"image_{index}"))
    return found


def tallied(parts, **options) -> Tally:
    tally = Tally(6, **options)
    for part in parts:
        tally.add(*part)
    return tally


def flat(scores: dict) -> dict:
    found = {}
    for name, value in scores.items():
        found |= {f"{name}.{key}": v for key, v in flat(value).items()} if isinstance(value, dict) else {name: value}
    return found


@pytest.mark.parametrize("cut", [1, 3])
def test_shards_are_one_pass_to_the_last_bit(cut):
    parts = examples(5)
    whole, first, second = tallied(parts), tallied(parts[:cut]), tallied(parts[cut:])
    first.merge(second)
    assert first.images == whole.images and [image.index for image in first.images] == list(range(5))
    for (name, found), expected in zip(flat(first.scores()).items(), flat(whole.scores()).values(), strict=True):
        np.testing.assert_array_equal(found, expected, err_msg=name)
    assert first.intervals(resamples=20) == whole.intervals(resamples=20)


def test_scores_are_those_of_all_pixels():
    parts = examples(4)
    tally = tallied(parts, around_void=False, conventions=("release", "voc"))
    scores = tally.scores()
    matrices = [confusion_matrix(label, found, 6) for label, found, _ in parts]
    assert np.array_equal(tally.matrix, sum(matrices))
    assert scores["miou"] == mean_iou(sum(matrices)) == scores["conventions"]["release"]
    assert math.isnan(scores["conventions"]["voc"]) and set(scores["conventions"]) == {"release", "voc"}
    bands = sum(trimap_matrices(label, found, 6, around_void=False) for label, found, _ in parts)
    np.testing.assert_array_equal(scores["trimap"]["miou"], [mean_iou(band) for band in bands])
    assert scores["trimap"]["around"] == "class boundaries"
    counts = [boundary_counts(label, found, 6) for label, found, _ in parts]
    iou = class_scores(type(counts[0])(*(sum(part) for part in zip(*counts, strict=True))))["iou"]
    assert scores["boundary_iou"] == pytest.approx(np.nanmean(iou), abs=1e-15)
    by_image = [np.nanmean(contour_f_scores(label, found, 6)) for label, found, _ in parts]
    assert scores["boundary_f"] == pytest.approx(np.mean(by_image), abs=1e-15)
    assert [image.boundary_f for image in tally.images] == pytest.approx(by_image, abs=1e-15)
    alone = [counts_of(matrix) for matrix in matrices]
    stacked = type(alone[0])(*(np.stack(part) for part in zip(*alone, strict=True)))
    intervals = tally.intervals(resamples=30)
    assert bootstrap_intervals(stacked, resamples=30).items() <= intervals.items()
    for name in ("boundary_iou", "boundary_f"):
        low, high = intervals[name]
        assert low < scores[name] < high, name
    draws = np.random.default_rng(0).integers(0, 4, (30, 4))
    drawn = np.mean(np.array(by_image)[draws], axis=1)
    assert intervals["boundary_f"] == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=1e-12)


def test_the_row_of_an_image_by_hand():
    label = np.array([[0, 0, 1, 1], [0, 0, 1, 255]])
    tally = Tally(3)
    image = tally.add(label, np.array([[0, 0, 1, 2], [0, 2, 2, 0]]), "a name")
    assert (image.index, image.name, image.height, image.width, image.ignored) == (0, "a name", 2, 4, 1 / 8)
    assert image.pixel_accuracy == pytest.approx(4 / 7) and image.miou == pytest.approx((3 / 4 + 1 / 3 + 0) / 3)
    assert image.confused == (1, 2) and image.confused_share == pytest.approx(2 / 7)
    perfect = tally.add(label, np.where(label == 255, 0, label))
    assert perfect.confused is None and perfect.miou == 1 and perfect.confused_share == 0
    void = tally.add(np.full((2, 4), 255), np.zeros((2, 4), int))
    assert void.ignored == 1 and math.isnan(void.miou) and math.isnan(void.confused_share)


def test_the_most_frequent_mistakes():
    matrix = np.array([[50, 3, 0], [9, 1, 0], [3, 0, 0]])
    assert confused_pairs(matrix) == [(1, 0, 9), (0, 1, 3), (2, 0, 3)] and confused_pairs(matrix, 1) == [(1, 0, 9)]


def test_mean_iou_by_convention():
    tally = Tally(19, conventions=("release", "cityscapes", "voc"))
    tally.add(np.array([[0, 1, 13]]), np.array([[0, 0, 10]]))
    found = tally.scores()["conventions"]
    assert list(found) == ["release", "cityscapes", "voc", "cityscapes categories"]
    assert found["release"] == found["cityscapes"] == pytest.approx((1 / 2 + 0 + 0 + 0) / 4, abs=1e-15)
    assert math.isnan(found["voc"]) and found["cityscapes categories"] == pytest.approx(1 / 3, abs=1e-15)
    ade = Tally(151, ignore_label=0, conventions=("ade",))
    ade.add(np.array([[0, 1, 2]]), np.array([[5, 1, 1]]))
    assert ade.scores()["conventions"] == {"ade": pytest.approx((1 / 2) / 150, abs=1e-15)}


def test_one_image_has_no_interval():
    tally = tallied(examples(1))
    assert all(math.isnan(end) for interval in tally.intervals(resamples=10).values() for end in interval)
