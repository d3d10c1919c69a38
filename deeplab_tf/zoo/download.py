"""The cache of checkpoint archives, and their downloads, which are resumed and verified."""

import contextlib
import hashlib
import json
import os
import pathlib
import re
import sys
import time
from collections.abc import Callable, Iterator
from typing import TypedDict

import requests
import rich.console
import rich.progress
import urllib3

from deeplab_tf import files
from deeplab_tf.documents.json_files import JSONError, read_json
from deeplab_tf.errors import DeepLabError
from deeplab_tf.filesystems import leftovers
from deeplab_tf.zoo import sums, transfer

try:
    import fcntl
except ImportError:  # Windows has no such locks: there the user must not download one file twice at a time.
    fcntl = None

CACHE_VARIABLE = "DEEPLAB_TF_CACHE"
RETRY_DELAYS = (0.5, 1.0, 2.0)  # seconds before the second, third and fourth attempt
MOST_SECONDS = 4 * 3600.0  # of one download, all attempts together; the next call continues it
MOST_BYTES = 1 << 30  # of an archive whose size nobody has published
STALE = 24 * 3600.0  # seconds after which what another process has begun to write is taken for forgotten
_TRANSIENT_STATUS = {408, 416, 425, 429, 500, 502, 503, 504}


class _Interrupted(Exception):
    """An attempt that failed and may succeed when repeated."""


class _PartState(TypedDict):
    """What is known of an incomplete download."""

    url: str
    validator: str
    length: int


# requests.RequestException is an OSError: to tell it from an error of the disk, catch it first.
_TRANSIENT = (
    _Interrupted,
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
    urllib3.exceptions.HTTPError,
)


def cache_folder() -> pathlib.Path:
    """Returns the folder of downloaded archives: $DEEPLAB_TF_CACHE, else ~/.cache/deeplab_tf. It may not exist yet."""
    return local(os.environ.get(CACHE_VARIABLE) or "~/.cache/deeplab_tf")


def local(folder: str | os.PathLike) -> pathlib.Path:
    """Returns the path of a cache. DeepLabError where it is not on this machine."""
    return files.local_path(folder, flag=f"${CACHE_VARIABLE}", why="downloads are resumed, and locked, on a disk")


def fetch(
    url: str,
    path: str | os.PathLike,
    *,
    sha256: str | None = None,
    published: sums.Published | None = None,
    most_bytes: int = MOST_BYTES,
) -> pathlib.Path:
    """Downloads the archive at `url` to `path` and returns `path`; a file that is already there is only verified.

    Its sum must be `sha256` (64 hexadecimal digits) if that is given, else the one that was recorded in `<path>.sha256`
    when the file was first seen. `published` says it of other archives than .tar.gz, or by another sum. Processes that
    want the same file wait for one another. A server that announces or sends more than `most_bytes` is not listened to.

    Raises:
      DeepLabError: no network, a refusal of the server, a wrong sum, a file that is not an archive, or a full disk.
    """
    path = pathlib.Path(path)
    published = published or sums.Published(sha256)
    cure = f"set ${CACHE_VARIABLE} to another folder"
    if not path.is_file():
        with files.writing(path, cure=cure):
            path.parent.mkdir(parents=True, exist_ok=True)
            with locked(path):
                if not path.is_file():
                    leftovers.sweep(path.parent, STALE)
                    _download(url, path, published, most_bytes)
                    return path
    try:
        sums.verify(path, published=published)
    except OSError as error:
        raise DeepLabError(f"{path}: cannot be read ({error.strerror or error}); {cure}") from None
    return path


@contextlib.contextmanager
def locked(path: pathlib.Path, doing: str = "downloads") -> Iterator[None]:
    """Locks `<path>.lock`. The system frees the lock of a process that dies; the empty file stays.

    Args:
      path: what is locked.
      doing: what a process does that has the lock, for the line that tells another one waits.
    """
    with path.with_name(f"{path.name}.lock").open("a") as lock:
        if fcntl:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"waiting for another process that {doing} {path.name}", file=sys.stderr)
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _download(url: str, path: pathlib.Path, published: sums.Published, most: int):
    part = path.with_name(f"{path.name}.part")
    digest = _download_part(url, part, path, most)
    try:
        if fault := published.fault(part, digest):
            raise DeepLabError(f"{url}: {fault}; the download was not kept")
        sums.require_kind(part, published.kind, f"{url} served something else; it was not kept")
    except DeepLabError:
        _discard(part)
        raise
    files.move(part, path)
    _discard(part)
    sums.record(path, digest)
    if not published.digest:
        print(f"{path.name}: no sum is published for it; sha256 {digest} is kept to compare with", file=sys.stderr)


def _download_part(url: str, part: pathlib.Path, path: pathlib.Path, most: int) -> str:
    """Completes `part`, in as many attempts as RETRY_DELAYS allow, and returns its sha256."""
    reason, until = "", time.monotonic() + MOST_SECONDS
    for delay in (0.0, *RETRY_DELAYS):
        time.sleep(delay)
        try:
            return _attempt(url, part, most, until)
        except transfer.TransferError as error:
            _discard(part)
            raise DeepLabError(f"{error}; download it elsewhere and put it by hand at {path}") from None
        except TimeoutError:
            reason = f"it takes more than {MOST_SECONDS:g} s"
            break
        except _TRANSIENT as error:
            reason = _reason(error)
        except requests.RequestException as error:
            reason = _reason(error)
            break
    cure = f"download it elsewhere and put it by hand at {path}"
    kept = "run again to continue where it stopped, or " if _resumable(url, part) else ""
    raise DeepLabError(f"cannot download {url} ({reason}); {kept}{cure}")


def _reason(error: Exception) -> str:
    if isinstance(error, _Interrupted | requests.HTTPError):
        return str(error)
    if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError):
        return "timed out"
    if isinstance(error, urllib3.exceptions.HTTPError):
        return "the connection was cut"
    return "no connection" if isinstance(error, requests.ConnectionError) else type(error).__name__


def _attempt(url: str, part: pathlib.Path, most: int, until: float) -> str:
    """Downloads what `part` lacks and returns the sha256 of the whole."""
    state = _resumable(url, part)
    offset = part.stat().st_size if state else 0
    if state and offset == state["length"]:
        return sums.hash_of(part).hexdigest()
    # Some servers declare a .tar.gz as gzip-encoded: without this header requests would unpack it.
    headers = {"Accept-Encoding": "identity"}
    if state and offset:
        headers |= {"Range": f"bytes={offset}-", "If-Range": state["validator"]}
    with transfer.opened(url, headers) as response:
        _require_success(response, part)
        if response.status_code != 206:
            offset = 0
        elif not state or not offset or not _continues(response, state, offset):
            _discard(part)
            raise _Interrupted("the file on the server changed")
        length = _length(response, offset)
        if length is not None and length > most:
            raise transfer.TransferError(f"{url}: the server announces {length} bytes; expected at most {most}")
        if offset == 0:
            _discard(part)
            state = {"url": url, "validator": _validator(response), "length": length}
            with files.written(_state_path(part)) as file:
                file.write_text(json.dumps(state), encoding="utf-8")
        return _receive(response, part, (offset, length), transfer.blocks(response, most=most - offset, until=until))


def _require_success(response: requests.Response, part: pathlib.Path):
    status = response.status_code
    if status == 416:  # The server's file is not longer than the part, so nothing of the part can be trusted.
        _discard(part)
    if status in _TRANSIENT_STATUS:
        raise _Interrupted(f"HTTP {status}")
    if status not in (200, 206):
        raise requests.HTTPError(f"HTTP {status}")


def _receive(
    response: requests.Response, part: pathlib.Path, span: tuple[int, int | None], content: Iterator[bytes]
) -> str:
    """Appends what a response sends to `part`, and returns the sha256 of the whole.

    Args:
      response: the answer.
      part: the file.
      span: the number of bytes that it has, and of those it will have; None: the server does not say.
      content: of the response.
    """
    offset, length = span
    digest = sums.hash_of(part) if offset else hashlib.sha256()
    with part.open("ab") as stream, _progress(part.stem, offset, length) as advance:
        size = offset
        for chunk in content:
            size += len(chunk)
            if length is not None and size > length:
                break
            stream.write(chunk)
            digest.update(chunk)
            advance(len(chunk))
    files.flush(part)
    if length is not None and size < length:
        raise _Interrupted(f"the connection was cut after {size} of {length} bytes")
    if length is not None and size > length:
        _discard(part)
        raise _Interrupted(f"the server announced {length} bytes and sent more")
    return digest.hexdigest()


def _validator(response: requests.Response) -> str | None:
    """Returns a value for If-Range: a strong ETag, else the date (RFC 9110, section 13.1.5)."""
    tag = response.headers.get("ETag", "W/")
    return response.headers.get("Last-Modified") if tag.startswith("W/") else tag


def _continues(response: requests.Response, state: _PartState, offset: int) -> bool:
    """Returns whether a partial response is of the file that the part is of, and begins at `offset`."""
    match = re.fullmatch(
        r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)", response.headers.get("Content-Range", "")
    )
    same = _validator(response) in (None, state["validator"])
    if not match or not same:
        return False
    first, last, length = int(match[1]), int(match[2]), state["length"]
    return first == offset and last == length - 1 and match[3] in ("*", str(length))


def _length(response: requests.Response, offset: int) -> int | None:
    announced = transfer.announced(response)
    return None if announced is None else offset + announced


def _state_path(part: pathlib.Path) -> pathlib.Path:
    return part.with_name(f"{part.name}.json")


def _resumable(url: str, part: pathlib.Path) -> _PartState | None:
    """Returns the state of a part that was begun from the same `url`, or None: it cannot be continued safely."""
    try:
        state = read_json(_state_path(part), _PartState)
        # What a header cannot hold was not one of the server's.
        good = state["url"] == url and re.fullmatch("[ -~]{1,300}", state["validator"])
        return state if good and part.stat().st_size <= state["length"] else None
    except (FileNotFoundError, JSONError):
        return None


def _discard(part: pathlib.Path):
    part.unlink(missing_ok=True)
    _state_path(part).unlink(missing_ok=True)


@contextlib.contextmanager
def _progress(name: str, done: int, length: int | None) -> Iterator[Callable[[int], object]]:
    """Shows the progress, as a bar on a terminal and as a line elsewhere, both on stderr.

    Yields:
      A function that is called with the number of bytes of each packet.
    """
    console = rich.console.Console(stderr=True)
    if not console.is_terminal:
        size = f", {length / 1e6:.1f} MB" if length else ""
        start = f", continued at byte {done}" if done else ""
        print(f"downloading {name}{size}{start}", file=sys.stderr)
        yield lambda count: None
        return
    columns = rich.progress.TextColumn("{task.description}"), rich.progress.BarColumn(), rich.progress.DownloadColumn()
    rest = rich.progress.TransferSpeedColumn(), rich.progress.TimeRemainingColumn()
    with rich.progress.Progress(*columns, *rest, console=console) as bar:
        task = bar.add_task(name, total=length, completed=done)
        yield lambda count: bar.advance(task, count)
