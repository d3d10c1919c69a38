"""The benchmark: it reports what it names, and the plain pipeline that ours is set beside computes the same."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from commands import finished

from deeplab_tf.benchmarks import crf, pipeline, train_step
from deeplab_tf.config import TrainConfig
from deeplab_tf.data import record_index, records
from deeplab_tf.network.build import build_model
from deeplab_tf.tools import benchmark
from deeplab_tf.training.step import make_train_step


def reported(capsys, tmp_path, what: str, rounds: int = 2) -> dict:
    """Runs the command in small, and returns its figures; the table has a row for each."""
    file = tmp_path / "figures.json"
    assert finished(benchmark, f"--what={what}", "--small", f"--rounds={rounds}", f"--json={file}") == 0
    figures = json.loads(file.read_text())["figures"]
    printed = capsys.readouterr().out
    assert all(f"\n| {name} | " in printed for name in figures)
    return figures


@pytest.mark.heavy
def test_pipeline_is_reported(capsys, tmp_path):
    figures = reported(capsys, tmp_path, "pipeline", rounds=1)
    for title, least in {"40 x 30 JPEG": 1.5, "96 x 64 JPEG": 4, "96 x 64 PNG": 4}.items():
        for how in ("", " from --decoded_cache"):
            ratios = figures.pop(f"{title}{how}: images/s over those of the plain pipeline, at least {least}")
            speeds = figures.pop(f"{title}{how}: images/s")
            assert len(ratios) == len(speeds) == len(figures.pop(f"{title}{how}: the same by processor time")) == 1
            assert min(ratios + speeds) > 0
        first = f"{title}: images/s of the epoch that fills --decoded_cache over those without"
        ratios = figures.pop(first) + figures.pop(f"{title}: the same of the filling epoch by processor time")
        assert len(ratios) == 2 and min(ratios) > 0
    assert set(figures) == {
        "96 x 64 PNG: over the plain pipeline, if decoding were all",
        "cost of an image among 8 records in 1 shard over that among 4",
        "cost of an image among 12 records in 1 shard over that among 4",
        "cost of an image among 12 records in 4 shards over that among 4",
        "open 12 records in 4 shards, s",
    }


def test_every_round_is_measured(tmp_path):
    """Of any data sets; the one that fills a cache makes its folder again in each round."""

    def filled(number):
        (tmp_path / "cache").mkdir(exist_ok=True)
        return number

    numbers = tf.data.Dataset.range(2).repeat().batch(2)
    found = pipeline._in_turn({"some": numbers, "others": numbers}, pipeline.SMALL, 3)
    assert {name: values.shape for name, values in found.items()} == {"some": (3, 2), "others": (3, 2)}
    filling = numbers.map(lambda batch: tf.py_function(filled, [batch], tf.int64))
    assert pipeline._first_epoch(numbers, filling, str(tmp_path / "cache"), pipeline.SMALL, 3).shape == (3, 2)


@pytest.mark.heavy
def test_train_step_is_reported(capsys, tmp_path):
    figures = reported(capsys, tmp_path, "train_step")
    seconds, ratios, shares = figures.values()
    assert list(figures)[1].endswith(" / bare step of Keras, at most 1.1")
    assert len(seconds) == len(ratios) == 2
    assert min(seconds + ratios) > 0
    assert len(shares) == 1  # the first stretch of two does not count
    assert 0 <= shares[0] <= 1


@pytest.mark.parametrize("with_original", [True, False])
def test_the_crf_is_reported(capsys, tmp_path, monkeypatch, with_original):
    # The original need not be there: what stands in for it is ours, so that all pixels agree.
    monkeypatch.setattr(crf.importlib.util, "find_spec", lambda name: with_original or None)
    monkeypatch.setattr(crf, "_original", crf._ours)
    figures = reported(capsys, tmp_path, "crf")
    for picture in ("smooth", "noisy"):
        title = f"CRF, {picture} 32 x 24, 21 classes, 10 steps"
        assert len(figures.pop(f"{title}, s")) == 2
        assert 0 < figures.pop(f"{title}, peak memory in MB, at most 600")[0] < 100
        if with_original:
            assert len(figures.pop(f"{title} / pydensecrf2, at most 1.5")) == 2
            assert figures.pop(f"{title}, pixels of the same class, %") == [100]
    assert not figures


def test_mistakes_are_named(capsys):
    for flag, message in {
        "--what=nothing": "unknown value of what 'nothing'",
        "--rounds=0": "--rounds=0: expected a number of at least 1",
        "--repeats=-1": "--repeats=-1: expected a number of at least 1",
    }.items():
        assert finished(benchmark, flag) == 1
        assert message in capsys.readouterr().err


def test_numbers_of_rounds_are_summed_up():
    assert benchmark._table({"a": 1.234, "b": [4.0, 1.0, 2.0, 3.0, 5.0], "c": [7.0]}).splitlines()[2:] == [
        "| a | 1.23 |",
        "| b | 3.00 (2.00 to 4.00) |",
        "| c | 7.00 |",
    ]


# ---- what is measured


def test_photographs_are_like_photographs():
    image, label = pipeline.photograph((90, 120), 3)
    again, other = (pipeline.photograph((90, 120), seed)[0] for seed in (3, 4))
    assert (image == again).all()
    assert (image != other).mean() > 0.9
    assert (image.dtype, label.dtype, label.shape) == (np.uint8, np.uint8, (90, 120))
    pixels = image.astype(np.float32)
    steps = np.abs(np.diff(pixels, axis=1))
    assert steps.mean() < pixels.std() / 3  # neighbours are alike,
    assert (steps > 0).mean() > 0.5  # and yet nothing is flat
    assert len(set(np.unique(label)) - {255}) >= 2 and set(np.unique(label)) <= {*range(19), 255}


def test_records_are_written_in_shards(tmp_path):
    folder = pipeline.write_records(str(tmp_path / "r"), (30, 40), "PNG", 7, shards=3)
    index = record_index.index_shards(records.find_shards(folder, "train"))
    assert len(index) == 7
    assert np.bincount(index.shard).tolist() == [3, 3, 1]


@pytest.mark.heavy
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("size", [(40, 60), (150, 200)], ids=["small", "large"])
def test_the_plain_pipeline_computes_the_same(tmp_path, kind, size):
    scale = pipeline.PipelineScale(crop=65, batch=4)
    folder = pipeline.write_records(str(tmp_path / "r"), size, kind, 4, shards=1)
    stored = list(tf.data.TFRecordDataset(records.find_shards(folder, "train")))
    for epoch, batch in enumerate(pipeline.our_dataset(folder, scale).take(3)):
        for name, image, label in zip(batch["image_name"], batch["image"], batch["label"], strict=True):
            number = int(name.numpy().decode().rpartition("_")[2])
            draws = tf.random.stateless_uniform([4], tf.constant([epoch, number], tf.int64), alg="philox")
            plain_image, plain_label = pipeline.plain_example(stored[number], draws, scale.crop)
            np.testing.assert_allclose(image, plain_image, atol=1e-3)
            np.testing.assert_array_equal(label, plain_label)


@pytest.mark.heavy
def test_the_bare_step_has_the_loss_of_ours():
    scale = train_step.SMALL
    model = build_model(train_step._model_config(scale))
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    random = np.random.default_rng(0)
    images = tf.constant(random.uniform(0, 255, (2, *scale.crop, 3)).astype(np.float32))
    labels = tf.constant(random.choice([*range(21), 255], (2, *scale.crop)).astype(np.int32))
    before = [weight.numpy() for weight in model.weights]
    bare = float(train_step.bare_step(model)(images, labels))
    assert any((weight.numpy() != old).any() for weight, old in zip(model.weights, before, strict=True))
    for weight, old in zip(model.weights, before, strict=True):
        weight.assign(old)
    ours = make_train_step(model, TrainConfig())(images, labels)
    np.testing.assert_allclose(bare, ours["cross_entropy"], rtol=1e-5)
