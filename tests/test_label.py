"""The server of the labelling page: labels in and out over HTTP, what build-data reads of them, conflicts, a kill."""

import dataclasses
import errno
import http.client
import io
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import types
import zlib

import numpy as np
import PIL.Image
import pytest
from commands import finished, one_line
from conftest import ROOT
from golden import golden_image
from networks import TINY, lively
from record_files import encoded
from test_serving import NAMES

from deeplab_tf import files
from deeplab_tf.catalog.datasets import read_dataset
from deeplab_tf.config import LabelConfig
from deeplab_tf.data.build import BuildOptions, build_records
from deeplab_tf.data.folder import read_folder
from deeplab_tf.errors import DeepLabError
from deeplab_tf.evaluation.report.thumbnails import look
from deeplab_tf.inference.predictor import predictor_of
from deeplab_tf.labelling.pictures import stems_of
from deeplab_tf.labelling.uncertainty import entropy, ranked, unsure_places
from deeplab_tf.tools import label as label_tool
from deeplab_tf.weights.model_directory import ModelCard

pytest.importorskip("starlette", reason="the extra `serve` is not installed")
pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")

from deeplab_tf.labelling.app import build_label_app  # noqa: E402
from deeplab_tf.labelling.labeller import Labeller  # noqa: E402
from deeplab_tf.serving.server import serving  # noqa: E402

SIZES = {"a.jpg": (33, 47), "a.png": (20, 31), "Straße 1 #2.png": (41, 29), "street/b c.png": (24, 24)}


def turned(image: np.ndarray, orientation: int) -> bytes:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    return encoded(image, "JPEG", exif=exif)


@pytest.fixture(scope="module")
def loaded():
    return types.SimpleNamespace(model=lively(TINY), card=ModelCard(config=TINY, class_names=NAMES))


@pytest.fixture
def photos(tmp_path) -> pathlib.Path:
    folder = tmp_path / "my photos"
    for name, size in SIZES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        image = golden_image(name, *size)
        (folder / name).write_bytes(encoded(image, "JPEG" if name.endswith("jpg") else "PNG"))
    (folder / "on its side.jpg").write_bytes(turned(golden_image("side", 26, 38), 6))  # 38 x 26 upright
    (folder / "upside down.jpg").write_bytes(turned(golden_image("down", 26, 38), 3))  # as large either way
    return folder


def options(photos: pathlib.Path, **changes) -> LabelConfig:
    return LabelConfig(images=str(photos), runtime="tf", longest_side=65, port=0, **changes)


class Client:
    """Asks a labelling server."""

    def __init__(self, address: str) -> None:
        self.address = address.removeprefix("http://")

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str):
        connection = http.client.HTTPConnection(self.address, timeout=60)
        kind = {"content-type": "application/octet-stream"} if body is not None else {}
        connection.request(method, path, body, {**kind, **{n.replace("_", "-"): v for n, v in headers.items()}})
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        is_json = answer.headers.get("content-type", "").startswith("application/json")
        return answer.status, json.loads(content) if is_json else content, answer.headers

    def rows(self) -> dict[str, dict]:
        """The pictures by name, when all have been looked at."""
        end = time.monotonic() + 60
        while True:
            state = self.ask("GET", "/state")[1]
            if state["seen"] == len(state["pictures"]):
                return {row["name"]: row for row in state["pictures"]}
            assert time.monotonic() < end
            time.sleep(0.02)

    def mask(self, identity: str, query: str = "") -> tuple[np.ndarray, dict]:
        status, content, headers = self.ask("GET", f"/masks/{identity}{query}")
        assert status == 200, content
        facts = json.loads(headers["x-label"])
        values = np.frombuffer(zlib.decompress(content), np.uint8)
        return values.reshape(facts["height"], facts["width"]), facts

    def save(self, identity: str, values: np.ndarray, revision: int, done: bool = False) -> tuple[int, dict]:
        body = zlib.compress(values.tobytes())
        return self.ask("POST", f"/masks/{identity}?revision={revision}&done={int(done)}", body)[:2]


@pytest.fixture
def client(loaded, photos):
    labeller = Labeller(loaded, options(photos))
    with labeller.running(), serving(labeller, build_label_app) as address:
        yield Client(address)


def label_of(shape: tuple[int, int], seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).integers(0, 6, shape, np.uint8)
    values[:3, :4] = 255
    return values


def test_what_is_done_is_what_build_data_reads(client, loaded, photos, tmp_path):
    rows = client.rows()
    assert set(rows) == {*SIZES, "on its side.jpg", "upside down.jpg"}
    assert {row["status"] for row in rows.values()} == {"new"} and all(0 < row["score"] < 1 for row in rows.values())
    wanted = {}
    for number, (name, row) in enumerate(rows.items()):
        mask, facts = client.mask(row["id"])
        assert (facts["revision"], facts["start"]) == (0, "model") and 0 < len(facts["places"]) <= 8
        if name in SIZES:
            with PIL.Image.open(photos / name) as image:
                expected = predictor_of(loaded.model).labels(np.asarray(image)[None])[0]
            assert mask.shape == SIZES[name] and expected.shape == mask.shape and mask.max() < 6
        else:
            assert mask.shape == ((38, 26) if "its side" in name else (26, 38))
        shown = client.ask("GET", f"/photographs/{row['id']}")[1]
        with PIL.Image.open(io.BytesIO(shown)) as image:
            assert image.size == mask.shape[::-1]
        wanted[name] = label_of(mask.shape, number)
        assert client.save(row["id"], wanted[name], 0, done=name != "a.png")[0] == 200
    out = tmp_path / "my photos_labelled"
    data = read_folder(out)
    assert data.facts.class_names == NAMES and data.facts.ignore_label == 255
    pairs = {pair.filename: pair for pair in data.splits["train"]}
    assert set(pairs) == {"a", "Straße 1 #2", "street/b c", "on its side", "upside down"}
    for name, values in wanted.items():
        if name != "a.png":  # begun, not done
            with PIL.Image.open(pairs[name.rpartition(".")[0]].label) as image:
                np.testing.assert_array_equal(np.asarray(image), values)
    counts = build_records(data.splits, data.facts, tmp_path / "records", BuildOptions(shards=1))
    assert counts["train"][255] == 5 * 12 and counts["train"].sum() == sum(
        v.size for n, v in wanted.items() if n != "a.png"
    )
    # What EXIF turns is copied upright, so that no question is left.
    with PIL.Image.open(out / "images" / "upside down.png") as image, PIL.Image.open(photos / "upside down.jpg") as was:
        np.testing.assert_array_equal(np.asarray(image), np.asarray(was)[::-1, ::-1])

    # Not done after all: out of the data set, and the label stays.
    row = client.rows()["a.jpg"]
    assert client.save(row["id"], wanted["a.jpg"], 1, done=False) == (200, {"revision": 2, "version": "6-7"})
    assert len(read_folder(out).splits["train"]) == 4 and not (out / "images" / "a.jpg").exists()
    assert client.rows()["a.jpg"]["status"] == "begun"


def test_nobody_overwrites_another(client):
    row = client.rows()["a.jpg"]
    first, second = label_of(SIZES["a.jpg"], 1), label_of(SIZES["a.jpg"], 2)
    assert client.save(row["id"], first, 0)[1]["revision"] == 1
    assert client.save(row["id"], first, 0)[1]["revision"] == 1, "the same again, whose answer was lost"
    status, answer = client.save(row["id"], second, 0)
    assert status == 409 and "saved elsewhere since revision 0, it is at 1 now" in answer["error"]
    values, facts = client.mask(row["id"])
    np.testing.assert_array_equal(values, first)
    assert (facts["revision"], facts["start"], facts["done"]) == (1, "saved", False)
    assert client.ask("GET", f"/revisions/{row['id']}")[1] == {"revision": 1, "done": False}
    assert client.save(row["id"], second, 1)[1]["revision"] == 2
    start, facts = client.mask(row["id"], "?start")
    assert facts["start"] == "model" and not np.array_equal(start, second)


def test_what_is_refused(client, photos):
    (photos / "a.jpg").with_name("late.jpg").write_bytes(b"no picture")  # after the list was made
    row = client.rows()["a.jpg"]
    path = f"/masks/{row['id']}?revision=0&done=0"
    good = zlib.compress(bytes(33 * 47))
    assert client.ask("POST", path, good, origin="http://elsewhere.example")[0] == 403
    assert client.ask("POST", path, good, host="elsewhere.example")[0] == 400
    assert client.ask("POST", path, good, content_type="text/plain")[0] == 415
    assert client.ask("POST", f"/masks/{row['id']}?revision=-1&done=0", good)[0] == 400
    assert client.ask("POST", "/masks/0123456789abcdef?revision=0&done=0", good)[0] == 404
    assert client.ask("POST", path, b"no zlib")[0] == 400
    assert "not a whole label" in client.ask("POST", path, zlib.compress(bytes(1 << 28)))[1]["error"]  # a quarter GB
    assert client.ask("POST", path, zlib.compress(bytes(33 * 46)))[0] == 400
    status, answer, _ = client.ask("POST", path, zlib.compress(bytes([6]) * (33 * 47)))
    assert (status, answer["error"]) == (400, "value 6; expected 0..5, or 255")
    assert client.rows()["a.jpg"]["status"] == "new"
    headers = client.ask("GET", "/")[2]
    assert "default-src 'self'" in headers["content-security-policy"] and headers["x-content-type-options"] == "nosniff"
    assert client.ask("GET", "/state?version=" + client.ask("GET", "/state")[1]["version"])[0] == 204


def test_it_goes_on_where_one_was(loaded, photos, tmp_path):
    out = tmp_path / "out"
    first = Labeller(loaded, options(photos, output=str(out), add="curb"))
    assert first.facts.class_names == (*NAMES, "curb") and first.facts.palette[6] not in first.facts.palette[:6]
    with first.running():
        with pytest.raises(DeepLabError, match="another server labels there"), first.store.opened():
            pass
        picture = next(p for p in first.pictures if p.name == "a.png")
        assert picture.stem == "a-2"
        values = np.full(SIZES["a.png"], 6, np.uint8)
        first.save(picture, values, revision=0, done=True)
    (photos / "a.bmp").write_bytes(encoded(golden_image("new", 9, 9), "BMP"))
    (out / "train.txt").unlink()  # as if it had been killed between two files
    (out / "images" / "a-2.png").unlink()
    (out / "labels" / ".partial-1-2-3.png").write_bytes(b"half")
    second = Labeller(loaded, options(photos, output=str(out), add="curb,manhole"))
    with second.running():
        stems = {p.name: p.stem for p in second.pictures}
        assert stems["a.png"] == "a-2" and len(set(stems.values())) == len(stems) == 7
        found = second.open(next(p for p in second.pictures if p.name == "a.png"))
        np.testing.assert_array_equal(found.values, values)
        assert (found.saved.revision, found.saved.done) == (1, True)
        assert [pair.filename for pair in read_folder(out).splits["train"]] == ["a-2"]
        assert read_dataset(out).class_names == (*NAMES, "curb", "manhole")
        assert not (out / "labels" / ".partial-1-2-3.png").exists()
    with (
        pytest.raises(DeepLabError, match="has 8 classes"),
        Labeller(loaded, options(photos, output=str(out))).running(),
    ):
        pass


def test_a_picture_that_cannot_be_read_is_told(loaded, photos):
    (photos / "bad.jpg").write_bytes(b"no picture")
    labeller = Labeller(loaded, options(photos))
    with labeller.running(), serving(labeller, build_label_app) as address:
        client = Client(address)
        row = client.rows()["bad.jpg"]
        assert "bad.jpg: not an image" in row["error"]
        status, answer, _ = client.ask("GET", f"/masks/{row['id']}")
        assert status == 422 and "bad.jpg: not an image" in answer["error"]


def test_a_disk_that_is_full_is_told_and_the_label_is_the_one_before(loaded, photos, monkeypatch):
    labeller = Labeller(loaded, options(photos))
    with labeller.running(), serving(labeller, build_label_app) as address:
        client = Client(address)
        row = client.rows()["a.jpg"]
        first, second = label_of(SIZES["a.jpg"], 1), label_of(SIZES["a.jpg"], 2)
        assert client.save(row["id"], first, 0, done=True)[0] == 200
        with monkeypatch.context() as patched:
            patched.setattr(files, "flush", full)
            status, answer = client.save(row["id"], second, 1, done=True)
            assert status == 507 and "No space left on device" in answer["error"]
        np.testing.assert_array_equal(client.mask(row["id"])[0], first)
        assert client.save(row["id"], second, 1, done=True) == (200, {"revision": 2, "version": "6-2"})


def full(file: pathlib.Path) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_mistakes_are_told(loaded, photos, tmp_path, capsys):
    for changes, words in (
        ({"output": str(photos)}, "is the folder of the photographs"),
        ({"images": str(tmp_path / "none")}, "no such folder"),
    ):
        labeller = Labeller(loaded, dataclasses.replace(options(photos), **changes))
        with pytest.raises(DeepLabError, match=words), labeller.running():
            pass
    with pytest.raises(DeepLabError, match="sky is a class already"):
        Labeller(loaded, options(photos, add="sky"))
    (tmp_path / "full" / "labels").mkdir(parents=True)
    strange = Labeller(loaded, options(photos, output=str(tmp_path / "full")))
    with pytest.raises(DeepLabError, match="holds labels and no dataset.json"), strange.running():
        pass
    assert finished(label_tool, f"--images={photos}") == 1
    assert "--checkpoint is missing" in one_line(capsys.readouterr().err)
    assert finished(label_tool, f"--images={photos}", f"--suspects={photos}", "--checkpoint=x") == 1
    assert "its pictures replace --images" in one_line(capsys.readouterr().err)


# ---- the order


def test_unsure_things_and_different_pictures_come_first():
    sure, torn = np.zeros((80, 120, 3), np.float32), np.zeros((80, 120, 3), np.float32)
    sure[..., 0] = torn[..., 0] = 1
    torn[20:40, 60:90] = 1 / 3  # a small thing that is not known
    assert entropy(sure).max() == 0 and np.isclose(entropy(torn)[30, 70], 1)
    assert unsure_places(entropy(sure))[0] == 0
    score, places = unsure_places(entropy(torn))
    assert score > 0.6 and places[0].score == 1
    left, top, wide, high = places[0].box
    assert left <= 60 / 120 and top <= 20 / 80 and left + wide >= 90 / 120 - 0.07 and top + high >= 40 / 80 - 0.07
    assert wide * high < 0.2

    looks = [look(golden_image(name, 40, 40)) for name in ("one", "one", "two", "three")]
    looks[2] = np.full_like(looks[2], 250)
    assert ranked([0.9, 0.8, 0.5, 0.1], looks, []) == [0, 2, 3, 1], "the second looks like the first"
    assert ranked([0.9, 0.8, 0.5, 0.1], looks, [0]) == [2, 3, 1]
    assert ranked([], [], []) == []


def test_names_that_a_list_cannot_hold():
    names = ["a.jpg", "A.png", "b\n.png", " c /.d.jpg", "\udcff.jpg", "e.v1.jpg", "#x.png"]
    assert list(stems_of(names, {}).values()) == ["a", "A-2", "b_", "c/d", "?", "e.v1", "x"]
    assert stems_of(["a.jpg", "a.png"], {"a.png": "a"}) == {"a.png": "a", "a.jpg": "a-2"}


# ---- a kill


@pytest.mark.heavy
def test_a_kill_loses_nothing_that_was_saved(photos, tmp_path):
    out = tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "deeplab_tf.tools.cli",
        "label",
        f"--images={photos}",
        "--checkpoint=shapes_resnet",
    ]
    command += [f"--output={out}", "--port=0", "--runtime=tf", "--nolog_requests"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    acknowledged = 0
    for attempt in range(2):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        address = next(line for line in process.stdout if line.startswith("Page: ")).split()[1].rstrip("/")
        client = Client(address)
        identity = next(row["id"] for row in client.ask("GET", "/state")[1]["pictures"] if row["name"] == "a.jpg")
        values, facts = client.mask(identity)
        if attempt:
            # What was called saved is there, or what was on its way after it.
            assert facts["revision"] in (acknowledged, acknowledged + 1)
            assert (values == facts["revision"] % 9).all()
        for revision in range(facts["revision"], facts["revision"] + 40):
            label = np.full(SIZES["a.jpg"], (revision + 1) % 9, np.uint8)
            if revision == facts["revision"] + 25:
                os.kill(process.pid, signal.SIGSTOP)  # in the midst of a request
                body = zlib.compress(label.tobytes())
                connection = http.client.HTTPConnection(client.address, timeout=10)
                path = f"/masks/{identity}?revision={revision}&done=1"
                connection.request("POST", path, body, {"content-type": "application/octet-stream"})
                os.kill(process.pid, signal.SIGCONT)
                os.kill(process.pid, signal.SIGKILL)
                break
            assert client.save(identity, label, revision, done=True)[1]["revision"] == revision + 1
            acknowledged = revision + 1
        process.wait()
        process.stdout.close()
        with PIL.Image.open(out / "labels" / "a.png") as image:
            saved = json.loads(image.info["deeplab_label"])["revision"]
            assert saved in (acknowledged, acknowledged + 1) and (np.asarray(image) == saved % 9).all()
        assert re.fullmatch(r"a\n", (out / "train.txt").read_text())
