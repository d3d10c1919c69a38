"""The kernels of a .tflite that was converted from a graph with marks in their places."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from deeplab_tf.weights.lite_format import schema

_KERNEL = 1  # its index among the inputs of a convolution
_LARGEST_WEIGHT = 1e6  # anything above it is a mark, or was calculated from one


class NotFilledError(Exception):
    """The converter has not kept the marks as they were."""


def _floats(model: Any, tensor: Any) -> np.ndarray:
    """Returns the values of a float32 constant, which can be changed; none where the tensor is another."""
    data = model.Buffers(tensor.Buffer()).DataAsNumpy()
    is_float = tensor.Type() == schema().TensorType.FLOAT32 and isinstance(data, np.ndarray)
    return data.view("<f4") if is_float else np.zeros(0, np.float32)


def _kernels(model: Any, graph: Any) -> Iterator[tuple]:
    """Yields (tensor, whether it is depthwise) of the kernel of every convolution."""
    names = schema().BuiltinOperator
    depthwise = {names.CONV_2D: False, names.DEPTHWISE_CONV_2D: True}
    codes = [model.OperatorCodes(index).BuiltinCode() for index in range(model.OperatorCodesLength())]
    for index in range(graph.OperatorsLength()):
        operation = graph.Operators(index)
        kind = codes[operation.OpcodeIndex()]
        if kind in depthwise:
            yield graph.Tensors(operation.Inputs(_KERNEL)), depthwise[kind]


def filled(content: bytes, kernels: Mapping[float, np.ndarray]) -> bytes:
    """Returns a file with its kernels where it has their marks, and nothing else changed.

    Args:
      content: the float32 .tflite of a graph of `graph_weights.marked`.
      kernels: by their marks, [kh, kw, cin, cout]; depthwise [kh, kw, c, multiplier].

    Raises:
      NotFilledError: a mark is not there, has been changed, or is not the kernel of a convolution.
    """
    changeable = bytearray(content)
    model, missing = schema().Model.GetRootAs(changeable), set(kernels)
    if model.SubgraphsLength() != 1:
        raise NotFilledError("several graphs")
    graph = model.Subgraphs(0)
    for tensor, depthwise in _kernels(model, graph):
        values = _floats(model, tensor)
        if not values.size or float(values[0]) not in kernels:
            continue
        mark = float(values[0])
        kernel = kernels[mark]
        kernel = kernel.reshape(1, *kernel.shape[:2], -1) if depthwise else kernel.transpose(3, 0, 1, 2)
        if not np.all(values == mark) or tuple(tensor.ShapeAsNumpy()) != kernel.shape:
            raise NotFilledError(f"the kernel {kernel.shape} has become {tensor.ShapeAsNumpy()}")
        values[:] = kernel.ravel()
        missing.discard(mark)
    rest = (_floats(model, graph.Tensors(index)) for index in range(graph.TensorsLength()))
    if missing or any(values.size > 1 and np.abs(values).max() >= _LARGEST_WEIGHT for values in rest):
        raise NotFilledError(f"{len(missing)} of {len(kernels)} kernels are not there as they were")
    return bytes(changeable)
