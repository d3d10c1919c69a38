"""Names of the Hugging Face Hub: fetched from and pushed to a server of this machine, refused in one line."""

import dataclasses
import hashlib
import http.server
import json
import re
import threading

import numpy as np
import pytest
from networks import TINY, lively

from deeplab_tf import Segmenter
from deeplab_tf.config import Experiment, PredictConfig, RunConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.training.teacher import opened_teacher, teacher_digest
from deeplab_tf.weights import hub
from deeplab_tf.weights.model_directory import ModelCard, save_model
from deeplab_tf.weights.tf1 import Receipt

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONTENTS = {"config.json": b'{"model_type": "mobilenet_v2"}', "README.md": b"text", "evil.py": b"raise"}


class _Hub(http.server.BaseHTTPRequestHandler):
    """As much of the Hub as fetching a small repository asks for."""

    def log_message(self, *args):
        del args

    def _answer(self, content, status=200, headers=None):
        self.send_response(status)
        for name, value in {"Content-Length": len(content), **(headers or {})}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def do_GET(self):
        match = re.fullmatch(r"/api/models/me/net/revision/(main|v1).*", self.path)
        if match:
            siblings = [{"rfilename": name, "size": len(body)} for name, body in CONTENTS.items()]
            return self._answer(json.dumps({"id": "me/net", "sha": COMMIT, "siblings": siblings}).encode())
        match = re.fullmatch(rf"/api/models/me/net/tree/{COMMIT}.*", self.path)
        if match:
            entries = [
                {"type": "file", "path": name, "size": len(body), "oid": hashlib.sha1(body).hexdigest()}
                for name, body in CONTENTS.items()
            ]
            return self._answer(json.dumps(entries).encode(), headers={"Content-Type": "application/json"})
        match = re.fullmatch(rf"/me/net/resolve/{COMMIT}/([\w.-]+)", self.path)
        if match and match[1] in CONTENTS:
            body = CONTENTS[match[1]]
            return self._answer(body, headers={"ETag": hashlib.sha1(body).hexdigest(), "X-Repo-Commit": COMMIT})
        code = "RevisionNotFound" if "/me/net/revision" in self.path else "RepoNotFound"
        return self._answer(b"{}", 404, {"X-Error-Code": code})

    do_HEAD = do_GET


@pytest.fixture
def server(monkeypatch, tmp_path):
    hub_server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    thread = threading.Thread(target=hub_server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{hub_server.server_port}")
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    yield hub_server
    hub_server.shutdown()
    hub_server.server_close()


def test_a_repository_is_fetched_once_and_without_code(server):
    folder = hub.fetch("hf://me/net")
    assert sorted(path.name for path in folder.iterdir()) == ["config.json"]
    assert (folder / "config.json").read_bytes() == CONTENTS["config.json"]
    assert hub.fetch("hf://me/net@v1") == folder


@pytest.fixture
def card(server, tmp_path, monkeypatch) -> ModelCard:
    """That of a network which a repository and the folder `model` hold."""
    model = lively(TINY)
    card = ModelCard(model.config, class_names=tuple(f"c{i}" for i in range(TINY.num_classes)))
    save_model(tmp_path / "model", model, Receipt("weights", {}, {}, ""), card=card)
    contents = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir() if path.is_file()}
    monkeypatch.setattr(f"{__name__}.CONTENTS", contents)
    return card


def test_a_repository_teaches(card, tmp_path):
    here = str(tmp_path / "model")
    assert teacher_digest("hf://me/net") == teacher_digest(here)
    asked = Experiment(model=TINY, run=RunConfig(teacher="hf://me/net"))
    teacher, other = (
        opened_teacher(dataclasses.replace(asked, run=run), card) for run in (asked.run, RunConfig(teacher=here))
    )
    assert teacher is not None and other is not None
    for one, same in zip(teacher.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(one, same)


def test_a_repository_is_segmented_with(card, tmp_path):
    """A model directory in a repository; its classes are those of the same folder on the disk."""
    options = PredictConfig(runtime="tf")
    image = np.full((40, 60, 3), 90, np.uint8)
    found, expected = Segmenter("hf://me/net", options), Segmenter(tmp_path / "model", options)
    assert found.class_names == card.class_names and np.array_equal(found(image).classes, expected(image).classes)


def test_what_is_not_there(server):
    with pytest.raises(DeepLabError, match=r"^hf://me/net@v9: the repository has no such revision"):
        hub.fetch("hf://me/net@v9")
    with pytest.raises(DeepLabError, match=r"^hf://me/other: no such repository"):
        hub.fetch("hf://me/other")


def test_without_a_network(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(DeepLabError, match=r"^hf://me/net: the Hub cannot be") as caught:
        hub.fetch("hf://me/net")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["hf://", "hf://me", "hf://me/a/b", "hf://me/a@", "hf://me/a b", "hf://../..@x\n", "hf:///a"]
)
def test_names_that_are_none(name):
    with pytest.raises(DeepLabError, match="expected hf://owner/name"):
        hub.fetch(name)
