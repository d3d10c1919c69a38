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

# What reading a damaged file raises.
READ_ERRORS = (
    *(struct.error, ValueError, LookupError, TypeError, AttributeError, UnicodeDecodeError),
    *(OverflowError, RecursionError, MemoryError),
)
FOLDED = "batch norm is folded in a .tflite: statistics are 0 and 1, so keep them frozen"
_SCALED = (-1.0, 1.0)  # what a network reads whose pixels are scaled
_SLACK = 0.05
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
    read = next((found.ranges[scope] for scope in found.ranges if scope.endswith("/preprocess_quant")), graph.source)
    if architecture.preprocessing != "scale" or read not in graph.ranges:
        return
    low, high = graph.ranges[read]
    if abs(low - _SCALED[0]) > _SLACK or abs(high - _SCALED[1]) > _SLACK:
        raise DeepLabError(
            f"its first convolution reads values from {low:.4g} to {high:.4g}; expected -1 to 1, as {variant} does"
        )


def _ranges(graph: LiteGraph, found: Match) -> dict[str, np.ndarray]:
    """Returns the ends of all ranges, or of none where the file lacks one."""
    if any(index not in graph.ranges for index in found.ranges.values()):
        return {}
    ends = {scope: graph.ranges[index] for scope, index in found.ranges.items()}
    return {
        f"{scope}/{leaf}": np.asarray(end, np.float32)
        for scope, pair in ends.items()
        for leaf, end in zip(("min", "max"), pair, strict=True)
    }


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
    ranges = _ranges(graph, found.match)
    arrays = {**_weights(found.match), **ranges}
    wrong = [name for name, value in arrays.items() if not np.isfinite(value).all()]
    if wrong:
        raise DeepLabError(f"{wrong[0]} has values that are not numbers")
    known = {name: getattr(found.config, name) for name in _FACTS} | {"crop_size": graph.size}
    notes = [FOLDED]
    if graph.corners and "aligned" not in graph.corners:
        known["align_corners"] = False
    if graph.corners - {"aligned"} and graph.corners != {"unaligned"}:
        ways = ", ".join(sorted(graph.corners))
        how = "aligned" if known.get("align_corners", True) else "unaligned"
        notes.append(f"it resizes with corners {ways}, the model {how} throughout: borders between classes shift")
    if ranges:
        known["quantize_as_file"] = True
        notes.append("the ranges of its maps are kept: --quantize_delay_step=0 rounds as the file does")
    return LiteWeights(arrays, known, tuple(notes))
