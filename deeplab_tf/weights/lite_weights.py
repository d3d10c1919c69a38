"""The weights of a .tflite of eight or sixteen bits, or without the release's names, and what else it tells."""

import dataclasses
import struct
from typing import Any

import numpy as np

from deeplab_tf.arch import ARCHITECTURES
from deeplab_tf.errors import DeepLabError
from deeplab_tf.weights.lite_graph import LiteGraph, read_graph
from deeplab_tf.weights.lite_match import Match
from deeplab_tf.weights.lite_network import find_network
from deeplab_tf.weights.lite_pixels import converted, evenly, pixel_values, sum_factors

# What reading a damaged file raises.
READ_ERRORS = (
    *(struct.error, ValueError, LookupError, TypeError, AttributeError, UnicodeDecodeError),
    *(OverflowError, RecursionError, MemoryError),
)
FOLDED = "batch norm is folded in a .tflite: statistics are 0 and 1, so keep them frozen"
_SCALED = (-1.0, 1.0)  # what a network reads whose pixels are scaled
_SLACK = 0.05
_PREPROCESSED = "/preprocess_quant"
_BEHIND = ("conv_quant", "act_quant")
_FACTS = ("output_stride", "atrous_rates")


@dataclasses.dataclass(frozen=True)
class LiteWeights:
    """What a .tflite holds.

    Attributes:
      arrays: TF1 name -> float32 array: the weights, and the ranges where the file has them.
      known: fields of ModelConfig that its operations tell and its shapes do not.
      notes: what a user should know.
    """

    arrays: dict[str, np.ndarray]
    known: dict[str, Any]
    notes: tuple[str, ...]


def unit_norm(scope: str, bias: np.ndarray, epsilon: float) -> dict[str, np.ndarray]:
    """Returns the variables of a batch norm that adds `bias` and does no more."""
    one, zero = np.ones_like(bias), np.zeros_like(bias)
    values = {"gamma": one, "beta": bias, "moving_mean": zero, "moving_variance": np.full_like(bias, 1.0 - epsilon)}
    return {f"{scope}/{leaf}": value for leaf, value in values.items()}


def _weights(found: Match) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    for scope, operation in found.convolutions.items():
        assert operation.kernel is not None
        depthwise = operation.kind == "depthwise"
        arrays[f"{scope}/depthwise_weights" if depthwise else f"{scope}/weights"] = operation.kernel
        channels = operation.kernel.shape[2 if depthwise else 3]
        bias = np.zeros(channels, np.float32) if operation.bias is None else operation.bias
        if scope in found.norms:
            name, epsilon = found.norms[scope]
            arrays |= unit_norm(name, bias, epsilon)
        else:
            arrays[f"{scope}/biases"] = bias
    return arrays


def _check_input(graph: LiteGraph, found: Match, variant: str) -> None:
    """Raises DeepLabError where the first convolution reads other values than the network gives it."""
    architecture = ARCHITECTURES[variant]
    read = next((found.ranges[scope] for scope in found.ranges if scope.endswith(_PREPROCESSED)), graph.source)
    if architecture.preprocessing != "scale" or read not in graph.ranges:
        return
    low, high = graph.ranges[read]
    if abs(low - _SCALED[0]) > _SLACK or abs(high - _SCALED[1]) > _SLACK:
        raise DeepLabError(
            f"its first convolution reads values from {low:.4g} to {high:.4g}; expected -1 to 1, as {variant} does"
        )


def _ranges(graph: LiteGraph, found: Match) -> dict[str, np.ndarray]:
    """Returns the ends and the steps of all ranges, or of none where the file lacks one."""
    if any(index not in graph.ranges for index in found.ranges.values()):
        return {}
    numbers: dict[str, Any] = {}
    for scope, index in found.ranges.items():
        low, high = graph.ranges[index]
        numbers |= {f"{scope}/min": low, f"{scope}/max": high, f"{scope}/output_step": graph.steps[index]}
    return {name: np.asarray(value, np.float32) for name, value in numbers.items()}


def _products(graph: LiteGraph, found: Match) -> dict[str, np.ndarray]:
    """Returns the steps of what the convolutions read, and of their sums, under the scopes of the ranges behind."""
    numbers: dict[str, np.ndarray] = {}
    for scope, operation in found.convolutions.items():
        step, kernel = np.asarray(graph.steps[operation.inputs[0]], np.float32), operation.kernel_step
        assert kernel is not None
        numbers |= {f"{scope}/input_step": step, f"{scope}/kernel_step": kernel}
        numbers |= {f"{scope}/{place}/product_step": step * kernel for place in _BEHIND}
    return numbers


def _ratio(graph: LiteGraph, index: int) -> float:
    """Returns by how much rounding the factor from one step to another errs, of the maps of this number."""
    maker = graph.makers.get(index)
    if maker is None or maker.name != "QUANTIZE" or maker.inputs[0] not in graph.steps:
        return 1.0
    factor = graph.steps[maker.inputs[0]] / graph.steps[index]
    return converted(factor) / factor


def _joined(graph: LiteGraph, found: Match) -> dict[str, np.ndarray]:
    """Returns the numbers of sums and concatenations, under the scopes of the ranges behind."""
    numbers: dict[str, np.ndarray] = {}
    for scope, operation in found.joined.items():
        if operation.kind == "concat":
            ratios = [_ratio(graph, index) for index in operation.inputs]
            numbers[f"{scope}_quant/ratios"] = np.asarray(ratios, np.float32)
            continue
        steps = [graph.steps[index] for index in operation.inputs]
        for place in (f"{scope}_quant", f"{scope.rpartition('/')[0]}/act_quant"):
            numbers[f"{place}/input_steps"] = np.asarray(steps, np.float32)
            numbers[f"{place}/factors"] = sum_factors(steps, graph.steps[operation.output])
    return numbers


def _arithmetic(graph: LiteGraph, found: Match, notes: list[str]) -> dict[str, np.ndarray]:
    """Returns all that a network needs to calculate as the file; {} where the file has not all of it."""
    ranges = _ranges(graph, found)
    read = {index for operation in (*found.convolutions.values(), *found.joined.values()) for index in operation.inputs}
    read |= {operation.output for operation in found.joined.values()}
    kernels = all(operation.kernel_step is not None for operation in found.convolutions.values())
    if not ranges or not kernels or not read <= set(graph.steps):
        return {}
    scope, index = next((one, i) for one, i in found.ranges.items() if one.endswith(_PREPROCESSED))
    values = pixel_values(graph, index)
    if values is None:
        values = evenly(*graph.ranges[index])
        notes.append("its operations on pixels are not known here: their levels are taken to lie evenly in their range")
    return {**ranges, f"{scope}/levels": values, **_products(graph, found), **_joined(graph, found)}


def read_lite(content: bytes) -> LiteWeights:
    """Returns the weights of a .tflite, its names being those of the release or not.

    Batch norms are folded in the file: they are read as norms that add the bias and do no more.

    Raises:
      DeepLabError: it is not one of a network known here; the message lacks the file's name.
      Exception: it is damaged: one of READ_ERRORS.
    """
    graph = read_graph(content)
    found = find_network(graph)
    _check_input(graph, found.match, found.config.model_variant)
    notes = [FOLDED]
    ranges = _arithmetic(graph, found.match, notes)
    arrays = {**_weights(found.match), **ranges}
    wrong = [name for name, value in arrays.items() if not np.isfinite(value).all()]
    if wrong:
        raise DeepLabError(f"{wrong[0]} has values that are not numbers")
    known = {name: getattr(found.config, name) for name in _FACTS} | {"crop_size": graph.size}
    if graph.corners and "aligned" not in graph.corners:
        known["align_corners"] = False
    if graph.corners - {"aligned"} and graph.corners != {"unaligned"}:
        ways = ", ".join(sorted(graph.corners))
        how = "aligned" if known.get("align_corners", True) else "unaligned"
        notes.append(f"it resizes with corners {ways}, the model {how} throughout: borders between classes shift")
    if ranges:
        known["quantize_as_file"] = True
        notes.append("the ranges of its maps are kept: --quantize_delay_step=0 calculates as LiteRT does with the file")
    return LiteWeights(arrays, known, tuple(notes))
