"""Writes the indices of TensorFlow's checkpoints with whatever in them, and checksums that are right."""

import pathlib
import struct
from collections.abc import Callable, Iterable

from tensorflow.core.protobuf import tensor_bundle_pb2

from deeplab_tf.weights.sorted_table import masked_crc, read_table

Pairs = list[tuple[bytes, bytes]]


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def block(pairs: Iterable[tuple[bytes, bytes]], *, restarts: tuple[int, ...] = (0,)) -> bytes:
    entries = b"".join(varint(0) + varint(len(k)) + varint(len(v)) + k + v for k, v in pairs)
    return entries + struct.pack(f"<{len(restarts)}I", *restarts) + struct.pack("<I", len(restarts))


def stored(content: bytes, kind: int = 0) -> bytes:
    return content + bytes([kind]) + struct.pack("<I", masked_crc(content + bytes([kind])))


def table(pairs: Pairs, *, kind: int = 0, pack: Callable[[bytes], bytes] = bytes) -> bytes:
    """Returns a table of one block of data; `pack` compresses that, in the way that `kind` says."""
    data, meta = pack(block(pairs)), block([])
    last = pairs[-1][0] + b"\xff" if pairs else b""
    first, second = stored(data, kind), stored(meta)
    index = block([(last, varint(0) + varint(len(data)))])
    handles = varint(len(first)) + varint(len(meta)) + varint(len(first + second)) + varint(len(index))
    return first + second + stored(index) + handles.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)


def pairs_of(index: pathlib.Path) -> Pairs:
    with index.open("rb") as stream:
        return list(read_table(stream, index.stat().st_size))


def change(index: pathlib.Path, name: str, edit: Callable[[tensor_bundle_pb2.BundleEntryProto], object]) -> None:
    """Writes an index anew in which `edit` has changed the entry of a variable, or with "" the header."""
    kind = tensor_bundle_pb2.BundleEntryProto if name else tensor_bundle_pb2.BundleHeaderProto
    pairs = dict(pairs_of(index))
    entry = kind.FromString(pairs[name.encode()])
    edit(entry)
    pairs[name.encode()] = entry.SerializeToString()
    index.write_bytes(table(sorted(pairs.items())))
