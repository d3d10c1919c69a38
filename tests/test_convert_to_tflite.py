"""`convert-to-tflite` with the command lines of the release's g3doc/quantize.md."""

import dataclasses
import json
import pathlib
import shlex

import keras
import numpy as np
import PIL.Image
import pytest
from commands import everything, finished, one_line

from deeplab_tf.data.shapes import FIRST_INDEX, shapes_example
from deeplab_tf.inference.tflite.convert import LiteModel
from deeplab_tf.network.build import build_model
from deeplab_tf.network.fake_quantization import FakeQuantize
from deeplab_tf.tools import convert_to_tflite, export_model
from deeplab_tf.weights.loading import open_model
from deeplab_tf.weights.model_directory import ModelCard, save_model
from deeplab_tf.weights.tf1 import Receipt, variable_map

SIDE = 129


def picture(number: int, height: int = SIDE) -> np.ndarray:
    return shapes_example(0, FIRST_INDEX["val"] + number, height=height, width=SIDE)[0]


def quantised() -> keras.Model:
    """The embedded network with the ranges that its maps have on two pictures, as quantised training finds them."""
    loaded = open_model("shapes_resnet", {"crop_size": (SIDE, SIDE)})
    model = build_model(dataclasses.replace(loaded.card.config, quantize_delay_step=0), zeros=True)
    weights = variable_map(model)
    for name, variable in variable_map(loaded.model).items():
        weights[name].assign(variable)
    layers = [layer for layer in model.layers if type(layer) is FakeQuantize]
    inputs = keras.Model(model.input, [layer.input for layer in layers])
    images = np.stack([picture(number) for number in (7, 8)]).astype(np.float32)
    for layer in layers:
        layer.min.assign(-64.0)
        layer.max.assign(64.0)
    for _ in range(2):  # the first time all maps are rounded coarsely
        for layer, maps in zip(layers, inputs(images, training=False), strict=True):
            layer.min.assign(min(0.0, float(np.min(maps))))
            layer.max.assign(max(0.0, float(np.max(maps))))
    return model


@pytest.fixture(scope="module")
def graphs(tmp_path_factory) -> pathlib.Path:
    """A folder with a network of quantised training, its frozen graph, and a picture."""
    folder = tmp_path_factory.mktemp("graphs")
    model = quantised()
    card = ModelCard(model.config, output_stride=16)
    save_model(folder / "model", model, Receipt("weights", {}, {}, ""), card=card)
    PIL.Image.fromarray(picture(0, 100)).save(folder / "street.png")
    line = f"--checkpoint_path={folder}/model --quantize_delay_step=0 --export_path={folder}/frozen_inference_graph.pb"
    assert finished(export_model, *shlex.split(line), "--num_images=1") == 0
    return folder


def converted(graphs: pathlib.Path, target: pathlib.Path, *flags: str, graph: str = "frozen_inference_graph.pb") -> int:
    line = (
        f"--quantized_graph_def_path={graphs}/{graph} --input_tensor_name=MobilenetV2/MobilenetV2/input:0 "
        f"--output_tflite_path={target}"
    )
    return finished(convert_to_tflite, *shlex.split(line), *flags)


@pytest.mark.heavy
def test_the_releases_command_line(graphs, tmp_path, capsys):
    """Its file takes bytes and gives classes, those of the frozen graph in nearly all pixels of the test image."""
    target = tmp_path / "frozen_inference_graph.tflite"
    assert converted(graphs, target, f"--test_image_path={graphs}/street.png") == 0
    told = capsys.readouterr().out
    assert "--input_tensor_name=MobilenetV2/MobilenetV2/input:0 has no effect" in told
    assert "agreement with the Keras model" in told and "ranges" in told and "of quantised training" in told
    certificate = json.loads(target.with_name(f"{target.name}.certificate.json").read_text())
    assert certificate["agreement"] > 0.97 and certificate["pixels"] == 100 * SIDE
    assert certificate["model"]["quantize_delay_step"] == 0 and certificate["options"]["precision"] == "int8"
    (classes,) = LiteModel(target.read_bytes())(picture(1)[None])
    assert classes.shape == (1, SIDE, SIDE) and len(np.unique(classes)) > 1
    assert converted(graphs, target) == 1
    assert f"--output_tflite_path={target}: {target} is there already" in one_line(capsys.readouterr().err)


def test_weights_without_ranges_need_pictures(graphs, tmp_path, capsys):
    line = f"--quantized_graph_def_path=shapes_resnet --output_tflite_path={tmp_path}/a.tflite"
    assert finished(convert_to_tflite, *shlex.split(line)) == 1
    assert "holds no ranges of quantised training" in one_line(capsys.readouterr().err)
    assert not list(tmp_path.glob("*.tflite*"))


def test_a_graph_whose_weights_are_others_now_is_refused(graphs, tmp_path, capsys):
    for name in ("frozen_inference_graph.pb", "frozen_inference_graph.pb.certificate.json"):
        (tmp_path / name).write_bytes((graphs / name).read_bytes())
    certificate = tmp_path / "frozen_inference_graph.pb.certificate.json"
    values = json.loads(certificate.read_text())
    certificate.write_text(json.dumps({**values, "checkpoint_sha256": "0" * 64}))
    assert converted(tmp_path, tmp_path / "a.tflite") == 1
    assert "whose weights have changed since" in one_line(capsys.readouterr().err)
    certificate.write_text(json.dumps({**values, "checkpoint": str(tmp_path / "gone/model")}))
    assert converted(tmp_path, tmp_path / "a.tflite") == 1
    assert "which cannot be read" in one_line(capsys.readouterr().err)
    assert not list(tmp_path.glob("*.tflite*"))


@pytest.mark.parametrize(
    ("target", "flag", "expected"),
    [
        ("a.bin", "--num_images=1", "expected a name that ends in .tflite"),
        ("a.tflite", "--output_tensor_name=logits/semantic/BiasAdd:0", "expected ArgMax:0"),
        ("a.tflite", "--num_images=0", "num_images=0"),
    ],
)
def test_mistakes_are_named_before_anything_starts(target, flag, expected, tmp_path, capsys):
    assert converted(tmp_path, tmp_path / target, flag) == 1
    assert expected in one_line(capsys.readouterr().err)
    assert not everything(tmp_path)
