"""Keras's compile and fit: SegmentationLoss, MeanIoU and PolyDecay are the numbers of the training loop."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

import deeplab_tf
from deeplab_tf.config import DataConfig, ModelConfig, TrainConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.network.build import build_model
from deeplab_tf.network.layers import Dropout
from deeplab_tf.ops.metrics import confusion_matrix, mean_iou
from deeplab_tf.training.keras_fit import MeanIoU, PolyDecay, SegmentationLoss
from deeplab_tf.training.losses import divided, loss_terms
from deeplab_tf.training.schedules import learning_rate
from deeplab_tf.training.step import make_train_step
from deeplab_tf.weights.tf1 import variable_map

DRAWS = np.random.default_rng(0)
LOGITS = DRAWS.normal(size=(2, 9, 9, 3)).astype(np.float32)
LABELS = DRAWS.integers(0, 3, (2, 9, 9)).astype(np.int32)
LABELS[:, :2] = 255
COUNTED = (LABELS != 255).astype(np.float32)

LOSSES = {
    "plain": {},
    "weighted": {"label_weights": (1.0, 0.5, 2.0)},
    "mined": {"top_k_percent_pixels": 0.25},
    "focal": {"loss": "focal", "focal_gamma": 1.5},
    "dice": {"loss": "dice"},
    "lovasz": {"loss": "lovasz"},
    "ignored": {"ignore_label": 0},
}


def again(thing):
    """Returns what Keras makes of its own description."""
    return keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(thing))


@pytest.mark.parametrize("options", LOSSES.values(), ids=LOSSES)
def test_the_loss_is_that_of_the_training_loop(options):
    loss = again(SegmentationLoss(**options))
    assert loss.config == TrainConfig(**options)
    expected = divided(*loss_terms(TrainConfig(**options), LOGITS, LABELS)).numpy()
    assert loss(LABELS, LOGITS).numpy() == loss(LABELS[..., None], LOGITS).numpy() == expected
    if loss.config.ignore_label == 255:  # the weights of for_fit, with or without the ignore label
        assert loss(LABELS, LOGITS, COUNTED).numpy() == pytest.approx(expected)
        assert loss(np.where(LABELS == 255, 0, LABELS), LOGITS, COUNTED).numpy() == pytest.approx(expected)


def test_other_weights_multiply():
    loss = SegmentationLoss()
    halved = loss(LABELS, LOGITS, COUNTED * 0.5).numpy()
    assert halved == pytest.approx(loss(LABELS, LOGITS).numpy() / 2)
    first = loss(LABELS, LOGITS, np.array([1.0, 0.0])).numpy()
    assert first == pytest.approx(loss(LABELS[:1], LOGITS[:1]).numpy())


def test_small_logits_are_upsampled_and_half_precision_is_float32():
    loss = SegmentationLoss()
    large = tf.raw_ops.ResizeBilinear(images=LOGITS, size=(17, 17), align_corners=True)
    labels = np.kron(LABELS, np.ones((2, 2), np.int32))[:, :17, :17]
    assert loss(labels, LOGITS).numpy() == loss(labels, large).numpy()
    assert loss(labels, tf.cast(LOGITS, tf.bfloat16)).dtype == tf.float32


def test_mining_that_narrows_needs_the_step():
    loss = SegmentationLoss(top_k_percent_pixels=0.25, hard_example_mining_step=4)
    with pytest.raises(DeepLabError, match=r"hard_example_mining_step=4: .*loss\.follow\(optimizer\)"):
        loss(LABELS, LOGITS)
    optimizer = keras.optimizers.SGD()
    loss.follow(optimizer)
    for step in (0, 2, 9):
        optimizer.iterations.assign(step)
        assert loss(LABELS, LOGITS).numpy() == divided(*loss_terms(loss.config, LOGITS, LABELS, step)).numpy()


@pytest.mark.parametrize("make", [SegmentationLoss, lambda **options: PolyDecay(0.1, 10, **options)])
def test_an_unknown_option_is_refused(make):
    with pytest.raises(DeepLabError, match="unknown option 'momentum'"):
        make(momentum=0.5)


def test_the_metric_is_that_of_evaluate():
    metric = again(MeanIoU(3))
    matrix = np.zeros((3, 3), np.int64)
    for labels, logits in ((LABELS, LOGITS), (LABELS[:1], -LOGITS[:1])):
        metric.update_state(labels, logits)
        matrix += confusion_matrix(labels, logits.argmax(-1).astype(np.int32), 3, ignore_label=255)
    np.testing.assert_array_equal(metric.matrix.numpy(), matrix)
    assert float(metric.result()) == pytest.approx(mean_iou(matrix))
    weighted = MeanIoU(3)
    weighted.update_state(np.where(LABELS == 255, 0, LABELS), LOGITS, COUNTED)
    weighted.update_state(LABELS[:1], -LOGITS[:1])
    np.testing.assert_array_equal(weighted.matrix.numpy(), matrix)
    metric.reset_state()
    assert not metric.matrix.numpy().any() and np.isnan(float(metric.result()))


def test_the_schedule_is_that_of_the_training_loop():
    options = {"learning_power": 0.5, "end_learning_rate": 0.001, "slow_start_step": 3}
    schedule = again(PolyDecay(0.02, 20, **options))
    config = TrainConfig(base_learning_rate=0.02, training_number_of_steps=20, **options)
    for step in (0, 2, 3, 11, 20, 25):
        assert schedule(step).numpy() == learning_rate(config, step).numpy()
    optimizer = keras.optimizers.SGD(schedule)
    assert float(again(optimizer).learning_rate) == float(schedule(0))


def test_batches_for_fit(tmp_path):
    from deeplab_tf.catalog.datasets import DATASETS
    from deeplab_tf.data import build, folder, shapes

    pictures = shapes.write_shapes(tmp_path / "pictures", splits={"train": 3}, height=20, width=30)
    build.build_records(folder.folder_splits(pictures), DATASETS["shapes"], tmp_path / "records")
    config = DataConfig("shapes", str(tmp_path / "records"), crop_size=(33, 33), batch_size=2)
    batches = deeplab_tf.make_dataset(config, split="train", training=True)
    image, label, weight = batches.for_fit().element_spec
    assert (image.shape, label.shape, weight.shape) == ((2, 33, 33, 3), (2, 33, 33), (2, 33, 33))
    stored = next(iter(batches))
    image, label, weight = next(iter(batches.for_fit()))
    np.testing.assert_array_equal(image, stored["image"])
    np.testing.assert_array_equal(label, stored["label"][..., 0])
    np.testing.assert_array_equal(weight, (label.numpy() != 255).astype(np.float32))
    assert 0 < weight.numpy().mean() < 1
    _, filled, _ = next(iter(batches.for_fit(ignored=0)))
    np.testing.assert_array_equal(filled, np.where(label == 255, 0, label))
    assert len(list(deeplab_tf.make_dataset(config, split="train", training=False).for_fit())) == 2


@pytest.mark.heavy
def test_a_step_of_fit_is_a_step_of_train(tmp_path):
    config = ModelConfig(model_variant="tiny", num_classes=3, crop_size=(33, 33))
    model = build_model(config)
    other = keras.models.clone_model(model)
    other.set_weights(model.get_weights())
    for layer in other.layers:
        if isinstance(layer, Dropout):
            layer.rate = 0.0  # its draws are others
    images = DRAWS.uniform(0, 255, (3, 2, 33, 33, 3)).astype(np.float32)
    labels = DRAWS.integers(0, 3, (3, 2, 33, 33)).astype(np.int32)
    labels[:, :, :5] = 255
    options = TrainConfig(
        base_learning_rate=0.001, training_number_of_steps=10, weight_decay=0.0, dropout=False, jit_compile="false"
    )
    step = make_train_step(model, options)
    expected = [float(step(*batch)["cross_entropy"]) for batch in zip(images, labels, strict=True)]
    optimizer = keras.optimizers.SGD(PolyDecay(0.001, 10), momentum=0.9)
    other.compile(optimizer, SegmentationLoss(), metrics=[MeanIoU(3)], jit_compile=False)
    found = [other.train_on_batch(images[0], labels[0])[0]]
    assert found[0] == pytest.approx(expected[0], rel=1e-5)
    other.save(tmp_path / "compiled.keras")
    loaded = keras.saving.load_model(tmp_path / "compiled.keras")
    assert isinstance(loaded.loss, SegmentationLoss) and loaded.config == config
    mined = SegmentationLoss(top_k_percent_pixels=0.5, hard_example_mining_step=5)
    other.compile(optimizer, mined, jit_compile=False)
    assert np.isfinite(other.train_on_batch(images[0], labels[0], return_dict=True)["loss"])
    assert mined._step().numpy() == 2
    # The biases' gradients, which train doubles, and the falling rate make the difference from here on.
    found.append(loaded.train_on_batch(images[1], labels[1], return_dict=True)["loss"])
    assert found[1] == pytest.approx(expected[1], rel=0.02)


@pytest.mark.heavy
def test_the_statistics_of_batch_norm_are_those_of_train():
    config = ModelConfig(model_variant="tiny", num_classes=3, crop_size=(33, 33))
    model = build_model(config)
    other = keras.models.clone_model(model)
    other.set_weights(model.get_weights())
    image = DRAWS.uniform(0, 255, (2, 33, 33, 3)).astype(np.float32)
    label = np.ones((2, 33, 33), np.int32)
    options = dataclasses.replace(TrainConfig(), dropout=False, jit_compile="false")
    make_train_step(model, options)(image, label)
    other.compile("sgd", SegmentationLoss(), jit_compile=False)
    other.train_on_batch(image, label)
    theirs = variable_map(other)
    for name, variable in variable_map(model).items():
        if "moving" in name:
            np.testing.assert_allclose(theirs[name], variable, rtol=1e-5, atol=1e-6, err_msg=name)
