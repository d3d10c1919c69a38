"""Clients of the server that mean ill, and those beside them: much work in small requests, foreign pages, tokens."""

import asyncio
import base64
import concurrent.futures
import contextlib
import dataclasses
import http.client
import io
import json
import logging
import socket
import ssl
import struct
import subprocess
import threading
import time
import zlib

import numpy as np
import PIL.Image
import pytest
from commands import finished
from golden import golden_image
from loads import tiled_tiff
from networks import TINY, lively
from record_files import encoded

from deeplab_tf.catalog.image_facts import ImageFacts
from deeplab_tf.config import ServeConfig
from deeplab_tf.tools import serve as serve_tool
from deeplab_tf.weights.model_directory import ModelCard

pytest.importorskip("starlette", reason="the extra `serve` is not installed")
pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")
pytest.importorskip("prometheus_client", reason="the extra `serve` is not installed")

from deeplab_tf.serving import protocol  # noqa: E402
from deeplab_tf.serving.access import exposure  # noqa: E402
from deeplab_tf.serving.answers import json_numbers  # noqa: E402
from deeplab_tf.serving.clients import Client, Turns  # noqa: E402
from deeplab_tf.serving.engine import Engine  # noqa: E402
from deeplab_tf.serving.limits import Limits  # noqa: E402
from deeplab_tf.serving.pictures import decode_picture  # noqa: E402
from deeplab_tf.serving.readers import Readers  # noqa: E402
from deeplab_tf.serving.reading import Settings  # noqa: E402
from deeplab_tf.serving.refusal import Refused  # noqa: E402
from deeplab_tf.serving.server import serving  # noqa: E402

PREDICT = "/v1/models/deeplab:predict"
TOKEN = "a-token-of-more-than-sixteen"
OPTIONS = ServeConfig(
    port=0,
    runtime="tf",
    longest_side=65,
    max_body_mb=16.0,
    max_pixels=1_000_000,
    allow_origin=("https://ours.example",),
)
PICTURE = golden_image("picture", 40, 52)


@pytest.fixture(scope="module")
def model():
    return lively(TINY)


@pytest.fixture(scope="module")
def engine(model):
    return Engine(model, ModelCard(config=TINY), OPTIONS)


@pytest.fixture(scope="module")
def address(engine):
    with serving(engine) as url:
        yield url.removeprefix("http://")


def sent(address: str, method: str, path: str, body=None, headers: dict[str, str] | None = None):
    """Sends a request and returns (status, headers, body)."""
    connection = http.client.HTTPConnection(address, timeout=60)
    with contextlib.closing(connection):
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, response.headers, response.read()


def b64(content: bytes) -> dict:
    return {"b64": base64.b64encode(content).decode()}


def asked(*contents: bytes) -> bytes:
    return json.dumps({"instances": [b64(content) for content in contents]}).encode()


def drawn(size: tuple[int, int], kind: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    PIL.Image.new("L", size).save(stream, kind, **options)
    return stream.getvalue()


# ---- row 5: small requests that are much work

HOSTILE = {
    "a picture of one row": (asked(drawn((200_000, 1))), 413, "count as 33 x 200001 for the network"),
    "a picture of one column": (asked(drawn((1, 200_000))), 413, "count as 200001 x 33 for the network"),
    "5,000 pictures of one pixel": (asked(*[drawn((1, 1))] * 5_000), 413, "5000 images; expected at most 64"),
    "15 MB of empty lists": (
        b'{"instances": [%s[]]}' % (b"[]," * 5_000_000),
        413,
        "more than 8000000 numbers and lists",
    ),
    "many small images": (asked(*[drawn((130, 130))] * 60), 413, "pixels; expected at most"),
    "a TIFF of large tiles": (asked(drawn((10, 10), "TIFF")), 400, "not an image of a format that is read here"),
    "a JPEG 2000": (asked(b"\0\0\0\x0cjP  \r\n\x87\n"), 400, "expected JPEG, PNG, WebP, BMP or GIF"),
    "a HEIC": (
        asked(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"),
        400,
        "HEIC, as phones save it, which is not read here; save it as JPEG",
    ),
    "a netpbm": (asked(b"P6 1 1 255 abc"), 400, "expected JPEG, PNG, WebP, BMP or GIF"),
    "a .npy": (asked(b"\x93NUMPY\x01\x00"), 400, "expected JPEG, PNG, WebP, BMP or GIF"),
    "texts as pixels": (b'{"instances": [[[["1", 2, 3]]]]}', 400, "these hold texts"),
    "booleans as pixels": (b'{"instances": [[[[true, 2, 3]]]]}', 400, "these hold true or false"),
    "nothing as pixels": (b'{"instances": [[[[null, 2, 3]]]]}', 400, "whole numbers in 0..255"),
    "brackets in a text": (b'{"instances": "%s"}' % (b'[\\"' * 1000), 400, "expected a list"),
    "nested lists": (b'{"instances": %s}' % (b"[" * 300 + b"]" * 300), 400, "nested 301 deep; expected at most 128"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_row_5_a_small_request_that_is_much_work_is_refused_at_once(case, address):
    body, status, reason = HOSTILE[case]
    found, _, answer = sent(address, "POST", PREDICT, body, {"content-type": "application/json"})
    assert (found, reason in json.loads(answer)["error"]) == (status, True), answer[:300]
    assert sent(address, "GET", "/healthz")[0] == 200


def test_limits_count_what_the_network_gets():
    fixed = Limits(300 * 300, network_size=lambda height, width: (max(height, 257), max(width, 257)))
    fixed.require(1, 1, "x")
    with pytest.raises(Refused, match="x: 1 x 400 pixels count as 257 x 400 for the network, 102800"):
        fixed.require(1, 400, "x")
    with pytest.raises(Refused, match="x: 1 x 1 pixels count as 257 x 257 .*; expected at most 23951"):
        fixed.without(1, 1).require(1, 1, "x")
    with pytest.raises(Refused) as error:  # turned by 90 degrees
        decode_picture(drawn((1, 400)), fixed)
    assert error.value.status == 413


def short_png(height: int, written: int) -> bytes:
    """A PNG of 30 columns that announces so many rows and holds fewer."""
    head = struct.pack(">IIBBBBB", 30, height, 8, 0, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n"
    for kind, data in ((b"IHDR", head), (b"IDAT", zlib.compress(bytes(31 * written))), (b"IEND", b"")):
        content += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return content


def test_row_7_a_png_with_fewer_rows_than_it_announces_is_refused():
    assert decode_picture(short_png(20, 20), Limits(600)).pixels.shape == (20, 30, 3)
    for written in (0, 1, 19):
        with pytest.raises(Refused, match="image: damaged or truncated image"):
            decode_picture(short_png(20, written), Limits(600))
    assert decode_picture(short_png(20, 1_000_000), Limits(600)).pixels.shape == (20, 30, 3)  # more is left out


def test_row_5_tiles_larger_than_the_picture_are_refused():
    bands = ImageFacts(1, "uint8", ((0.0, 255.0),), (127.5,))
    with pytest.raises(Refused, match=r"image: too large to be a photograph .1600000000 pixels, more than 100000"):
        decode_picture(tiled_tiff(), Limits(100_000), image=bands)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF"])
def test_what_browsers_send_is_decoded(kind):
    assert decode_picture(drawn((30, 20), kind), Limits(600)).pixels.shape == (20, 30, 3)
    with pytest.raises(Refused, match="600 pixels; expected at most 599"):
        decode_picture(drawn((30, 20), kind), Limits(599))


def test_a_reader_that_does_not_come_back_is_replaced(monkeypatch):
    """One that takes all the time there is, and one that takes all the memory; the next request is read."""
    settings = Settings(TINY, None, 1_000_000, 8, 65)
    body = asked(encoded(PICTURE))

    async def session():
        readers = Readers(settings, count=1, seconds=60.0)
        assert (await readers.request(body)).images[0].shape == (40, 52, 3)
        process = readers._readers[0]._process
        assert process is not None
        process.kill()
        process.wait()
        again = await readers.request(body)  # one that has ended is started again
        monkeypatch.setattr(readers, "_seconds", 0.0)
        with pytest.raises(Refused) as error:
            await readers.request(asked(encoded(np.zeros((900, 1000), np.uint8))) * 40)
        monkeypatch.setattr(readers, "_seconds", 60.0)
        last = await readers.request(body)
        await readers.stop()
        return again.images[0], error.value, last.images[0], readers.replacements

    again, error, last, replacements = asyncio.run(session())
    np.testing.assert_array_equal(again, PICTURE)
    np.testing.assert_array_equal(last, PICTURE)
    assert error.status in (400, 413) and replacements == (error.status == 413)


def test_row_5_a_job_that_outlives_its_time_is_left_and_the_next_is_answered(model):
    stuck, free = (
        Engine(model, ModelCard(config=TINY), dataclasses.replace(OPTIONS, timeout_secs=4.0)),
        threading.Event(),
    )

    def run(images):
        if images.shape[1] == 33:
            free.wait(60)
        return [(np.ones(image.shape[:2], np.int32), 0.0) for image in images]

    stuck._run = run
    with serving(stuck) as url:
        place = url.removeprefix("http://")
        body = json.dumps({"instances": [PICTURE.tolist()]})
        while sent(place, "POST", PREDICT, body)[0] != 200:  # until the processes run
            pass
        status, _, answer = sent(place, "POST", PREDICT, asked(encoded(golden_image("x", 33, 52))))
        assert status == 504 and b"not answered within" in answer
        status, _, answer = sent(place, "POST", PREDICT, body)
        assert (status, json.loads(answer)) == (200, {"predictions": [np.ones((40, 52), int).tolist()]})
        assert b"\ndeeplab_network_replacements 1.0\n" in sent(place, "GET", "/metrics")[2]
        assert sent(place, "GET", "/readyz")[0] == 200
        free.set()


def test_a_network_that_hangs_again_and_again_is_told(model):
    stuck, free = (
        Engine(model, ModelCard(config=TINY), dataclasses.replace(OPTIONS, timeout_secs=0.5)),
        threading.Event(),
    )
    stuck._run = lambda images: free.wait(60) and []
    with serving(stuck) as url:
        place = url.removeprefix("http://")
        body = json.dumps({"instances": [PICTURE.tolist()]})
        statuses = []
        while sent(place, "GET", "/readyz")[0] == 200:
            statuses.append(sent(place, "POST", PREDICT, body)[0])
            assert len(statuses) < 20
        assert set(statuses) <= {503, 504} and 504 in statuses
        assert sent(place, "GET", "/healthz")[0] == 200
        free.set()


# ---- turns


def test_clients_take_turns_and_so_do_their_connections():
    turns: Turns[str] = Turns()
    much, other = Client("10.0.0.1", port=1), Client("10.0.0.2", port=1)
    for number in range(4):
        turns.push(much, f"much {number}")
    turns.push(dataclasses.replace(much, port=2), "second")
    turns.push(other, "other")
    turns.push(dataclasses.replace(other, token=1), "token")
    found = [turns.pop() for _ in range(len(turns))]
    assert found == ["much 0", "other", "token", "second", "much 1", "much 2", "much 3"]
    with pytest.raises(IndexError):
        turns.pop()


def test_of_what_fits_together_each_takes_its_turn():
    turns: Turns[tuple[int, str]] = Turns()
    for port in (1, 2):
        for number in range(3):
            turns.push(Client("a", port=port), (number % 2, f"{port}-{number}"))
    assert [name for _, name in turns.take(lambda item: item[0] == 0, 3)] == ["1-0", "2-0", "1-2"]
    turns.drop(lambda item: item[1].startswith("2"))
    assert (len(turns), [name for _, name in turns]) == (1, ["1-1"])


def test_one_client_leaves_requests_to_the_others(engine):
    client = Client("10.0.0.1")
    with contextlib.ExitStack() as stack:
        for _ in range(224):
            stack.enter_context(engine.admitted(client))
        with pytest.raises(Refused, match="come back later"), engine.admitted(client):
            pass
        with engine.admitted(Client("10.0.0.2")):
            pass
    assert (engine._active, len(engine._active_of)) == (0, 0)


# ---- row 9: pages of others, headers, numbers without end


@pytest.mark.parametrize("path", [PREDICT, "/segment", "/v1/models/deeplab/versions/1:predict"])
@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://elsewhere.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"origin": ""},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "https://elsewhere.example", "content-type": "application/x-www-form-urlencoded"},
    ],
    ids=str,
)
def test_row_9_a_page_of_another_origin_is_refused(path, headers, address):
    status, found, body = sent(address, "POST", path, b"{}", headers)
    assert status == 403 and b"--allow_origin" in body and "access-control-allow-origin" not in found


@pytest.mark.parametrize("own", [{}, {"sec-fetch-site": "same-origin"}, {"sec-fetch-site": "none"}, {"origin": "own"}])
def test_its_own_page_and_other_programs_are_answered(own, address):
    headers = {name: f"http://{address}" if value == "own" else value for name, value in own.items()}
    assert sent(address, "POST", PREDICT, asked(encoded(PICTURE)), headers)[0] == 200


def test_an_origin_that_is_allowed_reads_the_answer(address):
    origin = {"origin": "https://ours.example", "sec-fetch-site": "cross-site"}
    status, found, _ = sent(address, "POST", PREDICT, asked(encoded(PICTURE)), origin)
    assert (status, found["access-control-allow-origin"], found["vary"]) == (200, "https://ours.example", "origin")
    before = {**origin, "access-control-request-method": "POST"}
    status, found, _ = sent(address, "OPTIONS", PREDICT, headers=before)
    assert (status, found["access-control-allow-methods"]) == (204, "GET, POST")
    foreign = {**before, "origin": "https://elsewhere.example"}
    status, found, _ = sent(address, "OPTIONS", PREDICT, headers=foreign)
    assert status == 405 and "access-control-allow-origin" not in found


@pytest.mark.parametrize("number", ["9" * 5000, "99", "-1", "1e3", "%31%32", "", "%D9%A3", "0x1"])
def test_row_9_a_number_of_an_example_that_is_none(number, address):
    assert sent(address, "GET", f"/examples/{number}")[0] == 404


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", 200),
        (b"GET /nowhere HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", 404),
        (b"GET / HTTP/1.1\r\nhost: elsewhere.example\r\nconnection: close\r\n\r\n", 400),
        (b"DELETE /segment HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", 405),
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: localhost\r\nx: " + b"x" * 70_000, 431),
        (b"POST /segment HTTP/1.1\r\nhost: localhost\r\ncontent-length: x\r\n\r\n", 400),
        (b"POST /segment HTTP/1.1\r\nhost: localhost\r\ncontent-length: " + b"9" * 19 + b"\r\n\r\n", 415),
        (
            b"POST /segment HTTP/1.1\r\nhost: localhost\r\ncontent-type: image/png\r\ncontent-length: 99999999\r\n\r\n",
            413,
        ),
    ],
    ids=["page", "no path", "host", "method", "nonsense", "no host", "large head", "length", "long length", "large"],
)
def test_every_answer_has_our_headers_and_form(content, status, address):
    with socket.create_connection(address.split(":"), timeout=30) as connection:
        connection.sendall(content)
        head = b""
        while b"\r\n\r\n" not in head:
            part = connection.recv(65536)
            assert part, head
            head += part
    assert int(head.split(b" ")[1]) == status
    for name in (b"content-security-policy", b"x-content-type-options: nosniff", b"referrer-policy", b"x-request-id"):
        assert name in head
    assert b"frame-ancestors 'none'" in head
    if status != 200:
        assert b"content-type: application/json" in head


def test_a_request_that_fails_is_told_in_our_form_and_logged_once(engine, address, monkeypatch, caplog):
    monkeypatch.setattr(engine, "info", lambda: 1 / 0)
    status, found, body = sent(address, "GET", "/info", headers={"x-request-id": "mine-1"})
    assert (status, found["x-request-id"]) == (500, "mine-1")
    assert "its log says why" in json.loads(body)["error"] and found["x-content-type-options"] == "nosniff"
    end = time.monotonic() + 30
    while "ZeroDivisionError" not in caplog.text and time.monotonic() < end:  # it is logged after the answer
        time.sleep(0.02)
    assert caplog.text.count("ZeroDivisionError: ") == 1


def test_the_log_has_a_line_for_each_request(address, caplog):
    with caplog.at_level(logging.INFO, "deeplab_tf.serving"):
        sent(address, "GET", "/x%0d%0a%1b[31mforged")
        sent(address, "GET", "/healthz", headers={"x-request-id": "\x1b[31m"})
    lines = [message for message in caplog.messages if "GET" in message]
    assert lines[0].startswith(r"127.0.0.1 GET /x\r\n\x1b[31mforged 404 ")
    assert all("\n" not in line and "\x1b" not in line for line in lines)


def test_figures_for_prometheus(address):
    sent(address, "GET", "/healthz")
    status, found, body = sent(address, "GET", "/metrics")
    assert status == 200 and found["content-type"].startswith("text/plain")
    assert b'deeplab_requests_total{status="200",what="health"}' in body and b"deeplab_images_waiting 0.0" in body
    assert b"deeplab_request_seconds_bucket" in body


# ---- tokens and TLS


def test_without_the_token_nothing_is_answered(model, tmp_path):
    (tmp_path / "tokens").write_bytes(
        b"\xef\xbb\xbf# of whom\r\n" + TOKEN.encode() + b"\r\n\r\nanother-token-of-many-letters\n"
    )
    options = dataclasses.replace(OPTIONS, token_file=str(tmp_path / "tokens"))
    with serving(Engine(model, ModelCard(config=TINY), options)) as url:
        place = url.removeprefix("http://")
        basic = base64.b64encode(b"anybody:" + TOKEN.encode()).decode()
        for given in (f"Bearer {TOKEN}", "bearer another-token-of-many-letters", f"Basic {basic}"):
            assert sent(place, "GET", "/info", headers={"authorization": given})[0] == 200
        for given in (
            "",
            "Bearer",
            f"Bearer {TOKEN}x",
            f"Bearer {TOKEN[:-1]}",
            f"Digest {TOKEN}",
            "Basic ?",
            "Basic eA==",
        ):
            status, found, _ = sent(place, "GET", "/info", headers={"authorization": given})
            assert status == 401 and "Basic" in found["www-authenticate"]
        for path, status in {"/": 401, "/metrics": 401, "/nowhere": 401, "/healthz": 200, "/readyz": 200}.items():
            assert sent(place, "GET", path)[0] == status


BAD_TOKENS = {"empty": b"\n", "short": b"abc", "not ASCII": "ü".encode() * 20, "of two words": b"one token and another"}


@pytest.mark.parametrize("case", BAD_TOKENS)
def test_a_file_of_tokens_that_is_none(case, tmp_path, capsys):
    (tmp_path / "tokens").write_bytes(BAD_TOKENS[case])
    assert finished(serve_tool, "--checkpoint=x", f"--token_file={tmp_path}/tokens") == 1
    message = capsys.readouterr().err
    assert f"--token_file={tmp_path}/tokens: " in message and message.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--token_file={0}/none"], "cannot be read (No such file or directory); expected a token a line"),
        (["--token_file={0}"], "cannot be read (Is a directory)"),
        (["--tls_key={0}/x"], "needs tls_certificate too"),
        (["--tls_certificate={0}/none"], "not a certificate with its key, in PEM (No such file or directory)"),
        (["--tls_certificate={0}/text"], "not a certificate with its key, in PEM"),
        (["--tls_certificate=ram://x"], "not a certificate with its key, in PEM"),
        (["--allow_origin=example.org"], "expected * or origins such as https://example.org"),
        (["--max_images=0"], "expected a number of at least 1"),
    ],
    ids=str,
)
def test_mistakes_in_the_options_are_told_before_the_work(flags, reason, tmp_path, capsys):
    (tmp_path / "text").write_text("no certificate")
    assert finished(serve_tool, "--checkpoint=x", *(flag.format(tmp_path) for flag in flags)) == 1
    message = capsys.readouterr().err
    assert reason in message and message.count("\n") == 1


def certificate(folder, *options: str) -> tuple[str, str]:
    names = f"{folder}/certificate.pem", f"{folder}/key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run([*command, "-out", names[0], "-keyout", names[1], *options], check=True, capture_output=True)
    return names


def test_tls(model, tmp_path):
    shown, key = certificate(tmp_path, "-nodes", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")
    options = dataclasses.replace(OPTIONS, tls_certificate=shown, tls_key=key)
    with serving(Engine(model, ModelCard(config=TINY), options)) as url:
        assert url.startswith("https://")
        trusted = ssl.create_default_context(cafile=shown)
        connection = http.client.HTTPSConnection(url.removeprefix("https://"), timeout=30, context=trusted)
        with contextlib.closing(connection):
            connection.request("GET", "/healthz")
            assert connection.getresponse().status == 200


def test_a_key_with_a_password_does_not_ask_for_it(tmp_path, capsys):
    shown, key = certificate(tmp_path, "-passout", "pass:secret")
    assert finished(serve_tool, "--checkpoint=x", f"--tls_certificate={shown}", f"--tls_key={key}") == 1
    assert "the key is encrypted" in capsys.readouterr().err


def test_a_server_that_others_reach_is_warned_of():
    assert exposure(OPTIONS) is None
    open_to_all = ServeConfig(host="0.0.0.0")
    assert (found := exposure(open_to_all)) and "--token_file" in found and "--tls_certificate" in found
    assert (found := exposure(dataclasses.replace(open_to_all, token_file="x"))) and "--token_file" not in found
    assert exposure(dataclasses.replace(open_to_all, token_file="x", tls_certificate="x")) is None


# ---- the end


def test_row_9_at_the_end_no_request_is_lost(model):
    """Some are answered, some wait, some are only connected, some send one more over a connection that they keep."""
    slow = Engine(model, ModelCard(config=TINY), OPTIONS)
    run, begun = slow._run, threading.Event()

    def slowly(images):
        begun.set()
        time.sleep(0.3)
        return run(images)

    slow._run = slowly
    body = json.dumps({"instances": [PICTURE.tolist()]})
    run(np.zeros((1, 40, 52, 3), np.uint8))
    with concurrent.futures.ThreadPoolExecutor(40) as pool:
        with serving(slow) as url:
            place = url.removeprefix("http://")
            kept = http.client.HTTPConnection(place, timeout=60)
            kept.request("GET", "/healthz")
            assert kept.getresponse().read()
            asked_for = [pool.submit(sent, place, "POST", PREDICT, body) for _ in range(40)]
            begun.wait(30)
            while slow._active < 30:
                time.sleep(0.01)
            late = pool.submit(
                lambda: time.sleep(0.2) or (kept.request("GET", "/readyz"), kept.getresponse().status)[1]
            )
        statuses = [answer.result()[0] for answer in asked_for]
        assert statuses == [200] * 40
        assert late.result() in (200, 503)
        kept.close()
        with pytest.raises(OSError):
            sent(place, "GET", "/healthz")


# ---- answers


@pytest.mark.parametrize("largest", [1, 9, 10, 255, 4096, 10**9])
@pytest.mark.parametrize("shape", [(1,), (7,), (3, 5), (1, 1), (0,), (2, 0)])
def test_numbers_are_json(largest, shape):
    numbers = np.random.default_rng(0).integers(0, largest, shape)
    numbers[..., :1] = largest - 1
    assert json.loads(json_numbers(numbers)) == numbers.tolist()


def test_a_large_answer_is_that_of_json():
    request = protocol.PredictRequest((PICTURE,), encoded=True, rows=False)
    labels = np.arange(40 * 52).reshape(40, 52) % 150
    answer = json.loads(protocol.encode_answer(request, [labels]))
    assert answer == {"outputs": {"SemanticPredictions": [labels.tolist()], "sizes": [[40, 52]]}}
