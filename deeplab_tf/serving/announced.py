"""The pixels that a request announces: read from the headers of its pictures, before anything is decoded.

They decide whose turn it is. A header is read with Python alone: decoders belong to the processes of `reading`.
"""

import base64
import binascii
import math
import re
import struct
from collections.abc import Iterator

from deeplab_tf.serving.limits import Limits

_ENCODED, _QUOTE = b'"b64"', b'"'
_START = 1 << 14  # characters of a picture in which its size is looked for before all of it is
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # markers of a JPEG that are followed by its size
_ALONE = frozenset(range(0xD0, 0xDA)) | {0x01, 0xFF}  # markers that nothing belongs to
_WIDTH, _LENGTH = 256, 257  # tags of a TIFF
_NUMBERS = {1: "B", 3: "H", 4: "I", 16: "Q"}  # types of its tags
_NPY_SHAPE = re.compile(rb"'shape': \((\d{1,9}), (\d{1,9})")


def _jpeg(content: bytes) -> tuple[int, int] | None:
    position = 2
    while position + 9 <= len(content):
        if content[position] != 0xFF:
            return None
        marker = content[position + 1]
        if marker in _FRAMES:
            return struct.unpack_from(">HH", content, position + 5)
        position += 1 if marker == 0xFF else 2
        if marker not in _ALONE:
            position += struct.unpack_from(">H", content, position)[0]
    return None


def _webp(content: bytes) -> tuple[int, int] | None:
    kind = content[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(content[start : start + 3], "little") + 1 for start in (24, 27))
        return height, width
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", content, 21)
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", content, 26)
        return height & 0x3FFF, width & 0x3FFF
    return None


def _bmp(content: bytes) -> tuple[int, int]:
    old = struct.unpack_from("<I", content, 14) == (12,)
    width, height = struct.unpack_from("<HH" if old else "<ii", content, 18)
    return abs(height), abs(width)


def _tiff(content: bytes) -> tuple[int, int] | None:
    order = "<" if content.startswith(b"II") else ">"
    big = content[2:4] in (b"+\0", b"\0+")
    (place,) = struct.unpack_from(f"{order}{'Q' if big else 'I'}", content, 8 if big else 4)
    count, head, step, value = ("Q", 8, 20, 12) if big else ("H", 2, 12, 8)
    (entries,) = struct.unpack_from(f"{order}{count}", content, place)
    found = {}
    for number in range(min(entries, 64)):  # they are sorted by their tags, and these are among the first
        entry = place + head + step * number
        tag, kind = struct.unpack_from(f"{order}HH", content, entry)
        if tag in (_WIDTH, _LENGTH):
            (found[tag],) = struct.unpack_from(f"{order}{_NUMBERS[kind]}", content, entry + value)
    return found[_LENGTH], found[_WIDTH]


def header_size(content: bytes) -> tuple[int, int] | None:
    """Returns the height and width that a file's header announces; None: it is of no format that is read, or damaged.

    Sources: the specifications of PNG, GIF, BMP, JPEG (T.81, annex B), WebP, TIFF 6.0 and .npy.
    """
    try:
        if content.startswith(b"\x89PNG"):
            width, height = struct.unpack_from(">II", content, 16)
            return height, width
        if content.startswith(b"GIF8"):
            width, height = struct.unpack_from("<HH", content, 6)
            return height, width
        if content.startswith(b"BM"):
            return _bmp(content)
        if content.startswith(b"\xff\xd8"):
            return _jpeg(content)
        if content.startswith(b"RIFF"):
            return _webp(content)
        if content.startswith((b"II", b"MM")):
            return _tiff(content)
        found = _NPY_SHAPE.search(content, 0, 1 << 10) if content.startswith(b"\x93NUMPY") else None
        return (int(found[1]), int(found[2])) if found else None
    except (struct.error, KeyError):
        return None


def picture_pixels(content: bytes, limits: Limits) -> int:
    """Returns the pixels that a picture counts as; where its header does not tell, as many as a request may have."""
    size = header_size(content)
    return _within(math.inf if size is None else limits.pixels(*size), limits)


def request_pixels(body: bytes, limits: Limits, channels: int) -> int:
    """Returns the pixels that the body of a :predict request counts as, about: it is looked at, not parsed.

    One whose pictures cannot be found, or that hides them behind escapes, counts as much as a request may have.

    Args:
      body: of the request.
      limits: of its images.
      channels: of the network's input.
    """
    if b"\\u" in body:
        return _within(math.inf, limits)
    pictures = body.count(_ENCODED)
    if pictures > limits.max_images:
        return _within(math.inf, limits)
    if pictures:
        sizes = list(_sizes(body))
        whole = len(sizes) == pictures
        return _within(sum(limits.pixels(*size) if size else math.inf for size in sizes) if whole else math.inf, limits)
    side = math.isqrt((body.count(b",") + 1) // channels) + 1
    return _within(limits.pixels(side, side), limits)


def _within(pixels: float, limits: Limits) -> int:
    return int(max(1, min(pixels, limits.max_pixels)))


def _sizes(body: bytes) -> Iterator[tuple[int, int] | None]:
    """Yields the size of each encoded picture of a body, or None where it is not found."""
    place = body.find(_ENCODED)
    while place >= 0:
        start = body.find(_QUOTE, place + len(_ENCODED)) + 1
        end = body.find(_QUOTE, start) if start else -1
        if end < 0:
            return
        yield _size_of(body[start : min(end, start + _START)]) or _size_of(body[start:end])
        place = body.find(_ENCODED, end + 1)


def _size_of(text: bytes) -> tuple[int, int] | None:
    """Returns the size that the beginning of a picture in base64 announces."""
    text = text.replace(b"\\/", b"/")
    try:
        return header_size(base64.b64decode(text[: len(text) // 4 * 4]))
    except binascii.Error:
        return None
