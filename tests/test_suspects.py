"""Suspects: labels made wrong on purpose are found, borders are not, and who judges whom is told."""

import dataclasses
import io
import json
import pathlib
import types

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from commands import finished, one_line
from record_files import encoded, example_of, write_records

from deeplab_tf.config import LabelConfig
from deeplab_tf.data.shapes import FIRST_INDEX, shapes_example
from deeplab_tf.doctor import suspects as doctor_suspects
from deeplab_tf.doctor.samples import Example, open_data
from deeplab_tf.doctor.suspects import check_suspects
from deeplab_tf.errors import DeepLabError
from deeplab_tf.labelling.labeller import Labeller
from deeplab_tf.labelling.suspects import ConfidentLearning, SuspectList, read_suspects
from deeplab_tf.ops.network_pictures import read_photograph
from deeplab_tf.tools import build_data as build_data_tool
from deeplab_tf.tools import doctor as doctor_tool

STAR = 4


def probabilities(classes: np.ndarray, sure: float) -> np.ndarray:
    return np.where(np.arange(3) == classes[..., None], sure, (1 - sure) / 2).astype(np.float32)


def test_what_confidence_is_depends_on_the_class():
    truth = np.zeros((100, 100), int)
    truth[10:30, 10:30], truth[60:90, 60:90] = 1, 2
    label = truth.copy()
    label[10:30, 10:30] = 0  # a thing that was forgotten
    label[70:90, 60:90] = 1  # a part of the wrong class
    label[59, 60:90] = 2  # the border is nobody's mistake
    label[:5] = 255
    learning = ConfidentLearning(3, 255)
    learning.add("good", truth, probabilities(truth, 0.9))
    learning.add("bad", label, probabilities(truth, 0.9))
    found = learning.suspects()
    assert [(s.picture, s.labelled, s.predicted, s.pixels) for s in found] == [("bad", 1, 2, 600), ("bad", 0, 1, 400)]
    assert found[1].box == (0.1, 0.1, 0.2, 0.2) and found[0].margin == pytest.approx(0.85, abs=1e-3)
    assert learning.thresholds[0] > learning.thresholds[1]

    # A network that is never sure of class 1 where it is labelled contradicts nobody by being unsure of it.
    unsure = ConfidentLearning(3, 255)
    unsure.add("good", truth, probabilities(truth, 0.9))
    unsure.add("bad", label, probabilities(truth, 0.4))
    assert unsure.suspects() == []
    assert ConfidentLearning(3, 255).suspects() == []


@pytest.fixture
def data(tmp_path) -> pathlib.Path:
    """Six pictures of shapes, of which two have a wrong label: a thing of another class, and one that was forgotten."""
    root = tmp_path / "data"
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    for number in range(6):
        image, label = shapes_example(0, FIRST_INDEX["test"] + number, height=129, width=129)
        things = sorted(set(np.unique(label)) - {0, 255}, key=lambda c: -(label == c).sum())
        if number in (1, 4):
            label = np.where(label == things[0], 0 if number == 1 else things[0] % 8 + 1, label)
        (root / "images" / f"p {number}.png").write_bytes(encoded(image))
        (root / "labels" / f"p {number}.png").write_bytes(encoded(label.astype(np.uint8)))
    names = ["background", "circle", "triangle", "square", "star", "ring", "cross", "crescent", "heart"]
    (root / "class_names.txt").write_text("\n".join(names))
    return root


@pytest.fixture
def in_records(data, tmp_path) -> pathlib.Path:
    """The same pictures in records, as build-data writes them."""
    root = tmp_path / "records"
    command = (f"--root={data}", f"--output_dir={root}", "--dataset=folder", "--num_shards=1", "--num_processes=1")
    assert finished(build_data_tool, *command) == 0
    return root


@pytest.mark.heavy
@pytest.mark.parametrize(("where", "names"), [("data", "images/p {}.png"), ("in_records", "p {}")])
def test_wrong_labels_are_found_and_opened(where, names, request, tmp_path, capsys):
    data = request.getfixturevalue(where)
    capsys.readouterr()
    file = tmp_path / "suspects.json"
    line = (f"--dataset_dir={data}", "--checkpoint=shapes_resnet", f"--suspects={file}", "--json")
    assert finished(doctor_tool, *line) in (0, 1)
    report = json.loads(capsys.readouterr().out)[-1]
    codes = {finding["code"]: finding for finding in report["findings"]}
    assert codes["suspect-labels"]["severity"] == "warning"
    assert "not known whether trained on them" in codes["suspects-judged-by"]["evidence"][0]
    found = read_suspects(file)
    of = {suspect.picture: suspect for suspect in found.suspects[:2]}
    forgotten, other = (of[names.format(number)] for number in (1, 4))
    assert len(of) == 2 and forgotten.labelled == 0 and other.labelled == other.predicted % 8 + 1
    worst = found.suspects[0]
    labeller = Labeller(None, LabelConfig(suspects=str(file), output=str(tmp_path / "mended"), port=0))
    with labeller.running():
        picture = next(p for p in labeller.pictures if p.name == worst.picture)
        opened = labeller.open(picture)
        assert opened.start == "label" and labeller.places(picture)[0].labelled == worst.labelled
        assert labeller.state()["pictures"][0]["name"] == worst.picture
        expected = np.asarray(PIL.Image.open(tmp_path / "data" / "labels" / f"{pathlib.Path(picture.stem).name}.png"))
        np.testing.assert_array_equal(opened.values, expected)
        labeller.save(picture, opened.values, revision=0, done=True)


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_pictures_of_records_are_as_tensorflow_reads_them(orientation):
    """TensorFlow does not turn them, and their labels lie on them as they are stored."""
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    stream = io.BytesIO()
    PIL.Image.fromarray(shapes_example(0, 0, height=16, width=24)[0]).save(stream, "JPEG", exif=exif)
    content = stream.getvalue()
    photograph = Example("a", "a", content).photograph()
    assert (photograph == content) == (orientation == 1)
    found = read_photograph(photograph, None).pixels
    np.testing.assert_array_equal(found, tf.io.decode_jpeg(content, dct_method="INTEGER_ACCURATE").numpy())
    assert Example("a", "a", b"broken").photograph() == b"broken"


def test_a_run_says_what_it_was_trained_on(tmp_path):
    examples = [example_of(f"p {n}", *shapes_example(0, n, height=17, width=17)) for n in range(3)]
    write_records(tmp_path / "records", "train", examples)
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text(
        json.dumps({"train_split": "train", "places": {"dataset_dir": str(tmp_path / "records")}})
    )
    assert doctor_suspects._trained_on(str(run)) == {"p 0", "p 1", "p 2"}
    assert doctor_suspects._trained_on(str(run / "model.ckpt-10")) == {"p 0", "p 1", "p 2"}
    assert doctor_suspects._trained_on(str(tmp_path)) is None


def test_others_judge_what_a_network_was_trained_on(data, tmp_path, monkeypatch):
    names = [f"p {number}" for number in range(6)]
    seen = {"one": frozenset(names[:3]), "two": frozenset(names[3:])}
    loaded = types.SimpleNamespace(card=types.SimpleNamespace(image=None))
    judges = {name: doctor_suspects._Judge(loaded, name, seen[name]) for name in seen}
    asked = []
    monkeypatch.setattr(doctor_suspects, "_judge", lambda checkpoint, opened: judges[checkpoint])

    def background(judge, pixels, options):
        asked.append(judge)
        return np.broadcast_to(np.eye(9, dtype=np.float32)[0], (*pixels.shape[:2], 9))

    monkeypatch.setattr(doctor_suspects, "segment_probabilities", background)
    found = check_suspects(["one", "two"], open_data(data), tmp_path / "s.json")
    assert asked == ["two"] * 3 + ["one"] * 3
    by = next(finding for finding in found.findings if finding.code == "suspects-judged-by")
    assert by.evidence == ("6 pictures were judged by networks not trained on them (2 in all)",) and not by.cure
    found = check_suspects(["one"], open_data(data), tmp_path / "s.json")
    by = next(finding for finding in found.findings if finding.code == "suspects-judged-by")
    assert "3 pictures were judged by networks trained on them, 3 pictures" in by.evidence[0]
    assert "suspects are missed" in by.evidence[1] and "--fold_checkpoints" in by.cure


def test_mistakes_are_told(data, tmp_path, capsys):
    assert finished(doctor_tool, f"--dataset_dir={data}", f"--suspects={tmp_path / 's.json'}") == 1
    assert "--suspects=" in (text := one_line(capsys.readouterr().err)) and "--checkpoint" in text
    (tmp_path / "no.json").write_text("{}")
    with pytest.raises(DeepLabError, match="not a file of doctor --suspects"):
        read_suspects(tmp_path / "no.json")
    (data / "class_names.txt").write_text("background\ncircle")
    with pytest.raises(DeepLabError, match="shapes_resnet: has 9 classes, .* has 2"):
        check_suspects(["shapes_resnet"], open_data(data), tmp_path / "s.json")


def test_a_list_without_suspects_is_not_opened(tmp_path):
    file = tmp_path / "s.json"
    nothing = SuspectList(("a", "b"), ((0, 0, 0), (9, 9, 9)), 255, (), ())
    file.write_text(json.dumps(dataclasses.asdict(nothing)))
    labeller = Labeller(None, LabelConfig(suspects=str(file), output=str(tmp_path / "out"), port=0))
    with pytest.raises(DeepLabError, match="s.json: has no suspects"), labeller.running():
        pass
