"""The formats an inference graph is written in: the file of each, how it is run, and which operations it holds.

An image goes in as uint8 [b, h, w, 3] named ImageTensor; what comes out is called as in `export_config.OUTPUTS`.
"""

import collections
import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import tensorflow as tf
from google.protobuf import text_format

from deeplab_tf.config import ExportConfig
from deeplab_tf.config.export import INPUT, OUTPUTS
from deeplab_tf.errors import DeepLabError
from deeplab_tf.inference.graph import GraphDef, as_function, tensor_names
from deeplab_tf.inference.tflite import convert

# images uint8 [b, h, w, 3] -> outputs by their short names (predictions, probabilities, logits)
RunExport = Callable[[np.ndarray], dict[str, np.ndarray]]
_OPSET = 17
_BEYOND = 255  # in the label maps of a batch, what lies outside of the smaller pictures
_LARGEST_SHOWN = 256  # bytes of a constant that stay in the text of a graph
_OF_A_SAVED_MODEL = ("saved_model.pb", "fingerprint.pb", "variables/*", "assets/*")


def files_of(path: pathlib.Path) -> list[pathlib.Path]:
    """Returns the files that an export at `path` consists of: itself, or where it is a folder those of a SavedModel."""
    return [file for part in _OF_A_SAVED_MODEL for file in sorted(path.glob(part))] if path.is_dir() else [path]


def _short(results: Mapping[str, object]) -> dict[str, np.ndarray]:
    short = {name: output for output, name in OUTPUTS.items()}
    return {short[name]: np.asarray(value) for name, value in results.items()}


def _counted(kinds: Iterable[str]) -> dict[str, int]:
    return dict(sorted(collections.Counter(kinds).items()))


# ---- SavedModel


def _of_encoded(segment: tf.types.experimental.GenericFunction) -> tf.types.experimental.GenericFunction:
    """Returns a tf.function of encoded images, each decoded and run by itself, since their sizes may differ."""
    specs = segment.get_concrete_function().structured_outputs
    ragged = {n: tf.RaggedTensorSpec([None, None, *s.shape[3:]], s.dtype, ragged_rank=1) for n, s in specs.items()}

    def one(content):
        # decode_jpeg reads PNG too, and by this method gives the pixels that Pillow gives.
        image = tf.io.decode_jpeg(content, channels=3, dct_method="INTEGER_ACCURATE")
        maps = {name: tf.RaggedTensor.from_tensor(value[0]) for name, value in segment(image[None]).items()}
        return maps, tf.shape(image)[:2]

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")], autograph=False)
    def run(image_bytes):
        maps, sizes = tf.map_fn(one, image_bytes, fn_output_signature=(ragged, tf.TensorSpec([2], tf.int32)))
        dense = {n: m.to_tensor(default_value=_BEYOND if m.dtype == tf.int32 else 0) for n, m in maps.items()}
        return {**dense, "sizes": sizes}

    return run


def _write_saved_model(graph_def: GraphDef, options: ExportConfig, path: pathlib.Path, _):
    module = tf.Module()
    module.segment = as_function(graph_def, options.outputs)
    module.segment_encoded = _of_encoded(module.segment)
    signatures = {"serving_default": module.segment, "image_bytes": module.segment_encoded}
    try:
        tf.saved_model.save(module, str(path), signatures=signatures)
    except tf.errors.OpError as error:  # TensorFlow's own for a full disk and the like
        raise OSError(error.message) from None


def _open_saved_model(path: pathlib.Path, _: ExportConfig) -> RunExport:
    loaded = tf.saved_model.load(str(path))
    segment = loaded.signatures["serving_default"]
    return lambda images: _short({n: v.numpy() for n, v in segment(**{INPUT: tf.constant(images)}).items()})


def _saved_model_operations(path: pathlib.Path) -> dict[str, int]:
    from tensorflow.core.protobuf import saved_model_pb2

    (graph,) = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes()).meta_graphs
    functions = graph.graph_def.library.function
    nodes = [*graph.graph_def.node, *(node for function in functions for node in function.node_def)]
    return _counted(node.op for node in nodes)


# ---- frozen graph


def _write_frozen(graph_def: GraphDef, options: ExportConfig, path: pathlib.Path, _):
    del options
    path.write_bytes(graph_def.SerializeToString(deterministic=True))


def _open_frozen(path: pathlib.Path, options: ExportConfig) -> RunExport:
    graph = tf.Graph()
    with graph.as_default():
        tf.graph_util.import_graph_def(GraphDef.FromString(path.read_bytes()), name="")
    session, names = tf.compat.v1.Session(graph=graph), tensor_names(options.outputs)
    return lambda images: dict(zip(options.outputs, session.run(names, {f"{INPUT}:0": images}), strict=True))


def _frozen_operations(path: pathlib.Path) -> dict[str, int]:
    return _counted(node.op for node in GraphDef.FromString(path.read_bytes()).node)


def write_graph_text(graph_def: GraphDef, path: pathlib.Path):
    """Writes the graph for reading, as the release's inference_graph.pbtxt: without its weights."""
    bare = GraphDef()
    bare.CopyFrom(graph_def)
    for node in bare.node:
        if node.op == "Const" and node.attr["value"].tensor.ByteSize() > _LARGEST_SHOWN:
            node.attr["value"].tensor.ClearField("tensor_content")
    path.write_text(text_format.MessageToString(bare), encoding="utf-8")


# ---- TFLite


def _write_tflite(graph_def: GraphDef, options: ExportConfig, path: pathlib.Path, representative):
    function = as_function(graph_def, options.outputs).get_concrete_function()
    kind = {"precision": options.precision, "uint8_io": options.uint8_io}
    path.write_bytes(convert.convert(function, representative=representative, **kind))


def _open_tflite(path: pathlib.Path, options: ExportConfig) -> RunExport:
    model = convert.LiteModel(path.read_bytes())
    return lambda images: dict(zip(options.outputs, model(images), strict=True))


def open_with_scores(path: pathlib.Path, options: ExportConfig) -> RunExport:
    """Returns what runs a .tflite that gives classes and has it give also what they are taken from."""
    model = convert.LiteModel(convert.with_scores(path.read_bytes()))
    outputs = (*options.outputs, "probabilities" if options.averages else "logits")
    return lambda images: dict(zip(outputs, model(images), strict=True))


# ---- ONNX


def _onnx_packages():
    try:
        import onnxruntime
        import tf2onnx
    except ImportError as error:
        raise DeepLabError(f"--format=onnx needs {error.name}: pip install 'deeplab_tf[onnx]'") from None
    return tf2onnx, onnxruntime


def _mend_scales(model):
    """Raises the scales of resizes by one step: a size of 7 is written as 7 / 3 times 3, rounded, and rounded down that
    is 6. With aligned corners the values follow from the sizes alone."""
    from onnx import numpy_helper

    scales = {node.input[2] for node in model.graph.node if node.op_type == "Resize"}
    for constant in model.graph.initializer:
        values = numpy_helper.to_array(constant) if constant.name in scales else np.zeros(0, np.float32)
        if values.size:
            raised = np.where(values == np.rint(values), values, np.nextafter(values, np.float32(np.inf)))
            constant.CopyFrom(numpy_helper.from_array(raised, constant.name))


def _write_onnx(graph_def: GraphDef, options: ExportConfig, path: pathlib.Path, _):
    tf2onnx, _ = _onnx_packages()
    names = {"input_names": [f"{INPUT}:0"], "output_names": tensor_names(options.outputs)}
    model, _ = tf2onnx.convert.from_graph_def(graph_def, **names, opset=_OPSET)
    _mend_scales(model)
    path.write_bytes(model.SerializeToString())


def _open_onnx(path: pathlib.Path, options: ExportConfig) -> RunExport:
    _, onnxruntime = _onnx_packages()
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = tensor_names(options.outputs)
    return lambda images: dict(zip(options.outputs, session.run(names, {f"{INPUT}:0": images}), strict=True))


def _onnx_operations(path: pathlib.Path) -> dict[str, int]:
    import onnx

    return _counted(node.op_type for node in onnx.load(str(path)).graph.node)


# ---- the table


@dataclasses.dataclass(frozen=True)
class Format:
    """How one format is written, run and read.

    Attributes:
      target: how its graph is built, one of portable_convolutions.TARGETS.
      file: its name in an export folder; None: it is the folder.
      packages: those whose versions decide what it does.
      write: (graph, options, path, inputs that int8 takes its ranges from) writes it.
      open: (path, options) -> a function that runs it.
      operations: path -> how often each operation occurs in it.
      needs: raises DeepLabError where a package is missing.
    """

    target: str
    file: str | None
    packages: tuple[str, ...]
    write: Callable[[GraphDef, ExportConfig, pathlib.Path, Iterable[np.ndarray]], None]
    open: Callable[[pathlib.Path, ExportConfig], RunExport]
    operations: Callable[[pathlib.Path], dict[str, int]]
    needs: Callable[[], object] = lambda: None


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
    ),
}
