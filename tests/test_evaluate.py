"""Scores over a data set: every example once, whatever the batches, and the recorded figures on real photographs."""

import json

import numpy as np
import PIL.Image
import pytest
from conftest import GOLDENS

import deeplab_tf
from deeplab_tf.data.shapes import FIRST_INDEX, shapes_example
from deeplab_tf.errors import DeepLabError
from deeplab_tf.evaluate import evaluate
from deeplab_tf.images import read_image
from deeplab_tf.metrics import confusion_matrix


@pytest.fixture(scope="module")
def model():
    return deeplab_tf.load("shapes_mnv2")[1]


def batches(count: int, size: int):
    for first in range(0, count, size):
        examples = [shapes_example(0, FIRST_INDEX["val"] + i) for i in range(first, min(first + size, count))]
        images, labels = (np.stack(arrays) for arrays in zip(*examples, strict=True))
        yield {"image": images.astype(np.float32), "label": labels[..., None].astype(np.int32)}


def test_every_example_counts_once_whatever_the_batches(model):
    whole, parts = evaluate(model, batches(7, 7)), evaluate(model, batches(7, 3))
    assert np.array_equal(whole["confusion_matrix"], parts["confusion_matrix"])
    assert whole["examples"] == parts["examples"] == 7
    (batch,) = batches(7, 7)
    seen = int(np.sum(batch["label"] != 255))
    assert whole["confusion_matrix"].sum() == seen
    expected = confusion_matrix(batch["label"][..., 0], deeplab_tf.predict(model, batch["image"]), 9)
    assert np.array_equal(whole["confusion_matrix"], expected)
    assert 0.5 < whole["miou"] < 1 and whole["pixel_accuracy"] == np.trace(expected) / seen


def test_scales_and_flips_are_those_of_predict(model):
    (batch,) = batches(2, 2)
    found = evaluate(model, [batch], scales=(0.5, 1.0), flip=True)["confusion_matrix"]
    labels = deeplab_tf.predict(model, batch["image"], scales=(0.5, 1.0), flip=True)
    assert np.array_equal(found, confusion_matrix(batch["label"][..., 0], labels, 9))


def test_recorded_figures_on_real_photographs(shared):
    golden = json.loads((GOLDENS / "real" / "metrics.json").read_text())["os16_single"]
    folder = shared / "real" / "voc_mini"
    _, model = deeplab_tf.load(shared / "real" / "deeplabv3_mnv2_dm05_pascal", crop_size=(513, 513))

    def examples():
        for path in sorted((folder / "JPEGImages").glob("*.jpg")):
            label = np.array(PIL.Image.open(folder / "SegmentationClass" / f"{path.stem}.png"))
            yield {"image": read_image(path)[None], "label": label[None]}

    scores = evaluate(model, examples())
    assert scores["examples"] == 3
    assert scores["miou"] == pytest.approx(golden["miou_over_classes_in_union"], abs=1e-4)
    assert scores["pixel_accuracy"] == pytest.approx(golden["pixel_accuracy"], abs=1e-4)
    for name, value in golden["iou"].items():
        assert scores["iou_per_class"][int(name)] == pytest.approx(value, abs=1e-4)


def test_mistakes(model):
    with pytest.raises(DeepLabError, match="empty"):
        evaluate(model, [])
    (batch,) = batches(1, 1)
    with pytest.raises(DeepLabError, match="label 0..200.*9 classes"):
        evaluate(model, [{**batch, "label": np.where(batch["label"] == 0, 0, 200)}])
