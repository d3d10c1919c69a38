"""A .tflite of float32 written as ONNX, operation by operation: seconds less than converting the network once more.

Maps are [b, c, h, w] in ONNX, and the constants are turned accordingly; the input and the output stay [b, h, w, c].
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from deeplab_tf.errors import DeepLabError
from deeplab_tf.inference.tflite.file import unpack
from deeplab_tf.weights.lite_format import schema

INPUT, OUTPUT = "images", "output"
_OPSET = 17  # ONNX Runtime 1.12 and later read it
_IR_VERSION = 8  # of the file format of that time
_TO_ONNX = (0, 3, 1, 2)  # of the axes of a map
_AXES = {0: 0, 1: 2, 2: 3, 3: 1, -1: 1}  # of a map in a .tflite -> in ONNX
_TWO_SIDED = {"ADD": "Add", "SUB": "Sub", "MUL": "Mul", "MAXIMUM": "Max", "MINIMUM": "Min"}
_ONE_SIDED = {"LOGISTIC": "Sigmoid", "HARD_SWISH": "HardSwish"}
_LIMITS = {"RELU": (0.0, None), "RELU6": (0.0, 6.0), "RELU_N1_TO_1": (-1.0, 1.0)}


def onnx_of(content: bytes) -> bytes:
    """Returns a .tflite of float32, of maps alone, as an ONNX file that gives the same numbers up to rounding.

    Args:
      content: of a file of one graph with one input and one output, both [1, h, w, c].

    Raises:
      DeepLabError: it has an operation that is not known here.
    """
    return _Writer(unpack(content)).written()


def _name_of(kinds: Any, number: int) -> str:
    return next(name for name, value in vars(kinds).items() if value == number)


class _Writer:
    """Writes the operations of one file one after the other."""

    def __init__(self, model: Any):
        import onnx

        self._onnx = onnx
        self._model = model
        (self._graph,) = model.subgraphs
        self._kinds, self._activations = schema().BuiltinOperator, schema().ActivationFunctionType
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}
        self._makers: Mapping[str, Callable[[Any, str], None]] = {
            "CONV_2D": self._convolution,
            "DEPTHWISE_CONV_2D": self._convolution,
            "AVERAGE_POOL_2D": self._pooling,
            "MAX_POOL_2D": self._pooling,
            "RESIZE_BILINEAR": self._resize,
            "CONCATENATION": self._concatenation,
            "PAD": self._padding,
            "MEAN": self._mean,
            **dict.fromkeys(_TWO_SIDED, self._two_sided),
            **dict.fromkeys((*_ONE_SIDED, *_LIMITS), self._one_sided),
        }

    def written(self) -> bytes:
        """Returns the bytes of the ONNX file."""
        helper, kind = self._onnx.helper, self._onnx.TensorProto.FLOAT
        (given,), (result,) = self._graph.inputs, self._graph.outputs
        self._node("Transpose", [INPUT], self._map(given), perm=_TO_ONNX)
        for operation in self._graph.operators:
            name = _name_of(self._kinds, self._model.operatorCodes[operation.opcodeIndex].builtinCode)
            if name not in self._makers:
                raise DeepLabError(f"a network with the operation {name} cannot be written as ONNX here")
            self._makers[name](operation, name)
        self._node("Transpose", [self._map(result)], OUTPUT, perm=(0, 2, 3, 1))
        ends = ((INPUT, given), (OUTPUT, result))
        infos = [helper.make_tensor_value_info(name, kind, self._shape(index)) for name, index in ends]
        graph = helper.make_graph(self._nodes, "network", infos[:1], infos[1:], list(self._constants.values()))
        opsets = [helper.make_opsetid("", _OPSET)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION).SerializeToString()

    # ---- tensors

    def _shape(self, index: int) -> tuple[int, ...]:
        return tuple(map(int, self._graph.tensors[index].shape))

    def _map(self, index: int) -> str:
        """Returns the name of a map; DeepLabError where it is something else."""
        if len(self._shape(index)) != 4:
            raise DeepLabError(f"a tensor of shape {self._shape(index)} cannot be written as ONNX here")
        return f"map{index}"

    def _array(self, index: int) -> np.ndarray | None:
        """Returns the value of a constant as it is in the file; None: the tensor is a map."""
        tensor, types = self._graph.tensors[index], schema().TensorType
        data = self._model.buffers[tensor.buffer].data
        if data is None or len(data) == 0:
            return None
        dtypes = {types.FLOAT32: "<f4", types.INT32: "<i4"}
        if tensor.type not in dtypes:
            raise DeepLabError("constants of another type than float32 cannot be written as ONNX here")
        return np.asarray(data, np.uint8).view(dtypes[tensor.type]).reshape(self._shape(index))

    def _numbers(self, index: int) -> np.ndarray:
        array = self._array(index)
        if array is None:
            raise DeepLabError("kernels, margins and sizes that are not constants cannot be written as ONNX here")
        return array

    def _constant(self, name: str, array: np.ndarray) -> str:
        if name not in self._constants:
            self._constants[name] = self._onnx.numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def _operand(self, index: int) -> str:
        """Returns the name of a map, or of a constant that is applied to each pixel of one."""
        array = self._array(index)
        if array is None:
            return self._map(index)
        whole = array.reshape((1,) * (4 - array.ndim) + array.shape)
        return self._constant(f"constant{index}", whole.transpose(_TO_ONNX))

    # ---- operations

    def _node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> None:
        self._nodes.append(self._onnx.helper.make_node(kind, inputs, [output], name=f"{kind}_{output}", **attributes))

    def _activated(self, operation: Any, kind: str, inputs: list[str], **attributes: Any) -> None:
        """Adds a node and the activation that its operation ends in."""
        output = self._map(int(operation.outputs[0]))
        name = _name_of(self._activations, operation.builtinOptions.fusedActivationFunction)
        self._node(kind, inputs, output if name == "NONE" else f"{output}_before", **attributes)
        if name != "NONE":
            self._limited(name, f"{output}_before", output)

    def _limited(self, name: str, given: str, output: str) -> None:
        if name not in _LIMITS:
            raise DeepLabError(f"the activation {name} cannot be written as ONNX here")
        low, high = _LIMITS[name]
        if high is None:
            self._node("Relu", [given], output)
        else:
            limits = [self._constant(f"number{n}", np.array(n, np.float32)) for n in (low, high)]
            self._node("Clip", [given, *limits], output)

    def _one_sided(self, operation: Any, name: str) -> None:
        given, output = self._map(int(operation.inputs[0])), self._map(int(operation.outputs[0]))
        if name in _LIMITS:
            self._limited(name, given, output)
        else:
            self._node(_ONE_SIDED[name], [given], output)

    def _two_sided(self, operation: Any, name: str) -> None:
        inputs = [self._operand(int(index)) for index in operation.inputs]
        if name in ("MAXIMUM", "MINIMUM"):  # which have no activation
            self._node(_TWO_SIDED[name], inputs, self._map(int(operation.outputs[0])))
        else:
            self._activated(operation, _TWO_SIDED[name], inputs)

    def _concatenation(self, operation: Any, _: str) -> None:
        inputs = [self._operand(int(index)) for index in operation.inputs]
        self._activated(operation, "Concat", inputs, axis=_AXES[operation.builtinOptions.axis])

    def _mean(self, operation: Any, _: str) -> None:
        given, axes = map(int, operation.inputs)
        if not operation.builtinOptions.keepDims:
            raise DeepLabError("a mean that drops axes cannot be written as ONNX here")
        turned = [_AXES[int(axis)] for axis in self._numbers(axes).reshape(-1)]
        self._node("ReduceMean", [self._map(given)], self._map(int(operation.outputs[0])), axes=turned, keepdims=1)

    def _padding(self, operation: Any, _: str) -> None:
        given, margins = map(int, operation.inputs)
        pads = self._numbers(margins)[list(_TO_ONNX)].T.reshape(-1).astype(np.int64)
        inputs = [self._map(given), self._constant(f"margins{margins}", pads)]
        self._node("Pad", inputs, self._map(int(operation.outputs[0])))

    def _resize(self, operation: Any, _: str) -> None:
        given, output = int(operation.inputs[0]), int(operation.outputs[0])
        options = operation.builtinOptions
        if not options.alignCorners or options.halfPixelCenters:
            raise DeepLabError("a resize without aligned corners cannot be written as ONNX here")
        height, width = self._shape(output)[1:3]
        batch, channels = self._shape(given)[0], self._shape(given)[3]
        sizes = self._constant(f"sizes{output}", np.array([batch, channels, height, width], np.int64))
        modes = {"mode": "linear", "coordinate_transformation_mode": "align_corners"}
        self._node("Resize", [self._map(given), "", "", sizes], self._map(output), **modes)

    def _pads(self, given: int, window: tuple[int, int], options: Any) -> list[int]:
        """Returns what SAME or VALID means for maps of this size: margins at the top, left, bottom and right."""
        if options.padding == schema().Padding.VALID:
            return [0, 0, 0, 0]
        strides, pads = (options.strideH, options.strideW), []
        for side, length, stride in zip(self._shape(given)[1:3], window, strides, strict=True):
            pads.append(max((-(-side // stride) - 1) * stride + length - side, 0))
        return [total // 2 for total in pads] + [total - total // 2 for total in pads]

    def _pooling(self, operation: Any, name: str) -> None:
        given, options = int(operation.inputs[0]), operation.builtinOptions
        window = (options.filterHeight, options.filterWidth)
        if name == "AVERAGE_POOL_2D" and window == self._shape(given)[1:3] and self._is_one_pixel(operation):
            self._activated(operation, "GlobalAveragePool", [self._map(given)])
            return
        kind = "AveragePool" if name == "AVERAGE_POOL_2D" else "MaxPool"
        geometry = {"strides": [options.strideH, options.strideW], "pads": self._pads(given, window, options)}
        self._activated(operation, kind, [self._map(given)], kernel_shape=window, **geometry)

    def _is_one_pixel(self, operation: Any) -> bool:
        return self._shape(int(operation.outputs[0]))[1:3] == (1, 1)

    def _convolution(self, operation: Any, name: str) -> None:
        given, kernel, *rest = map(int, operation.inputs)
        options, array = operation.builtinOptions, self._numbers(kernel)
        rates = (options.dilationHFactor, options.dilationWFactor)
        depthwise = name == "DEPTHWISE_CONV_2D"
        # A depthwise kernel is [1, kh, kw, c], another [cout, kh, kw, cin]; ONNX has [cout, cin of a group, kh, kw].
        turned = array.transpose(3, 0, 1, 2) if depthwise else array.transpose(_TO_ONNX)
        inputs = [self._map(given), self._constant(f"kernel{kernel}", turned)]
        # -1 stands for no bias.
        inputs += [self._constant(f"bias{bias}", self._numbers(bias)) for bias in rest if bias >= 0]
        window = tuple((side - 1) * rate + 1 for side, rate in zip(array.shape[1:3], rates, strict=True))
        geometry = {
            "group": self._shape(given)[3] if depthwise else 1,
            "kernel_shape": list(array.shape[1:3]),
            "strides": [options.strideH, options.strideW],
            "dilations": list(rates),
            "pads": self._pads(given, (window[0], window[1]), options),
        }
        self._activated(operation, "Conv", inputs, **geometry)
