"""`deeplab-tf export`: each format with its certificate, of the embedded network and of real weights; or nothing."""

import dataclasses
import functools
import json
import os
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from commands import everything
from conftest import GOLDENS, ROOT
from exports import EMBEDDED, certificate_of, exported
from golden import golden_image
from networks import SMALL, lively

import deeplab_tf
from deeplab_tf import export as export_function
from deeplab_tf.config import ExportConfig, export
from deeplab_tf.exporting import formats
from deeplab_tf.exporting.export import export_opened, open_for_export
from deeplab_tf.inference.predict import predict
from deeplab_tf.inference.tflite.convert import LiteModel
from deeplab_tf.ops.images import read_image, resize_longest
from deeplab_tf.weights.model_directory import ModelCard, save_model
from deeplab_tf.weights.tf1 import Receipt, save_tf1_checkpoint

# ---- the embedded network, in every format


@functools.cache
def opened(checkpoint, **changes):
    """Weights that several exports begin with: the network and its predictor are made once."""
    return open_for_export(checkpoint, changes)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of pictures to calibrate on."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(4):
        image, _ = deeplab_tf.data.shapes.shapes_example(0, number)
        PIL.Image.fromarray(image).save(folder / f"{number}.png")
    return folder


@pytest.mark.heavy
def test_saved_model(tmp_path, capsys):
    path = exported(tmp_path, "saved")
    text = capsys.readouterr().out
    files = {"saved_model.pb", "certificate.json", "variables", "assets", "fingerprint.pb"}
    assert {entry.name for entry in path.iterdir()} == files and everything(tmp_path).isdisjoint({".partial"})
    found = certificate_of(path)
    assert found["agreement"] >= 0.9999 and found["images"] == 3 and found["min_agreement"] == 0.9999
    assert found["pixels"] == 129 * 129 + 128 * 129 + 129 * 128
    assert 0 <= found["largest_probability_difference"] < 1e-3
    assert found["miou"]["exported"] == pytest.approx(found["miou"]["keras"], abs=1e-4) and found["miou"]["keras"] > 0.4
    assert found["bytes"] == pytest.approx((path / "saved_model.pb").stat().st_size, rel=0.01)
    assert found["latency"]["median_ms"] > 0 and found["latency"]["size"] == [129, 129] and "cores" in found["machine"]
    kinds = {name: count for name, count in found["operations"].items() if "Conv2" in name}
    assert kinds == {"Conv2D": 22, "DepthwiseConv2dNative": 2}
    assert {"tensorflow", "keras"} <= set(found["versions"])
    assert found["output_stride"] == {"exported": 16, "from": "the model's own", "trained": 16}
    assert found["model"]["num_classes"] == 9 and found["class_names"][1] == "circle"
    assert found["checkpoint_sha256"] and found["dataset"] == "shapes"
    assert f"{100 * found['agreement']:.4f} % of {found['pixels']} pixels, 3 images" in text
    for row in ("largest probability difference", "mIoU", "size", "latency", "versions", "Operations: AddV2"):
        assert row in text
    assert f"Written: {path}" in text
    assert max(map(len, text[text.index("Operations") :].splitlines())) <= 120


@pytest.mark.heavy
def test_scales_and_flips_are_in_the_graph(tmp_path):
    (tmp_path / "saved").mkdir()  # an empty folder is filled
    path = exported(tmp_path, "saved", "--inference_scales=0.75", "--inference_scales=1.0", "--add_flipped_images")
    image = golden_image("scales", 70, 91)[None]
    found = tf.saved_model.load(str(path)).signatures["serving_default"](ImageTensor=tf.constant(image))
    _, model = deeplab_tf.load(EMBEDDED)
    assert np.mean(found["SemanticPredictions"] == predict(model, image, scales=(0.75, 1.0), flip=True)) >= 0.9999
    assert certificate_of(path)["options"]["inference_scales"] == [0.75, 1.0]


@pytest.mark.heavy
def test_frozen_graph_of_the_release(tmp_path):
    """Its command line: no format, a .pb to write, the graph's text beside it."""
    path = exported(tmp_path, "frozen.pb", "--crop_size=129", "--crop_size=129", "--save_inference_graph")
    assert everything(tmp_path) == {"frozen.pb", "frozen.pb.certificate.json", "inference_graph.pbtxt"}
    graph_def = tf.compat.v1.GraphDef.FromString(path.read_bytes())
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.import_graph_def(graph_def, name="")
        image = golden_image("frozen", 100, 81)[None]
        names = ("SemanticPredictions:0", "SemanticProbabilities:0")
        labels, probabilities = session.run(names, {"ImageTensor:0": image})
    _, model = deeplab_tf.load(EMBEDDED, crop_size=(129, 129))
    assert np.mean(labels == predict(model, image)) >= 0.9999
    assert probabilities.shape == (1, 100, 81, 9)


@pytest.mark.parametrize("precision", ["float32", "float16", "dynamic", "int8"])
def test_tflite(precision, photos, tmp_path):
    path = tmp_path / "a.tflite"
    if precision == "int8":
        flags = ("--crop_size=129,97", "--precision=int8", "--export_upsample=argmax")
        exported(tmp_path, path.name, *flags, f"--representative_images={photos}")
    else:
        options = ExportConfig(precision=precision, export_upsample="argmax", num_images=3)
        export_opened(opened(EMBEDDED, crop_size=(129, 97)), path, options)
    found = certificate_of(path)
    assert found["input_shape"] == [1, 129, 97, 3] and found["bytes"] == path.stat().st_size
    assert found["agreement"] >= {"float32": 0.9999, "float16": 0.999, "dynamic": 0.97, "int8": 0.9}[precision]
    assert found["largest_probability_difference"] is not None and "ai-edge-litert" in found["versions"]
    labels = LiteModel(path.read_bytes())(golden_image("lite", 129, 97)[None])[0]
    assert labels.dtype == np.int32 and labels.shape == (1, 129, 97)


@pytest.mark.heavy
def test_where_a_tflite_ends(tmp_path):
    """At logits as they are, or enlarged; at classes: test_tflite."""
    path = exported(tmp_path, "a.tflite", "--crop_size=129,97", "--export_upsample=none")
    (found,) = LiteModel(path.read_bytes())(golden_image("lite", 129, 97)[None])
    assert found.shape == (1, 33, 25, 9) and certificate_of(path)["agreement"] >= 0.9999
    options = ExportConfig(num_images=3, export_upsample="logits")
    export_opened(opened(EMBEDDED, crop_size=(129, 97)), tmp_path / "b.tflite", options)
    (found,) = LiteModel((tmp_path / "b.tflite").read_bytes())(golden_image("lite", 129, 97)[None])
    assert found.shape == (1, 129, 97, 9) and certificate_of(tmp_path / "b.tflite")["agreement"] >= 0.9999


@pytest.mark.heavy
def test_onnx(tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("tf2onnx"), pytest.importorskip("onnxruntime")
    path = exported(tmp_path, "folder", "--format=onnx")
    assert {entry.name for entry in path.iterdir()} == {"model.onnx", "certificate.json"}
    found = certificate_of(path)
    assert found["agreement"] >= 0.9999 and {"onnx", "onnxruntime", "tf2onnx"} <= set(found["versions"])
    (named,) = onnx.load_from_string((path / "model.onnx").read_bytes()).metadata_props
    assert named.key == "class_names" and json.loads(named.value) == found["class_names"]
    assert found["input_shape"] == [None, None, None, 3]


@pytest.mark.heavy
def test_own_images_and_labels_and_outputs_on_request(tmp_path):
    from deeplab_tf.data.shapes import write_shapes

    folder = write_shapes(tmp_path / "data", splits={"val": 2}, height=90, width=121)
    flags = (f"--images={folder / 'JPEGImages'}", f"--labels={folder / 'SegmentationClass'}")
    path = exported(tmp_path, "saved", *flags, "--outputs=predictions,logits", "--inference_scales=1.0")
    found = certificate_of(path)
    assert found["images"] == 2 and found["pixels"] == 2 * 90 * 121 and found["miou"]["keras"] > 0.3
    signature = tf.saved_model.load(str(path)).signatures["serving_default"]
    assert set(signature.structured_outputs) == {"SemanticPredictions", "SemanticLogits"}


def test_from_python(tmp_path):
    made = export_function(EMBEDDED, tmp_path / "a.tflite", ExportConfig(num_images=1), crop_size=(65, 65))
    assert made["agreement"] >= 0.9999
    assert json.loads(json.dumps(made)) == certificate_of(tmp_path / "a.tflite")


def test_without_a_crop_a_tflite_is_for_513(monkeypatch):
    """official_release.md 6.3: crop_size's default."""
    from deeplab_tf.exporting.export import RELEASE_CROP, _at_size, _input

    loaded = open_for_export(EMBEDDED).loaded
    options = ExportConfig().for_path("a.tflite")
    model, card = _at_size(loaded, options)
    assert RELEASE_CROP == (513, 513) == card.config.crop_size and model.input_shape == (None, 513, 513, 3)
    assert _input(card, options)[0] == (1, 513, 513, 3)
    assert _at_size(loaded, ExportConfig().for_path("saved"))[1].config.crop_size is None


# ---- the output stride


@pytest.fixture(scope="module")
def small():
    return lively(dataclasses.replace(SMALL, atrous_rates=(2, 4)))


@pytest.fixture
def directory(small, tmp_path):
    """A model directory of a small network that was trained at output stride 16."""
    card = ModelCard(dataclasses.replace(SMALL, atrous_rates=(2, 4)), output_stride=16)
    save_model(tmp_path / "model", small, Receipt("tests", "0" * 64, {}, {}), card=card)
    return tmp_path / "model"


def stride(source) -> tuple:
    config = source.loaded.card.config
    return config.output_stride, config.atrous_rates, source.stride_from, source.trained_stride


@pytest.mark.heavy
def test_the_trained_output_stride_is_the_default(directory, small, tmp_path):
    own, flag, default = "the model's own", "--output_stride", "the release's default for export"
    assert stride(open_for_export(directory)) == (16, (2, 4), own, 16)
    assert stride(open_for_export(directory / "model.ckpt")) == (16, (2, 4), own, 16)
    assert stride(open_for_export(directory, {"output_stride": 8})) == (8, (4, 8), flag, 16)
    save_tf1_checkpoint(small, tmp_path / "bare" / "model.ckpt")
    bare = tmp_path / "bare" / "model.ckpt"
    assert stride(open_for_export(bare, {"atrous_rates": (2, 4)})) == (8, (2, 4), default, None)
    assert stride(open_for_export(bare, {"output_stride": 16, "atrous_rates": (2, 4)})) == (16, (2, 4), flag, None)
    card = json.loads((directory / "deeplab.json").read_text())
    (directory / "deeplab.json").write_text(json.dumps({**card, "output_stride": None}))
    assert stride(open_for_export(directory)) == (8, (4, 8), default, None)


# ---- the command


@pytest.mark.heavy
def test_the_command_in_a_process_of_its_own(tmp_path):
    """Nothing on standard error, whatever the converters say."""
    command = [sys.executable, "-m", "deeplab_tf.tools.cli", "export", f"--checkpoint={EMBEDDED}", "--num_images=1"]
    command += [f"--export_path={tmp_path / 'a.tflite'}", "--crop_size=65,65"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=dict(os.environ))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(f"Written: {tmp_path / 'a.tflite'}\n")


# ---- Google's weights


@pytest.fixture(scope="module")
def pascal(shared):
    return shared / "real/deeplabv3_mnv2_dm05_pascal"


def real_data(shared) -> dict:
    """Options that compare file and model on photographs with labels."""
    data = shared / "real/voc_mini"
    return {"images": (f"{data}/JPEGImages",), "labels": f"{data}/SegmentationClass"}


def assert_fits_real_data(found: dict):
    assert found["images"] == 3 and found["output_stride"]["from"] == "the release's default for export"
    assert found["miou"]["exported"] == pytest.approx(found["miou"]["keras"], abs=0.01)


@pytest.mark.heavy
@pytest.mark.parametrize(("name", "output_stride"), [("a.pb", 8), ("saved", 16)])
def test_the_original_predictions_come_from_the_file(name, output_stride, pascal, shared, tmp_path):
    """Each stride and each of TensorFlow's formats once: they write the same graph. Of a.pb all that is asked of the
    formats below."""
    flags = ("--crop_size=513,513", "--output_stride=16", "--num_images=1")
    if name == "a.pb":
        data = real_data(shared)
        flags = (flags[0], f"--images={data['images'][0]}", f"--labels={data['labels']}")
    path = exported(tmp_path, name, *flags, checkpoint=pascal)
    if name == "a.pb":
        assert_fits_real_data(certificate_of(path))
    segment = formats.FORMATS[certificate_of(path)["options"]["format"]].open(path, ExportConfig().for_path(path))
    for photo in sorted((shared / "real/voc_mini/JPEGImages").iterdir()):
        golden = np.array(PIL.Image.open(GOLDENS / f"real/{photo.stem}_os{output_stride}_single.png"))
        found = segment(read_image(photo)[None])["predictions"]
        assert np.mean(found[0] == golden) >= 0.9999, photo.stem


@pytest.mark.heavy
def test_the_logits_of_the_published_tflite(pascal, shared, tmp_path):
    """Issue 4, acceptance 1: ours at 257 x 257, output stride 8, to 1e-4."""
    flags = ("--crop_size=257,257", "--output_stride=8", "--export_upsample=logits", "--num_images=1")
    ours = LiteModel(exported(tmp_path, "a.tflite", *flags, checkpoint=pascal).read_bytes())
    theirs = LiteModel((shared / "real/deeplabv3_257_mv_gpu.tflite").read_bytes())
    for photo in sorted((shared / "real/voc_mini/JPEGImages").iterdir()):
        image = np.full((1, 257, 257, 3), 127, np.uint8)
        small = resize_longest(read_image(photo), 257)
        image[0, : small.shape[0], : small.shape[1]] = small
        (found,), (expected,) = ours(image), theirs(image * np.float32(2 / 255) - 1)
        assert np.abs(found - expected).max() <= 1e-4


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["float32.tflite", "float16.tflite", "dynamic.tflite", "int8.tflite", "a.onnx"])
def test_real_weights_in_every_format(name, pascal, shared, tmp_path):
    if name == "a.onnx":
        pytest.importorskip("tf2onnx"), pytest.importorskip("onnxruntime")
    options, changes = real_data(shared), {}
    if name.endswith(".tflite"):
        options["precision"], changes = name.partition(".")[0], {"crop_size": (257, 257)}
    if name == "int8.tflite":  # issue 4, acceptance 3
        options |= {"representative_images": options["images"], "min_agreement": 0.96}
    assert_fits_real_data(export_opened(opened(pascal, **changes), tmp_path / name, ExportConfig(**options)))


# ---- tables


def test_the_names_of_formats_are_written_once():
    assert tuple(formats.FORMATS) == export.FORMATS
    assert {form.target for form in formats.FORMATS.values()} == {"tensorflow", "tflite", "onnx"}
