"""What a checkpoint of TensorFlow's holds, read here and compared with its files before TensorFlow sees any of it.

TensorFlow's own reader ends the process over an index whose checksums are right and whose shapes are absurd. What
`read_index` returns is safe to give to it: every shape, type, size and place was checked, and slices make up their
variable. Both formats are known: an index with files of data (tensorflow/core/protobuf/tensor_bundle.proto), and the
one file of the first version (tensorflow/core/util/saved_tensor_slice.proto).
"""

import dataclasses
import math
import typing
from collections.abc import Iterator, Mapping, Sequence

from google.protobuf.message import DecodeError, Message
from tensorflow.core.framework import tensor_shape_pb2, tensor_slice_pb2, types_pb2
from tensorflow.core.protobuf import tensor_bundle_pb2
from tensorflow.core.util import saved_tensor_slice_pb2

from deeplab_tf import files
from deeplab_tf.weights.sorted_table import TableError, read_table

_LARGEST_INDEX = 1 << 26  # bytes; that of the largest network takes 200,000
_MOST_DIMENSIONS = 8
_MOST_VALUES = 1 << 29  # of a variable: 2 GB; the largest kernel here has 19 million
_MOST_SHARDS = 1000
_MOST_SLICES = 1000  # of a variable
_SLICE = b"\0"  # begins the key of a slice
# Bytes a value takes; of what is not here TensorFlow's reader is not asked.
_BYTES = {
    **dict.fromkeys((types_pb2.DT_FLOAT, types_pb2.DT_INT32, types_pb2.DT_UINT32), 4),
    **dict.fromkeys((types_pb2.DT_DOUBLE, types_pb2.DT_INT64, types_pb2.DT_UINT64, types_pb2.DT_COMPLEX64), 8),
    **dict.fromkeys((types_pb2.DT_HALF, types_pb2.DT_BFLOAT16, types_pb2.DT_INT16, types_pb2.DT_UINT16), 2),
    **dict.fromkeys((types_pb2.DT_INT8, types_pb2.DT_UINT8, types_pb2.DT_BOOL), 1),
    types_pb2.DT_COMPLEX128: 16,
}
# What TensorFlow 2 keeps beside the weights, such as the graph of the objects. It is named, and never read.
_UNREAD = (types_pb2.DT_STRING, types_pb2.DT_VARIANT)


@dataclasses.dataclass(frozen=True)
class Index:
    """The variables of a checkpoint.

    Attributes:
      shapes: name -> shape.
      unread: names of those whose values are no numbers.
    """

    shapes: Mapping[str, tuple[int, ...]]
    unread: frozenset[str]


_Parsed = typing.TypeVar("_Parsed", bound=Message)


def _parsed(kind: type[_Parsed], content: bytes, name: str) -> _Parsed:
    try:
        return kind.FromString(content)
    except (DecodeError, RecursionError) as error:
        raise TableError(f"what it says of {name!r} cannot be read: {error}") from None


def _name(key: bytes) -> str:
    try:
        return key.decode()
    except UnicodeDecodeError:
        raise TableError(f"the name {key!r} is not text") from None


def _shape(proto: tensor_shape_pb2.TensorShapeProto, name: str) -> tuple[int, ...]:
    if proto.unknown_rank or len(proto.dim) > _MOST_DIMENSIONS:
        raise TableError(f"{name!r} has {len(proto.dim)} dimensions; expected at most {_MOST_DIMENSIONS}")
    shape = tuple(dim.size for dim in proto.dim)
    if any(size < 0 for size in shape) or math.prod(max(size, 1) for size in shape) > _MOST_VALUES:
        raise TableError(f"{name!r} has the shape {list(shape)}, which no variable has")
    return shape


def _require_type(dtype: int, name: str) -> None:
    if dtype not in _BYTES and dtype not in _UNREAD:
        raise TableError(f"{name!r} has the type {dtype}; expected one of numbers")


_Extents = tuple[tuple[int, int], ...]  # begin and length in each dimension


def _extents(proto: tensor_slice_pb2.TensorSliceProto, shape: tuple[int, ...], name: str) -> _Extents:
    """Returns the part of a variable that a slice is; one without a length is the whole."""
    if len(proto.extent) != len(shape):
        raise TableError(f"a slice of {name!r} has {len(proto.extent)} dimensions, the variable {len(shape)}")
    parts = [
        (part.start, part.length) if part.HasField("length") else (0, size)
        for part, size in zip(proto.extent, shape, strict=True)
    ]
    for (start, length), size, part in zip(parts, shape, proto.extent, strict=True):
        if start < 0 or length < 0 or start + length > size or (part.start and not part.HasField("length")):
            raise TableError(f"a slice of {name!r} lies outside of it")
    return tuple(parts)


def _require_whole(slices: Sequence[_Extents], shape: tuple[int, ...], name: str) -> None:
    """Raises TableError unless slices make up a variable, each value once."""
    if len(slices) > _MOST_SLICES:
        raise TableError(f"{name!r} has {len(slices)} slices; expected at most {_MOST_SLICES}")
    volume = sum(math.prod(length for _, length in part) for part in slices)
    for number, one in enumerate(slices):
        for other in slices[:number]:
            if all(a < c + d and c < a + b for (a, b), (c, d) in zip(one, other, strict=True)):
                raise TableError(f"slices of {name!r} overlap")
    if volume != math.prod(shape):
        raise TableError(f"the slices of {name!r} have {volume} values, the variable {math.prod(shape)}")


def _number(value: int) -> bytes:
    """Returns a number as the keys of slices have it, so that they are ordered by it (strings/ordered_code.cc)."""
    digits = value.to_bytes((value.bit_length() + 7) // 8, "big")
    return bytes([len(digits)]) + digits


def _signed(value: int) -> bytes:
    """Returns a number with its sign as the keys of slices have it."""
    size = next(n for n in range(1, 11) if -(1 << (7 * n - 1)) <= value < 1 << (7 * n - 1))
    # Of the first bits as many are set as there are bytes; a negative number has them the other way round.
    bits = value & ((1 << (8 * size)) - 1) ^ (((1 << size) - 1) << (7 * size))
    return bits.to_bytes(size, "big")


def slice_key(name: str, proto: tensor_slice_pb2.TensorSliceProto) -> bytes:
    """Returns the key of a slice of a variable (EncodeTensorNameSlice of util/saved_tensor_slice_util.cc)."""
    text = name.encode().replace(b"\xff", b"\xff\0").replace(b"\0", b"\0\xff") + b"\0\1"
    pairs = [(part.start, part.length) if part.HasField("length") else (0, -1) for part in proto.extent]
    return _number(0) + text + _number(len(pairs)) + b"".join(_signed(value) for pair in pairs for value in pair)


# ---- an index and its data


def _entry_bytes(entry: tensor_bundle_pb2.BundleEntryProto, name: str) -> tuple[int, ...]:
    """Returns the shape of an entry; TableError where its size is not that of its values."""
    shape = _shape(entry.shape, name)
    _require_type(entry.dtype, name)
    count = math.prod(shape)
    wanted = count * _BYTES.get(entry.dtype, 0)
    if entry.dtype in _BYTES and entry.size != wanted or entry.dtype in _UNREAD and entry.size < count:
        raise TableError(f"{name!r} has {entry.size} bytes; its shape {list(shape)} takes {wanted}")
    return shape


def _require_slices(
    entry: tensor_bundle_pb2.BundleEntryProto,
    name: str,
    parts: dict[bytes, tensor_bundle_pb2.BundleEntryProto],
) -> tuple[int, ...]:
    """Takes the slices of a variable out of `parts`; returns its shape."""
    shape = _shape(entry.shape, name)
    _require_type(entry.dtype, name)
    extents = [_extents(proto, shape, name) for proto in entry.slices]
    for proto, extent in zip(entry.slices, extents, strict=True):
        part = parts.pop(slice_key(name, proto), None)
        if part is None:
            raise TableError(f"a slice of {name!r} is missing")
        own = tuple(length for _, length in extent)
        if _entry_bytes(part, name) != own or part.dtype != entry.dtype:
            raise TableError(f"a slice of {name!r} has another shape or type than the variable says")
    _require_whole(extents, shape, name)
    return shape


def shard_name(name: str, number: int, count: int) -> str:
    """Returns the name of a file of data of the checkpoint with the prefix `name`."""
    return f"{name}.data-{number:05d}-of-{count:05d}"


def _require_data(
    prefix: files.AnyPath, count: int, entries: Iterator[tuple[str, tensor_bundle_pb2.BundleEntryProto]]
) -> None:
    """Raises TableError unless every entry lies within its file of data, and none within another."""
    if not 0 < count <= _MOST_SHARDS:
        raise TableError(f"it has {count} files of data; expected 1 to {_MOST_SHARDS}")
    shards = [prefix.parent / shard_name(prefix.name, number, count) for number in range(count)]
    for shard in shards:
        if not shard.is_file():
            raise TableError(f"{shard.name} is missing")
    sizes = [shard.stat().st_size for shard in shards]
    ends = [0] * count
    for name, entry in sorted(entries, key=lambda item: (item[1].offset, item[1].size)):
        if entry.offset < 0 or entry.size < 0:
            raise TableError(f"{name!r} lies at {entry.offset} and has {entry.size} bytes")
        if not 0 <= entry.shard_id < count:
            raise TableError(f"{name!r} lies in file {entry.shard_id} of {count}")
        if entry.offset + entry.size > sizes[entry.shard_id]:
            raise TableError(
                f"{name!r} ends at byte {entry.offset + entry.size} of {shards[entry.shard_id].name}, which has "
                f"{sizes[entry.shard_id]}"
            )
        if entry.offset < ends[entry.shard_id] and entry.size:
            raise TableError(f"the data of {name!r} overlap those of another")
        ends[entry.shard_id] = max(ends[entry.shard_id], entry.offset + entry.size)


def _read_bundle(prefix: files.AnyPath, table: Iterator[tuple[bytes, bytes]]) -> Index:
    key, content = next(table, (b"-", b""))
    if key:
        raise TableError("it does not say how many files of data there are")
    header = _parsed(tensor_bundle_pb2.BundleHeaderProto, content, "the header")
    if header.endianness not in (header.LITTLE, header.BIG):
        raise TableError(f"it has the byte order {header.endianness}")
    parts: dict[bytes, tensor_bundle_pb2.BundleEntryProto] = {}
    entries: dict[str, tensor_bundle_pb2.BundleEntryProto] = {}
    for key, content in table:
        shown = repr(key[:80])
        entry = _parsed(tensor_bundle_pb2.BundleEntryProto, content, shown)
        if key.startswith(_SLICE):
            parts[key] = entry
        else:
            entries[_name(key)] = entry
    _require_data(
        prefix,
        header.num_shards,
        (
            (name if isinstance(name, str) else repr(name), entry)
            for name, entry in [*entries.items(), *parts.items()]
            if not entry.slices
        ),
    )
    shapes = {
        name: _require_slices(entry, name, parts) if entry.slices else _entry_bytes(entry, name)
        for name, entry in entries.items()
    }
    if parts:
        raise TableError(f"the slice {next(iter(parts))!r} belongs to no variable")
    return Index(shapes, frozenset(name for name, entry in entries.items() if entry.dtype in _UNREAD))


# ---- the first version's one file


def _read_first_version(table: Iterator[tuple[bytes, bytes]]) -> Index:
    key, content = next(table, (b"-", b""))
    if key or len(content) > _LARGEST_INDEX:
        raise TableError("it does not say which variables it holds")
    meta = _parsed(saved_tensor_slice_pb2.SavedTensorSlices, content, "the header").meta
    sizes = {key: len(content) for key, content in table}
    shapes: dict[str, tuple[int, ...]] = {}
    for tensor in meta.tensor:
        if tensor.name in shapes:
            raise TableError(f"{tensor.name!r} is there twice")
        shape = shapes[tensor.name] = _shape(tensor.shape, tensor.name)
        _require_type(tensor.type, tensor.name)
        extents = [_extents(proto, shape, tensor.name) for proto in tensor.slice]
        _require_whole(extents, shape, tensor.name)
        # Numbers are packed here, integers in as few bytes as they need: one at least.
        each = {types_pb2.DT_FLOAT: 4, types_pb2.DT_DOUBLE: 8}.get(tensor.type, 1)
        for proto, extent in zip(tensor.slice, extents, strict=True):
            wanted = each * math.prod(length for _, length in extent)
            if sizes.get(slice_key(tensor.name, proto), -1) < wanted:
                raise TableError(f"the values of {tensor.name!r} are not all there")
    return Index(shapes, frozenset(tensor.name for tensor in meta.tensor if tensor.type in _UNREAD))


def read_index(prefix: files.AnyPath) -> Index:
    """Returns the variables of the checkpoint with this prefix, of which everything was compared with its files.

    The values are not read: TensorFlow compares their checksums when it reads them.

    Raises:
      TableError: a size, shape, type or place is absurd, or does not fit the files.
      OSError: a file cannot be read.
    """
    index = prefix.parent / f"{prefix.name}.index"
    if not index.is_file():
        with prefix.open("rb") as stream:
            return _read_first_version(read_table(stream, prefix.stat().st_size))
    size = index.stat().st_size
    if size > _LARGEST_INDEX:
        raise TableError(f"its index has {size} bytes; expected at most {_LARGEST_INDEX}")
    with index.open("rb") as stream:
        return _read_bundle(prefix, read_table(stream, size))
