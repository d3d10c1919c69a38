"""The operations of a .tflite as a graph of maps, with kernels and biases as the numbers that they stand for.

What the file holds in eight bits is dequantised here, with a scale for each channel or one for the tensor
(https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/quantization_spec): real = scale * (q - zero).
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np

from deeplab_tf.errors import DeepLabError
from deeplab_tf.weights.lite_format import schema

Kind = Literal["conv", "depthwise", "add", "mul", "concat", "pool", "max_pool", "other"]
_KINDS: dict[str, Kind] = {
    "CONV_2D": "conv",
    "DEPTHWISE_CONV_2D": "depthwise",
    "ADD": "add",
    "MUL": "mul",
    "CONCATENATION": "concat",
    "AVERAGE_POOL_2D": "pool",
    "MEAN": "pool",
    "MAX_POOL_2D": "max_pool",
}
# These neither calculate nor change the place of a range: sizes, rounding, the way that dilation was once written.
MOVES = frozenset(
    {
        *("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "QUANTIZE", "DEQUANTIZE", "PAD", "PADV2", "RESHAPE", "SQUEEZE"),
        *("SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND", "CAST", "ARG_MAX", "STRIDED_SLICE", "SLICE", "EXPAND_DIMS"),
    }
)
RECTIFIERS = {"RELU": "relu", "RELU6": "relu6"}
_ACTIVATIONS = {0: None, 1: "relu", 3: "relu6"}
_SAME = ("SUB", "LOGISTIC", "HARD_SWISH", "SOFTMAX", "MINIMUM", "MAXIMUM", "DIV", "NEG", *RECTIFIERS)
_WITH_OPERAND = ("ADD", "SUB", "MUL")
_TYPES = {"FLOAT32": "<f4", "FLOAT16": "<f2", "INT32": "<i4", "UINT8": "u1", "INT8": "i1", "INT16": "<i2"}
_TYPES |= {"INT64": "<i8"}
_LOWEST = {"UINT8": 0, "INT8": -128}
_LEVELS = 255
_EDGE_TPU = "edgetpu-custom-op"


@dataclasses.dataclass(frozen=True)
class Operation:
    """An operation of the file.

    Attributes:
      name: TFLite's, for instance CONV_2D.
      kind: what it is for a network; "other" passes its first input on, changed by itself alone.
      inputs: the maps that it reads, by number.
      output: the maps that it gives.
      names: of its kernel, its bias and its output in the file.
      kernel: of a convolution, float32 [kh, kw, cin, cout], depthwise [kh, kw, c, 1].
      kernel_step: of a kernel in eight bits, float32 [cout], depthwise [c]: what its integers are multiples of.
      bias: float32 [cout], None: there is none.
      stride, rate: vertical and horizontal.
      activation: what ends it: relu, relu6, None.
      operand: of what adds, subtracts or multiplies a constant in eight bits: this constant, as integers without their
        zero point; else None.
      operand_step: what these are multiples of.
    """

    name: str
    kind: Kind
    inputs: tuple[int, ...]
    output: int
    names: tuple[str, ...] = ()
    kernel: np.ndarray | None = None
    kernel_step: np.ndarray | None = None
    bias: np.ndarray | None = None
    stride: tuple[int, int] = (1, 1)
    rate: tuple[int, int] = (1, 1)
    activation: str | None = None
    operand: np.ndarray | None = None
    operand_step: float = 1.0


@dataclasses.dataclass(frozen=True)
class LiteGraph:
    """The operations of a file.

    Attributes:
      operations: in the order in which they run.
      source: the number of the images that it takes.
      outputs: what it gives.
      size: height and width of the images.
      ranges: number -> the lowest and the highest value that eight bits hold of these maps.
      steps: number -> the distance of two values that eight bits hold of them.
      corners: how maps are resized: "aligned", "unaligned", "half" (pixels' centres); all ways that occur.
    """

    operations: tuple[Operation, ...]
    source: int
    outputs: tuple[int, ...]
    size: tuple[int, int]
    ranges: Mapping[int, tuple[float, float]]
    steps: Mapping[int, float]
    corners: frozenset[str] = frozenset()

    @property
    def makers(self) -> dict[int, Operation]:
        """The operation that gives each of the maps, by their number."""
        return {operation.output: operation for operation in self.operations}


class _File:
    """A file's tables, read where they are asked for."""

    def __init__(self, content: bytes):
        self._schema = schema()
        self._model = self._schema.Model.GetRootAs(content)
        self.graph = self._model.Subgraphs(0)
        self._names = {code: name for name, code in vars(self._schema.BuiltinOperator).items() if isinstance(code, int)}
        kinds = {code: name for name, code in vars(self._schema.TensorType).items() if isinstance(code, int)}
        tensors = [self.graph.Tensors(i) for i in range(self.graph.TensorsLength())]
        self.names = [(tensor.Name() or b"").decode() for tensor in tensors]
        self.types = [kinds[tensor.Type()] for tensor in tensors]
        self._tensors = tensors

    def operator(self, index: int) -> tuple[str, Any]:
        """Returns the name of an operation, and itself."""
        operation = self.graph.Operators(index)
        code = self._model.OperatorCodes(operation.OpcodeIndex())
        custom = code.CustomCode()
        # Old files have the second number alone.
        return custom.decode() if custom else self._names[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())], (
            operation
        )

    def options(self, operation: Any, kind: str) -> Any:
        """Returns the options of an operation, which are of the table `kind`; the defaults where it has none."""
        table, found = operation.BuiltinOptions(), getattr(self._schema, f"{kind}T")()
        if table is not None:
            options = getattr(self._schema, kind)()
            options.Init(table.Bytes, table.Pos)
            found = getattr(self._schema, f"{kind}T").InitFromObj(options)
        return found

    def raw(self, index: int) -> np.ndarray | None:
        """Returns the values of a constant as they are stored; None for maps."""
        buffer = self._model.Buffers(self._tensors[index].Buffer())
        if not buffer.DataLength():
            return None
        return buffer.DataAsNumpy().view(_TYPES[self.types[index]]).reshape(self.shape(index))

    def scales(self, index: int) -> tuple[np.ndarray, np.ndarray, int] | None:
        """Returns scales, zero points and the axis that they belong to, where a tensor has them."""
        table = self._tensors[index].Quantization()
        if table is None or not table.ScaleLength():
            return None
        scales = np.asarray(table.ScaleAsNumpy(), np.float64)
        zeros = np.asarray(table.ZeroPointAsNumpy()) if table.ZeroPointLength() else np.zeros(len(scales), int)
        if len(zeros) != len(scales) or not (np.isfinite(scales) & (scales > 0)).all():
            raise DeepLabError(f"tensor {self.names[index]} has scales that are not numbers above 0, one a zero point")
        return scales, zeros, int(table.QuantizedDimension())

    def values(self, index: int) -> np.ndarray | None:
        """Returns the numbers that a constant stands for, float32."""
        stored, scales = self.raw(index), self.scales(index)
        if stored is None:
            return None
        if scales is None:
            if stored.dtype.kind != "f":
                raise DeepLabError(f"tensor {self.names[index]} is {stored.dtype} without a scale")
            return stored.astype(np.float32)
        factor, zero, axis = scales
        if len(factor) > 1:
            along = [-1 if place == axis else 1 for place in range(stored.ndim)]
            if axis >= stored.ndim or len(factor) != stored.shape[axis]:
                raise DeepLabError(f"tensor {self.names[index]}: {len(factor)} scales for the shape {stored.shape}")
            factor, zero = factor.reshape(along), zero.reshape(along)
        return ((stored.astype(np.float64) - zero) * factor).astype(np.float32)

    def ranges(self) -> Iterator[tuple[int, tuple[float, float], float]]:
        """Yields number, range and step of all tensors of eight bits that have one scale."""
        for index, kind in enumerate(self.types):
            scales = self.scales(index) if kind in _LOWEST else None
            if scales and len(scales[0]) == 1:
                step = float(scales[0][0])
                low = step * (_LOWEST[kind] - int(scales[1][0]))
                yield index, (low, low + step * _LEVELS), step

    def shape(self, index: int) -> tuple[int, ...]:
        """Returns the shape of a tensor."""
        tensor = self._tensors[index]
        return tuple(int(side) for side in tensor.ShapeAsNumpy()) if tensor.ShapeLength() else ()


class _Reader:
    """Reads the operations of one file in their order."""

    def __init__(self, content: bytes):
        self._file = _File(content)
        # Constants that are written with fewer bits, and maps whose batch holds the pixels of a rate.
        self._widened: dict[int, int] = {}
        self._blocks: dict[int, tuple[int, int]] = {}
        self._corners: set[str] = set()

    def graph(self) -> LiteGraph:
        """Returns the operations."""
        table = self._file.graph
        if table.InputsLength() != 1:
            raise DeepLabError(f"it takes {table.InputsLength()} inputs; expected a network that takes images")
        names = [self._file.operator(i)[0] for i in range(table.OperatorsLength())]
        if _EDGE_TPU in names:
            raise DeepLabError(
                f"it was compiled for the Edge TPU: its weights lie in the accelerator's own code ({_EDGE_TPU}); "
                "expected the .tflite that was given to the compiler (the name without _edgetpu)"
            )
        source = int(table.Inputs(0))
        shape = self._file.shape(source)
        if len(shape) != 4 or shape[3] != 3:
            raise DeepLabError(f"it takes {list(shape)}; expected images [1, height, width, 3]")
        read = (self._operation(i) for i in range(len(names)))
        operations = tuple(operation for operation in read if operation)
        outputs = tuple(int(table.Outputs(i)) for i in range(table.OutputsLength()))
        found = list(self._file.ranges())
        ranges, steps = {index: ends for index, ends, _ in found}, {index: step for index, _, step in found}
        return LiteGraph(operations, source, outputs, (shape[1], shape[2]), ranges, steps, frozenset(self._corners))

    def _operation(self, index: int) -> Operation | None:
        name, table = self._file.operator(index)
        inputs = [int(table.Inputs(i)) for i in range(table.InputsLength())]
        output = int(table.Outputs(0))
        if name == "DEQUANTIZE" and self._file.raw(inputs[0]) is not None:
            self._widened[output] = inputs[0]
            return None
        kind = _KINDS.get(name, "other")
        if kind == "other" and name not in MOVES and name not in _SAME:
            raise DeepLabError(f"its operation {name} belongs to no network known here")
        if kind in ("conv", "depthwise"):
            return self._convolution(name, kind, inputs, output, table)
        maps = tuple(i for i in inputs if i >= 0 and i not in self._widened and self._file.raw(i) is None)
        if name in ("SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND"):
            self._note_blocks(name, inputs, output)
        elif maps and maps[0] in self._blocks:
            self._blocks[output] = self._blocks[maps[0]]
        if name == "RESIZE_BILINEAR":
            self._note_corners(inputs[0], output, table)
        if kind in ("add", "mul") and len(set(maps)) < 2:
            kind = "other"
        activation = RECTIFIERS.get(name)
        if kind == "add":
            activation = _ACTIVATIONS.get(self._file.options(table, "AddOptions").fusedActivationFunction)
        operand, step = self._operand(name, inputs)
        names = (self._file.names[output],)
        return Operation(name, kind, maps, output, names, activation=activation, operand=operand, operand_step=step)

    def _operand(self, name: str, inputs: list[int]) -> tuple[np.ndarray | None, float]:
        """Returns a second input that is a constant in eight bits, as integers, and their step; else None and 1."""
        stored = self._file.raw(inputs[1]) if name in _WITH_OPERAND and len(inputs) == 2 and inputs[1] >= 0 else None
        scales = None if stored is None else self._file.scales(inputs[1])
        if stored is None or scales is None or len(scales[0]) != 1:
            return None, 1.0
        return stored.astype(np.int64) - int(scales[1][0]), float(scales[0][0])

    def _note_corners(self, given: int, output: int, table: Any) -> None:
        before, after = self._file.shape(given)[1:3], self._file.shape(output)[1:3]
        if before in (after, (1, 1)):
            return  # one way is as another
        options = self._file.options(table, "ResizeBilinearOptions")
        half = "half" if options.halfPixelCenters else "unaligned"
        self._corners.add("aligned" if options.alignCorners else half)

    def _note_blocks(self, name: str, inputs: list[int], output: int) -> None:
        block = self._file.raw(inputs[1])
        if name == "SPACE_TO_BATCH_ND" and block is not None and block.size == 2:
            self._blocks[output] = (int(block[0]), int(block[1]))

    def _constant(self, index: int) -> np.ndarray:
        values = self._file.values(self._widened.get(index, index))
        if values is None:
            raise DeepLabError(f"tensor {self._file.names[index]} is calculated; expected a kernel or a bias")
        return values

    def _step_of_each(self, index: int, channels: int) -> np.ndarray | None:
        scales = self._file.scales(self._widened.get(index, index))
        return None if scales is None else np.broadcast_to(scales[0].astype(np.float32), channels)

    def _convolution(self, name: str, kind: Kind, inputs: list[int], output: int, table: Any) -> Operation:
        options = self._file.options(table, "Conv2DOptions" if kind == "conv" else "DepthwiseConv2DOptions")
        kernel = self._constant(inputs[1])
        if kernel.ndim != 4:
            raise DeepLabError(f"tensor {self._file.names[inputs[1]]} has the shape {kernel.shape}; expected a kernel")
        bias = inputs[2] if len(inputs) > 2 and inputs[2] >= 0 else None
        rate = self._blocks.get(inputs[0], (options.dilationHFactor, options.dilationWFactor))
        if inputs[0] in self._blocks:
            self._blocks[output] = rate
        return Operation(
            name,
            kind,
            (inputs[0],),
            output,
            tuple(self._file.names[i] for i in (inputs[1], *([] if bias is None else [bias]), output)),
            # [cout, kh, kw, cin], depthwise [1, kh, kw, c]
            np.ascontiguousarray(kernel.transpose(1, 2, 3, 0)),
            self._step_of_each(inputs[1], kernel.shape[0 if kind == "conv" else 3]),
            None if bias is None else self._constant(bias),
            (options.strideH, options.strideW),
            rate,
            _ACTIVATIONS.get(options.fusedActivationFunction, "another"),
        )


def read_graph(content: bytes) -> LiteGraph:
    """Returns the operations of a .tflite.

    Raises:
      DeepLabError: it holds what no network here has; the message lacks the file's name.
      Exception: it is damaged: whatever reading a table past its end raises.
    """
    return _Reader(content).graph()
