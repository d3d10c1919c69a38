"""The exported graph against the Predictor, its parts against NumPy, and what is not in it."""

import dataclasses
import itertools

import numpy as np
import pytest
import tensorflow as tf
from conftest import case_config, fill, golden_cases, read_case
from golden import golden_image, golden_tensor
from networks import DECODER, SMALL, TINY, V3, lively, reduced

from deeplab_tf.arch import ARCHITECTURES
from deeplab_tf.arch.units import BatchNorm
from deeplab_tf.config import ExportConfig, Inference
from deeplab_tf.errors import DeepLabError
from deeplab_tf.inference.convolutions import _neighbours_by_reshaping
from deeplab_tf.inference.folded_graph import InferenceGraph, read_weights
from deeplab_tf.inference.graph import Segmentation, as_function, build_graph
from deeplab_tf.inference.predictor import predictor_of
from deeplab_tf.network.build import build_model
from deeplab_tf.network.graph import POINTWISE, After, Window
from deeplab_tf.network.wrapped import config_of
from deeplab_tf.weights.tf1 import variable_map

ALL = ("predictions", "probabilities")
ANY_SIZE = (None, None, None, 3)


def apart_graph_of(model, shape=ANY_SIZE, *, target="tensorflow", dtype=tf.uint8, **options):
    """The exported graph of a model, its large kernels apart from it."""
    options = ExportConfig(**{"outputs": ALL, "format": "saved_model", **options})
    return build_graph(Segmentation(config_of(model), read_weights(model), options, target), shape, dtype)


def graph_of(*args, **options):
    """The exported graph of a model."""
    return apart_graph_of(*args, **options).whole()


def photographs(height: int, width: int, count: int = 2) -> np.ndarray:
    return np.stack([golden_image(f"export{number}", height, width) for number in range(count)])


def assert_agrees(model, sizes, shape=ANY_SIZE, **options):
    """The graph gives what the Predictor gives, for a batch of each size."""
    run, predictor = as_function(graph_of(model, shape, **options), ALL), predictor_of(model)
    inference = Inference(options.get("inference_scales", (1.0,)), options.get("add_flipped_images", False))
    for height, width in sizes:
        images = photographs(height, width)
        found = run(tf.constant(images))
        expected = predictor.probabilities(images, inference)
        assert found["SemanticProbabilities"].shape == expected.shape
        # `lively` spreads the logits, so that rounding shows in the probabilities.
        np.testing.assert_allclose(found["SemanticProbabilities"], expected, atol=5e-5)
        differ = np.sum(found["SemanticPredictions"].numpy() != predictor.labels(images, inference))
        assert differ <= max(1, 1e-4 * images[..., 0].size), (height, width)
        assert found["SemanticPredictions"].dtype == tf.int32


# ---- whole networks


@pytest.fixture(scope="module")
def small():
    return lively(TINY)


@pytest.mark.heavy
def test_sizes_odd_and_even(small):
    assert_agrees(small, [(64, 97), (129, 128), (33, 34), (1, 20)])


@pytest.mark.heavy
def test_crop(small):
    model = lively(dataclasses.replace(TINY, crop_size=(97, 81)))
    assert_agrees(model, [(97, 81), (60, 70), (98, 40)])


def test_decoder():
    assert_agrees(lively(DECODER), [(64, 97), (65, 65)])


def test_argmax_before_upsampling():
    assert_agrees(lively(dataclasses.replace(TINY, prediction_with_upsampled_logits=False)), [(64, 97), (65, 66)])


@pytest.mark.heavy
def test_image_pyramid():
    assert_agrees(lively(dataclasses.replace(TINY, image_pyramid=(0.5, 1.0))), [(64, 97)])


@pytest.mark.heavy
def test_scales_and_flips(small):
    scales = {"inference_scales": (0.5, 1.0, 1.5)}
    assert_agrees(small, [(64, 97)], **scales, add_flipped_images=True)
    assert_agrees(small, [(65, 65)], **scales)
    assert_agrees(small, [(50, 97)], add_flipped_images=True)


@pytest.mark.heavy
def test_pooling_window_of_fixed_size():
    model = lively(dataclasses.replace(V3, crop_size=(129, 129)))
    assert_agrees(model, [(129, 129), (65, 98)])
    assert_agrees(model, [(65, 98)], inference_scales=(0.75, 1.0), add_flipped_images=True)
    run = as_function(graph_of(model), ALL)
    with pytest.raises(tf.errors.InvalidArgumentError):
        run(tf.constant(photographs(130, 129)))


def test_fixed_shape(small):
    assert_agrees(small, [(97, 65)], (2, 97, 65, 3))


def test_resizing_first(small):
    """official_release.md 6.3: predictions are resized back by nearest, probabilities bilinearly."""
    from deeplab_tf.data.transforms import resize_to_range
    from deeplab_tf.ops.images import resize_labels
    from deeplab_tf.ops.resizing import resize_bilinear

    limits = {"min_resize_value": 65, "max_resize_value": 97, "resize_factor": 16}
    run, image = as_function(graph_of(small, **limits), ALL), photographs(50, 83, 1)
    inside, _ = resize_to_range(tf.constant(image[0]), minimum=65, maximum=97, factor=16)
    assert inside.shape[:2] == (65, 97)
    found, predictor = run(tf.constant(image)), predictor_of(small)
    labels = resize_labels(predictor.labels(inside[None].numpy())[0], 50, 83)
    assert np.mean(found["SemanticPredictions"][0].numpy() == labels) >= 0.9999
    probabilities = resize_bilinear(tf.constant(predictor.probabilities(inside[None].numpy())), (50, 83))
    np.testing.assert_allclose(found["SemanticProbabilities"], probabilities, atol=5e-5)


def test_logits_at_the_stride_of_the_network(small):
    shape, image = (1, 65, 97, 3), photographs(65, 97, 1)
    options = {"outputs": ("logits",), "format": "tflite"}
    low = as_function(graph_of(small, shape, export_upsample="none", **options), ("logits",))(tf.constant(image))
    full = as_function(graph_of(small, shape, export_upsample="logits", **options), ("logits",))(tf.constant(image))
    expected = small(image.astype(np.float32), training=False)
    assert low["SemanticLogits"].shape == (1, 5, 7, 6) and full["SemanticLogits"].shape == (1, 65, 97, 6)
    np.testing.assert_allclose(low["SemanticLogits"], expected, atol=1e-4)
    np.testing.assert_allclose(
        tf.nn.softmax(full["SemanticLogits"]), predictor_of(small).probabilities(image), atol=5e-5
    )


FAMILIES = ["mobilenet_v2_os8", "mobilenet_edgetpu_os16", "mobilenet_v3_small_seg_cityscapes_os32"]
# Without the units that repeat the one before.
REDUCED = ["xception_65_v3plus_os8", "xception_71_dpc_cityscapes_os16"]


@pytest.mark.heavy
@pytest.mark.parametrize("case", [*FAMILIES, *REDUCED])
def test_every_family_at_the_size_of_its_golden(case, monkeypatch):
    values, _ = read_case(case)
    config = case_config(values)
    if case in REDUCED:
        monkeypatch.setitem(ARCHITECTURES, config.model_variant, reduced(ARCHITECTURES[config.model_variant]))
    model = build_model(config, zeros=True)
    fill(model)
    image = photographs(*config_of(model).crop_size, 1)
    graph_def = graph_of(model)
    assert_nothing_forbidden(graph_def)
    found = as_function(graph_def, ALL)(tf.constant(image))
    assert np.mean(found["SemanticPredictions"].numpy() == predictor_of(model).labels(image)) >= 0.9999


def test_the_cases_above_are_there():
    assert {*FAMILIES, *REDUCED} <= set(golden_cases())


# ---- what is not in it


def assert_nothing_forbidden(graph_def):
    kinds = {node.op for node in graph_def.node}
    assert not {kind for kind in kinds if "SpaceToBatch" in kind or "BatchToSpace" in kind}
    assert not {kind for kind in kinds if "Norm" in kind or "Variable" in kind or "Random" in kind or "Call" in kind}


@pytest.mark.parametrize("target", ["tensorflow", "tflite", "onnx"])
def test_atrous_convolutions_by_target(target):
    model = build_model(dataclasses.replace(SMALL, output_stride=8, atrous_rates=(3, 5)))
    graph_def = graph_of(model, (1, 65, 65, 3), target=target)
    assert_nothing_forbidden(graph_def)
    depthwise = [node for node in graph_def.node if node.op == "DepthwiseConv2dNative"]
    rates = [list(node.attr["dilations"].list.i) for node in depthwise]
    # MobileNetV2 at output stride 8: rate 2 from layer 8, rate 4 from layer 15 on; one more for each branch of ASPP.
    expected = {(1, 1, 1, 1)} if target == "tensorflow" else {(1, r, r, 1) for r in (1, 2, 3, 4, 5)}
    assert {tuple(r) for r in rates} == expected
    assert len(depthwise) == 17 + 2
    padded = {node.attr["padding"].s for node in depthwise if set(node.attr["dilations"].list.i) != {1}}
    assert padded == {"tensorflow": set(), "tflite": {b"SAME"}, "onnx": {b"EXPLICIT"}}[target]


@pytest.mark.heavy
def test_one_copy_of_the_weights_however_many_scales(small):
    def size(**options):
        return graph_of(small, **options).ByteSize()

    once = size()
    assert size(inference_scales=(0.5, 0.75, 1.0), add_flipped_images=True) < 2.5 * once
    kernels = sum(value.size for values in read_weights(small).values() for value in values.values())
    assert once < 4 * kernels * 1.6


def test_nothing_is_left_of_what_is_not_asked_for(small):
    graph_def = graph_of(small, outputs=("predictions",))
    kinds = [node.op for node in graph_def.node]
    assert "Softmax" not in kinds and kinds.count("TopKV2") == 1
    assert kinds.count("Conv2D") == sum(1 for layer in small.layers if type(layer).__name__ == "Conv2D")


# ---- convolutions


def correlate(x: np.ndarray, kernel: np.ndarray, rates) -> np.ndarray:
    """Atrous depthwise convolution, stride 1, zeros outside."""
    (rows, columns, _, _), (_, height, width, _) = kernel.shape, x.shape
    margins = [(side - 1) // 2 * rate for side, rate in zip((rows, columns), rates, strict=True)]
    padded = np.pad(x, ((0, 0), *((m, m) for m in margins), (0, 0)))
    parts = (
        padded[:, i * rates[0] : i * rates[0] + height, j * rates[1] : j * rates[1] + width] * kernel[i, j, :, 0]
        for i, j in itertools.product(range(rows), range(columns))
    )
    return sum(parts)


@pytest.mark.parametrize("rates", [(2, 2), (4, 4), (3, 5), (1, 6), (18, 18), (7, 1)])
@pytest.mark.parametrize("side", [3, 5])
@pytest.mark.parametrize("dynamic", [False, True])
def test_neighbours_by_reshaping(rates, side, dynamic):
    kernel = golden_tensor("a/depthwise_weights", (side, side, 4, 1))
    shape = [None, None, None, 4] if dynamic else None
    for height, width in [(9, 12), (17, 17), (8, 5), (1, 1), (3, 40)]:
        x = golden_tensor(f"x/{height}/weights", (2, height, width, 4))
        signature = [tf.TensorSpec(shape or x.shape)]
        run = tf.function(
            lambda x: _neighbours_by_reshaping(x, np.tile(kernel, (1, 1, rates[1], 1)), rates),
            input_signature=signature,
        )
        np.testing.assert_allclose(run(tf.constant(x)), correlate(x, kernel, rates), atol=1e-5)


def test_norms_are_folded():
    x = golden_tensor("x/weights", (1, 5, 5, 3))
    norm = {leaf: golden_tensor(f"n/{leaf}", (4,)) for leaf in ("gamma", "beta", "moving_mean", "moving_variance")}
    weights = {"a": {"kernel": golden_tensor("a/weights", (1, 1, 3, 4)), "bias": golden_tensor("a/biases", (4,))}}
    graph = InferenceGraph({**weights, "a.BatchNorm": norm}, target="tensorflow")
    plain = x @ weights["a"]["kernel"][0, 0] + weights["a"]["bias"]
    factor = norm["gamma"] / np.sqrt(norm["moving_variance"] + 0.25)
    expected = (plain - norm["moving_mean"]) * factor + norm["beta"]
    constants = BatchNorm(decay=0.9, epsilon=0.25)
    found = graph.conv(tf.constant(x), "a", 4, POINTWISE, After(bias=True, norm=constants))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    # A norm that follows something else stays an operation of its own.
    alone = graph.norm(tf.constant(plain.astype(np.float32)), "a/BatchNorm", constants)
    np.testing.assert_allclose(alone, expected, atol=1e-5)


def test_what_cannot_be_exported():
    weights = {"a": {"kernel": np.zeros((4, 4, 3, 1), np.float32)}, "b": {"kernel": np.zeros((3, 3, 3), np.float32)}}
    graph = InferenceGraph(weights, target="tensorflow")
    x = tf.zeros((1, 9, 9, 3))
    with pytest.raises(DeepLabError, match=r"kernel \(4, 4\), stride 1, rates \(2, 2\)"):
        graph.depthwise(x, "a", Window(4, rate=2), After())
    with pytest.raises(DeepLabError, match="layer b .Conv1D. cannot be exported"):
        graph.weighted("b", tf.keras.layers.Conv1D, x)


def test_weights_are_read_by_layer(small):
    weights = read_weights(small)
    names = {f"{layer.replace('.', '/')}" for layer in weights}
    assert names == {name.rpartition("/")[0] for name in variable_map(small)}
    first = variable_map(small)["Tiny/Conv/weights"]
    assert np.array_equal(weights["Tiny.Conv"]["kernel"], first)


def test_weights_come_in_last_and_once(small):
    """The graph while it is traced holds no kernel; the finished one has each that is used, folded, once."""
    apart, options = {}, ExportConfig(format="saved_model").for_path("a")
    segmentation = Segmentation(config_of(small), read_weights(small), options, "tensorflow")
    signature = [tf.TensorSpec((None, None, None, 3), tf.uint8, name="ImageTensor")]
    traced = tf.function(lambda images: segmentation(images, apart), input_signature=signature, autograph=False)
    traced = traced.get_concrete_function().graph.as_graph_def()
    largest = max(value.nbytes for value in apart.values())
    assert traced.ByteSize() < sum(value.nbytes for value in apart.values())
    assert not [node for node in traced.node if node.op == "Const" and node.ByteSize() > largest]
    graph_def = graph_of(small)
    assert sum(len(n.attr["value"].tensor.tensor_content) == largest for n in graph_def.node if n.op == "Const") == 1
    assert not [node.name for node in graph_def.node if node.op == "Placeholder" and node.name != "ImageTensor"]
