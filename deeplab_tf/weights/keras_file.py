"""Keras's own files as sources of weights: .keras and .h5 of whole models, and .weights.h5, which lack the network.

A file is looked at before Keras opens it: what could run code, or reach beyond the file, is refused.
"""

import contextlib
import io
import pathlib
import stat
import struct
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import h5py
import keras
import tensorflow as tf

from deeplab_tf import files
from deeplab_tf.config import ModelConfig
from deeplab_tf.documents.json_files import JSONError, parse_json
from deeplab_tf.errors import DamagedError, DeepLabError, first_line, is_out_of_memory
from deeplab_tf.network.build import build_model
from deeplab_tf.network.model import Network
from deeplab_tf.network.wrapped import as_network

HDF5 = (".h5", ".hdf5")
EXTENSIONS = (".keras", *HDF5)
WEIGHTS_ALONE = ".weights.h5"
_CONFIG = "config.json"
_MEMBERS = {_CONFIG, "metadata.json", "model.weights.h5"}
_LARGEST_CONFIG = 1 << 26  # bytes; that of Xception-71 has about a thousandth of it
# What Keras and HDF5 raise of a file: a description is executed layer by layer, and any of them may refuse it.
_KERAS_ERRORS = (
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    AssertionError,
    ImportError,
    OSError,
    EOFError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
    tf.errors.OpError,
)
# Layers whose description holds code, or names a file with code.
_WITH_CODE = {"Lambda", "__lambda__", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"}


def is_keras_file(path: files.AnyPath) -> bool:
    """Returns whether a path has an ending of Keras's files."""
    return path.suffix.lower() in EXTENSIONS


def is_weights_alone(path: files.AnyPath) -> bool:
    """Returns whether a path has the ending of Keras's files of weights without their network."""
    return path.name.lower().endswith(WEIGHTS_ALONE)


def _reason(error: Exception) -> str:
    return first_line(error)[:300]


@contextlib.contextmanager
def here(path: files.AnyPath) -> Iterator[str]:
    """Gives the name of a file of this machine with the content of `path`, and the ending that Keras goes by."""
    suffix = WEIGHTS_ALONE if is_weights_alone(path) else path.suffix.lower()
    if isinstance(path, pathlib.Path) and str(path).endswith(suffix):
        yield str(path)
        return
    with tempfile.TemporaryDirectory(prefix="deeplab_tf-") as folder:
        copy = pathlib.Path(folder) / f"model{suffix}"
        files.copy(path, copy)
        yield str(copy)


def _described(values: object) -> Iterator[Mapping[str, Any]]:
    """Yields the description of each object in a saved configuration, from the outermost inwards."""
    waiting = [values]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if isinstance(value.get("class_name"), str):
                yield value
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _own_class(value: Mapping[str, Any]) -> str | None:
    """Returns the name of a described object's class where it is neither Keras's nor ours nor known to Keras here."""
    name, module = value.get("registered_name"), value.get("module")
    if not isinstance(name, str) or not isinstance(module, str):
        return None
    foreign = not module.startswith(("keras.", "deeplab_tf.")) and module not in ("keras", "builtins")
    known = name.startswith("deeplab_tf>") or keras.saving.get_registered_object(name) is not None
    return " ".join(name.split())[:60] if foreign and not known else None


def _check_description(path: files.AnyPath, text: str | bytes) -> None:
    """Raises DeepLabError unless a saved configuration, JSON, is that of a network of ours, without code."""
    try:
        values = parse_json(text, object)
    except JSONError as error:
        raise DamagedError(f"{path}: its configuration is damaged ({_reason(error)}); save the model again") from None
    classes = [str(value.get("registered_name") or value["class_name"]) for value in _described(values)]
    classes += [str(value["class_name"]) for value in _described(values)]
    code = next((name for name in classes if name.rpartition(">")[2] in _WITH_CODE), None)
    if code:
        raise DeepLabError(f"{path}: holds a {code}, which is code, and is not run; expected layers alone")
    own = next((name for value in _described(values) if (name := _own_class(value))), None)
    if own:
        raise DeepLabError(
            f"{path}: needs the class {own} of another program, which is not run; there, save the network that it is "
            "made of: model.network.save('model.keras') where the attribute is called network"
        )
    if not any(name.startswith("deeplab_tf>") for name in classes):
        kind = classes[0] if classes else "nothing"
        raise DeepLabError(
            f"{path}: a model of Keras ({kind}), and not one of deeplab_tf; expected what model.save(...) writes of a "
            "model from deeplab_tf.build_model or deeplab_tf.load"
        )


def _datasets(path: files.AnyPath, group: Any, seen: set[int]) -> Iterator[Any]:
    """Yields the data sets of an HDF5 file, whose groups `seen` holds.

    Raises:
      DeepLabError: data lie in another file, or are links.
    """
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise DeepLabError(f"{path}: {name} is a link of HDF5; expected the weights themselves")
        entry = group[name]
        address = h5py.h5o.get_info(entry.id).addr
        if address in seen:
            raise DeepLabError(f"{path}: {name} is a second link of HDF5 to the same; expected the weights themselves")
        seen.add(address)
        if isinstance(entry, h5py.Group):
            yield from _datasets(path, entry, seen)
        elif isinstance(entry, h5py.Dataset):
            if entry.external or entry.is_virtual:
                raise DeepLabError(f"{path}: the values of {name} lie in another file; expected them in this one")
            yield entry


def check_content(path: files.AnyPath, content: Any, size: int) -> None:
    """Raises DeepLabError where an HDF5 file of `size` bytes has links, data elsewhere, or more of them than bytes."""
    declared = 0
    for entry in _datasets(path, content, {h5py.h5o.get_info(content.id).addr}):
        declared += (entry.size or 0) * entry.dtype.itemsize
        if declared > size:
            raise DeepLabError(
                f"{path}: {entry.name} is of shape {entry.shape}, and with it the data are larger than the file, which "
                "those of Keras never are; expected a file of model.save(...)"
            )


def _check_member(path: files.AnyPath, member: zipfile.ZipInfo) -> None:
    name = member.filename
    outside = name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/") or ":" in name
    if outside or stat.S_ISLNK(member.external_attr >> 16):
        raise DeepLabError(f"{path}: its entry {name!r} leads out of the archive; expected a file of model.save(...)")
    if name not in _MEMBERS:
        raise DeepLabError(
            f"{path}: has an entry {name!r}, which models of deeplab_tf do not have; expected "
            f"{', '.join(sorted(_MEMBERS))}"
        )


def _check_archive(path: files.AnyPath, local: str) -> None:
    """Raises DeepLabError unless a .keras file is an archive of a network of ours and nothing else."""
    with zipfile.ZipFile(local) as archive:
        for member in archive.infolist():
            _check_member(path, member)
        names = archive.namelist()
        missing = next((name for name in sorted(_MEMBERS) if names.count(name) != 1), None)
        if missing:
            raise DamagedError(f"{path}: has {names.count(missing)} entries {missing!r}; expected one, save it again")
        if archive.getinfo(_CONFIG).file_size > _LARGEST_CONFIG:
            raise DeepLabError(
                f"{path}: its {_CONFIG} has over {_LARGEST_CONFIG} bytes; expected a file of model.save(...)"
            )
        _check_description(path, archive.read(_CONFIG))
        weights = archive.getinfo("model.weights.h5")
        if weights.file_size > 2 * weights.compress_size + (1 << 20):  # Keras does not compress
            raise DeepLabError(f"{path}: its weights unpack to {weights.file_size} bytes; expected an archive of Keras")
        with h5py.File(io.BytesIO(archive.read(weights)), "r") as content:
            check_content(path, content, weights.file_size)


def _check_hdf5(path: files.AnyPath, local: str) -> None:
    with h5py.File(local, "r") as content:
        check_content(path, content, pathlib.Path(local).stat().st_size)
        description = content.attrs.get("model_config")
        if description is None:
            raise DeepLabError(
                f"{path}: holds weights of Keras without their network; give the network by its flags to a file that "
                f"is called ...{WEIGHTS_ALONE}, or save the whole model by model.save('model.keras')"
            )
        _check_description(path, description)


@contextlib.contextmanager
def opening(path: files.AnyPath) -> Iterator[None]:
    """Turns what Keras and HDF5 raise of a file into one line."""
    try:
        yield
    except DeepLabError:
        raise
    except zipfile.BadZipFile as error:
        raise DamagedError(
            f"{path}: not an archive of Keras, or a damaged one ({_reason(error)}); copy it again"
        ) from None
    except _KERAS_ERRORS as error:
        if is_out_of_memory(error):
            raise
        raise DamagedError(
            f"{path}: Keras cannot open it ({_reason(error)}); expected an intact file, save it again"
        ) from None


def read_keras_file(path: files.AnyPath) -> Network:
    """Returns the network of a .keras or .h5 file of a whole model, which may wrap it.

    Raises:
      DeepLabError: it is damaged, is not a network of ours, holds code, or refers to other files.
    """
    with opening(path), here(path) as local:
        if path.suffix.lower() == ".keras":
            _check_archive(path, local)
        else:
            _check_hdf5(path, local)
        model = keras.saving.load_model(local, compile=False, safe_mode=True)
    try:
        return as_network(model)
    except DeepLabError as error:
        raise DeepLabError(f"{path}: {error}") from None


def read_weights_alone(path: files.AnyPath, config: ModelConfig) -> Network:
    """Returns the network of `config` with the weights of a .weights.h5, which has them in the order of the layers.

    Raises:
      DeepLabError: it is damaged, refers to other files, or is that of another network.
    """
    model = build_model(config, zeros=True)
    with opening(path), here(path) as local:
        with h5py.File(local, "r") as content:
            check_content(path, content, pathlib.Path(local).stat().st_size)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # Keras warns of layers that the file lacks, and leaves them as they are
                model.load_weights(local)
        except (ValueError, Warning) as error:
            raise DeepLabError(
                f"{path}: does not fit a {config.model_variant} of these options ({_reason(error)}); give the flags "
                "that it was trained with"
            ) from None
    return model
