"""Training in bfloat16 and float16: what stays in float32, and that the loss falls as it does in float32."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from step_operations import traced_operations

from deeplab_tf.config import ModelConfig, TrainConfig
from deeplab_tf.data.shapes import shapes_example
from deeplab_tf.network.build import build_model
from deeplab_tf.training.step import TrainStep, make_train_step

CROP, BATCH, STEPS = 33, 2, 200
# With what an exact precision matters for: resized pixels, squeeze and excitation, and pooled features.
NETWORK = ModelConfig(
    model_variant="tiny",
    num_classes=9,
    crop_size=(CROP, CROP),
    aspp_convs_filters=16,
    aspp_with_squeeze_and_excitation=True,
)
HALVES = {"bfloat16": tf.bfloat16, "float16": tf.float16}


@functools.cache
def pictures() -> tuple[np.ndarray, np.ndarray]:
    """Returns 32 pictures of drawn shapes, and their labels."""
    drawn = [shapes_example(0, index, height=CROP, width=CROP) for index in range(32)]
    images, labels = zip(*drawn, strict=True)
    return np.stack(images).astype(np.float32), np.stack(labels).astype(np.int32)


def step_of(precision: str, seed: int = 0) -> TrainStep:
    keras.utils.set_random_seed(seed)
    config = TrainConfig(mixed_precision=precision, base_learning_rate=0.02, training_number_of_steps=STEPS, seed=seed)
    return make_train_step(build_model(NETWORK), config)


def last_losses(precision: str, seed: int = 0) -> tuple[float, float]:
    """Returns the first loss, and the mean of the last 20 of 200 steps."""
    images, labels = pictures()
    step = step_of(precision, seed)
    losses = []
    for number in range(STEPS):
        part = slice(number * BATCH % 32, number * BATCH % 32 + BATCH)
        losses.append(step(images[part], labels[part])["cross_entropy"])
    return float(losses[0]), float(np.mean([float(loss) for loss in losses[-20:]]))


@pytest.mark.heavy
def test_the_loss_after_200_steps_is_that_of_float32():
    """As near to it as another seed of float32 comes."""
    runs = [last_losses("none", seed) for seed in range(3)]
    first, last = (np.array(column) for column in zip(*runs, strict=True))
    noise = float(last.max() - last.min())
    assert noise < 0.25 * float((first - last).min()), "what is learned is more than the noise"
    for precision in HALVES:
        _, found = last_losses(precision)
        assert abs(found - last[0]) <= noise, f"{precision}: {found}, float32 {last}"


@pytest.mark.heavy
@pytest.mark.parametrize("precision", HALVES)
def test_statistics_softmax_loss_and_weights_are_float32(precision):
    images, labels = pictures()
    step = step_of(precision)
    half = HALVES[precision]
    operations = traced_operations(step, images[:2], labels[:2])
    norms = [op for op in operations if op.type in ("FusedBatchNormV3", "FusedBatchNormGradV3")]
    assert norms and {op.inputs[0].dtype for op in norms} == {half}, "the maps are halved"
    assert {op.get_attr("U") for op in norms} == {tf.float32}, "mean, variance, scale and offset are not"
    losses = [op for op in operations if "SoftmaxCrossEntropy" in op.type or op.type in ("Softmax", "LogSoftmax")]
    assert losses and {op.inputs[0].dtype for op in losses} == {tf.float32}
    sums = [op for op in operations if op.type.startswith("ResourceApply")]
    assert {value.dtype for op in sums for value in op.inputs if value.dtype != tf.resource} == {tf.float32}
    resized = [op for op in operations if op.type in ("ResizeBilinear", "Einsum", "BatchMatMulV2")]
    assert {op.inputs[0].dtype for op in resized if op.inputs[0].shape[-1] == 9} <= {tf.float32}, "logits at full size"
    convolutions = {op.inputs[0].dtype for op in operations if op.type in ("Conv2D", "DepthwiseConv2dNative")}
    assert convolutions == {half}
    before = {name: value.dtype for name, value in step.state.items()}
    step(images[:2], labels[:2])
    held = [variable.value for variable in step.model.weights]
    assert {value.dtype for value in held} == {tf.float32}
    assert {kind for kind in before.values() if kind.is_floating} == {tf.float32}
    assert {layer.dtype_policy.name for layer in step.model.layers} == {"float32"}, "layers are as they were"
