"""Prediction at any size and scale, against a second, plain implementation of the release's rules."""

import dataclasses
import gc
import math

import numpy as np
import pytest
import tensorflow as tf
from golden import golden_image
from networks import TINY, TINY_DECODER, V3, lively

from deeplab_tf.arch import ARCHITECTURES
from deeplab_tf.config import Inference, ModelConfig, PredictConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.inference import predictor as predictor_module
from deeplab_tf.inference import tiles as tiles_module
from deeplab_tf.inference.predict import predict
from deeplab_tf.inference.predictor import predictor_of
from deeplab_tf.inference.tiles import segment, write_probabilities
from deeplab_tf.network.build import build_model
from deeplab_tf.network.sizes import logits_stride, padded_size
from deeplab_tf.network.wrapped import config_of
from deeplab_tf.ops.crf import densecrf
from deeplab_tf.ops.images import resize_longest
from deeplab_tf.ops.resizing import scale_dimension
from deeplab_tf.weights.tf1 import variable_map


@pytest.fixture(scope="module")
def small():
    return lively(TINY)


@pytest.fixture(scope="module")
def decoder():
    return lively(TINY_DECODER)


@pytest.fixture(scope="module")
def v3():
    return lively(V3)


def photograph(height: int, width: int, key: str = "photograph") -> np.ndarray:
    return golden_image(key, height, width)


# ---- the second implementation, from official_release.md 1.1, 1.14 and 1.15


def bilinear(maps: np.ndarray, size) -> np.ndarray:
    """Aligned corners, one axis after the other."""
    for axis, out in zip((1, 2), size, strict=True):
        length = maps.shape[axis]
        at = np.arange(out) * ((length - 1) / (out - 1) if out > 1 else 0.0)
        low = np.minimum(at.astype(int), length - 1)
        part = (at - low).reshape([-1 if a == axis else 1 for a in range(4)])
        high = np.minimum(low + 1, length - 1)
        maps = maps.take(low, axis) * (1 - part) + maps.take(high, axis) * part
    return maps


def scaled_size(size, scale: float) -> tuple[int, ...]:
    return tuple(math.trunc((float(d) - 1.0) * scale + 1.0) for d in size)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def wrapped_logits(model, images: np.ndarray, pyramid, *, scale_pooling: bool = True) -> np.ndarray:
    """1.14: a network of its own for each scale, built for the scaled crop; all logits on one canvas, merged."""
    config, size = config_of(model), images.shape[1:3]
    canvas = scaled_size(size, max(1.0, *pyramid) / logits_stride(config))
    values, merged = variable_map(model), []
    for scale in pyramid:
        crop, pooling = scaled_size(size, scale), config.image_pooling_crop_size
        if pooling and scale_pooling:
            pooling = scaled_size(pooling, scale)
        changes = {"crop_size": crop, "image_pooling_crop_size": pooling, "image_pyramid": None}
        network = build_model(dataclasses.replace(config, **changes))
        for name, variable in variable_map(network).items():
            variable.assign(values[name])
        logits = network(bilinear(images, crop).astype(np.float32), training=False).numpy()
        merged.append(bilinear(logits, canvas))
    return np.max(merged, 0) if config.merge_method == "max" else np.mean(merged, 0)


def padded(config: ModelConfig, images: np.ndarray, size) -> np.ndarray:
    canvas = np.tile(np.array(ARCHITECTURES[config.model_variant].pad_pixel), (len(images), *size, 1))
    canvas[:, : images.shape[1], : images.shape[2]] = images
    return canvas


def reference(model, images: np.ndarray, size, scales=(1.0,), flip: bool = False, **options) -> np.ndarray:
    """1.15: the mean of the probabilities over scales and flips; `size` is the padded one."""
    canvas, count = padded(config_of(model), images, size), len(images)
    inputs = np.concatenate([canvas, canvas[:, :, ::-1]]) if flip else canvas
    maps = []
    for scale in scales:
        logits = wrapped_logits(model, inputs, (scale,), **options)
        maps += [logits[:count], logits[count:, :, ::-1]] if flip else [logits]
    mean = np.mean([softmax(bilinear(logits, size)) for logits in maps], axis=0)
    return mean[:, : images.shape[1], : images.shape[2]]


def assert_predicts(model, images: np.ndarray, expected: np.ndarray, scales=(1.0,), flip: bool = False):
    """Labels and probabilities are the `expected` probabilities'; the classes vary."""
    found = predictor_of(model).probabilities(images, Inference(scales, flip))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-5)
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-5)
    labels = predict(model, images, scales=scales, flip=flip)
    assert (labels.dtype, labels.shape) == (np.int32, images.shape[:3])
    assert_clear_labels(labels, expected)


def assert_clear_labels(labels: np.ndarray, probabilities: np.ndarray):
    """Labels equal the arg max wherever the first is ahead of the second by more than rounding."""
    ordered = np.sort(probabilities, axis=-1)
    clear = ordered[..., -1] - ordered[..., -2] > 1e-4
    assert clear.mean() > 0.98
    np.testing.assert_array_equal(labels[clear], probabilities.argmax(-1)[clear])
    assert len(np.unique(labels)) >= 3


# ---- padded_size


@pytest.mark.parametrize(
    ("changes", "size", "expected"),
    [
        ({"crop_size": (513, 513)}, (375, 500), (513, 513)),
        ({"crop_size": (513, 513)}, (513, 513), (513, 513)),
        ({"crop_size": (513, 513)}, (514, 1), (529, 1)),
        ({"crop_size": (64, 100)}, (64, 100), (64, 100)),
        ({"crop_size": (64, 100)}, (65, 100), (65, 113)),
        ({}, (1, 1), (1, 1)),
        ({}, (2, 16), (17, 17)),
        ({}, (17, 18), (17, 33)),
        ({}, (375, 500), (385, 513)),
        ({"output_stride": 8}, (375, 500), (377, 505)),
        ({"output_stride": 32}, (375, 500), (385, 513)),
        ({"image_pooling_crop_size": (65, 97)}, (1, 200), (65, 209)),
        ({"image_pooling_crop_size": (66, 97)}, (40, 40), (81, 97)),
    ],
)
def test_padded_size(changes, size, expected):
    assert padded_size(dataclasses.replace(TINY, **changes), *size) == expected


# ---- the padding pixel

# official_release.md 1.2, 10 (trap 27) and the golden mean pixels: which variants are padded with the mean.
RGB_MEAN = (123.15, 115.90, 103.06)


@pytest.mark.parametrize("variant", ARCHITECTURES)
def test_padding_pixel_of_every_variant(variant):
    expected = RGB_MEAN if variant in ("resnet_v1_50", "resnet_v1_101") else (127.5, 127.5, 127.5)
    if variant in ("vgg16", "resnet_v1_101_caffe"):
        expected = (122.675, 116.669, 104.008)  # Caffe's mean, blue last
    if variant.endswith(("_pytorch", "_tf2")):
        expected = (128.0, 128.0, 128.0)  # of the letterbox
    if variant in ("resnet_v1_50_pytorch", "resnet_v1_101_pytorch"):
        expected = (123.675, 116.28, 103.53)  # 0.485, 0.456, 0.406 of torchvision's transforms, times 255
    assert ARCHITECTURES[variant].pad_pixel == expected


@pytest.mark.heavy
@pytest.mark.parametrize(
    "config",
    [
        dataclasses.replace(TINY, crop_size=(65, 97)),
        ModelConfig(model_variant="resnet_v1_50", num_classes=6, aspp_convs_filters=16, crop_size=(65, 97)),
    ],
    ids=["127.5", "mean"],
)
def test_padding_goes_into_the_network(config):
    model = lively(config)
    image = photograph(40, 71)[None]
    found = predictor_of(model).probabilities(image)
    by_hand = predictor_of(model).probabilities(padded(config, image, (65, 97)))[:, :40, :71]
    np.testing.assert_array_equal(found, by_hand)
    black = np.zeros((1, 65, 97, 3))
    black[:, :40, :71] = image
    assert np.abs(found - predictor_of(model).probabilities(black)[:, :40, :71]).max() > 1e-3


# ---- sizes and batches


@pytest.mark.parametrize("size", [(1, 1), (1, 90), (33, 7), (64, 64), (65, 65), (80, 97), (113, 50)])
def test_any_size(decoder, size):
    image = photograph(*size)[None]
    labels = predict(decoder, image)
    assert (labels.dtype, labels.shape) == (np.int32, (1, *size))
    expected = reference(decoder, image, padded_size(TINY_DECODER, *size))
    np.testing.assert_allclose(predictor_of(decoder).probabilities(image), expected, atol=2e-5)
    assert predict(decoder, image, scales=(0.5, 1.25), flip=True).shape == (1, *size)


def test_any_batch(decoder):
    images = np.stack([photograph(50, 81, key) for key in "abcde"])
    together = predict(decoder, images, scales=(1.0, 0.75), flip=True)
    assert together.shape == (5, 50, 81)
    for image, labels in zip(images, together, strict=True):
        np.testing.assert_array_equal(predict(decoder, image[None], scales=(1.0, 0.75), flip=True)[0], labels)


@pytest.mark.parametrize("kind", [np.int64, np.float32, np.float64, np.uint16])
def test_any_number_type(small, kind):
    image = photograph(40, 40)[None]
    np.testing.assert_array_equal(predict(small, image.astype(kind)), predict(small, image))
    np.testing.assert_array_equal(predict(small, image.tolist()), predict(small, image))


@pytest.mark.parametrize("shape", [(40, 40, 3), (1, 40, 40), (1, 40, 40, 4), (1, 0, 40, 3), (0, 40, 40, 3)])
def test_wrong_shape(small, shape):
    with pytest.raises(DeepLabError, match=r"images of shape .*expected \[b, h, w, 3\]"):
        predict(small, np.zeros(shape, np.uint8))


@pytest.mark.parametrize("scales", [(), (0.0,), (1.0, -0.5)])
def test_wrong_scales(small, scales):
    with pytest.raises(DeepLabError, match="scales=.*above 0"):
        predict(small, photograph(9, 9)[None], scales=scales)


def test_a_model_from_elsewhere():
    import keras

    inputs = keras.Input((None, None, 3))
    with pytest.raises(DeepLabError, match=r"deeplab_tf\.build_model"):
        predict(keras.Model(inputs, inputs), photograph(9, 9)[None])


@pytest.mark.heavy
def test_a_predictor_whose_model_is_gone():
    model = build_model(TINY)
    orphan = predictor_of(model)
    del model
    gc.collect()
    with pytest.raises(DeepLabError, match="is gone"):
        orphan.labels(photograph(9, 9)[None])


# ---- scales and flips


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("size", "scales", "flip"),
    [
        ((65, 81), (1.0,), True),
        ((65, 81), (0.5, 1.0, 1.25), True),
        ((50, 97), (1.0,), False),
        ((50, 97), (0.75,), False),
        ((50, 97), (1.75, 0.6), True),
    ],
)
def test_averaging(decoder, size, scales, flip):
    images = np.stack([photograph(*size, key) for key in "ab"])
    expected = reference(decoder, images, padded_size(TINY_DECODER, *size), scales, flip)
    assert_predicts(decoder, images, expected, scales, flip)


@pytest.mark.heavy
def test_averaging_with_a_crop():
    config = dataclasses.replace(TINY, crop_size=(80, 98))
    model, images, scales = lively(config), photograph(61, 98)[None], (0.5, 1.0, 1.5)
    assert_predicts(model, images, reference(model, images, (80, 98), scales, True), scales, True)


@pytest.mark.heavy
def test_averaging_of_mobilenet_v3_scales_the_pooling_crop(v3):
    images, scales = photograph(100, 120)[None], (0.75, 1.0)
    size = padded_size(V3, 100, 120)
    expected = reference(v3, images, size, scales, True)
    assert_predicts(v3, images, expected, scales, True)
    # The goldens cannot see this rule; here it moves probabilities by hundreds of times the tolerance.
    unscaled = reference(v3, images, size, scales, True, scale_pooling=False)
    assert np.abs(unscaled - expected).max() > 0.005


@pytest.mark.heavy
def test_mobilenet_v3_at_sizes_around_its_pooling_crop(v3):
    for size in [(1, 1), (66, 40)]:
        images = photograph(*size)[None]
        expected = reference(v3, images, padded_size(V3, *size))
        np.testing.assert_allclose(predictor_of(v3).probabilities(images), expected, atol=2e-5)
        assert predict(v3, images).shape == images.shape[:3]


# ---- options of the graph


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("pyramid", "merge"), [((0.5, 1.0, 1.5), "max"), ((0.5, 1.5), "avg"), ((0.75,), "max")], ids=["max", "avg", "one"]
)
def test_image_pyramid(pyramid, merge):
    config = dataclasses.replace(TINY_DECODER, image_pyramid=pyramid, merge_method=merge)
    model, images, size = lively(config), photograph(65, 90)[None], (65, 97)
    logits = wrapped_logits(model, padded(config, images, size), pyramid)
    assert_predicts(model, images, softmax(bilinear(logits, size))[:, :65, :90])
    # Averaging over scales runs each without the pyramid, also the scale 1 (release: predict_labels_multi_scale).
    if len(pyramid) == 3:
        scales = (1.0, 0.5)
        assert_predicts(model, images, reference(model, images, size, scales), scales)


@pytest.mark.heavy
def test_image_pyramid_with_a_pooling_crop():
    config = dataclasses.replace(V3, image_pyramid=(1.5, 1.0))
    model, images, size = lively(config), photograph(97, 97)[None], (97, 97)
    logits = wrapped_logits(model, padded(config, images, size), (1.5, 1.0))
    assert_predicts(model, images, softmax(bilinear(logits, size)))


@pytest.mark.heavy
def test_prediction_without_upsampled_logits():
    config = dataclasses.replace(TINY, prediction_with_upsampled_logits=False)
    model, images, size = lively(config), np.stack([photograph(70, 90, key) for key in "ab"]), (81, 97)
    logits = wrapped_logits(model, padded(config, images, size), (1.0,))
    assert logits.shape[1:3] == (6, 7)
    small = logits.argmax(-1)[..., None]
    enlarged = tf.raw_ops.ResizeNearestNeighbor(images=small, size=size, align_corners=True)
    labels = predict(model, images)
    np.testing.assert_array_equal(labels, enlarged[:, :70, :90, 0])
    assert labels.dtype == np.int32
    probabilities = predictor_of(model).probabilities(images)
    np.testing.assert_allclose(probabilities, bilinear(softmax(logits), size)[:, :70, :90], atol=2e-5)
    np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-5)
    # The other order is another result.
    usual = build_model(TINY, share_with=model)
    assert (predict(usual, images) != labels).mean() > 0.01
    # Averaging always upsamples first.
    scales = (0.5, 1.0)
    assert_predicts(model, images, reference(model, images, size, scales), scales)


# ---- one graph


class _Counted:
    """A network that counts how often it is traced."""

    def __init__(self, network, traces: list):
        self.network, self.traces = network, traces
        self.input_shape, self.layers = network.input_shape, network.layers

    def __call__(self, images, training):
        self.traces.append(tuple(images.shape))
        return self.network(images, training=training)


@pytest.fixture
def traces(monkeypatch):
    found = []
    monkeypatch.setattr(predictor_module, "build_model", lambda *a, **k: _Counted(build_model(*a, **k), found))
    return found


@pytest.mark.heavy
def test_one_graph_for_all_sizes_scales_and_batches(traces):
    model = lively(TINY_DECODER)
    for size in [(33, 33), (40, 65), (81, 20), (97, 97), (5, 130)]:
        predict(model, np.stack([photograph(*size)] * (1 + size[0] % 3)))
    predict(model, photograph(50, 50)[None], scales=(0.5, 1.0, 1.75), flip=True)
    assert len(traces) == 1


@pytest.mark.heavy
def test_a_crop_takes_larger_pictures_with_the_same_graph(traces):
    model = lively(dataclasses.replace(TINY, crop_size=(49, 49)))
    for size in [(33, 33), (49, 49), (81, 20)]:
        assert predict(model, photograph(*size)[None]).shape == (1, *size)
    assert len(traces) == 1


@pytest.mark.heavy
def test_one_graph_a_size_where_the_pooling_window_is_fixed(traces):
    model = lively(V3)
    for size in [(64, 64), (10, 65), (65, 65), (66, 65), (97, 65)]:
        predict(model, photograph(*size)[None])
    assert traces == [(None, 65, 65, 3), (None, 97, 65, 3)]


# ---- segment, write_probabilities


def test_segment_resizes_as_the_demo_does(small):
    image, options = photograph(60, 100), PredictConfig(longest_side=65)
    labels = segment(predictor_of(small), image, options)
    resized = predict(small, resize_longest(image, 65)[None])[..., None]
    assert resized.shape[1:3] == (39, 65)
    enlarged = tf.raw_ops.ResizeNearestNeighbor(images=resized, size=(60, 100), align_corners=True)
    np.testing.assert_array_equal(labels, enlarged[0, ..., 0])


def test_segment_passes_scales_and_flips_on(decoder):
    image = photograph(50, 70)
    options = PredictConfig(resize="none", eval_scales=(0.5, 1.5), add_flipped_images=True)
    expected = predict(decoder, image[None], scales=(0.5, 1.5), flip=True)[0]
    np.testing.assert_array_equal(segment(predictor_of(decoder), image, options), expected)


def test_write_probabilities_of_a_resized_picture(small, tmp_path):
    image, path = photograph(60, 100), str(tmp_path / "p.npy")
    write_probabilities(predictor_of(small), image, PredictConfig(longest_side=65), path)
    found = np.load(path)
    assert (found.dtype, found.shape) == (np.float32, (60, 100, 6))
    resized = predictor_of(small).probabilities(resize_longest(image, 65)[None])
    np.testing.assert_allclose(found, bilinear(resized, (60, 100))[0], atol=2e-5)
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-5)


# ---- the CRF

CRF = {"iterations": 3, "w1": 5.0, "w2": 2.0, "sigma_alpha": 20.0, "sigma_beta": 13.0, "sigma_gamma": 2.0}
CRF_OPTIONS = {"crf": True, **{f"crf_{name}": value for name, value in CRF.items()}}


def test_the_crf_follows_the_probabilities(small):
    images = np.stack([photograph(97, 129, key) for key in ("lively", "b")])
    found = predictor_of(small).probabilities(images, Inference((0.75, 1.0), flip=True))
    expected = [densecrf(image, part, **CRF).argmax(-1) for image, part in zip(images, found, strict=True)]
    labels = predict(small, images, scales=(0.75, 1.0), flip=True, crf=CRF)
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, expected)
    assert (labels != predict(small, images, scales=(0.75, 1.0), flip=True)).mean() > 0.005


def test_segment_refines_at_the_pictures_own_size(small):
    image, options = photograph(150, 200, "lively"), PredictConfig(longest_side=129, **CRF_OPTIONS)
    resized = predictor_of(small).probabilities(resize_longest(image, 129)[None])
    expected = densecrf(image, bilinear(resized, (150, 200))[0], **CRF).argmax(-1)
    labels = segment(predictor_of(small), image, options)
    assert (labels.dtype, labels.shape) == (np.int32, (150, 200))
    assert (labels == expected).mean() > 0.999
    assert (labels != segment(predictor_of(small), image, PredictConfig(longest_side=129))).mean() > 0.005


def test_write_probabilities_after_the_crf(small, tmp_path):
    image, path = photograph(60, 100), str(tmp_path / "p.npy")
    write_probabilities(predictor_of(small), image, PredictConfig(resize="none", **CRF_OPTIONS), path)
    expected = densecrf(image, predictor_of(small).probabilities(image[None])[0], **CRF)
    np.testing.assert_allclose(np.load(path), expected, atol=1e-5)


def test_the_crf_of_a_large_picture_runs_in_tiles(small, monkeypatch):
    image, sizes = photograph(300, 400, "lively"), []

    def counted(image, probabilities, **parameters):
        sizes.append(image.shape[:2])
        return densecrf(image, probabilities, **parameters)

    monkeypatch.setattr(tiles_module, "densecrf", counted)
    whole = segment(predictor_of(small), image, PredictConfig(longest_side=129, **CRF_OPTIONS))
    assert sizes == [(300, 400)]
    tiled = segment(predictor_of(small), image, PredictConfig(max_pixels=66_049, longest_side=129, **CRF_OPTIONS))
    assert len(sizes) == 1 + 4 and max(h * w for h, w in sizes[1:]) <= 66_049
    # The pairwise cost reaches a few sigma_alpha: what differs lies at the borders.
    assert len(np.unique(whole)) > 2 and (tiled == whole).mean() > 0.98


def test_scale_dimension_agrees():
    for size in (1, 2, 80, 321, 513, 769):
        for scale in (0.5, 0.6, 0.75, 1.0, 1.25, 1.5, 1.75, 1 / 8, 1.75 / 16):
            assert (scale_dimension(size, scale),) == scaled_size((size,), scale)
