"""Large kernels apart from their graph: in a SavedModel, for the TFLite converter and for tf2onnx."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from deeplab_tf.config import ExportConfig
from deeplab_tf.exporting.formats import FORMATS
from deeplab_tf.inference import graph_weights
from deeplab_tf.inference.graph import as_function
from deeplab_tf.inference.graph_weights import marked, weights_apart
from deeplab_tf.inference.tflite import convert
from deeplab_tf.inference.tflite.stand_ins import NotFilledError, filled

SHAPE = (1, 9, 12, 3)
LOGITS = ("logits",)


def drawn(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(0.0, 0.1, shape).astype(np.float32)


def network(end=lambda x: x, shape=SHAPE, *, channels=64):
    """A graph of three kernels of 64 KiB or more, one of them depthwise, a small one and biases."""

    def run(images):
        x = tf.cast(images, tf.float32)
        x = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(x, drawn(3, 3, 3, channels), 1, "SAME"), drawn(channels)))
        wide = drawn(1, 1, channels, 2048)
        x = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(x, wide, 1, "SAME"), drawn(2048)))
        x = tf.nn.depthwise_conv2d(x, drawn(3, 3, 2048, 1), [1, 1, 1, 1], "SAME")
        x = tf.nn.bias_add(tf.nn.conv2d(x, drawn(1, 1, 2048, 8), 1, "SAME"), drawn(8))
        return tf.identity(end(x), name="SemanticLogits")

    signature = [tf.TensorSpec(shape, tf.uint8, name="ImageTensor")]
    return tf.function(run, input_signature=signature).get_concrete_function().graph.as_graph_def()


def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, SHAPE).astype(np.uint8)


def answer(graph_def) -> np.ndarray:
    return as_function(graph_def, LOGITS)(tf.constant(picture()))["SemanticLogits"].numpy()


def assert_close(found, expected: np.ndarray):
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


def test_large_kernels_leave_the_graph():
    graph_def = network()
    before = graph_def.SerializeToString(deterministic=True)
    bare, kernels = weights_apart(graph_def)
    light, by_mark = marked(graph_def)
    assert graph_def.SerializeToString(deterministic=True) == before
    assert sorted(kernel.shape for kernel in kernels.values()) == [(1, 1, 64, 2048), (1, 1, 2048, 8), (3, 3, 2048, 1)]
    assert [node.name for node in bare.node] == [node.name for node in light.node] == [n.name for n in graph_def.node]
    assert {node.name for node in bare.node if node.op == "Placeholder"} == {"ImageTensor", *kernels}
    assert max(bare.ByteSize(), light.ByteSize()) < 40_000 < graph_def.ByteSize()
    assert len(by_mark) == 3 and all(
        np.array_equal(a, b) for a, b in zip(by_mark.values(), kernels.values(), strict=True)
    )
    nodes = {node.name: node.attr["value"].tensor for node in light.node}
    for (name, kernel), mark in zip(kernels.items(), by_mark, strict=True):
        assert np.array_equal(tf.make_ndarray(nodes[name]), np.full(kernel.shape, mark, np.float32))


def test_a_tflite_by_marks_is_the_one_without(monkeypatch):
    graph_def, used = network(), []
    plain = convert.convert(as_function(graph_def, LOGITS).get_concrete_function())
    monkeypatch.setattr(convert, "convert", lambda *args, **options: used.append(args))
    assert convert.convert_graph(graph_def, LOGITS) == plain and not used


@pytest.mark.parametrize(
    "end",
    [
        lambda x: x * tf.constant(drawn(8)),  # which the converter multiplies into the kernel before it
        lambda x: tf.matmul(x, tf.constant(drawn(1, 9, 8, 300))),  # four axes, and no kernel of a convolution
    ],
)
def test_what_marks_do_not_survive_is_converted_without(end):
    graph_def = network(end)
    light, kernels = marked(graph_def)
    with pytest.raises(NotFilledError):
        filled(convert._converted(as_function(light, LOGITS).get_concrete_function()), kernels)
    plain = convert.convert(as_function(graph_def, LOGITS).get_concrete_function())
    assert convert.convert_graph(graph_def, LOGITS) == plain
    assert_close(convert.LiteModel(plain)(picture())[0], answer(graph_def))


def test_an_onnx_file_holds_its_kernels(tmp_path, monkeypatch):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("tf2onnx"), pytest.importorskip("onnxruntime")
    graph_def, form, options = network(), FORMATS["onnx"], ExportConfig(format="onnx", outputs=LOGITS)
    form.write(graph_def, options, tmp_path / "apart.onnx", ())
    graph = onnx.load(tmp_path / "apart.onnx").graph
    onnx.checker.check_model(str(tmp_path / "apart.onnx"), full_check=True)
    assert [given.name for given in graph.input] == ["ImageTensor:0"]
    assert {constant.name for constant in graph.initializer} <= {name for node in graph.node for name in node.input}
    monkeypatch.setattr(graph_weights, "_LEAST_BYTES", 1 << 40)
    form.write(graph_def, options, tmp_path / "whole.onnx", ())
    assert form.operations(tmp_path / "apart.onnx") == form.operations(tmp_path / "whole.onnx")
    found, whole = (form.open(tmp_path / name, options)(picture())["logits"] for name in ("apart.onnx", "whole.onnx"))
    assert np.array_equal(found, whole)
    assert_close(found, answer(graph_def))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A SavedModel of 117 MB of kernels, and its graph."""
    path, graph_def = tmp_path_factory.mktemp("saved") / "model", network(shape=(None, None, None, 3), channels=14000)
    FORMATS["saved_model"].write(graph_def, ExportConfig(format="saved_model", outputs=LOGITS), path, ())
    return path, graph_def


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
    path, graph_def = saved
    done = subprocess.run([sys.executable, "-c", OPENED, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    # Weights that were constants took twenty times their size.
    assert int(done.stdout.split()[-1]) < 5 * graph_def.ByteSize()


@pytest.mark.heavy
def test_kernels_are_in_a_saved_model_once(saved):
    path, graph_def = saved
    assert (path / "saved_model.pb").stat().st_size < 1_000_000
    assert sum(f.stat().st_size for f in path.rglob("*") if f.is_file()) < graph_def.ByteSize() + 1_000_000
    run = tf.saved_model.load(str(path)).signatures["serving_default"]  # which keeps its variables by itself
    assert_close(run(ImageTensor=picture())["SemanticLogits"], answer(graph_def))
