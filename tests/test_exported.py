"""Exported files in the place of a model: predict, eval, serve and Segmenter run them as the network they came from."""

import dataclasses
import functools
import json
import pathlib
import shutil

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from commands import finished, one_line
from exports import certificate_of
from golden import golden_image
from networks import lively
from record_files import example_of, write_records

import deeplab_tf
from deeplab_tf.benchmarks.inference import _original
from deeplab_tf.config import ExportConfig, Inference, ModelConfig, PredictConfig, ServeConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.exporting.export import export_opened, open_for_export
from deeplab_tf.inference import libraries
from deeplab_tf.inference.exported import open_export, open_runnable, settled_options
from deeplab_tf.inference.exported_file import open_openvino
from deeplab_tf.inference.predictor import Predictor, predictor_of
from deeplab_tf.inference.tiles import network_size, segment
from deeplab_tf.serving.engine import Engine
from deeplab_tf.tools import convert as convert_tool
from deeplab_tf.tools import eval as eval_tool
from deeplab_tf.tools import export_model as export_tool
from deeplab_tf.tools import predict as predict_tool
from deeplab_tf.weights.describing import describe_weights
from deeplab_tf.weights.exported import files_of, find_export
from deeplab_tf.weights.initialize import initialize
from deeplab_tf.weights.loading import open_model
from deeplab_tf.weights.model_directory import ModelCard, save_model
from deeplab_tf.weights.sources import sha256_of
from deeplab_tf.weights.tf1 import Receipt

NAMES, PALETTE = ("ground", "sky", "tree"), ((0, 0, 0), (10, 200, 30), (250, 120, 7))
CROP = (65, 65)
# Name of the file -> options of the export.
EXPORTS = {
    "saved": {"outputs": ("predictions", "probabilities")},
    "frozen.pb": {},
    "float.tflite": {"export_upsample": "argmax"},
    "scores.tflite": {},
    "small.tflite": {"export_upsample": "none", "uint8_io": False},
    "int8.tflite": {"precision": "int8", "export_upsample": "logits"},
    "net.onnx": {},
    "net.xml": {"outputs": ("predictions", "probabilities")},
}


def picture(number: int, height: int, width: int) -> np.ndarray:
    return golden_image(f"exported {number}", height, width)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> pathlib.Path:
    """A folder with a model directory, pictures, records and the model's exports."""
    folder = tmp_path_factory.mktemp("exported")
    model = lively(ModelConfig("tiny", num_classes=3))
    card = ModelCard(model.config, class_names=NAMES, palette=PALETTE, train_split="train", output_stride=16)
    save_model(folder / "model", model, Receipt("weights", {}, {}, ""), card=card)
    (folder / "photos").mkdir()
    examples = []
    for number, size in enumerate(((65, 65), (52, 65), (65, 40))):
        PIL.Image.fromarray(picture(number, *size)).save(folder / f"photos/{number}.png")
        label = picture(number + 9, *size)[..., 0] % 3
        examples.append(example_of(f"{number}.png", picture(number, *size), label))
    write_records(folder / "records", "val", examples)
    facts = {"name": "made", "class_names": NAMES, "palette": PALETTE, "splits": {"val": 3}}
    (folder / "records/dataset.json").write_text(json.dumps(facts))
    for name, options in EXPORTS.items():
        photos = (str(folder / "photos"),)
        ranges = {"representative_images": photos} if options.get("precision") == "int8" else {}
        config = ExportConfig(images=photos, num_images=1, **options, **ranges)
        crop = {"crop_size": CROP} if name.endswith(".tflite") else {}
        export_opened(open_for_export(folder / "model", crop), folder / name, config)
    return folder


def run(place: pathlib.Path, tmp_path: pathlib.Path, name: str, *flags: object) -> list[np.ndarray]:
    """Runs the command predict, and returns the class maps that it writes."""
    out = tmp_path / name.replace("/", "_")
    where = (f"--checkpoint={place / name}", f"--input={place}/photos", f"--output_dir={out}", "--save=raw")
    assert finished(predict_tool, *where, "--longest_side=65", *flags) == 0
    return [np.asarray(PIL.Image.open(out / f"{number}_raw.png")) for number in range(3)]


# ---- predict and eval


def test_an_openvino_model_is_two_files(place, tmp_path, capsys):
    """Both are certified: one that is missing, or not its own, is told; neither is written over."""
    copied = tmp_path / "net.xml"
    for end in (".xml", ".bin", ".xml.certificate.json"):
        shutil.copy(place / f"net{end}", tmp_path)
    assert find_export(copied).kind == "an OpenVINO model"
    weights = tmp_path / "net.bin"
    content = weights.read_bytes()
    weights.write_bytes(content[:-4] + bytes(4))
    with pytest.raises(DeepLabError, match=r"net\.xml: is not the file that its certificate describes"):
        open_runnable(copied)
    weights.unlink()
    with pytest.raises(DeepLabError, match=r"net\.bin: is missing"):
        open_runnable(copied)
    weights.write_bytes(b"mine")
    copied.unlink()
    (tmp_path / "net.xml.certificate.json").unlink()
    flags = (f"--checkpoint_path={place}/model", f"--export_path={copied}", "--num_images=1")
    assert finished(export_tool, *flags) == 1 and "net.bin is there already" in one_line(capsys.readouterr().err)
    assert weights.read_bytes() == b"mine"


def test_an_openvino_model_that_holds_more_than_computation(place, tmp_path):
    import openvino

    value = openvino.opset13.parameter([1, 4], np.float32)
    kept = openvino.opset13.read_value(value, "state")
    end, keep = openvino.opset13.result(kept), openvino.opset13.assign(kept, "state")
    model = openvino.Model([end], [keep], [value], "x")
    openvino.save_model(model, tmp_path / "x.xml", compress_to_fp16=False)
    with pytest.raises(DeepLabError, match="holds the operation (ReadValue|Assign) .* nothing was run"):
        open_openvino(tmp_path / "x.xml", ("predictions",))


def evaluated(place: pathlib.Path, tmp_path: pathlib.Path, name: str) -> dict:
    """Runs the command eval, and returns its scores."""
    logs = f"{tmp_path}/{name}.scores"
    flags = (f"--dataset_dir={place}/records", f"--eval_logdir={logs}", "--eval_crop_size=65,65")
    assert finished(eval_tool, f"--checkpoint={place / name}", *flags) == 0
    (line,) = pathlib.Path(logs, "metrics.jsonl").read_text().splitlines()
    return json.loads(line)


@pytest.fixture(scope="module")
def of_the_model(place, tmp_path_factory):
    """The class maps of the model, of a fixed size or not, and its scores, each made once."""

    @functools.cache
    def maps(*, fixed: bool) -> list[np.ndarray]:
        # Without a size each picture is padded as little as it needs.
        crop = (f"--crop_size={CROP[0]},{CROP[1]}",) if fixed else ()
        return run(place, tmp_path_factory.mktemp("maps"), "model", "--runtime=tf", *crop)

    return maps, evaluated(place, tmp_path_factory.mktemp("scores"), "model")


@pytest.mark.parametrize("name", EXPORTS)
def test_predict_and_eval_give_the_models_classes(name, place, of_the_model, tmp_path, capsys):
    agreement, (maps, expected) = 0.9 if name == "int8.tflite" else 0.999, of_the_model
    found = run(place, tmp_path, name)
    assert (
        np.mean([np.mean(a == b) for a, b in zip(found, maps(fixed=name.endswith(".tflite")), strict=True)])
        >= agreement
    )
    scores = evaluated(place, tmp_path, name)
    for key in ("pixel_accuracy", "eval/miou_1.0_overall"):
        assert scores[key] == pytest.approx(expected[key], abs=0.1 if name == "int8.tflite" else 2e-3)
    assert f" of deeplab-tf export, from {place}/model: images of " in capsys.readouterr().out


def test_scales_flips_and_probabilities_are_the_models(place):
    exported, model = open_runnable(place / "saved").model, predictor_of(open_model(place / "model").model)
    image = picture(0, 65, 65)[None]
    np.testing.assert_allclose(exported.probabilities(image), model.probabilities(image), atol=1e-4)
    for inference in (Inference(flip=True), Inference((1.0, 1.5), flip=True), Inference((0.5, 1.0)), Inference(crf={})):
        found, expected = exported.probabilities(image, inference), model.probabilities(image, inference)
        # Pictures of other scales are rounded to the bytes that the file takes.
        np.testing.assert_allclose(found, expected, atol=1e-4 if inference.scales == (1.0,) else 0.03)
        assert np.mean(exported.labels(image, inference) == model.labels(image, inference)) >= 0.99
    small = open_runnable(place / "small.tflite").model
    np.testing.assert_allclose(
        small.probabilities(image, Inference(flip=True)), model.probabilities(image, Inference(flip=True)), atol=1e-4
    )


@pytest.mark.parametrize("name", EXPORTS)
def test_files_are_set_beside_in_a_benchmark(name, place):
    """They get pictures of the sizes that they take, and give their classes."""
    export = find_export(place / name)
    run = _original(str(place / name), (65, 65))
    assert (_original(str(place / name), (49, 65)) is None) == (export.size is not None)
    if export.size in (None, (65, 65)):
        image = picture(0, 65, 65)[None]
        assert np.array_equal(run(image), open_export(export).model.labels(image))


def test_a_file_of_one_size_takes_any_picture(place):
    opened = open_runnable(place / "float.tflite")
    options = settled_options(opened, PredictConfig(), ())
    assert (opened.model.fixed_size, options.longest_side, options.resize) == (CROP, 65, "longest")
    large = picture(5, 130, 200)
    shrunk = network_size(large, PredictConfig(longest_side=65), CROP)
    assert shrunk.shape == (42, 65, 3)
    assert network_size(picture(5, 200, 20), PredictConfig(), (33, 65)).shape[0] == 33
    assert segment(opened.model, large, options).shape == (130, 200)
    tiled = segment(opened.model, large, PredictConfig(resize="none"))
    model = Predictor(opened.card.config, predictor_of(open_model(place / "model").model).backend)
    part = model.labels(large[None, :65, :65])[0]
    assert np.mean(tiled[:48, :48] == part[:48, :48]) >= 0.999
    with pytest.raises(DeepLabError, match="takes images of 65 x 65, and this one has 130 x 200; .*large_images=tile"):
        opened.model.labels(large[None])
    with pytest.raises(DeepLabError, match="--longest_side=66: .* takes images of 65 x 65; expected at most 65"):
        settled_options(opened, PredictConfig(longest_side=66), ("longest_side",))


def test_names_colours_and_server_are_the_certificates(place):
    for name in ("saved", "net.onnx", "float.tflite"):
        segmenter = deeplab_tf.Segmenter(place / name)
        assert (segmenter.class_names, segmenter.palette) == (NAMES, PALETTE)
        result = segmenter(picture(1, 40, 60))
        assert result.classes.shape == (40, 60) and set(result.shares) <= set(NAMES)
        opened = open_runnable(place / name)
        engine = Engine(opened.model, opened.card, ServeConfig())
        engine.prepare()
        assert engine.info()["runtime"] == opened.model.backend.name
    assert deeplab_tf.Segmenter(place / "saved")(picture(1, 40, 60)).probabilities.shape == (40, 60, 3)
    with pytest.raises(
        DeepLabError, match="needs probabilities, and .*net.onnx gives classes alone; export again with"
    ):
        deeplab_tf.Segmenter(place / "net.onnx")(picture(1, 40, 60)).probabilities.mean()


# ---- what a file cannot do


@pytest.mark.parametrize(
    ("name", "flags", "expected"),
    [
        ("net.onnx", ["--eval_scales=0.5,1.0"], "--eval_scales needs probabilities, and .* --outputs=predictions,prob"),
        ("float.tflite", ["--add_flipped_images"], "--add_flipped_images needs .* --export_upsample=logits"),
        ("float.tflite", ["--crf"], "--crf needs probabilities"),
        ("float.tflite", ["--save=probabilities"], "--save=probabilities needs probabilities"),
        (
            "small.tflite",
            ["--eval_scales=0.5,1.0"],
            "pads images to 65 x 65, those of other scales too; .*inference_scal",
        ),
        ("net.onnx", ["--output_stride=8"], r"--output_stride=8: .* is exported with output_stride=\d+; leave"),
        ("net.onnx", ["--runtime=tflite"], r"--runtime=tflite: .* an ONNX model, .*\(--runtime=onnx\)"),
        ("saved", ["--num_classes=5"], "num_classes"),
    ],
)
def test_what_a_file_cannot_do_is_one_line(name, flags, expected, place, tmp_path, capsys):
    where = (f"--checkpoint={place / name}", f"--input={place}/photos/0.png", f"--output_dir={tmp_path}/out")
    assert finished(predict_tool, *where, "--longest_side=65", *flags) == 1
    error = capsys.readouterr().err
    with pytest.raises(DeepLabError, match=expected):
        raise DeepLabError(one_line(error))


@pytest.mark.parametrize("name", ["saved", "net.onnx"])
def test_no_trainable_weights_are_in_a_file(name, place, tmp_path, capsys):
    expected = f"which holds no trainable weights; give what it was exported from, {place}/model \\(predict, eval"
    for function in (deeplab_tf.load, describe_weights, lambda path: initialize({"w": None}, path)):
        with pytest.raises(DeepLabError, match=expected):
            function(place / name)
    for tool, flag, target in (
        (convert_tool, "checkpoint", "output_dir"),
        (export_tool, "checkpoint_path", "export_path"),
    ):
        assert finished(tool, f"--{flag}={place / name}", f"--{target}={tmp_path}/out") == 1
        assert "holds no trainable weights" in one_line(capsys.readouterr().err)


@pytest.mark.parametrize(("name", "runtime"), [("float.tflite", "tflite"), ("net.onnx", "onnx")])
def test_a_missing_package_is_one_line(name, runtime, place, monkeypatch):
    gone = dataclasses.replace(libraries.LIBRARIES[runtime], packages={"no_such_package": "no-such-package"})
    monkeypatch.setitem(libraries.LIBRARIES, runtime, gone)
    with pytest.raises(
        DeepLabError, match=rf"{name}: to run an? .* needs .*: pip install 'deeplab_tf\[{gone.extra}\]'"
    ):
        open_runnable(place / name)


# ---- damaged and hostile files


def forged(path: pathlib.Path, place: pathlib.Path, name: str, **changes: object) -> pathlib.Path:
    """Gives a file or folder the certificate of another export, as if that were its own."""
    values = {**certificate_of(place / name), "sha256": sha256_of(*files_of(path)), **changes}
    target = path / "certificate.json" if path.is_dir() else path.with_name(f"{path.name}.certificate.json")
    target.write_text(json.dumps(values))
    return path


def test_a_changed_file_is_named(place, tmp_path):
    for name in ("float.tflite", "net.onnx", "frozen.pb"):
        whole = (place / name).read_bytes()
        (tmp_path / name).write_bytes(whole[:-7])
        shutil.copy(place / f"{name}.certificate.json", tmp_path)
        with pytest.raises(DeepLabError, match=f"{name}: is not the file that its certificate describes: damaged"):
            open_runnable(tmp_path / name)
        (tmp_path / name).write_bytes(b"\x1c\0\0\0TFL3" + bytes(40))
        with pytest.raises(DeepLabError, match=f"{name}: ") as error:
            open_runnable(forged(tmp_path / name, place, name)).model.labels(picture(0, 65, 65)[None])
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "change",
    [
        {"options": {}},
        {"options": {"format": "onnx", "outputs": ["classes"]}},
        {"options": None},
        {"input_shape": [1, 2]},
        {"input_shape": [None, "x", None, 3]},
        {"input_shape": None},
        {"model": {"model_variant": "none"}},
        {"class_names": ["a"]},
        {"palette": [[0, 0, 999]]},
        {"palette": 3},
        {"letterbox": "big"},
        {"dataset": ["x"]},
        {"output_stride": 16},
        {"checkpoint": {}, "image": {"channels": -1}},
    ],
)
def test_a_damaged_certificate_is_one_line(change, place, tmp_path):
    path = tmp_path / "net.onnx"
    shutil.copy(place / "net.onnx", path)
    with pytest.raises(DeepLabError, match=r"net.onnx.certificate.json: ") as error:
        open_runnable(forged(path, place, "net.onnx", **change))
    assert "\n" not in str(error.value)
    for content in (b"", b"\xff\xfe", b"[" * 100_000, b"3", b"{}"):
        path.with_name("net.onnx.certificate.json").write_bytes(content)
        with pytest.raises(DeepLabError, match=r"net.onnx.certificate.json: "):
            find_export(path)


def _python(images):
    tf.io.write_file("RAN", "python ran")
    return images[..., 0]


DOES_MORE = {
    "EagerPyFunc": lambda images: tf.py_function(_python, [images], tf.uint8),
    "PyFunc": lambda images: tf.numpy_function(_python, [images], tf.uint8),
    "ReadFile": lambda images: tf.io.decode_raw(tf.io.read_file("/etc/passwd"), tf.uint8),
    "MatchingFiles": lambda images: tf.strings.length(tf.io.matching_files("/etc/*")),
}


@pytest.mark.parametrize("operation", DOES_MORE)
def test_a_graph_that_does_more_than_to_compute_is_not_run(operation, place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, name="ImageTensor")])
    def segment(ImageTensor):  # noqa: N803 (the release's name)
        def inner(images):
            return tf.cast(DOES_MORE[operation](images), tf.int32)

        return {"SemanticPredictions": tf.cond(tf.size(ImageTensor) > 0, lambda: inner(ImageTensor), lambda: 0)}

    def plain(ImageTensor):  # noqa: N803
        return {"SemanticPredictions": tf.identity(DOES_MORE[operation](ImageTensor), name="SemanticPredictions")}

    for number, function in enumerate((segment, tf.function(plain, input_signature=segment.input_signature))):
        module = tf.Module()
        module.segment = function
        tf.saved_model.save(module, f"saved{number}", signatures={"serving_default": module.segment})
        with pytest.raises(DeepLabError, match=r"holds the operation \w+ \(.*\), which .*; nothing was run"):
            open_runnable(forged(tmp_path / f"saved{number}", place, "saved"))
    graph = function.get_concrete_function().graph.as_graph_def()
    (tmp_path / "frozen.pb").write_bytes(graph.SerializeToString())
    outputs = {"options": {"format": "frozen_pb", "outputs": ["predictions"]}}
    with pytest.raises(DeepLabError, match=f"frozen.pb: holds the operation {operation} "):
        open_runnable(forged(tmp_path / "frozen.pb", place, "frozen.pb", **outputs))
    assert not (tmp_path / "RAN").exists()


def test_onnx_that_reaches_beyond_its_file_is_not_read(place, tmp_path):
    import onnx

    model = onnx.load(place / "net.onnx")
    (tmp_path / "secret").write_bytes(bytes(4096))
    beyond = onnx.ModelProto.FromString(model.SerializeToString())
    constant = max(beyond.graph.initializer, key=lambda value: len(value.raw_data))
    constant.ClearField("raw_data")
    constant.data_location = onnx.TensorProto.EXTERNAL
    constant.external_data.add(key="location", value="../secret")
    custom = onnx.ModelProto.FromString(model.SerializeToString())
    custom.graph.node[0].domain = "com.evil"
    for number, (changed, expected) in enumerate(
        ((beyond, "keeps weights in other files"), (custom, r"holds the operation com.evil"))
    ):
        path = tmp_path / f"{number}.onnx"
        path.write_bytes(changed.SerializeToString())
        with pytest.raises(DeepLabError, match=expected):
            open_runnable(forged(path, place, "net.onnx"))
