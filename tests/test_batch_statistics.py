"""Unfolding keeps the function and gives the statistics of the images; recalibration gives those of training."""

import numpy as np
import pytest
import tensorflow as tf

from deeplab_tf.config import ModelConfig
from deeplab_tf.network.build import build_model
from deeplab_tf.network.layers import FusedBatchNorm
from deeplab_tf.training.batch_statistics import recalibrate_batch_norm, unfold_batch_norm

CONFIG = ModelConfig(model_variant="tiny", num_classes=5, aspp_convs_filters=16)


def norms_of(model):
    return [layer for layer in model.layers if isinstance(layer, FusedBatchNorm)]


def batches_of(draws, count=3):
    return [draws.uniform(0, 255, (4, 33, 49, 3)).astype(np.float32) for _ in range(count)]


def stem_of(model, batches):
    kernel = model.get_layer("Tiny.Conv").kernel
    return np.concatenate([tf.nn.conv2d(batch * 2 / 255 - 1, kernel, 2, "SAME") for batch in batches])


def test_unfolding_keeps_the_function():
    model, draws = build_model(CONFIG), np.random.default_rng(0)
    for norm in norms_of(model):
        for weight, low, high in ((norm.gamma, 0.5, 2.0), (norm.beta, -1.0, 1.0), (norm.moving_mean, -0.2, 0.2)):
            weight.assign(draws.uniform(low, high, weight.shape))
    batches = batches_of(draws)
    before = [model(images).numpy() for images in batches]
    untouched = model.get_layer("image_pooling.BatchNorm").moving_mean.numpy()
    scopes = [norm.name.replace(".", "/") for norm in norms_of(model) if not norm.name.startswith("image_pooling")]
    unfold_batch_norm(model, batches, scopes=scopes)
    for images, expected in zip(batches, before, strict=True):
        np.testing.assert_allclose(model(images).numpy(), expected, rtol=2e-4, atol=2e-4 * np.abs(expected).max())
    stem, pixels = norms_of(model)[0], stem_of(model, batches)
    assert stem.moving_mean.numpy() == pytest.approx(pixels.mean((0, 1, 2)), abs=1e-5)
    assert stem.moving_variance.numpy() == pytest.approx(pixels.var((0, 1, 2)), rel=1e-4)
    assert np.array_equal(model.get_layer("image_pooling.BatchNorm").moving_mean.numpy(), untouched)


def test_recalibrated_a_network_does_what_it_did_in_training():
    """On one batch, that is: there the statistics of training and of evaluation are the same."""
    model, images = build_model(CONFIG), batches_of(np.random.default_rng(1), 1)
    for layer in model.layers:
        if "dropout" in layer.name:
            layer.rate = 0.0
    expected = model(images[0], training=True).numpy()
    gammas = [norm.gamma.numpy() for norm in norms_of(model)]
    recalibrate_batch_norm(model, images)
    np.testing.assert_allclose(model(images[0]).numpy(), expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
    assert all(np.array_equal(norm.gamma.numpy(), old) for norm, old in zip(norms_of(model), gammas, strict=True))
