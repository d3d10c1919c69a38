"""Kernels of a .tflite in 16 bits, rounded so that the sums of each output channel stay: biases keep their 32 bits.

The converter's own float16 rounds kernels and biases to the nearest; what every product then lacks adds up, since the
activations behind a ReLU all have one sign.
"""

from typing import Any

import numpy as np

from deeplab_tf.inference.tflite.file import (
    EMPTY,
    constant,
    convolutions,
    drop_unused,
    pack,
    set_constant,
    unpack,
)
from deeplab_tf.weights.lite_format import schema

_KERNEL = 1  # its index among the inputs of a convolution
_READS_HALF = 3  # the first version of the operation that does


def balanced_half(rows: np.ndarray) -> np.ndarray:
    """Returns float32 [n, k] rounded to float16 such that each row's errors sum to about zero.

    From the nearest values, those move to the one above or below for which that adds least to the squared errors,
    until the rest of the sum is less than half a step.
    """
    near = rows.astype(np.float16)
    missing = (rows.astype(np.float64) - near).sum(1, keepdims=True)
    other = np.nextafter(near, np.copysign(np.float16(np.inf), missing).astype(np.float16))
    step = np.abs(other.astype(np.float64) - near)
    costs = ((rows - other.astype(np.float64)) ** 2 - (rows - near.astype(np.float64)) ** 2) / step
    order = np.argsort(costs, axis=1, kind="stable")
    ordered = np.take_along_axis(step, order, 1)
    moved = np.zeros(rows.shape, bool)
    np.put_along_axis(moved, order, np.cumsum(ordered, axis=1) - ordered / 2 < np.abs(missing), 1)
    return np.where(moved, other, near)


def _half_kernel(kernel: np.ndarray, *, depthwise: bool) -> np.ndarray:
    """A kernel [cout, kh, kw, cin], depthwise [1, kh, kw, c], in float16."""
    if depthwise:
        return balanced_half(kernel.reshape(-1, kernel.shape[-1]).T).T.reshape(kernel.shape)
    return balanced_half(kernel.reshape(len(kernel), -1)).reshape(kernel.shape)


def _widening(model: Any, graph: Any, index: int, *, depthwise: bool):
    """Gives the float32 kernel `index` its values from a float16 one; returns the operation that does it."""
    wide, half, operation = graph.tensors[index], schema().TensorT(), schema().OperatorT()
    half.name, half.type = wide.name + b"/half", schema().TensorType.FLOAT16
    set_constant(model, half, _half_kernel(constant(model, wide), depthwise=depthwise))
    wide.buffer = EMPTY
    operation.opcodeIndex = len(model.operatorCodes) - 1
    operation.inputs, operation.outputs = [len(graph.tensors)], [index]
    graph.tensors.append(half)
    return operation


def halved(content: bytes) -> bytes:
    """Returns a float32 .tflite with its kernels in float16, each before an operation that makes it float32 again.

    Runtimes do that once when they load the file, or calculate in float16 where they can.
    """
    model = unpack(content)
    kernels = {int(op.inputs[_KERNEL]): (graph, depthwise) for graph, op, depthwise in convolutions(model)}
    code = schema().OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema().BuiltinOperator.DEQUANTIZE
    code.version = _READS_HALF
    model.operatorCodes.append(code)
    for index, (graph, depthwise) in kernels.items():
        graph.operators = [_widening(model, graph, index, depthwise=depthwise), *graph.operators]
    drop_unused(model)
    return pack(model)
