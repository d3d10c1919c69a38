"""What a file or folder is that is given for weights and holds none that can be read, and the way to go."""

import contextlib
import zipfile
from collections.abc import Iterator, Mapping
from typing import TypedDict

from deeplab_tf import files
from deeplab_tf.config.export import Format
from deeplab_tf.data.pairs import IMAGE_EXTENSIONS
from deeplab_tf.data.record_index import is_record_file
from deeplab_tf.documents.json_files import JSONError, read_json
from deeplab_tf.errors import DamagedError, DeepLabError

CERTIFICATE = "certificate.json"
# The name of an exported file in a folder of its own; None: the folder is the export.
FILE_NAMES: Mapping[Format, str | None] = {
    "saved_model": None,
    "frozen_pb": "frozen_inference_graph.pb",
    "tflite": "model.tflite",
    "onnx": "model.onnx",
    "openvino": "model.xml",
}
# What a file of a format is.
EXPORTED: Mapping[Format, str] = {
    "saved_model": "a SavedModel",
    "frozen_pb": "a frozen graph",
    "tflite": "a TFLite model",
    "onnx": "an ONNX model",
    "openvino": "an OpenVINO model",
}
ARCHIVES = (".tar.gz", ".tgz")  # of checkpoints
SAVED_MODEL = ("saved_model.pb", "saved_model.pbtxt")
_HEAD = 4096  # bytes that tell a kind
_CARD = "deeplab.json"
_GIVE = "give the model directory that it was exported from, or its checkpoint"
_GRAPH = (
    f"a graph whose weights have no names of the release, and no {CERTIFICATE} of deeplab-tf export, with which "
    f"predict and eval would run it; {_GIVE}"
)
_INPUT = "pictures are given to --input, and weights here"
# What a file begins with -> what it is; where the ending decides, the endings that it is known by as well.
_BEGINNINGS: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", f"a JPEG image; {_INPUT}"),
    (b"\x89PNG\r\n\x1a\n", f"a PNG image; {_INPUT}"),
    (b"GIF8", f"a GIF image; {_INPUT}"),
    (b"II*\0", f"a TIFF image; {_INPUT}"),
    (b"MM\0*", f"a TIFF image; {_INPUT}"),
    (b"\x93NUMPY", "an array of NumPy (.npy), without the names of weights; give the checkpoint that it is of"),
    (b"GGUF", "a GGUF file, of a language model; give weights of a segmentation network"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it, and give what is in it"),
    (b"Rar!", "a RAR archive; unpack it, and give what is in it"),
    (b"BZh", "a bzip2 archive; unpack it, and give what is in it"),
    (b"\xfd7zXZ\0", "an xz archive; unpack it, and give what is in it"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive; unpack it, and give what is in it"),
)
# The same for text, whose letters may be large or small.
_TEXTS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs.github.com/spec/", "a pointer of Git LFS and not the file itself; run git lfs pull"),
    (b"<!doctype html", "a web page and not the file that was to be downloaded; download it again"),
    (b"<html", "a web page and not the file that was to be downloaded; download it again"),
)
_HDF5 = b"\x89HDF\r\n\x1a\n"
_GZIP = b"\x1f\x8b"
_TAR = (257, b"ustar")
_TFLITE = (4, b"TFL3")
# A checkpoint of TensorFlow's first format is one file, and ends with this.
_TABLE_END = b"\x57\xfb\x80\x8b\x24\x75\x47\xdb"
# Endings of files that hold a network, but no weights that are read here.
_ENDINGS: Mapping[str, str] = {
    ".onnx": f"an ONNX model, {_GRAPH}",
    ".engine": f"a TensorRT engine, compiled for one GPU; {_GIVE}",
    ".plan": f"a TensorRT engine, compiled for one GPU; {_GIVE}",
    ".mlmodel": f"a Core ML model; {_GIVE}",
    ".xml": f"a model of OpenVINO's, or other XML; {_GIVE}",
    ".pbtxt": "a graph or a state file as text, without weights; give the checkpoint beside it, or a frozen .pb",
    ".msgpack": "weights of Flax; give those of TensorFlow, or a .safetensors or .pth",
    ".pdparams": "weights of PaddlePaddle, which are not read; give those of TensorFlow or PyTorch",
    ".params": "weights of MXNet, which are not read; give those of TensorFlow or PyTorch",
    ".prototxt": "a network of Caffe's as text, without weights; give its .caffemodel",
    ".py": "Python code, which is not run; give the file of weights",
    ".json": "a JSON file, without weights; give the folder that it lies in, or the file of weights",
    ".yaml": "a YAML file, without weights; give the file of weights",
    ".yml": "a YAML file, without weights; give the file of weights",
    ".txt": "a text file, without weights; give the file of weights",
    ".csv": "a text file, without weights; give the file of weights",
    ".md": "a text file, without weights; give the file of weights",
}
_KERAS = (".keras", ".h5", ".hdf5")
_PICKLED = (".safetensors", ".pth", ".pt", ".bin")


# ---- our own exports


def certificate_of(path: files.AnyPath) -> tuple[files.AnyPath, files.AnyPath] | None:
    """Returns the exported file or folder that a path means, and its certificate; None: there is no certificate."""
    if path.name == SAVED_MODEL[0] and path.is_file():
        path = path.parent
    if path.is_dir():
        own = path / CERTIFICATE
        return (path, own) if own.is_file() and not (path / _CARD).is_file() else None
    if not path.name:
        return None
    beside = path.with_name(f"{path.name}.{CERTIFICATE}")
    if beside.is_file():
        return path, beside
    inside = path.parent / CERTIFICATE
    return (path, inside) if path.name in FILE_NAMES.values() and inside.is_file() else None


class _Options(TypedDict):
    format: Format


class _Origin(TypedDict):
    """The fields of a certificate that say what an export is, and of what."""

    options: _Options
    checkpoint: str


def as_export(shown: str, path: files.AnyPath) -> DeepLabError | None:
    """Returns the error for an exported file, given where weights are wanted; None: it has no certificate.

    Args:
      shown: the user's name of it.
      path: the file or folder.
    """
    found = certificate_of(path)
    if found is None:
        return None
    try:
        values = read_json(found[1], _Origin)
        kind = EXPORTED[values["options"]["format"]]
    except (OSError, JSONError):
        return DeepLabError(f"{found[1]}: is damaged, or not a certificate of deeplab-tf export; export again")
    origin = " ".join(values["checkpoint"].split())[:200]
    return DeepLabError(
        f"{shown}: {kind} that deeplab-tf export wrote, which holds no trainable weights; give what it was "
        f"exported from, {origin} (predict, eval, vis, serve and Segmenter run the file itself)"
    )


# ---- what else is given


def _begins(path: files.AnyPath) -> bytes:
    with path.open("rb") as stream:
        return stream.read(_HEAD)


def _archive(path: files.AnyPath) -> str | None:
    """Returns what a ZIP archive is; None: a file of PyTorch's, or a damaged archive, which its reader tells."""
    with contextlib.suppress(zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        with path.open("rb") as stream, zipfile.ZipFile(stream) as archive:
            names = archive.namelist()
        if any(name.endswith("data.pkl") for name in names):
            return None
        if "model.weights.h5" in names or "config.json" in names:
            return None if path.suffix.lower() == ".keras" else "a model of Keras's; give it the ending .keras"
        if names and all(name.endswith(".npy") for name in names):
            return "arrays of NumPy (.npz), whose names are not known here; give the checkpoint that they are of"
        if path.suffix.lower() not in (*_KERAS, *_PICKLED):
            return (
                "a ZIP archive; unpack it and give what is in it, or give it the ending .keras if it is a model of "
                "Keras's"
            )
    return None


def _by_content(path: files.AnyPath, head: bytes) -> str | None:
    """Returns what a file is by what it begins with, where that is nothing that its reader would tell better."""
    suffix = path.suffix.lower()
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:64].lower()
    for beginning, kind in _BEGINNINGS:
        if head.startswith(beginning):
            return kind
    for beginning, kind in _TEXTS:
        if text.startswith(beginning):
            return kind
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _archive(path)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return f"a WebP image; {_INPUT}"
    if head[:2] == b"BM" and len(head) > 26 and int.from_bytes(head[2:6], "little") == path.stat().st_size:
        return f"a BMP image; {_INPUT}"
    if head.startswith(_HDF5) and suffix not in _KERAS:
        return "an HDF5 file; give it the ending .h5 if it is a model of Keras's"
    if head[_TFLITE[0] :].startswith(_TFLITE[1]) and suffix != ".tflite":
        return "a TFLite model; give it the ending .tflite"
    if head.startswith(_GZIP) and not path.name.endswith(ARCHIVES):
        return "a gzip archive; give it the ending .tar.gz if a checkpoint is in it"
    if head[_TAR[0] :].startswith(_TAR[1]):
        return "a tar archive; unpack it, and give what is in it"
    if is_record_file(head, path.stat().st_size):
        return "records of a data set (TFRecord); they are given to --dataset_dir, and weights here"
    return None


def require_weights(shown: str, path: files.AnyPath) -> None:
    """Raises DeepLabError where a file is of a kind that holds no weights, or none that are read here.

    What is of a kind that is read is left to its reader, which tells damage.

    Args:
      shown: the user's name of it.
      path: a file.
    """
    head = _begins(path)
    if not head:
        raise DamagedError(
            f"{shown}: is empty and holds no weights: damaged, or not written yet; fetch or copy it again"
        )
    kind = _by_content(path, head)
    if kind is None and path.name in SAVED_MODEL:
        kind = f"the graph of a SavedModel, {_GRAPH}"
    if kind is None and path.name.endswith(CERTIFICATE):
        kind = "the certificate of an export; give the exported file"
    kind = kind or _ENDINGS.get(path.suffix.lower())
    if kind:
        raise as_export(shown, path) or DeepLabError(f"{shown}: {kind}")


def require_checkpoint(shown: str, path: files.AnyPath) -> None:
    """Raises DeepLabError where a file of no known ending is no checkpoint of TensorFlow's first format either."""
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - len(_TABLE_END)))
        end = stream.read()
    if end != _TABLE_END:
        raise DeepLabError(
            f"{shown}: holds no weights of a kind that is known here, by its name or its content; if it was a "
            "checkpoint of TensorFlow 1 it is damaged or truncated"
        )


_OF_FOLDERS = (
    ("model_index.json", "a pipeline of diffusers, with several networks; give weights of a segmentation network"),
    ("model.json", f"a model of TensorFlow.js; {_GIVE}"),
    ("keras_metadata.pb", f"a SavedModel of Keras 2, {_GRAPH}"),
    ("tokenizer.json", "a language model's folder; give weights of a segmentation network"),
)


def what_folder(path: files.AnyPath) -> str | None:
    """Returns what a folder is that holds no checkpoint, and the way to go; None: it holds nothing that tells."""
    if any((path / name).is_file() for name in SAVED_MODEL):
        return f"a SavedModel, {_GRAPH}"
    for name, kind in _OF_FOLDERS:
        if (path / name).is_file():
            return kind
    entries = list(_first(path))
    if not entries:
        return "is an empty folder; expected a checkpoint in it (<prefix>.index and <prefix>.data-*)"
    readable = [e for e in entries if e.suffix.lower() in (*_KERAS, *_PICKLED, ".tflite", ".caffemodel", ".onnx")]
    if readable:
        return f"a folder with {readable[0].name}, and no checkpoint of TensorFlow; give the file itself"
    if any(entry.name.endswith(ARCHIVES) for entry in entries):
        return "a folder with archives, and no checkpoint of TensorFlow; give one of them"
    if any("tfrecord" in entry.name.lower() for entry in entries):
        return "a folder with records of a data set; they are given to --dataset_dir, and weights here"
    if all(entry.name.lower().endswith(IMAGE_EXTENSIONS) for entry in entries if entry.is_file()):
        return f"a folder with images; {_INPUT}" if any(entry.is_file() for entry in entries) else None
    return None


def _first(path: files.AnyPath) -> Iterator[files.AnyPath]:
    """Yields the entries of a folder, in their order, hidden ones left out."""
    for entry in sorted(path.iterdir()):
        if not entry.name.startswith("."):
            yield entry
