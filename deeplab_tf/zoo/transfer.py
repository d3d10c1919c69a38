"""Requests for what lies on the web: redirects that are looked at, sizes and times that have an end."""

import contextlib
import re
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import Any

import requests

from deeplab_tf.errors import DeepLabError

TIMEOUT = (10.0, 60.0)  # seconds to connect, and between two packets
_MOST_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_CHUNK = 1 << 18  # bytes


class _Session(requests.Session):
    """A session that leaves redirects alone: the library looks at them even where it does not follow them."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        return None


class TransferError(DeepLabError):
    """A server sends something else than what was asked for; asking again would not help."""


def _parsed(url: str) -> urllib.parse.SplitResult | None:
    """Returns the parts of an address of the web; None where it is not one."""
    try:
        parts = urllib.parse.urlsplit(url)
        parts.port  # noqa: B018 (it raises where it is not a number)
    except ValueError:
        return None
    odd = parts.username is not None or not parts.hostname or not url.isprintable() or " " in url
    return None if odd or parts.scheme not in ("http", "https") else parts


def _next(url: str, location: str) -> str:
    """Returns where a redirect leads. TransferError if that is no address, or one of another scheme, but https."""
    before, shown = _parsed(url), ascii(location[:200])
    try:
        target = urllib.parse.urljoin(url, location)
    except ValueError:
        target = ""
    if re.match("([A-Za-z][A-Za-z0-9+.-]*:)?//([/?#]|$)", location):
        target = ""  # without a host, for which the standard library takes the old one
    after = _parsed(target)
    if before is None or after is None:
        raise TransferError(f"{url}: the server redirects to {shown}, which is not an address of the web")
    if after.scheme not in (before.scheme, "https"):
        raise TransferError(f"{url}: the server redirects to {shown}; expected {before.scheme}, as was asked")
    return target


@contextlib.contextmanager
def opened(url: str, headers: Mapping[str, str] | None = None) -> Iterator[requests.Response]:
    """Asks for a file of the web and gives the answer, whose content is not read yet; redirects are followed.

    Raises:
      TransferError: the address, or that of a redirect, is not one of the web, or of another scheme.
      requests.RequestException: the server cannot be reached.
    """
    if _parsed(url) is None:
        raise TransferError(f"{ascii(url[:200])}: expected an address that begins with https:// or http://")
    with contextlib.ExitStack() as stack:
        for _ in range(_MOST_REDIRECTS + 1):
            session = stack.enter_context(_Session())
            answer = stack.enter_context(
                session.get(url, headers=headers, stream=True, timeout=TIMEOUT, allow_redirects=False)
            )
            if answer.status_code not in _REDIRECTS:
                yield answer
                return
            url = _next(url, answer.headers.get("Location", ""))
            stack.close()
    raise TransferError(f"{url}: more than {_MOST_REDIRECTS} redirects; expected the file")


def announced(answer: requests.Response) -> int | None:
    """Returns the number of bytes that an answer says it has; None: it does not say."""
    text = answer.headers.get("Content-Length", "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else None


def blocks(answer: requests.Response, *, most: int, until: float, decoded: bool = False) -> Iterator[bytes]:
    """Yields the content of an answer, as it comes.

    Args:
      answer: of `opened`.
      most: bytes that it may have.
      until: the time of `time.monotonic()` at which it must have ended.
      decoded: whether what the server has compressed is decompressed.

    Raises:
      TransferError: it has more bytes.
      TimeoutError: it has not ended.
    """
    length = announced(answer)
    if length is not None and length > most:
        raise TransferError(f"{answer.url}: the server announces {length} bytes; expected at most {most}")
    got = 0
    # read1 returns what has arrived: a server that sends a byte a minute would keep `read` for ever.
    raw: Any = answer.raw
    read = raw.read1 if hasattr(raw, "read1") else lambda count, decode_content: raw.read(1024, decode_content)
    while block := read(_CHUNK, decode_content=decoded):
        got += len(block)
        if got > most:
            raise TransferError(f"{answer.url}: the server sends more than {most} bytes; expected at most so many")
        if time.monotonic() > until:
            raise TimeoutError
        yield block
