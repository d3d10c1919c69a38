"""The formats of exported graphs: for each its files, how it is written and run, and the operations it holds.

The input is uint8 [b, h, w, 3] named ImageTensor; the outputs have the names of `config.export.OUTPUTS`.
"""

import collections
import dataclasses
import pathlib
from collections.abc import Callable, Iterable

import numpy as np
import tensorflow as tf
from google.protobuf import text_format
from tensorflow.core.framework.graph_pb2 import GraphDef

from deeplab_tf import files
from deeplab_tf.config import ExportConfig
from deeplab_tf.config.export import INPUT, OUTPUTS, Output
from deeplab_tf.exporting import openvino_file
from deeplab_tf.exporting.lite_metadata import described
from deeplab_tf.exporting.onnx_file import name_classes, packages, without_outputs, write_onnx
from deeplab_tf.exporting.openvino_file import write_openvino
from deeplab_tf.exporting.saved_model import operations_of, write_saved_model
from deeplab_tf.inference.exported_file import RunExport, open_openvino
from deeplab_tf.inference.graph import tensor_names
from deeplab_tf.inference.graph_weights import ApartGraph
from deeplab_tf.inference.tflite import convert
from deeplab_tf.weights.kinds import FILE_NAMES
from deeplab_tf.weights.model_directory import ModelCard

_LARGEST_SHOWN = 256  # bytes of the largest constant whose values stay in the text of a graph


def _outputs(options: ExportConfig) -> tuple[Output, ...]:
    """Returns the outputs, which `ExportConfig.for_path` has set."""
    assert options.outputs is not None
    return options.outputs


def _count(kinds: Iterable[str]) -> dict[str, int]:
    return dict(sorted(collections.Counter(kinds).items()))


# ---- SavedModel


def _write_saved_model(graph: ApartGraph, options: ExportConfig, path: pathlib.Path, _: Iterable[np.ndarray]) -> None:
    write_saved_model(graph, _outputs(options), path)


def _open_saved_model(path: files.AnyPath, _: ExportConfig) -> RunExport:
    with files.plain(path) as readable:
        loaded = tf.saved_model.load(readable)
    segment = loaded.signatures["serving_default"]
    output_of = {name: output for output, name in OUTPUTS.items()}

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        results = segment(**{INPUT: tf.constant(images)})
        return {output_of[name]: value.numpy() for name, value in results.items()}

    return run


def _saved_model_operations(path: files.AnyPath) -> dict[str, int]:
    return _count(operations_of(path))


# ---- frozen graph


def _write_frozen(graph: ApartGraph, options: ExportConfig, path: pathlib.Path, _: Iterable[np.ndarray]) -> None:
    del options
    path.write_bytes(graph.whole().SerializeToString(deterministic=True))


def _open_frozen(path: files.AnyPath, options: ExportConfig) -> RunExport:
    graph = tf.Graph()
    with graph.as_default():
        tf.graph_util.import_graph_def(GraphDef.FromString(path.read_bytes()), name="")
    session = tf.compat.v1.Session(graph=graph)
    outputs = _outputs(options)
    names = tensor_names(outputs)
    return lambda images: dict(zip(outputs, session.run(names, {f"{INPUT}:0": images}), strict=True))


def _frozen_operations(path: files.AnyPath) -> dict[str, int]:
    return _count(node.op for node in GraphDef.FromString(path.read_bytes()).node)


def write_graph_text(graph_def: GraphDef, path: pathlib.Path) -> None:
    """Writes the graph as text without its weights, like the release's inference_graph.pbtxt."""
    bare = GraphDef()
    bare.CopyFrom(graph_def)
    for node in bare.node:
        if node.op == "Const" and node.attr["value"].tensor.ByteSize() > _LARGEST_SHOWN:
            node.attr["value"].tensor.ClearField("tensor_content")
    path.write_text(text_format.MessageToString(bare), encoding="utf-8")


# ---- TFLite


def _write_tflite(
    graph: ApartGraph, options: ExportConfig, path: pathlib.Path, representative: Iterable[np.ndarray]
) -> None:
    content = convert.convert_graph(
        graph,
        _outputs(options),
        representative=representative,
        precision=options.precision,
        uint8_io=options.uint8_io,
    )
    path.write_bytes(content)


def _open_tflite(path: files.AnyPath, options: ExportConfig) -> RunExport:
    model = convert.LiteModel(path.read_bytes())
    outputs = _outputs(options)
    return lambda images: dict(zip(outputs, model(images), strict=True))


def _describe_tflite(path: pathlib.Path, card: ModelCard, options: ExportConfig) -> None:
    path.write_bytes(described(path.read_bytes(), card, options))


def open_with_scores(path: files.AnyPath, options: ExportConfig) -> RunExport:
    """Returns a function that runs a .tflite of classes and also gives the scores from which it takes them."""
    model = convert.LiteModel(convert.with_scores(path.read_bytes()))
    outputs = (*_outputs(options), "probabilities" if options.averages else "logits")
    return lambda images: dict(zip(outputs, model(images), strict=True))


# ---- ONNX


def _write_onnx(graph: ApartGraph, options: ExportConfig, path: pathlib.Path, _: Iterable[np.ndarray]) -> None:
    write_onnx(graph, tensor_names(_outputs(options)), path)


def _without_scores(path: pathlib.Path, options: ExportConfig, smaller: pathlib.Path) -> None:
    without_outputs(path, tensor_names(_outputs(options)), smaller)


def _open_onnx(path: files.AnyPath, options: ExportConfig) -> RunExport:
    _, onnxruntime = packages()
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    outputs = _outputs(options)
    names = tensor_names(outputs)
    return lambda images: dict(zip(outputs, session.run(names, {f"{INPUT}:0": images}), strict=True))


def _describe_onnx(path: pathlib.Path, card: ModelCard, _: ExportConfig) -> None:
    if card.class_names:
        name_classes(path, card.class_names)


def _onnx_operations(path: files.AnyPath) -> dict[str, int]:
    import onnx

    return _count(node.op_type for node in onnx.load_from_string(path.read_bytes()).graph.node)


# ---- OpenVINO


def _write_openvino(graph: ApartGraph, options: ExportConfig, path: pathlib.Path, _: Iterable[np.ndarray]) -> None:
    write_openvino(graph, _outputs(options), path)


def _open_openvino(path: files.AnyPath, options: ExportConfig) -> RunExport:
    return open_openvino(path, _outputs(options)).run


def _openvino_operations(path: files.AnyPath) -> dict[str, int]:
    return _count(openvino_file.operations(path))


# ---- the table


@dataclasses.dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
      target: how its graph is built, "tensorflow", "tflite" or "onnx".
      file: its name in an export folder; None if the export is the folder.
      packages: those whose versions the certificate lists.
      write: writes a graph with options to a path; int8 measures its ranges on the given inputs, float32 [1, h, w, 3].
      open: path and options -> a function that runs the export.
      operations: path -> the number of times that each operation occurs in the export.
      needs: raises DeepLabError if a package is missing; None if the format needs none.
      without_scores: path of an export, options and another path: writes the export without outputs that the options
        do not name, where that takes less time than another conversion; None: it does not.
      describe: adds to an export what the model is, with options; None: its format holds no such thing.
    """

    target: str
    file: str | None
    packages: tuple[str, ...]
    write: Callable[[ApartGraph, ExportConfig, pathlib.Path, Iterable[np.ndarray]], None]
    open: Callable[[files.AnyPath, ExportConfig], RunExport]
    operations: Callable[[files.AnyPath], dict[str, int]]
    needs: Callable[[], object] | None = None
    without_scores: Callable[[pathlib.Path, ExportConfig, pathlib.Path], None] | None = None
    describe: Callable[[pathlib.Path, ModelCard, ExportConfig], None] | None = None


FORMATS = {
    "saved_model": Format(
        "tensorflow", FILE_NAMES["saved_model"], (), _write_saved_model, _open_saved_model, _saved_model_operations
    ),
    "frozen_pb": Format("tensorflow", FILE_NAMES["frozen_pb"], (), _write_frozen, _open_frozen, _frozen_operations),
    "tflite": Format(
        "tflite",
        FILE_NAMES["tflite"],
        ("ai-edge-litert",),
        _write_tflite,
        _open_tflite,
        convert.operations,
        describe=_describe_tflite,
    ),
    "onnx": Format(
        "onnx",
        FILE_NAMES["onnx"],
        ("tf2onnx", "onnx", "onnxruntime"),
        _write_onnx,
        _open_onnx,
        _onnx_operations,
        packages,
        _without_scores,
        _describe_onnx,
    ),
    "openvino": Format(
        "tensorflow",
        FILE_NAMES["openvino"],
        ("openvino",),
        _write_openvino,
        _open_openvino,
        _openvino_operations,
        openvino_file.package,
    ),
}
