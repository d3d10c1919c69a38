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

from deeplab_tf.catalog.datasets import DATASETS, dataset_json
from deeplab_tf.catalog.image_facts import ImageFacts
from deeplab_tf.config import LabelConfig
from deeplab_tf.data import records
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
@pytest.mark.parametrize(("where", "names"), [("data", "images/p {}.png"), ("in_records", "train/p {}.png")])
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
    with pytest.raises(DeepLabError, match="s.json: has no suspects"):
        Labeller(None, LabelConfig(suspects=str(file), output=str(tmp_path / "out"), port=0))
    assert not (tmp_path / "out").exists()


# ---- of records


@pytest.fixture
def judged(monkeypatch):
    """Has the background be what a network is sure of everywhere."""
    loaded = types.SimpleNamespace(card=types.SimpleNamespace(image=None, seen=lambda dataset, split: False))
    monkeypatch.setattr(doctor_suspects, "_judge", lambda *_: doctor_suspects._Judge(loaded, None, None))
    sure = np.eye(9, dtype=np.float32)[0]
    monkeypatch.setattr(
        doctor_suspects, "segment_probabilities", lambda _, pixels, __: np.broadcast_to(sure, (*pixels.shape[:2], 9))
    )


def example(name: str, number: int, content: bytes | None = None) -> tuple[np.ndarray, np.ndarray, bytes]:
    """Returns a picture, its label and its record, in which most is background, and a thing is none."""
    image, label = shapes_example(0, number, height=65, width=65)
    label = np.where(np.indices(label.shape).sum(0) < 40, STAR, 0).astype(np.uint8)
    made = content or encoded(label)
    return image, label, records.make_example(encoded(image), made, filename=name, height=65, width=65)


def list_of(folder: pathlib.Path, output: pathlib.Path, **parts: list[bytes]) -> SuspectList:
    for split, examples in parts.items():
        write_records(folder, split, examples)
    (folder / "dataset.json").write_text(dataset_json(DATASETS["shapes"]))
    check_suspects(["one"], open_data(folder), output)
    return read_suspects(output)


def labelling(file: pathlib.Path, output: pathlib.Path) -> Labeller:
    return Labeller(None, LabelConfig(suspects=str(file), output=str(output), port=0))


def test_names_of_records_are_those_of_files(judged, tmp_path):
    names = ["img.001", "img.002", "b c", "b c", "", "../../evil"]
    made = [example(name, number) for number, name in enumerate(names)]
    stored = [record for *_, record in made]
    found = list_of(tmp_path / "records", tmp_path / "s.json", train=stored[:3], val=stored[2:])
    expected = ["train/img.001", "train/img.002", "train/b c", "val/b c", "val/b c-2", "val/picture", "val/../../evil"]
    assert sorted(one.name for one in found.pictures) == sorted(f"{name}.png" for name in expected)
    with (labeller := labelling(tmp_path / "s.json", tmp_path / "out")).running():
        stems = {picture.name: picture.stem for picture in labeller.pictures}
        assert stems["train/img.001.png"] == "train/img.001" and stems["val/b c-2.png"] == "val/b c-2"
        for picture in labeller.pictures:
            labeller.save(picture, labeller.open(picture).values, revision=0, done=True)
    images = tmp_path / "out" / "images"
    kept = {path.relative_to(images).as_posix() for path in images.rglob("*.png")}
    assert len(kept) == len(expected) and {"train/img.001.png", "val/b c-2.png"} < kept
    assert (tmp_path / "out" / "train.txt").read_text().count("\n") == len(expected)


def test_a_label_of_another_picture_is_not_taken(judged, tmp_path):
    """Two sets may have pictures of one name, and be mended in one folder by mistake."""
    for number, name in enumerate(("one", "two")):
        list_of(tmp_path / name, tmp_path / f"{name}.json", train=[example("a", number)[2]])
    with (labeller := labelling(tmp_path / "one.json", tmp_path / "out")).running():
        picture = labeller.pictures[0]
        labeller.save(picture, labeller.open(picture).values, revision=0, done=False)
    with labelling(tmp_path / "one.json", tmp_path / "out").running() as _:
        pass
    told = r"--output=.*a.png was drawn on another picture than .*two_pictures"
    with pytest.raises(DeepLabError, match=told), labelling(tmp_path / "two.json", tmp_path / "out").running():
        pass


def test_a_list_may_be_moved_with_its_pictures(judged, tmp_path):
    image, label, record = example("a", 0)
    list_of(tmp_path / "records", tmp_path / "s.json", train=[record])
    (tmp_path / "there").mkdir()
    for name in ("s.json", "s_pictures"):
        (tmp_path / name).rename(tmp_path / "there" / name)
    with (labeller := labelling(tmp_path / "there" / "s.json", tmp_path / "out")).running():
        picture = labeller.pictures[0]
        np.testing.assert_array_equal(labeller.open(picture).values, label)
        assert labeller.size(picture) == image.shape[:2]


def test_labels_of_records_are_their_indices(judged, tmp_path):
    """TensorFlow does not look at a palette; one in another order than that of the set says nothing."""
    _, label, _ = example("a", 0)
    stored = PIL.Image.fromarray(label)
    colours = DATASETS["shapes"].palette
    stored.putpalette(bytes(channel for colour in (colours[STAR], *colours[1:4], colours[0]) for channel in colour))
    stream = io.BytesIO()
    stored.save(stream, "PNG")
    list_of(tmp_path / "records", tmp_path / "s.json", train=[example("a", 0, stream.getvalue())[2]])
    with (labeller := labelling(tmp_path / "s.json", tmp_path / "out")).running():
        np.testing.assert_array_equal(labeller.open(labeller.pictures[0]).values, label)


def test_a_file_in_the_place_of_the_pictures_is_told_first(tmp_path):
    (tmp_path / "s_pictures").write_text("mine")
    write_records(tmp_path / "records", "train", [example("a", 0)[2]])
    (tmp_path / "records" / "dataset.json").write_text(dataset_json(DATASETS["shapes"]))
    with pytest.raises(DeepLabError, match=r"--suspects=.*s.json: the pictures go to the folder .*s_pictures, which"):
        check_suspects(["no checkpoint"], open_data(tmp_path / "records"), tmp_path / "s.json")
    assert not (tmp_path / "s.json").exists()


@pytest.mark.parametrize(("image", "opened_by"), [(None, ""), (((0.0, 200.0),), " --checkpoint=one")])
def test_the_command_that_opens_them(judged, tmp_path, image, opened_by):
    """Without a network, photographs are taken for 8-bit RGB."""
    facts = ImageFacts(3, "uint8", image, (1.0, 2.0, 3.0)) if image else None
    write_records(tmp_path / "records", "train", [example("a", 0)[2]])
    stated = dataset_json(dataclasses.replace(DATASETS["shapes"], image=facts))
    (tmp_path / "records" / "dataset.json").write_text(stated)
    found = check_suspects(["one"], open_data(tmp_path / "records"), tmp_path / "s.json")
    assert f"deeplab-tf label --suspects={tmp_path / 's.json'}{opened_by}; " in found.findings[0].cure
