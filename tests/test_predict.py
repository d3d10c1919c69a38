"""Segmenting files: the original's own predictions, good and bad pictures together, and what the command says."""

import builtins
import io
import json
import os
import pathlib
import pty
import re
import shutil
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
from commands import everything, finished, one_line
from conftest import GOLDENS, ROOT
from golden import golden_image
from networks import TINY, lively

from deeplab_tf.catalog.palettes import default_palette
from deeplab_tf.config import PredictConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.inference.files import expected_pixels, predict_files
from deeplab_tf.inference.inputs import expand_inputs
from deeplab_tf.inference.libraries import LIBRARIES
from deeplab_tf.inference.predict import predict
from deeplab_tf.ops.pictures import blend, class_shares
from deeplab_tf.ops.sheets import with_legend
from deeplab_tf.tools import convert as convert_tool
from deeplab_tf.tools import predict as predict_tool
from deeplab_tf.weights.model_directory import ModelCard, save_model
from deeplab_tf.weights.tf1 import Receipt

NAMES = ("ground", "sky", "tree", "house", "lake", "road")


# ---- the original's predictions with Google's weights


@pytest.fixture(scope="module")
def pascal(shared, tmp_path_factory):
    """Google's MobileNetV2 weights, converted by the command."""
    folder = tmp_path_factory.mktemp("pascal") / "model"
    source = shared / "real/deeplabv3_mnv2_dm05_pascal"
    assert finished(convert_tool, f"--checkpoint={source}", f"--output_dir={folder}") == 0
    return folder


def scores(confusion: np.ndarray) -> dict:
    """mIoU over the classes with a non-empty union, pixel accuracy, and the IoUs, of [label, prediction] counts."""
    hits = np.diag(confusion)
    union = confusion.sum(0) + confusion.sum(1) - hits
    iou = {str(c): hits[c] / union[c] for c in np.flatnonzero(union)}
    return {"miou": np.mean(list(iou.values())), "accuracy": hits.sum() / confusion.sum(), "iou": iou}


SCALES = "--eval_scales=0.5,0.75,1.0,1.25,1.5,1.75"
RUNS = [
    pytest.param(16, "single", ()),
    pytest.param(
        16,
        "single",
        ("--runtime=tflite",),
        marks=pytest.mark.skipif(bool(LIBRARIES["tflite"].missing), reason="LiteRT"),
    ),
    pytest.param(8, "single", ()),
    pytest.param(16, "ms_flip", (SCALES, "--add_flipped_images"), marks=pytest.mark.heavy),
    pytest.param(8, "ms_flip", (SCALES, "--add_flipped_images"), marks=pytest.mark.heavy),
]


# Strides and scales are treated apart: of the most expensive run one photograph suffices, its scores are test_metrics'.
@pytest.mark.parametrize(("stride", "kind", "flags"), RUNS)
def test_predictions_of_the_original(stride, kind, flags, pascal, shared, tmp_path):
    data = shared / "real/voc_mini"
    labels = sorted((data / "SegmentationClass").iterdir())
    labels = labels[:1] if (stride, kind) == (8, "ms_flip") else labels
    photos = [f"--input={data}/JPEGImages/{path.stem}.jpg" for path in labels]
    flags = (f"--checkpoint={pascal}", *photos, f"--output_dir={tmp_path}", *flags)
    flags = (*flags, "--resize=none", "--crop_size=513,513", f"--output_stride={stride}", "--save=raw")
    assert finished(predict_tool, *flags) == 0
    confusion = np.zeros((21, 21), np.int64)
    for path in labels:
        found = np.array(PIL.Image.open(tmp_path / f"{path.stem}_raw.png"))
        golden = np.array(PIL.Image.open(GOLDENS / "real" / f"{path.stem}_os{stride}_{kind}.png"))
        label = np.array(PIL.Image.open(path))
        assert found.dtype == np.uint8 and found.shape == golden.shape == label.shape
        assert np.mean(found == golden) >= 0.9999, path.stem
        counted = label != 255
        np.add.at(confusion, (label[counted], found[counted]), 1)
    assert len(everything(tmp_path)) == len(labels)
    if len(labels) < 3:
        return
    expected = json.loads((GOLDENS / "real/metrics.json").read_text())[f"os{stride}_{kind}"]
    found = scores(confusion)
    assert found["miou"] == pytest.approx(expected["miou_over_classes_in_union"], abs=1e-4)
    assert found["accuracy"] == pytest.approx(expected["pixel_accuracy"], abs=1e-4)
    assert found["iou"] == pytest.approx(expected["iou"], abs=1e-3)


# ---- predict_files


@pytest.fixture(scope="module")
def model():
    return lively(TINY)


@pytest.fixture(scope="module")
def card():
    return ModelCard(config=TINY, class_names=NAMES)


@pytest.fixture(scope="module")
def directory(model, card, tmp_path_factory):
    """A model directory of the small network."""
    folder = tmp_path_factory.mktemp("small") / "model"
    save_model(folder, model, Receipt("tests", "0" * 64, {}, {}), card=card)
    return folder


@pytest.fixture
def photos(tmp_path):
    """A folder of good pictures, bad ones and a text."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, size in {"a.png": (40, 60), "b.JPG": (65, 33), "c.webp": (20, 20)}.items():
        PIL.Image.fromarray(golden_image(name, *size)).save(folder / name)
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "half.png").write_bytes((folder / "a.png").read_bytes()[:200])
    (folder / "text.jpeg").write_text("no picture")
    (folder / "notes.txt").write_text("left out by its name")
    (folder / "folder.jpg").mkdir()
    return folder


GOOD, BAD = ["a.png", "b.JPG", "c.webp"], ["empty.jpg", "half.png", "text.jpeg"]
FILES = ("mask.png", "overlay.jpg", "raw.png")


@pytest.mark.heavy
def test_good_pictures_are_done_and_bad_ones_told(model, card, photos, tmp_path):
    files, out = expand_inputs([str(photos)]), tmp_path / "out"
    assert [os.path.basename(file) for file in files] == sorted(GOOD + BAD)
    results = list(predict_files(model, card, files, out, PredictConfig(resize="none")))
    assert [result.name for result in results] == files
    assert [os.path.basename(r.name) for r in results if r.error] == BAD
    assert all(r.error.startswith(r.name) and "\n" not in r.error for r in results if r.error)
    stems = [name.split(".")[0] for name in GOOD]
    assert everything(out) == {f"{stem}_{what}" for stem in stems for what in FILES}
    done = results[0]
    assert done.size == (40, 60) and done.seconds > 0
    assert [path.name for path in done.files] == ["a_mask.png", "a_overlay.jpg", "a_raw.png"]
    assert sum(share for _, _, share in done.shares) == pytest.approx(1)
    assert all(NAMES[index] == name for index, name, _ in done.shares)


def test_outputs_show_the_classes(model, card, photos, tmp_path):
    image = np.asarray(PIL.Image.open(photos / "a.png"))
    list(predict_files(model, card, [str(photos / "a.png")], tmp_path, PredictConfig(resize="none")))
    expected = predict(model, image[None])[0]
    assert len(np.unique(expected)) >= 2
    raw = PIL.Image.open(tmp_path / "a_raw.png")
    assert raw.mode == "P" and np.asarray(raw).dtype == np.uint8
    np.testing.assert_array_equal(np.asarray(raw), expected)
    mask = np.asarray(PIL.Image.open(tmp_path / "a_mask.png"))
    np.testing.assert_array_equal(mask, np.asarray(raw.convert("RGB")))
    palette = default_palette(NAMES)
    drawn = with_legend(blend(image, expected, palette), class_shares(expected, NAMES), palette)
    written = np.asarray(PIL.Image.open(tmp_path / "a_overlay.jpg"))
    assert written.shape == drawn.shape and written.shape[0] > 40
    assert np.abs(written.astype(int) - drawn).mean() < 4


def test_probabilities(model, card, photos, tmp_path):
    options = PredictConfig(resize="none", save=("probabilities", "raw"), eval_scales=(1.0, 0.5))
    list(predict_files(model, card, [str(photos / "a.png")], tmp_path, options))
    assert everything(tmp_path) - everything(photos) >= {"a_probabilities.npy", "a_raw.png"}
    probabilities = np.load(tmp_path / "a_probabilities.npy")
    assert (probabilities.dtype, probabilities.shape) == (np.float32, (40, 60, 6))
    np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-5)
    raw = np.asarray(PIL.Image.open(tmp_path / "a_raw.png"))
    assert np.mean(probabilities.argmax(-1) == raw) > 0.999


def test_longest_is_the_default_and_gives_the_picture_s_size(model, card, photos, tmp_path):
    list(predict_files(model, card, [str(photos / "b.JPG")], tmp_path / "out", PredictConfig(longest_side=97)))
    assert PIL.Image.open(tmp_path / "out/b_raw.png").size == (33, 65)


def test_every_choice_is_written_once(model, card, photos, tmp_path):
    options = PredictConfig(resize="none", save=("raw", "raw"))
    (result,) = predict_files(model, card, [str(photos / "a.png")], tmp_path / "out", options)
    assert result.error is None and everything(tmp_path / "out") == {"a_raw.png"}


def test_stems_that_collide(model, card, photos, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    PIL.Image.fromarray(golden_image("x", 10, 12)).save(other / "a.jpg")
    PIL.Image.fromarray(golden_image("y", 14, 16)).save(other / "a-2.png")
    files = [str(photos / "a.png"), str(other / "a.jpg"), str(other / "a-2.png")]
    list(predict_files(model, card, files, tmp_path / "out", PredictConfig(resize="none", save=("raw",))))
    sizes = {name: PIL.Image.open(tmp_path / "out" / name).size for name in everything(tmp_path / "out")}
    assert sizes == {"a_raw.png": (60, 40), "a-2_raw.png": (12, 10), "a-2-2_raw.png": (16, 14)}


def test_a_failed_write_leaves_nothing_of_its_picture(model, card, photos, tmp_path, monkeypatch):
    import deeplab_tf.inference.predict  # noqa: F401 - the module; the package's attribute is the function

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys.modules["deeplab_tf.inference.files"], "palette_png", full)
    results = predict_files(model, card, [str(photos / "a.png")], tmp_path / "out", PredictConfig(resize="none"))
    with pytest.raises(DeepLabError, match="output_dir=.*No space left"):
        list(results)
    assert everything(tmp_path / "out") == set()


def test_an_output_never_takes_the_place_of_a_picture(model, card, photos, tmp_path):
    names = (tmp_path / "a.png", tmp_path / "a_mask.png")  # a photograph and its label, say
    for name in names:
        PIL.Image.fromarray(golden_image(name.name, 20, 30)).save(name)
    before = names[1].read_bytes()
    results = predict_files(model, card, list(map(str, names)), tmp_path / "." / "", PredictConfig())
    with pytest.raises(DeepLabError, match=r"a_mask\.png would be written of .*a\.png, and is one of the images"):
        list(results)
    assert names[1].read_bytes() == before and everything(tmp_path) == {"a.png", "a_mask.png", *everything_in(photos)}
    (result, _) = predict_files(model, card, list(map(str, names)), tmp_path, PredictConfig(save=("overlay",)))
    assert result.files == (tmp_path / "a_overlay.jpg",)


def everything_in(folder) -> set[str]:
    """The names of a folder below the test's own, and of what is in it."""
    return {folder.name, *(f"{folder.name}/{name}" for name in everything(folder))}


@pytest.mark.parametrize(
    ("options", "runs"),
    [
        ({}, 1),
        ({"add_flipped_images": True}, 2),
        ({"eval_scales": (0.5, 1.0, 1.25)}, 1),
        ({"eval_scales": (0.5,), "add_flipped_images": True}, 0),
    ],
)
def test_expected_pixels(options, runs):
    assert expected_pixels(["a", "b", "c"], PredictConfig(longest_side=100, **options)) == 3 * runs * 100 * 100


def test_who_has_seen_enough_may_go(model, card, photos, tmp_path):
    files = [str(photos / name) for name in GOOD] * 3
    results = predict_files(model, card, files, tmp_path / "out", PredictConfig(resize="none", save=("raw",)))
    assert next(results).files[0].name == "a_raw.png"
    results.close()
    names = everything(tmp_path / "out")
    assert "a_raw.png" in names and all(name.endswith("_raw.png") for name in names)  # none is half-written


def test_a_picture_may_be_called_like_an_option(model, card, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(photos)
    pathlib.Path("--bad.png").write_bytes(b"no picture")
    options = PredictConfig(resize="none", save=("raw",))
    bad, good = predict_files(model, card, ["--bad.png", "a.png"], tmp_path / "out", options)
    assert bad.error and bad.error.startswith("--bad.png: ") and good.error is None


def test_too_little_memory_is_told_and_the_others_go_on(model, card, photos, tmp_path, monkeypatch):
    module = sys.modules["deeplab_tf.inference.files"]
    network_labels = module.network_labels

    def hungry(predictor, image, options):
        if image.shape[0] == 65:
            raise MemoryError
        return network_labels(predictor, image, options)

    monkeypatch.setattr(module, "network_labels", hungry)
    files = [str(photos / name) for name in GOOD]
    results = list(predict_files(model, card, files, tmp_path / "out", PredictConfig(resize="none")))
    assert [r.error and "not enough memory" in r.error for r in results] == [None, True, None]


def test_more_classes_than_a_png_holds(model, tmp_path):
    import dataclasses

    card = ModelCard(config=dataclasses.replace(TINY, num_classes=300))
    with pytest.raises(DeepLabError, match="300 classes do not fit"):
        list(predict_files(model, card, [], tmp_path, PredictConfig()))


def test_a_backbone_cannot_predict(model, tmp_path):
    card = ModelCard(config=TINY, kind="backbone", source_checkpoint="x.tar.gz")
    with pytest.raises(DeepLabError, match=r"x\.tar\.gz: a backbone without classes"):
        list(predict_files(model, card, [], tmp_path, PredictConfig()))


# ---- expand_inputs


def test_inputs(photos, tmp_path, monkeypatch):
    def names(*inputs):
        return [os.path.basename(file) for file in expand_inputs([str(i) for i in inputs])]

    assert names(photos) == sorted(GOOD + BAD)
    assert names(photos / "*.png") == ["a.png", "half.png"]
    assert names(photos / "?.*") == GOOD
    assert names(photos / "c.webp", photos, photos / "a.png") == ["c.webp", "a.png", "b.JPG", *BAD]
    assert names(tmp_path / "**" / "*.webp") == ["c.webp"]
    assert names("-", photos / "a.png") == ["-", "a.png"]
    assert names(photos / "notes.txt") == ["notes.txt"]  # named explicitly: tried, and told what it is
    (photos / "[1].png").write_bytes((photos / "a.png").read_bytes())
    assert names(photos / "[1].png") == ["[1].png"]
    monkeypatch.chdir(photos)
    assert names("a.png", "b*") == ["a.png", "b.JPG"]


@pytest.mark.parametrize(
    ("name", "expected"), [("nothing.jpg", "no such file"), ("*.tga", "nothing matches"), ("", "no such file")]
)
def test_inputs_that_are_not_there(name, expected, photos):
    with pytest.raises(DeepLabError, match=expected) as error:
        expand_inputs([str(photos / "a.png"), str(photos / name) if name else ""])
    assert "\n" not in str(error.value)


def test_a_folder_of_arrays(tmp_path):
    for name in ("a.npy", "B.NPY", "c_probabilities.npy", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    assert [os.path.basename(file) for file in expand_inputs([str(tmp_path)])] == ["B.NPY", "a.npy"]


def test_a_folder_without_pictures(tmp_path):
    with pytest.raises(DeepLabError, match="no images in this folder"):
        expand_inputs([str(tmp_path)])


def test_a_folder_that_cannot_be_read(photos, monkeypatch):
    def closed(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(pathlib.Path, "iterdir", closed)
    with pytest.raises(DeepLabError, match=r"photos: cannot be read \(Permission denied\)"):
        expand_inputs([str(photos)])


# ---- the command


def test_command_over_a_folder(directory, photos, tmp_path, capsys):
    out = tmp_path / "out"
    status = finished(predict_tool, f"--checkpoint={directory}", f"--input={photos}", f"--output_dir={out}")
    assert status == 1
    found = capsys.readouterr()
    lines = found.out.splitlines()
    assert lines[0] == "Configuration"
    assert any(line.split() == ["model_variant", "tiny"] for line in lines)
    assert any(line.split() == ["num_classes", "6"] for line in lines)
    assert any(line.startswith(f"{photos}/b.JPG  33 x 65  ") and " ms  " in line and " %" in line for line in lines)
    assert sum(line.startswith("FAILED  ") for line in lines) == 3
    assert re.fullmatch(r"6 images in \d+\.\d s, \d+ % of it in the network", lines[-1])
    head, *errors = found.err.splitlines()
    assert head == "3 of 6 images failed:"
    assert [line.strip().split(": ")[0] for line in errors] == [str(photos / name) for name in BAD]
    assert everything(out) == {f"{n.split('.')[0]}_{what}" for n in GOOD for what in FILES}


def test_command_with_several_inputs(directory, photos, tmp_path, capsys):
    out = tmp_path / "out"
    flags = (f"--input={photos}/a.png", f"--input={photos}/b*", "--save=raw,mask", photos / "c.webp")
    assert finished(predict_tool, f"--checkpoint={directory}", *flags, f"--output_dir={out}") == 0
    assert everything(out) == {f"{stem}_{what}.png" for stem in "abc" for what in ("raw", "mask")}
    assert capsys.readouterr().err == ""


def test_command_with_the_crf(directory, model, photos, tmp_path, capsys):
    flags = ("--crf", "--crf_iterations=2", "--crf_sigma_beta=13", "--resize=none", "--save=raw,probabilities")
    files = (f"--input={photos}/a.png", f"--output_dir={tmp_path}")
    assert finished(predict_tool, f"--checkpoint={directory}", *files, *flags) == 0
    assert ["crf_sigma_beta", "13.0"] in [line.split() for line in capsys.readouterr().out.splitlines()]
    image = np.asarray(PIL.Image.open(photos / "a.png"))
    expected = predict(model, image[None], crf={"iterations": 2, "sigma_beta": 13.0})[0]
    raw = np.asarray(PIL.Image.open(tmp_path / "a_raw.png"))
    assert (raw == expected).mean() > 0.999
    assert (raw != predict(model, image[None])[0]).any()
    np.testing.assert_array_equal(np.load(tmp_path / "a_probabilities.npy").argmax(-1), raw)


@pytest.mark.heavy
def test_command_on_names_that_are_no_text_or_too_long(directory, tmp_path):
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    long = "x" * 250 + ".png"
    for name in (b"no\xfftext.png", long.encode(), b"short.png"):
        content = io.BytesIO()
        PIL.Image.fromarray(golden_image("x", 20, 30)).save(content, "PNG")
        pathlib.Path(os.fsdecode(os.fsencode(photos) + b"/" + name)).write_bytes(content.getvalue())
    flags = (f"--checkpoint={directory}", f"--input={photos}", f"--output_dir={out}", "--save=raw")
    command = [sys.executable, "tools/predict.py", *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 1 and b"Traceback" not in done.stderr
    assert b"no\\udcfftext.png  30 x 20" in done.stdout
    assert b"1 of 3 images failed:" in done.stderr and b"too long a name to add to" in done.stderr
    assert {os.fsencode(name) for name in everything(out)} == {b"no\xfftext_raw.png", b"short_raw.png"}


def test_command_with_standard_input(directory, photos, tmp_path, monkeypatch, capsys):
    content = (photos / "a.png").read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    flags = (f"--checkpoint={directory}", "--input=-", f"--output_dir={tmp_path / 'out'}", "--save=raw")
    assert finished(predict_tool, *flags) == 0
    assert everything(tmp_path / "out") == {"stdin_raw.png"}
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    assert finished(predict_tool, *flags) == 1
    assert "standard input: the file is empty" in capsys.readouterr().err


def test_command_without_input_and_without_terminal(directory, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    assert finished(predict_tool, f"--checkpoint={directory}") == 1
    assert "--input is missing" in one_line(capsys.readouterr().err)


class _Terminal:
    def isatty(self):
        return True


def test_command_asks_until_an_empty_line(directory, photos, tmp_path, monkeypatch, capsys):
    answers = iter([f"'{photos / 'a.png'}'", str(photos / "nothing.png"), str(photos / "empty.jpg"), ""])
    monkeypatch.setattr(sys, "stdin", _Terminal())
    monkeypatch.setattr(builtins, "input", lambda prompt: next(answers))
    out = tmp_path / "out"
    assert finished(predict_tool, f"--checkpoint={directory}", f"--output_dir={out}", "--save=raw") == 1
    assert everything(out) == {"a_raw.png"}
    found = capsys.readouterr()
    assert f"{photos}/a.png  60 x 40" in found.out
    assert "nothing.png: no such file" in found.out
    assert found.err.splitlines()[0].endswith("images failed:") and len(found.err.splitlines()) == 3


@pytest.mark.heavy
def test_command_asks_on_a_real_terminal(directory, photos, tmp_path):
    master, slave = pty.openpty()
    command = [sys.executable, "tools/predict.py", f"--checkpoint={directory}", f"--output_dir={tmp_path / 'out'}"]
    process = subprocess.Popen([*command, "--save=raw"], cwd=ROOT, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    os.write(master, f"{photos / 'a.png'}\n".encode() + b"\n")
    shown = b""
    while True:
        try:
            part = os.read(master, 4096)
        except OSError:  # the other side is closed
            break
        if not part:
            break
        shown += part
    os.close(master)
    assert process.wait() == 0, shown
    assert b"Input image filename: " in shown and b"60 x 40" in shown
    assert everything(tmp_path / "out") == {"a_raw.png"}


def unwritable(tmp_path) -> list:
    """Folders that cannot be made: below a file, in /proc, and for others than root a read-only one."""
    (tmp_path / "file").write_text("in the way")
    folders = [tmp_path / "file" / "out", tmp_path / "file", "/proc/nowhere"]
    if os.geteuid():
        (tmp_path / "closed").mkdir(mode=0o500)
        folders += [tmp_path / "closed", tmp_path / "closed" / "out"]
    return folders


def test_command_with_an_unwritable_folder(directory, photos, tmp_path, capsys):
    for folder in unwritable(tmp_path):
        before = everything(tmp_path)
        assert finished(predict_tool, f"--checkpoint={directory}", photos, f"--output_dir={folder}") == 1
        message = one_line(capsys.readouterr().err)
        assert message.startswith(f"tool: --output_dir={folder}: cannot be written (")
        assert everything(tmp_path) == before
    assert (tmp_path / "file").read_text() == "in the way"


BAD_FLAGS = {
    "save": (["--save=nonsense"], "unknown value of save 'nonsense'"),
    "near save": (["--save=masks"], "did you mean mask"),
    "resize": (["--resize=nonsense"], "resize='nonsense': expected auto, trained, letterbox, longest or none"),
    "scale 0": (["--eval_scales=0"], "eval_scales=(0.0,): expected scales above 0"),
    "scale x": (["--eval_scales=1.0,x"], "eval_scales=('1.0', 'x'): expected float numbers"),
    "side": (["--longest_side=0"], "longest_side=0"),
    "side x": (["--longest_side=x"], "longest_side"),
    "pixels": (["--max_pixels=5"], "max_pixels=5: expected at least 66049"),
    "crf": (["--crf", "--crf_sigma_beta=0"], "crf_sigma_beta=0.0: expected a number above 0"),
    "no crf": (["--crf_w1=5"], "crf_w1=5.0: has no effect without crf"),
    "flag": (["--nonsense=1"], "Unknown command line flag 'nonsense'"),
    "crop": (["--crop_size=513"], "crop_size=(513,): expected two numbers"),
    "stride": (["--output_stride=12"], "output_stride=12"),
    "classes": (["--num_classes=20"], "--num_classes=20 contradicts"),
    "variant": (["--model_variant=xception65"], "did you mean xception_65"),
}


@pytest.mark.parametrize("case", BAD_FLAGS)
def test_command_with_a_bad_flag(case, directory, photos, tmp_path, capsys):
    flags, expected = BAD_FLAGS[case]
    out = tmp_path / "out"
    assert finished(predict_tool, f"--checkpoint={directory}", photos, f"--output_dir={out}", *flags) == 1
    assert expected in one_line(capsys.readouterr().err)
    assert not out.exists()


@pytest.mark.parametrize(
    ("checkpoint", "expected"),
    [
        (None, "--checkpoint is missing"),
        ("xception65_coco_voc_trainavl", "did you mean xception65_coco_voc_trainval"),
        ("some/where/model.ckpt", "some/where/model.ckpt"),
    ],
)
def test_command_with_a_bad_checkpoint(checkpoint, expected, photos, tmp_path, capsys):
    flags = [f"--checkpoint={checkpoint}"] if checkpoint else []
    assert finished(predict_tool, *flags, photos, f"--output_dir={tmp_path / 'out'}") == 1
    assert expected in one_line(capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_command_with_an_input_that_is_not_there(directory, tmp_path, capsys):
    assert finished(predict_tool, f"--checkpoint={directory}", tmp_path / "nothing.jpg") == 1
    assert "nothing.jpg: no such file" in one_line(capsys.readouterr().err)


def test_command_on_a_damaged_model_directory(directory, photos, tmp_path, capsys):
    broken = tmp_path / "model"
    shutil.copytree(directory, broken)
    data = broken / "model.ckpt.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-1000])
    assert finished(predict_tool, f"--checkpoint={broken}", photos, f"--output_dir={tmp_path / 'out'}") == 1
    message = one_line(capsys.readouterr().err)
    assert str(broken) in message and "truncated" in message
    assert not (tmp_path / "out").exists()
