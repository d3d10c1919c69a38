"""Batches of pictures of several sizes: each gives what it gives alone."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from golden import golden_image
from networks import TINY, lively

from deeplab_tf.config import Inference
from deeplab_tf.errors import DeepLabError
from deeplab_tf.inference.predict import predict
from deeplab_tf.inference.predictor import predictor_of
from deeplab_tf.inference.tiles import segment_batch

SIZES = ((33, 49), (65, 65), (40, 90), (100, 30))


def photograph(height: int, width: int, key: str = "photograph") -> np.ndarray:
    return golden_image(key, height, width)


def batch_of(sizes) -> np.ndarray:
    """Photographs at the top left of one array as large as the largest, and at least 65 x 65."""
    batch = np.full((len(sizes), *(max(65, *sides) for sides in zip(*sizes, strict=True)), 3), 127.5, np.float32)
    for i, (height, width) in enumerate(sizes):
        batch[i, :height, :width] = photograph(height, width, f"batch/{i}")
    return batch


@pytest.mark.parametrize("options", [{}, {"scales": (0.5, 1.0), "flip": True}], ids=str)
@pytest.mark.parametrize("crop", [(65, 65), None])
def test_a_picture_of_a_batch_is_as_alone(crop, options):
    model = lively(dataclasses.replace(TINY, crop_size=crop))
    found = segment_batch(predictor_of(model), batch_of(SIZES), np.array(SIZES), Inference(**options))
    assert found.dtype == np.int32 and found.shape == (4, 100, 90)
    for i, (height, width) in enumerate(SIZES):
        alone = predict(model, photograph(height, width, f"batch/{i}")[None], **options)[0]
        np.testing.assert_array_equal(found[i, :height, :width], alone)


def test_a_batch_within_the_crop_is_run_as_one(monkeypatch):
    model = lively(dataclasses.replace(TINY, crop_size=(65, 65)))
    predictor, calls = predictor_of(model), []
    original = predictor.labels
    monkeypatch.setattr(predictor, "labels", lambda x, inference: calls.append(len(x)) or original(x, inference))
    segment_batch(predictor, batch_of(SIZES[:2]), np.array(SIZES[:2]))
    segment_batch(predictor, batch_of([(80, 80)] * 3), np.array([(80, 80)] * 3))
    segment_batch(predictor, batch_of([(80, 80)] * 2))
    assert calls == [2, 3, 2]


def test_a_batch_in_tiles(monkeypatch):
    model = lively(dataclasses.replace(TINY, crop_size=(65, 65)))
    predictor, shapes = predictor_of(model), []
    original = predictor.labels
    monkeypatch.setattr(predictor, "labels", lambda x, inference: shapes.append(x.shape) or original(x, inference))
    found = segment_batch(predictor, batch_of(SIZES), np.array(SIZES), Inference(large_images="tile"))
    assert all(shape[0] == 1 and shape[1] <= 65 and shape[2] <= 65 for shape in shapes) and len(shapes) > 4
    for i, (height, width) in enumerate(SIZES[:2]):
        alone = predict(model, photograph(height, width, f"batch/{i}")[None])[0]
        np.testing.assert_array_equal(found[i, :height, :width], alone)
    image = photograph(*SIZES[2], "batch/2")[None]
    left, right = predict(model, image[:, :, :65])[0], predict(model, image[:, :, 32:])[0]
    np.testing.assert_array_equal(found[2, :40, :90], np.concatenate([left[:, :48], right[:, 16:]], axis=1))


def test_too_little_memory_is_told(monkeypatch):
    predictor = predictor_of(lively(TINY))

    def out_of_memory(*_args, **_options):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    monkeypatch.setattr(predictor, "labels", out_of_memory)
    with pytest.raises(DeepLabError, match="not enough memory for 2 images of 80 x 80.*--large_images=tile"):
        segment_batch(predictor, batch_of([(80, 80)] * 2))
