"""Changed weights are noticed whoever changes them, without reading those that did not change."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from networks import SMALL, lively

from deeplab_tf.config import TrainConfig
from deeplab_tf.inference import weights_seen
from deeplab_tf.inference.weights_seen import WeightsSeen
from deeplab_tf.network.build import build_model
from deeplab_tf.training.step import make_train_step

CONFIG = dataclasses.replace(SMALL, model_variant="tiny", depth_multiplier=1.0, crop_size=(33, 33))
IMAGES = np.random.default_rng(0).uniform(0, 255, (2, 33, 33, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def model():
    return lively(CONFIG)


def kernel(model) -> keras.Variable:
    return model.get_layer("logits.semantic").kernel


def ones(variable) -> tf.Tensor:
    return tf.ones(variable.shape)


def trained(model, folder):
    make_train_step(model, TrainConfig(base_learning_rate=0.1))(IMAGES, np.ones((2, 33, 33), np.int32))


def trained_by_xla(model, folder):
    config = TrainConfig(base_learning_rate=0.1, jit_compile=True)
    step = make_train_step(build_model(CONFIG, share_with=model), config)
    for _ in range(2):
        step(IMAGES, np.ones((2, 33, 33), np.int32))


def fitted(model, folder):
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(IMAGES, np.ones((2, 3, 3), np.int32), verbose=0)


def loaded(model, folder):
    model.save_weights(folder / "a.weights.h5")
    other = kernel(model).numpy() * 2
    kernel(model).assign(other)
    assert WeightsSeen(model).changed(model) is False
    model.load_weights(folder / "a.weights.h5")
    kernel(model).assign(other * 3)


def restored(model, folder):
    checkpoint = tf.train.Checkpoint(kernel=kernel(model).value)
    path = checkpoint.save(str(folder / "checkpoint"))
    kernel(model).assign(ones(kernel(model)) * 7)
    seen = WeightsSeen(model)
    checkpoint.restore(path)
    assert seen.changed(model)


WAYS = {
    "set_weights": lambda model, folder: model.set_weights([weight * 2 for weight in model.get_weights()]),
    "assign": lambda model, folder: kernel(model).assign(kernel(model) * 2),
    "assign_add": lambda model, folder: kernel(model).value.assign_add(ones(kernel(model))),
    "one value": lambda model, folder: kernel(model).value[0, 0, 0, 0].assign(-99.0),
    "scattered": lambda model, folder: kernel(model).value.scatter_update(
        tf.IndexedSlices(tf.fill([1, *kernel(model).shape[1:]], 55.0), [0])
    ),
    "in a graph": lambda model, folder: tf.function(lambda: kernel(model).value.assign_sub(ones(kernel(model))))(),
    "by XLA": lambda model, folder: tf.function(
        lambda: kernel(model).value.assign(kernel(model).value * 3.0), jit_compile=True
    )(),
    "loaded": loaded,
    "restored": restored,
    "trained": trained,
    "trained by XLA": trained_by_xla,
    "fitted": fitted,
}


SLOW = ("trained", "trained by XLA", "fitted")


@pytest.mark.parametrize("way", [pytest.param(way, marks=[pytest.mark.heavy] if way in SLOW else []) for way in WAYS])
def test_a_change_is_noticed_once(model, way, tmp_path):
    seen = WeightsSeen(model)
    assert not seen.changed(model)
    for _ in range(2):  # what is updated in place once it is not shared is updated so the second time
        before = model.get_weights()
        WAYS[way](model, tmp_path)
        differs = any((old != new).any() for old, new in zip(before, model.get_weights(), strict=True))
        assert seen.changed(model) == differs
        assert not seen.changed(model)
    assert differs or way in ("one value", "scattered", "restored")


@pytest.fixture
def compared(monkeypatch) -> list:
    """Grows by one whenever the values of a weight are read."""
    calls, bits = [], weights_seen._bits
    monkeypatch.setattr(weights_seen, "_bits", lambda array: calls.append(1) or bits(array))
    return calls


def test_values_are_compared_only_where_memory_is_another(model, compared):
    seen = WeightsSeen(model)
    for _ in range(3):
        model(IMAGES, training=False)
        assert not seen.changed(model)
    assert not compared
    kernel(model).assign(kernel(model).numpy())
    assert not seen.changed(model)
    assert len(compared) == 2  # the old and the new value of this one


def test_arrays_that_are_copies_are_compared_by_value(model, compared, monkeypatch):
    shared = weights_seen.weight_array
    monkeypatch.setattr(weights_seen, "weight_array", lambda weight: shared(weight).copy())
    seen = WeightsSeen(model)
    assert not seen.changed(model)
    assert len(compared) == 2 * len(model.weights)
    kernel(model).assign(-kernel(model))
    assert seen.changed(model) and not seen.changed(model)


def test_nan_is_the_same_as_itself(model):
    values = kernel(model).numpy()
    kernel(model).assign(np.full(values.shape, np.nan, np.float32))
    seen = WeightsSeen(model)
    assert not seen.changed(model)
    kernel(model).assign(np.full(values.shape, np.nan, np.float32))
    assert not seen.changed(model)
    kernel(model).assign(values)
    assert seen.changed(model)


def test_weights_of_a_strategy():
    code_devices = [device.name for device in tf.config.list_logical_devices("CPU")][:1]
    with tf.distribute.MirroredStrategy(code_devices).scope():
        model = build_model(SMALL, zeros=True)
    seen = WeightsSeen(model)
    assert not seen.changed(model)
    kernel(model).assign(kernel(model) + 1.0)
    assert seen.changed(model) and not seen.changed(model)
