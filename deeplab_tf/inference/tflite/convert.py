"""TFLite: converting an inference graph, running the file with LiteRT, and what is in it."""

import collections
import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf

from deeplab_tf import files
from deeplab_tf.config.export import Output
from deeplab_tf.errors import DeepLabError, OptionError, first_line
from deeplab_tf.inference.graph import as_function
from deeplab_tf.inference.graph_weights import ApartGraph
from deeplab_tf.inference.tflite.file import open_interpreter, pack, unpack
from deeplab_tf.inference.tflite.half_precision import halved
from deeplab_tf.inference.tflite.quantization import eight_bits
from deeplab_tf.inference.tflite.stand_ins import filled
from deeplab_tf.weights.lite_format import schema

_QUANTISED = (np.uint8, np.int8)


def _converted(function: Callable, *, dynamic: bool = False) -> bytes:
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function])
    if dynamic:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    return converter.convert()


def _with_precision(content: bytes, precision: str, representative: Iterable[np.ndarray], *, uint8_io: bool) -> bytes:
    """Returns a float32 file in another precision than dynamic, which is the converter's own."""
    if precision == "int8":
        return eight_bits(content, representative, uint8_io=uint8_io)
    return halved(content) if precision == "float16" else content


@contextlib.contextmanager
def _refusing(precision: str) -> Iterator[None]:
    """Says in one line what the converter says in many."""
    try:
        yield
    except DeepLabError:
        raise  # an image that cannot be read, ranges that are missing
    except Exception as error:  # the converter's own exceptions are not public
        raise OptionError(
            f"--precision={precision}: the TFLite converter refuses the graph ({first_line(error)})"
        ) from None


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
      representative: for int8, inputs as the function takes them, from which ranges and means are taken; not used
        where the function rounds to ranges of its own (quantised training).

    Raises:
      OptionError: the converter fails.
    """
    with _refusing(precision):
        content = _converted(function, dynamic=precision == "dynamic")
        return _with_precision(content, precision, representative, uint8_io=uint8_io)


def convert_graph(
    graph: ApartGraph,
    outputs: Sequence[Output],
    *,
    precision: str = "float32",
    uint8_io: bool = True,
    representative: Iterable[np.ndarray] = (),
) -> bytes:
    """Returns the file's bytes as `convert` does, in less time and memory: the converter gets marks for kernels.

    Args:
      graph: from `inference.graph.build_graph`.
      outputs: of the graph, in the order of the file's.
      precision: see `convert`.
      uint8_io: see `convert`.
      representative: see `convert`.

    Raises:
      OptionError: the converter fails.
    """
    content = None if precision == "dynamic" else _by_marks(graph, outputs)  # it rounds the kernels itself
    if content is None:
        function = as_function(graph.whole(), outputs).get_concrete_function()
        return convert(function, precision=precision, uint8_io=uint8_io, representative=representative)
    with _refusing(precision):
        return _with_precision(content, precision, representative, uint8_io=uint8_io)


def _by_marks(graph: ApartGraph, outputs: Sequence[Output]) -> bytes | None:
    """Returns the float32 file, from a conversion with marks for kernels; None where that cannot be."""
    light, kernels = graph.marked()
    try:
        return filled(_converted(as_function(light, outputs).get_concrete_function()), kernels)
    except Exception:  # what the converter refuses with marks it may take with kernels, or else say why
        return None


class LiteModel:
    """A .tflite file ready to run in LiteRT (with XNNPACK, its default)."""

    def __init__(self, content: bytes, *, threads: int | None = None):
        self._interpreter = open_interpreter(content, threads=threads)
        (self._input,) = self._interpreter.get_input_details()
        self._outputs = self._interpreter.get_output_details()

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images it takes."""
        _, height, width, _ = map(int, self._input["shape"])
        return height, width

    @property
    def takes_pixels(self) -> bool:
        """Whether its input is uint8 and 0..255 by its own scale, if it has one."""
        return self._input["dtype"] is np.uint8 and self._input["quantization"][0] in (0.0, 1.0)

    def __call__(self, images: np.ndarray) -> list[np.ndarray]:
        """Returns the outputs for images [1, h, w, 3] in 0..255.

        Labels are int32 [1, h, w], logits float32 [1, h, w, classes] even where the file holds them as integers.
        """
        self._interpreter.set_tensor(self._input["index"], _quantised(images, self._input))
        self._interpreter.invoke()
        return [_real(self._interpreter.get_tensor(output["index"]), output) for output in self._outputs]


def _quantised(values: np.ndarray, details: Mapping) -> np.ndarray:
    scale, zero = details["quantization"]
    same = values.dtype == details["dtype"] and (scale, zero) == (1, 0)
    if same or details["dtype"] not in _QUANTISED or not scale:
        return values.astype(details["dtype"], copy=False)
    limits = np.iinfo(details["dtype"])
    return np.clip(np.rint(values / scale) + zero, limits.min, limits.max).astype(details["dtype"])


def _real(values: np.ndarray, details: Mapping) -> np.ndarray:
    scale, zero = details["quantization"]
    if details["dtype"] not in _QUANTISED or not scale:
        return values
    return (values.astype(np.float32) - zero) * np.float32(scale)


def with_scores(content: bytes) -> bytes:
    """Returns a file that gives classes changed so that it also gives the scores they are taken from, second.

    These are the input of the argmax, or the logits of `upsampling.strip_classes`, which begins with negating them.
    """
    model, kinds = unpack(content), schema().BuiltinOperator
    (graph,) = model.subgraphs
    makers = {int(output): operation for operation in graph.operators for output in operation.outputs}
    operation = makers[int(graph.outputs[0])]
    while model.operatorCodes[operation.opcodeIndex].builtinCode not in (kinds.ARG_MAX, kinds.NEG):
        operation = makers[next(index for index in map(int, operation.inputs) if index in makers)]
    graph.outputs = [*graph.outputs, operation.inputs[0]]
    model.signatureDefs = []  # they would have to name the new output
    return pack(model)


def operations(path: str | os.PathLike) -> dict[str, int]:
    """Returns how often each operation occurs in a file; those TFLite does not know itself as "Flex..."."""
    model = schema().Model.GetRootAs(files.path(path).read_bytes())
    names = {code: name for name, code in vars(schema().BuiltinOperator).items() if isinstance(code, int)}
    kinds = []
    for index in range(model.OperatorCodesLength()):
        code = model.OperatorCodes(index)
        custom = code.CustomCode()
        builtin = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())  # old files have the second alone
        kinds.append(custom.decode() if custom else names[builtin])
    graphs = [model.Subgraphs(index) for index in range(model.SubgraphsLength())]
    used = [kinds[graph.Operators(i).OpcodeIndex()] for graph in graphs for i in range(graph.OperatorsLength())]
    return dict(sorted(collections.Counter(used).items()))
