"""The heads of DeepLab-v1 and v2 against their Caffe networks written out by hand, and the decoders of v3+'s tables."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import fill
from golden import golden_tensor

from deeplab_tf.config import ModelConfig, TrainConfig
from deeplab_tf.network.build import build_model
from deeplab_tf.network.layers import Dropout
from deeplab_tf.network.model import MERGED
from deeplab_tf.training.step import make_train_step
from deeplab_tf.weights.tf1 import variable_map

V1 = ModelConfig(
    model_variant="vgg16",
    num_classes=3,
    output_stride=8,
    depth_multiplier=0.125,
    aspp_with_batch_norm=False,
    atrous_rates=(12,),
    fc_filters=16,
)
SIZE = (33, 57)


def images(count: int = 2, size=SIZE) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (count, *size, 3)).astype(np.float32)


class Caffe:
    """Caffe's layers on [b, h, w, c] arrays, with the golden weights of a model's variables."""

    def __init__(self, model: keras.Model):
        self.values = {n: golden_tensor(n, tuple(v.shape)).astype(np.float64) for n, v in variable_map(model).items()}

    def conv(self, x, name: str, *, pad: int = 0, hole: int = 1, stride: int = 1, relu: bool = True):
        """Convolution with `pad` zeros on every side and a kernel with `hole` - 1 zeros between its values."""
        kernel = self.values[f"{name}/weights"]
        side = (kernel.shape[0] - 1) * hole + 1
        holes = np.zeros((side, side, *kernel.shape[2:]))
        holes[::hole, ::hole] = kernel
        x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
        x = tf.nn.conv2d(x, holes, stride, "VALID").numpy() + self.values[f"{name}/biases"]
        return np.maximum(x, 0) if relu else x

    def pool(self, x, reduce, stride: int, padding: float):
        """3x3 pooling, one pixel of `padding` around."""
        x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=padding)
        windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
        return reduce(windows, axis=(-2, -1))[:, ::stride, ::stride]

    def vgg(self, x) -> dict[str, np.ndarray]:
        """Returns the mean-subtracted image and the five poolings."""
        x = x.astype(np.float64) - np.array([122.675, 116.669, 104.008])
        maps = {"image": x}
        for block, count in enumerate((2, 2, 3, 3, 3), start=1):
            hole = 2 if block == 5 else 1
            for n in range(1, count + 1):
                x = self.conv(x, f"vgg_16/conv{block}/conv{block}_{n}", pad=hole, hole=hole)
            x = self.pool(x, np.max, 2 if block < 4 else 1, -np.inf)
            maps[f"pool{block}"] = x
        return maps

    def fully_connected(self, x, suffix: str, kernel: int, hole: int):
        x = self.conv(x, f"vgg_16/fc6{suffix}", pad=(kernel - 1) * hole // 2, hole=hole)
        return self.conv(x, f"vgg_16/fc7{suffix}")


def assert_close(value, expected):
    assert value.shape == expected.shape
    assert np.max(np.abs(value - expected)) < 1e-4 * np.max(np.abs(expected))


@pytest.mark.parametrize(("kernel", "rate"), [(3, 12), (7, 4), (4, 4), (4, 8)])
def test_every_field_of_view_of_v1_is_its_caffe_network(kernel, rate):
    model = build_model(dataclasses.replace(V1, fc_kernel_size=kernel, atrous_rates=(rate,)))
    fill(model)
    caffe = Caffe(model)
    averaged = caffe.pool(caffe.vgg(images())["pool5"], np.mean, 1, 0.0)
    expected = caffe.conv(caffe.fully_connected(averaged, "", kernel, rate), "logits/semantic", relu=False)
    assert expected.shape == (2, 5, 8, 3) and np.std(expected) > 0.01
    assert_close(model(images(), training=False).numpy(), expected)


@pytest.mark.parametrize("crop", [None, SIZE])
def test_multi_scale_features_join_the_image_and_four_poolings(crop):
    model = build_model(dataclasses.replace(V1, multi_scale_features=True, crop_size=crop))
    fill(model)
    caffe = Caffe(model)
    maps = caffe.vgg(images())
    joined = [caffe.fully_connected(caffe.pool(maps["pool5"], np.mean, 1, 0.0), "", 3, 12)]
    for name, stride in {"image": 8, "pool1": 4, "pool2": 2, "pool3": 1, "pool4": 1}.items():
        x = caffe.conv(maps[name], f"multi_scale/{name}/conv1", pad=1, stride=stride)
        joined.append(caffe.conv(x, f"multi_scale/{name}/conv2"))
    joined = np.concatenate(joined, axis=-1)
    assert joined.shape[-1] == 16 + 5 * 128
    assert_close(model(images(), training=False).numpy(), caffe.conv(joined, "logits/semantic", relu=False))


@pytest.mark.parametrize("rates", [(6, 12, 18, 24), (2, 4, 8, 12)])
def test_aspp_of_v2_sums_a_network_for_each_rate(rates):
    model = build_model(dataclasses.replace(V1, atrous_rates=rates))
    fill(model)
    caffe, expected = Caffe(model), 0.0
    features = caffe.vgg(images())["pool5"]  # not averaged: v2's networks have no pool5a
    for n, rate in enumerate(rates):
        x = caffe.fully_connected(features, f"_{n + 1}", 3, rate)
        expected = expected + caffe.conv(x, "logits/semantic" + (f"_{n}" if n else ""), relu=False)
    assert_close(model(images(), training=False).numpy(), expected)


def test_v2_with_resnet_sums_one_convolution_a_rate():
    options = {"logits_kernel_size": 3, "atrous_rates": (6, 12, 18, 24)}
    config = dataclasses.replace(V1, model_variant="resnet_v1_18", depth_multiplier=1.0, **options)
    model = build_model(config)
    fill(model)
    features = keras.Model(model.input, model.get_layer("logits.semantic").input)(images(), training=False).numpy()
    caffe, expected = Caffe(model), 0.0
    for n, rate in enumerate(config.atrous_rates):
        name = "logits/semantic" + (f"_{n}" if n else "")
        expected = expected + caffe.conv(features, name, pad=rate, hole=rate, relu=False)
    assert_close(model(images(), training=False).numpy(), expected)


def test_fc6_and_fc7_drop_half_of_their_features_in_training():
    model = build_model(dataclasses.replace(V1, atrous_rates=(6, 12)))
    dropped = {layer.name: layer.rate for layer in model.layers if isinstance(layer, Dropout)}
    assert dropped == {f"vgg_16.fc{layer}_{n}.dropout": 0.5 for layer in (6, 7) for n in (1, 2)}
    tf.random.set_seed(0)
    fill(model)
    assert not np.allclose(model(images(), training=True), model(images(), training=False))


PYRAMID = dataclasses.replace(V1, image_pyramid=(0.5, 0.75, 1.0), atrous_rates=(2, 4), crop_size=(65, 65))


def test_three_scales_are_merged_by_their_maximum():
    model = build_model(PYRAMID, all_scales=True)
    fill(model)
    outputs = model(images(size=(65, 65)), training=False)
    scales = [outputs.pop(MERGED), *(outputs[f"logits_{scale:.2f}"] for scale in PYRAMID.image_pyramid)]
    assert set(outputs) == {"logits_0.50", "logits_0.75", "logits_1.00"}
    np.testing.assert_array_equal(scales[0], np.max([np.asarray(x) for x in scales[1:]], axis=0))
    single = build_model(dataclasses.replace(PYRAMID, image_pyramid=None), share_with=model)
    np.testing.assert_allclose(scales[3], single(images(size=(65, 65)), training=False), rtol=1e-5, atol=1e-5)


@pytest.mark.heavy
@pytest.mark.parametrize("upsample", [False, True])
def test_each_scale_and_their_maximum_have_a_loss(upsample):
    model = build_model(PYRAMID, all_scales=True)
    fill(model)
    labels = np.random.default_rng(1).integers(0, 3, (2, 65, 65)).astype(np.int32)
    labels[:, :9] = 255
    expected = 0.0
    for logits in model(images(size=(65, 65)), training=False).values():
        fitted = labels
        if upsample:
            logits = tf.raw_ops.ResizeBilinear(images=logits, size=(65, 65), align_corners=True)
        else:
            fitted = labels[:, ::8, ::8]  # the paper's: labels shrunk to the map of the network
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(np.where(fitted == 255, 0, fitted), logits).numpy()
        expected += losses[fitted != 255].mean()
    step = make_train_step(model, TrainConfig(upsample_logits=upsample, dropout=False, weight_decay=0.0))
    found = step(images(size=(65, 65)), labels)["cross_entropy"]
    assert float(found) == pytest.approx(expected, rel=1e-4)


# The decoders of arXiv 1802.02611, tables 1 and 2.

PLAIN = {"decoder_output_stride": (4,), "decoder_use_separable_conv": False, "depth_multiplier": 0.25}


@pytest.mark.parametrize(
    ("options", "kernels"),
    [
        ({}, {"0_1": (3, 3, 304, 256), "0_2": (3, 3, 256, 256)}),
        ({"decoder_convs": 1, "decoder_projection_filters": 8}, {"0_1": (3, 3, 264, 256)}),
        ({"decoder_convs": 2, "decoder_filters": 32}, {"0_1": (3, 3, 304, 32), "0_2": (3, 3, 32, 32)}),
        ({"decoder_convs": 3}, {"0_1": (3, 3, 304, 256), "0_2": (3, 3, 256, 256), "0_3": (3, 3, 256, 256)}),
        ({"decoder_convs": 1, "decoder_kernel_size": 1}, {"0_1": (1, 1, 304, 256)}),
        (
            {"decoder_convs": 1, "decoder_output_stride": (8, 4)},
            {"0_1": (3, 3, 304, 256), "0_1_1": (3, 3, 304, 256)},
        ),
    ],
    ids=str,
)
def test_decoders_of_the_tables(options, kernels):
    model = build_model(ModelConfig(**{**PLAIN, **options}))
    weights = {n: tuple(v.shape) for n, v in variable_map(model).items() if n.endswith("/weights")}
    found = {
        n.rpartition("conv")[2][:-8]: shape for n, shape in weights.items() if n.startswith("decoder/decoder_conv")
    }
    assert found == kernels
    projected = {shape[-1] for n, shape in weights.items() if n.startswith("decoder/feature_projection0")}
    assert projected == {options.get("decoder_projection_filters", 48)}


def test_separable_decoders_of_other_sizes():
    model = build_model(ModelConfig(decoder_output_stride=(4,), decoder_convs=3, decoder_kernel_size=5))
    names = [layer.name for layer in model.layers if layer.name.endswith("_depthwise") and "decoder" in layer.name]
    assert names == [f"decoder.decoder_conv{n}_depthwise" for n in range(3)]
    assert {model.get_layer(name).kernel_size for name in names} == {(5, 5)}
