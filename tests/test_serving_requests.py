"""Requests of every shape to the server's own routes: each is answered, none with a status of 500 or more."""

import base64
import json
import logging
import socket
import string

import pytest
from golden import golden_image
from networks import TINY, lively
from record_files import encoded

from deeplab_tf.config import ServeConfig
from deeplab_tf.weights.model_directory import ModelCard

pytest.importorskip("starlette", reason="the extra `serve` is not installed")
pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")
hypothesis = pytest.importorskip("hypothesis", reason="the extra `test` is not installed")

from hypothesis import strategies as st  # noqa: E402

from deeplab_tf.serving.engine import Engine  # noqa: E402
from deeplab_tf.serving.server import serving  # noqa: E402

PREDICT = "/v1/models/deeplab:predict"
PICTURE = encoded(golden_image("picture", 9, 12))
OPTIONS = ServeConfig(port=0, runtime="tf", longest_side=33, max_body_mb=0.2, max_pixels=20_000)

# ---- bodies

ROUTES = st.sampled_from(
    [PREDICT, PREDICT, PREDICT, "/segment", "/segment", "/v1/models/deeplab/versions/1:predict", "/v1/models/deeplab"]
    + ["/v1/models/deeplab/metadata", "/", "/info", "/examples/0", "/metrics", "/healthz", "/readyz", "/page.js"]
)
PATHS = ROUTES | st.builds(
    "{}{}".format, ROUTES, st.text(string.ascii_letters + string.digits + "/:%?#.~+&=\x7fé", max_size=9)
)
WORDS = st.sampled_from(
    ["instances", "inputs", "signature_name", "ImageTensor", "image_bytes", "b64", "serving_default"]
)
PICTURES = st.builds(
    lambda content: {"b64": base64.b64encode(content).decode()},
    st.just(PICTURE) | st.binary(max_size=40) | st.binary(max_size=40).map(lambda more: PICTURE[:60] + more),
)
ROWS = st.lists(
    st.lists(st.lists(st.integers(0, 255), min_size=3, max_size=3), min_size=2, max_size=2), min_size=1, max_size=3
)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | WORDS | PICTURES | ROWS
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.text(max_size=5), inner, max_size=3)
)
REQUESTS = st.fixed_dictionaries({"instances": VALUES | st.lists(LEAVES, max_size=2)}) | st.dictionaries(WORDS, VALUES)
BODIES = (REQUESTS | VALUES).map(lambda values: json.dumps(values).encode()) | st.binary(max_size=80) | st.just(PICTURE)

# ---- heads

METHODS = st.sampled_from(["POST", "POST", "POST", "GET", "HEAD", "PUT", "OPTIONS", "DELETE", "TRACE", "get", "FOO"])
TYPES = st.sampled_from(
    ["application/json", "image/png", "application/octet-stream", "text/plain", "", "x;;=\xff", "*/*"]
)
NAMES = st.sampled_from(
    ["content-type", "content-encoding", "origin", "sec-fetch-site", "authorization", "x-request-id", "host", "accept"]
    + ["x-forwarded-for", "range", "access-control-request-method", "cookie", "upgrade", "http2-settings", "x"]
)
TEXTS = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=20) | TYPES
HEADERS = st.lists(st.tuples(NAMES, TEXTS), max_size=4)


@pytest.fixture(scope="module")
def address():
    with serving(Engine(lively(TINY), ModelCard(config=TINY), OPTIONS)) as url:
        yield url.removeprefix("http://")


def answer(address: str, content: bytes) -> tuple[int, str, bytes]:
    """Returns status, head in lower case, and body of the answer to the bytes of a request."""
    with socket.create_connection(address.split(":"), timeout=60) as connection:
        connection.sendall(content)
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
    head, _, body = b"".join(parts).partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), head.decode("latin-1").lower(), body


@pytest.mark.heavy
def test_every_request_is_answered_in_the_stated_form_below_500(address, caplog):
    statuses = set()

    @hypothesis.settings(max_examples=300, deadline=None, database=None, derandomize=True)
    @hypothesis.given(METHODS, PATHS, TYPES, HEADERS, BODIES)
    # What is drawn depends on the modules that are loaded, so one request is given whose status few of them have.
    @hypothesis.example("POST", PREDICT, "application/json", [("content-encoding", "gzip")], b"{}")
    def ask(method, path, kind, headers, body):
        lines = [
            f"{method} {path} HTTP/1.1",
            "host: localhost",
            f"content-type: {kind}",
            f"content-length: {len(body)}",
        ]
        lines += [f"{name}: {value}" for name, value in headers] + ["connection: close", "", ""]
        status, head, found = answer(address, "\r\n".join(lines).encode("latin-1") + body)
        statuses.add(status)
        assert status < 500, (status, found[:300])
        assert "x-content-type-options: nosniff" in head and "x-request-id: " in head
        if status >= 400 and method != "HEAD":
            assert "content-type: application/json" in head
            assert isinstance(json.loads(found)["error"], str)

    ask()
    assert {200, 400, 403, 404, 405, 415} <= statuses
    assert [
        record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR or record.exc_info
    ] == []
    assert answer(address, b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")[0] == 200
