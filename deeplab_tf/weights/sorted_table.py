"""A reader of the sorted tables that TensorFlow keeps its checkpoints in: LevelDB's format, which believes no size.

The format is that of tensorflow/core/lib/io/table_format.txt: blocks of keys that share their beginnings with the key
before, each with its kind of compression and a masked CRC-32C; an index block of the blocks; a footer that says where
that is.
"""

import struct
import typing
from collections.abc import Iterator

import google_crc32c

_MAGIC = 0xDB4775248B80FB57
_FOOTER = 48  # bytes: two handles, padding, the magic number
_TRAILER = 5  # bytes behind a block: the kind of compression, the checksum
_PLAIN, _SNAPPY = 0, 1
_LARGEST_SNAPPY = 1 << 26  # bytes of a block that is compressed, when it is unpacked
_MASK = 0xA282EAD8
_MOST_ENTRIES = 100_000  # of a table; the largest network with its slots has fewer than 10,000


class TableError(ValueError):
    """A table is not sound; the message says in a few words what is wrong."""


def masked_crc(content: bytes) -> int:
    """Returns the CRC-32C of `content` as TensorFlow stores it."""
    crc = google_crc32c.value(content)
    return (((crc >> 15) | (crc << 17)) + _MASK) & 0xFFFFFFFF


def read_varint(content: bytes, at: int) -> tuple[int, int]:
    """Returns the number that begins at a place, in groups of seven bits with the lowest first, and the place behind.

    Raises:
      TableError: it goes on behind the end, or beyond 64 bits.
    """
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(content):
            raise TableError("a number goes on behind the end")
        byte = content[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            if value >> 64:
                break
            return value, at
    raise TableError("a number has more than 64 bits")


def _unpacked(content: bytes) -> bytes:
    """Returns what Snappy has compressed (github.com/google/snappy, format_description.txt)."""
    size, at = read_varint(content, 0)
    if size > _LARGEST_SNAPPY:
        raise TableError(f"a compressed block of {size} bytes")
    out = bytearray()
    while at < len(content):
        tag = content[at]
        kind, at = tag & 3, at + 1
        extra = max(0, (tag >> 2) - 59) if kind == 0 else (1, 2, 4)[kind - 1]
        number = int.from_bytes(content[at : at + extra], "little")
        if at + extra > len(content):
            raise TableError("a compressed block is cut off")
        at += extra
        if kind == 0:
            length = (number if extra else tag >> 2) + 1
            out += content[at : at + length]
            at += length
        else:
            length = (tag >> 2 & 7) + 4 if kind == 1 else (tag >> 2) + 1
            back = (tag >> 5 << 8) + number if kind == 1 else number
            if not 0 < back <= len(out):
                raise TableError("a compressed block refers to before its beginning")
            piece = bytes(out[len(out) - back :][:length])
            out += (piece * (length // back + 1))[:length]
        if at > len(content) or len(out) > size:
            break
    if len(out) != size or at != len(content):
        raise TableError("a compressed block has another length than it says")
    return bytes(out)


def _block(stream: typing.IO[bytes], offset: int, size: int, end: int) -> bytes:
    """Returns the block at a place of the file, whose data end at `end`."""
    if offset + size + _TRAILER > end:
        raise TableError(f"a block of {size} bytes at {offset} lies outside of the file")
    stream.seek(offset)
    stored = stream.read(size + _TRAILER)
    if len(stored) != size + _TRAILER:
        raise TableError("a block is cut off")
    if masked_crc(stored[: size + 1]) != struct.unpack("<I", stored[size + 1 :])[0]:
        raise TableError("a block's checksum is wrong")
    if stored[size] not in (_PLAIN, _SNAPPY):
        raise TableError(f"a block is compressed in the unknown way {stored[size]}")
    return _unpacked(stored[:size]) if stored[size] == _SNAPPY else stored[:size]


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yields the keys of a block, which ascend, and their values."""
    if len(block) < 4:
        raise TableError("a block is cut off")
    restarts = struct.unpack("<I", block[-4:])[0]
    end = len(block) - 4 - 4 * restarts
    if end < 0 or not restarts:
        raise TableError(f"a block counts {restarts} restarts")
    marks = struct.unpack(f"<{restarts}I", block[end:-4])
    at, number, key = 0, 0, b""
    starts: set[int] = set()  # where a key stands whole
    while at < end:
        begin = at
        shared, at = read_varint(block, at)
        own, at = read_varint(block, at)
        size, at = read_varint(block, at)
        if shared > len(key) or at + own + size > end:
            raise TableError("an entry lies outside of its block")
        if not shared:
            starts.add(begin)
        new = key[:shared] + block[at : at + own]
        if number and new <= key:
            raise TableError("keys do not ascend")
        at, number, key = at + own, number + 1, new
        yield key, block[at : at + size]
        at += size
    if marks[0] != 0 or any(a >= b for a, b in zip(marks, marks[1:], strict=False)) or not {*marks[1:]} <= starts:
        raise TableError("restarts that are none")


def _handle(value: bytes, at: int = 0) -> tuple[int, int, int]:
    """Returns offset and size of a block, and the place behind them."""
    offset, at = read_varint(value, at)
    size, at = read_varint(value, at)
    return offset, size, at


def read_table(stream: typing.IO[bytes], size: int) -> Iterator[tuple[bytes, bytes]]:
    """Yields the keys of a table in their order, and their values, a block in memory at a time.

    Args:
      stream: the file, open for reading.
      size: of the file, in bytes.

    Raises:
      TableError: sizes, places, checksums, restarts or the order of the keys are not as the format has them, or there
        are more than 100,000 keys.
    """
    if size < _FOOTER:
        raise TableError("shorter than a footer")
    stream.seek(size - _FOOTER)
    footer = stream.read(_FOOTER)
    if len(footer) != _FOOTER or struct.unpack("<Q", footer[-8:])[0] != _MAGIC:
        raise TableError("no table of TensorFlow's: its last bytes are not the magic number")
    _, _, at = _handle(footer[:-8])
    offset, length, _ = _handle(footer[:-8], at)
    end = size - _FOOTER
    last, behind, count = b"", 0, 0
    for separator, value in _entries(_block(stream, offset, length, end)):
        start, length, rest = _handle(value)
        if rest != len(value) or start < behind:
            raise TableError("blocks overlap")
        behind = start + length + _TRAILER
        for key, content in _entries(_block(stream, start, length, end)):
            if count and key <= last:
                raise TableError("keys do not ascend")
            last, count = key, count + 1
            if count > _MOST_ENTRIES:
                raise TableError(f"more than {_MOST_ENTRIES} entries")
            yield key, content
        if last > separator:
            raise TableError("keys do not ascend")
