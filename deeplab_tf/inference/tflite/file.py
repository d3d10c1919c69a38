"""A .tflite file as an object that can be changed, its constants as arrays, and what runs it."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from deeplab_tf.inference.processor import available_cores
from deeplab_tf.weights.lite_format import schema

_ALIGNED = 16  # bytes that the data of a buffer begin at a multiple of
EMPTY = 0  # the buffer without data that every file begins with


def unpack(content: bytes) -> Any:
    """Returns the file as the ModelT of `schema`."""
    return schema().ModelT.InitFromObj(schema().Model.GetRootAs(content))


def new_builder() -> Any:
    """Returns a builder of FlatBuffers that aligns bytes as the format asks: constants can be used where they lie."""
    import flatbuffers

    class Builder(flatbuffers.Builder):
        def StartVector(self, size: int, count: int, alignment: int) -> Any:
            return super().StartVector(size, count, _ALIGNED if size == 1 else alignment)

    return Builder(0)


def pack(model: Any) -> bytes:
    """Returns the bytes of a file."""
    builder = new_builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def open_interpreter(content: bytes, *, threads: int | None = None, keep_all: bool = False) -> Any:
    """Returns a LiteRT interpreter ready to run.

    Args:
      content: of the .tflite.
      threads: their number; None: one for each core that may be used.
      keep_all: every tensor can be read afterwards, which XNNPACK, otherwise used, does not allow.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType
    except ImportError:  # the same code under its old name; it goes away with a later TensorFlow
        import tensorflow as tf

        Interpreter, OpResolverType = tf.lite.Interpreter, tf.lite.experimental.OpResolverType
    options = {"model_content": content, "num_threads": threads or available_cores()}
    if keep_all:
        options["experimental_op_resolver_type"] = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        options["experimental_preserve_all_tensors"] = True
    interpreter = Interpreter(**options)
    interpreter.allocate_tensors()
    return interpreter


def convolutions(model: Any) -> Iterator[tuple]:
    """Yields (graph, operation, whether it is depthwise) of every convolution.

    Its inputs are maps, kernel and, if any, bias; kernels are [cout, kh, kw, cin], depthwise ones [1, kh, kw, c].
    """
    names = schema().BuiltinOperator
    depthwise = {names.CONV_2D: False, names.DEPTHWISE_CONV_2D: True}
    kinds = [depthwise.get(code.builtinCode) for code in model.operatorCodes]
    (graph,) = model.subgraphs
    for operation in graph.operators:
        if kinds[operation.opcodeIndex] is not None:
            yield graph, operation, kinds[operation.opcodeIndex]


def after_convolutions(model: Any) -> set[int]:
    """Returns the outputs of the operations from which no convolution takes anything, and that are none."""
    (graph,), made_by = model.subgraphs, [operation for _, operation, _ in convolutions(model)]
    leading, after = set(), set()
    for operation in reversed(graph.operators):
        made = set(map(int, operation.outputs))
        convolution = any(operation is other for other in made_by)
        if convolution or made & leading:
            leading |= set(map(int, operation.inputs))
        if not (convolution or made & leading):
            after |= made
    return after


def constant(model: Any, tensor: Any) -> np.ndarray:
    """Returns the values of a float32 constant."""
    return np.frombuffer(bytes(model.buffers[tensor.buffer].data), "<f4").reshape(tensor.shape)


def set_constant(model: Any, tensor: Any, values: np.ndarray) -> None:
    """Gives a constant new values, of its own dtype; other tensors that shared the old ones keep them."""
    buffer = schema().BufferT()
    buffer.data = np.frombuffer(values.astype(values.dtype.newbyteorder("<")).tobytes(), np.uint8)
    model.buffers.append(buffer)
    tensor.buffer, tensor.shape = len(model.buffers) - 1, list(values.shape)


def drop_unused(model: Any) -> None:
    """Empties the buffers that no tensor has."""
    used = {tensor.buffer for graph in model.subgraphs for tensor in graph.tensors}
    used |= {entry.buffer for entry in model.metadata or ()}
    for index, buffer in enumerate(model.buffers):
        if index not in used:
            buffer.data = None
