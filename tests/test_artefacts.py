"""The exported formats: written, then run as a user of TensorFlow or onnxruntime runs them, without this package."""

import dataclasses
import functools
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from conftest import V3_HEAD
from golden import golden_image
from google.protobuf import text_format
from networks import DECODER, lively, reduced
from test_inference_graph import ALL, ANY_SIZE, apart_graph_of, graph_of

from deeplab_tf.arch import ARCHITECTURES
from deeplab_tf.config import ExportConfig, ModelConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.exporting.certificate import require_portable
from deeplab_tf.exporting.formats import FORMATS, write_graph_text
from deeplab_tf.inference import graph_weights
from deeplab_tf.inference.folded_graph import read_weights
from deeplab_tf.inference.graph import Segmentation, as_function, build_graph
from deeplab_tf.inference.graph_weights import ApartGraph
from deeplab_tf.inference.predictor import predictor_of
from deeplab_tf.ops.resizing import resize_bilinear

SHAPES = {"frozen_pb": (1, None, None, 3), "tflite": (1, 64, 97, 3)}
SHAPES |= dict.fromkeys(("saved_model", "onnx", "openvino"), ANY_SIZE)
# Written to a file and run by a Python without deeplab_tf; given a SavedModel, a frozen graph, images, an output file.
PLAIN = """
import json, os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
# TensorFlow asks where Keras lies; None answers "nowhere" to that, and an import of it fails.
sys.modules["deeplab_tf"] = sys.modules["keras"] = None
import numpy as np
import tensorflow as tf
images = np.load(sys.argv[3])
"""
SAVED_MODEL = """
loaded = tf.saved_model.load(sys.argv[1])
segment, encoded = loaded.signatures["serving_default"], loaded.signatures["image_bytes"]
found = {f"image {k}": v.numpy() for k, v in segment(ImageTensor=tf.constant(images)).items()}
contents = [tf.io.encode_png(image).numpy() for image in images]
contents[1] = tf.io.encode_png(images[1, :40, :50]).numpy()
found |= {f"bytes {k}": v.numpy() for k, v in encoded(image_bytes=tf.constant(contents)).items()}
"""
FROZEN = """
graph = tf.compat.v1.GraphDef.FromString(open(sys.argv[2], "rb").read())
with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    tf.import_graph_def(graph, name="")
    names = ("SemanticPredictions:0", "SemanticProbabilities:0")
    found |= dict(zip(names, session.run(names, {"ImageTensor:0": images[:1]})))
"""
SAVE = """
loaded = {name for name, module in sys.modules.items() if module}
assert not [name for name in loaded if name.partition(".")[0] in ("deeplab_tf", "keras")]
np.savez(sys.argv[4], **found)
"""


def assert_same_classes(found: np.ndarray, probabilities: np.ndarray, *, margin: float = 1e-4):
    """Classes [...] are those of the largest of `probabilities` [..., classes], but for near ties: another class may
    stand where its probability is within `margin` of the largest, in a thousandth of the pixels."""
    taken = np.take_along_axis(probabilities, np.asarray(found)[..., None], -1)[..., 0]
    behind = probabilities.max(-1) - taken
    assert behind.max() < margin and np.mean(behind > 0) <= 1e-3


@pytest.fixture(autouse=True, scope="module")
def kernels_of_small_networks_are_large():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph_weights, "_LEAST_BYTES", 1 << 10)
        patch.setattr(graph_weights, "_MANY_BYTES", 1)
        yield


@pytest.fixture(scope="module")
def model():
    return lively(dataclasses.replace(DECODER, output_stride=8))


def written(name: str, model, folder: pathlib.Path, **options):
    """Writes a format and returns its path and options."""
    form = FORMATS[name]
    options = {"format": name, "outputs": ("predictions",) if name == "tflite" else ALL, **options}
    path = folder / (form.file or "saved_model")
    form.write(apart_graph_of(model, SHAPES[name], target=form.target, **options), ExportConfig(**options), path, ())
    return path, ExportConfig(**options)


@pytest.fixture(scope="module")
def usual(model, tmp_path_factory):
    """What `written` returns for a format without options. Each file is written once, for tests that only read it."""
    return functools.cache(lambda name: written(name, model, tmp_path_factory.mktemp(name)))


@pytest.fixture(scope="module")
def without_the_package(usual, tmp_path_factory) -> tuple[np.ndarray, dict]:
    """Images, and what both formats of TensorFlow find in a Python where deeplab_tf and keras cannot be imported."""
    folder = tmp_path_factory.mktemp("plain")
    images = np.stack([golden_image(f"plain{number}", 66, 83) for number in range(2)])
    np.save(folder / "images.npy", images)
    (folder / "run.py").write_text(PLAIN + SAVED_MODEL + FROZEN + SAVE)
    paths = [usual(name)[0] for name in ("saved_model", "frozen_pb")]
    command = [sys.executable, "-I", folder / "run.py", *paths, folder / "images.npy", folder / "found.npz"]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    with np.load(folder / "found.npz") as arrays:
        return images, dict(arrays)


@pytest.mark.heavy
def test_saved_model_without_the_package(model, without_the_package):
    (images, found), predictor = without_the_package, predictor_of(model)
    probabilities = predictor.probabilities(images)
    assert_same_classes(found["image SemanticPredictions"], probabilities)
    np.testing.assert_allclose(found["image SemanticProbabilities"], probabilities, atol=5e-5)

    # Each encoded image is run by itself; beyond the smaller ones there is 255.
    labels, small = found["bytes SemanticPredictions"], images[1:, :40, :50]
    assert np.array_equal(found["bytes sizes"], [[66, 83], [40, 50]])
    assert_same_classes(labels[0], probabilities[0])
    assert_same_classes(labels[1, :40, :50], predictor.probabilities(small)[0])
    assert np.all(labels[1, 40:] == 255) and np.all(labels[1, :, 50:] == 255)
    found = found["bytes SemanticProbabilities"]
    np.testing.assert_allclose(found[1, :40, :50], predictor.probabilities(small)[0], atol=5e-5)


@pytest.mark.heavy
def test_frozen_graph_without_the_package(model, without_the_package):
    images, found = without_the_package
    probabilities = predictor_of(model).probabilities(images[:1])
    assert found["SemanticPredictions:0"].dtype == np.int32
    assert_same_classes(found["SemanticPredictions:0"], probabilities)
    np.testing.assert_allclose(found["SemanticProbabilities:0"], probabilities, atol=5e-5)


@pytest.mark.heavy
def test_jpegs_are_decoded_as_pillow_does(model, usual):
    import io

    import PIL.Image

    from deeplab_tf.ops.images import read_image

    path, _ = usual("saved_model")
    stream, image = io.BytesIO(), golden_image("jpeg", 48, 65)
    PIL.Image.fromarray(image).save(stream, "JPEG", quality=90)
    encoded = tf.saved_model.load(str(path)).signatures["image_bytes"]
    found = encoded(image_bytes=tf.constant([stream.getvalue()]))["SemanticPredictions"].numpy()
    expected = predictor_of(model).labels(read_image(stream.getvalue())[None])
    assert np.mean(found == expected) >= 0.9999
    grey = tf.constant([tf.io.encode_png(image[..., :1]).numpy()])
    found = encoded(image_bytes=grey)["SemanticPredictions"].numpy()
    assert np.mean(found == predictor_of(model).labels(np.repeat(image[None, ..., :1], 3, -1))) >= 0.9999


@pytest.mark.heavy
@pytest.mark.parametrize("name", FORMATS)
def test_each_format_runs_here(name, model, usual):
    if name == "onnx":
        pytest.importorskip("tf2onnx"), pytest.importorskip("onnxruntime")
    path, options = usual(name)
    run = FORMATS[name].open(path, options)
    sizes = [(64, 97)] if name == "tflite" else [(64, 97), (65, 65), (98, 33)]
    for height, width in sizes:
        image = golden_image("here", height, width)[None]
        found = run(image)
        assert set(found) == set(options.outputs)
        probabilities = predictor_of(model).probabilities(image)
        assert_same_classes(found["predictions"], probabilities)
        if "probabilities" in found:
            np.testing.assert_allclose(found["probabilities"], probabilities, atol=5e-5)
    operations = FORMATS[name].operations(path)
    depthwise = ("depthwise", "groupconvolution")  # OpenVINO's name
    assert sum(count for kind, count in operations.items() if kind.lower().startswith(depthwise)) == (
        0 if name == "onnx" else len([layer for layer in model.layers if "Depthwise" in type(layer).__name__])
    )
    kinds = {kind.replace("_", "").lower() for kind in operations}
    assert not {kind for kind in kinds if kind.startswith(("spacetobatch", "batchtospace", "flex"))}


@pytest.mark.heavy
def test_onnx_takes_batches(model, usual):
    pytest.importorskip("tf2onnx"), pytest.importorskip("onnxruntime")
    path, options = usual("onnx")
    images = np.stack([golden_image(f"batch{number}", 50, 66) for number in range(3)])
    found = FORMATS["onnx"].open(path, options)(images)
    assert_same_classes(found["predictions"], predictor_of(model).probabilities(images))


def test_sizes_in_onnx_that_no_scale_says_exactly(tmp_path):
    """tf2onnx writes a resize as a scale, for instance float32(7 / 3), from which runtimes calculate floor(7 / 3 * 3);
    onnxruntime refused to load a file in which that was 6."""
    pytest.importorskip("tf2onnx"), pytest.importorskip("onnxruntime")
    sizes = [(3, 7), (5, 13), (6, 6), (7, 3), (9, 33), (11, 47), (23, 89)]

    def resized(x):
        x = tf.cast(x, tf.float32)
        return tf.concat([resize_bilinear(resize_bilinear(x, size), (8, 9)) for size in sizes], -1, "SemanticLogits")

    run = tf.function(resized, input_signature=[tf.TensorSpec((1, 3, 5, 3), tf.uint8, name="ImageTensor")])
    options, form = ExportConfig(format="onnx", outputs=("logits",)), FORMATS["onnx"]
    graph = ApartGraph(run.get_concrete_function().graph.as_graph_def(), {})
    form.write(graph, options, tmp_path / "a.onnx", ())
    image = golden_image("scales", 3, 5)[None]
    np.testing.assert_allclose(form.open(tmp_path / "a.onnx", options)(image)["logits"], resized(image), atol=1e-3)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(DeepLabError, match=r"--format=onnx needs onnxruntime: pip install 'deeplab_tf\[onnx\]'"):
        FORMATS["onnx"].needs()


@pytest.mark.heavy
def test_signatures_of_the_saved_model(model, tmp_path):
    path, _ = written("saved_model", model, tmp_path, outputs=("logits",))
    signatures = tf.saved_model.load(str(path)).signatures
    assert set(signatures) == {"serving_default", "image_bytes"}
    given = signatures["serving_default"].structured_input_signature[1]
    assert given["ImageTensor"].dtype == tf.uint8 and given["ImageTensor"].shape.as_list() == [None, None, None, 3]
    assert set(signatures["serving_default"].structured_outputs) == {"SemanticLogits"}
    assert set(signatures["image_bytes"].structured_outputs) == {"SemanticLogits", "sizes"}


@pytest.fixture(scope="module")
def graph_def(model):
    return graph_of(model)


def test_the_weights_are_in_the_saved_model_once(graph_def, usual):
    path, _ = usual("saved_model")
    assert (path / "saved_model.pb").stat().st_size < 1.3 * graph_def.ByteSize()
    assert sum(file.stat().st_size for file in (path / "variables").iterdir()) < graph_def.ByteSize()


def test_the_text_of_a_graph_has_no_weights(model, tmp_path, monkeypatch):
    monkeypatch.setattr(graph_weights, "_MANY_BYTES", 1 << 30)
    graph_def = graph_of(model)
    write_graph_text(graph_def, tmp_path / "inference_graph.pbtxt")
    text = (tmp_path / "inference_graph.pbtxt").read_text()
    assert len(text) < 0.6 * graph_def.ByteSize()
    parsed = text_format.Parse(text, tf.compat.v1.GraphDef())
    assert [node.name for node in parsed.node] == [node.name for node in graph_def.node]
    assert {"ImageTensor", "SemanticPredictions", "SemanticProbabilities"} <= {node.name for node in parsed.node}
    tf.import_graph_def(parsed, name="")  # still a graph


def test_a_graph_as_a_function_keeps_its_names(graph_def):
    run = as_function(graph_def, ALL)
    assert list(run(tf.zeros((1, 33, 33, 3), tf.uint8))) == ["SemanticPredictions", "SemanticProbabilities"]


# ---- every family of networks

VGG = {"aspp_with_batch_norm": False, "output_stride": 8, "fc_filters": 32, "depth_multiplier": 0.25}
V3 = {**V3_HEAD, "image_pooling_crop_size": (65, 65), "output_stride": 16, "aspp_convs_filters": 32}
XCEPTION = {"atrous_rates": (12, 24, 36), "decoder_output_stride": (4,)}
FAMILIES = {
    "mobilenet_v1": {"depth_multiplier": 0.25},
    "mobilenet_v2": {"depth_multiplier": 0.25, "output_stride": 8, "decoder_output_stride": (4,)},
    "mobilenet_v2_pytorch": {"atrous_rates": (6, 12), "decoder_output_stride": (4,)},
    "mobilenet_v2_tf2": {"atrous_rates": (6, 12), "aspp_output_convs": 1},
    "mobilenet_v3_small_seg": {**V3, "depth_multiplier": 0.5},
    "mobilenet_v3_large_seg": {**V3, "depth_multiplier": 0.5, "output_stride": 32},
    "mobilenet_edgetpu": {"depth_multiplier": 0.5},
    # The rows of xception_65 are the same but for repeated ones.
    "xception_41": {**XCEPTION, "output_stride": 8, "multi_grid": (1, 2, 4)},
    "xception_71": {"use_bounded_activation": True},
    "resnet_v1_18_beta": {"atrous_rates": (6, 12, 18), "aspp_with_separable_conv": False},
    "resnet_v1_50_beta": {"atrous_rates": (6, 12, 18), "output_stride": 8, "multi_grid": (1, 2, 4)},
    "resnet_v1_101_caffe": {"aspp_with_batch_norm": False, "atrous_rates": (6, 12, 18), "logits_kernel_size": 3},
    "vgg16": {**VGG, "atrous_rates": (12,), "multi_scale_features": True},
    "nas_pnasnet": {"output_stride": 16, "nas_stem_output_num_conv_filters": 4},
    # It exists for sizes of k * 32 + 1 only.
    "nas_hnasnet": {"output_stride": 8, "nas_stem_output_num_conv_filters": 4, "crop_size": (97, 65)},
}


@pytest.mark.heavy
@pytest.mark.parametrize("variant", FAMILIES)
def test_every_family(variant, tmp_path, monkeypatch):
    """SavedModel, TFLite and ONNX agree with the Keras model, and hold no SpaceToBatch, BatchToSpace or Flex operation.
    One side of the picture is odd, the other even. The Keras models themselves are judged by the goldens."""
    monkeypatch.setitem(ARCHITECTURES, variant, reduced(ARCHITECTURES[variant]))
    narrow = {"num_classes": 7, "aspp_convs_filters": 32, "decoder_filters": 32, "crop_size": (81, 72)}
    config = ModelConfig(model_variant=variant, **{**narrow, **FAMILIES[variant]})
    model, image = lively(config), golden_image("family", *config.crop_size)[None]
    logits, weights = model(image.astype(np.float32), training=False), read_weights(model)
    expected = tf.nn.softmax(resize_bilinear(logits, config.crop_size)).numpy()
    assert np.unique(expected.argmax(-1)).size >= 3
    for name in ("saved_model", "tflite", "onnx"):
        if name == "onnx":
            pytest.importorskip("tf2onnx"), pytest.importorskip("onnxruntime")
        form, choice = FORMATS[name], ExportConfig(format=name).for_path("folder")
        segmentation = Segmentation(config, weights, choice, form.target)
        shape = (None, None, None, 3) if name == "saved_model" else image.shape
        path = tmp_path / (form.file or "saved_model")
        form.write(build_graph(segmentation, shape), choice, path, ())
        found = form.open(path, choice)(image)
        assert_same_classes(found["predictions"] if "predictions" in found else found["logits"].argmax(-1), expected)
        require_portable(form.operations(path), path)


def test_every_family_is_there():
    families = {name.partition("_")[0] for name in ARCHITECTURES}
    assert {name.partition("_")[0] for name in FAMILIES} | {"tiny", "small"} == families
    assert {name for name in ARCHITECTURES if name.startswith("mobilenet")} <= set(FAMILIES)


@pytest.mark.heavy
def test_an_onnx_file_without_its_scores(model, tmp_path, monkeypatch):
    """It is made from the file with scores, and holds nothing that only they needed."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("tf2onnx"), pytest.importorskip("onnxruntime")
    monkeypatch.delenv("TF2ONNX_CATCH_ERRORS", raising=False)
    path, options = written("onnx", model, tmp_path, outputs=("predictions", "probabilities"))
    assert "TF2ONNX_CATCH_ERRORS" not in os.environ
    smaller, alone = tmp_path / "smaller.onnx", dataclasses.replace(options, outputs=("predictions",))
    FORMATS["onnx"].without_scores(path, alone, smaller)
    graph, used = onnx.load(smaller).graph, set()
    onnx.checker.check_model(str(smaller))
    for node in graph.node:
        used |= set(node.input)
    assert [output.name for output in graph.output] == ["SemanticPredictions:0"]
    assert {constant.name for constant in graph.initializer} <= used
    assert "Softmax" not in {node.op_type for node in graph.node}
    image = golden_image("smaller", 50, 66)[None]
    both, one = FORMATS["onnx"].open(path, options)(image), FORMATS["onnx"].open(smaller, alone)(image)
    assert np.array_equal(both["predictions"], one["predictions"]) and set(one) == {"predictions"}
