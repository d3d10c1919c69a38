"""LiteRT in the place of TensorFlow: the same classes at any size, from one conversion; and when it is chosen."""

import dataclasses
import math

import numpy as np
import pytest
from golden import golden_image
from networks import DECODER, SMALL, V3, lively

from deeplab_tf.config import ModelConfig, TrainConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.inference import litert
from deeplab_tf.inference import runtime as runtime_module
from deeplab_tf.inference.libraries import LIBRARIES
from deeplab_tf.inference.litert import LiteBackend, LiteNetwork
from deeplab_tf.inference.measured import Surroundings
from deeplab_tf.inference.predict import predict
from deeplab_tf.inference.predictor import Predictor, predictor_of
from deeplab_tf.inference.runtime import runtime_predictor
from deeplab_tf.inference.runtime_record import Verdict
from deeplab_tf.inference.tflite import convert as tflite
from deeplab_tf.inference.tflite import resizable
from deeplab_tf.network.build import build_model
from deeplab_tf.training.step import make_train_step
from deeplab_tf.weights.lite_format import schema

pytest.importorskip("ai_edge_litert", reason="the extra `litert` is not installed")

SIZES = [(65, 97), (64, 90), (130, 100), (97, 65), (33, 150)]
RESNET = ModelConfig(
    model_variant="resnet_v1_18_beta",
    num_classes=6,
    atrous_rates=(2, 4),
    aspp_convs_filters=8,
    decoder_output_stride=(4,),
    decoder_filters=8,
)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """What is converted is not found by the next test."""
    monkeypatch.setenv("DEEPLAB_TF_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def conversions(monkeypatch) -> list:
    """Grows by one whenever something is converted."""
    done, convert = [], tflite.convert_graph
    monkeypatch.setattr(tflite, "convert_graph", lambda *args, **options: done.append(1) or convert(*args, **options))
    return done


@pytest.fixture(scope="module")
def model():
    return lively(SMALL)


def agreement(model, image: np.ndarray, **options) -> float:
    found, expected = (predict(model, image[None], runtime=name, **options) for name in ("tflite", "tf"))
    assert (found.dtype, found.shape) == (np.int32, (1, *image.shape[:2]))
    return np.mean(found == expected)


@pytest.mark.heavy
@pytest.mark.parametrize("config", [SMALL, DECODER, RESNET], ids=lambda config: config.model_variant)
def test_the_classes_of_tensorflow_from_one_conversion(config, conversions):
    model = lively(config)
    assert min(agreement(model, golden_image(str(size), *size)) for size in SIZES) >= 0.9999
    assert len(conversions) == 1
    assert len(np.unique(predict(model, golden_image("lively", 129, 129)[None], runtime="tflite"))) > 2


@pytest.mark.heavy
def test_a_network_for_one_size_is_converted_for_each(conversions):
    model = lively(V3)
    assert min(agreement(model, golden_image(str(size), *size)) for size in SIZES[:2]) >= 0.9999
    assert 1 <= len(conversions) <= 2


@pytest.mark.heavy
def test_scales_and_flips(model):
    image = golden_image("scales", 70, 81)
    assert agreement(model, image, scales=(0.5, 1.0), flip=True) >= 0.9999


def test_scores_and_batches(model):
    images = np.stack([golden_image(name, 50, 60) for name in "ab"])
    lite = runtime_predictor(model, "tflite")
    np.testing.assert_allclose(lite.probabilities(images), predictor_of(model).probabilities(images), atol=1e-5)
    np.testing.assert_array_equal(lite.labels(images), np.concatenate([lite.labels(image[None]) for image in images]))


def lite_predictor(model, *, everything: bool = False) -> tuple[Predictor, LiteNetwork]:
    network = LiteNetwork(model)
    backend = LiteBackend(network, None if everything else predictor_of(model).backend)
    return Predictor(model.config, backend), network


def test_it_can_be_prepared(model, conversions):
    lite, network = lite_predictor(model)
    lite.prepare()
    assert len(conversions) == network.open_files == 1
    lite.labels(golden_image("x", 60, 65)[None])
    assert len(conversions) == network.open_files == 1


def test_few_files_stay_open(model, monkeypatch, conversions):
    monkeypatch.setattr(litert, "_MOST_KEPT", 2)
    lite, network = lite_predictor(model)
    for side in (33, 49, 65, 81, 33):
        lite.labels(golden_image("x", side, side)[None])
    assert network.open_files == 2
    assert len(conversions) == 1


# ---- the choice


@pytest.mark.heavy
def test_new_weights_are_noticed(model):
    image = golden_image("x", 65, 65)
    before = predict(model, image[None], runtime="tflite")
    kernel = next(weight for weight in model.weights if weight.path.endswith("kernel"))
    kernel.assign(-kernel)
    after = predict(model, image[None], runtime="tflite")
    assert (before != after).any()
    assert np.mean(after == predict(model, image[None], runtime="tf")) >= 0.9999
    kernel.assign(-kernel)
    np.testing.assert_array_equal(predict(model, image[None], runtime="tflite"), before)


def always_measured(model, *, pixels: float = math.inf) -> Predictor:
    return runtime_predictor(model, pixels=pixels, surroundings=Surroundings(tell=lambda line: None))


@pytest.fixture
def lite_is_fastest(monkeypatch):
    """LiteRT is the one library there is, and TensorFlow slow."""
    monkeypatch.setattr(runtime_module, "LIBRARIES", {"tflite": LIBRARIES["tflite"]})
    monkeypatch.setattr(Verdict, "order", property(lambda verdict: ["tflite", "tf"]))


def test_auto_changes_over(model, lite_is_fastest, conversions):
    model.derived.clear()
    weight, image = model.weights[0], golden_image("x", 65, 65)
    few = runtime_predictor(model, pixels=3)
    few.labels(image[None])
    assert few.backend.name == "TensorFlow" and not conversions
    lite = always_measured(model)
    lite.labels(image[None])
    assert lite.backend.name == "LiteRT" and lite is few
    assert runtime_predictor(model) is lite
    assert runtime_predictor(model, "tf") is predictor_of(model)
    weight.assign(weight * 2)
    other = runtime_predictor(model)
    other.labels(image[None])
    assert other is not lite and other.backend.name == "TensorFlow"
    weight.assign(weight / 2)
    many = np.repeat(image[None], 8, axis=0)
    np.testing.assert_array_equal(predict(model, many)[0], predict(model, image[None], runtime="tflite")[0])
    assert len(conversions) == 1


def test_what_needs_conversions_of_its_own_stays_in_tensorflow():
    v3, pyramid = build_model(V3), build_model(dataclasses.replace(SMALL, image_pyramid=(0.5, 1.0)))
    assert runtime_predictor(v3, pixels=math.inf) is predictor_of(v3)
    assert runtime_predictor(pyramid, pixels=math.inf) is predictor_of(pyramid)


@pytest.mark.heavy
def test_auto_leaves_to_tensorflow_what_would_need_conversions(conversions):
    model = build_model(dataclasses.replace(SMALL, image_pyramid=(0.5, 1.0)))
    image = golden_image("x", 50, 65)
    always_measured(model).prepare()
    np.testing.assert_array_equal(predict(model, image[None]), predict(model, image[None], runtime="tf"))
    assert not conversions


@pytest.mark.heavy
def test_what_cannot_be_set_is_tried_once(model, monkeypatch, conversions):
    monkeypatch.setattr(resizable, "_ANY_SIZE", ())
    lite, network = lite_predictor(model)
    image = golden_image("x", 50, 65)[None]
    lite.prepare()
    for _ in range(2):
        np.testing.assert_array_equal(lite.labels(image), predictor_of(model).labels(image))
    assert len(conversions) == 1
    whole = Predictor(model.config, LiteBackend(network, None))
    assert np.mean(whole.labels(image) == predictor_of(model).labels(image)) >= 0.9999
    assert len(conversions) == 2


def test_an_unknown_runtime(model):
    with pytest.raises(DeepLabError, match="unknown runtime 'tflit'; did you mean tflite"):
        predict(model, np.zeros((1, 9, 9, 3)), runtime="tflit")


@pytest.mark.heavy
def test_training_is_noticed(lite_is_fastest):
    model = lively(dataclasses.replace(SMALL, crop_size=(65, 65)))
    image = golden_image("x", 65, 65)[None]
    step = make_train_step(model, TrainConfig(base_learning_rate=0.5))
    for _ in range(2):
        found = always_measured(model)
        assert np.mean(found.labels(image) == predict(model, image, runtime="tf")) >= 0.9999
        assert found.backend.name == "LiteRT"
        before = predict(model, image, runtime="tf")
        step(image, np.full((1, 65, 65), 3, np.int32))
        assert (predict(model, image, runtime="tf") != before).any()


# ---- numbers in the file


@pytest.fixture
def pooling():
    """A file that holds the options of one pooling, and these."""
    import flatbuffers

    builder = flatbuffers.Builder(0)
    pool = schema().Pool2DOptionsT()
    pool.filterHeight, pool.filterWidth, pool.strideH, pool.strideW = 7, 11, 1, 2
    builder.Finish(pool.Pack(builder))
    content = bytearray(builder.Output())
    return content, schema().Pool2DOptions.GetRootAs(content)


def test_the_window_of_a_pooling_is_where_the_schema_has_it(pooling):
    content, options = pooling
    window = resizable.pooling_window(content, options._tab)
    assert tuple(window) == (7, 11)
    window[:] = 13, 17
    assert (options.FilterHeight(), options.FilterWidth(), options.StrideH(), options.StrideW()) == (13, 17, 1, 2)


def test_a_window_that_is_elsewhere_is_not_written(pooling, monkeypatch):
    content, options = pooling
    monkeypatch.setattr(resizable, "_FILTER_HEIGHT", 8)
    with pytest.raises(resizable.NotResizable):
        resizable.pooling_window(content, options._tab)
