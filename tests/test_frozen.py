"""The frozen graph in TensorFlow: the logits of the network at any size, and weights that are followed."""

import dataclasses
import gc

import keras
import numpy as np
import pytest
from golden import golden_image
from networks import TINY, V3, lively

from deeplab_tf.errors import DeepLabError
from deeplab_tf.inference import frozen as frozen_module
from deeplab_tf.inference.frozen import FrozenBackend
from deeplab_tf.inference.predict import predict
from deeplab_tf.inference.predictor import TensorFlowBackend
from deeplab_tf.network.sizes import at_size

NETWORKS = {
    "any size": (TINY, [(65, 97), (50, 33)]),
    "pyramid": (dataclasses.replace(TINY, image_pyramid=(0.5, 1.0)), [(65, 97)]),
    "pooling window": (V3, [(65, 65)]),
}


@pytest.fixture(scope="module")
def model():
    return lively(TINY)


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_logits_are_those_of_the_network(kind):
    config, sizes = NETWORKS[kind]
    network = lively(config)
    frozen, plain = FrozenBackend(network), TensorFlowBackend(network)
    for size in sizes:
        images = np.stack([golden_image(name, *size) for name in ("a", "b")]).astype(np.float32)
        here = at_size(config, size, pyramid=config.image_pyramid)
        expected = plain.logits(images, here).numpy()
        found = frozen.logits(images, here).numpy()
        np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max(), rtol=0)
    frozen.release()
    np.testing.assert_array_equal(frozen.logits(images, here), found)


def test_a_policy_of_mixed_precision_changes_nothing(model):
    """The exported graph and the converted one are built by the same code."""
    images, here = golden_image("a", 65, 65)[None].astype(np.float32), at_size(TINY, (65, 65))
    expected = FrozenBackend(model).logits(images, here).numpy()
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        found = FrozenBackend(model).logits(images, here).numpy()
    finally:
        keras.config.set_dtype_policy(before)
    np.testing.assert_array_equal(found, expected)


def test_weights_that_change_are_followed(model):
    image = golden_image("x", 65, 65)[None]
    before = predict(model, image, runtime="tf_frozen")
    weight = model.weights[0]
    weight.assign(weight * 2)
    assert np.mean(predict(model, image, runtime="tf_frozen") == predict(model, image, runtime="tf")) >= 0.9999
    weight.assign(weight / 2)
    np.testing.assert_array_equal(predict(model, image, runtime="tf_frozen"), before)


def test_what_cannot_be_run_is_one_line(model, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("no such kernel\nat all")

    monkeypatch.setattr(frozen_module, "build_graph_def", fail)
    with pytest.raises(DeepLabError, match=r"^TensorFlow, frozen cannot run this network \(no such kernel\)$"):
        FrozenBackend(model).logits(np.zeros((1, 65, 65, 3), np.float32), at_size(TINY, (65, 65)))


def test_it_does_not_keep_the_model():
    network = lively(TINY)
    frozen = FrozenBackend(network)
    del network
    gc.collect()
    with pytest.raises(DeepLabError, match="the model of this predictor is gone"):
        frozen.logits(np.zeros((1, 65, 65, 3), np.float32), at_size(TINY, (65, 65)))
