"""--resize=auto: a model sees pictures at the size at which it was trained and is evaluated."""

import dataclasses
import http.client
import json
import pathlib
import shutil
from typing import Any

import numpy as np
import PIL.Image
import pytest
from commands import finished
from networks import lively
from record_files import encoded, example_of, write_records, write_shapes

import deeplab_tf
from deeplab_tf.catalog.datasets import DATASETS, dataset_json
from deeplab_tf.config import (
    DataConfig,
    Experiment,
    LabelConfig,
    ModelConfig,
    PredictConfig,
    RunConfig,
    ServeConfig,
    TrainConfig,
)
from deeplab_tf.data.locate import locate_records
from deeplab_tf.data.pipeline import make_dataset
from deeplab_tf.data.record_sample import training_side
from deeplab_tf.errors import DeepLabError
from deeplab_tf.exporting.export import export
from deeplab_tf.inference.exported import open_runnable, settled_options
from deeplab_tf.inference.files import predict_files
from deeplab_tf.inference.predictor import predictor_of
from deeplab_tf.inference.tiles import network_size, segment_batch
from deeplab_tf.labelling.model import LabelModel
from deeplab_tf.serving.engine import Engine
from deeplab_tf.serving.reading import Settings, page_limits
from deeplab_tf.serving.server import serving
from deeplab_tf.tools import predict as predict_tool
from deeplab_tf.training.train import train
from deeplab_tf.weights.model_directory import ModelCard, save_model
from deeplab_tf.weights.tf1 import Receipt

TINY = ModelConfig("tiny", num_classes=9, aspp_convs_filters=16)
SIDE = 97


# ---- the rule


# Sizes of pictures, and the longest side that the network gets of each.
RULES: dict[str, Any] = {
    "nothing known": ({}, (None, None), (), {(97, 60): 513, (400, 513): 513, (3000, 4000): 513}),
    "trained small": ({}, (None, 97), (), {(97, 97): 97, (30, 49): 49, (30, 48): 97, (194, 9): 194, (195, 9): 97}),
    "trained large": ({}, (None, 4000), (), {(3000, 4000): 4000, (2000, 1500): 2000, (1999, 1): 4000, (8001, 9): 4000}),
    "letterbox": ({}, (512, None), (), {(97, 60): 512, (3000, 4000): 512}),
    "letterbox first": ({}, (512, 97), (), {(97, 97): 512}),
    "side": ({"longest_side": 300}, (None, 97), ("longest_side",), {(97, 97): 300, (300, 2): 300}),
    "side of 513": ({"longest_side": 513}, (None, 97), ("longest_side",), {(97, 97): 513}),
    "side in a letterbox": ({"longest_side": 300}, (512, None), ("longest_side",), {(97, 97): 300}),
    "longest": ({"resize": "longest"}, (512, 97), ("resize",), {(97, 97): 513}),
    "none": ({"resize": "none"}, (512, 97), ("resize",), {(97, 97): 97, (9, 4000): 4000}),
    "trained": ({"resize": "trained", "longest_side": 300}, (None, 97), ("resize",), {(150, 9): 150, (149, 9): 300}),
    "auto": ({"resize": "auto"}, (None, 97), ("resize",), {(97, 97): 97}),
}


@pytest.mark.parametrize("name", RULES)
def test_the_size_that_the_network_gets(name):
    options, (letterbox, side), given, sides = RULES[name]
    settled = PredictConfig(**options).for_model(letterbox, side, given)
    assert settled.resize != "auto" and settled.for_model(64, 33) == settled
    assert {size: settled.network_side(*size) for size in sides} == sides
    assert PredictConfig(**options).for_model(letterbox, side).resize == settled.resize or name == "side of 513"


def test_auto_that_nobody_has_settled_is_longest():
    assert PredictConfig(longest_side=97).network_side(300, 20) == 97


def test_a_file_of_one_size_gets_what_fits_into_it():
    options = PredictConfig(resize="trained", longest_side=97)
    sizes = {(97, 60): (97, 60), (150, 190): (96, 122), (10, 20): (48, 97), (400, 300): (97, 72)}
    for size, expected in sizes.items():
        assert network_size(np.zeros((*size, 3), np.uint8), options, (97, 129)).shape[:2] == expected


# ---- the size of the training pictures


def picture(height: int, width: int) -> bytes:
    return example_of(f"{height}x{width}", np.zeros((height, width, 3), np.uint8), np.zeros((height, width), np.uint8))


def test_the_median_longest_side_of_the_records(tmp_path):
    write_records(tmp_path, "train", [picture(*size) for size in ((40, 60), (30, 20), (200, 100), (80, 10), (70, 90))])
    data = DataConfig(dataset="shapes", dataset_dir=str(tmp_path))
    assert training_side(data, locate_records(data, "train")) == 80
    resized = dataclasses.replace(data, min_resize_value=50, max_resize_value=100)
    assert training_side(resized, locate_records(data, "train")) == 75
    write_records(tmp_path, "bad", [b"no example", b""])
    assert training_side(data, locate_records(data, "bad")) is None


# ---- a run


@pytest.fixture(scope="module")
def records(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("records")
    write_shapes(folder, "train", 6, (SIDE, 80))
    write_shapes(folder, "val", 3, (SIDE, 80))
    (folder / "dataset.json").write_text(dataset_json(DATASETS["shapes"]))
    return folder


def trained(records: pathlib.Path, folder: pathlib.Path, *, steps: int) -> dict:
    """Trains, or goes on, up to a number of steps, from weights that tell classes apart; returns deeplab.json."""
    data = DataConfig(dataset_dir=str(records), crop_size=(65, 65), batch_size=2)
    initial = records / "initial"
    if not initial.exists():
        save_model(initial, lively(TINY), Receipt("tests", "0" * 64, {}, {}), card=ModelCard(TINY))
    run = RunConfig(train_logdir=str(folder), tf_initial_checkpoint=str(initial), deterministic=True)
    train(Experiment(TINY, TrainConfig(training_number_of_steps=steps, base_learning_rate=1e-6), data, run))
    return json.loads((folder / "deeplab.json").read_text())


@pytest.fixture(scope="module")
def model(records, tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("run") / "run"
    assert trained(records, folder, steps=2)["training_side"] == SIDE
    return folder


@pytest.fixture(scope="module")
def scored(records, model) -> list[tuple[np.ndarray, np.ndarray]]:
    """The pictures of val, with the classes that evaluation gives them."""
    data = DataConfig(dataset_dir=str(records), crop_size=None, batch_size=1)
    predictor = predictor_of(open_runnable(model).model)
    images = [batch["image"].numpy() for batch in make_dataset(data, split="val", training=False)]
    found = [(image[0].astype(np.uint8), segment_batch(predictor, image)[0]) for image in images]
    assert all(len(np.unique(labels)) > 2 for _, labels in found)
    return found


@pytest.mark.heavy
def test_a_run_that_goes_on_keeps_what_it_began_with(records, model, tmp_path):
    """Another side than the records have now, or none, as a run of an earlier version; the weights are the same."""
    folder, other = tmp_path / "run", tmp_path / "other"
    for copy in (folder, other):
        shutil.copytree(model, copy)
    card = json.loads((model / "deeplab.json").read_text())
    assert card.pop("training_side") == SIDE
    (folder / "deeplab.json").write_text(json.dumps(card))
    (other / "deeplab.json").write_text(json.dumps({**card, "training_side": 50}))
    assert trained(records, folder, steps=3) == card
    assert deeplab_tf.Segmenter(folder).options == PredictConfig(resize="longest")
    assert trained(records, other, steps=3) == {**card, "training_side": 50}
    for name in ("model.ckpt-3.index", "model.ckpt-3.data-00000-of-00001"):
        assert (folder / name).read_bytes() == (other / name).read_bytes()


@pytest.mark.parametrize("side", [0, -1, "97", 97.5, True])
def test_a_damaged_side_is_one_line(side, model, tmp_path):
    card = json.loads((model / "deeplab.json").read_text())
    (tmp_path / "deeplab.json").write_text(json.dumps({**card, "training_side": side}))
    with pytest.raises(DeepLabError, match=r"deeplab\.json: not a model directory's description \(.*training_side"):
        ModelCard.read(tmp_path)


# ---- where models are used


@pytest.fixture(scope="module")
def photos(scored, tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("photos")
    for number, (image, _) in enumerate(scored):
        PIL.Image.fromarray(image).save(folder / f"{number}.png")
    return folder


def predicted(checkpoint, photos, out, *flags) -> list[np.ndarray]:
    where = (f"--checkpoint={checkpoint}", f"--input={photos}", f"--output_dir={out}", "--save=raw")
    assert finished(predict_tool, *where, *flags) == 0
    return [np.asarray(PIL.Image.open(out / f"{number}_raw.png")) for number in range(3)]


def test_pictures_get_the_classes_of_the_evaluation(model, scored, photos, tmp_path, capsys):
    classes = [labels for _, labels in scored]
    assert np.array_equal(predicted(model, photos, tmp_path / "auto", "--runtime=tf"), classes)
    assert (
        "auto: longest side from 49 to 194 kept, as in evaluation, any other brought to 97" in capsys.readouterr().out
    )
    segmenter = deeplab_tf.Segmenter(model, PredictConfig(runtime="tf"))
    assert np.array_equal([segmenter(image).classes for image, _ in scored], classes)
    # With another size, here as before, classes differ.
    assert not np.array_equal(
        predicted(model, photos, tmp_path / "longest", "--runtime=tf", "--longest_side=513"), classes
    )
    assert "auto: longest side brought to 513\n" in capsys.readouterr().out
    predicted(model, photos, tmp_path / "none", "--runtime=tf", "--resize=none")
    assert "none: kept\n" in capsys.readouterr().out


def test_python_s_files_get_them_too(model, scored, photos, tmp_path):
    loaded = open_runnable(model)
    options = PredictConfig(runtime="tf", save=("raw",))
    list(predict_files(loaded.model, loaded.card, [str(photos / "1.png")], tmp_path, options))
    assert np.array_equal(np.asarray(PIL.Image.open(tmp_path / "1_raw.png")), scored[1][1])


@pytest.mark.parametrize("name", ["saved", "fitting.tflite"])
def test_exported_files_do_too(name, model, scored, photos, tmp_path):
    if name.endswith("tflite"):
        pytest.importorskip("ai_edge_litert", reason="the extra `litert` is not installed")
    crop: dict[str, Any] = {"crop_size": (129, 129)} if name.endswith("tflite") else {}
    export(model, tmp_path / name, **crop)
    certificate = next(tmp_path.rglob("*certificate.json"))
    assert json.loads(certificate.read_text())["training_side"] == SIDE
    opened = open_runnable(tmp_path / name)
    settled = settled_options(opened, PredictConfig(), ())
    assert (settled.resize, settled.longest_side) == ("trained", SIDE)
    found = predicted(tmp_path / name, photos, tmp_path / "out")
    expected = [labels for _, labels in scored]
    if crop:  # a file of one size pads what is smaller, as the network of that crop does
        padding = predictor_of(open_runnable(model, crop).model)
        expected = [segment_batch(padding, image[None])[0] for image, _ in scored]
    # Padding of bytes is not exactly the network's grey.
    assert np.mean(np.array(found) == expected) >= (0.99 if crop else 0.9999)
    certificate.write_text(certificate.read_text().replace(f'"training_side": {SIDE}', '"training_side": 0'))
    with pytest.raises(DeepLabError, match="training_side=0; expected pixels"):
        open_runnable(tmp_path / name)


def test_files_of_keras_do_too(model, scored, tmp_path):
    deeplab_tf.load(model)[1].save(tmp_path / "own.keras")
    segmenter = deeplab_tf.Segmenter(tmp_path / "own.keras")
    assert (segmenter.options.resize, segmenter.options.longest_side) == ("trained", SIDE)
    # A network with a new head is trained on other pictures.
    _, other = deeplab_tf.load(model, num_classes=3)
    assert deeplab_tf.Segmenter(other).options == PredictConfig(resize="longest")


def test_released_models_get_513():
    assert deeplab_tf.Segmenter("shapes_resnet").options == PredictConfig(resize="longest", longest_side=513)
    assert deeplab_tf.Segmenter("shapes_resnet", PredictConfig(runtime="tf")).options.network_side(97, 97) == 513


# ---- the server's page


def test_the_page_follows_the_training_pictures():
    sides = {(97, 60): 97, (150, 190): 190, (20, 40): 97, (600, 400): 97}
    settings = Settings.of(ServeConfig(), TINY, None, SIDE, None)
    assert {size: settings.page_side(*size) for size in sides} == sides
    assert Settings.from_json(json.loads(json.dumps(settings.to_json()))) == settings
    # A file of one size takes them whole; what the user gives, and models that say nothing, are as ever.
    assert Settings.of(ServeConfig(), TINY, None, SIDE, (129, 97)).page_side(150, 190) == 97
    assert Settings.of(ServeConfig(longest_side=65), TINY, None, SIDE, None).page_side(97, 60) == 65
    assert Settings.of(ServeConfig(), TINY, None, None, None).page_side(97, 60) == 513
    # A small picture is enlarged as far as the limits allow.
    large = Settings.of(ServeConfig(max_pixels=1_000_000), TINY, None, 4000, None)
    page_limits(large).require(200, 200, "a picture")


def test_the_page_gives_the_classes_of_the_evaluation(model, scored):
    opened = open_runnable(model)
    engine = Engine(opened.model, opened.card, ServeConfig(port=0, runtime="tf"))
    engine.prepare()
    with serving(engine) as address:
        connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=60)
        for image, labels in scored:
            connection.request("POST", "/segment", encoded(image), {"content-type": "image/png"})
            runs = json.loads(connection.getresponse().read())["runs"]
            np.testing.assert_array_equal(np.repeat(runs[::2], runs[1::2]).reshape(labels.shape), labels)


def test_label_shrinks_to_the_training_pictures():
    sides = {None: 513, 97: 513, 1200: 1200, 4000: 2049}
    assert {side: LabelConfig().shrunk_side(side) for side in sides} == sides
    assert LabelConfig(longest_side=65).shrunk_side(1200) == 65
    with pytest.raises(DeepLabError, match="longest_side=0: expected 1 or more pixels"):
        LabelConfig(longest_side=0)
    options = LabelConfig(runtime="tf")
    model = LabelModel(None, ModelCard(TINY, training_side=1200), options)
    assert model._longest == 1200
