"""`deeplab-tf export` with what is wrong, damaged or in the way: one line that says so, and nothing left behind."""

import contextlib
import dataclasses
import importlib
import json
import pathlib
import subprocess
import sys

import pytest
import tensorflow as tf
from commands import everything, finished, one_line
from conftest import ROOT
from exports import EMBEDDED, exported

import deeplab_tf
from deeplab_tf import files
from deeplab_tf.config import ExportConfig, ModelConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.exporting import formats
from deeplab_tf.exporting.target import target_of
from deeplab_tf.inference import convolutions, folded_graph
from deeplab_tf.network.build import build_model
from deeplab_tf.tools import export_model as tool
from deeplab_tf.weights import loading
from deeplab_tf.weights.model_directory import ModelCard, save_model
from deeplab_tf.weights.tf1 import Receipt

# The module: deeplab_tf.export is the function.
EXPORT = importlib.import_module("deeplab_tf.exporting.export")


def assert_refused(capsys, tmp_path, name: str, *flags: object, texts: tuple[str, ...], checkpoint: object = EMBEDDED):
    """The command fails with one line that has all `texts`, and leaves nothing."""
    before = everything(tmp_path)
    exported(tmp_path, name, *flags, checkpoint=checkpoint, status=1)
    message = one_line(capsys.readouterr().err)
    assert all(text in message for text in texts), message
    assert everything(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "flags"), [("saved", ()), ("a.pb", ()), ("new/folder/a.tflite", ("--crop_size=65,65",))]
)
def test_wrong_weights_never_come_out(name, flags, tmp_path, monkeypatch, capsys):
    read = folded_graph.read_weights

    def corrupt(model):
        weights = {layer: dict(values) for layer, values in read(model).items()}
        weights["aspp0"]["kernel"] = weights["aspp0"]["kernel"][..., ::-1]
        return weights

    monkeypatch.setattr(EXPORT, "read_weights", corrupt)
    texts = (name, "gives the Keras model's class in", "expected at least 99.99 %", "Nothing was written")
    assert_refused(capsys, tmp_path, name, *flags, texts=texts)


@pytest.mark.heavy
def test_the_silent_failure_of_the_converter_is_caught(tmp_path, monkeypatch, capsys):
    """feasibility.md section 3: a SavedModel of a tf.Module that holds a Keras model becomes a file without weights."""
    _, model = deeplab_tf.load(EMBEDDED, crop_size=(65, 65))

    def write(graph, options, path, representative):
        module = tf.Module()
        module.model = model
        signature = [tf.TensorSpec((1, 65, 65, 3), tf.float32)]
        module.run = tf.function(lambda x: tf.image.resize(model(x), (65, 65)), signature)
        tf.saved_model.save(module, str(tmp_path / "saved"), signatures=module.run)
        path.write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "saved")).convert())
        import shutil

        shutil.rmtree(tmp_path / "saved")

    form = dataclasses.replace(formats.FORMATS["tflite"], write=write)
    monkeypatch.setitem(formats.FORMATS, "tflite", form)
    assert_refused(capsys, tmp_path, "a.tflite", "--crop_size=65,65", texts=("expected at least 99.99 %",))


def test_operations_that_hide_an_atrous_convolution(tmp_path, monkeypatch, capsys):
    def depthwise(x, kernel, rates):
        kernel = kernel[:, :, : x.shape[-1]]
        return tf.nn.depthwise_conv2d(x, kernel, [1, 1, 1, 1], "SAME", dilations=rates)

    monkeypatch.setattr(convolutions, "_neighbours_by_reshaping", depthwise)
    card = ModelCard(ModelConfig("tiny", num_classes=2, aspp_convs_filters=16, output_stride=8), output_stride=8)
    save_model(tmp_path / "model", build_model(card.config), Receipt("tests", "0" * 64, {}, {}), card=card)
    texts = ("BatchToSpaceND, SpaceToBatchND, which other runtimes refuse; nothing was written",)
    assert_refused(capsys, tmp_path, "saved", texts=texts, checkpoint=tmp_path / "model")


EIGHT = ("--precision=int8", "--representative_images=/nowhere")
REFUSED = {
    "unknown format": ("x", ("--format=coreml",), ("unknown format 'coreml'",)),
    "format and ending": ("a.onnx", ("--format=tflite",), ("--format=tflite contradicts",)),
    "too small": (
        "a.tflite",
        (*EIGHT, "--crop_size=16,65"),
        ("--crop_size=16,65: too small for a tflite", "stride, 16"),
    ),
    "no ranges": ("a.tflite", ("--precision=int8",), ("representative_images", "about a hundred images")),
    "no such ranges": (
        "a.tflite",
        (*EIGHT, "--crop_size=65,65"),
        ("/nowhere", "no such file"),
    ),
    "no such images": ("saved", ("--images=/nowhere",), ("/nowhere", "no such file")),
    "labels alone": ("saved", ("--labels=/nowhere",), ("labels='/nowhere': needs --images",)),
    "not trained quantised": (
        "saved",
        ("--quantize_delay_step=0",),
        ("are missing: SmallResNet/preprocess_quant/min", "leave --quantize_delay_step out"),
    ),
    "contradiction": ("saved", ("--num_classes=21",), ("--num_classes=21 contradicts",)),
    "impossible agreement": (
        "a.tflite",
        ("--precision=dynamic", "--crop_size=65,65", "--min_agreement=1.0"),
        ("expected at least 100 %",),
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case, tmp_path, capsys):
    name, flags, texts = REFUSED[case]
    assert_refused(capsys, tmp_path, name, *flags, texts=texts)


def test_what_is_there_stays(tmp_path, capsys):
    for name in ("a.tflite", "a.tflite.certificate.json"):
        (tmp_path / name).write_text("mine")
        assert_refused(capsys, tmp_path, "a.tflite", texts=(f"--export_path={tmp_path}", "is there already"))
        assert (tmp_path / name).read_text() == "mine"
        (tmp_path / name).unlink()
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved/notes.txt").write_text("mine")
    assert_refused(capsys, tmp_path, "saved", texts=("is there already; choose another, or delete it",))
    (tmp_path / "file").write_text("mine")
    assert_refused(capsys, tmp_path, "file", texts=("is there already",))


def test_a_killed_export_is_repeated(tmp_path, monkeypatch):
    """The file comes last: a certificate of the same path without it is what is left."""
    certificate = tmp_path / "a.tflite.certificate.json"
    for file, is_left in ((tmp_path / "a.tflite", True), (tmp_path / "b.tflite", False)):
        certificate.write_text(json.dumps({"file": str(file)}))
        target = target_of(tmp_path / "a.tflite", ExportConfig().for_path("a.tflite"))
        with contextlib.nullcontext() if is_left else pytest.raises(DeepLabError, match="is there already"):
            target.check()
    moved = []
    with target.growing(ExportConfig()) as folder:
        for name in (target.export, target.certificate):
            (folder / name).write_text("whole")
        monkeypatch.setattr(files, "move", lambda source, place: moved.append(place.name))
    assert moved == [target.certificate, target.export]


def test_what_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    for target in (tmp_path / "file" / "a.tflite", pathlib.Path("/proc/nowhere/a.tflite")):
        assert finished(tool.run, f"--checkpoint_path={EMBEDDED}", f"--export_path={target}") == 1
        message = one_line(capsys.readouterr().err)
        assert f"--export_path={target}: cannot be written" in message


@pytest.mark.parametrize("name", ["a" * 300, f"{'a' * 300}.tflite"])
def test_a_name_that_is_too_long(name, tmp_path, capsys):
    assert_refused(capsys, tmp_path, name, "--crop_size=65,65", texts=("cannot be written (File name too long)",))


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["saved", "a.tflite"])
def test_a_full_disk(name, tmp_path):
    """A file may have 64 kB here. In a process of its own, which has this limit for itself."""
    command = (
        f"ulimit -f 64; exec {sys.executable} -m deeplab_tf.tools.cli export --checkpoint={EMBEDDED} --num_images=1"
    )
    command += f" --export_path={tmp_path / name} --crop_size=65,65"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and f"--export_path={tmp_path / name}: cannot be written" in one_line(done.stderr)
    assert not everything(tmp_path)


def test_a_backbone_has_nothing_to_export(tmp_path):
    config = ModelConfig(depth_multiplier=0.25)
    loaded = loading.Loaded(
        ModelCard(config, kind="backbone", source_checkpoint="imagenet"), None, Receipt("", "", {}, {}), {}, ()
    )
    opened = EXPORT.ExportSource(loaded, "--output_stride", None)
    with pytest.raises(DeepLabError, match="imagenet: a backbone without classes"):
        EXPORT.export_opened(opened, tmp_path / "a", ExportConfig())
