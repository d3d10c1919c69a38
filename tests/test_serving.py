"""The server on this machine's own address: TensorFlow Serving's interface, the limits, and clients that mean ill."""

import base64
import concurrent.futures
import contextlib
import dataclasses
import http.client
import io
import json
import select
import socket
import struct
import sys
import threading
import time
import zlib

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from commands import finished
from golden import golden_image
from google.protobuf import json_format
from networks import TINY, lively
from record_files import encoded, write_shapes
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

from deeplab_tf.config import ExportConfig, PredictConfig, ServeConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.exporting.formats import FORMATS
from deeplab_tf.inference.folded_graph import read_weights
from deeplab_tf.inference.graph import Segmentation, build_graph
from deeplab_tf.inference.predict import predict
from deeplab_tf.inference.predictor import predictor_of
from deeplab_tf.inference.tiles import segment
from deeplab_tf.tools import serve as serve_tool
from deeplab_tf.weights.model_directory import ModelCard

pytest.importorskip("starlette", reason="the extra `serve` is not installed")
pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")

from deeplab_tf.serving import protocol  # noqa: E402
from deeplab_tf.serving.engine import Engine  # noqa: E402
from deeplab_tf.serving.server import serving  # noqa: E402

NAMES = ("ground", "sky", "tree", "house", "lake", "road")
CARD = ModelCard(config=TINY, class_names=NAMES)
# Small and short, so that a test can break them.
OPTIONS = ServeConfig(
    port=0, runtime="tf", longest_side=65, max_body_mb=0.5, max_pixels=40_000, read_timeout_secs=1.0, max_requests=64
)


@pytest.fixture(scope="module")
def model():
    return lively(TINY)


@pytest.fixture(scope="module")
def engine(model):
    found = Engine(model, CARD, OPTIONS)
    found.prepare()
    return found


@pytest.fixture(scope="module")
def address(engine):
    with serving(engine) as url:
        yield url.removeprefix("http://")


@pytest.fixture
def ask(address):
    """Sends a request and returns (status, body); a JSON body parsed."""

    def send(method: str, path: str, body=None, **headers):
        connection = http.client.HTTPConnection(address, timeout=30)
        if isinstance(body, dict | list):
            body, headers = json.dumps(body), {"content_type": "application/json", **headers}
        connection.request(method, path, body, {n.replace("_", "-"): v for n, v in headers.items()})
        response = connection.getresponse()
        content = response.read()
        connection.close()
        kind = response.headers.get("content-type", "")
        return response.status, json.loads(content) if kind.startswith("application/json") else content

    yield send
    assert send("GET", "/health") == (200, {"status": "ok"})  # whatever was sent, it lives


def b64(content: bytes) -> dict:
    return {"b64": base64.b64encode(content).decode()}


PREDICT = "/v1/models/deeplab:predict"
PICTURE = golden_image("picture", 40, 52)
OTHER = golden_image("other", 33, 60)


# ---- TensorFlow Serving's interface


def test_pixels_by_rows_and_columns(ask, model):
    images = np.stack([PICTURE, golden_image("second", 40, 52)])
    expected = predict(model, images, runtime="tf").tolist()
    assert ask("POST", PREDICT, {"instances": images.tolist()}) == (200, {"predictions": expected})
    rows = [{"ImageTensor": image.tolist()} for image in images]
    asked = {"signature_name": "serving_default", "instances": rows}
    assert ask("POST", "/v1/models/deeplab/versions/1:predict", asked) == (200, {"predictions": expected})
    assert ask("POST", PREDICT, {"inputs": images.tolist()}) == (200, {"outputs": expected})
    assert ask("POST", PREDICT, {"inputs": {"ImageTensor": images.tolist()}}) == (200, {"outputs": expected})


def test_encoded_pictures_of_several_sizes(ask, model):
    found = [predict(model, image[None], runtime="tf")[0] for image in (PICTURE, OTHER)]
    padded = np.full((2, 40, 60), 255)
    for own, label in zip(padded, found, strict=True):
        own[: label.shape[0], : label.shape[1]] = label
    columns = {"SemanticPredictions": padded.tolist(), "sizes": [[40, 52], [33, 60]]}
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    contents = [b64(encoded(image)) for image in (PICTURE, OTHER)]
    assert ask("POST", PREDICT, {"instances": contents}) == (200, {"predictions": rows})
    named = {"signature_name": "image_bytes", "instances": [{"image_bytes": content} for content in contents]}
    assert ask("POST", PREDICT, named) == (200, {"predictions": rows})
    assert ask("POST", PREDICT, {"inputs": contents}) == (200, {"outputs": columns})
    assert ask("POST", PREDICT, {"inputs": {"image_bytes": contents}}) == (200, {"outputs": columns})
    status, one = ask("POST", PREDICT, {"inputs": contents[0]})
    assert status == 200 and one["outputs"]["SemanticPredictions"] == [found[0].tolist()]


def test_what_is_odd_about_a_picture_is_told_beside_the_answer(address, ask, caplog):
    deep = encoded(np.random.default_rng(3).integers(100, 800, (20, 30), np.uint16))
    eight = encoded(np.zeros((20, 30), np.uint8))

    def asked(*contents: bytes) -> tuple[dict, object]:
        connection = http.client.HTTPConnection(address, timeout=30)
        body = json.dumps({"instances": [b64(content) for content in contents]})
        connection.request("POST", PREDICT, body, {"content-type": "application/json"})
        response = connection.getresponse()
        with contextlib.closing(connection):
            return json.loads(response.read()), json.loads(response.headers.get(protocol.NOTES, "null"))

    answer, notes = asked(eight, deep)
    assert set(answer) == {"predictions"} and len(answer["predictions"]) == 2, "TensorFlow Serving's body"
    assert isinstance(notes, list) and len(notes) == 1
    assert notes[0].startswith("image 1: more than 8 bits a sample") and "65535 was taken for white" in notes[0]
    assert caplog.messages == [f"deeplab: {notes[0]}"]
    assert asked(eight)[1] is None
    many = asked(*[deep] * 12)[1]
    assert isinstance(many, list) and len(many) == 9 and many[-1] == "and 4 notes more"


def test_what_curl_sends_by_default_is_taken(ask):
    body = json.dumps({"instances": [b64(encoded(OTHER))]})
    assert ask("POST", PREDICT, body, content_type="application/x-www-form-urlencoded")[0] == 200
    assert ask("POST", PREDICT, body)[0] == 200


def test_status_and_metadata(ask):
    for path in ("/v1/models/deeplab", "/v1/models/deeplab/versions/1"):
        status, found = ask("GET", path)
        (version,) = found["model_version_status"]
        assert status == 200 and (version["version"], version["state"]) == ("1", "AVAILABLE")
    _, found = ask("GET", "/v1/models/deeplab/metadata")
    assert found["model_spec"] == {"name": "deeplab", "signature_name": "", "version": "1"}
    signatures = found["metadata"]["signature_def"]["signature_def"]
    assert signatures["serving_default"]["inputs"]["ImageTensor"]["dtype"] == "DT_UINT8"
    assert set(signatures["image_bytes"]["outputs"]) == {"SemanticPredictions", "sizes"}


@pytest.mark.heavy
def test_metadata_is_that_of_the_saved_model(model, ask, tmp_path):
    """What TensorFlow Serving would tell of the same network exported."""
    options = ExportConfig(format="saved_model").for_path("exported")
    segmentation = Segmentation(TINY, read_weights(model), options, FORMATS["saved_model"].target)
    graph = build_graph(segmentation, (None, None, None, 3), tf.uint8)
    FORMATS["saved_model"].write(graph, options, tmp_path / "exported", ())
    content = (tmp_path / "exported/saved_model.pb").read_bytes()
    signatures = saved_model_pb2.SavedModel.FromString(content).meta_graphs[0].signature_def

    def without_names(signature):
        for tensor in signature.outputs.values():  # which TensorFlow gives, each version its own
            tensor.name = ""
        return signature

    _, answer = ask("GET", "/v1/models/deeplab/metadata")
    found = answer["metadata"]["signature_def"]["signature_def"]
    assert set(found) == {"serving_default", "image_bytes"}
    for name, values in found.items():
        told = json_format.ParseDict(values, meta_graph_pb2.SignatureDef())
        assert without_names(told) == without_names(signatures[name])


# ---- the page's address


def test_a_photograph_is_segmented(ask, model):
    status, found = ask("POST", "/segment", encoded(PICTURE), content_type="image/png")
    assert status == 200 and (found["height"], found["width"]) == (40, 52)
    labels = np.repeat(found["runs"][::2], found["runs"][1::2]).reshape(40, 52)
    np.testing.assert_array_equal(labels, segment(predictor_of(model), PICTURE, PredictConfig(longest_side=65)))
    raw = PIL.Image.open(io.BytesIO(base64.b64decode(found["raw_png"])))
    np.testing.assert_array_equal(np.asarray(raw), labels)
    shares = {entry["index"]: entry["share"] for entry in found["classes"]}
    assert shares == {index: pytest.approx((labels == index).mean()) for index in np.unique(labels)}
    assert all(NAMES[entry["index"]] == entry["name"] for entry in found["classes"])
    assert found["network_ms"] > 0


def test_the_page_and_its_files(ask, address):
    _, info = ask("GET", "/info")
    assert [entry["name"] for entry in info["classes"]] == list(NAMES)
    assert info["runtime"] == "TensorFlow"
    scripts = {f"/{name}.js": b'"use strict"' for name in ("page", "clip", "saving")}
    for path, start in {"/": b"<!doctype html>", "/page.css": b":root", **scripts}.items():
        status, content = ask("GET", path)
        assert status == 200 and content.startswith(start)
        assert b"http://" not in content and b"https://" not in content  # nothing from elsewhere
    for number in range(len(info["examples"])):
        status, content = ask("GET", f"/examples/{number}")
        assert status == 200 and PIL.Image.open(io.BytesIO(content)).size > (16, 16)
    connection = http.client.HTTPConnection(address)
    connection.request("GET", "/")
    headers = connection.getresponse().headers
    policy = headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert "default-src 'self'" in policy and "media-src blob:;" in policy
    connection.close()


def offered(model, card=CARD, origin=None, **options) -> list[str]:
    return Engine(model, card, dataclasses.replace(OPTIONS, **options), origin=origin).info()["examples"]


def test_examples_of_one_s_own(model, tmp_path):
    with pytest.raises(DeepLabError, match="no images in this folder"):
        offered(model, examples=str(tmp_path))
    (tmp_path / "mine.png").write_bytes(encoded(PICTURE))
    assert offered(model, examples=str(tmp_path)) == ["mine"]


def test_examples_are_of_the_model_s_own_data(model, tmp_path):
    shapes = dataclasses.replace(CARD, dataset="shapes")
    assert len(offered(model, shapes)) == 3 and offered(model, shapes, examples="") == []
    assert offered(model) == [] == offered(model, dataclasses.replace(CARD, dataset="streets"))
    place = str(tmp_path / "run" / "model.ckpt-3")
    records = write_shapes(tmp_path / "records", "val", 20, (41, 41))
    said = {"dataset": None, "places": {"dataset_dir": records}, "evaluation": {"eval_split": "val"}}
    (tmp_path / "run").mkdir()
    assert offered(model, origin=place) == []
    (tmp_path / "run" / "run.json").write_text(json.dumps(said))
    found = offered(model, origin=place)
    assert len(found) == 6 == len(set(found)) and offered(model, origin=str(tmp_path / "run")) == found
    assert offered(model, origin=place, host="0.0.0.0") == [], "photographs of others are not for everybody"
    for wrong in ({**said, "places": {"dataset_dir": "gs://bucket/x"}}, {**said, "evaluation": {"eval_split": "x"}}):
        (tmp_path / "run" / "run.json").write_text(json.dumps(wrong))
        assert offered(model, origin=place) == []


# ---- what is refused


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def bomb(side: int, written: int) -> bytes:
    """A black PNG of side x side pixels, of whose lines so many are there: some kilobytes that decode to much."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    lines = zlib.compress(bytes((side + 1) * written), 9)
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", lines) + chunk(b"IEND", b"")


HALF = encoded(golden_image("half", 60, 60), "JPEG")
JPEG, PNG = {"content_type": "image/jpeg"}, {"content_type": "image/png"}
BAD_PICTURES = {
    "truncated JPEG": (HALF[: len(HALF) // 2], JPEG, 400, "damaged or truncated"),
    "cut in its head": (HALF[:20], JPEG, 400, "not an image"),
    "a text": (b"no picture at all", JPEG, 400, "not an image"),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", JPEG, 400, "not an image"),
    "empty": (b"", PNG, 400, "empty"),
    "bomb": (bomb(5000, 5000), PNG, 413, "25000000 pixels; expected at most 40000"),
    "larger bomb": (bomb(60_000, 10), PNG, 413, "pixels"),
    "too many pixels": (encoded(np.zeros((300, 300), np.uint8)), PNG, 413, "90000 pixels"),
    "oversized": (bytes(600_000), PNG, 413, "expected at most 0.5 MB"),
    "a form": (HALF, {"content_type": "multipart/form-data; boundary=x"}, 415, "expected image/"),
    "no type": (HALF, {}, 415, "expected image/"),
    "squeezed": (HALF, {**JPEG, "content_encoding": "gzip"}, 415, "content-encoding"),
}


@pytest.mark.parametrize("case", BAD_PICTURES)
def test_a_bad_picture(case, ask):
    body, headers, status, reason = BAD_PICTURES[case]
    found, answer = ask("POST", "/segment", body, **headers)
    assert found == status and reason in answer["error"]
    assert "\n" not in answer["error"]


PIXELS = PICTURE[:2, :2].tolist()
BAD_QUESTIONS = {
    "no JSON": (b"{", 400, "not JSON"),
    "a list": ([], 400, "JSON list; expected an object"),
    "nothing": ({}, 400, 'either "instances" or "inputs"'),
    "both": ({"instances": [PIXELS], "inputs": [PIXELS]}, 400, "either"),
    "none": ({"instances": []}, 400, "at least one image"),
    "a number": ({"instances": 3}, 400, "at least one image"),
    "flat": (
        {"instances": [[1, 2, 3]]},
        400,
        "whole numbers in 0..255 with the shape [height, width, 3]; these have the shape [3]",
    ),
    "ragged": ({"instances": [[[[1, 2, 3]], [[1, 2, 3], [4, 5, 6]]]]}, 400, "rows of several lengths"),
    "fractions": ({"instances": [[[[0.5, 1, 2]]]]}, 400, "whole numbers"),
    "texts": ({"instances": [[[["a", "b", "c"]]]]}, 400, "whole numbers"),
    "long texts": ({"instances": [[[["a" * 100_000, *"b" * 50_000]]]]}, 400, "whole numbers"),  # 20 GB as an array
    "objects": ({"instances": [[[[{}, 1, 2]]]]}, 400, "whole numbers"),
    "no number": (b'{"instances": [[[[NaN, 1, 2]]]]}', 400, "whole numbers"),
    "too large": (b'{"instances": [[[[1%s, 1, 2]]]]}' % (b"0" * 400), 400, "whole numbers"),
    "very deep": (b'{"instances": %s1%s}' % (b"[" * 100, b"]" * 100), 400, "whole numbers"),
    "beyond": ({"instances": [[[[0, 1, 256]]]]}, 400, "0 to 256"),
    "several sizes": ({"instances": [PIXELS, [PIXELS[0]]]}, 400, "several sizes"),
    "mixed": ({"instances": [PIXELS, b64(HALF)]}, 400, "one kind"),
    "other name": ({"instances": [{"image": PIXELS}]}, 400, "expected ImageTensor or image_bytes"),
    "wrong name": ({"instances": [{"ImageTensor": b64(HALF)}]}, 400, "inputs are of image_bytes"),
    "wrong signature": ({"signature_name": "image_bytes", "instances": [PIXELS]}, 400, "does not fit the inputs"),
    "unknown signature": ({"signature_name": "x", "instances": [PIXELS]}, 400, "does not fit the inputs"),
    "no base64": ({"instances": [{"b64": "%%%"}]}, 400, "not base64"),
    "no text": ({"instances": [{"b64": 7}]}, 400, "not base64"),
    "bad picture": ({"instances": [b64(HALF[:300])]}, 400, "image 0: damaged or truncated"),
    "bomb": ({"instances": [b64(HALF), b64(bomb(5000, 5000))]}, 413, "image 1: 25000000 pixels"),
    "many pixels": ({"instances": [b64(encoded(np.zeros((150, 150), np.uint8)))] * 2}, 413, "image 1: 22500 pixels"),
    "deep": (b"[" * 100_000, 400, "not JSON"),
}


@pytest.mark.parametrize("case", BAD_QUESTIONS)
def test_a_bad_question(case, ask):
    body, status, reason = BAD_QUESTIONS[case]
    found, answer = ask("POST", PREDICT, body, content_type="application/json")
    assert found == status and reason in answer["error"]


def test_other_methods_types_and_names(ask):
    assert ask("GET", "/segment")[0] == 405
    assert ask("POST", "/")[0] == 405
    status, answer = ask("POST", PREDICT, "{}", content_type="text/plain")
    assert status == 415 and "expected application/json" in answer["error"]
    status, answer = ask("POST", "/v1/models/other:predict", {"instances": [PIXELS]})
    assert status == 404 and "expected 'deeplab'" in answer["error"]
    assert ask("GET", "/v1/models/deeplab/versions/2")[0] == 404
    assert ask("GET", "/v1/models/deeplab/labels/stable")[0] == 404
    for path in (PREDICT, "/v1/models/deeplab/versions/1:predict"):
        for method in ("GET", "PUT", "DELETE"):
            assert ask(method, path) == (405, {"error": "Method Not Allowed"})
    assert ask("POST", "/v1/models/deeplab:classify", {})[0] == 404
    assert ask("POST", "/v1/models/deeplab", {})[0] == 405
    assert ask("GET", "/health", host="elsewhere.example")[0] == 400  # a name that was made to point here


@pytest.mark.parametrize(
    "path",
    [
        *("/../../../../etc/passwd", "/page.css/../../../../etc/passwd", "/%2e%2e/%2e%2e/%2e%2e/etc/passwd"),
        *("/..%2f..%2fetc%2fpasswd", "//etc/passwd", "/examples/../../etc/passwd", "/examples/-1", "/examples/99"),
        *("/examples/99999999999999999999999", "/page.js%00.css", "/v1/models/..%2f..%2fetc%2fpasswd", "/app.py"),
        "/" + "x" * 10_000,
    ],
)
def test_paths_lead_nowhere_else(path, ask):
    status, content = ask("GET", path)
    assert status == 404 and "root:" not in str(content)


def answered(address: str, start: bytes, drip: bytes = b"", seconds: float = 6.0) -> bytes:
    """What comes back until the server closes: `start` is sent at once, then `drip` byte by byte."""
    host, port = address.split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(start)
        got, end, drip = b"", time.monotonic() + seconds, iter(drip)
        with contextlib.suppress(OSError):  # the server may close while we write
            while time.monotonic() < end:
                if select.select([connection], [], [], 0.05)[0]:
                    part = connection.recv(65536)
                    if not part:
                        return got
                    got += part
                elif (byte := next(drip, None)) is not None:
                    connection.send(bytes([byte]))
    assert time.monotonic() < end, f"the server keeps the connection; it sent {got[:200]}"
    return got


POST = b"POST /segment HTTP/1.1\r\nhost: localhost\r\ncontent-type: image/png\r\n"


@pytest.mark.parametrize(
    ("start", "drip"),
    [
        (b"", b""),
        (b"GET /hea", b""),
        (b"GET / HTTP/1.1\r\nhost: localhost\r\n", b"x-slow: 1\r\n" * 50),
        (POST + b"content-length: 100000\r\n\r\n", b"x" * 500),
        (POST + b"transfer-encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 100),
    ],
    ids=["silent", "half a line", "slow head", "slow body", "slow chunks"],
)
def test_slow_clients_are_sent_away(start, drip, address, ask):
    assert answered(address, start, drip).startswith(b"HTTP/1.1 408 ")


def test_a_body_without_end_is_cut(address, ask):
    chunks = b"10000\r\n" + bytes(0x10000) + b"\r\n"
    got = answered(address, POST + b"transfer-encoding: chunked\r\n\r\n" + chunks * 12)
    assert got.startswith(b"HTTP/1.1 413 ") or not got  # the answer may be lost where bytes were still on their way


@pytest.mark.parametrize("start", [b"\x16\x03\x01\x02\x00\x01\x00", b"GET nonsense\r\n\r\n", b"x" * 70_000])
def test_what_is_not_http(start, address, ask):
    assert answered(address, start)[9:12] in (b"400", b"408", b"431", b"")


# ---- too much at a time


def test_too_many_requests(ask, engine, monkeypatch):
    monkeypatch.setattr(engine, "_active", OPTIONS.max_requests)
    status, answer = ask("POST", "/segment", encoded(PICTURE), **PNG)
    assert status == 503 and "come back later" in answer["error"]


def test_too_much_at_a_time(model):
    """Large bodies that trickle in count together, and are forgotten when their clients leave."""
    patient = Engine(model, CARD, dataclasses.replace(OPTIONS, read_timeout_secs=30.0))
    start = POST + b"content-length: 499999\r\n\r\n" + bytes(490_000)
    with serving(patient) as url, contextlib.ExitStack() as stack:
        host, port = url.removeprefix("http://").split(":")
        connections = [stack.enter_context(socket.create_connection((host, int(port)))) for _ in range(18)]
        for connection in connections:
            with contextlib.suppress(OSError):  # the last are refused meanwhile
                connection.sendall(start)
        wait_until(lambda: select.select(connections, [], [], 0)[0])
        assert 14 * 490_000 <= patient._bytes_held <= 16 * 500_000  # one that is refused takes no other with it
        ready = select.select(connections, [], [], 0)[0]
        assert {connection.recv(12) for connection in ready} == {b"HTTP/1.1 503"}
        stack.close()
        wait_until(lambda: (patient._bytes_held, patient._active) == (0, 0))


def wait_until(condition):
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_who_has_gone_is_not_waited_for(model):
    """The network does not run for clients that went away while they waited for their turn."""
    slow, sizes = Engine(model, CARD, dataclasses.replace(OPTIONS, max_batch_size=1)), []
    turn = threading.Event()

    def run(images):
        sizes.append(images.shape[1])
        turn.wait(10)
        return [(np.zeros(image.shape[:2], np.int32), 0.0) for image in images]

    slow._run = run
    with serving(slow) as url:
        host, port = url.removeprefix("http://").split(":")
        contents = [encoded(golden_image("gone", side, 60)) for side in (65, 52, 39)]
        connections = []
        for number, content in enumerate(contents):
            connections.append(socket.create_connection((host, int(port))))
            connections[-1].sendall(POST + b"content-length: %d\r\n\r\n" % len(content) + content)
            wait_until(lambda n=number: slow._active == n + 1 and sizes)
        connections[1].close()
        wait_until(lambda: slow._active == 2)
        turn.set()
        for connection in (connections[0], connections[2]):
            assert connection.recv(12) == b"HTTP/1.1 200"
            connection.close()
    assert len(sizes) == 2


@pytest.mark.heavy
@pytest.mark.parametrize("waits", [False, True], ids=["slow", "stuck"])
def test_who_reads_an_answer_slowly_gets_it(waits, model):
    """The time is for a part of the answer, not for the whole of it; who does not read at all is cut off."""
    options = dataclasses.replace(OPTIONS, max_pixels=4_000_000, read_timeout_secs=0.5)
    content = json.dumps({"instances": [b64(encoded(np.zeros((1700, 2000), np.uint8)))]}).encode()
    head = f"POST {PREDICT} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {len(content)}\r\n\r\n"
    large = Engine(model, CARD, options)
    large._run = lambda images: [(np.zeros(image.shape[:2], np.int32), 0.0) for image in images]
    with serving(large) as url, socket.socket() as connection:
        host, port = url.removeprefix("http://").split(":")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        connection.connect((host, int(port)))
        connection.sendall(head.encode() + content)
        assert select.select([connection], [], [], 30)[0]
        time.sleep(1.5 if waits else 0)
        got, part = 0, b"x"
        with contextlib.suppress(ConnectionResetError):
            while part:
                time.sleep(0 if waits else 0.01)
                part = connection.recv(1 << 16)
                got += len(part)
    assert (got < 6_500_000) == waits  # of a little more, of which the system itself holds some


def test_an_answer_that_takes_too_long(model, ask, monkeypatch):
    slow = Engine(model, CARD, dataclasses.replace(OPTIONS, timeout_secs=0.1))
    monkeypatch.setattr(slow, "_run", lambda images: time.sleep(0.5) or [(np.zeros((9, 9), np.int32), 0.0)])
    with serving(slow) as url:
        connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
        connection.request("POST", "/segment", encoded(PICTURE), {"content-type": "image/png"})
        response = connection.getresponse()
        assert response.status == 504 and "not answered within 0.1 s" in json.loads(response.read())["error"]
        connection.close()


def test_too_little_memory(ask, engine, monkeypatch):
    def hungry(*_, **__):
        raise MemoryError

    monkeypatch.setattr(engine._predictor, "labels", hungry)
    status, answer = ask("POST", "/segment", encoded(PICTURE), **PNG)
    assert status == 413 and "not enough memory" in answer["error"]


def test_many_clients_at_once(address, ask):
    """Good and bad ones together: who keeps to the limits is answered, and rightly."""
    pictures = [golden_image(f"load {number}", 30 + number, 40) for number in range(4)]
    bodies = [json.dumps({"instances": [b64(encoded(picture))]}) for picture in pictures]
    expected = [json.loads(one(address, body)[1]) for body in bodies]

    def client(number: int) -> bool:
        if number % 5 == 4:
            return one(address, HALF[:200])[0] == 400
        results = [one(address, bodies[(number + turn) % 4]) for turn in range(3)]
        return all(s == 200 and json.loads(b) == expected[(number + t) % 4] for t, (s, b) in enumerate(results))

    with concurrent.futures.ThreadPoolExecutor(40) as pool:
        assert all(pool.map(client, range(40)))


def one(address: str, body) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(address, timeout=60)
    connection.request("POST", PREDICT, body, {"content-type": "application/json"})
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, content


# ---- the command


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ([], "--checkpoint is missing"),
        (["--checkpoint=nowhere/model"], "nowhere/model"),
        (["--checkpoint=x", "--port=70000"], "port=70000: expected 0 to 65535"),
        (["--checkpoint=x", "--model_name=a/b"], "model_name='a/b': expected letters"),
        (["--checkpoint=x", "--runtime=torch"], "unknown runtime 'torch'"),
        (["--checkpoint=x", "--max_pixels=0"], "max_pixels=0: expected a number of at least 1"),
    ],
)
def test_mistakes_are_told(flags, reason, capsys):
    assert finished(serve_tool, *flags) == 1
    message = capsys.readouterr().err
    assert reason in message and message.count("\n") == 1


def test_without_the_packages(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert finished(serve_tool, "--checkpoint=x") == 1
    assert "serve needs uvicorn: pip install 'deeplab_tf[serve]'" in capsys.readouterr().err


def test_a_port_that_is_taken(model, engine, address):
    port = int(address.rpartition(":")[2])
    taken = Engine(model, CARD, dataclasses.replace(OPTIONS, port=port))
    with pytest.raises(DeepLabError, match=f"--port={port}: cannot listen there"), serving(taken):
        pass
