"""Exported files opened to be run: TensorFlow's, TFLite, ONNX, OpenVINO, without anything that is not computation.

A file is looked at before a library opens it: what reads or writes other files, or calls code, is refused.
"""

import dataclasses
import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, cast

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import graph_pb2
from tensorflow.core.protobuf import saved_model_pb2

from deeplab_tf import files
from deeplab_tf.config.export import INPUT, OUTPUTS, Format, Output
from deeplab_tf.config.serve import Runtime
from deeplab_tf.errors import DamagedError, DeepLabError, is_out_of_memory
from deeplab_tf.inference.libraries import LIBRARIES, openvino_request
from deeplab_tf.inference.processor import available_cores
from deeplab_tf.inference.tflite.convert import LiteModel
from deeplab_tf.weights.exported import Export, weights_beside
from deeplab_tf.weights.kinds import EXPORTED

# Images [b, h, w, channels] of the file's dtype -> {output: array}; predictions, probabilities or logits.
RunExport = Callable[[np.ndarray], dict[str, np.ndarray]]
# What runs a format, by its name as --runtime.
RUNTIME_OF: Mapping[Format, Runtime] = {
    "saved_model": "tf",
    "frozen_pb": "tf",
    "tflite": "tflite",
    "onnx": "onnx",
    "openvino": "openvino",
}
# The operations of TensorFlow that compute from their inputs alone, of those that networks are made of.
_COMPUTES = """
Abs Add AddN AddV2 All Any ArgMax AvgPool BatchMatMulV2 BiasAdd BroadcastTo Cast Ceil ClipByValue ConcatV2 Const
Conv2D DepthwiseConv2dNative Div Einsum Elu EnsureShape Equal Exp ExpandDims FakeQuantWithMinMaxArgs
FakeQuantWithMinMaxVars FakeQuantWithMinMaxVarsPerChannel Fill Floor FloorDiv FloorMod FusedBatchNormV3 GatherV2
Greater GreaterEqual Identity IdentityN InvertPermutation LeakyRelu Less LessEqual Log LogSoftmax LogicalAnd
LogicalNot LogicalOr MatMul Max MaxPool Maximum Mean Min Minimum MirrorPad Mul Neg NoOp NotEqual OneHot OnesLike
Pack Pad PadV2 PartitionedCall Placeholder Pow Prod Range ReadVariableOp RealDiv Relu Relu6 Reshape ResizeBilinear
ResizeNearestNeighbor ReverseV2 Rint Round Rsqrt Select SelectV2 Shape Sigmoid Slice Softmax Split SplitV Sqrt
Square SquaredDifference Squeeze StatefulPartitionedCall StopGradient StridedSlice Sub Sum Tanh Tile TopKV2
Transpose Unpack VarHandleOp ZerosLike
"""
# What a SavedModel is made of, and the classes of its objects.
_KINDS = ("user_object", "function", "bare_concrete_function", "variable")
_PLAIN_OBJECTS = ("_generic_user_object", "signature_map", "trackable_list_wrapper", "trackable_tuple_wrapper")
# Operations of OpenVINO that hold a graph of their own, or keep something from one picture to the next.
_WITH_GRAPHS = ("If", "Loop", "TensorIterator", "Assign", "ReadValue")
_ONNX_TYPES = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32}


@dataclasses.dataclass(frozen=True)
class OpenFile:
    """An exported file that is open.

    Attributes:
      name: of the library that runs it, to be shown.
      run: images [b, h, w, channels] of `dtype` to its outputs.
      dtype: of the images that it takes.
    """

    name: str
    run: RunExport
    dtype: np.dtype


# ---- TensorFlow's graphs


def _called(node: Any) -> Iterator[str]:
    """Yields the names of the functions that a node of a graph calls."""
    for value in node.attr.values():
        if value.func.name:
            yield value.func.name
        yield from (function.name for function in value.list.func)


def _require_computation(path: files.AnyPath, graph: Any) -> None:
    """Raises DeepLabError where a graph, or a function that it calls, does more than to compute."""
    functions = {function.signature.name: function.node_def for function in graph.library.function}
    computes = frozenset(_COMPUTES.split())
    waiting: list[Iterable[Any]] = [graph.node]
    seen: set[str] = set()
    while waiting:
        for node in waiting.pop():
            new = {name for name in _called(node) if name not in seen}
            if node.op not in computes:
                raise DeepLabError(
                    f"{path}: holds the operation {node.op} ({node.name}), which exports of deeplab_tf do not; nothing "
                    "was run"
                )
            seen |= new
            waiting += [functions[name] for name in new if name in functions]


def _needed(graph_def: Any, tensors: Mapping[str, str]) -> Any:
    """Returns the part of a graph that `tensors` need; the rest, a saver for instance, is never run."""
    fetches = sorted({name.partition(":")[0] for name in tensors.values()})
    return tf.compat.v1.graph_util.extract_sub_graph(graph_def, fetches)


def _session(path: files.AnyPath, graph_def: Any, image: str, tensors: Mapping[str, str]) -> OpenFile:
    """Returns what runs a graph from the tensor `image` to `tensors`, output -> name of its tensor."""
    needed = _needed(graph_def, tensors)
    _require_computation(path, needed)
    graph = tf.Graph()
    with graph.as_default():
        tf.graph_util.import_graph_def(needed, name="")
    session = tf.compat.v1.Session(graph=graph)

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(tensors, session.run(list(tensors.values()), {image: images}), strict=True))

    return OpenFile("TensorFlow", run, np.dtype(graph.get_tensor_by_name(image).dtype.as_numpy_dtype))


def _output_of(tensor: str) -> str:
    """Returns what a tensor of an exported graph is called among the outputs."""
    return {name: output for output, name in OUTPUTS.items()}[tensor]


def _saved_model(export: Export) -> OpenFile:
    saved = saved_model_pb2.SavedModel.FromString((export.path / "saved_model.pb").read_bytes())
    (graph,) = saved.meta_graphs
    signature = graph.signature_def["serving_default"]
    tensors = {_output_of(name): value.name for name, value in sorted(signature.outputs.items())}
    if not any(node.op == "VarHandleOp" for node in graph.graph_def.node):
        return _session(export.path, graph.graph_def, signature.inputs[INPUT].name, tensors)
    _require_computation(export.path, _needed(graph.graph_def, tensors))
    _require_plain_objects(export.path, graph.object_graph_def.nodes)
    return _with_variables(export.path)


def _require_plain_objects(path: files.AnyPath, nodes: Iterable[Any]) -> None:
    """Raises DeepLabError where loading a SavedModel does more than to read variables: tables, assets, classes."""
    for node in nodes:
        kind = node.WhichOneof("kind")
        made = kind == "user_object" and node.user_object.identifier not in _PLAIN_OBJECTS
        if made or kind not in _KINDS or node.registered_name:
            name = node.registered_name or (node.user_object.identifier if made else kind)
            raise DeepLabError(f"{path}: holds a {name}, which exports of deeplab_tf do not; nothing was run")


def _with_variables(path: files.AnyPath) -> OpenFile:
    """Returns what runs the SavedModel of a large network, whose kernels are variables."""
    with files.plain(path) as readable:
        loaded: Any = tf.saved_model.load(readable)
    segment = loaded.signatures["serving_default"]

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        results = segment(**{INPUT: tf.constant(images)})
        return {_output_of(name): value.numpy() for name, value in results.items()}

    spec = segment.structured_input_signature[1][INPUT]
    return OpenFile("TensorFlow", run, np.dtype(spec.dtype.as_numpy_dtype))


def _frozen(export: Export) -> OpenFile:
    graph_def = graph_pb2.GraphDef.FromString(export.path.read_bytes())
    tensors = {output: f"{OUTPUTS[output]}:0" for output in _outputs(export)}
    return _session(export.path, graph_def, f"{INPUT}:0", tensors)


def _outputs(export: Export) -> tuple[Output, ...]:
    assert export.options.outputs is not None, "expected the options of a certificate"
    return export.options.outputs


# ---- TFLite, ONNX and OpenVINO


def _tflite(export: Export) -> OpenFile:
    model = LiteModel(export.path.read_bytes())
    outputs = _outputs(export)
    # A file whose uint8 are not 0..255 itself gets floats, and rounds them to its own steps.
    dtype = np.uint8 if model.takes_pixels else np.float32
    return OpenFile(
        LIBRARIES["tflite"].name, lambda images: dict(zip(outputs, model(images), strict=True)), np.dtype(dtype)
    )


def _require_one_file(path: files.AnyPath, content: bytes) -> None:
    """Raises DeepLabError where an ONNX model has weights in other files, or operations that are not ONNX's own."""
    onnx: Any = importlib.import_module("onnx")
    helper: Any = importlib.import_module("onnx.external_data_helper")
    model = onnx.ModelProto.FromString(content)
    graphs, nodes = [model.graph], [node for function in model.functions for node in function.node]
    while graphs:
        graph = graphs.pop()
        nodes += graph.node
        if graph.sparse_initializer or any(map(helper.uses_external_data, graph.initializer)):
            raise DeepLabError(f"{path}: keeps weights in other files; expected all in this one, nothing was read")
    for node in nodes:
        if node.domain not in ("", "ai.onnx"):
            raise DeepLabError(
                f"{path}: holds the operation {node.domain}.{node.op_type}, which exports of deeplab_tf do not; "
                "nothing was run"
            )
        values = [value for attribute in node.attribute for value in (attribute.g, *attribute.graphs)]
        if any(value.ByteSize() for value in values):
            raise DeepLabError(
                f"{path}: holds the operation {node.op_type} with a graph of its own, which exports of deeplab_tf do "
                "not; nothing was run"
            )
        constants = [value for attribute in node.attribute for value in (attribute.t, *attribute.tensors)]
        if any(helper.uses_external_data(value) for value in constants):
            raise DeepLabError(f"{path}: keeps weights in other files; expected all in this one, nothing was read")


def _onnx(export: Export) -> OpenFile:
    content = export.path.read_bytes()
    _require_one_file(export.path, content)
    runtime: Any = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = available_cores()
    options.log_severity_level = 4  # nothing but what ends it
    session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    outputs = _outputs(export)
    names = [f"{OUTPUTS[output]}:0" for output in outputs]
    (images,) = session.get_inputs()

    def run(pixels: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(outputs, session.run(names, {images.name: pixels}), strict=True))

    return OpenFile(LIBRARIES["onnx"].name, run, np.dtype(_ONNX_TYPES[images.type]))


def open_openvino(path: files.AnyPath, outputs: tuple[Output, ...]) -> OpenFile:
    """Returns what runs an OpenVINO model, which gives `outputs`."""
    openvino: Any = importlib.import_module("openvino")
    core = openvino.Core()
    model = core.read_model(path.read_bytes(), weights_beside(path).read_bytes())
    for operation in model.get_ops():
        kind, opset = operation.get_type_name(), operation.get_type_info().version_id
        if kind in _WITH_GRAPHS or not opset.startswith("opset"):
            raise DeepLabError(
                f"{path}: holds the operation {kind} ({opset}), which exports of deeplab_tf do not; nothing was run"
            )
    request = openvino_request(core, model)
    names = [OUTPUTS[output] for output in outputs]

    def run(pixels: np.ndarray) -> dict[str, np.ndarray]:
        results = request.infer({INPUT: np.ascontiguousarray(pixels)})
        return {output: np.array(results[name]) for output, name in zip(outputs, names, strict=True)}

    return OpenFile(LIBRARIES["openvino"].name, run, np.dtype(model.input(0).get_element_type().to_dtype()))


def _openvino(export: Export) -> OpenFile:
    return open_openvino(export.path, _outputs(export))


_OPENERS: Mapping[Format, Callable[[Export], OpenFile]] = {
    "saved_model": _saved_model,
    "frozen_pb": _frozen,
    "tflite": _tflite,
    "onnx": _onnx,
    "openvino": _openvino,
}


def open_file(export: Export) -> OpenFile:
    """Returns an exported file ready to be run.

    Raises:
      DeepLabError: its library is not installed, it is not the file that was certified, it holds other things than
        computation, or the library cannot open it.
    """
    chosen = cast(Format, export.options.format)
    library = LIBRARIES.get(RUNTIME_OF[chosen])
    if library and library.missing:
        raise DeepLabError(
            f"{export.path}: to run {EXPORTED[chosen]} needs {library.name}: pip install 'deeplab_tf[{library.extra}]'"
        )
    export.require_unchanged()
    try:
        return _OPENERS[chosen](export)
    except DeepLabError:
        raise
    except Exception as error:  # those of the libraries have nothing in common
        if is_out_of_memory(error):
            raise
        reason = " ".join((str(error) or type(error).__name__).split())[:200]
        raise DamagedError(
            f"{export.path}: cannot be opened as what its certificate says, {EXPORTED[chosen]} ({reason}); export again"
        ) from None
