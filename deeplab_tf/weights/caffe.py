"""The file format of Caffe's weights, .caffemodel.

Of the file only the layers' names and blobs are read (fields and their numbers: Caffe's caffe.proto).
"""

import math
import os
from collections.abc import Iterator

import numpy as np

from deeplab_tf import files
from deeplab_tf.errors import DamagedError, DeepLabError

# Protobuf's wire types.
_VARINT = 0
_FIXED64 = 1
_BYTES = 2
_FIXED32 = 5
# Field numbers of NetParameter -> those of name and blobs in its layers: LayerParameter and, before 2015,
# V1LayerParameter.
_LAYERS = {100: (1, 7), 2: (4, 6)}
# Field numbers of BlobProto.
_MOST_DIMENSIONS = 8
_LEGACY_SHAPE = (1, 2, 3, 4)  # num, channels, height, width
_DATA = 5
_SHAPE = 7
_DOUBLE_DATA = 8
_DIM = 1  # of BlobShape
_HDF5 = b"\x89HDF"

# A number of wire type VARINT, or the bytes of any other type.
_Value = int | memoryview
# The values of one field of a message, in order, each with its wire type.
_Pieces = list[tuple[int, _Value]]


# ---- the wire format


def _varint(data: memoryview, start: int) -> tuple[int, int]:
    """Returns the number at `start` and the position after it."""
    value = 0
    for shift, byte in zip(range(0, 70, 7), data[start : start + 10], strict=False):
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, start + shift // 7 + 1
    raise ValueError("a number has no end")


def _run(data: memoryview, start: int, key: int, width: int) -> int:
    """Returns how many records with the same key follow each other from `start` on.

    A record is a key of `key` bytes and a value of `width` bytes.
    """
    # An unpacked field of a million weights is a million records with a key each. They are compared in blocks, which
    # grow, because most fields are short.
    size = key + width
    expected = np.frombuffer(data[start : start + key], np.uint8)
    count = 1
    block = 64
    while True:
        first = start + count * size
        records = min(block, (len(data) - first) // size)
        if not records:
            return count
        table = np.frombuffer(data[first : first + records * size], np.uint8).reshape(records, size)
        same = (table[:, :key] == expected).all(1)
        if not same.all():
            return count + int(np.argmin(same))
        count += records
        block *= 2


def _fields(data: memoryview) -> Iterator[tuple[int, int, _Value]]:
    """Yields the number, wire type and value of each field of a message.

    Fields of a fixed size that repeat come as one value, their bytes put together: so they are read at NumPy's speed,
    as a packed field is.
    """
    position = 0
    while position < len(data):
        start = position
        key, position = _varint(data, position)
        number = key >> 3
        kind = key & 7
        value: _Value
        if kind == _VARINT:
            value, position = _varint(data, position)
        elif kind == _BYTES:
            size, position = _varint(data, position)
            value = data[position : position + size]
            position += size
        elif kind in (_FIXED32, _FIXED64):
            width = 4 if kind == _FIXED32 else 8
            key_size = position - start
            if position + width > len(data):
                raise ValueError("it ends within a number")
            count = _run(data, start, key_size, width)
            records = np.frombuffer(data[start : start + count * (key_size + width)], np.uint8)
            value = memoryview(records.reshape(count, -1)[:, key_size:].tobytes())
            position = start + len(records)
        else:
            raise ValueError(f"wire type {kind}")
        if position > len(data):
            raise ValueError("a field reaches beyond the end")
        if not number:
            raise ValueError("field number 0")
        yield number, kind, value


def _numbers(pieces: _Pieces) -> list[int]:
    """Returns repeated integers, packed or not."""
    numbers: list[int] = []
    for kind, value in pieces:
        if isinstance(value, int):
            numbers.append(value)
        elif kind == _BYTES:
            position = 0
            while position < len(value):
                number, position = _varint(value, position)
                numbers.append(number)
        else:
            raise ValueError(f"an integer of wire type {kind}")
    return numbers


def _floats(pieces: _Pieces, dtype: str, fixed: int) -> np.ndarray:
    """Returns repeated floats, packed or not (then of the wire type `fixed`)."""
    parts: list[np.ndarray] = []
    for kind, value in pieces:
        if isinstance(value, int) or kind not in (fixed, _BYTES):
            raise ValueError("weights that are not floats")
        parts.append(np.frombuffer(value, dtype))
    return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, dtype), *parts])


def _blob(data: memoryview) -> np.ndarray:
    """Returns a BlobProto: its data in the shape of BlobShape, or of the older num, channels, height, width."""
    pieces: dict[int, _Pieces] = {}
    for number, kind, value in _fields(data):
        pieces.setdefault(number, []).append((kind, value))
    if _DOUBLE_DATA in pieces:
        values = _floats(pieces[_DOUBLE_DATA], "<f8", _FIXED64)
    else:
        values = _floats(pieces.get(_DATA, []), "<f4", _FIXED32)
    if _SHAPE in pieces:
        shape = tuple(_numbers(_dims(pieces[_SHAPE])))
    else:
        # Of a field that is repeated by mistake the last counts, as for protobuf; one that is absent is 0.
        shape = tuple(sum(_numbers(pieces.get(number, []))[-1:]) for number in _LEGACY_SHAPE)
    if len(shape) > _MOST_DIMENSIONS or 0 in shape or math.prod(shape) != len(values):
        raise ValueError(f"{len(values)} weights for the shape {list(shape)}")
    return values.reshape(shape)


def _dims(shapes: _Pieces) -> _Pieces:
    """Returns the sides of a BlobShape."""
    dims: _Pieces = []
    for kind, shape in shapes:
        if isinstance(shape, int) or kind != _BYTES:
            raise ValueError("a shape that is a number")
        dims += [(kind, value) for number, kind, value in _fields(shape) if number == _DIM]
    return dims


def _layer(data: memoryview, name_field: int, blobs_field: int) -> tuple[str, list[np.ndarray]]:
    """Returns the name of a layer and its blobs."""
    name = ""
    blobs: list[np.ndarray] = []
    for number, kind, value in _fields(data):
        if isinstance(value, int) or kind != _BYTES:
            continue
        if number == name_field:
            name = bytes(value).decode()
        elif number == blobs_field:
            try:
                blobs.append(_blob(value))
            except ValueError as error:
                raise ValueError(f"layer {name!r}: {error}") from None
    return name, blobs


def equal_blobs(first: list[np.ndarray], second: list[np.ndarray]) -> bool:
    """Returns whether two layers have the same blobs, in number, shape and value."""
    return first is second or (len(first) == len(second) and all(map(np.array_equal, first, second)))


def read_caffemodel(path: str | os.PathLike) -> dict[str, list[np.ndarray]]:
    """Returns the weights of a .caffemodel: layer name -> its blobs, in the precision they are stored in.

    They have Caffe's layout, [out, in, h, w] for kernels, and are read-only views of the file's bytes. Layers without
    weights are left out. Old nets (V1LayerParameter, four-dimensional blobs) and new ones are read.

    Raises:
      DeepLabError: the file cannot be read, is damaged or truncated, or holds no weights.
    """
    path = files.path(path)
    try:
        content = memoryview(path.read_bytes())
    except OSError as error:
        raise DeepLabError(f"{path}: cannot be read ({error.strerror or error}); expected a .caffemodel") from None
    if content[:4] == _HDF5:
        raise DeepLabError(f"{path}: an HDF5 snapshot; expected Caffe's binary form (snapshot_format: BINARYPROTO)")
    layers: dict[str, list[np.ndarray]] = {}
    try:
        for number, kind, value in _fields(content):
            if number in _LAYERS and kind == _BYTES and not isinstance(value, int):
                name, blobs = _layer(value, *_LAYERS[number])
                if blobs and not equal_blobs(layers.setdefault(name, blobs), blobs):
                    raise DeepLabError(f"{path}: two layers {name!r} with different weights; expected one")
    except (ValueError, UnicodeDecodeError) as error:
        if isinstance(error, DeepLabError):
            raise
        raise DamagedError(
            f"{path}: damaged or truncated, or not a .caffemodel ({error}); fetch or copy it again"
        ) from None
    if not layers:
        raise DeepLabError(f"{path}: holds no layers with weights; expected a .caffemodel of DeepLab v1 or v2")
    return layers
