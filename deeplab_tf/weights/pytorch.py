"""PyTorch's files of weights, .pth, .pt and .bin, in both of its formats, read without PyTorch and as data alone.

The format since 1.6 is a ZIP archive of a pickle and a file for each storage; the one before is a row of pickles with
the storages behind them (torch/serialization.py).
"""

import dataclasses
import io
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np

from deeplab_tf import files
from deeplab_tf.errors import DamagedError, DeepLabError, first_line
from deeplab_tf.weights.pickled import LARGEST_PICKLE, RefusedError, Storage, Tensor, read_pickle

_ZIP = b"PK"
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LOCAL_HEADER = 30  # bytes of a ZIP entry's header, without its name and extra field
_SAVE = "save the weights alone: torch.save(model.state_dict(), 'weights.pth')"
# What training programs call the weights in a file that holds more, the likeliest first.
_WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "weights", "module")
_PREFIX = "module."  # that of torch.nn.DataParallel


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where the bytes of a storage lie in the file, and their CRC-32 where it is known."""

    start: int
    size: int
    crc: int | None = None


@dataclasses.dataclass(frozen=True)
class StateDict:
    """The tensors of a file.

    Attributes:
      shapes: name -> shape, in the order of the file.
      read: name -> array, of float32 for every type of float; DamagedError where the bytes are damaged.
      notes: what was chosen or left out, a line each.
    """

    shapes: Mapping[str, tuple[int, ...]]
    read: Callable[[str], np.ndarray]
    notes: tuple[str, ...]


def as_float32(values: np.ndarray, dtype: str) -> np.ndarray:
    """Returns values of a type of float as float32, others as they are; bfloat16 comes as uint16."""
    if dtype == "bfloat16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32) if values.dtype.kind == "f" else values


def _element(dtype: str, order: str) -> np.dtype:
    return np.dtype(f"{order}{'u2' if dtype == 'bfloat16' else dtype}")


def _zip_entries(archive: zipfile.ZipFile, stream: Any, path: object) -> tuple[str, dict[str, _Place]]:
    """Returns the folder that all entries lie in, and the place of each entry by its name in that folder."""
    pickles = [info.filename for info in archive.infolist() if info.filename.rpartition("/")[2] == "data.pkl"]
    names = {info.filename.rpartition("/")[2] for info in archive.infolist()}
    if "constants.pkl" in names:
        raise DeepLabError(f"{path}: a TorchScript program, which would have to be run; {_SAVE}")
    if len(pickles) != 1:
        raise DeepLabError(f"{path}: a ZIP archive, not PyTorch's ({len(pickles)} files data.pkl); expected one")
    folder = pickles[0].removesuffix("data.pkl")
    places: dict[str, _Place] = {}
    for info in archive.infolist():
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 or info.compress_size != info.file_size:
            raise DeepLabError(f"{path}: its entry {info.filename!r} is compressed, which PyTorch never does; {_SAVE}")
        stream.seek(info.header_offset)
        header = stream.read(_LOCAL_HEADER)
        if len(header) < _LOCAL_HEADER:
            raise ValueError(f"entry {info.filename!r} lies behind the end")
        name, extra = struct.unpack("<HH", header[26:30])
        start = info.header_offset + _LOCAL_HEADER + name + extra
        places[info.filename.removeprefix(folder)] = _Place(start, info.file_size, info.CRC or None)
    return folder, places


class _File:
    """An open file of PyTorch's: what it holds, and where its storages lie."""

    def __init__(self, path: files.AnyPath):
        self.path = path
        self.order = "<"
        self.places: dict[str, _Place] = {}
        with path.open("rb") as stream:
            stream.seek(0, os.SEEK_END)
            self.size = stream.tell()
            stream.seek(0)
            if stream.read(2) == _ZIP:
                self.content = self._read_zip(stream)
            else:
                stream.seek(0)
                self.content = self._read_legacy(stream)

    def _bytes(self, stream: Any, place: _Place) -> bytes:
        if place.start + place.size > self.size:
            raise ValueError("it ends within a storage")
        stream.seek(place.start)
        content = stream.read(place.size)
        if len(content) != place.size or (place.crc is not None and zlib.crc32(content) != place.crc):
            raise ValueError("the bytes of a storage are not those that were written")
        return content

    def _read_zip(self, stream: Any) -> object:
        stream.seek(0)
        with zipfile.ZipFile(stream) as archive:
            _, entries = _zip_entries(archive, stream, self.path)
        pickle = entries["data.pkl"]
        if pickle.size > LARGEST_PICKLE:
            raise RefusedError(f"has a pickle of {pickle.size} bytes, which no state dict needs")
        content = read_pickle(io.BytesIO(self._bytes(stream, pickle)))
        order = entries.get("byteorder")
        if order and order.size < 10 and self._bytes(stream, order).strip() == b"big":
            self.order = ">"
        self.places = {name.removeprefix("data/"): p for name, p in entries.items() if name.startswith("data/")}
        return content

    def _read_legacy(self, stream: Any) -> object:
        head = io.BytesIO(stream.read(LARGEST_PICKLE))
        if read_pickle(head) != _LEGACY_MAGIC:
            raise RefusedError("is a pickle, but not PyTorch's")
        read_pickle(head)  # the version of the format
        system = read_pickle(head)
        if isinstance(system, dict) and cast("dict[str, object]", system).get("little_endian") is False:
            self.order = ">"
        content = read_pickle(head)
        keys = read_pickle(head)
        sizes = {storage.key: storage for storage in _storages(content)}
        if not isinstance(keys, list):
            raise ValueError("no list of its storages")
        start = head.tell()
        for key in cast("list[Any]", keys):
            storage = sizes.get(key) if isinstance(key, str) else None
            if storage is None:
                raise ValueError("a storage that no tensor has")
            stream.seek(start)
            (elements,) = struct.unpack(f"{self.order}q", stream.read(8))
            size = storage.elements * _element(storage.dtype, self.order).itemsize
            if elements != storage.elements:
                raise ValueError(f"storage {key!r} has {elements} elements instead of {storage.elements}")
            self.places[storage.key] = _Place(start + 8, size)
            start += 8 + size
        return content

    def check(self, storage: Storage) -> None:
        """ValueError where the bytes of a storage are not all there."""
        place = self.places.get(storage.key)
        size = storage.elements * _element(storage.dtype, self.order).itemsize
        if place is None or place.size != size or place.start + size > self.size:
            found = "none" if place is None else place.size
            raise ValueError(f"storage {storage.key[:20]!r} should have {size} bytes, and has {found}")

    def array(self, tensor: Tensor) -> np.ndarray:
        """Returns a tensor's values, floats as float32."""
        with self.path.open("rb") as stream:
            content = self._bytes(stream, self.places[tensor.storage.key])
        values = np.frombuffer(content, _element(tensor.storage.dtype, self.order))
        steps = [step * values.itemsize for step in tensor.strides]
        view = np.lib.stride_tricks.as_strided(values[tensor.offset :], tensor.shape, steps, writeable=False)
        native = np.ascontiguousarray(view).astype(view.dtype.newbyteorder("="), copy=False).reshape(tensor.shape)
        return as_float32(native, tensor.storage.dtype)


def _storages(content: object) -> list[Storage]:
    """Returns the storages of all tensors in nested containers, each container once."""
    found: list[Storage] = []
    seen: set[int] = set()
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor):
            found.append(value.storage)
        elif isinstance(value, Storage):
            found.append(value)
        elif isinstance(value, dict | list | tuple) and id(cast(object, value)) not in seen:
            seen.add(id(cast(object, value)))
            waiting += cast("dict[Any, Any]", value).values() if isinstance(value, dict) else cast("list[Any]", value)
    return found


def _tensors(value: object) -> dict[str, Tensor]:
    """Returns the named tensors of a dictionary."""
    pairs = cast("dict[Any, Any]", value).items() if isinstance(value, dict) else ()
    return {key: tensor for key, tensor in pairs if isinstance(tensor, Tensor) and isinstance(key, str)}


def _state_dict(content: object) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Returns the tensors of the state dict in what a file holds, and notes."""
    if not isinstance(content, dict):
        kind = "tensor without a name" if isinstance(content, Tensor) else type(content).__name__
        raise RefusedError(f"holds a {kind}, not a state dict")
    entries = cast("dict[Any, Any]", content)
    tensors = _tensors(entries)
    notes: list[str] = []
    if not tensors:
        inner = {str(key): found for key, value in entries.items() if (found := _tensors(value))}
        names = [name for name in _WRAPPERS if name in inner] or list(inner)
        if not names:
            raise RefusedError(f"holds no tensors by name (its entries: {_listed(entries) or 'none'})")
        if len(names) > 1 and names[0] not in _WRAPPERS:
            raise RefusedError(f"holds several state dicts ({_listed(names)}), and none of them is called state_dict")
        tensors = inner[names[0]]
        others = _listed(set(entries) - {names[0]}) or "nothing"
        notes.append(f"the weights are those under {names[0]!r}; left out: {others}")
    elif len(tensors) < len(entries):
        notes.append(f"left out, because they are not tensors: {_listed(set(entries) - set(tensors))}")
    if all(name.startswith(_PREFIX) for name in tensors):
        tensors = {name.removeprefix(_PREFIX): tensor for name, tensor in tensors.items()}
    return tensors, tuple(notes)


def _listed(names: Any) -> str:
    shown = sorted(" ".join(str(name).split())[:40] for name in names)
    return ", ".join(shown[:5]) + (f" and {len(shown) - 5} more" if len(shown) > 5 else "")


def read_state_dict(path: str | os.PathLike[str]) -> StateDict:
    """Returns the weights of a file that torch.save wrote: a state dict, or a dictionary that holds one.

    Nothing in the file is executed. Types, sizes, strides and offsets are checked against its bytes before an array is
    made; the arrays are read one at a time.

    Raises:
      DeepLabError: it is not such a file, it is damaged, or it holds code or other things than weights.
    """
    place = files.path(path)
    try:
        file = _File(place)
        tensors, notes = _state_dict(file.content)
        for tensor in tensors.values():
            file.check(tensor.storage)
    except RefusedError as error:
        raise DeepLabError(f"{path}: {error}; {_SAVE}") from None
    except OSError as error:
        raise DeepLabError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, KeyError, struct.error, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise error if isinstance(error, DeepLabError) else _damaged(path, error) from None

    def read(name: str) -> np.ndarray:
        try:
            return file.array(tensors[name])
        except (ValueError, OSError) as error:
            raise _damaged(f"{path}: {name}", error) from None

    if any(tensor.storage.dtype == "f8" for tensor in tensors.values()):
        notes = (*notes, "float64 weights are rounded to float32")
    return StateDict({name: tensor.shape for name, tensor in tensors.items()}, read, notes)


def _damaged(path: object, error: Exception) -> DamagedError:
    reason = first_line(error)[:200]
    return DamagedError(f"{path}: damaged, truncated or not a file of PyTorch's ({reason}); fetch or copy it again")
