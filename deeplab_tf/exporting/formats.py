"""The formats of exported graphs: for each its files, how it is written and run, and the operations it holds.

The input is uint8 [b, h, w, 3] named ImageTensor; the outputs have the names of `config.export.OUTPUTS`.
"""

import collections
import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf import text_format
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.protobuf import saved_model_pb2

from deeplab_tf import files
from deeplab_tf.config import ExportConfig
from deeplab_tf.config.export import INPUT, LABEL_BEYOND, OUTPUTS, Output
from deeplab_tf.errors import DeepLabError
from deeplab_tf.filesystems.remote import os_errors
from deeplab_tf.inference.graph import as_function, tensor_names
from deeplab_tf.inference.tflite import convert

# Images uint8 [b, h, w, 3] -> {output: array}; the outputs are predictions, probabilities and logits.
RunExport = Callable[[np.ndarray], dict[str, np.ndarray]]
_OPSET = 17
_CATCH_ERRORS = "TF2ONNX_CATCH_ERRORS"
_LARGEST_SHOWN = 256  # bytes of the largest constant whose values stay in the text of a graph
_SAVED_MODEL_FILES = ("saved_model.pb", "fingerprint.pb", "variables/*", "assets/*")


def files_of(path: files.AnyPath) -> list[files.AnyPath]:
    """Returns the files of the export at `path`: those of a SavedModel if it is a folder, else the file itself."""
    return [file for part in _SAVED_MODEL_FILES for file in sorted(path.glob(part))] if path.is_dir() else [path]


def _outputs(options: ExportConfig) -> tuple[Output, ...]:
    """Returns the outputs, which `ExportConfig.for_path` has set."""
    assert options.outputs is not None
    return options.outputs


def _count(kinds: Iterable[str]) -> dict[str, int]:
    return dict(sorted(collections.Counter(kinds).items()))


# ---- SavedModel


def _of_encoded(segment: Any) -> Any:
    """Returns a tf.function of encoded images (string [b]), from the tf.function `segment` of pixels.

    Each image is decoded and run by itself, because their sizes may differ.
    """
    specs = segment.get_concrete_function().structured_outputs
    ragged = {n: tf.RaggedTensorSpec([None, None, *s.shape[3:]], s.dtype, ragged_rank=1) for n, s in specs.items()}

    def run_one(content: tf.Tensor) -> tuple[dict[str, Any], tf.Tensor]:
        # decode_jpeg reads PNG too, and with this method gives the same pixels as Pillow.
        image = tf.io.decode_jpeg(content, channels=3, dct_method="INTEGER_ACCURATE")
        # A loop over images of several sizes can only collect ragged tensors; they are padded once all sizes are known.
        ragged_tensor: Any = tf.RaggedTensor
        maps = {name: ragged_tensor.from_tensor(value[0]) for name, value in segment(image[None]).items()}
        return maps, tf.shape(image)[:2]

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")], autograph=False)
    def run(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        maps, sizes = tf.map_fn(run_one, image_bytes, fn_output_signature=(ragged, tf.TensorSpec([2], tf.int32)))
        dense = {n: m.to_tensor(default_value=LABEL_BEYOND if m.dtype == tf.int32 else 0) for n, m in maps.items()}
        return {**dense, "sizes": sizes}

    return run


def _write_saved_model(graph_def: GraphDef, options: ExportConfig, path: pathlib.Path, _: Iterable[np.ndarray]) -> None:
    module: Any = tf.Module()
    module.segment = as_function(graph_def, _outputs(options))
    signatures = {"serving_default": module.segment}
    images = module.segment.input_signature[0]
    if images.dtype == tf.uint8 and images.shape[-1] == 3:  # other photographs have no encoding that TensorFlow reads
        module.segment_encoded = _of_encoded(module.segment)
        signatures["image_bytes"] = module.segment_encoded
    with os_errors():  # TensorFlow's own for a full disk and the like
        tf.saved_model.save(module, str(path), signatures=signatures)


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
    (graph,) = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes()).meta_graphs
    functions = graph.graph_def.library.function
    nodes = [*graph.graph_def.node, *(node for function in functions for node in function.node_def)]
    return _count(node.op for node in nodes)


# ---- frozen graph


def _write_frozen(graph_def: GraphDef, options: ExportConfig, path: pathlib.Path, _: Iterable[np.ndarray]) -> None:
    del options
    path.write_bytes(graph_def.SerializeToString(deterministic=True))


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
    graph_def: GraphDef, options: ExportConfig, path: pathlib.Path, representative: Iterable[np.ndarray]
) -> None:
    function = as_function(graph_def, _outputs(options)).get_concrete_function()
    content = convert.convert(
        function, representative=representative, precision=options.precision, uint8_io=options.uint8_io
    )
    path.write_bytes(content)


def _open_tflite(path: files.AnyPath, options: ExportConfig) -> RunExport:
    model = convert.LiteModel(path.read_bytes())
    outputs = _outputs(options)
    return lambda images: dict(zip(outputs, model(images), strict=True))


def open_with_scores(path: files.AnyPath, options: ExportConfig) -> RunExport:
    """Returns a function that runs a .tflite of classes and also gives the scores from which it takes them."""
    model = convert.LiteModel(convert.with_scores(path.read_bytes()))
    outputs = (*_outputs(options), "probabilities" if options.averages else "logits")
    return lambda images: dict(zip(outputs, model(images), strict=True))


# ---- ONNX


def _onnx_packages() -> tuple[Any, Any]:
    """Returns the packages tf2onnx and onnxruntime; raises DeepLabError if one is not installed."""
    try:
        import onnxruntime
        import tf2onnx
    except ImportError as error:
        raise DeepLabError(f"--format=onnx needs {error.name}: pip install 'deeplab_tf[onnx]'") from None
    return tf2onnx, onnxruntime


def _raise_scales(model: Any) -> None:
    """Raises the scales of the Resize operations of an ONNX model by one float32 step."""
    # tf2onnx writes the size 7 of a resize from 3 as a scale, 7 / 3 rounded to float32. ONNX takes the floor of 3 times
    # that, which may be 6. A scale one step higher gives 7, and with aligned corners the pixel values depend on nothing
    # but the sizes.
    from onnx import numpy_helper

    scales = {node.input[2] for node in model.graph.node if node.op_type == "Resize"}
    for constant in model.graph.initializer:
        values = numpy_helper.to_array(constant) if constant.name in scales else np.zeros(0, np.float32)
        if values.size:
            raised = np.where(values == np.rint(values), values, np.nextafter(values, np.float32(np.inf)))
            constant.CopyFrom(numpy_helper.from_array(raised, constant.name))


@contextlib.contextmanager
def _one_copy() -> Iterator[None]:
    """Has tf2onnx let errors of its optimisers through: it copies the graph before each of them otherwise."""
    before = os.environ.get(_CATCH_ERRORS)
    os.environ[_CATCH_ERRORS] = "FALSE"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_CATCH_ERRORS]
        else:
            os.environ[_CATCH_ERRORS] = before


def _without_scores(path: pathlib.Path, options: ExportConfig, smaller: pathlib.Path) -> None:
    """Writes the ONNX file at `path` without outputs that `options` does not name, and what only they need."""
    import onnx

    model = onnx.load_from_string(path.read_bytes())
    graph, wanted = model.graph, set(tensor_names(_outputs(options)))
    outputs = [output for output in graph.output if output.name in wanted]
    needed, nodes = {output.name for output in outputs}, []
    for node in reversed(graph.node):  # which are in the order in which they run
        if needed & set(node.output):
            needed |= set(node.input)
            nodes.append(node)
    kept = {"output": outputs, "node": nodes[::-1]}
    kept["initializer"] = [constant for constant in graph.initializer if constant.name in needed]
    kept["value_info"] = [info for info in graph.value_info if info.name in needed]
    for field, values in kept.items():
        if len(values) < len(getattr(graph, field)):
            del getattr(graph, field)[:]
            getattr(graph, field).extend(values)
    smaller.write_bytes(model.SerializeToString())


def _write_onnx(graph_def: GraphDef, options: ExportConfig, path: pathlib.Path, _: Iterable[np.ndarray]) -> None:
    tf2onnx, _ = _onnx_packages()
    outputs = tensor_names(_outputs(options))
    names = {"input_names": [f"{INPUT}:0"], "output_names": outputs}
    try:
        with _one_copy():
            model, _ = tf2onnx.convert.from_graph_def(graph_def, **names, opset=_OPSET)
    except Exception:  # whatever the optimisers that are passed over otherwise may raise
        model, _ = tf2onnx.convert.from_graph_def(graph_def, **names, opset=_OPSET)
    _raise_scales(model)
    path.write_bytes(model.SerializeToString())


def _open_onnx(path: files.AnyPath, options: ExportConfig) -> RunExport:
    _, onnxruntime = _onnx_packages()
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    outputs = _outputs(options)
    names = tensor_names(outputs)
    return lambda images: dict(zip(outputs, session.run(names, {f"{INPUT}:0": images}), strict=True))


def _onnx_operations(path: files.AnyPath) -> dict[str, int]:
    import onnx

    return _count(node.op_type for node in onnx.load_from_string(path.read_bytes()).graph.node)


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
    """

    target: str
    file: str | None
    packages: tuple[str, ...]
    write: Callable[[GraphDef, ExportConfig, pathlib.Path, Iterable[np.ndarray]], None]
    open: Callable[[files.AnyPath, ExportConfig], RunExport]
    operations: Callable[[files.AnyPath], dict[str, int]]
    needs: Callable[[], object] | None = None
    without_scores: Callable[[pathlib.Path, ExportConfig, pathlib.Path], None] | None = None


FORMATS = {
    "saved_model": Format("tensorflow", None, (), _write_saved_model, _open_saved_model, _saved_model_operations),
    "frozen_pb": Format("tensorflow", "frozen_inference_graph.pb", (), _write_frozen, _open_frozen, _frozen_operations),
    "tflite": Format("tflite", "model.tflite", ("ai-edge-litert",), _write_tflite, _open_tflite, convert.operations),
    "onnx": Format(
        "onnx",
        "model.onnx",
        ("tf2onnx", "onnx", "onnxruntime"),
        _write_onnx,
        _open_onnx,
        _onnx_operations,
        _onnx_packages,
        _without_scores,
    ),
}
