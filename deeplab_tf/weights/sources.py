"""Readers of weights: TF1 checkpoints, frozen graphs and TFLite models, Caffe's, PyTorch's and Hugging Face's files.

All give the same view, `WeightSource`: TF1 variable names with their shapes, and the values one at a time.
"""

import contextlib
import dataclasses
import glob
import hashlib
import os
import pathlib
import tempfile
import typing
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from deeplab_tf import files
from deeplab_tf.config import ModelConfig
from deeplab_tf.config.fields import WEIGHTS
from deeplab_tf.errors import DamagedError, DeepLabError, first_line
from deeplab_tf.network.model import Network
from deeplab_tf.weights import archives, caffe, caffe_names, keras_file, keras_layers, kinds, tensor_files
from deeplab_tf.weights.checkpoint_index import read_index
from deeplab_tf.weights.frozen_graph import read_frozen
from deeplab_tf.weights.lite_names import read_named
from deeplab_tf.weights.lite_weights import READ_ERRORS, read_lite
from deeplab_tf.weights.variables import variable_map

MODEL_FILE = "deeplab.json"
MODEL_PREFIX = "model.ckpt"
_NORM_LEAVES = ("gamma", "beta", "moving_mean", "moving_variance")
_LEAVES = ("weights", "biases", "depthwise_weights", "pointwise_weights", *_NORM_LEAVES)
# TensorFlow's checkpoint reader turns its statuses into Python's own errors: OutOfRange into IndexError, and so on.
_READ_ERRORS = (tf.errors.OpError, RuntimeError, ValueError, LookupError, OSError, SystemError, TypeError)


@dataclasses.dataclass(frozen=True)
class WeightSource:
    """Named tensors of a file.

    Attributes:
      path: the user's name of it.
      sha256: of the file; of a checkpoint, of its data and its index, in this order.
      shapes: TF1 variable name -> shape.
      read: name -> array; raises DeepLabError if the file is damaged.
      notes: what a user should know about how the file was read.
      model_variant: the backbone, if the format tells it from others with the same variables.
      config: the network, if the format tells all of it.
      card: what the format tells of the classes and pictures, as `Network.card`.
      known: fields of ModelConfig that the file tells and its shapes do not.
      origins: TF1 name -> the name in the file, where that is another.
      left_out: names in the file that have no place here -> (shape, reason).
    """

    path: str
    sha256: str
    shapes: Mapping[str, tuple[int, ...]]
    read: Callable[[str], np.ndarray]
    notes: tuple[str, ...] = ()
    model_variant: str | None = None
    config: ModelConfig | None = None
    card: Mapping[str, typing.Any] | None = None
    known: Mapping[str, typing.Any] = dataclasses.field(default_factory=dict)
    origins: Mapping[str, str] = dataclasses.field(default_factory=dict[str, str])
    left_out: Mapping[str, tuple[tuple[int, ...], str]] = dataclasses.field(
        default_factory=dict[str, tuple[tuple[int, ...], str]]
    )


def sha256_of(*paths: str | os.PathLike[str]) -> str:
    """Returns the hexadecimal SHA-256 of the files' bytes, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with files.path(path).open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _damaged(path: object, error: Exception) -> DamagedError:
    reason = first_line(error)
    return DamagedError(f"{path}: damaged or truncated ({reason}); expected an intact file, fetch or copy it again")


def index_of(prefix: files.AnyPath) -> files.AnyPath:
    """Returns the path of the index of the checkpoint with this prefix."""
    return prefix.parent / f"{prefix.name}.index"


@contextlib.contextmanager
def reading(path: object) -> Iterator[None]:
    """Turns the errors of TensorFlow's checkpoint reader into a DamagedError that names `path`."""
    try:
        yield
    except DeepLabError:
        raise
    except _READ_ERRORS as error:
        raise _damaged(path, error) from None


@contextlib.contextmanager
def _trusted_reader(prefix: files.AnyPath) -> Iterator[typing.Any]:
    """Gives a checkpoint whose index was checked to TensorFlow."""
    with files.plain(prefix) as readable:
        yield tf.compat.v1.train.NewCheckpointReader(readable)


@contextlib.contextmanager
def checkpoint_reader(prefix: str | os.PathLike[str]) -> Iterator[typing.Any]:
    """Opens a checkpoint by its prefix, which may contain characters of patterns, with TensorFlow's reader.

    `read_index` has compared it with its files before; within `reading`, what is wrong becomes a DamagedError.
    """
    path = files.path(prefix)
    read_index(path)
    with _trusted_reader(path) as reader:
        yield reader


@contextlib.contextmanager
def _checkpoint(prefix: files.AnyPath, shown: str) -> Iterator[WeightSource]:
    """Opens a checkpoint that the user knows as `shown`."""
    data = sorted(prefix.parent.glob(f"{glob.escape(prefix.name)}.data-*"))
    index = index_of(prefix)
    whole = [*data, index] if index.is_file() else [prefix]
    if index.is_file() and not data:
        raise DeepLabError(f"{index}: its {prefix.name}.data-00000-of-00001 is missing; copy both files")
    with contextlib.ExitStack() as stack:
        with reading(prefix):
            held = read_index(prefix)
            reader = stack.enter_context(_trusted_reader(prefix))

        def read(name: str) -> np.ndarray:
            if name in held.unread:
                raise DeepLabError(f"{prefix}: variable {name} holds no numbers; expected weights")
            with reading(f"{prefix}: variable {name}"):
                return reader.get_tensor(name)

        yield WeightSource(shown, sha256_of(*whole), dict(sorted(held.shapes.items())), read)


def _arrays(path: files.AnyPath, arrays: dict[str, np.ndarray], notes: tuple[str, ...]) -> WeightSource:
    if not arrays:
        raise DeepLabError(f"{path}: holds no weights under the release's names; expected a model of the release")
    shapes = {name: array.shape for name, array in sorted(arrays.items())}
    return WeightSource(str(path), sha256_of(path), shapes, arrays.__getitem__, notes)


def _frozen_graph(path: files.AnyPath) -> WeightSource:
    try:
        constants = read_frozen(path.read_bytes(), _LEAVES)
    except (DecodeError, RecursionError, ValueError, TypeError, LookupError) as error:
        raise _damaged(path, error) from None
    arrays = {name: value for name, value in constants.items() if value.ndim and value.dtype == np.float32}
    return _arrays(path, arrays, ())


def _tflite(path: files.AnyPath) -> WeightSource:
    """Reads the constants by their tensor names, or where these do not tell by its operations."""
    content = path.read_bytes()
    if content[4:8] != b"TFL3":
        raise DeepLabError(f"{path}: not a TFLite model (no TFL3 mark); expected a .tflite of the release")
    try:
        found = read_named(content) or read_lite(content)
    except DeepLabError as error:
        raise DeepLabError(f"{path}: {error}") from None
    except READ_ERRORS as error:
        raise _damaged(path, error) from None
    return dataclasses.replace(_arrays(path, found.arrays, found.notes), known=found.known)


def _caffemodel(path: files.AnyPath) -> WeightSource:
    layers = caffe.read_caffemodel(path)
    try:
        arrays, variant, notes = caffe_names.tf1_variables(layers)
    except DeepLabError as error:
        raise DeepLabError(f"{path}: {error}") from None
    except (ValueError, LookupError, TypeError) as error:  # blobs of another number, or of other shapes
        raise _damaged(path, error) from None
    return dataclasses.replace(_arrays(path, arrays, notes), model_variant=variant)


def of_network(shown: str, network: Network) -> WeightSource:
    """Returns the weights of a network that is at hand, as the user knows it; they have no file, and no hash."""
    values = {name: np.asarray(variable, np.float32) for name, variable in variable_map(network).items()}
    shapes = {name: value.shape for name, value in sorted(values.items())}
    return WeightSource(shown, "", shapes, values.__getitem__, config=network.config, card=network.card)


def _keras_file(path: files.AnyPath) -> WeightSource:
    """Opens a whole model of Keras, or a .h5 of another system; `open_weights_alone` opens a .weights.h5."""
    theirs = keras_layers.read_layers(path) if path.suffix.lower() in keras_file.HDF5 else None
    if theirs:
        return dataclasses.replace(_of_tensors(path, theirs.tensors), known=theirs.known)
    network = keras_file.read_keras_file(path)
    return dataclasses.replace(of_network(str(path), network), sha256=sha256_of(path))


def open_weights_alone(path: files.AnyPath, config: ModelConfig) -> WeightSource:
    """Opens a .weights.h5 of the network of `config`; DeepLabError: it is not that, or is damaged."""
    network = keras_file.read_weights_alone(path, config)
    return dataclasses.replace(of_network(str(path), network), sha256=sha256_of(path))


def _named_tensors(path: files.AnyPath) -> WeightSource:
    """Opens a file of PyTorch's or a .safetensors, whose tensors have TF1's names or those of a system known here."""
    return _of_tensors(path, tensor_files.read_tensors(path))


def _of_tensors(path: files.AnyPath, tensors: tensor_files.NamedTensors) -> WeightSource:
    return WeightSource(
        str(path),
        sha256_of(path),
        tensors.shapes,
        tensors.read,
        tensors.notes,
        tensors.model_variant,
        origins=tensors.origins,
        left_out=tensors.left_out,
    )


_FORMATS = {
    ".pb": _frozen_graph,
    ".tflite": _tflite,
    ".caffemodel": _caffemodel,
    **dict.fromkeys(keras_file.EXTENSIONS, _keras_file),
    **dict.fromkeys(tensor_files.SUFFIXES, _named_tensors),
}


def strip_checkpoint_suffix(path: files.AnyPath) -> files.AnyPath:
    """Returns the prefix of a checkpoint named by one of its files (.index, .data-*, .meta); else the path itself."""
    if path.suffix in (".index", ".meta") or path.suffix.startswith(".data-"):
        return path.with_suffix("")
    return path


@contextlib.contextmanager
def open_source(path: str | os.PathLike[str]) -> Iterator[WeightSource]:
    """Opens weights in any format.

    Args:
      path: a checkpoint prefix (or one of its files), a folder with a checkpoint or a model.safetensors, a .tar.gz, a
        frozen .pb, a .tflite, a .caffemodel of DeepLab v1 or v2, a .safetensors, a .pth of PyTorch, or a .keras
        or .h5 of a whole model.

    Raises:
      DeepLabError: nothing is there, it is none of these, or it is damaged.
    """
    shown = os.fspath(path)
    path = files.path(path)
    prefix = strip_checkpoint_suffix(path)
    if path.is_dir():
        with _folder(path, shown) as source:
            yield source
    elif index_of(prefix).is_file():
        with _checkpoint(prefix, shown) as source:
            yield source
    elif not path.is_file():
        raise DeepLabError(f"checkpoint {shown!r}: no such file; expected a {WEIGHTS}")
    elif path.name.endswith(kinds.ARCHIVES):
        kinds.require_weights(shown, path)
        with tempfile.TemporaryDirectory(prefix="deeplab_tf-") as folder:
            unpacked = archives.unpack(path, pathlib.Path(folder) / "archive")
            with _checkpoint(files.path(_prefix_in(unpacked, shown)), shown) as source:
                yield dataclasses.replace(source, sha256=sha256_of(path))
    else:
        kinds.require_weights(shown, path)
        if path.suffix.lower() in _FORMATS:
            yield _file(path, shown)
        elif tensor_files.looks_like_one(path):
            yield _named_tensors(path)
        else:
            kinds.require_checkpoint(shown, path)
            with _checkpoint(path, shown) as source:
                yield source


def _prefix_in(unpacked: pathlib.Path, shown: str) -> str:
    """Returns the prefix of the checkpoint in an unpacked archive, which the user knows as `shown`."""
    try:
        return archives.find_prefix(unpacked)
    except DeepLabError as error:
        raise DeepLabError(str(error).replace(str(unpacked), shown)) from None


@contextlib.contextmanager
def _folder(path: files.AnyPath, shown: str) -> Iterator[WeightSource]:
    """Opens a folder with a checkpoint, or with weights as the Hugging Face Hub has them."""
    if not any(path.glob("*.index")):
        if error := kinds.as_export(shown, path):
            raise error
        if whole := tensor_files.find(path):
            yield dataclasses.replace(_named_tensors(whole), path=shown)
            return
        saved = any((path / name).is_file() for name in kinds.SAVED_MODEL)  # its variables.index is no checkpoint
        if (saved or not any(path.rglob("*.index"))) and (kind := kinds.what_folder(path)):
            raise DeepLabError(f"{shown}: {kind}")
    with _checkpoint(files.path(archives.find_prefix(path)), shown) as source:
        yield source


def _file(path: files.AnyPath, shown: str) -> WeightSource:
    """Opens a file by its ending. One of our exports whose weights cannot be had back is named as that."""
    try:
        return _FORMATS[path.suffix.lower()](path)
    except DamagedError:
        raise
    except DeepLabError as error:
        raise kinds.as_export(shown, path) or error from None
