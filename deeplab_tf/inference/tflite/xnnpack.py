"""Operations of a .tflite in eight bits that XNNPACK does not run, written as others that it does.

Each of them ends a stretch of the network that XNNPACK runs in one go, and LiteRT's own kernels are slow: Xception-65
at 513 x 513 took 260 ms instead of 76, and MobileNetV3 longer than in float32.
"""

from typing import Any

import numpy as np

from deeplab_tf.inference.tflite.file import set_constant
from deeplab_tf.weights.lite_format import schema

_LEVELS = 127  # of a constant above 0


class _Graph:
    """The graph of a file, to which operations on maps in eight bits are added."""

    def __init__(self, model: Any) -> None:
        self._model, self._names = model, schema()
        (self.graph,) = model.subgraphs

    def kind(self, operation: Any) -> int:
        return self._model.operatorCodes[operation.opcodeIndex].builtinCode

    def _code(self, kind: int) -> int:
        """The index of an operation's code, which is added where there is none."""
        codes = [code.builtinCode for code in self._model.operatorCodes]
        if kind not in codes:
            code = self._names.OperatorCodeT()
            code.builtinCode = code.deprecatedBuiltinCode = kind
            code.version = 2  # the first on integers
            self._model.operatorCodes.append(code)
        return len(codes) if kind not in codes else codes.index(kind)

    def _tensor(self, name: bytes, scale: float, zero_point: int) -> int:
        tensor = self._names.TensorT()
        tensor.name, tensor.type, tensor.buffer = name, self._names.TensorType.INT8, 0
        tensor.quantization = self._names.QuantizationParametersT()
        tensor.quantization.scale, tensor.quantization.zeroPoint = [scale], [zero_point]
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def constant(self, value: float) -> int:
        """Returns a tensor of one number above 0."""
        return self._number(b"constant", value / _LEVELS, _LEVELS)

    def zero(self, like: int) -> int:
        """Returns a tensor of one 0 in the scale of another: XNNPACK adds no tensors of very different scales."""
        return self._number(b"zero", self.graph.tensors[like].quantization.scale[0], 0)

    def _number(self, name: bytes, scale: float, level: int) -> int:
        index = self._tensor(name, scale, 0)
        set_constant(self._model, self.graph.tensors[index], np.array([level], np.int8))
        return index

    def map_like(self, other: int, name: str, *, highest: float) -> int:
        """Returns a tensor of the shape of another, for values from 0 to `highest`."""
        like = self.graph.tensors[other]
        index = self._tensor(like.name + f"/{name}".encode(), highest / 255, -128)
        self.graph.tensors[index].shape = like.shape
        self.graph.tensors[index].shapeSignature = like.shapeSignature
        return index

    def operation(self, kind: str, inputs: list[int], output: int, activation: str = "NONE"):
        """Returns an addition (Add) or a product (Mul), with an activation at its end."""
        operation, title = self._names.OperatorT(), f"{kind}Options"
        operation.opcodeIndex = self._code(getattr(self._names.BuiltinOperator, kind.upper()))
        operation.inputs, operation.outputs = inputs, [output]
        operation.builtinOptionsType = getattr(self._names.BuiltinOptions, title)
        operation.builtinOptions = getattr(self._names, f"{title}T")()
        operation.builtinOptions.fusedActivationFunction = getattr(self._names.ActivationFunctionType, activation)
        return operation


def _relu(graph: _Graph, given: int, output: int) -> list:
    """Returns x + 0, with a ReLU: XNNPACK takes no ReLU whose output has another scale than its input."""
    return [graph.operation("Add", [given, graph.zero(output)], output, "RELU")]


def _hard_swish(graph: _Graph, given: int, output: int) -> list:
    """Returns x * (relu6(x + 3) / 6)."""
    raised, gate = graph.map_like(given, "raised", highest=6.0), graph.map_like(given, "gate", highest=1.0)
    return [
        graph.operation("Add", [given, graph.constant(3.0)], raised, "RELU6"),
        graph.operation("Mul", [raised, graph.constant(1 / 6)], gate),
        graph.operation("Mul", [given, gate], output),
    ]


def use_xnnpack(model: Any) -> None:
    """Replaces each ReLU and each hard swish on int8 that stands alone in a file of one graph (`lite_file.unpack`)."""
    graph, kinds, operations = _Graph(model), schema().BuiltinOperator, []
    makers = {kinds.RELU: _relu, kinds.HARD_SWISH: _hard_swish}
    for operation in graph.graph.operators:
        make, output = makers.get(graph.kind(operation)), int(operation.outputs[0])
        if make and graph.graph.tensors[output].type == schema().TensorType.INT8:
            operations += make(graph, int(operation.inputs[0]), output)
        else:
            operations.append(operation)
    graph.graph.operators = operations
