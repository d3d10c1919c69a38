"""Large kernels apart from their graph: in a SavedModel, for the TFLite converter and for tf2onnx."""

import gc
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from test_inference_graph import apart_graph_of

from deeplab_tf.config import ExportConfig, ModelConfig
from deeplab_tf.exporting.formats import FORMATS
from deeplab_tf.inference import graph_weights
from deeplab_tf.inference.graph import as_function
from deeplab_tf.inference.graph_weights import ApartGraph
from deeplab_tf.inference.tflite import convert
from deeplab_tf.inference.tflite.stand_ins import NotFilledError, filled
from deeplab_tf.network.build import build_model

SHAPE = (1, 9, 12, 3)
LOGITS = ("logits",)


def drawn(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(0.0, 0.1, shape).astype(np.float32)


def network(end=lambda x, kernel: x, shape=SHAPE, *, channels=64) -> ApartGraph:
    """A graph with three kernels apart from it, one of them depthwise, and with a small one and biases in it.

    end: of the last values and a function that makes another kernel of a shape.
    """
    kernels = {}

    def kernel(*shape):
        place = tf.compat.v1.placeholder(tf.float32, shape, name="Kernel")
        kernels[place.op.name] = drawn(*shape)
        return place

    def run(images):
        x = tf.cast(images, tf.float32)
        x = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(x, drawn(3, 3, 3, channels), 1, "SAME"), drawn(channels)))
        wide = kernel(1, 1, channels, 2048)
        x = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(x, wide, 1, "SAME"), drawn(2048)))
        x = tf.nn.depthwise_conv2d(x, kernel(3, 3, 2048, 1), [1, 1, 1, 1], "SAME")
        x = tf.nn.bias_add(tf.nn.conv2d(x, kernel(1, 1, 2048, 8), 1, "SAME"), drawn(8))
        return tf.identity(end(x, kernel), name="SemanticLogits")

    signature = [tf.TensorSpec(shape, tf.uint8, name="ImageTensor")]
    traced = tf.function(run, input_signature=signature).get_concrete_function()
    return ApartGraph(traced.graph.as_graph_def(), kernels)


def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, SHAPE).astype(np.uint8)


def answer(graph: ApartGraph) -> np.ndarray:
    return as_function(graph.whole(), LOGITS)(tf.constant(picture()))["SemanticLogits"].numpy()


def assert_close(found, expected: np.ndarray):
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


def test_kernels_in_their_graph_and_marks_for_them():
    graph = network()
    whole, (light, by_mark) = graph.whole(), graph.marked()
    assert [node.name for node in whole.node] == [node.name for node in light.node]
    assert [node.name for node in whole.node] == [node.name for node in graph.graph_def.node]
    assert {node.name for node in light.node if node.op == "Placeholder"} == {"ImageTensor"}
    assert light.ByteSize() < 40_000 < whole.ByteSize()
    held, marks = ({node.name: node.attr["value"].tensor for node in found.node} for found in (whole, light))
    assert len(by_mark) == 3
    for (name, kernel), (mark, marked) in zip(graph.kernels.items(), by_mark.items(), strict=True):
        assert marked is kernel and np.array_equal(tf.make_ndarray(held[name]), kernel)
        assert np.array_equal(tf.make_ndarray(marks[name]), np.full(kernel.shape, mark, np.float32))


def test_large_kernels_of_a_network_are_apart_from_its_graph(monkeypatch):
    monkeypatch.setattr(graph_weights, "_LEAST_BYTES", 1 << 12)
    model = build_model(ModelConfig("tiny", num_classes=3, crop_size=(33, 33)))
    assert not apart_graph_of(model).kernels and apart_graph_of(model, (1, 33, 33, 3), target="tflite").kernels
    monkeypatch.setattr(graph_weights, "_MANY_BYTES", 1 << 12)
    graph = apart_graph_of(model)
    constants = {node.name: node for node in graph.graph_def.node if node.op == "Const"}
    assert {node.name for node in graph.graph_def.node if node.op == "Placeholder"} == {"ImageTensor", *graph.kernels}
    assert graph.kernels and min(kernel.nbytes for kernel in graph.kernels.values()) >= 1 << 12
    assert max(node.ByteSize() for node in constants.values()) < (1 << 12) + 200
    kinds = {node.name: node.op for node in graph.graph_def.node}
    before = {kinds[n.input[0].partition(":")[0]] for n in graph.graph_def.node if n.op == "Relu"}
    assert "MatMul" in kinds.values() and "BiasAdd" in before and "Reshape" not in before  # which is after the ReLU


def test_a_tflite_by_marks_is_the_one_without(monkeypatch):
    graph, used = network(), []
    plain = convert.convert(as_function(graph.whole(), LOGITS).get_concrete_function())
    monkeypatch.setattr(convert, "convert", lambda *args, **options: used.append(args))
    assert convert.convert_graph(graph, LOGITS) == plain and not used


@pytest.mark.parametrize(
    "end",
    [
        lambda x, _: x * tf.constant(drawn(8)),  # which the converter multiplies into the kernel before it
        lambda x, kernel: tf.matmul(x, kernel(1, 9, 8, 300)),  # four axes, and no kernel of a convolution
    ],
)
def test_what_marks_do_not_survive_is_converted_without(end):
    graph = network(end)
    light, kernels = graph.marked()
    with pytest.raises(NotFilledError):
        filled(convert._converted(as_function(light, LOGITS).get_concrete_function()), kernels)
    plain = convert.convert(as_function(graph.whole(), LOGITS).get_concrete_function())
    assert convert.convert_graph(graph, LOGITS) == plain
    assert_close(convert.LiteModel(plain)(picture())[0], answer(graph))


def test_an_onnx_file_holds_its_kernels(tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("tf2onnx"), pytest.importorskip("onnxruntime")
    network_graph, form, options = network(), FORMATS["onnx"], ExportConfig(format="onnx", outputs=LOGITS)
    form.write(network_graph, options, tmp_path / "apart.onnx", ())
    graph = onnx.load(tmp_path / "apart.onnx").graph
    onnx.checker.check_model(str(tmp_path / "apart.onnx"), full_check=True)
    assert [given.name for given in graph.input] == ["ImageTensor:0"]
    assert {constant.name for constant in graph.initializer} <= {name for node in graph.node for name in node.input}
    form.write(ApartGraph(network_graph.whole(), {}), options, tmp_path / "whole.onnx", ())
    assert form.operations(tmp_path / "apart.onnx") == form.operations(tmp_path / "whole.onnx")
    found, whole = (form.open(tmp_path / name, options)(picture())["logits"] for name in ("apart.onnx", "whole.onnx"))
    assert np.array_equal(found, whole)
    assert_close(found, answer(network_graph))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A SavedModel of 117 MB of kernels, and its graph."""
    path, graph = tmp_path_factory.mktemp("saved") / "model", network(shape=(None, None, None, 3), channels=14000)
    kept = ApartGraph(graph.graph_def, dict(graph.kernels))
    FORMATS["saved_model"].write(graph, ExportConfig(format="saved_model", outputs=LOGITS), path, ())
    assert not graph.kernels
    return path, kept


# Linux counts the peak of the process that started this one into ru_maxrss; VmHWM begins with the program.
OPENED = r"""
import os, pathlib, re, resource, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import tensorflow as tf
def peak():
    status = pathlib.Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+)", status.read_text())[1] if status.exists() else None
    return int(found or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
image = tf.zeros((1, 9, 12, 3), tf.uint8)
content = tf.io.encode_png(image[0])
before = peak()
loaded = tf.saved_model.load(sys.argv[1])
for _ in range(2):
    loaded.signatures["serving_default"](ImageTensor=image)
    loaded.signatures["image_bytes"](image_bytes=content[None])
print((peak() - before) * 1024)
"""


@pytest.mark.heavy
def test_a_saved_model_opens_in_little_more_than_its_weights(saved):
    path, graph = saved
    done = subprocess.run([sys.executable, "-c", OPENED, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    # Weights that were constants took twenty times their size.
    assert int(done.stdout.split()[-1]) < 5 * sum(kernel.nbytes for kernel in graph.kernels.values())


@pytest.mark.heavy
def test_kernels_are_in_a_saved_model_once(saved):
    path, graph = saved
    assert (path / "saved_model.pb").stat().st_size < 2_000_000
    assert sum(f.stat().st_size for f in path.rglob("*") if f.is_file()) < graph.whole().ByteSize() + 1_000_000
    run = tf.saved_model.load(str(path)).signatures["serving_default"]  # which keeps its variables by itself
    gc.collect()
    assert_close(run(ImageTensor=picture())["SemanticLogits"], answer(graph))
