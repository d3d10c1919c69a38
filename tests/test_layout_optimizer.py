"""The layout optimizer of TensorFlow takes the graph of the step: a single operation it cannot lay out stops it."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from gpu_layout import laid_out
from step_operations import traced_operations
from test_train_step import small_batch, small_model

from deeplab_tf.config import TrainConfig
from deeplab_tf.network import layers
from deeplab_tf.network.layers import dropped
from deeplab_tf.training.step import make_train_step

_PLAIN = TrainConfig(drop_path_keep_prob=0.5, top_k_percent_pixels=0.5, hard_example_mining_step=10)
CASES = {
    "dropout": ("tiny", {}, _PLAIN),
    "parts and pyramid": (
        "tiny",
        {"image_pyramid": (0.5, 1.0), "all_scales": True},
        dataclasses.replace(_PLAIN, gradient_accumulation_steps=2, optimizer="adam", ema_decay=0.9),
    ),
    "quantised": ("mobilenet_v2", {"quantize_delay_step": 2}, TrainConfig(freeze_batch_norm=True)),
    "squeezed": ("mobilenet_v3_small_seg", {}, dataclasses.replace(_PLAIN, loss="lovasz", top_k_percent_pixels=1.0)),
}
HEAVY = ("quantised", "squeezed", "parts and pyramid")


def graph_of(case):
    variant, options, config = CASES[case]
    step = make_train_step(small_model(variant, **options), config)
    images, labels = small_batch()
    return step, step.compiled.get_concrete_function(tf.constant(images), tf.constant(labels)).graph


@pytest.mark.parametrize("case", [pytest.param(c, marks=[pytest.mark.heavy] * (c in HEAVY)) for c in CASES])
def test_the_step_is_laid_out_for_a_gpu(case):
    step, graph = graph_of(case)
    assert b"NCHW" in laid_out(graph)
    for op in traced_operations(step, *small_batch()):
        if op.type in ("Select", "SelectV2") and len(op.inputs[0].shape) == 4:
            assert [len(value.shape) for value in op.inputs] == [4, 4, 4], op.name


def test_tensorflows_own_dropout_stops_the_layout_optimizer(monkeypatch):
    """What the test above would find."""
    monkeypatch.setattr(
        layers, "dropped", lambda maps, rate, seed: tf.nn.experimental.stateless_dropout(maps, rate, seed=seed)
    )
    with pytest.raises(tf.errors.InvalidArgumentError, match="does not match size of permutation 4.*dropout"):
        laid_out(graph_of("dropout")[1])


def test_dropped_paths_are_laid_out_for_a_gpu():
    layer = layers.DropPath()
    layer.keep_prob, layer.step_seed = tf.constant(0.25), tf.constant([3, 4])
    kernel = tf.Variable(tf.ones([3, 3, 4, 4]))

    @tf.function
    def gradient(maps):
        with tf.GradientTape() as tape:
            for _ in range(2):
                maps = layer(tf.nn.relu(tf.nn.conv2d(maps, kernel, 1, "SAME")), training=True)
        return tape.gradient(maps, kernel)

    assert b"NCHW" in laid_out(gradient.get_concrete_function(tf.TensorSpec([2, 9, 9, 4])).graph)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("compiled", [False, True])
def test_the_bits_of_dropout_are_tensorflows(dtype, compiled):
    maps = np.random.default_rng(1).normal(size=(2, 5, 7, 8)).astype(np.float32)
    maps[0, 0] = -0.0
    maps[0, 1, :, :3] = [np.nan, np.inf, -np.inf]  # what is dropped is 0, whatever it was
    maps, upstream = tf.cast(maps, dtype), tf.cast(maps[::-1], dtype)
    seed = tf.constant([3, 2**33], tf.int64)

    def both(drop):
        with tf.GradientTape() as tape:
            tape.watch(maps)
            outputs = drop()
        return outputs, tape.gradient(outputs, maps, output_gradients=upstream)

    wrapped = tf.function(both) if compiled else both
    for rate in (0.1, 0.5):
        expected = wrapped(lambda: tf.nn.experimental.stateless_dropout(maps, rate, seed=seed))  # noqa: B023
        found = wrapped(lambda: dropped(maps, rate, seed))  # noqa: B023
        assert [value.numpy().tobytes() for value in found] == [value.numpy().tobytes() for value in expected]
        assert (found[0].numpy().astype(np.float32) == 0).mean() > rate / 2
