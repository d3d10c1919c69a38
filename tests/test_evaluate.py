"""Scores over a data set: every example once, whatever the batches, and the recorded figures on real photographs."""

import importlib
import json
import types

import numpy as np
import PIL.Image
import pytest
from conftest import GOLDENS

import deeplab_tf
from deeplab_tf.config import EvalConfig, Inference
from deeplab_tf.data.shapes import FIRST_INDEX, shapes_example
from deeplab_tf.errors import DeepLabError
from deeplab_tf.evaluation.evaluate import Evaluation, ScoreLog, evaluate, score, tagged_scores
from deeplab_tf.evaluation.passes import Observer
from deeplab_tf.ops.images import read_image
from deeplab_tf.ops.metrics import confusion_matrix


@pytest.fixture(scope="module")
def model():
    return deeplab_tf.load("shapes_resnet")[1]


def batches(count: int, size: int):
    for first in range(0, count, size):
        examples = [shapes_example(0, FIRST_INDEX["val"] + i) for i in range(first, min(first + size, count))]
        images, labels = (np.stack(arrays) for arrays in zip(*examples, strict=True))
        yield {"image": images.astype(np.float32), "label": labels[..., None].astype(np.int32)}


def test_every_example_counts_once_whatever_the_batches(model):
    whole, parts = evaluate(model, batches(7, 7)), evaluate(model, batches(7, 3))
    assert np.array_equal(whole["confusion_matrix"], parts["confusion_matrix"])
    assert whole["examples"] == parts["examples"] == 7
    (batch,) = batches(7, 7)
    seen = int(np.sum(batch["label"] != 255))
    assert whole["confusion_matrix"].sum() == seen
    expected = confusion_matrix(batch["label"][..., 0], deeplab_tf.predict(model, batch["image"]), 9)
    assert np.array_equal(whole["confusion_matrix"], expected)
    assert 0.5 < whole["miou"] < 1 and whole["pixel_accuracy"] == np.trace(expected) / seen


def test_scales_and_flips_are_those_of_predict(model):
    (batch,) = batches(2, 2)
    found = evaluate(model, [batch], scales=(0.5, 1.0), flip=True)["confusion_matrix"]
    labels = deeplab_tf.predict(model, batch["image"], scales=(0.5, 1.0), flip=True)
    assert np.array_equal(found, confusion_matrix(batch["label"][..., 0], labels, 9))


def test_the_crf_refines_each_picture_by_itself(model):
    """Not the padding of its batch, which would be another neighbourhood."""
    crf, (batch,) = {"iterations": 2, "sigma_alpha": 20.0}, batches(2, 2)
    small, sizes = batch["image"][1, :60, :90], np.array([[129, 129], [60, 90]])
    padded, label = batch["image"].copy(), batch["label"].copy()
    padded[1], label[1] = 127.5, 255
    padded[1, :60, :90], label[1, :60, :90] = small, batch["label"][1, :60, :90]
    found = evaluate(model, [{"image": padded, "label": label, "size": sizes}], crf=crf)["confusion_matrix"]
    expected = sum(
        confusion_matrix(truth[..., 0], deeplab_tf.predict(model, image, crf=crf), 9)
        for image, truth in ((batch["image"][:1], label[:1]), (small[None], batch["label"][1:, :60, :90]))
    )
    plain = evaluate(model, [{"image": padded, "label": label, "size": sizes}])["confusion_matrix"]
    assert np.array_equal(found, expected) and not np.array_equal(found, plain)


def test_recorded_figures_on_real_photographs(shared):
    golden = json.loads((GOLDENS / "real" / "metrics.json").read_text())["os16_single"]
    folder = shared / "real" / "voc_mini"
    _, model = deeplab_tf.load(shared / "real" / "deeplabv3_mnv2_dm05_pascal", crop_size=(513, 513))

    def examples():
        for path in sorted((folder / "JPEGImages").glob("*.jpg")):
            label = np.array(PIL.Image.open(folder / "SegmentationClass" / f"{path.stem}.png"))
            yield {"image": read_image(path)[None], "label": label[None]}

    scores = evaluate(model, examples())
    assert scores["examples"] == 3
    assert scores["miou"] == pytest.approx(golden["miou_over_classes_in_union"], abs=1e-4)
    assert scores["pixel_accuracy"] == pytest.approx(golden["pixel_accuracy"], abs=1e-4)
    for name, value in golden["iou"].items():
        assert scores["iou_per_class"][int(name)] == pytest.approx(value, abs=1e-4)


def mixed(size: int):
    """Three pictures of other sizes in one array, as `make_dataset` gives them, in batches."""
    sizes, arrays = ((65, 97), (129, 81), (97, 97)), []
    for i, (height, width) in enumerate(sizes):
        image, label = np.full((129, 97, 3), 127.5, np.float32), np.full((129, 97), 255, np.int32)
        found = shapes_example(0, FIRST_INDEX["val"] + i, height=height, width=width)
        image[:height, :width], label[:height, :width] = found
        arrays.append((image, label, np.array([height, width])))
    for first in range(0, 3, size):
        images, labels, own = map(np.stack, zip(*arrays[first : first + size], strict=True))
        yield {"image": images, "label": labels, "size": own}


def test_pictures_of_several_sizes_score_as_alone(model):
    matrices = [evaluate(model, mixed(size))["confusion_matrix"] for size in (1, 2, 3)]
    expected = np.zeros((9, 9), np.int64)
    for batch in mixed(1):
        height, width = batch["size"][0]
        found = deeplab_tf.predict(model, batch["image"][:, :height, :width])
        expected += confusion_matrix(batch["label"][:, :height, :width], found, 9)
    assert all(np.array_equal(matrix, expected) for matrix in matrices)


def test_each_picture_can_be_watched(model):
    """At its own size, once, in order; what it is scored as adds up to the score."""
    seen, observer = [], Observer()
    observer.scored = seen.extend
    scores = score(model, mixed(2), Inference(), ignore_label=255, observer=observer)
    assert [example.label.shape for example in seen] == [(65, 97), (129, 81), (97, 97)]
    total = sum(confusion_matrix(example.label, example.prediction, 9) for example in seen)
    assert np.array_equal(scores["confusion_matrix"], total)
    for example, batch in zip(seen, mixed(1), strict=True):
        height, width = example.label.shape
        assert example.image.dtype == np.uint8
        assert np.array_equal(example.image, batch["image"][0, :height, :width])
    named = {**next(mixed(1)), "image_name": [b"a name"]}
    score(model, [named], Inference(), ignore_label=255, observer=observer)
    assert [example.name for example in seen] == ["", "", "", "a name"]


def test_tiles_are_an_option():
    _, model = deeplab_tf.load("shapes_resnet", crop_size=(65, 65))
    (batch,) = mixed(3)
    whole = evaluate(model, [batch])["confusion_matrix"]
    tiled = score(model, [batch], Inference(large_images="tile"), ignore_label=255)["confusion_matrix"]
    assert tiled.sum() == whole.sum() and not np.array_equal(tiled, whole)


# ---- names and files

SCORES = {
    "miou": 0.25,
    "iou_per_class": np.array([0.5, 0.0, 0.25, np.nan]),
    # Nothing is labelled 1, though something is taken for it; 3 is nowhere.
    "confusion_matrix": np.array([[2, 1, 1, 0], [0, 0, 0, 0], [0, 2, 1, 0], [0, 0, 0, 0]]),
    "pixel_accuracy": 0.75,
    "examples": 2,
}


@pytest.mark.parametrize(
    ("scales", "flip", "name"),
    [
        ((1.0,), False, "miou_1.0"),
        ((1,), True, "miou_1.0_flipped"),
        ((0.5, 0.75, 1.0, 1.25), False, "miou_0.5_0.75_1.0_1.25"),
        ((0.5, 1.75), True, "miou_0.5_1.75_flipped"),
    ],
)
def test_names_of_the_release(scales, flip, name):
    found = tagged_scores(SCORES, Inference(scales, flip))
    expected = {f"eval/{name}_overall": 0.25, f"eval/{name}_class_0": 0.5, f"eval/{name}_class_1": np.nan}
    expected |= {f"eval/{name}_class_2": 0.25, f"eval/{name}_class_3": np.nan}
    assert list(found) == list(expected)
    assert list(found.values()) == pytest.approx(list(expected.values()), nan_ok=True)


def test_the_log_of_scores(tmp_path):
    log, tagged = ScoreLog(str(tmp_path / "a" / "b")), tagged_scores(SCORES)
    for step in (10, 20):
        log.write(Evaluation(f"model.ckpt-{step}", step, SCORES, tagged))
    lines = [json.loads(line) for line in (tmp_path / "a/b/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [10, 20]
    assert lines[1] == {
        "step": 20,
        "checkpoint": "model.ckpt-20",
        "examples": 2,
        "pixel_accuracy": 0.75,
        "eval/miou_1.0_overall": 0.25,
        "eval/miou_1.0_class_0": 0.5,
        "eval/miou_1.0_class_1": None,
        "eval/miou_1.0_class_2": 0.25,
        "eval/miou_1.0_class_3": None,
        "precision": "float32",
        "tf32": False,
    }
    assert len(list((tmp_path / "a/b").glob("events.*"))) == 1


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(DeepLabError, match="file.*cannot be written"):
            ScoreLog(str(folder)).write(Evaluation("x", 1, SCORES, tagged_scores(SCORES)))


def test_mistakes(model):
    with pytest.raises(DeepLabError, match="empty"):
        evaluate(model, [])
    (batch,) = batches(1, 1)
    with pytest.raises(DeepLabError, match="label 0..200.*9 classes"):
        evaluate(model, [{**batch, "label": np.where(batch["label"] == 0, 0, 200)}])


def test_a_log_of_other_weights_is_noticed(tmp_path):
    log, file = ScoreLog(str(tmp_path)), tmp_path / "metrics.jsonl"
    assert log.stale("run/model.ckpt-5") is None
    file.write_text('{"step": 1, "checkpoint": "run/model.ckpt-1"}\n')
    assert log.stale("run/model.ckpt-5") is None
    assert "holds scores of run/model.ckpt-1 too" in log.stale("other/model.ckpt-5")
    file.write_bytes(b"\x80 no text")
    assert log.stale("other/model.ckpt-5") is None


def test_it_is_told_once(tmp_path, monkeypatch):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "checkpoint": "run/model.ckpt-1"}\n')
    opened = [types.SimpleNamespace(path=f"new/model.ckpt-{step}", step=step) for step in (1, 2)]
    module = importlib.import_module("deeplab_tf.evaluation.evaluate")
    monkeypatch.setattr(module, "passes", lambda *_, **__: (types.SimpleNamespace(opened=one) for one in opened))
    scores = {"examples": 1, "pixel_accuracy": 1.0}

    def scored(work, *_, **__):
        return Evaluation(work.opened.path, work.opened.step, scores, {}, (), "seen")

    monkeypatch.setattr(module, "evaluate_pass", scored)
    lines, observer = [], Observer()
    observer.tell = lines.append
    config = EvalConfig(checkpoint_dir="new", eval_logdir=str(tmp_path))
    assert len(list(module.evaluate_checkpoints(config, {}, observer=observer))) == 2
    (line,) = lines
    assert line.startswith("Note: --eval_logdir: ") and "run/model.ckpt-1" in line
    written = [json.loads(text) for text in (tmp_path / "metrics.jsonl").read_text().splitlines()[1:]]
    assert [one["contaminated"] for one in written] == ["seen", "seen"]
