"""The model as Keras sees it: saved, loaded, copied and cloned like any functional one, its configuration with it."""

import copy
import dataclasses
import gc
import pickle
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from golden import golden_image
from networks import TINY, V3, lively

from deeplab_tf.arch.dense_prediction_cell import CITYSCAPES_TOP1
from deeplab_tf.config import ModelConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.inference.predict import predict
from deeplab_tf.network.build import build_model
from deeplab_tf.network.model import Network
from deeplab_tf.network.wrapped import config_of

IMAGES = golden_image("network", 50, 65)[None]
CELL = dataclasses.replace(TINY, dense_prediction_cell_json=CITYSCAPES_TOP1)


@pytest.fixture(scope="module")
def model() -> Network:
    return lively(TINY)


def from_a_file(model, folder) -> keras.Model:
    model.save(folder / "model.keras")
    return keras.models.load_model(folder / "model.keras")


def logits(model) -> np.ndarray:
    return model(IMAGES.astype(np.float32), training=False).numpy()


WAYS = {
    "a .keras file": from_a_file,
    "a pickle": lambda model, folder: pickle.loads(pickle.dumps(model)),
    "a copy": lambda model, folder: copy.deepcopy(model),
}


@pytest.mark.heavy
@pytest.mark.parametrize("way", WAYS)
def test_a_copy_knows_its_configuration_and_predicts(model, way, tmp_path):
    expected = predict(model, IMAGES, runtime="tf")
    other = WAYS[way](model, tmp_path)
    assert isinstance(other, Network)
    assert other.config == config_of(other) == TINY
    assert [layer.name for layer in other.layers] == [layer.name for layer in model.layers]
    np.testing.assert_array_equal(logits(other), logits(model))
    np.testing.assert_array_equal(predict(other, IMAGES, runtime="tf"), expected)
    last = other.get_layer("logits.semantic")
    last.set_weights([np.zeros(weight.shape) for weight in last.weights])
    assert (predict(other, IMAGES, runtime="tf") == 0).all()
    np.testing.assert_array_equal(predict(model, IMAGES, runtime="tf"), expected)


@pytest.mark.heavy
@pytest.mark.parametrize("config", [V3, CELL, dataclasses.replace(TINY, quantize_delay_step=0)], ids=str)
def test_every_kind_of_configuration_comes_through_a_file(config, tmp_path):
    model = build_model(config, zeros=True)
    assert from_a_file(model, tmp_path).config == config
    assert keras.models.model_from_json(model.to_json()).config == config


def test_several_outputs_come_through_a_file(tmp_path):
    config = dataclasses.replace(TINY, image_pyramid=(0.5, 1.0))
    loaded = from_a_file(build_model(config, all_scales=True, zeros=True), tmp_path)
    assert set(loaded.output) == {"logits_0.50", "logits_1.00", "merged_logits"} and loaded.config == config


def test_it_is_a_functional_model(model, capsys):
    assert model.input_shape == (None, None, None, 3) and model.output_shape == (None, None, None, 6)
    model.summary()
    assert "logits.semantic" in capsys.readouterr().out
    part = keras.Model(model.input, model.get_layer("logits.semantic").output)
    np.testing.assert_array_equal(part(IMAGES.astype(np.float32)), logits(model))


def test_a_clone_computes_the_same_and_knows_its_configuration(model):
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    np.testing.assert_array_equal(logits(clone), logits(model))
    assert clone.config == TINY and Network.from_config(clone.get_config()).config == TINY
    np.testing.assert_array_equal(predict(clone, IMAGES, runtime="tf"), predict(model, IMAGES, runtime="tf"))


def test_a_loaded_model_shares_its_layers(model, tmp_path):
    loaded = from_a_file(model, tmp_path)
    fixed = build_model(dataclasses.replace(TINY, crop_size=(65, 65)), share_with=loaded)
    assert fixed.get_layer("logits.semantic") is loaded.get_layer("logits.semantic")


@pytest.mark.heavy
@pytest.mark.parametrize("jit", [False, True])
def test_keras_trains_it(jit, tmp_path):
    model = lively(dataclasses.replace(TINY, crop_size=(33, 33)))
    predict(model, IMAGES, runtime="tf")
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=jit)
    images = np.random.default_rng(0).uniform(0, 255, (2, 33, 33, 3)).astype(np.float32)
    model.fit(images, np.ones((2, 3, 3), np.int32), verbose=0)
    loaded = from_a_file(model, tmp_path)
    np.testing.assert_array_equal(predict(loaded, IMAGES, runtime="tf"), predict(model, IMAGES, runtime="tf"))


def test_it_is_built_under_a_strategy():
    devices = tf.config.list_logical_devices("CPU")
    with tf.distribute.MirroredStrategy([device.name for device in devices[:1]]).scope():
        model = build_model(TINY, zeros=True)
    assert model.config == TINY and predict(model, IMAGES, runtime="tf").shape == (1, 50, 65)


@pytest.mark.heavy
def test_what_is_derived_neither_keeps_the_model_nor_is_saved(tmp_path):
    model = lively(TINY)
    description, weights = model.to_json(), len(model.weights)
    predict(model, IMAGES, runtime="tf")
    assert (model.to_json(), len(model.weights)) == (description, weights)
    assert from_a_file(model, tmp_path).derived is not model.derived
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_a_file_with_an_unknown_option(model):
    description = copy.deepcopy(model.get_config())
    description["model_config"]["atrous_rate"] = 3
    with pytest.raises(DeepLabError, match="unknown model option in the saved model.*did you mean atrous_rates"):
        Network.from_config(description)


def test_a_model_from_elsewhere():
    inputs = keras.Input((None, None, 3))
    with pytest.raises(DeepLabError, match=r"deeplab_tf\.build_model"):
        config_of(keras.Model(inputs, inputs))
    assert isinstance(build_model(ModelConfig(), zeros=True), Network)
