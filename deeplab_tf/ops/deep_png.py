"""PNGs of 16 bits a sample and several channels, which Pillow cuts to 8 bits: read and written with numpy.

Source: the PNG specification (W3C, second edition), sections 9 (filters) and 11.2 (chunks). This module does not import
TensorFlow, so that worker processes start fast.
"""

import struct
import zlib
from collections.abc import Iterator

import numpy as np

from deeplab_tf.errors import DeepLabError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # colour type -> samples of a pixel
_COLOUR_TYPES = {1: 0, 3: 2, 4: 6}
_PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def bit_depth(content: bytes) -> int:
    """Returns the bits of a sample that a PNG's header announces; 0 where `content` is not a PNG."""
    return content[24] if content.startswith(SIGNATURE) and len(content) > 28 else 0


def sample_count(content: bytes) -> int:
    """Returns the samples of a pixel that a PNG's header announces: 1 to 4, alpha included."""
    return _CHANNELS.get(content[25], 0)


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = len(SIGNATURE)
    while position + 12 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, position)
        yield kind, content[position + 8 : position + 8 + length]
        position += length + 12


def _rows(content: bytes, most: int) -> bytes:
    """Returns the bytes of the filtered rows that the file holds, at most so many: a small file may hold very many."""
    data = b"".join(data for kind, data in _chunks(content) if kind == b"IDAT")
    return zlib.decompressobj().decompress(data, max(most, 1))


def is_short(content: bytes) -> bool:
    """Returns whether a PNG announces more rows than it holds, which Pillow fills with black in silence."""
    width, height, depth, colour = struct.unpack_from(">IIBB", content, 16)
    bits = depth * _CHANNELS.get(colour, 1)

    def size(rows: int, columns: int) -> int:
        return rows * (1 + (columns * bits + 7) // 8) if columns else 0

    expected = size(height, width)
    if content[28]:  # interlaced: seven pictures of every so many rows and columns
        expected = sum(size(-(-(height - y) // dy), -(-(width - x) // dx)) for y, x, dy, dx in _PASSES)
    return expected > 0 and len(_rows(content, expected)) < expected


def decode_deep_png(content: bytes) -> np.ndarray:
    """Returns uint16 [h, w, samples] of a PNG of 16 bits a sample.

    Raises:
      DeepLabError: it is interlaced, or ends early.
    """
    width, height = struct.unpack_from(">II", content, 16)
    samples = sample_count(content)
    if content[28]:
        raise DeepLabError("an interlaced PNG of 16 bits; save it without interlacing")
    expected = height * (1 + 2 * samples * width)
    raw = _rows(content, expected)
    if len(raw) < expected:
        raise DeepLabError("the PNG announces more rows than it holds")
    lines = np.frombuffer(raw, np.uint8).reshape(height, -1)
    filters = lines[:, 0]
    if filters.max(initial=0) > 4:
        raise DeepLabError(f"PNG filter {filters.max()}: expected 0 to 4")
    pixels = _unfiltered(lines[:, 1:].reshape(height, width, 2 * samples), filters)
    return np.ascontiguousarray(pixels).view(">u2").astype(np.uint16)


def _unfiltered(lines: np.ndarray, filters: np.ndarray) -> np.ndarray:
    """Returns the bytes [h, w, bytes of a pixel] of filtered rows.

    A pixel needs those on its left, above, and above on the left. So all pixels of one diagonal can be computed at
    once: of each row one, a column further left than in the row above.
    """
    height, width, size = lines.shape
    # Skewed, a diagonal is a column, and the neighbours have the same row, or the one above, one or two columns before.
    before = np.zeros((height + 1, height + width + 2, size), np.int16)
    rows = np.arange(height)
    weights = filters[:, None]
    for diagonal in range(height + width - 1):
        first, last = max(0, diagonal - width + 1), min(height, diagonal + 1)
        part = slice(first, last)
        kind = weights[part]
        above_part = slice(first, last)  # `before` has an empty row on top
        left = before[first + 1 : last + 1, diagonal + 1]
        above = before[above_part, diagonal + 1]
        corner = before[above_part, diagonal]
        estimate = left + above - corner
        near = [np.abs(estimate - neighbour) for neighbour in (left, above, corner)]
        paeth = np.where((near[0] <= near[1]) & (near[0] <= near[2]), left, np.where(near[1] <= near[2], above, corner))
        predicted = np.select(
            [kind == 1, kind == 2, kind == 3, kind == 4], [left, above, (left + above) >> 1, paeth], default=np.int16(0)
        )
        line = lines[rows[part], diagonal - rows[part]]
        before[first + 1 : last + 1, diagonal + 2] = (line + predicted) & 255
    columns = np.arange(width)
    return before[rows[:, None] + 1, columns[None, :] + rows[:, None] + 2].astype(np.uint8)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def encode_deep_png(pixels: np.ndarray) -> bytes:
    """Returns uint16 [h, w, 1, 3 or 4] as a PNG, without loss."""
    height, width, samples = pixels.shape
    raw = pixels.astype(">u2").view(np.uint8).reshape(height, -1)
    lines = np.empty((height, raw.shape[1] + 1), np.uint8)
    lines[:, 0] = 2  # each row is stored as its difference to the row above, modulo 256
    lines[0, 1:] = raw[0]
    lines[1:, 1:] = raw[1:] - raw[:-1]
    header = struct.pack(">IIBBBBB", width, height, 16, _COLOUR_TYPES[samples], 0, 0, 0)
    body = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(lines.tobytes(), 6)) + _chunk(b"IEND", b"")
    return SIGNATURE + body
