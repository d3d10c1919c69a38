"""A .tflite in eight bits, weights and activations, whose biases take up what the rounded weights lose.

The rule is that of arXiv 1906.04721, section 4.2: a layer's rounded weights shift the mean of its output by their error
times the mean of its input, and the bias takes that back. Its equalisation across layers (section 4.1) is left out:
kernels have a scale for each channel here, and the released MobileNetV2 lost agreement by it.

A network of quantised training brings its ranges along and has learned to do with its kernels: nothing is measured.
"""

import copy
import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from deeplab_tf.errors import DeepLabError
from deeplab_tf.inference.tflite.file import (
    after_convolutions,
    constant,
    convolutions,
    drop_unused,
    open_interpreter,
    pack,
    set_constant,
    unpack,
)
from deeplab_tf.inference.tflite.xnnpack import use_xnnpack
from deeplab_tf.weights.lite_format import quantized, schema, with_io_type

_WEIGHT_LEVELS = 127  # on either side of 0
_PIXELS = (0.0, 255.0)
_LEAST_RANGE = 1e-6


@dataclasses.dataclass
class Seen:
    """What a tensor [..., channels] held while a network ran: its range, 0 included, and the sum of each channel."""

    low: float = 0.0
    high: float = 0.0
    total: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(()))
    count: int = 0

    def add(self, values: np.ndarray) -> None:
        """Counts what it holds for one image."""
        rows = values.reshape(-1, values.shape[-1])
        self.low, self.high = min(self.low, float(rows.min())), max(self.high, float(rows.max()))
        self.total, self.count = self.total + rows.sum(0, dtype=np.float64), self.count + len(rows)

    @property
    def mean(self) -> np.ndarray:
        """Mean of each channel."""
        return self.total / self.count


def observe(content: bytes, images: Iterable[np.ndarray]) -> dict[int, Seen]:
    """Returns index -> what each float32 tensor of a .tflite that is no constant held while it ran on `images`."""
    model, interpreter = unpack(content), open_interpreter(content, keep_all=True)
    (graph,), (given,) = model.subgraphs, interpreter.get_input_details()
    used = {int(i) for operation in graph.operators for i in (*operation.inputs, *operation.outputs) if i >= 0}
    kinds = {index: graph.tensors[index] for index in used}
    floats = [i for i, t in kinds.items() if t.type == schema().TensorType.FLOAT32]
    seen = {index: Seen() for index in floats if model.buffers[kinds[index].buffer].data is None}
    for image in images:
        interpreter.set_tensor(given["index"], image)
        interpreter.invoke()
        for index, tally in seen.items():
            tally.add(interpreter.get_tensor(index))
    return seen


def lost_by_rounding(kernel: np.ndarray, *, depthwise: bool) -> np.ndarray:
    """Returns a kernel less its value in eight bits: multiples of a channel's largest magnitude over 127.

    The kernel is [cout, kh, kw, cin], depthwise [1, kh, kw, c], float32.
    """
    step = np.abs(kernel).max((0, 1, 2) if depthwise else (1, 2, 3), keepdims=True) / _WEIGHT_LEVELS
    return kernel - np.rint(kernel / np.where(step > 0, step, 1.0)) * step


def _take_up(model: Any, graph: Any, operation: Any, mean: np.ndarray, *, depthwise: bool):
    """Gives a convolution of maps with the means `mean` [cin] a bias of its own, by which its outputs keep theirs."""
    _, kernel, bias = map(int, operation.inputs)
    lost = lost_by_rounding(constant(model, graph.tensors[kernel]), depthwise=depthwise) * mean
    shift = lost.sum((0, 1, 2) if depthwise else (1, 2, 3))
    own = copy.copy(graph.tensors[bias])
    set_constant(model, own, (constant(model, own) + shift).astype(np.float32))
    operation.inputs = [*operation.inputs[:2], len(graph.tensors)]
    graph.tensors.append(own)


def take_ranges(model: Any) -> dict[int, tuple[float, float]]:
    """Returns index -> range of those tensors that the file rounds to eight bits and back, and takes the rounding out.

    That is how the converter writes TensorFlow's fake quantisation.
    """
    (graph,), kinds, unsigned = model.subgraphs, schema().BuiltinOperator, schema().TensorType.UINT8
    ranges, rounded, exact, kept = {}, {}, {}, []
    for operation in graph.operators:
        operation.inputs = [exact.get(int(index), int(index)) for index in operation.inputs]
        kind = model.operatorCodes[operation.opcodeIndex].builtinCode
        source, result = operation.inputs[0], int(operation.outputs[0])
        if kind == kinds.QUANTIZE:
            ((scale,), (zero,)) = (getattr(graph.tensors[result].quantization, name) for name in ("scale", "zeroPoint"))
            low = ((0 if graph.tensors[result].type == unsigned else -128) - int(zero)) * float(scale)
            ranges[source], rounded[result] = (low, low + 255 * float(scale)), source
        elif kind == kinds.DEQUANTIZE and source in rounded:
            exact[result] = rounded[source]
        else:
            kept.append(operation)
    graph.operators = kept
    graph.outputs = [exact.get(int(index), int(index)) for index in graph.outputs]
    for output in (output for signature in model.signatureDefs or () for output in signature.outputs):
        output.tensorIndex = exact.get(output.tensorIndex, output.tensorIndex)
    return ranges


def bounded_ranges(model: Any) -> dict[int, tuple[float, float]]:
    """Returns index -> range of what ends in a ReLU6: quantised training rounds after a hard sigmoid, not within."""
    (graph,), relu6 = model.subgraphs, schema().ActivationFunctionType.RELU6
    ends = (o for o in graph.operators if getattr(o.builtinOptions, "fusedActivationFunction", None) == relu6)
    return {int(operation.outputs[0]): (0.0, 6.0) for operation in ends}


def _observed(content: bytes, model: Any, images: Iterable[np.ndarray]) -> dict[int, tuple[float, float]]:
    """Returns index -> range of what the tensors of `model`, `content` unpacked, held for `images`.

    The biases of `model` take up what the rounded weights lose.
    """
    seen = observe(content, images)
    for graph, operation, depthwise in convolutions(model):
        if len(operation.inputs) == 3 and min(operation.inputs) >= 0:
            _take_up(model, graph, operation, seen[int(operation.inputs[0])].mean, depthwise=depthwise)
    ranges = {index: (tally.low, max(tally.high, tally.low + _LEAST_RANGE)) for index, tally in seen.items()}
    return ranges | dict.fromkeys(map(int, model.subgraphs[0].inputs), _PIXELS)


def _require_eight_bits(content: bytes):
    """Raises DeepLabError where something that leads to a convolution was left in float32."""
    model = unpack(content)
    (graph,), kind = model.subgraphs, schema().TensorType.FLOAT32
    free = after_convolutions(model) | {*graph.inputs, *graph.outputs}
    made = [int(index) for operation in graph.operators for index in operation.outputs]
    left = [graph.tensors[i].name.decode() for i in made if graph.tensors[i].type == kind and i not in free]
    if left:
        raise DeepLabError(
            f"--precision=int8: quantised training gives no range for {len(left)} maps, {left[0]} the first; give "
            "--quantize_delay_step=-1 and --representative_images instead"
        )


def eight_bits(content: bytes, images: Iterable[np.ndarray], *, uint8_io: bool = True) -> bytes:
    """Returns a float32 .tflite with weights (a scale for each output channel) and activations in eight bits.

    Where the file ends in classes, what comes after the last convolution stays float32: logits that are interpolated in
    eight bits have many equals, and XNNPACK is slower at it.

    Args:
      content: takes float32 pixels in 0..255, and gives classes or logits.
      images: inputs as it takes them, like those to come; ranges and means are taken from them, where the file does
        not round to ranges of its own.
      uint8_io: pixels and logits are uint8, so that a pixel is its own quantised value; else float32.
    """
    model = unpack(content)
    learned = take_ranges(model)
    (graph,) = model.subgraphs
    ranges = {**bounded_ranges(model), **learned} if learned else _observed(content, model, images)
    scores = any(graph.tensors[index].type == schema().TensorType.FLOAT32 for index in graph.outputs)
    left = set() if scores else after_convolutions(model)
    for index in ranges.keys() - left:
        quantisation = graph.tensors[index].quantization = schema().QuantizationParametersT()
        quantisation.min, quantisation.max = ([end] for end in ranges[index])
    drop_unused(model)
    model = unpack(quantized(pack(model)))
    use_xnnpack(model)
    content = with_io_type(pack(model), tf.uint8 if uint8_io else tf.float32)
    if learned:
        _require_eight_bits(content)
    return content
