"""What docs/how-to/own_data.md says is so: commands, layouts, lists, names, annotations, refusals, the whole way."""

import base64
import json
import pathlib
import re
import signal
import urllib.request

import keras
import numpy as np
import pytest
from annotated import CAT, MAKERS, labelme_values, save_json
from commands import begin, finished
from own_folders import (
    COMMANDS,
    NAMES,
    SIZE,
    TINY,
    agree,
    build,
    column,
    commands,
    deep,
    encoded,
    facts,
    label,
    npy,
    photographs,
    picture,
    put,
    rows,
    stored,
    usual,
)

from deeplab_tf.network.build import build_model
from deeplab_tf.weights.tf1 import variable_map, write_tensors

# ---- layouts, lists, names


@pytest.mark.parametrize("row", rows("layouts"), ids=lambda row: f"{row[0]} {row[1]}")
def test_a_layout(my_data, row):
    photograph, drawn = (cell.strip("`") for cell in row[:2])
    kind, _, lists = row[2].partition(": ")
    for seed, name in enumerate("abcd"):
        split = "val" if name == "d" and kind == "folders" else "train"
        for pattern, array in ((photograph, picture(seed)), (drawn, label(seed))):
            head, slash, file = pattern.replace("train", split).rpartition("/")
            put(my_data / f"{head}{slash}{name}{file[1:]}", array)
    (my_data / "class_names.txt").write_text("\n".join(NAMES))
    for file, names in zip(re.findall(r"`(.*?)`", lists), ("a\nb\nc", "d"), strict=False):
        (my_data / file).parent.mkdir(parents=True, exist_ok=True)
        (my_data / file).write_text(names)
    assert build() == 0
    assert facts()["splits"] == ({"train": 4} if kind == "none" else {"train": 3, "val": 1})
    (name,) = (name for name in stored("train") if name.endswith("b"))
    np.testing.assert_array_equal(stored("train")[name][1], label(1))
    agree()


@pytest.mark.parametrize("lines", ["a\nb\nc", "a.png\nb.png\nc.png", "images/a.png labels/a.png\nimages/b.png\nc"])
def test_the_lines_of_a_list(my_data, lines):
    for seed, name in enumerate("abcd"):
        put(my_data / "images" / f"{name}.png", picture(seed))
        put(my_data / "labels" / f"{name}.png", label(seed))
    (my_data / "class_names.txt").write_text("\n".join(NAMES))
    (my_data / "train.txt").write_bytes(b"\xef\xbb\xbf" + lines.replace("\n", "\r\n").encode())
    (my_data / "README.txt").write_text("my data")
    assert build() == 0 and facts()["splits"] == {"train": 3}


def test_a_test_without_labels(my_data):
    usual(my_data)
    put(my_data / "images" / "test" / "t.png", picture(9))
    assert build() == 0 and facts()["unlabelled"] == ["test"]
    assert stored("test")["t"][1] is None


def test_a_folder_is_divided(my_data):
    for part, drawn in (("images", picture), ("labels", label)):
        for video in "xyz":
            for frame in range(3):
                put(my_data / part / f"{video}_frame{frame}.png", drawn(ord(video) + frame))
    (my_data / "class_names.txt").write_text("\n".join(NAMES))
    ((name, *flags),) = commands("divided")
    assert finished(COMMANDS[name], *flags, "--num_processes=1") == 0
    assert facts()["splits"] == {"train": 6, "val": 3}
    assert len({name[0] for name in stored("val")}) == 1


NAMED = {
    "class_names.txt": "rest\ncat\ndog\n",
    "classes.txt": "0 rest\n1 cat\n2 dog\n",
    "labels.txt": "__ignore__\nrest\ncat\ndog\n",
    "obj.names": "rest\ncat\ndog\n",
    "labelmap.txt": "# label:color_rgb:parts:actions\nrest:0,0,0::\ncat:9,8,7::\ndog:1,2,3::\n",
    "data.yaml": "names:\n  0: rest\n  1: cat\n  2: dog\n",
    "dataset.json": json.dumps({"class_names": list(NAMES), "palette": [[0, 0, 0], [9, 8, 7], [1, 2, 3]]}),
}


@pytest.mark.parametrize("cell", column("names"))
def test_a_file_of_names(my_data, cell):
    usual(my_data)
    (my_data / "class_names.txt").unlink()
    file = cell.strip("`")
    (my_data / file).write_text(NAMED[file])
    assert build() == 0 and facts()["class_names"] == list(NAMES)
    if file in ("labelmap.txt", "dataset.json"):
        assert facts()["palette"] == [[0, 0, 0], [9, 8, 7], [1, 2, 3]]


# ---- annotations


@pytest.mark.parametrize("cell", column("annotations"))
@pytest.mark.parametrize("block", ["commands", "drawn"])
def test_a_format_of_annotations(my_data, cell, block):
    format_name = cell.strip("`")
    MAKERS[format_name](my_data)
    (name, *flags) = commands(block)[0]
    assert finished(COMMANDS[name], *flags, "--num_processes=1") == 0
    built = facts()
    assert built["class_names"][0] == "background" and built["class_names"][CAT[format_name]] == "cat"
    assert built["built"]["annotations"] == format_name
    ((_, classes),) = stored("train").values()
    assert classes is not None
    assert classes[15, 20] == CAT[format_name] and classes[0, 0] == 0
    assert (classes == 255).any() == (block == "drawn")  # the border
    if block == "drawn":
        assert built["built"]["drawing_order"] == "as_listed"
    agree()


def test_every_format_is_there():
    assert [cell.strip("`") for cell in column("annotations")] == list(MAKERS)


# ---- refused


def other_size(my_data: pathlib.Path):
    put(my_data / "labels" / "train" / "a.png", label(0, (20, 20)))


def other_names(my_data: pathlib.Path):
    (my_data / "classes.txt").write_text("rest\ncow\ndog")


def no_labels(my_data: pathlib.Path):
    (my_data / "labels").rename(my_data / "others")


FAULTS = {
    "two pictures of one name, `a.jpg` and `a.png`": (
        lambda f: put(f / "images/train/a.jpg", picture(0)),
        "have the same name and so one label",
    ),
    "a picture without a label, outside of `test`": (
        lambda f: (f / "labels/train/a.png").unlink(),
        "labels/train/a.png: missing label",
    ),
    "a label of another size than its picture": (other_size, "20 x 20 pixels, but"),
    "more than 256 names of classes": (
        lambda f: (f / "class_names.txt").write_text("\n".join(f"c{i}" for i in range(257))),
        "257 classes",
    ),
    "two files that name different classes": (other_names, "name different classes"),
    "a folder of pictures without labels or annotations": (no_labels, "no folder of labels"),
    "`--val_share` where there is a `val`": (lambda f: None, "there is a split val already"),
}


def test_every_refusal_is_tried():
    assert column("refused") == list(FAULTS)


@pytest.mark.parametrize("what", FAULTS)
def test_what_is_refused(my_data, what, capsys):
    change, words = FAULTS[what]
    usual(my_data)
    change(my_data)
    assert build(*(["--val_share=0.2"] if "val_share" in what else [])) == 1
    message = capsys.readouterr().err
    assert words in message and "Traceback" not in message
    assert not pathlib.Path("my_records").exists()


# ---- the whole way


@pytest.fixture(scope="module")
def initial(tmp_path_factory) -> str:
    """A small network's weights to begin with, in place of Google's."""
    keras.utils.set_random_seed(0)
    prefix = tmp_path_factory.mktemp("initial") / "model.ckpt"
    write_tensors(prefix, {name: v.numpy() for name, v in variable_map(build_model(TINY)).items()})
    return str(prefix)


def asked(address: str, content: bytes) -> dict:
    """Returns the answer of a server to a picture."""
    body = json.dumps({"instances": [{"b64": base64.b64encode(content).decode()}]}).encode()
    with urllib.request.urlopen(f"{address}/v1/models/deeplab:predict", body, timeout=60) as answer:
        return json.load(answer)


@pytest.mark.heavy
@pytest.mark.parametrize("kind", ["annotations", "bands"])
def test_from_a_folder_to_a_served_model(my_data, initial, kind):
    """PNGs with annotations, and arrays of five bands with labels: after build-data, records are all that is read."""
    content = encoded(picture(3), "PNG")
    if kind == "annotations":
        for place in ("train/a", "train/b", "val/c"):
            put(my_data / f"{place}.png", picture(ord(place[-1])))
            size = {"imageHeight": SIZE[0], "imageWidth": SIZE[1]}
            save_json(my_data / f"{place}.json", labelme_values(name=f"{place[-1]}.png", **size))
    else:
        content = npy(deep(0, 5))
        photographs(my_data, ".npy", [npy(deep(seed, 5)) for seed in range(3)])
    small = ["--train_crop_size=33,33", "--train_batch_size=2", "--training_number_of_steps=2"]
    more = {
        "build-data": ["--num_processes=1"],
        "train": [*small, f"--tf_initial_checkpoint={initial}"],
        "eval": [],
        "export": ["--crop_size=65,65"],
        "serve": ["--port=0"],
    }
    page = commands("commands")
    assert [name for name, *_ in page] == list(more)
    for name, *flags in page[:-1]:
        # Flags that hold a list would hold both.
        kept = [flag for flag in flags if flag.split("=")[0] not in {other.split("=")[0] for other in more[name]}]
        assert finished(COMMANDS[name], *kept, *more[name]) == 0
    scores = json.loads(pathlib.Path("exp/mine/eval/metrics.jsonl").read_text())
    assert len([key for key in scores if "_class_" in key]) == (2 if kind == "annotations" else 3)
    assert pathlib.Path("exp/mine_saved_model/saved_model.pb").is_file()
    # In a process of its own: what ends it, Ctrl-C or a fault of a runtime, does not end the tests.
    with begin([*page[-1], *more["serve"]], my_data.parent) as server:
        try:
            address = next((line.split()[1] for line in server.stdout if line.startswith("Page:")), "")
            assert address, server.stderr.read()
            answer = asked(address.rstrip("/"), content)
            server.send_signal(signal.SIGINT)
            _, errors = server.communicate(timeout=120)
        finally:
            server.kill()
    assert server.returncode == 130 and "Traceback" not in errors, errors
    (prediction,) = answer["predictions"]
    assert np.shape(prediction["SemanticPredictions"]) == SIZE
