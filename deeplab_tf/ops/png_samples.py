"""The samples of a 16-bit PNG as the file stores them. Pillow drops the lower half of each where there are colours.

The format is that of the PNG specification (W3C, third edition): filters in section 9, interlacing in section 8.
"""

import struct
import zlib
from collections.abc import Iterator

import numpy as np

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}  # of each colour type but the palette's, which has no 16-bit samples
# The first column and row of each pass of Adam7, and the steps to the next.
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def png_kind(content: bytes) -> tuple[int, int] | None:
    """Returns the bit depth of the samples and the colour type (0 grey, 2 RGB, 3 palette, 4 LA, 6 RGBA) of a PNG.

    None if `content` is not a PNG.
    """
    if content[:8] != _SIGNATURE or content[12:16] != b"IHDR" or len(content) < 29:
        return None
    return content[24], content[25]


def read_png16(content: bytes) -> np.ndarray:
    """Returns the samples of a 16-bit PNG, uint16 [h, w, channels].

    Args:
      content: the bytes of a PNG whose `png_kind` has 16 bits.

    Raises:
      ValueError: the file is damaged or truncated. (zlib.error, if its compressed data are damaged.)
    """
    width, height, _, kind, _, _, interlaced = struct.unpack(">IIBBBBB", content[16:29])
    channels = _CHANNELS[kind]
    samples = np.empty((height, width, channels), np.uint16)
    most = samples.nbytes + 7 * (height + 1)  # a byte for the filter of each row of each pass
    rows = np.frombuffer(zlib.decompressobj().decompress(b"".join(_data_chunks(content)), most), np.uint8)
    position = 0
    for x, y, step_x, step_y in _ADAM7 if interlaced else ((0, 0, 1, 1),):
        part = samples[y::step_y, x::step_x]
        if not part.size:
            continue
        length = part.shape[1] * channels * 2 + 1
        filtered = rows[position : position + part.shape[0] * length]
        if len(filtered) < part.shape[0] * length:
            raise ValueError(f"truncated: {len(rows)} bytes of samples")
        position += len(filtered)
        filtered = filtered.reshape(part.shape[0], length)
        plain = _unfiltered(filtered[:, 0], filtered[:, 1:].reshape(part.shape[0], part.shape[1], channels * 2))
        part[:] = plain.view(">u2")
    return samples


def _data_chunks(content: bytes) -> Iterator[bytes]:
    position = len(_SIGNATURE)
    while position + 8 <= len(content):
        length, name = struct.unpack_from(">I4s", content, position)
        if name == b"IDAT":
            yield content[position + 8 : position + 8 + length]
        position += length + 12


def _unfiltered(kinds: np.ndarray, filtered: np.ndarray) -> np.ndarray:
    """Returns the bytes before filtering, uint8 [h, w, n].

    A pixel depends on those to its left, above and between, so all pixels of a diagonal are computed at once.

    Args:
      kinds: the filter of each row, uint8 [h].
      filtered: uint8 [h, w, n], where n is the bytes of a pixel.
    """
    height, width, size = filtered.shape
    if kinds.max() > 4:
        raise ValueError(f"a row with the unknown filter {kinds.max()}")
    # One row and one column of zeros stand before the picture.
    plain = np.zeros((height + 1, width + 1, size), np.int32)
    for diagonal in range(height + width - 1):
        y = np.arange(max(0, diagonal - width + 1), min(height, diagonal + 1))
        x = diagonal - y
        left = plain[y + 1, x]
        above = plain[y, x + 1]
        corner = plain[y, x]
        kind = kinds[y][:, None]
        predicted = np.select(
            [kind == 1, kind == 2, kind == 3, kind == 4],
            [left, above, (left + above) // 2, _paeth(left, above, corner)],
            0,
        )
        plain[y + 1, x + 1] = (filtered[y, x] + predicted) & 255
    return np.ascontiguousarray(plain[1:, 1:].astype(np.uint8))


def _paeth(left: np.ndarray, above: np.ndarray, corner: np.ndarray) -> np.ndarray:
    """Returns the neighbour nearest to left + above - corner; of equal ones the first of left, above, corner."""
    estimate = left + above - corner
    to_left = np.abs(estimate - left)
    to_above = np.abs(estimate - above)
    to_corner = np.abs(estimate - corner)
    nearest = np.where(to_above <= to_corner, above, corner)
    return np.where((to_left <= to_above) & (to_left <= to_corner), left, nearest)
