"""Networks that read other bands than RGB: from records to a trained, scored, exported and served model."""

import base64
import dataclasses
import io
import json
import pathlib
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from networks import reduced
from PIL import Image

from deeplab_tf.arch import ARCHITECTURES
from deeplab_tf.catalog.datasets import DATASETS, Dataset, read_dataset
from deeplab_tf.catalog.image_facts import ImageFacts
from deeplab_tf.config import (
    DataConfig,
    EvalConfig,
    Experiment,
    ExportConfig,
    ModelConfig,
    PredictConfig,
    RunConfig,
    ServeConfig,
    TrainConfig,
)
from deeplab_tf.data import decoded_cache, examples, photographs, pipeline, records
from deeplab_tf.data.build import BuildOptions, build_records
from deeplab_tf.data.pairs import Pair
from deeplab_tf.data.photographs import PhotographOptions
from deeplab_tf.errors import DeepLabError
from deeplab_tf.evaluation.following import passes
from deeplab_tf.exporting.export import export
from deeplab_tf.inference.files import predict_files
from deeplab_tf.inference.predict import predict
from deeplab_tf.inference.predictor import predictor_of
from deeplab_tf.network.backbone import build_backbone
from deeplab_tf.network.build import build_model
from deeplab_tf.ops.value_range import scaled
from deeplab_tf.serving import protocol
from deeplab_tf.serving.engine import Engine
from deeplab_tf.serving.limits import Limits
from deeplab_tf.serving.pictures import decode_picture
from deeplab_tf.serving.reading import read_picture
from deeplab_tf.serving.refusal import Refused
from deeplab_tf.training.train import train
from deeplab_tf.weights.initialize import initialize, widened
from deeplab_tf.weights.loading import open_model
from deeplab_tf.weights.model_directory import ModelCard
from deeplab_tf.weights.tf1 import save_tf1_checkpoint, variable_map

RANDOM = np.random.default_rng(0)
FACTS = Dataset("blobs", 2, 255, ("rest", "blob"), DATASETS["shapes"].palette[:2], {}, "pascal")


def npy(array: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def drawn(number: int, bands: int, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns a picture of noise whose last band alone shows a square, and its label."""
    generator = np.random.default_rng(number)
    label = np.zeros((33, 41), np.uint8)
    top, left = generator.integers(0, 17), generator.integers(0, 21)
    label[top : top + 16, left : left + 20] = 1
    pixels = generator.integers(50, 200, (*label.shape, bands)).astype(np.float64)
    pixels[..., -1] = 50 + 120 * label + generator.integers(0, 30, label.shape)
    scale = {"uint8": 1, "uint16": 37, "float32": 0.25}[dtype]
    return (pixels * scale).astype(dtype), label


def build(
    folder: pathlib.Path,
    bands: int = 4,
    dtype: str = "uint16",
    count: int = 16,
    options: PhotographOptions | None = None,
) -> pathlib.Path:
    folder.mkdir(exist_ok=True)
    pairs = []
    for number in range(count):
        pixels, label = drawn(number, bands, dtype)
        (folder / f"{number:02d}.npy").write_bytes(npy(pixels))
        Image.fromarray(label).save(folder / f"{number:02d}.png")
        pairs.append(Pair(str(folder / f"{number:02d}.npy"), str(folder / f"{number:02d}.png"), f"{number:02d}"))
    splits = {"train": pairs[: count * 3 // 4], "val": pairs[count * 3 // 4 :]}
    build_records(splits, FACTS, folder / "records", BuildOptions(2, photographs=options or PhotographOptions()))
    return folder / "records"


def data(folder: pathlib.Path, **options) -> DataConfig:
    return DataConfig(dataset=str(folder), dataset_dir=str(folder), model_variant="tiny", **options)


# ---- reading


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("bands", [1, 2, 3, 4, 5])
def test_records_are_read_as_the_files_are(tmp_path, dtype, bands):
    folder = build(tmp_path / "set", bands, dtype, count=4)
    image = read_dataset(folder).image
    channels = 3 if bands == 1 else bands
    (batch,) = pipeline.make_dataset(data(folder, crop_size=None, batch_size=1), split="val", training=False)
    pixels = drawn(3, bands, dtype)[0].repeat(3 if bands == 1 else 1, -1)
    if dtype == "uint8" and bands in (1, 3):
        assert image is None
        assert np.array_equal(batch["image"][0], pixels)
        return
    assert image is not None
    assert (image.channels, image.dtype) == (channels, dtype)
    np.testing.assert_allclose(batch["image"][0], scaled(image, pixels), atol=1e-4)
    shown = scaled(image, pixels)[..., list(image.shown)]
    assert np.abs(batch["original_image"][0].numpy().astype(float) - shown).max() <= 0.51


# What comes after decoding sees float32 whatever the type of the file, so that each type stands once beside the numbers
# of bands that differ: one (read as three), fewer than RGB, as many, more.
@pytest.mark.heavy
@pytest.mark.parametrize(("bands", "dtype"), [(1, "uint16"), (2, "uint8"), (3, "float32"), (5, "uint16")])
def test_records_are_scaled_padded_and_cached(tmp_path, dtype, bands):
    folder = build(tmp_path / "set", bands, dtype, count=4)
    image = read_dataset(folder).image
    assert image is not None
    channels = 3 if bands == 1 else bands
    config = data(folder, crop_size=(49, 49), batch_size=2, min_scale_factor=0.5, max_scale_factor=0.5)
    cached = dataclasses.replace(config, decoded_cache=str(tmp_path / "cache"))
    first, written, read = (
        [batch["image"].numpy() for batch in pipeline.make_dataset(c, split="train", training=True).take(4)]
        for c in (config, cached, cached)
    )
    assert first[0].shape == (2, 49, 49, channels)
    assert first[0][:, -1, 24].tolist() == [pytest.approx([127.5] * min(3, channels) + list(image.mean[3:]))] * 2
    np.testing.assert_array_equal(written, first)
    np.testing.assert_array_equal(read, first)


def test_values_that_are_not_numbers(tmp_path):
    pixels = np.full((20, 30, 2), 5, np.float32)
    pixels[0, :5] = [[np.nan, 0], [np.inf, 1], [-np.inf, 2], [9, 9], [1, 1]]
    image = ImageFacts(2, "float32", ((1.0, 9.0),), (0.0, 0.0), shown=(0, 1, 1))
    parsed = {records.IMAGE: tf.constant(photographs.npy_bytes(pixels)), records.HEIGHT: 20, records.WIDTH: 30}
    parsed = {key: tf.convert_to_tensor(value) for key, value in parsed.items()}
    parsed[records.HEIGHT], parsed[records.WIDTH] = tf.constant(20, tf.int64), tf.constant(30, tf.int64)
    assert np.array_equal(records.decode_photograph(parsed, image), scaled(image, pixels))


def test_a_damaged_record_is_named(tmp_path):
    folder = build(tmp_path / "set", 5, count=4)
    for file in folder.glob("train-00000*"):
        with tf.io.TFRecordWriter(str(file)) as writer:
            content = npy(np.zeros((33, 40, 5), np.uint16))
            writer.write(records.make_example(content, label_png(), filename="x", height=33, width=41, channels=5))
    with pytest.raises(DeepLabError, match="record 0: its image is no"):
        list(examples.named_batches(pipeline.make_dataset(data(folder), split="train", training=False)))


def label_png() -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.zeros((33, 41), np.uint8)).save(content, "PNG")
    return content.getvalue()


def test_colour_jitter_is_for_rgb(tmp_path):
    folder = build(tmp_path / "set", 4, count=4)
    with pytest.raises(DeepLabError, match="color_jitter=.*the photographs have 4 bands"):
        config = data(folder, color_jitter=(0.1, 0.1, 0.1, 0.1), crop_size=(33, 33))
        pipeline.make_dataset(config, split="train", training=True)


# ---- the network


@pytest.mark.parametrize("variant", sorted(ARCHITECTURES))
def test_every_backbone_reads_bands(variant, monkeypatch):
    # Bands are the first unit's matter: those that repeat the one before would only be the same again.
    monkeypatch.setitem(ARCHITECTURES, variant, reduced(ARCHITECTURES[variant]))
    bands = {"input_channels": 5, "extra_band_means": (1.0, 2.0)}
    five = build_backbone(ModelConfig(variant, crop_size=(65, 65), **bands), zeros=True)
    three = build_backbone(ModelConfig(variant, crop_size=(65, 65)), zeros=True)
    shapes = [{n: tuple(v.shape) for n, v in variable_map(m).items()} for m in (five, three)]
    different = [name for name in shapes[0] if shapes[0][name] != shapes[1][name]]
    assert len(different) == 1
    assert (shapes[0][different[0]][2], shapes[1][different[0]][2]) == (5, 3)


def test_means_and_padding_of_bands():
    config = ModelConfig("resnet_v1_50", input_channels=5, extra_band_means=(10.0, 20.0))
    assert config.mean_pixel == (123.15, 115.90, 103.06, 10.0, 20.0)
    assert config.pad_pixel == config.mean_pixel
    assert ModelConfig("xception_65", input_channels=4).pad_pixel == (127.5,) * 4
    assert ModelConfig("xception_65", input_channels=1).pad_pixel == (127.5,)
    assert ModelConfig().to_json() == {"model_variant": "mobilenet_v2"}
    assert ModelConfig.from_json(config.to_json(), source="x") == config
    refused: tuple[dict[str, Any], ...] = (
        {"input_channels": 0},
        {"extra_band_means": (1.0,)},
        {"input_channels": 4, "extra_band_means": (300.0,)},
    )
    for wrong in refused:
        with pytest.raises(DeepLabError, match="input_channels|extra_band_means"):
            ModelConfig(**wrong)


@pytest.mark.parametrize("bands", [1, 2, 4, 7])
def test_the_response_to_bands_of_one_value_stays(bands):
    """Sum over bands of a widened kernel: that of the three, wherever all bands have one value after preprocessing."""
    kernel = RANDOM.normal(size=(3, 3, 3, 8)).astype(np.float32)
    grey = RANDOM.normal(size=(2, 9, 9, 1)).astype(np.float32)
    before = tf.nn.conv2d(grey.repeat(3, -1), kernel, 1, "SAME")
    after = tf.nn.conv2d(grey.repeat(bands, -1), widened(kernel, bands), 1, "SAME")
    np.testing.assert_allclose(before, after, atol=1e-5)
    if bands > 3:
        noise = RANDOM.normal(size=(2, 9, 9, bands)).astype(np.float32)
        alone = tf.nn.conv2d(noise, widened(kernel, bands, "zero"), 1, "SAME")
        np.testing.assert_allclose(tf.nn.conv2d(noise[..., :3], kernel, 1, "SAME"), alone, atol=1e-5)


def lively(config: ModelConfig) -> keras.Model:
    model = build_model(config)
    generator = np.random.default_rng(1)
    for variable in model.weights:
        if "moving_variance" not in variable.path:
            variable.assign(variable.value + generator.normal(0, 0.05, variable.shape))
    return model


@pytest.mark.parametrize("extra", ["mean", "zero"])
def test_a_network_starts_from_weights_of_rgb(tmp_path, extra):
    three = lively(ModelConfig("tiny", num_classes=3, crop_size=(33, 33)))
    momentum = {f"{name}/Momentum": np.ones(v.shape, np.float32) for name, v in variable_map(three).items()}
    save_tf1_checkpoint(three, tmp_path / "rgb.ckpt", state=momentum)
    five = build_model(ModelConfig("tiny", num_classes=3, crop_size=(33, 33), input_channels=5))
    variables = {name: v.value for name, v in variable_map(five).items()}
    slots = {f"{name}/Momentum": tf.Variable(tf.zeros_like(v)) for name, v in variables.items()}
    found = initialize({**variables, **slots}, tmp_path / "rgb.ckpt", extra_bands=extra)
    assert len(found.widened) == 1
    assert f"{found.widened[0]}/Momentum" in found.missing
    assert "widened" in found.summary()
    grey = RANDOM.integers(0, 256, (1, 33, 33, 1)).astype(np.float32)
    picture = RANDOM.integers(0, 256, (1, 33, 33, 5)).astype(np.float32)
    wide, narrow = (grey.repeat(5, -1), grey.repeat(3, -1)) if extra == "mean" else (picture, picture[..., :3])
    np.testing.assert_allclose(five(wide), three(narrow), atol=2e-3)


def test_bare_weights_of_five_bands_are_recognised(tmp_path):
    model = lively(ModelConfig("mobilenet_v2", num_classes=3, input_channels=5))
    save_tf1_checkpoint(model, tmp_path / "five.ckpt")
    loaded = open_model(tmp_path / "five.ckpt")
    assert loaded.card.config.input_channels == 5
    with pytest.raises(DeepLabError, match="--input_channels=3 contradicts"):
        open_model(tmp_path / "five.ckpt", {"input_channels": 3})


def test_a_keras_file_keeps_the_bands(tmp_path):
    config = ModelConfig("resnet_v1_18", num_classes=3, input_channels=4, extra_band_means=(7.0,), crop_size=(33, 33))
    model = lively(config)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    images = RANDOM.integers(0, 256, (1, 33, 33, 4)).astype(np.float32)
    np.testing.assert_array_equal(again(images), model(images))
    assert again.config == config


def test_images_of_other_bands_are_refused():
    model = build_model(ModelConfig("tiny", num_classes=3, input_channels=4))
    assert predict(model, np.zeros((1, 20, 30, 4)), runtime="tf").shape == (1, 20, 30)
    with pytest.raises(DeepLabError, match=r"images of shape \(1, 20, 30, 3\): expected .b, h, w, 4., 4 bands"):
        predict(model, np.zeros((1, 20, 30, 3)))
    with pytest.raises(DeepLabError, match="crf: compares the colours of RGB"):
        predict(model, np.zeros((1, 20, 30, 4)), crf={}, runtime="tf")
    with pytest.raises(DeepLabError, match="images of 3 bands; expected 4"):
        predictor_of(model).labels(np.zeros((1, 20, 30, 3)))


# ---- from a set to a model


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> pathlib.Path:
    """A run on pictures of four bands whose last alone shows the class."""
    folder = tmp_path_factory.mktemp("bands")
    built = build(
        folder / "set", 4, "uint16", 20, PhotographOptions(bands=("red", "green", "blue", "nir"), shown=(3, 1, 0))
    )
    train(
        Experiment(
            ModelConfig("tiny"),
            TrainConfig(training_number_of_steps=200, base_learning_rate=0.05),
            data(built, crop_size=(33, 33), batch_size=8, min_scale_factor=1.0, max_scale_factor=1.0),
            RunConfig(train_logdir=str(folder / "run"), recalibrate_batch_norm=6, save_summaries_images=True),
        )
    )
    return folder


@pytest.mark.heavy
def test_what_rgb_cannot_see_is_learnt(trained):
    card = ModelCard.read(trained / "run")
    assert card.image == read_dataset(trained / "set" / "records").image
    assert card.config.input_channels == 4
    config = EvalConfig(
        checkpoint_dir=str(trained / "run"), eval_split="val", eval_crop_size=(33, 41), eval_batch_size=1
    )
    place = {"dataset": str(trained / "set" / "records"), "dataset_dir": str(trained / "set" / "records")}
    (work,) = passes(dataclasses.replace(config, max_number_of_evaluations=1), place)
    assert work.records.facts.image == card.image
    right = []
    for batch in work.batches():
        found = predict(work.opened.loaded.model, batch["image"].numpy(), runtime="tf")
        right.append((found == batch["label"].numpy()[..., 0]).mean())
    assert np.mean(right) > 0.85  # 0.76 without a look at the picture


def test_a_set_of_other_bands_is_refused(trained, tmp_path):
    other = build(tmp_path / "five", 5, "uint16", 4)
    config = EvalConfig(checkpoint_dir=str(trained / "run"), eval_split="val", max_number_of_evaluations=1)
    with pytest.raises(DeepLabError, match="blobs has photographs of 5 bands of uint16, .* reads 4 bands of uint16"):
        next(passes(config, {"dataset": str(other), "dataset_dir": str(other)}))
    rgb = build(tmp_path / "rgb", 3, "uint8", 4)
    with pytest.raises(DeepLabError, match="photographs of 3 bands of uint8, .* reads 4 bands of uint16"):
        next(passes(config, {"dataset": str(rgb), "dataset_dir": str(rgb)}))


def test_predict_reads_files_of_bands(trained, tmp_path):
    loaded = open_model(trained / "run")
    options = PredictConfig(runtime="tf", resize="none", save=("mask", "overlay", "raw", "probabilities"))
    files = [str(trained / "set" / "18.npy")]
    (result,) = predict_files(loaded.model, loaded.card, files, tmp_path / "out", options)
    assert result.error is None
    pixels, label = drawn(18, 4, "uint16")
    raw = np.asarray(Image.open(tmp_path / "out" / "18_raw.png"))
    assert loaded.card.image is not None
    assert np.array_equal(raw, predict(loaded.model, scaled(loaded.card.image, pixels)[None], runtime="tf")[0])
    assert (raw == label).mean() > 0.85
    resized = dataclasses.replace(options, resize="longest", longest_side=65)
    (result,) = predict_files(loaded.model, loaded.card, files, tmp_path / "resized", resized)
    assert (result.error, result.size) == (None, (33, 41))
    Image.fromarray(RANDOM.integers(0, 256, (20, 30, 3), np.uint8)).save(tmp_path / "rgb.png")
    (result,) = predict_files(loaded.model, loaded.card, [str(tmp_path / "rgb.png")], tmp_path / "out", options)
    assert "rgb.png: 3 bands of uint8; the model reads 4 bands of uint16 (red, green, blue, nir)" in str(result.error)
    with pytest.raises(DeepLabError, match="--crf: compares the colours of RGB, and the model reads 4 bands"):
        crf = dataclasses.replace(options, crf=True)
        list(predict_files(loaded.model, loaded.card, files, tmp_path / "out", crf))


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["exported", "model.pb", "model.tflite", "model.onnx"])
def test_an_export_takes_the_stored_values(trained, tmp_path, name):
    if name.endswith("onnx"):
        pytest.importorskip("tf2onnx", reason="the extra `onnx` is not installed")
    options = ExportConfig(num_images=2, images=(str(trained / "set" / "17.npy"), str(trained / "set" / "18.npy")))
    certificate = export(trained / "run", tmp_path / name, options, crop_size=(33, 33))
    assert certificate["agreement"] > 0.999
    assert certificate["input_dtype"] == "float32"
    assert certificate["input_shape"][-1] == 4
    assert certificate["image"] == json.loads((trained / "run" / "deeplab.json").read_text())["image"]
    drawn_pictures = export(trained / "run", tmp_path / f"2{name}", ExportConfig(num_images=1), crop_size=(33, 33))
    assert drawn_pictures["agreement"] > 0.99
    if name == "exported":
        model = tf.saved_model.load(str(tmp_path / name))
        assert list(model.signatures) == ["serving_default"]
        pixels, label = drawn(18, 4, "uint16")
        found = model.signatures["serving_default"](ImageTensor=tf.constant(pixels[None].astype(np.float32)))
        assert (found["SemanticPredictions"][0].numpy() == label).mean() > 0.85


def test_int8_cannot_hold_stored_values(trained, tmp_path):
    options = ExportConfig(precision="int8", representative_images=(str(trained / "set"),))
    with pytest.raises(DeepLabError, match="--precision=int8: the model reads 4 bands of uint16"):
        export(trained / "run", tmp_path / "m.tflite", options, crop_size=(33, 33))


def test_the_server_takes_files_and_stored_values(trained):
    loaded = open_model(trained / "run")
    engine = Engine(loaded.model, loaded.card, ServeConfig(runtime="tf"))
    engine.prepare()
    pixels, _ = drawn(18, 4, "uint16")
    image = engine.image
    assert image is not None
    assert engine.info()["photographs"] == "4 bands of uint16 (red, green, blue, nir)"
    encoded = json.dumps({"instances": [{"b64": base64.b64encode(npy(pixels)).decode()}]}).encode()
    lists = json.dumps({"instances": [pixels.tolist()]}).encode()
    for body in (encoded, lists):
        (read,) = protocol.parse_request(body, Limits(10_000), image=image).images
        np.testing.assert_array_equal(read, scaled(image, pixels))
    blank = json.dumps({"instances": [np.zeros_like(pixels).tolist()]}).encode()
    (note,) = protocol.parse_request(blank, Limits(10_000), image=image).notes
    assert note.startswith("image 0: without contrast in the model's value range")
    picture = read_picture(npy(pixels), engine._settings)
    ((labels, seconds),) = engine._run(picture.resized[None])
    answer = engine._page_answer(labels, picture, seconds)
    assert (answer["height"], answer["width"]) == (33, 41)
    assert Image.open(io.BytesIO(base64.b64decode(answer["shown_jpeg"]))).size == (41, 33)
    with pytest.raises(Refused, match="the picture: 3 bands of uint8; the model reads 4 bands of uint16"):
        decode_picture(rgb_png(), Limits(10_000), name="the picture", image=image)
    with pytest.raises(Refused, match=r"the stored values \(uint16\) with the shape .height, width, 4."):
        protocol.parse_request(json.dumps({"instances": [[[[1, 2, 3]]]]}).encode(), Limits(99), image=image)
    with pytest.raises(Refused, match="too large"):
        decode_picture(npy(pixels), Limits(100), name="the picture", image=image)
    assert protocol.metadata("m", image)["metadata"]["signature_def"]["signature_def"]["serving_default"]["inputs"]
    with pytest.raises(DeepLabError, match="--examples=x: the model reads 4 bands"):
        Engine(loaded.model, loaded.card, ServeConfig(runtime="tf", examples="x"))
    with pytest.raises(DeepLabError, match="reads 4 bands and does not say what they are"):
        Engine(loaded.model, dataclasses.replace(loaded.card, image=None), ServeConfig(runtime="tf"))


def rgb_png() -> bytes:
    content = io.BytesIO()
    Image.fromarray(RANDOM.integers(0, 256, (20, 30, 3), np.uint8)).save(content, "PNG")
    return content.getvalue()


def test_a_cache_of_floats(tmp_path):
    cache = decoded_cache.open_cache(str(tmp_path), "id", channels=2, dtype=tf.float32)
    assert cache._nothing()[1].dtype == np.float32
