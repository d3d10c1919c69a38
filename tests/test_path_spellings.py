"""The commands themselves, with every path in a spelling that has all oddities of a local one, and with ram://x.

Each test runs one command once, all its paths being spelled alike. Sources are copied to where the spelling points.
test_path_flags has each oddity alone, and relative paths: flags come out of it as the paths that are meant.
"""

import dataclasses
import importlib
import io
import json
import os
import pathlib
import subprocess
import sys
import tarfile
import uuid

import numpy as np
import PIL.Image
import pytest
from commands import finished
from golden import golden_image
from record_files import encoded, write_shapes
from test_path_flags import CELL_COMMANDS, PATH_FLAGS, TOOLS

import deeplab_tf
from deeplab_tf import files
from deeplab_tf.catalog import datasets
from deeplab_tf.config import ExportConfig, ModelConfig
from deeplab_tf.data.shapes import FIRST_INDEX, shapes_example
from deeplab_tf.evaluation.panoptic import ImageSegments, write_panoptic
from deeplab_tf.network.classifier import build_classifier
from deeplab_tf.weights.run_directory import RunDirectory
from deeplab_tf.weights.tf1 import save_tf1_checkpoint
from deeplab_tf.zoo import lookup
from deeplab_tf.zoo.released import SHAPES

SPELLINGS = ("~/[2] a*b {}/", "ram://{}")


@dataclasses.dataclass
class Place:
    """Names a path in one spelling."""

    spelling: str
    root: pathlib.Path
    mark: str

    def __call__(self, name: str, source: str | os.PathLike | None = None) -> str:
        """Returns what is typed for `name`, to which `source` is copied first if it is given."""
        typed = self.spelling.format(f"{self.mark}{name}" if "ram:" in self.spelling else name)
        if source is not None:
            place = files.path(files.clean(typed))
            place.parent.mkdir(parents=True, exist_ok=True)
            files.copy(files.path(source), place)
        return typed

    def found(self, name: str) -> files.AnyPath:
        """Returns where `name` is, by other means than those under test: as a path without ~ or a slash at its end."""
        typed = self(name).rstrip("/")
        if "ram:" in typed:
            return files.path(typed)
        return self.root / "home" / typed[2:] if typed.startswith("~/") else self.root / "here" / typed

    def names(self, name: str, pattern: str = "*") -> set[str]:
        """Returns what matches in the folder `name`; nothing half-written is ever among it."""
        folder = self.found(name)
        assert not list(folder.rglob(".partial-*"))
        return {str(entry.relative_to(folder)) for entry in folder.glob(pattern)}


def spelled(*spellings: str):
    """Runs a test with each of the `spellings` (default: all)."""
    chosen = [pytest.param(spelling, id=spelling.format("x")) for spelling in spellings or SPELLINGS]
    return pytest.mark.parametrize("spelling", chosen)


@pytest.fixture
def place(request, spelling, tmp_path, monkeypatch) -> Place:
    _USED.clear()
    for name in ("home", "here"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    made = Place(spelling, tmp_path, uuid.uuid4().hex)
    yield made
    assert getattr(request.function, "covered", set()) <= _USED, "it does not give what it says it covers"
    strange = [entry.name for entry in (tmp_path / "here").iterdir() if ":" in entry.name or "~" in entry.name]
    assert not strange, "a path was taken for another"
    if spelling.startswith("ram:"):
        assert not list((tmp_path / "home").iterdir())


COVERED: set[tuple[str, str]] = set()
_USED: set[tuple[str, str]] = set()  # by the test that runs


def covers(command: str, *names: str):
    """Says which path flags of a command a test gives; that it does is looked at when it ends."""

    def declared(test):
        pairs = {(command, name) for name in names}
        test.covered = getattr(test, "covered", set()) | pairs
        COVERED.update(pairs)
        return test

    return declared


def ran(command: str, *arguments: str, status: int = 0):
    _USED.update((command, argument.partition("=")[0].lstrip("-")) for argument in arguments)
    assert finished(TOOLS[command], *arguments) == status


@pytest.fixture(scope="session")
def sources(tmp_path_factory) -> pathlib.Path:
    """A folder with what the commands read: model, photos, labels, records, facts, dataset.json, an export."""
    root = tmp_path_factory.mktemp("sources")
    for folder in ("photos", "labels", "records"):
        (root / folder).mkdir()
    for name in "ab":
        (root / "photos" / f"{name}.png").write_bytes(encoded(golden_image(name, 40, 50)))
        (root / "labels" / f"{name}.png").write_bytes(encoded(np.zeros((40, 50), np.uint8)))
    for split in ("train", "val"):
        write_shapes(root / "records", split, 4, (33, 33))
    (root / "access").mkdir()
    (root / "access" / "tokens").write_text("a-token-of-more-than-sixteen\n")
    made = ["-out", f"{root}/access/certificate.pem", "-keyout", f"{root}/access/key.pem", "-subj", "/CN=localhost"]
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *made], check=True, capture_output=True)
    (root / "facts").mkdir()
    shapes = datasets.DATASETS["shapes"]
    (root / "facts" / datasets.DATASET_FILE).write_text(datasets.dataset_json(shapes))
    files.copy(lookup.embedded_folder(SHAPES), root / "model")
    deeplab_tf.export(
        "shapes_resnet", root / "originals" / "export.tflite", ExportConfig(num_images=1), crop_size=(65, 65)
    )
    return root


DATA = ("--dataset=shapes", "--dataset_dir")


def told(path: str) -> str:
    """What is typed for a --dataset that is a folder: without a separator it would be a name."""
    return path if "/" in path else f"./{path}"


@spelled()
@covers("convert", "checkpoint", "output_dir")
def test_convert(place, sources):
    ran("convert", f"--checkpoint={place('in', sources / 'model')}", f"--output_dir={place('out')}", "--dataset=shapes")
    assert {"deeplab.json", "model.ckpt.index", "receipt.json"} <= place.names("out")
    again = ("--to_tf1", f"--checkpoint={place('out')}", f"--output_dir={place('tf1')}")
    ran("convert", *again)
    assert place.names("tf1", "model.ckpt.*") == {"model.ckpt.index", "model.ckpt.data-00000-of-00001"}
    assert deeplab_tf.load(place("out"))[0].num_classes == 9, "the API takes what the command does"


@spelled()
@covers("convert", "dataset", "scores", "certificate")
@covers("describe", "checkpoint")
def test_a_repository_and_a_description(place, sources, tmp_path, capsys):
    model = place("in", sources / "model")
    facts = place("facts", sources / "facts")
    (tmp_path / "metrics.json").write_text('{"miou": 0.5}')
    certificate = next((sources / "originals").glob("*.certificate.json"))
    evidence = (f"--scores={place('metrics.json', tmp_path / 'metrics.json')}",)
    evidence += (f"--certificate={place('certificate.json', certificate)}",)
    given = (f"--checkpoint={model}", f"--output_dir={place('hf')}", f"--dataset={told(facts)}", "--to_hf")
    ran("convert", *given, *evidence)
    assert {"deeplab.json", "model.safetensors", "README.md"} <= place.names("hf")
    capsys.readouterr()
    ran("describe", f"--checkpoint={place('hf')}")
    assert "parameters" in capsys.readouterr().out


@spelled()
@covers("predict", "checkpoint", "input", "output_dir")
def test_predict(place, sources):
    model, out = place("model", sources / "model"), place("out")
    given = (f"--checkpoint={model}", f"--output_dir={out}", "--runtime=tf", "--longest_side=65")
    ran("predict", *given, f"--input={place('photos', sources / 'photos')}", "--save=mask,overlay,raw,probabilities")
    ends = ("mask.png", "overlay.jpg", "raw.png", "probabilities.npy")
    assert place.names("out") == {f"{name}_{end}" for name in "ab" for end in ends}
    assert np.load(io.BytesIO((place.found("out") / "a_probabilities.npy").read_bytes())).shape == (40, 50, 9)
    one = place("one.png", sources / "photos" / "a.png")
    glob = f"{place('photos').rstrip('/')}/b.*"
    ran("predict", *given, f"--input={one}", f"--input={glob}", "--save=raw")
    stem = place.found("one.png").stem
    assert f"{stem}_raw.png" in place.names("out")


@spelled()
def test_predict_with_beam(place, sources):
    given = (f"--checkpoint={place('model', sources / 'model')}", f"--input={place('photos', sources / 'photos')}")
    ran(
        "predict",
        *given,
        f"--output_dir={place('out')}",
        "--save=raw",
        "--longest_side=65",
        "--beam_runner=DirectRunner",
    )
    assert {"a_raw.png", "b_raw.png"} <= place.names("out") and len(place.names("out", "results-*.jsonl")) == 1


TRAINED = ("--train_crop_size=33,33", "--train_batch_size=2", "--model_variant=tiny", "--aspp_convs_filters=16")


@pytest.mark.heavy
@spelled()
@covers("train", "train_logdir", "profile_logdir", "tf_initial_checkpoint", "dataset", "dataset_dir", "eval_logdir")
@covers("doctor", "train_logdir")
def test_train(place, sources, capsys):
    data = (
        f"--dataset={told(place('facts', sources / 'facts'))}",
        f"--dataset_dir={place('records', sources / 'records')}",
    )
    local = not place.spelling.startswith("ram:")
    cache = (f"--decoded_cache={place('cache')}",) if local else ()
    ran("train", f"--train_logdir={place('run')}", f"--profile_logdir={place('profile')}", *data, *cache, *TRAINED,
        "--training_number_of_steps=21", "--log_steps=7")  # fmt: skip
    assert "cannot be locked" not in capsys.readouterr().out
    assert {"deeplab.json", "run.json", "metrics.jsonl", "checkpoint"} <= place.names("run")
    assert RunDirectory(place("run")).steps()[-1] == 21 and place.names("run", "events.out.*")
    assert place.names("profile", "**/*") and (not local or place.names("cache", "**/*.pixels"))
    ran("train", f"--train_logdir={place('run')}", *data, *TRAINED, "--training_number_of_steps=22")
    assert f"Going on from {place.found('run') if not local else ''}" in capsys.readouterr().out
    init = (f"--tf_initial_checkpoint={place('run')}", "--training_number_of_steps=1")
    ran("train", f"--train_logdir={place('other')}", *init, *data, *TRAINED)
    assert RunDirectory(place("other")).steps()[-1] == 1
    scored = (
        f"--train_logdir={place('run')}",
        f"--eval_logdir={place('eval')}",
        "--eval_crop_size=33,33",
        "--mode=eval",
    )
    ran("train", *scored, *data)
    assert "metrics.jsonl" in place.names("eval")
    ran("doctor", f"--train_logdir={place('run')}")


@pytest.mark.heavy
@spelled()
@covers("extend", "checkpoint", "dataset_dir", "old_dataset_dir", "train_logdir")
@covers("train", "teacher", "classes_of", "unlabelled_dir")
@covers("eval", "classes_of")
@covers("vis", "classes_of")
def test_more_classes(place, sources, tmp_path):
    shapes = datasets.DATASETS["shapes"].class_names
    facts = {"name": "more", "class_names": [*shapes[:-1], "moon"]}
    files.copy(sources / "records", tmp_path / "more")
    (tmp_path / "more" / datasets.DATASET_FILE).write_text(json.dumps(facts))
    model, records, run = place("model", sources / "model"), place("more", tmp_path / "more"), place("run")
    steps = (
        "--training_number_of_steps=1",
        "--train_crop_size=33,33",
        "--train_batch_size=2",
        "--eval_crop_size=33,33",
    )
    given = (f"--checkpoint={model}", f"--dataset_dir={records}", f"--old_dataset_dir={records}")
    ran("extend", *given, f"--train_logdir={run}", "--add=moon", *steps)
    assert {"extended.json", "grown", "run.json"} <= place.names("run")
    grown = f"{run.rstrip('/')}/grown"
    named = (f"--dataset_dir={records}", f"--classes_of={grown}")
    once = ("--max_number_of_evaluations=1", "--eval_crop_size=33,33")
    ran("eval", *named, f"--checkpoint_dir={run}", f"--eval_logdir={place('eval')}", *once)
    once = ("--max_number_of_iterations=1", "--vis_crop_size=33,33")
    ran("vis", *named, f"--checkpoint={run}", f"--vis_logdir={place('vis')}", *once)
    taught = (*named, f"--tf_initial_checkpoint={grown}", f"--teacher={run}", "--config=extend_shapes")
    taught += (f"--unlabelled_dir={place('photos', sources / 'photos')}",)
    ran("train", *taught, f"--train_logdir={place('taught')}", "--slow_start_step=0", *steps)
    assert RunDirectory(place("taught")).steps()[-1] == 1


@spelled()
@covers("eval", "checkpoint_dir", "eval_logdir", "report", "dataset", "dataset_dir")
@covers("compare", "reports", "output_dir")
@covers("vis", "checkpoint", "vis_logdir", "dataset", "dataset_dir")
def test_eval_and_vis(place, sources):
    given = (
        f"--checkpoint_dir={place('model', sources / 'model')}",
        f"--dataset={told(place('facts', sources / 'facts'))}",
    )
    given += (f"--dataset_dir={place('records', sources / 'records')}",)
    ran("eval", *given, f"--eval_logdir={place('eval')}", f"--report={place('report')}", "--eval_crop_size=33,33")
    assert "metrics.jsonl" in place.names("eval") and place.names("eval", "events.out.*")
    assert place.names("report") == {"counts.json", "metrics.json", "per_image.csv", "report.html"}
    ran("compare", *[f"--reports={place('report')}"] * 2, f"--output_dir={place('compared')}")
    assert place.names("compared") == {"compare.html", "compare.json"}
    given = (given[0].replace("--checkpoint_dir=", "--checkpoint="), *given[1:])  # another name of it
    ran("vis", *given, f"--vis_logdir={place('vis')}", "--vis_crop_size=33,33", "--also_save_raw_predictions")
    assert len(place.names("vis", "segmentation_results/*")) == 8
    assert place.names("vis", "raw_segmentation_results/*") == {
        f"raw_segmentation_results/shapes_{i}.png" for i in range(4)
    }


@spelled("ram://{}")
def test_a_cache_of_pictures_is_of_this_machine(place, sources, capsys):
    cache = place("cache")
    data = (f"--dataset_dir={place('records', sources / 'records')}", "--dataset=shapes", f"--decoded_cache={cache}")
    ran("train", f"--train_logdir={place('run')}", *data, *TRAINED, status=1)
    message = capsys.readouterr().err
    assert f"decoded_cache={cache}: expected a folder of this machine" in message and message.count("\n") == 1


@spelled()
@covers("export", "checkpoint_path", "export_path", "images", "labels")
@covers("doctor", "export_dir")
@pytest.mark.parametrize(
    "end", ["", ".pb", *(pytest.param(end, marks=pytest.mark.heavy) for end in (".tflite", ".onnx"))]
)
def test_export(place, sources, end):
    name = f"out{end}"
    given = (f"--checkpoint_path={place('model', sources / 'model')}", f"--export_path={place(name)}")
    given += (f"--images={place('photos', sources / 'photos')}", f"--labels={place('labels', sources / 'labels')}")
    shown = place.found(name)
    ran("export", *given, "--crop_size=65,65", "--num_images=1")
    if end:
        assert shown.is_file() and shown.with_name(f"{shown.name}.certificate.json").is_file()
    else:
        assert "certificate.json" in place.names(name)
    ran("doctor", f"--export_dir={place(name)}", f"--checkpoint={place('model')}")


@spelled()
@covers("export", "checkpoint", "representative_images")
def test_export_in_eight_bits(place, sources):
    name, pictures = "eight", f"--representative_images={place('photos', sources / 'photos')}"
    given = (f"--checkpoint={place('model', sources / 'model')}", f"--export_path={place(name)}", pictures)
    ran(
        "export",
        *given,
        "--crop_size=65,65",
        "--num_images=1",
        "--format=tflite",
        "--precision=int8",
        "--min_agreement=0",
    )
    assert "model.tflite" in place.names(name)


@spelled()
@covers(
    *("convert-to-tflite", "quantized_graph_def_path", "output_tflite_path"),
    *("test_image_path", "representative_images"),
)
def test_conversion_to_tflite(place, sources):
    pictures = place("photos", sources / "photos")
    target = f"{place('eight')}/net.tflite"
    place.found("eight").mkdir()
    given = (f"--quantized_graph_def_path={place('model', sources / 'model')}", f"--output_tflite_path={target}")
    given += (f"--test_image_path={pictures}", f"--representative_images={pictures}", "--num_images=1")
    ran("convert-to-tflite", *given, "--crop_size=65,65", "--min_agreement=0")
    assert place.names("eight") == {"net.tflite", "net.tflite.certificate.json"}


@spelled()
@covers("classify", "checkpoint", "input", "class_names")
def test_classify(place, sources, tmp_path, capsys):
    save_tf1_checkpoint(build_classifier(ModelConfig("mobilenet_v2"), 3, tail_filters=8), tmp_path / "net/model.ckpt")
    (tmp_path / "names").write_text("a\nb\nc\n")
    pictures = f"--input={place('photos', sources / 'photos')}"
    names = f"--class_names={place('names', tmp_path / 'names')}"
    ran("classify", f"--checkpoint={place('net', tmp_path / 'net')}", pictures, names, "--image_size=65")
    assert capsys.readouterr().out.count(" %  ") == 3 * len(list((sources / "photos").iterdir()))


@spelled()
@covers("serve", "checkpoint", "examples", "token_file", "tls_certificate", "tls_key")
def test_serve(place, sources, monkeypatch):
    # The socket is another test's (test_ending, test_serving): here the command ends where it would listen.
    seen = []
    server = importlib.import_module("deeplab_tf.serving.server")
    monkeypatch.setattr(server, "serving", lambda engine: seen.append(engine.info()["examples"]) or sys.exit(0))
    model, examples = place("model", sources / "model"), place("photos", sources / "photos")
    files_of_access = {"token_file": "tokens", "tls_certificate": "certificate.pem", "tls_key": "key.pem"}
    access = [f"--{flag}={place(name, sources / 'access' / name)}" for flag, name in files_of_access.items()]
    ran("serve", f"--checkpoint={model}", f"--examples={examples}", *access, "--port=0", "--runtime=tf")
    assert len(seen[0]) == 2, "the photographs were found"


@spelled()
@covers("label", "checkpoint", "images", "output", "token_file", "tls_certificate", "tls_key")
def test_label(place, sources, monkeypatch, tmp_path):
    server = importlib.import_module("deeplab_tf.serving.server")

    def labelled(labeller, build):
        for picture in labeller.pictures:
            labeller.save(picture, np.zeros(labeller.size(picture), np.uint8), revision=0, done=True)
        sys.exit(0)

    monkeypatch.setattr(server, "serving", labelled)
    model, images = place("model", sources / "model"), place("photos", sources / "photos")
    files_of_access = {"token_file": "tokens", "tls_certificate": "certificate.pem", "tls_key": "key.pem"}
    access = [f"--{flag}={place(name, sources / 'access' / name)}" for flag, name in files_of_access.items()]
    is_remote = "ram:" in place.spelling  # where no labels are kept
    output = tmp_path / "out" if is_remote else place("out")
    given = (f"--checkpoint={model}", f"--images={images}", f"--output={output}", "--port=0", "--runtime=tf")
    ran("label", *given, *access)
    folder = output if is_remote else place.found("out")
    assert {path.name for path in folder.glob("*/*")} == {"a.png", "b.png"} and not list(folder.rglob(".partial-*"))


@pytest.mark.heavy
@spelled()
@covers("doctor", "suspects", "fold_checkpoints")
@covers("label", "suspects")
def test_suspects(place, sources, monkeypatch, tmp_path):
    server = importlib.import_module("deeplab_tf.serving.server")
    monkeypatch.setattr(server, "serving", lambda labeller, build: sys.exit(0))
    data = tmp_path / "data"
    for folder in ("images", "labels"):
        (data / folder).mkdir(parents=True)
    image, label = shapes_example(0, FIRST_INDEX["test"], height=129, width=129)
    (data / "images" / "a.png").write_bytes(encoded(image))
    (data / "labels" / "a.png").write_bytes(encoded(np.zeros_like(label, np.uint8)))
    (data / "class_names.txt").write_text("\n".join(datasets.DATASETS["shapes"].class_names))
    model, file = place("model", sources / "model"), place("suspects.json")
    given = (f"--dataset_dir={place('data', data)}", f"--fold_checkpoints={model}")
    assert finished(TOOLS["doctor"], *given, f"--suspects={file}") in (0, 1)
    _USED.update((("doctor", "suspects"), ("doctor", "fold_checkpoints")))
    ran("label", f"--suspects={file}", f"--output={tmp_path / 'out'}", "--port=0")


PHOTO = golden_image("photo", 8, 9)
BACKGROUND = np.zeros((8, 9), np.uint8)


def voc(root: pathlib.Path) -> pathlib.Path:
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    for name in "ab":
        (root / "JPEGImages" / f"{name}.jpg").write_bytes(encoded(PHOTO, "JPEG"))
        (root / "SegmentationClass" / f"{name}.png").write_bytes(encoded(np.ones((8, 9), np.uint8)))
    for split, name in (("train", "a"), ("val", "b")):
        (root / "ImageSets" / "Segmentation" / f"{split}.txt").write_text(f"{name}\n")
    return root


SHARDS = ("--num_shards=1", "--num_processes=1")
RAM_SHARDS = ("--num_shards=1", "--num_processes=2")  # whose processes would not see ram://


@spelled()
@covers(
    "build-data", "voc_root", "sbd_dir", "output_dir", "image_folder", "list_folder", "semantic_segmentation_folder"
)
def test_build_data_of_voc(place, tmp_path):
    import scipy.io

    root = voc(tmp_path / "voc")
    (tmp_path / "sbd" / "cls").mkdir(parents=True)
    for split, name in (("train", "c"), ("val", "b")):
        (tmp_path / "sbd" / f"{split}.txt").write_text(f"{name}\n")
    annotation = {"GTcls": {"Segmentation": np.ones((8, 9), np.uint8)}}
    scipy.io.savemat(tmp_path / "sbd" / "cls" / "c.mat", annotation)
    (root / "JPEGImages" / "c.jpg").write_bytes(encoded(PHOTO, "JPEG"))
    shards_of = RAM_SHARDS if place.spelling.startswith("ram:") else SHARDS
    given = ("--dataset=pascal_voc_seg", *shards_of, f"--voc_root={place('voc', root)}")
    sbd = (f"--sbd_dir={place('sbd', tmp_path / 'sbd')}", "--train_aug_size=2")
    ran("build-data", *given, *sbd, f"--output_dir={place('out')}")
    shards = {f"{split}-00000-of-00001.tfrecord" for split in ("train", "val", "train_aug")}
    assert place.names("out") == {*shards, "dataset.json"}
    parts = (
        f"--image_folder={place('i', root / 'JPEGImages')}",
        f"--list_folder={place('l', root / 'ImageSets/Segmentation')}",
    )
    parts += (f"--semantic_segmentation_folder={place('s', root / 'SegmentationClass')}",)
    ran("build-data", "--dataset=pascal_voc_seg", *SHARDS, *parts, f"--output_dir={place('parts')}")
    assert len(place.names("parts", "*.tfrecord")) == 2


@spelled()
@covers("build-data", "cityscapes_root")
def test_build_data_of_cityscapes(place, tmp_path):
    for part, end, image in (("leftImg8bit", "leftImg8bit", PHOTO), ("gtFine", "gtFine_labelTrainIds", BACKGROUND)):
        folder = tmp_path / "city" / part / "val" / "ulm"
        folder.mkdir(parents=True)
        (folder / f"ulm_000000_000019_{end}.png").write_bytes(encoded(image))
    given = ("--dataset=cityscapes", *SHARDS, f"--cityscapes_root={place('city', tmp_path / 'city')}")
    ran("build-data", *given, f"--output_dir={place('out')}")
    assert len(place.names("out", "val_fine-*")) == 1


@spelled()
@covers(
    "build-data",
    "ade20k_root",
    "train_image_folder",
    "train_image_label_folder",
    "val_image_folder",
    "val_image_label_folder",
)
def test_build_data_of_ade20k(place, tmp_path):
    for kind, array, end in (
        ("images", PHOTO, "jpg"),
        ("annotations", np.ones((8, 9), np.uint8), "png"),
    ):
        for part in ("training", "validation"):
            folder = tmp_path / "ade" / kind / part
            folder.mkdir(parents=True)
            (folder / f"a.{end}").write_bytes(encoded(array, "JPEG" if end == "jpg" else "PNG"))
    given = ("--dataset=ade20k", *SHARDS)
    ran("build-data", *given, f"--ade20k_root={place('ade', tmp_path / 'ade')}", f"--output_dir={place('out')}")
    names = {"train": "training", "val": "validation"}
    parts = [
        f"--{split}_image_folder={place(f'{split}i', tmp_path / 'ade/images' / name)}" for split, name in names.items()
    ]
    labels = "ade/annotations"
    parts += [
        f"--{split}_image_label_folder={place(f'{split}l', tmp_path / labels / name)}" for split, name in names.items()
    ]
    ran("build-data", *given, *parts, f"--output_dir={place('parts')}")
    assert place.names("out") == place.names("parts") and len(place.names("out", "*.tfrecord")) == 2


@spelled()
@covers("build-data", "root")
@covers("doctor", "dataset_dir", "dataset", "checkpoint")
def test_build_data_of_a_folder_and_doctor(place, tmp_path):
    root = voc(tmp_path / "own")
    (root / "class_names.txt").write_text("rest\ncat\n")
    own = place("own", root)
    ran("build-data", "--dataset=folder", *SHARDS, f"--root={own}", f"--output_dir={place('out')}")
    assert len(place.names("out", "*.tfrecord")) == 2
    for folder in ("own", "out"):
        assert finished(TOOLS["doctor"], f"--dataset_dir={place(folder)}") in (0, 1)
    ran(
        "doctor",
        f"--dataset_dir={place('out')}",
        f"--dataset={told(place('out'))}",
        f"--checkpoint={place('none')}",
        status=1,
    )


@spelled()
@covers("build-data", "annotations")
def test_build_data_of_annotations(place, tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(encoded(PHOTO))
    square = {"id": 1, "image_id": 1, "category_id": 7, "iscrowd": 0, "segmentation": [[1, 1, 5, 1, 5, 5, 1, 5]]}
    coco = {
        "images": [{"id": 1, "file_name": "a.png", "height": 8, "width": 9}],
        "annotations": [square],
        "categories": [{"id": 7, "name": "cat"}],
    }
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    given = (
        f"--root={place('own', tmp_path / 'pictures')}",
        f"--annotations={place('coco.json', tmp_path / 'coco.json')}",
    )
    ran("build-data", "--dataset=folder", *SHARDS, *given, f"--output_dir={place('out')}")
    facts = json.loads((place.found("out") / "dataset.json").read_bytes())
    assert facts["class_names"] == ["background", "cat"] and facts["splits"] == {"train": 1}


@spelled()
@covers("pack", "images", "predictions", "list_file", "output")
def test_pack(place, tmp_path):
    for folder in ("images", "predictions"):
        (tmp_path / folder).mkdir()
    (tmp_path / "images" / "2008_000001.jpg").write_bytes(encoded(PHOTO, "JPEG"))
    PIL.Image.fromarray(np.ones((8, 9), np.uint8)).save(tmp_path / "predictions" / "2008_000001.png")
    (tmp_path / "test.txt").write_text("2008_000001\n")
    given = [f"--{name}={place(name, tmp_path / name)}" for name in ("images", "predictions")]
    given += [f"--list_file={place('test.txt', tmp_path / 'test.txt')}", f"--output={place('results.tgz')}"]
    ran("pack", "--server=voc", *given)
    with tarfile.open(fileobj=io.BytesIO(place.found("results.tgz").read_bytes())) as archive:
        assert [os.path.basename(name) for name in archive.getnames()] == ["2008_000001.png"]


@spelled()
@covers("panoptic", "gt_json_file", "gt_folder", "pred_json_file", "pred_folder")
def test_panoptic(place, tmp_path, capsys):
    image = ImageSegments("1.jpg", np.arange(72).reshape(8, 9) // 40, np.zeros((8, 9), int))
    write_panoptic(tmp_path / "set.json", [image], {1: ("cat", True)}, void=0)
    file, folder = place("set.json", tmp_path / "set.json"), place("pictures", tmp_path / "set")
    given = [f"--{part}_json_file={file}" for part in ("gt", "pred")]
    ran("panoptic", *given, *(f"--{part}_folder={folder}" for part in ("gt", "pred")))
    assert ["cat", "100.0", "100.0", "100.0"] in [line.split() for line in capsys.readouterr().out.splitlines()]


@spelled()
@covers("verify", "output", "dataset_dir", "record")
def test_verify(place, sources):
    records = place("records", sources / "records")
    output, folder = place("verify.json"), place("references")
    ran("verify", "shapes_resnet", f"--output={output}", f"--dataset_dir={records}", status=1)  # of another data set
    assert b'"shapes_resnet"' in place.found("verify.json").read_bytes()
    ran("verify", "shapes_resnet", f"--record={folder}")
    assert place.names("references") == {"shapes_resnet.reference.json"}


@spelled()
@covers("zoo", "write_manifests")
def test_zoo(place, monkeypatch):
    monkeypatch.setattr(importlib.import_module("deeplab_tf.weights.loading"), "manifest_of", lambda entry: {"v": [1]})
    ran("zoo", f"--write_manifests={place('manifests')}")
    assert len(place.names("manifests", "*.json")) == 24


@pytest.mark.heavy
@spelled("ram://{}")  # test_demo has a local one
@covers("demo", "output_dir")
def test_demo(place, monkeypatch):
    monkeypatch.setattr(TOOLS["demo"], "_DUSK_STEPS", 2)
    monkeypatch.setattr(TOOLS["demo"], "_DUSK_PICTURES", 8)
    ran("demo", f"--output_dir={place('demo')}", "--held_out=2")
    assert {"model", "images", "predictions", "sheet.png", "records", "run"} <= place.names("demo")


@spelled()
@covers("benchmark", "checkpoints", "json", "chart", "originals")
def test_benchmark(place, sources):
    given = ("--what=inference", "--small", "--rounds=1", "--runtimes=saved_model")
    given += (
        f"--checkpoints={place('model', sources / 'model')}",
        f"--json={place('f.json')}",
        f"--chart={place('c.svg')}",
    )
    folder = place("originals", sources / "originals").rstrip("/")
    ran("benchmark", *given, f"--originals={folder}/export.tflite")
    assert b"figures" in place.found("f.json").read_bytes() and b"<svg" in place.found("c.svg").read_bytes()


def test_every_path_flag_is_run():
    """A flag of a network's cell has tests of its own in test_path_flags; the cache of pictures is training's."""
    others = {(command, "dense_prediction_cell_json") for command in CELL_COMMANDS}
    others |= {(command, "decoded_cache") for command in ("train", "eval", "vis")}
    # Of extend those that train has: some follow from its own, and the others it hands on.
    others |= {("extend", name) for command, name in PATH_FLAGS if command == "train"} - COVERED
    # Two names of one flag: each command is run with one.
    others |= {("eval", "checkpoint"), ("vis", "checkpoint_dir"), ("serve", "samples")}
    assert set(PATH_FLAGS) - others == COVERED
