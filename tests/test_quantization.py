"""Eight bits: what is measured, what rounding loses and what the biases take up, on a small network."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from golden import golden_image, golden_tensor
from networks import TINY, lively
from test_inference_graph import graph_of

from deeplab_tf.inference.graph import as_function
from deeplab_tf.inference.tflite.convert import LiteModel, convert, operations
from deeplab_tf.inference.tflite.file import convolutions, unpack
from deeplab_tf.inference.tflite.quantization import eight_bits, lost_by_rounding, observe
from deeplab_tf.weights.lite_format import schema

SIZE = (33, 49)


@pytest.fixture(scope="module")
def model():
    return lively(dataclasses.replace(TINY, crop_size=SIZE))


@pytest.fixture(scope="module")
def content(model):
    """Its float32 file, from pixels to logits of low resolution."""
    options = {"format": "tflite", "export_upsample": "none", "outputs": ("logits",)}
    graph_def = graph_of(model, (1, *SIZE, 3), target="tflite", dtype=np.float32, **options)
    return convert(as_function(graph_def, ("logits",)).get_concrete_function())


@pytest.fixture(scope="module")
def images():
    return [golden_image(f"eight{number}", *SIZE)[None].astype(np.float32) for number in range(3)]


def test_what_is_observed(content, images, model):
    seen = observe(content, images)
    file = unpack(content)
    (graph,) = file.subgraphs
    pixels = seen[int(graph.inputs[0])]
    assert pixels.low == 0 and pixels.high == max(image.max() for image in images)
    np.testing.assert_allclose(pixels.mean, np.mean(images, (0, 1, 2, 3)), rtol=1e-6)
    logits = seen[int(graph.outputs[0])]
    expected = np.concatenate([model(image, training=False).numpy() for image in images])
    np.testing.assert_allclose(logits.mean, expected.mean((0, 1, 2)), atol=1e-3)
    assert logits.low == pytest.approx(expected.min(), abs=1e-3)
    assert logits.high == pytest.approx(expected.max(), abs=1e-3)
    kernels = {int(operation.inputs[1]) for _, operation, _ in convolutions(file)}
    assert kernels.isdisjoint(seen) and len(seen) > len(kernels)


@pytest.mark.parametrize("depthwise", [False, True])
def test_lost_by_rounding(depthwise):
    kernel = golden_tensor("a/weights", (1, 3, 3, 5) if depthwise else (5, 3, 3, 2)).copy()
    kernel[(..., 4) if depthwise else 4] = 0.0  # nothing to scale by
    lost = lost_by_rounding(kernel, depthwise=depthwise)
    for channel in range(5):
        place = (..., channel) if depthwise else channel
        step = np.abs(kernel[place]).max() / 127
        expected = [w - (round(float(w / step)) * step if step else 0.0) for w in kernel[place].ravel()]
        np.testing.assert_allclose(lost[place].ravel(), expected, atol=1e-7)


@pytest.fixture(scope="module")
def two_layers():
    """A file of two convolutions with ReLU between them, its logits for images, and such images."""
    first, second = golden_tensor("a/weights", (3, 3, 3, 32)) / 64, golden_tensor("b/weights", (1, 1, 32, 8))

    @tf.function(input_signature=[tf.TensorSpec((1, *SIZE, 3))])
    def run(x):
        x = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(x, first, 2, "SAME"), np.full(32, 2.0, np.float32)))
        return tf.nn.bias_add(tf.nn.conv2d(x, second, 1, "SAME"), np.arange(8, dtype=np.float32))

    pictures = [golden_image(f"two{number}", *SIZE)[None].astype(np.float32) for number in range(8)]
    return convert(run.get_concrete_function()), [run(x).numpy() for x in pictures], pictures


def test_the_means_stay(two_layers, monkeypatch):
    """The mean errors of the classes are far smaller by the biases; on other images than those they came from too."""
    content, expected, pictures = two_layers

    def mean_errors(chosen):
        run = LiteModel(eight_bits(content, pictures[:4], uint8_io=False))
        errors = [run(pictures[number])[0] - expected[number] for number in chosen]
        return np.abs(np.mean(errors, (0, 1, 2, 3))).mean()

    corrected = mean_errors(range(4)), mean_errors(range(4, 8))
    monkeypatch.setattr(
        "deeplab_tf.inference.tflite.quantization.lost_by_rounding", lambda kernel, *, depthwise: 0.0 * kernel
    )
    assert corrected[0] < 0.4 * mean_errors(range(4))
    assert corrected[1] < 0.5 * mean_errors(range(4, 8))


def test_all_of_it_is_eight_bits(content, images, tmp_path):
    quantised = eight_bits(content, images)
    (tmp_path / "a.tflite").write_bytes(quantised)
    assert len(quantised) < 0.6 * len(content)
    found = operations(tmp_path / "a.tflite")
    assert found["CONV_2D"] == 15 and found["DEPTHWISE_CONV_2D"] == 5 and "DEQUANTIZE" not in found
    (graph,) = unpack(quantised).subgraphs
    kinds = schema().TensorType
    assert not [tensor.name for tensor in graph.tensors if tensor.type in (kinds.FLOAT32, kinds.FLOAT16)]
    assert {graph.tensors[index].type for index in (*graph.inputs, *graph.outputs)} == {kinds.UINT8}


def test_kernels_have_a_scale_for_each_channel(content, images):
    file = unpack(eight_bits(content, images))
    for graph, operation, depthwise in convolutions(file):
        kernel = graph.tensors[operation.inputs[1]]
        assert len(kernel.quantization.scale) == kernel.shape[3 if depthwise else 0]
        assert len(operation.inputs) == 3
