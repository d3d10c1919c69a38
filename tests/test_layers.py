"""Operations of the release down to the last bit: what whole networks are too coarse to show."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from networks import reduced

from deeplab_tf.arch import ARCHITECTURES
from deeplab_tf.arch.units import BatchNorm
from deeplab_tf.config import ModelConfig
from deeplab_tf.network.build import build_model
from deeplab_tf.network.graph import POINTWISE, After, Graph, Window
from deeplab_tf.network.layers import Bound, FusedBatchNorm, HardSwish, QSigmoid, ScalePixels, SubtractMean
from deeplab_tf.weights.tf1 import variable_map

# Standard deviation of a standard normal cut off at two deviations.
TRUNCATED = 0.87962566

# Pixels and gates, exactly.

BYTES = np.arange(256, dtype=np.float32)
# Where the gates bend, and a ramp between.
ACTIVATIONS = np.concatenate([np.linspace(-8, 8, 999), [-3, 0, 3]]).astype(np.float32)


def test_pixels_are_scaled_by_one_float32_factor():
    expected = BYTES * np.float32(2.0 / 255.0) - np.float32(1)
    other = BYTES / np.float32(127.5) - np.float32(1)
    assert np.sum(expected != other) == 111  # the usual formula differs in the last bit
    assert np.max(np.abs(expected - other)) < 1.3e-7
    np.testing.assert_array_equal(ScalePixels()(BYTES), expected)
    np.testing.assert_array_equal(tf.function(ScalePixels())(BYTES), expected)


def test_the_mean_pixel_is_subtracted_per_channel():
    images = np.zeros((1, 1, 2, 3), np.float32)
    expected = np.float32([[[[-123.15, -115.90, -103.06]] * 2]])
    np.testing.assert_array_equal(SubtractMean()(images), expected)


def test_q_sigmoid_multiplies_by_the_literal_of_the_release():
    relu6 = np.clip(ACTIVATIONS + np.float32(3), 0, 6)
    np.testing.assert_array_equal(QSigmoid()(ACTIVATIONS), relu6 * np.float32(0.16667))
    assert float(QSigmoid()(np.float32([9.0]))[0]) == np.float32(6) * np.float32(0.16667) > 1


def test_hard_swish_multiplies_by_a_sixth_in_float32():
    relu6 = np.clip(ACTIVATIONS + np.float32(3), 0, 6)
    np.testing.assert_array_equal(HardSwish()(ACTIVATIONS), ACTIVATIONS * relu6 * np.float32(1 / 6))


def test_bound_clips_both_sides():
    np.testing.assert_array_equal(Bound()(ACTIVATIONS), np.clip(ACTIVATIONS, -6, 6))


# Batch normalisation.


def test_the_moving_variance_takes_the_unbiased_variance():
    images = np.random.default_rng(2).standard_normal((2, 2, 2, 5)).astype(np.float32)  # N = 8 values a channel
    layer = FusedBatchNorm(momentum=0.9, epsilon=1e-3)
    value = layer(images, training=True)
    mean, variance = images.mean((0, 1, 2)), images.var((0, 1, 2))
    np.testing.assert_allclose(layer.moving_variance, 0.9 + 0.1 * variance * 8 / 7, rtol=1e-6)
    np.testing.assert_allclose(layer.moving_mean, 0.1 * mean, rtol=1e-5, atol=1e-7)
    # What the batch itself is divided by is the biased one.
    np.testing.assert_allclose(value, (images - mean) / np.sqrt(variance + 1e-3), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("frozen", [False, True])
def test_frozen_or_not_training_it_uses_and_keeps_the_moving_statistics(frozen):
    images = np.random.default_rng(3).standard_normal((2, 2, 2, 1)).astype(np.float32)
    layer = FusedBatchNorm(momentum=0.9, epsilon=1e-3)
    layer.build(images.shape)
    for weight, number in zip(layer.weights, (2.0, 0.5, -1.0, 4.0), strict=True):  # gamma, beta, mean, variance
        weight.assign([number])
    layer.trainable = not frozen
    value = layer(images, training=frozen)
    np.testing.assert_allclose(value, 2 * (images + 1) / np.sqrt(4 + 1e-3) + 0.5, rtol=1e-5)
    assert [float(weight[0]) for weight in (layer.moving_mean, layer.moving_variance)] == [-1.0, 4.0]


# Separable convolution of a ramp; the figures are those of the release's own tests (core/xception_test.py).

RAMP_4 = [[14, 28, 43, 26], [28, 48, 66, 37], [43, 66, 84, 46], [26, 37, 46, 22]]
RAMP_5 = [
    [14, 28, 43, 58, 34],
    [28, 48, 66, 84, 46],
    [43, 66, 84, 102, 55],
    [58, 84, 102, 120, 64],
    [34, 46, 55, 64, 30],
]


def ramp(*shape: int) -> np.ndarray:
    rows, columns = np.arange(shape[1])[:, None, None], np.arange(shape[2])[:, None]
    return np.broadcast_to(rows + columns, shape).astype(np.float32)


def separable_of_ramp(side: int, **options) -> np.ndarray:
    norm, images = BatchNorm(decay=0.9, epsilon=1e-12), keras.Input((side, side, 1))
    graph = Graph()
    x = graph.depthwise(images, "conv_depthwise", Window(3, **options), After(norm=norm))
    model = keras.Model(images, graph.conv(x, "conv_pointwise", 1, POINTWISE, After(norm=norm)))
    variables = variable_map(model)
    variables["conv_depthwise/depthwise_weights"].assign(ramp(1, 3, 3, 1)[0][..., None])
    variables["conv_pointwise/weights"].assign(np.ones((1, 1, 1, 1)))
    return np.asarray(model(ramp(1, side, side, 1), training=False))[0, ..., 0]


@pytest.mark.parametrize(("side", "expected"), [(4, RAMP_4), (5, RAMP_5)])
def test_separable_convolution_of_a_ramp(side, expected):
    np.testing.assert_allclose(separable_of_ramp(side), expected, rtol=1e-5)
    subsampled = np.asarray(expected)[::2, ::2]
    np.testing.assert_allclose(separable_of_ramp(side, stride=2, explicit_padding=True), subsampled, rtol=1e-5)


def test_same_padding_pads_an_even_map_on_the_far_side_only():
    np.testing.assert_allclose(separable_of_ramp(4, stride=2), [[48, 37], [37, 22]], rtol=1e-5)
    np.testing.assert_allclose(separable_of_ramp(5, stride=2), np.asarray(RAMP_5)[::2, ::2], rtol=1e-5)


def test_explicit_padding_is_for_strides_above_1_only():
    np.testing.assert_allclose(separable_of_ramp(4, explicit_padding=True), RAMP_4, rtol=1e-5)


# Initial weights.


def small_model(variant: str, **options) -> dict[str, np.ndarray]:
    keras.utils.set_random_seed(0)
    config = ModelConfig(model_variant=variant, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ARCHITECTURES, variant, reduced(ARCHITECTURES[variant]))
        return {name: np.asarray(variable) for name, variable in variable_map(build_model(config)).items()}


@functools.cache
def variables_of(case: str) -> dict[str, np.ndarray]:
    rates = {"atrous_rates": (6, 12), "decoder_output_stride": (4,)}
    plain = {"aspp_with_separable_conv": False, "decoder_use_separable_conv": False}
    cell = [{"op": "conv", "kernel": 1, "input": -1}, {"op": "conv", "kernel": 3, "rate": [1, 6], "input": 0}]
    cases = {
        "nas": ("nas_pnasnet", {}),
        "plain": ("mobilenet_v2", {**rates, **plain}),
        "cell": ("mobilenet_v2", {"dense_prediction_cell_json": cell}),
        "v2": ("mobilenet_v2", {"aspp_with_batch_norm": False, "logits_kernel_size": 3, "atrous_rates": (6, 12)}),
    }
    variant, options = cases.get(case, (case, rates if case == "mobilenet_v2" else {}))
    return small_model(variant, **options)


def pooled(case: str, scopes: tuple[str, ...], leaves: tuple[str, ...], limit) -> np.ndarray:
    """Returns all values of the chosen variables, each divided by `limit` of its shape (a number: by that)."""
    chosen = [
        value / (limit(value.shape) if callable(limit) else limit)
        for name, value in variables_of(case).items()
        if name.startswith(scopes) and name.rpartition("/")[2] in leaves
    ]
    return np.concatenate([value.ravel() for value in chosen])


def fan_in(shape) -> int:
    return int(np.prod(shape[:3]))


def glorot_limit(shape) -> float:
    return np.sqrt(6 / (fan_in(shape) + shape[0] * shape[1] * shape[3]))


def resnet_deviation(shape) -> float:
    return np.sqrt(1.3 * 2 / fan_in(shape))


def nas_limit(shape) -> float:
    return np.sqrt(3 * (1 / 3) / fan_in(shape))


BOTH = ("weights", "depthwise_weights")
PROJECTIONS = ("image_pooling/", "aspp0/", "concat_projection/", "decoder/feature_projection0/")


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("case", "scopes", "leaves", "deviation"),
    [
        ("xception_41", ("xception_41/",), ("weights",), 0.09),
        ("xception_41", ("xception_41/",), ("depthwise_weights",), 0.09),
        ("mobilenet_v2", ("MobilenetV2/",), BOTH, 0.09),
        ("mobilenet_v3_small_seg", ("MobilenetV3/",), BOTH, 0.09),
        ("mobilenet_edgetpu", ("MobilenetEdgeTPU/",), BOTH, 0.09),
        ("resnet_v1_18_beta", ("resnet_v1_18/",), ("weights",), resnet_deviation),
        ("resnet_v1_50", ("resnet_v1_50/",), ("weights",), resnet_deviation),
        ("mobilenet_v2", ("aspp1_", "aspp2_", "decoder/"), ("depthwise_weights",), 0.33),
        ("mobilenet_v2", ("aspp1_", "aspp2_", "decoder/decoder_conv"), ("weights",), 0.06),
        ("cell", ("meta_architecture/",), ("depthwise_weights",), 0.33),
        ("cell", ("meta_architecture/branch1",), ("weights",), 0.06),
        ("mobilenet_v2", ("logits/",), ("weights",), 0.01),
        ("v2", ("logits/",), ("weights",), 0.01),
    ],
)
def test_truncated_normal_weights(case, scopes, leaves, deviation):
    values = pooled(case, scopes, leaves, deviation)
    assert np.max(np.abs(values)) <= 2 + 1e-5
    assert np.std(values) == pytest.approx(TRUNCATED, rel=0.03)
    assert abs(np.mean(values)) < 5 / np.sqrt(values.size)


@pytest.mark.parametrize(
    ("case", "scopes", "leaves", "limit"),
    [
        ("nas", ("pnasnet/",), ("weights",), nas_limit),
        ("nas", ("pnasnet/",), ("depthwise_weights",), nas_limit),
        ("nas", ("pnasnet/",), ("pointwise_weights",), nas_limit),
        ("mobilenet_v2", PROJECTIONS, ("weights",), glorot_limit),
        ("plain", ("aspp1/", "aspp2/"), ("weights",), glorot_limit),
        ("plain", ("decoder/decoder_conv0/",), ("weights",), glorot_limit),
        ("cell", ("meta_architecture/branch0/", "meta_architecture/concat_projection/"), ("weights",), glorot_limit),
    ],
)
def test_uniform_weights(case, scopes, leaves, limit):
    values = pooled(case, scopes, leaves, limit)
    assert 0.99 < np.max(np.abs(values)) <= 1 + 1e-5
    assert np.std(values) == pytest.approx(1 / np.sqrt(3), rel=0.02)


@pytest.mark.parametrize("case", ["mobilenet_v3_small_seg", "nas", "v2"])
def test_biases_and_batch_norms_start_neutral(case):
    start = {"biases": 0, "beta": 0, "moving_mean": 0, "gamma": 1, "moving_variance": 1}
    found = set()
    for name, value in variables_of(case).items():
        leaf = name.rpartition("/")[2]
        if leaf in start:
            found.add(leaf)
            assert np.all(value == start[leaf]), name
    assert found == set(start)
