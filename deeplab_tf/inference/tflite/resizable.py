"""A .tflite of a fully convolutional network that is set to another size of its images without another conversion."""

from collections.abc import Callable
from typing import Any

import numpy as np

from deeplab_tf.weights.lite_format import schema

_ANY_SIZE = (
    *("ADD", "CONCATENATION", "CONV_2D", "DEPTHWISE_CONV_2D", "HARD_SWISH", "LOGISTIC", "MAXIMUM", "MAX_POOL_2D"),
    *("MINIMUM", "MUL", "PAD", "RELU", "RELU6", "SUB"),
)
# Where the vtable of Pool2DOptions, in the file format, has the offsets of these two fields: 4 + 2 * field.
_FILTER_HEIGHT, _FILTER_WIDTH = 12, 10


class NotResizable(Exception):
    """The file has an operation that depends on the size in a way that is not known here."""


class ResizableFile:
    """A .tflite of a network, ending in logits, for images of any size that suits its stride.

    What depends on the size are numbers in the file: shapes of maps, windows of pooling over the whole image, targets
    of resizes. Arrays that share the file's memory are kept of them, and set in place.

    Args:
      content: the file, converted for images [1, h, w, 3] whose sides are k * stride + 1 pixels.
      stride: the network's output stride.

    Raises:
      NotResizable: an operation depends on the size in a way that is not known here.
    """

    def __init__(self, content: bytes, stride: int):
        self._schema, self._stride, self._content = schema(), stride, bytearray(content)
        self._model = self._schema.Model.GetRootAs(self._content)
        self._graph = self._model.Subgraphs(0)
        self._old = tuple(map(int, self._sides(self._graph.Inputs(0))))
        changes = [self._change(self._graph.Operators(i)) for i in range(self._graph.OperatorsLength())]
        tensors = map(self._graph.Tensors, range(self._graph.TensorsLength()))
        shapes = [t.ShapeAsNumpy() for t in tensors if not self._model.Buffers(t.Buffer()).DataLength()]
        maps = [shape[1:3] for shape in shapes if len(shape) == 4 and tuple(shape[1:3]) != (1, 1)]
        # Each is a view of two numbers in the file, and the function that gives them for a size.
        self._numbers = [change for change in changes if change] + [(sides, self._scaling(sides)) for sides in maps]

    def _sides(self, tensor: int) -> np.ndarray:
        return self._graph.Tensors(tensor).ShapeAsNumpy()[1:3]

    def _change(self, operation: Any) -> tuple[np.ndarray, Callable] | None:
        """Returns the numbers of an operation that depend on the size and their function, None where it has none."""
        kinds = self._schema.BuiltinOperator
        kind = self._model.OperatorCodes(operation.OpcodeIndex()).BuiltinCode()
        if kind == kinds.RESIZE_BILINEAR:
            target = self._model.Buffers(self._graph.Tensors(operation.Inputs(1)).Buffer())
            return target.DataAsNumpy().view("<i4"), self._scaling(self._sides(operation.Outputs(0)))
        if kind == kinds.AVERAGE_POOL_2D:
            window, whole = pooling_window(self._content, operation.BuiltinOptions()), self._sides(operation.Inputs(0))
            return (window, self._scaling(whole)) if tuple(window) == tuple(whole) else None
        if kind not in {getattr(kinds, name) for name in _ANY_SIZE}:
            raise NotResizable
        return None

    def _scaling(self, sides: np.ndarray) -> Callable[[tuple[int, int]], list[int]]:
        """Returns the function from the size of images to that of a map which has `sides` in this file."""
        pairs = [(old, int(side)) for old, side in zip(self._old, sides, strict=True)]
        strides = [(old - 1) // max(side - 1, 1) for old, side in pairs]
        if any((side - 1) * stride + 1 != old for (old, side), stride in zip(pairs, strides, strict=True)):
            raise NotResizable
        return lambda size: [(new - 1) // stride + 1 for new, stride in zip(size, strides, strict=True)]

    def suits(self, size: tuple[int, int]) -> bool:
        """Returns whether images of this size have maps like the file's: of odd sides throughout."""
        return all(side > self._stride and (side - 1) % self._stride == 0 for side in size)

    def for_size(self, size: tuple[int, int]) -> bytes:
        """Returns the file for images [1, *size, 3]."""
        for numbers, scaled in self._numbers:
            numbers[:] = scaled(size)
        return bytes(self._content)


def pooling_window(content: bytearray, options: Any) -> np.ndarray:
    """Returns a pooling's window, height and width, as a view of the file's own numbers, which may be set.

    Args:
      content: the file.
      options: the table Pool2DOptions of the operation, which lies in `content`.

    Raises:
      NotResizable: the numbers are not where this format has them.
    """
    height, width = (options.Pos + options.Offset(field) for field in (_FILTER_HEIGHT, _FILTER_WIDTH))
    window = np.ndarray((2,), "<i4", content, offset=height, strides=(width - height,))
    pool = schema().Pool2DOptions()
    pool.Init(options.Bytes, options.Pos)
    if tuple(window) != (pool.FilterHeight(), pool.FilterWidth()):
        raise NotResizable
    return window
