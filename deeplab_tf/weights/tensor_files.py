"""Files that are tensors by name: .safetensors and PyTorch's .pth, as TF1 variables."""

import contextlib
import dataclasses
import zipfile
from collections.abc import Callable, Mapping

import numpy as np

from deeplab_tf import files
from deeplab_tf.errors import DamagedError, DeepLabError
from deeplab_tf.weights.pytorch import StateDict, as_float32, read_state_dict
from deeplab_tf.weights.renaming import renamed
from deeplab_tf.weights.systems import system_of

WEIGHTS = "model.safetensors"  # what a repository of the Hugging Face Hub calls its weights
_PICKLED = "pytorch_model.bin"  # and called them earlier
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
# Types of a .safetensors -> what NumPy reads them as (and as_float32 calls them).
_TYPES = {"F32": "f4", "F16": "f2", "BF16": "bfloat16", "F64": "f8", "I64": "i8", "I32": "i4", "U8": "u1", "BOOL": "?"}
_LARGEST_HEADER = 25_000_000  # bytes; more than safetensors writes for a hundred thousand tensors


@dataclasses.dataclass(frozen=True)
class NamedTensors:
    """The tensors of a file under TF1 names; see `sources.WeightSource` for the fields."""

    shapes: Mapping[str, tuple[int, ...]]
    read: Callable[[str], np.ndarray]
    notes: tuple[str, ...]
    model_variant: str | None
    origins: Mapping[str, str]
    left_out: Mapping[str, tuple[tuple[int, ...], str]]


def find(folder: files.AnyPath) -> files.AnyPath | None:
    """Returns the file of weights in a folder as the Hugging Face Hub has them, or None: there is none.

    Raises:
      DeepLabError: the weights are split among several files.
    """
    if not folder.is_dir():
        return None
    for name in (WEIGHTS, _PICKLED):
        if (folder / name).is_file():
            return folder / name
        if (folder / f"{name}.index.json").is_file():
            raise DeepLabError(f"{folder}: its weights are split among several files; expected one, {WEIGHTS}")
    return None


def looks_like_one(path: files.AnyPath) -> bool:
    """Returns whether a file is one of these by what it begins with, whatever its name: model.ckpt, model.pth.tar."""
    with path.open("rb") as stream:
        head = stream.read(16)
        if head.startswith(b"PK"):
            stream.seek(0)
            with contextlib.suppress(zipfile.BadZipFile, ValueError, OSError, NotImplementedError):
                return any(name.endswith("data.pkl") for name in zipfile.ZipFile(stream).namelist())
            return False
    is_pickle = head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04")
    return is_pickle or (head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _LARGEST_HEADER)


def read_safetensors(path: files.AnyPath) -> StateDict:
    """Returns the tensors of a .safetensors: floats as float32.

    Raises:
      DeepLabError: it is damaged, its header or its offsets are impossible, or it has a type that is not read.
    """
    import safetensors  # takes a moment

    try:
        content = path.read_bytes()
        if int.from_bytes(content[:8], "little") > _LARGEST_HEADER:
            raise ValueError(f"a header of {int.from_bytes(content[:8], 'little')} bytes")
        entries = dict(safetensors.deserialize(content))
    except OSError as error:
        raise DeepLabError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (safetensors.SafetensorError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DamagedError(
            f"{path}: damaged, truncated or not a .safetensors ({reason}); fetch or copy it again"
        ) from None
    unknown = {entry["dtype"] for entry in entries.values()} - set(_TYPES)
    if unknown:
        raise DeepLabError(
            f"{path}: holds tensors of {', '.join(sorted(unknown))}; expected one of {', '.join(_TYPES)}"
        )

    def read(name: str) -> np.ndarray:
        entry = entries[name]
        kind = _TYPES[entry["dtype"]]
        values = np.frombuffer(entry["data"], "<u2" if kind == "bfloat16" else np.dtype(kind).newbyteorder("<"))
        return as_float32(values.astype(values.dtype.newbyteorder("="), copy=False).reshape(entry["shape"]), kind)

    rounded = any(entry["dtype"] == "F64" for entry in entries.values())
    notes = ("float64 weights are rounded to float32",) if rounded else ()
    return StateDict({name: tuple(entry["shape"]) for name, entry in entries.items()}, read, notes)


def _is_safetensors(path: files.AnyPath) -> bool:
    if path.suffix.lower() in SUFFIXES:
        return path.suffix.lower() == ".safetensors"
    with path.open("rb") as stream:
        return stream.read(9)[8:] == b"{"


def read_tensors(path: files.AnyPath) -> NamedTensors:
    """Returns the tensors of a .safetensors or of a file of PyTorch's.

    Raises:
      DeepLabError: it is damaged, holds other things than weights, or those of a network that is not known.
    """
    tensors = read_safetensors(path) if _is_safetensors(path) else read_state_dict(path)
    try:
        if not tensors.shapes:
            raise DeepLabError("holds no tensors")
        system = system_of(tensors.shapes)
        if system is None:
            return NamedTensors(tensors.shapes, tensors.read, tensors.notes, None, {}, {})
        found = renamed(system, tensors.shapes, tensors.read)
    except DeepLabError as error:
        raise DeepLabError(f"{path}: {error}") from None
    left_out = {name: (tensors.shapes[name], reason) for name, reason in found.left_out.items()}
    told = (f"names and layout are those of {system.name}", *((system.note,) if system.note else ()))
    notes = (*told, *tensors.notes)
    return NamedTensors(found.shapes, found.read, notes, system.model_variant, found.origins, left_out)
