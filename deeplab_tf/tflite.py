"""TFLite: converting an inference graph, running the file with LiteRT, and what is in it."""

import collections
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import tensorflow as tf

from deeplab_tf.errors import DeepLabError
from deeplab_tf.half_precision import halved

_QUANTISED = (np.uint8, np.int8)


def convert(
    function: Callable,
    *,
    precision: str = "float32",
    uint8_io: bool = True,
    representative: Iterable[np.ndarray] = (),
) -> bytes:
    """Returns the file's bytes.

    Args:
      function: a concrete function of constants only. (Converters that are handed a Keras model or its SavedModel
        beside the function write files without weights and say nothing.)
      precision: float32, float16 (kernels of 16 bits), dynamic (kernels of 8 bits) or int8.
      uint8_io: of an int8 model: input and scores are uint8; else float32.
      representative: for int8, inputs as the function takes them, from which the ranges are taken.

    Raises:
      DeepLabError: the converter fails.
    """
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function])
    if precision in ("dynamic", "int8"):
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "int8":
        converter.representative_dataset = lambda: ([image] for image in representative)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        if uint8_io:
            converter.inference_input_type = converter.inference_output_type = tf.uint8
    try:
        content = converter.convert()
    except DeepLabError:
        raise  # an image that cannot be read
    except Exception as error:  # the converter's own exceptions are not public
        first = str(error).strip().splitlines()[0]
        raise DeepLabError(f"--precision={precision}: the TFLite converter refuses the graph ({first})") from None
    return halved(content) if precision == "float16" else content


def _interpreter_class() -> type:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        return tf.lite.Interpreter  # the same code under its old name; it goes away with a later TensorFlow
    return Interpreter


class LiteModel:
    """A .tflite file ready to run in LiteRT (with XNNPACK, its default)."""

    def __init__(self, content: bytes, *, threads: int | None = None):
        self._interpreter = _interpreter_class()(model_content=content, num_threads=threads or os.cpu_count())
        self._interpreter.allocate_tensors()
        (self._input,) = self._interpreter.get_input_details()
        self._outputs = self._interpreter.get_output_details()

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images it takes."""
        return tuple(map(int, self._input["shape"][1:3]))

    def __call__(self, images: np.ndarray) -> list[np.ndarray]:
        """Returns the outputs for images [1, h, w, 3] in 0..255: labels int32 [1, h, w] as they are, logits [1, h, w,
        classes] as float32 even where the file holds them as integers."""
        self._interpreter.set_tensor(self._input["index"], _quantised(images, self._input))
        self._interpreter.invoke()
        return [_real(self._interpreter.get_tensor(output["index"]), output) for output in self._outputs]


def _quantised(values: np.ndarray, details: Mapping) -> np.ndarray:
    scale, zero = details["quantization"]
    if details["dtype"] not in _QUANTISED or not scale:
        return values.astype(details["dtype"])
    limits = np.iinfo(details["dtype"])
    return np.clip(np.rint(values / scale) + zero, limits.min, limits.max).astype(details["dtype"])


def _real(values: np.ndarray, details: Mapping) -> np.ndarray:
    scale, zero = details["quantization"]
    if details["dtype"] not in _QUANTISED or not scale:
        return values
    return (values.astype(np.float32) - zero) * np.float32(scale)


def with_scores(content: bytes) -> bytes:
    """Returns a file that gives classes changed so that it also gives the scores they are taken from, second."""
    import flatbuffers
    from tensorflow.lite.python import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))
    (graph,) = model.subgraphs
    code = schema.BuiltinOperator.ARG_MAX
    (operation,) = [op for op in graph.operators if model.operatorCodes[op.opcodeIndex].builtinCode == code]
    graph.outputs = [*graph.outputs, operation.inputs[0]]
    model.signatureDefs = []  # they would have to name the new output
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def operations(path: str | pathlib.Path) -> dict[str, int]:
    """Returns how often each operation occurs in a file; those TFLite does not know itself as "Flex..."."""
    from tensorflow.lite.python import schema_py_generated as schema

    model = schema.Model.GetRootAs(pathlib.Path(path).read_bytes())
    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    kinds = []
    for index in range(model.OperatorCodesLength()):
        code = model.OperatorCodes(index)
        custom = code.CustomCode()
        builtin = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())  # old files have the second alone
        kinds.append(custom.decode() if custom else names[builtin])
    graphs = [model.Subgraphs(index) for index in range(model.SubgraphsLength())]
    used = [kinds[graph.Operators(i).OpcodeIndex()] for graph in graphs for i in range(graph.OperatorsLength())]
    return dict(sorted(collections.Counter(used).items()))
