"""Kernels of a .tflite in 16 bits, rounded so that the sums of each output channel stay: biases keep their 32 bits.

The converter's own float16 rounds kernels and biases to the nearest; what every product then lacks adds up, since the
activations behind a ReLU all have one sign.
"""

import numpy as np

_KERNEL = 1  # its place among the inputs of a convolution
_EMPTY = 0  # the buffer that every file begins with
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


def _constant(schema, model, graph, values: np.ndarray, name: bytes) -> int:
    """Adds a float16 constant to a graph and returns the index of its tensor."""
    tensor, buffer = schema.TensorT(), schema.BufferT()
    buffer.data = np.frombuffer(values.astype("<f2").tobytes(), np.uint8)
    model.buffers.append(buffer)
    tensor.name, tensor.shape, tensor.type = name, list(values.shape), schema.TensorType.FLOAT16
    tensor.buffer = len(model.buffers) - 1
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _widening(schema, model, graph, index: int, *, depthwise: bool):
    """Gives the float32 kernel `index` its values from a float16 one; returns the operation that does it."""
    wide = graph.tensors[index]
    kernel = np.frombuffer(bytes(model.buffers[wide.buffer].data), "<f4").reshape(wide.shape)
    operation = schema.OperatorT()
    operation.opcodeIndex = len(model.operatorCodes) - 1
    operation.inputs = [
        _constant(schema, model, graph, _half_kernel(kernel, depthwise=depthwise), wide.name + b"/half")
    ]
    operation.outputs = [index]
    wide.buffer = _EMPTY
    return operation


def halved(content: bytes) -> bytes:
    """Returns a float32 .tflite with its kernels in float16, each before an operation that makes it float32 again.

    Runtimes do that once when they load the file, or calculate in float16 where they can.
    """
    import flatbuffers
    from tensorflow.lite.python import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))
    depthwise = {schema.BuiltinOperator.CONV_2D: False, schema.BuiltinOperator.DEPTHWISE_CONV_2D: True}
    kinds = [depthwise.get(code.builtinCode) for code in model.operatorCodes]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.DEQUANTIZE
    code.version = _READS_HALF
    model.operatorCodes.append(code)
    replaced = set()
    for graph in model.subgraphs:
        convolutions = [(op.inputs, kinds[op.opcodeIndex]) for op in graph.operators]
        kernels = {int(inputs[_KERNEL]): kind for inputs, kind in convolutions if kind is not None}
        replaced |= {graph.tensors[index].buffer for index in kernels}
        added = [_widening(schema, model, graph, index, depthwise=kind) for index, kind in kernels.items()]
        graph.operators = [*added, *graph.operators]
    used = {tensor.buffer for graph in model.subgraphs for tensor in graph.tensors}
    for index in replaced - used:
        model.buffers[index].data = None
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
