"""What a .tflite of eight bits makes of pixels before its first convolution: a value for each of the 256."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from deeplab_tf.weights.lite_graph import MOVES, LiteGraph, Operation

_PIXELS = np.arange(256)
_CONVERTED = 256.0  # XNNPACK changes steps by a factor of eight bits behind the point
_FACTOR_BITS = 20


def converted(ratio: float) -> float:
    """Returns the factor by which XNNPACK changes from one step to another, `ratio` of their exact one."""
    return float(np.rint(ratio * _CONVERTED) / _CONVERTED)


def sum_factors(steps: Sequence[float], output: float) -> np.ndarray:
    """Returns what XNNPACK multiplies the two parts of a sum by, 21 bits of the larger, and by what it divides them.

    Args:
      steps: of both parts.
      output: the step of the sum.

    Returns:
      float32 [3].
    """
    ratios = np.asarray(steps, np.float32) / np.float32(output)
    power = np.ldexp(1.0, _FACTOR_BITS - (math.frexp(float(ratios.max()))[1] - 1))
    return np.asarray([*np.rint(ratios * power), power], np.float32)


def _chain(graph: LiteGraph, index: int) -> Iterator[Operation]:
    """Yields the operations from maps of this number back to the images; ValueError where they are not a chain."""
    makers = graph.makers
    while index != graph.source:
        operation = makers.get(index)
        if operation is None or len(operation.inputs) != 1:
            raise ValueError("not a chain")
        yield operation
        (index,) = operation.inputs


def _after(graph: LiteGraph, operation: Operation, levels: np.ndarray) -> np.ndarray:
    """Returns the levels [256, channels] behind an operation; KeyError or ValueError where they cannot be told."""
    (given,) = operation.inputs
    step, operand = graph.steps[operation.output], operation.operand
    if operation.name == "QUANTIZE":
        if given in graph.steps:
            result = np.floor(levels * converted(graph.steps[given] / step) + 0.5)
        else:
            result = np.rint(levels / step)
    elif operation.name == "MUL" and operand is not None:
        factor = np.float32(np.float32(graph.steps[given]) * np.float32(operation.operand_step)) / np.float32(step)
        result = np.rint((levels * operand).astype(np.float32) * factor)
    elif operation.name in ("ADD", "SUB") and operand is not None:
        first, second, power = sum_factors((graph.steps[given], operation.operand_step), step).astype(np.float64)
        signed = operand if operation.name == "ADD" else -operand
        result = np.floor((levels * first + signed * second) / power + 0.5)
    elif operation.name in MOVES:
        return levels
    else:
        raise ValueError(operation.name)
    lowest = round(graph.ranges[operation.output][0] / step)
    return np.clip(result, lowest, lowest + 255)


def pixel_values(graph: LiteGraph, index: int) -> np.ndarray | None:
    """Returns what the maps of number `index`, which the first convolution reads, hold for each value of a pixel.

    Operations that scale pixels in the file are calculated as XNNPACK does.

    Returns:
      float32 [256, 3]; None where the file has other operations there.
    """
    levels = np.broadcast_to(_PIXELS[:, None], (256, 3)).astype(np.float64)
    try:
        if graph.source in graph.steps:
            levels = levels + round(graph.ranges[graph.source][0] / graph.steps[graph.source])
        for operation in reversed(list(_chain(graph, index))):
            levels = np.broadcast_to(_after(graph, operation, levels), (256, 3))
    except (KeyError, ValueError):
        return None
    return (levels * graph.steps[index]).astype(np.float32)


def evenly(low: float, high: float) -> np.ndarray:
    """Returns values for pixels that lie evenly in a range, as `pixel_values` does."""
    return np.linspace((low,) * 3, (high,) * 3, 256, dtype=np.float32)
