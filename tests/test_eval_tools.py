"""The commands eval and vis on records: the original's scores, every example once, any size, runs that go on."""

import dataclasses
import functools
import json
import math
import os
import pathlib
import shutil
import threading
import time

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from commands import finished, one_line
from conftest import GOLDENS
from record_files import example_of, write_records, write_shapes
from test_predictor import lively

import deeplab_tf
from deeplab_tf.catalog.datasets import DATASETS, dataset_json
from deeplab_tf.catalog.palettes import colour_map
from deeplab_tf.config import ModelConfig
from deeplab_tf.data.shapes import FIRST_INDEX, shapes_example
from deeplab_tf.ops.images import read_image
from deeplab_tf.ops.metrics import confusion_matrix
from deeplab_tf.tools import build_data
from deeplab_tf.tools import eval as eval_tool
from deeplab_tf.tools import train as train_tool
from deeplab_tf.tools import vis as vis_tool
from deeplab_tf.weights.loading import weights_path
from deeplab_tf.weights.sources import open_source
from deeplab_tf.weights.tf1 import save_tf1_checkpoint, write_tensors

CROP, SIZES = 129, ((129, 105), (129, 129), (104, 193), (94, 97), (160, 114))


def example(number: int) -> tuple[np.ndarray, np.ndarray]:
    height, width = SIZES[number]
    return shapes_example(0, FIRST_INDEX["val"] + number, height=height, width=width)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> str:
    """Held-out pictures of several sizes, wider and higher than the crop below among them."""
    examples = [(f"folder/shapes_{i}.jpg", *example(i)) for i in range(len(SIZES))]
    return write_records(
        tmp_path_factory.mktemp("shapes") / "records", "val", [example_of(*parts) for parts in examples]
    )


@pytest.fixture(scope="module")
def model():
    return deeplab_tf.load("shapes_resnet", crop_size=(CROP, CROP))[1]


def lines(folder) -> list[dict]:
    return [json.loads(line) for line in (pathlib.Path(folder) / "metrics.jsonl").read_text().splitlines()]


def events(folder) -> dict[tuple[str, int], float]:
    """The scalars of the event files: (tag, step) -> value."""
    found = {}
    for file in sorted(pathlib.Path(folder).glob("events.*")):
        for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
            event = tf.compat.v1.Event.FromString(record)
            found |= {(value.tag, event.step): float(tf.make_ndarray(value.tensor)) for value in event.summary.value}
    return found


def picture(folder, name: str) -> np.ndarray:
    return np.array(PIL.Image.open(pathlib.Path(folder) / name))


def everything(folder) -> set[str]:
    return {str(path.relative_to(folder)) for path in pathlib.Path(folder).rglob("*") if path.is_file()}


@functools.cache
def expected_maps(model, **options) -> list[np.ndarray]:
    return [deeplab_tf.predict(model, example(i)[0][None], **options)[0] for i in range(len(SIZES))]


def expected_matrix(maps) -> np.ndarray:
    return sum(confusion_matrix(example(i)[1], found, 9) for i, found in enumerate(maps))


def release_scores(matrix: np.ndarray) -> tuple[float, list[float]]:
    """official_release.md 6.1, class by class: overall over classes with a union, a class NaN without labels."""
    hits, truth, found = np.diag(matrix).astype(float), matrix.sum(1), matrix.sum(0)
    union = truth + found - hits
    overall = np.mean([hits[c] / union[c] for c in range(len(hits)) if union[c]])
    return overall, [hits[c] / union[c] if truth[c] else math.nan for c in range(len(hits))]


SHAPES = ("--checkpoint_dir=shapes_resnet", "--eval_crop_size=129,129")


# ---- eval


@pytest.mark.heavy
@pytest.mark.parametrize("batch_size", [2, 5])  # of one: all the tests below
def test_every_example_counts_once_at_its_own_size(batch_size, shapes, model, tmp_path, capsys):
    flags = (*SHAPES, f"--dataset_dir={shapes}", f"--eval_logdir={tmp_path}", f"--eval_batch_size={batch_size}")
    assert finished(eval_tool, *flags) == 0
    overall, classes = release_scores(expected_matrix(expected_maps(model)))
    (line,) = lines(tmp_path)
    assert (line["step"], line["examples"], line["checkpoint"]) == (12000, 5, "shapes_resnet")
    assert line["eval/miou_1.0_overall"] == pytest.approx(overall, abs=1e-9)
    found = [line[f"eval/miou_1.0_class_{c}"] for c in range(9)]
    assert [math.nan if v is None else v for v in found] == pytest.approx(classes, abs=1e-9, nan_ok=True)
    assert any(math.isnan(v) for v in classes), "one class has no pixel in the labels"
    scalars = {tag: value for (tag, step), value in events(tmp_path).items() if step == 12000}
    assert scalars == pytest.approx(
        {"eval/miou_1.0_overall": overall, **{f"eval/miou_1.0_class_{c}": v for c, v in enumerate(classes)}},
        abs=1e-6,
        nan_ok=True,
    )
    printed = capsys.readouterr().out
    rows = [row.split() for row in printed.splitlines()]
    assert ["dataset", "shapes"] in rows and ["eval/miou_1.0_overall", f"{overall:.4f}"] in rows
    names = DATASETS["shapes"].class_names
    for c, value in enumerate(classes):
        assert [f"eval/miou_1.0_class_{c}", "nan" if math.isnan(value) else f"{value:.4f}", names[c]] in rows


def test_scales_and_flips_are_in_the_name(shapes, model, tmp_path, capsys):
    flags = (*SHAPES, f"--dataset_dir={shapes}", f"--eval_logdir={tmp_path}", "--eval_scales=0.5", "--eval_scales=1")
    assert finished(eval_tool, *flags, "--add_flipped_images") == 0
    overall, _ = release_scores(expected_matrix(expected_maps(model, scales=(0.5, 1.0), flip=True)))
    assert lines(tmp_path)[0]["eval/miou_0.5_1.0_flipped_overall"] == pytest.approx(overall, abs=1e-9)
    rows = [row.split() for row in capsys.readouterr().out.splitlines()]
    assert ["eval/miou_0.5_1.0_flipped_overall", f"{overall:.4f}"] in rows


def test_flips_count_at_the_single_scale(shapes, model, tmp_path, capsys):
    flags = (*SHAPES, f"--dataset_dir={shapes}", f"--eval_logdir={tmp_path}", "--add_flipped_images")
    assert finished(eval_tool, *flags) == 0
    flipped, _ = release_scores(expected_matrix(expected_maps(model, flip=True)))
    plain, _ = release_scores(expected_matrix(expected_maps(model)))
    assert lines(tmp_path)[0]["eval/miou_1.0_flipped_overall"] == pytest.approx(flipped, abs=1e-9)
    assert abs(flipped - plain) > 1e-6
    assert "Note: --add_flipped_images counts at the single scale 1" in capsys.readouterr().out


def test_the_crop_may_be_left_out(shapes, tmp_path):
    flags = (f"--dataset_dir={shapes}", f"--eval_logdir={tmp_path}", "--checkpoint_dir=shapes_resnet")
    assert finished(eval_tool, *flags, "--eval_crop_size=", "--eval_batch_size=3") == 0
    _, model = deeplab_tf.load("shapes_resnet", crop_size=None)
    overall, _ = release_scores(expected_matrix(expected_maps(model)))
    assert lines(tmp_path)[0]["eval/miou_1.0_overall"] == pytest.approx(overall, abs=1e-9)


def test_larger_images_in_tiles(shapes, model, tmp_path):
    """Those that fit are as before; the others come from pieces of the crop's size, none larger."""
    flags = (f"--dataset_dir={shapes}", f"--vis_logdir={tmp_path}", "--checkpoint_dir=shapes_resnet")
    flags = (*flags, "--vis_crop_size=129,129", "--large_images=tile", "--also_save_raw_predictions")
    assert finished(vis_tool, *flags) == 0
    for number, whole in enumerate(expected_maps(model)):
        found = picture(tmp_path, f"raw_segmentation_results/shapes_{number}.jpg.png")
        image, fits = example(number)[0], max(SIZES[number]) <= CROP
        assert np.array_equal(found, whole) == fits
        if SIZES[number] == (104, 193):  # tiles at 0 and 64; the border lies in the middle of what they share
            left, right = (deeplab_tf.predict(model, image[None, :, c])[0] for c in (slice(0, 129), slice(64, 193)))
            np.testing.assert_array_equal(found, np.concatenate([left[:, :96], right[:, 32:]], axis=1))


@pytest.mark.heavy
def test_the_original_s_scores_on_real_photographs(shared, tmp_path, capsys):
    """golden/real: pixels as Pillow decodes them, so they are stored losslessly here."""
    folder = shared / "real" / "voc_mini"
    names = sorted(path.stem for path in (folder / "JPEGImages").glob("*.jpg"))
    examples = [
        (name, read_image(folder / "JPEGImages" / f"{name}.jpg"), picture(folder, f"SegmentationClass/{name}.png"))
        for name in names
    ]
    data = write_records(tmp_path / "records", "val", [example_of(*parts) for parts in examples])
    weights = shared / "real" / "deeplabv3_mnv2_dm05_pascal"
    flags = (f"--checkpoint_dir={weights}", f"--dataset_dir={data}", "--dataset=pascal_voc_seg")
    flags = (*flags, "--model_variant=mobilenet_v2", "--depth_multiplier=0.5", "--output_stride=16")
    assert finished(eval_tool, *flags, "--eval_crop_size=513,513", f"--eval_logdir={tmp_path / 'eval'}") == 0
    golden = json.loads((GOLDENS / "real" / "metrics.json").read_text())["os16_single"]
    (line,) = lines(tmp_path / "eval")
    assert (line["step"], line["examples"]) == (30000, 3)
    assert line["eval/miou_1.0_overall"] == pytest.approx(golden["miou_over_classes_in_union"], abs=1e-4)
    assert line["pixel_accuracy"] == pytest.approx(golden["pixel_accuracy"], abs=1e-4)
    labelled = {int(v) for _, _, label in examples for v in np.unique(label)} - {255}
    for c in range(21):
        expected = golden["iou"][str(c)] if c in labelled else None
        assert line[f"eval/miou_1.0_class_{c}"] == (None if expected is None else pytest.approx(expected, abs=1e-4))
    assert "867,496,704" in next(row for row in capsys.readouterr().out.splitlines() if "multiply-adds" in row)
    flags = (*flags, "--vis_crop_size=513,513", f"--vis_logdir={tmp_path / 'vis'}", "--also_save_raw_predictions")
    assert finished(vis_tool, *flags) == 0
    for number, (name, image, _) in enumerate(examples):
        raw = picture(tmp_path, f"vis/raw_segmentation_results/{name}.png")
        assert np.mean(raw == picture(GOLDENS, f"real/{name}_os16_single.png")) >= 0.9999
        np.testing.assert_array_equal(picture(tmp_path, f"vis/segmentation_results/{number:06d}_image.png"), image)


@pytest.mark.heavy
def test_photographs_as_the_builder_stores_them(shared, tmp_path):
    """Another way to the same score: TensorFlow's own decoder, padded by hand to the crop."""
    mini, weights = shared / "real" / "voc_mini", shared / "real" / "deeplabv3_mnv2_dm05_pascal"
    flags = ("--dataset=pascal_voc_seg", f"--voc_root={mini}", f"--output_dir={tmp_path / 'r'}", "--num_processes=1")
    assert finished(build_data, *flags) == 0
    flags = (f"--checkpoint_dir={weights}", f"--dataset_dir={tmp_path / 'r'}", f"--eval_logdir={tmp_path / 'e'}")
    assert finished(eval_tool, *flags, "--eval_batch_size=2") == 0
    _, model = deeplab_tf.load(weights)
    total = np.zeros((21, 21), np.int64)
    for path in sorted((mini / "JPEGImages").glob("*.jpg")):
        image = tf.io.decode_jpeg(path.read_bytes()).numpy()
        padded = np.full((1, 513, 513, 3), 127.5, np.float32)
        padded[0, : image.shape[0], : image.shape[1]] = image
        found = deeplab_tf.predict(model, padded)[0, : image.shape[0], : image.shape[1]]
        total += confusion_matrix(picture(mini, f"SegmentationClass/{path.stem}.png"), found, 21)
    assert lines(tmp_path / "e")[0]["eval/miou_1.0_overall"] == pytest.approx(release_scores(total)[0], abs=1e-6)


def test_labels_out_of_range_are_named(shared, tmp_path, capsys):
    """The release's own fixture: random pixels, labels over 0..254."""
    shutil.copy(shared / "real" / "val-00000-of-00001.tfrecord", tmp_path)
    weights = shared / "real" / "deeplabv3_mnv2_dm05_pascal"
    flags = (f"--checkpoint_dir={weights}", f"--dataset_dir={tmp_path}", f"--eval_logdir={tmp_path / 'eval'}")
    assert finished(eval_tool, *flags, "--eval_crop_size=129,129") == 1
    message = one_line(capsys.readouterr().err)
    assert "2007_000033" in message and "label" in message and "--label_policy=ignore" in message
    assert not (tmp_path / "eval" / "metrics.jsonl").exists()


# ---- a run that goes on


def embedded_weights() -> dict[str, np.ndarray]:
    with open_source(weights_path("shapes_resnet")) as source:
        return {name: source.read(name) for name in source.shapes}


@pytest.mark.heavy
def test_a_run_is_followed_while_another_thread_writes_it(shapes, tmp_path, capsys):
    run, logs, weights = tmp_path / "run", tmp_path / "logs", embedded_weights()

    def until(condition):
        while not condition() and time.monotonic() < limit:
            time.sleep(0.01)

    def save(step):
        write_tensors(run / f"model.ckpt-{step}", {**weights, "global_step": np.int64(step)})
        (run / "checkpoint").write_text(f'model_checkpoint_path: "model.ckpt-{step}"\n')

    def trainer():
        until(lambda: "Waiting for the first checkpoint" in seen())
        save(10)
        until(lambda: (logs / "metrics.jsonl").exists())
        weights["logits/semantic/biases"] = np.zeros_like(weights["logits/semantic/biases"])
        save(20)
        for suffix in (".index", ".data-00000-of-00001"):  # as keep_checkpoints does
            (run / f"model.ckpt-10{suffix}").unlink()

    printed = []

    def seen():
        printed.append(capsys.readouterr().out)
        return "".join(printed)

    limit = time.monotonic() + 60
    thread = threading.Thread(target=trainer)
    thread.start()
    flags = (f"--checkpoint_dir={run}", f"--dataset_dir={shapes}", f"--eval_logdir={logs}", "--dataset=shapes")
    flags = (*flags, "--eval_crop_size=129,129", "--eval_interval_secs=0", "--max_number_of_evaluations=2")
    assert finished(eval_tool, *flags) == 0
    thread.join()
    found = lines(logs)
    assert [line["step"] for line in found] == [10, 20]
    assert found[0]["eval/miou_1.0_overall"] != found[1]["eval/miou_1.0_overall"]
    assert {step for _, step in events(logs)} == {10, 20}
    text = seen()
    assert f"Waiting for the first checkpoint in {run}, which does not exist yet" in text
    assert text.count("Configuration") == 1


@pytest.mark.heavy
def test_a_run_of_ours_from_training_to_pictures(shapes, tmp_path, capsys):
    """Its folder says what the network is, and what it was trained on: no flag has to be given again."""
    shutil.copy(pathlib.Path(shapes) / "val-00000-of-00001.tfrecord", tmp_path / "train-00000-of-00001.tfrecord")
    shutil.copy(pathlib.Path(shapes) / "val-00000-of-00001.tfrecord", tmp_path)
    run, data = tmp_path / "run", f"--dataset_dir={tmp_path}"
    flags = (f"--train_logdir={run}", data, "--dataset=shapes", "--model_variant=tiny", "--output_stride=8")
    steps = ("--training_number_of_steps=2", "--train_crop_size=33,33", "--train_batch_size=2")
    assert finished(train_tool, *flags, *steps) == 0
    once, crop = ("--max_number_of_evaluations=1", "--max_number_of_iterations=1"), "crop_size=129,129"
    assert (
        finished(eval_tool, f"--checkpoint_dir={run}", data, f"--eval_logdir={run}/e", f"--eval_{crop}", once[0]) == 0
    )
    printed = capsys.readouterr().out
    assert [row.split()[1] for row in printed.splitlines() if "output_stride" in row] == ["8"]
    assert "assumed" not in printed
    (line,) = lines(run / "e")
    assert line["step"] == 2 and line["checkpoint"] == str(run / "model.ckpt-2") and line["examples"] == 5
    assert finished(train_tool, *flags, "--mode=eval", f"--eval_{crop}") == 0
    assert lines(run / "eval") == [line]
    assert "contaminated" not in printed
    train = (f"--checkpoint_dir={run}", data, f"--eval_logdir={run}/t", f"--eval_{crop}", "--eval_split=train", once[0])
    assert finished(eval_tool, *train) == 0
    printed = capsys.readouterr().out
    assert "Note: contaminated: " in printed and "\nContaminated: the weights were trained on train" in printed
    flags = (f"--checkpoint_dir={run}", data, f"--vis_logdir={run}/v", "--also_save_raw_predictions")
    assert finished(vis_tool, *flags, f"--vis_{crop}", once[1]) == 0
    _, model = deeplab_tf.load(run, crop_size=(129, 129))
    for number, classes in enumerate(expected_maps(model)):
        np.testing.assert_array_equal(picture(run, f"v/raw_segmentation_results/shapes_{number}.jpg.png"), classes)


def test_scores_of_later_passes_are_added(shapes, tmp_path):
    flags = (*SHAPES, f"--dataset_dir={shapes}", f"--eval_logdir={tmp_path}")
    assert finished(eval_tool, *flags) == 0
    whole = (tmp_path / "metrics.jsonl").read_text()
    (tmp_path / "metrics.jsonl").write_text(whole + whole[:50])  # a process that was killed while it wrote
    assert finished(eval_tool, *flags) == 0
    assert (tmp_path / "metrics.jsonl").read_text() == f"{whole}{whole[:50]}\n{whole}"


# ---- vis


VIS = ("--checkpoint_dir=shapes_resnet", "--vis_crop_size=129,129")
NUMBERS = [f"{number:06d}" for number in range(len(SIZES))]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_pictures(batch_size, shapes, model, tmp_path, capsys):
    flags = (*VIS, f"--dataset_dir={shapes}", f"--vis_logdir={tmp_path}", f"--vis_batch_size={batch_size}")
    assert finished(vis_tool, *flags) == 0
    expected = {f"segmentation_results/{n}_{kind}.png" for n in NUMBERS for kind in ("image", "prediction")}
    assert everything(tmp_path) == expected
    palette = np.array(colour_map("pascal"), np.uint8)
    for number, classes in enumerate(expected_maps(model)):
        image = picture(tmp_path, f"segmentation_results/{number:06d}_image.png")
        np.testing.assert_array_equal(image, example(number)[0])
        prediction = picture(tmp_path, f"segmentation_results/{number:06d}_prediction.png")
        np.testing.assert_array_equal(prediction, palette[classes])
    assert f"5 images drawn in {tmp_path}" in capsys.readouterr().out


def test_raw_predictions_and_other_colours(shapes, model, tmp_path):
    flags = (*VIS, f"--dataset_dir={shapes}", f"--vis_logdir={tmp_path}", "--also_save_raw_predictions")
    assert finished(vis_tool, *flags, "--colormap_type=dataset") == 0
    palette = np.array(DATASETS["shapes"].palette, np.uint8)
    for number, classes in enumerate(expected_maps(model)):
        with PIL.Image.open(tmp_path / "raw_segmentation_results" / f"shapes_{number}.jpg.png") as raw:
            assert raw.mode == "L"
            np.testing.assert_array_equal(np.array(raw), classes)
        prediction = picture(tmp_path, f"segmentation_results/{number:06d}_prediction.png")
        np.testing.assert_array_equal(prediction, palette[classes])
    assert len(everything(tmp_path)) == 15


def test_resized_pictures_and_predictions_at_the_stored_size(shapes, tmp_path):
    """official_release.md 6.2: the picture as resized, the prediction by nearest with aligned corners as stored."""
    flags = (*VIS[:1], f"--dataset_dir={shapes}", f"--vis_logdir={tmp_path}", "--also_save_raw_predictions")
    flags = (
        *flags,
        "--vis_crop_size=145,145",
        "--min_resize_value=100",
        "--max_resize_value=145",
        "--resize_factor=16",
    )
    assert finished(vis_tool, *flags, "--vis_batch_size=2") == 0
    _, model = deeplab_tf.load("shapes_resnet", crop_size=(145, 145))
    for number, (height, width) in enumerate(SIZES):
        seen = picture(tmp_path, f"segmentation_results/{number:06d}_image.png")
        assert all(side % 16 == 1 for side in seen.shape[:2]) and min(seen.shape[:2]) != min(height, width)
        resized = tf.compat.v1.image.resize_bilinear(
            example(number)[0][None].astype(np.float32), seen.shape[:2], align_corners=True
        )
        np.testing.assert_array_equal(seen, tf.cast(resized[0], tf.uint8))
        small = deeplab_tf.predict(model, resized.numpy())[..., None]
        expected = tf.raw_ops.ResizeNearestNeighbor(images=small, size=(height, width), align_corners=True)
        raw = picture(tmp_path, f"raw_segmentation_results/shapes_{number}.jpg.png")
        np.testing.assert_array_equal(raw, expected[0, ..., 0])


def small_weights(folder: pathlib.Path, classes: int) -> str:
    config = ModelConfig("tiny", num_classes=classes, aspp_convs_filters=16)
    save_tf1_checkpoint(lively(config), folder / "model.ckpt")
    return str(folder / "model.ckpt")


@pytest.mark.heavy
def test_cityscapes_ids_are_those_of_its_server(tmp_path):
    ids = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
    weights = small_weights(tmp_path / "weights", 19)
    image = example(1)[0]
    data = write_records(tmp_path / "records", "test", [example_of("aachen_000000_000019", image, None)])
    flags = (f"--checkpoint_dir={weights}", "--dataset=cityscapes", f"--dataset_dir={data}", "--vis_split=test")
    flags = (*flags, "--vis_crop_size=129,129", "--also_save_raw_predictions", "--colormap_type=cityscapes")
    assert finished(vis_tool, *flags, f"--vis_logdir={tmp_path / 'vis'}") == 0
    classes = deeplab_tf.predict(deeplab_tf.load(weights, crop_size=(CROP, CROP))[1], image[None])[0]
    assert len(np.unique(classes)) > 5
    raw = picture(tmp_path, "vis/raw_segmentation_results/aachen_000000_000019.png")
    np.testing.assert_array_equal(raw, np.array(ids)[classes])
    prediction = picture(tmp_path, "vis/segmentation_results/000000_prediction.png")
    np.testing.assert_array_equal(prediction, np.array(colour_map("cityscapes"))[classes])


def test_names_that_are_missing_or_come_twice(tmp_path):
    image, label = example(0)
    names = ("a", "sub/a", "", "../../b", "a")
    data = write_records(tmp_path / "records", "val", [example_of(name, image, label) for name in names])
    flags = (*VIS, f"--dataset_dir={data}", f"--vis_logdir={tmp_path / 'vis'}", "--also_save_raw_predictions")
    assert finished(vis_tool, *flags) == 0
    raw = {name for name in everything(tmp_path / "vis") if name.startswith("raw")}
    assert raw == {f"raw_segmentation_results/{name}.png" for name in ("a", "a-2", "000002", "b", "a-3")}


def test_a_picture_is_there_completely_or_not_at_all(shapes, tmp_path, monkeypatch, capsys):
    original, calls = os.replace, []

    def full(source, target):
        calls.append(target)
        if len(calls) == 4:
            raise OSError(28, "No space left on device")
        return original(source, target)

    monkeypatch.setattr(os, "replace", full)
    assert finished(vis_tool, *VIS, f"--dataset_dir={shapes}", f"--vis_logdir={tmp_path}") == 1
    message = one_line(capsys.readouterr().err)
    assert f"--vis_logdir={tmp_path}: cannot be written" in message and "No space left" in message
    names = ("000000_image", "000000_prediction", "000001_image")
    assert everything(tmp_path) == {f"segmentation_results/{name}.png" for name in names}


# ---- mistakes


@pytest.mark.parametrize(
    ("tool", "arguments", "expected"),
    [
        (eval_tool, ["--eval_logdir=x", "--dataset_dir=x"], "--checkpoint_dir is missing"),
        (eval_tool, ["--checkpoint_dir=shapes_resnet", "--dataset_dir=x"], "--eval_logdir is missing"),
        (eval_tool, ["--checkpoint_dir=shapes_resnet", "--eval_logdir=x"], "--dataset_dir is missing"),
        (vis_tool, ["--checkpoint_dir=shapes_resnet", "--dataset_dir=x"], "--vis_logdir is missing"),
        (eval_tool, ["--checkpoint_dir=y", "--eval_logdir=x", "--dataset_dir=no"], "dataset_dir=no: no such folder"),
        (eval_tool, ["--checkpoint_dir=y", "--eval_logdir=./y", "--dataset_dir={shapes}"], "for instance ./y/eval"),
        (eval_tool, ["--checkpoint_dir=no/model.ckpt-3", "--eval_logdir=x", "--dataset_dir={shapes}"], "no such file"),
        (eval_tool, ["--eval_split=test", "--eval_logdir=x", "--dataset_dir={shapes}", *SHAPES], "it has splits val"),
        (eval_tool, ["--dataset=ade20k", "--eval_logdir=x", "--dataset_dir={shapes}", *SHAPES], "ade20k has 151 class"),
        (
            eval_tool,
            ["--num_clones=2", "--eval_logdir=x", "--dataset_dir={shapes}", *SHAPES],
            "Unknown command line flag 'num_clones'",
        ),
        (
            eval_tool,
            ["--aspp_convs_filters=256", "--eval_logdir=x", "--dataset_dir={shapes}", *SHAPES],
            "--aspp_convs_filters=256 contradicts",
        ),
        (
            vis_tool,
            ["--colormap_type=x", "--vis_logdir=x", "--dataset_dir={shapes}", *VIS],
            "unknown colormap_type 'x'",
        ),
        (vis_tool, ["--vis_logdir={shapes}/val-00000-of-00001.tfrecord", "--dataset_dir=x", *VIS], "cannot be written"),
    ],
)
def test_mistakes_are_one_line(tool, arguments, expected, shapes, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert finished(tool, *(argument.replace("{shapes}", shapes) for argument in arguments)) == 1
    assert expected in one_line(capsys.readouterr().err)
    assert everything(tmp_path) == set()


def test_a_split_without_labels_cannot_be_scored(tmp_path, capsys):
    data = write_records(tmp_path / "records", "test", [example_of("a", example(0)[0], None)])
    flags = (*SHAPES, f"--dataset_dir={data}", f"--eval_logdir={tmp_path / 'eval'}", "--eval_split=test")
    assert finished(eval_tool, *flags) == 1
    error = capsys.readouterr().err
    assert "--eval_split=test: every pixel of its 1 examples is ignored" in one_line(error)


@pytest.mark.heavy
def test_a_labelled_split_called_test_of_ones_own_data_is_scored(tmp_path, capsys):
    own = dataclasses.replace(DATASETS["shapes"], name="mine")
    lines = []
    for split in ("val", "test"):
        data = write_shapes(tmp_path / split, split, 3, (129, 129))
        (tmp_path / split / "dataset.json").write_text(dataset_json(own))
        given = (*SHAPES, f"--dataset_dir={data}", f"--eval_logdir={tmp_path / split / 'eval'}")
        assert finished(eval_tool, *given, f"--eval_split={split}") == 0
        lines.append(next(line for line in capsys.readouterr().out.splitlines() if "miou_1.0_overall" in line))
    assert lines[0] == lines[1] and float(lines[0].split()[-1]) > 0.5


def test_a_class_without_a_colour(tmp_path, capsys):
    weights = small_weights(tmp_path / "weights", 21)
    data = write_records(tmp_path / "records", "val", [example_of("a", *example(1))])
    flags = (
        f"--checkpoint_dir={weights}",
        f"--dataset_dir={data}",
        "--colormap_type=shapes",
        "--vis_crop_size=129,129",
    )
    assert finished(vis_tool, *flags, f"--vis_logdir={tmp_path / 'vis'}") == 1
    assert "there are 9 colours in the palette" in one_line(capsys.readouterr().err)
