"""The benchmarks of predicting and serving: every combination is reported, and the figures are what they say."""

import json
import statistics
import xml.etree.ElementTree

import numpy as np
import pytest
import tensorflow as tf
from commands import finished
from golden import golden_image

from deeplab_tf.benchmarks import inference
from deeplab_tf.benchmarks.inference import Measurement
from deeplab_tf.inference.tflite.convert import convert
from deeplab_tf.ops.images import read_image, resize_longest
from deeplab_tf.ops.resizing import resize_bilinear
from deeplab_tf.tools import benchmark
from deeplab_tf.weights.loading import open_model

pytest.importorskip("ai_edge_litert", reason="the extra `litert` is not installed")


@pytest.mark.heavy
def test_inference_is_reported(capsys, tmp_path):
    file, chart = tmp_path / "figures.json", tmp_path / "bars.svg"
    flags = ["--what=inference", "--small", "--rounds=2", "--batches=1,2", "--runtimes=keras,predict"]
    assert finished(benchmark, *flags, f"--json={file}", f"--chart={chart}") == 0
    *rows, matmul = json.loads(file.read_text())["figures"]["inference"]
    combinations = [(row["runtime"], row["batch"]) for row in rows]
    assert combinations == [("keras", 1), ("keras", 2), ("predict", 1), ("predict", 2)]
    for row in rows:
        low, high = row["ms_middle_half"]
        assert 0 < low <= row["ms"] <= high
        assert row["images_per_s"] == pytest.approx(1000 * row["batch"] / row["ms"])
        assert row["ms_per_megapixel"] == pytest.approx(row["ms"] / (row["batch"] * 65 * 65 / 1e6))
        assert row["share_of_matmul"] == pytest.approx(row["gmac_per_s"] / matmul["gmac_per_s"])
        assert 0 <= row["share_after_logits"] < 1
    works = {row["batch"]: row["gmac_per_s"] * row["ms"] for row in rows}
    assert works[2] == pytest.approx(2 * works[1])
    printed = capsys.readouterr().out
    assert printed.count("| shapes_resnet | 65 x 65 |") == 4 and "| figure | measured |" not in printed
    root = xml.etree.ElementTree.parse(chart).getroot()
    assert len(root.findall("{*}rect")) == 4
    assert "shapes_resnet, 65 x 65, batch 2: predict" in [text.text for text in root.findall("{*}text")]


def test_models_whose_paths_end_alike_are_all_measured():
    paths = ("a/model.ckpt", "b/model.ckpt", "c/small/")
    assert inference._names(paths) == {"a/model.ckpt": paths[0], "b/model.ckpt": paths[1], "small": paths[2]}


def test_auto_is_compared_with_the_best_candidate():
    kinds = {"keras": 1.0, "tf": 4.0, "predict": 3.0, "onnx": 2.0, "tflite_int8": 0.5, "auto": 2.5}
    rows = [{"model": "m", "size": (65, 65), "batch": 1, "runtime": kind, "ms": ms} for kind, ms in kinds.items()]
    rows.append({**rows[-1], "batch": 2, "ms": 9.0})
    *_, auto, alone = inference._with_best(rows)
    assert (auto["best"], auto["of_best"]) == ("onnx", 1.25) and "best" not in alone


def test_the_middle_and_its_spread():
    row = Measurement("m", "r", (100, 200), 4, 8_000_000, seconds=[0.1, 0.4, 0.2, 0.3])
    found = row.figures(peak=1e9)
    assert found["ms"] == pytest.approx(1000 * statistics.median([0.1, 0.2, 0.3, 0.4]))
    assert found["images_per_s"] == pytest.approx(16)
    assert found["gmac_per_s"] == pytest.approx(0.032) and found["share_of_matmul"] == pytest.approx(0.032)
    assert found["ms_per_megapixel"] == pytest.approx(250 / 0.08)
    assert found["ms_middle_half"][0] < 250 < found["ms_middle_half"][1]
    assert Measurement("m", "r", (1, 1), 1, 1, seconds=[0.5]).figures(1.0)["ms_middle_half"] == [500, 500]


@pytest.mark.parametrize(
    ("flag", "reason"),
    [
        ("--runtimes=keras,torch", "unknown value of runtimes 'torch'"),
        ("--sizes=513", "--sizes=513: expected height x width"),
        ("--sizes=512x513", "--sizes=512x513: shapes_resnet wants multiples of 16, plus one"),
        ("--batches=0", "--batches=0: expected numbers of at least 1"),
        ("--originals=nothing.pb", "--originals=nothing.pb: no such file"),
        ("--clients=0", "--clients=0: expected a number above 0"),
    ],
)
def test_mistakes_are_told(flag, reason, capsys):
    what = "serve" if flag.startswith("--clients") else "inference"
    assert finished(benchmark, f"--what={what}", flag) == 1
    assert reason in capsys.readouterr().err


def test_the_release_s_own_file_is_set_beside(shared):
    """It gets the pixels as it takes them: its classes are those of its weights in our graph."""
    file, checkpoint = shared / "real/deeplabv3_257_mv_gpu.tflite", shared / "real/deeplabv3_mnv2_dm05_pascal"
    assert inference._original(str(file), (65, 65)) is None
    photographs = sorted((shared / "real/voc_mini/JPEGImages").iterdir())[:2]
    images = np.stack([resize_longest(read_image(photo), 400)[:257, :257] for photo in photographs])
    found = inference._original(str(file), (257, 257))(images)
    model = open_model(str(checkpoint), {"output_stride": 8}).model
    expected = resize_bilinear(model(images.astype(np.float32), training=False), (257, 257)).numpy().argmax(-1)
    assert len(np.unique(expected)) > 1
    assert np.mean(np.concatenate(found) == expected) > 0.9999


def test_a_file_that_takes_pixels_is_set_beside(tmp_path):
    run = tf.function(lambda x: tf.cast(x[..., 1], tf.int32) + 3, [tf.TensorSpec((1, 5, 7, 3), tf.uint8)])
    (tmp_path / "a.tflite").write_bytes(convert(run.get_concrete_function()))
    images = np.stack([golden_image(f"pixels{number}", 5, 7) for number in range(2)])
    found = inference._original(str(tmp_path / "a.tflite"), (5, 7))(images)
    assert np.array_equal(np.concatenate(found), images[..., 1].astype(int) + 3)


@pytest.mark.heavy
def test_clients_are_answered(capsys, tmp_path):
    pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")
    file = tmp_path / "figures.json"
    assert finished(benchmark, "--what=serve", "--clients=3", "--seconds=1", f"--json={file}") == 0
    figures = json.loads(file.read_text())["figures"]
    assert figures["3 clients for 1 s: requests answered"] >= 3
    assert figures["3 clients: failed requests, at most 0"] == 0
    assert figures["3 clients: different answers to the same question, at most 1"] == 1
    assert figures["3 clients: memory of the server at the end, MB"] > 50
