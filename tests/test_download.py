"""Downloads against a server in a thread: ranges, cuts, changes, refusals, sums, and what is put there by hand."""

import gzip
import hashlib
import http.server
import os
import pathlib
import socket
import subprocess
import sys
import threading
import time

import pytest

from deeplab_tf.errors import DeepLabError
from deeplab_tf.zoo import download, sums, transfer
from deeplab_tf.zoo.released import CHECKPOINTS

ROOT = pathlib.Path(__file__).parent.parent
CONTENT = gzip.compress(bytes(range(256)) * 2000, compresslevel=0, mtime=0)
OTHER = gzip.compress(bytes(400_000), compresslevel=0, mtime=0)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves `content`; `cuts` are numbers of body bytes after which one connection each is dropped."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.etag, self.delay = CONTENT, '"v1"', 0.0
        self.ranges, self.if_range, self.lengths = True, True, True
        self.cuts, self.statuses, self.seen, self.headers = [], [], [], {}
        self.redirects = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/model.tar.gz"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *args):
        pass

    def do_GET(self):  # noqa: N802 (the name is http.server's)
        server, asked = self.server, self.headers.get("Range")
        server.seen.append(asked)
        time.sleep(server.delay)
        if server.statuses:
            self.send_response(server.statuses.pop(0))
            for header in server.headers.items() if server.redirects else ():
                self.send_header(*header)
            self.end_headers()
            return
        unchanged = not server.if_range or self.headers.get("If-Range", server.etag) == server.etag
        start = int(asked[6:-1]) if asked and server.ranges and unchanged else 0
        self.send_response(206 if start else 200)
        if server.etag:
            self.send_header("ETag", server.etag)
        if start:
            size = len(server.content)
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        body = server.content[start:]
        if server.lengths:
            self.send_header("Content-Length", str(len(body)))
        for header in server.headers.items():
            self.send_header(*header)
        self.end_headers()
        self.wfile.write(body[: server.cuts.pop(0)] if server.cuts else body)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "RETRY_DELAYS", (0.0, 0.0, 0.0))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for forced in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(forced, raising=False)
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield running
        running.shutdown()


@pytest.fixture
def path(tmp_path) -> pathlib.Path:
    return tmp_path / "cache" / "model.tar.gz"


def one_line(error: pytest.ExceptionInfo) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


def files_of(folder: pathlib.Path) -> set[str]:
    return {p.name for p in folder.iterdir() if p.suffix != ".lock"} if folder.is_dir() else set()


def test_a_download_is_whole_recorded_and_not_repeated(server, path, capsys):
    assert download.fetch(server.url, path, sha256=SHA256) == path
    assert path.read_bytes() == CONTENT
    assert path.with_name("model.tar.gz.sha256").read_text() == f"{SHA256}  model.tar.gz\n"
    assert files_of(path.parent) == {"model.tar.gz", "model.tar.gz.sha256"}
    download.fetch(server.url, path)
    assert server.seen == [None]
    assert capsys.readouterr().err == f"downloading model.tar.gz, {len(CONTENT) / 1e6:.1f} MB\n"


def test_a_cut_connection_is_continued_in_the_same_call(server, path):
    server.cuts = [100_000, 200_000]
    download.fetch(server.url, path, sha256=SHA256)
    assert path.read_bytes() == CONTENT
    assert server.seen == [None, "bytes=100000-", "bytes=300000-"]


def test_a_cut_download_is_continued_by_the_next_call(server, path, monkeypatch):
    monkeypatch.setattr(download, "RETRY_DELAYS", ())
    server.cuts = [100_000]
    with pytest.raises(DeepLabError, match="continue where it stopped"):
        download.fetch(server.url, path)
    assert not path.exists()
    download.fetch(server.url, path)
    assert (path.read_bytes(), server.seen) == (CONTENT, [None, "bytes=100000-"])
    assert files_of(path.parent) == {"model.tar.gz", "model.tar.gz.sha256"}


def test_a_complete_part_is_taken_without_a_request(server, path, monkeypatch):
    def dies(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(sums, "require_kind", dies)
        download.fetch(server.url, path)
    download.fetch(server.url, path, sha256=SHA256)
    assert (path.read_bytes(), server.seen) == (CONTENT, [None])


@pytest.mark.parametrize("etag", ['"v1"', 'W/"v1"', None])
def test_a_server_without_ranges_or_validators_starts_again(server, path, etag):
    server.ranges, server.etag, server.cuts = etag is None, etag, [100_000]
    download.fetch(server.url, path, sha256=SHA256)
    assert path.read_bytes() == CONTENT
    assert server.seen == [None, "bytes=100000-" if etag == '"v1"' else None]


def test_a_file_that_changed_is_not_spliced(server, path, monkeypatch):
    monkeypatch.setattr(download, "RETRY_DELAYS", ())
    server.cuts = [100_000]
    with pytest.raises(DeepLabError):
        download.fetch(server.url, path)
    server.content, server.etag = OTHER, '"v2"'
    download.fetch(server.url, path)
    assert path.read_bytes() == server.content


@pytest.mark.parametrize("etag", ['"v2"', None])
def test_a_server_that_ignores_if_range_is_caught(server, path, monkeypatch, etag):
    """It continues whatever it has now: the ETag tells, or where there is none the total length."""
    monkeypatch.setattr(download, "RETRY_DELAYS", ())
    server.cuts = [100_000]
    with pytest.raises(DeepLabError):
        download.fetch(server.url, path)
    server.content, server.etag, server.if_range = OTHER, etag, False
    with pytest.raises(DeepLabError, match="the file on the server changed"):
        download.fetch(server.url, path)
    download.fetch(server.url, path)
    assert path.read_bytes() == OTHER


def test_416_starts_again(server, path, monkeypatch):
    server.cuts = [100_000]
    with monkeypatch.context() as patch, pytest.raises(DeepLabError):
        patch.setattr(download, "RETRY_DELAYS", ())
        download.fetch(server.url, path)
    server.statuses = [416]
    download.fetch(server.url, path, sha256=SHA256)
    assert (path.read_bytes(), server.seen) == (CONTENT, [None, "bytes=100000-", None])


def test_transient_refusals_are_retried(server, path):
    server.statuses = [503, 429]
    download.fetch(server.url, path)
    assert len(server.seen) == 3


def test_a_missing_file_is_one_request_and_one_line(server, path):
    server.statuses = [404, 404]
    with pytest.raises(DeepLabError) as error:
        download.fetch(server.url, path)
    assert len(server.seen) == 1
    message = one_line(error)
    assert all(text in message for text in (server.url, "HTTP 404", str(path)))


def test_an_announced_encoding_is_not_decoded(server, path):
    server.headers = {"Content-Encoding": "x-gzip"}
    download.fetch(server.url, path, sha256=SHA256)
    assert path.read_bytes() == CONTENT


def test_a_stream_of_unknown_length_is_taken(server, path):
    server.lengths = False
    download.fetch(server.url, path, sha256=SHA256)
    assert path.read_bytes() == CONTENT


def test_a_wrong_sum_names_both_and_keeps_nothing(server, path):
    with pytest.raises(DeepLabError) as error:
        download.fetch(server.url, path, sha256="0" * 64)
    message = one_line(error)
    assert SHA256 in message
    assert "0" * 64 in message
    assert files_of(path.parent) == set()


def test_a_login_page_is_not_an_archive(server, path):
    server.content = b"<html>please log in</html>"
    with pytest.raises(DeepLabError, match="begins with b'<html>") as error:
        download.fetch(server.url, path)
    one_line(error)
    assert files_of(path.parent) == set()


def test_no_network_is_one_line_with_url_and_place(path, monkeypatch):
    monkeypatch.setattr(download, "RETRY_DELAYS", (0.0,))
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/model.tar.gz"
        with pytest.raises(DeepLabError) as error:
            download.fetch(url, path)
    message = one_line(error)
    assert all(text in message for text in (url, str(path), "no connection", "by hand"))


def test_a_file_put_by_hand_is_accepted_and_remembered(server, path):
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    download.fetch(server.url, path)
    assert (sums.recorded(path), server.seen) == (SHA256, [])
    path.write_bytes(CONTENT[:-1] + b"!")
    with pytest.raises(DeepLabError) as error:
        download.fetch(server.url, path)
    message = one_line(error)
    assert all(text in message for text in (str(path), SHA256, hashlib.sha256(path.read_bytes()).hexdigest()))
    assert path.exists()


def test_a_file_put_by_hand_must_have_the_published_sum(server, path):
    path.parent.mkdir()
    path.write_bytes(OTHER)
    with pytest.raises(DeepLabError, match="the published sum"):
        download.fetch(server.url, path, sha256=SHA256)


def test_a_damaged_record_is_named(path):
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    path.with_name("model.tar.gz.sha256").write_text("hello")
    with pytest.raises(DeepLabError, match="sha256sum"):
        sums.verify(path)


def test_a_cache_that_cannot_be_made_is_one_line(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DeepLabError, match="DEEPLAB_TF_CACHE") as error:
        download.fetch(server.url, tmp_path / "file" / "model.tar.gz")
    one_line(error)


def test_the_cache_folder_is_an_option_of_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("DEEPLAB_TF_CACHE", str(tmp_path))
    assert download.cache_folder() == tmp_path
    monkeypatch.delenv("DEEPLAB_TF_CACHE")
    assert download.cache_folder() == pathlib.Path.home() / ".cache" / "deeplab_tf"


def test_processes_that_want_one_file_download_it_once(server, path):
    pytest.importorskip("fcntl", reason="Windows has no such locks")
    server.delay = 0.5
    code = f"from deeplab_tf.zoo import download; download.fetch({server.url!r}, {str(path)!r})"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    workers = [subprocess.Popen([sys.executable, "-c", code], env=environment) for _ in range(2)]
    assert [worker.wait(60) for worker in workers] == [0, 0]
    assert (path.read_bytes(), server.seen) == (CONTENT, [None])


def test_a_terminal_gets_a_bar(server, path, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    download.fetch(server.url, path, sha256=SHA256)
    shown = capsys.readouterr().err
    assert "model.tar.gz" in shown
    assert "downloading" not in shown


# ---- row 10: servers that mean ill


@pytest.mark.parametrize(
    "location",
    [
        *("http://[", "http://[::1", "http://a:b:c/", "http://:80", "http://127.0.0.1:99999999/x", "//", "http://"),
        *(
            "ftp://127.0.0.1/model.tar.gz",
            "file:///etc/passwd",
            "gopher://x",
            "javascript:1",
            "data:,x",
            "http://u:p@x/",
        ),
        *("http://x/\x7f", "http://x y/", "http://x/" + "y" * 300 + "\x1b[31m"),
    ],
)
def test_row_10_a_redirect_to_what_is_no_address_is_one_line(server, path, location):
    server.statuses, server.headers = [302], {"Location": location}
    server.redirects = True
    with pytest.raises(DeepLabError, match="the server redirects to ") as error:
        download.fetch(server.url, path)
    assert one_line(error).isprintable() and len(server.seen) == 1
    assert files_of(path.parent) == set()


def test_a_redirect_is_followed_as_often_as_is_usual(server, path):
    server.statuses, server.headers, server.redirects = [301, 302, 303, 307, 308], {"Location": "/other.tar.gz"}, True
    download.fetch(server.url, path, sha256=SHA256)
    assert (path.read_bytes(), len(server.seen)) == (CONTENT, 6)
    path.unlink()
    server.statuses = [302] * 9
    with pytest.raises(DeepLabError, match="more than 5 redirects"):
        download.fetch(server.url, path)


def test_https_is_not_left_for_http():
    with pytest.raises(transfer.TransferError, match="redirects to 'http://example.org/'; expected https"):
        transfer._next("https://example.org/x", "http://example.org/")
    assert transfer._next("http://example.org/x", "https://example.org/y") == "https://example.org/y"


@pytest.mark.parametrize("lengths", [True, False], ids=["announced", "not announced"])
def test_row_10_a_body_without_end_is_cut_and_not_kept(server, path, lengths):
    server.lengths = lengths
    with pytest.raises(DeepLabError, match="bytes; expected at most") as error:
        download.fetch(server.url, path, most_bytes=300_000)
    assert "by hand" in one_line(error) and len(server.seen) == 1
    assert files_of(path.parent) == set()


def test_a_download_that_does_not_end_in_time_is_kept_for_the_next(server, path, monkeypatch):
    monkeypatch.setattr(download, "MOST_SECONDS", -1.0)
    with pytest.raises(DeepLabError, match="it takes more than -1 s.*run again to continue"):
        download.fetch(server.url, path)
    monkeypatch.setattr(download, "MOST_SECONDS", 60.0)
    download.fetch(server.url, path, sha256=SHA256)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize(
    "state",
    [
        "[]",
        "[" * 100_000,
        '{"url": "URL", "validator": "x\\ny", "length": 409600000}',
        '{"url": "URL", "validator": {"a": 1}, "length": 409600000}',
        '{"url": "URL", "validator": "\\"v1\\"", "length": "409600000"}',
        '{"url": "URL", "validator": "\\"v1\\"", "length": true}',
        '{"url": "URL", "validator": "\\"v1\\"", "length": 1e400}',
        "\0",
    ],
)
def test_the_state_of_a_part_is_not_believed(server, path, state):
    path.parent.mkdir()
    path.with_name("model.tar.gz.part").write_bytes(CONTENT[:1000])
    path.with_name("model.tar.gz.part.json").write_text(state.replace("URL", server.url))
    download.fetch(server.url, path, sha256=SHA256)
    assert (path.read_bytes(), server.seen) == (CONTENT, [None])


def test_what_was_forgotten_in_the_cache_is_swept(server, path, capsys):
    path.parent.mkdir()
    old, new = path.with_name(".partial-old"), path.with_name(".partial-new")
    for place in (old, new):
        place.mkdir()
        (place / "x").write_text("x")
    os.utime(old, (0, 0))
    download.fetch(server.url, path)
    assert files_of(path.parent) == {"model.tar.gz", "model.tar.gz.sha256", ".partial-new"}
    assert f"no sum is published for it; sha256 {SHA256} is kept" in capsys.readouterr().err


@pytest.mark.parametrize("url", ["", "ftp://x/y", "x", "http://", "http://[", "file:///etc/passwd"])
def test_an_address_that_is_none(url, path):
    with pytest.raises(DeepLabError, match="expected an address that begins with https") as error:
        download.fetch(url, path)
    one_line(error)


def test_sizes_that_are_published_are_limits():
    for entry in CHECKPOINTS.values():
        assert entry.most_bytes is None or entry.most_bytes > float(entry.size.removesuffix("MB")) * 2**20
    # The one archive whose bytes a public source states: 23882985.
    assert 23_882_985 < (CHECKPOINTS["mobilenetv2_coco_voc_trainaug"].most_bytes or 0) < 30_000_000
