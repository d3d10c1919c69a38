"""The network of a .tflite: by the names of its tensors where these are the release's scopes, else by its operations.

Either way the graph decides: a network is the file's if every convolution of both has its counterpart.
"""

import collections
import contextlib
import dataclasses
import itertools
import re
from collections.abc import Iterator
from typing import Any

from deeplab_tf.arch import ARCHITECTURES, head
from deeplab_tf.arch.spec import Architecture
from deeplab_tf.arch.units import Activation, MaxPool
from deeplab_tf.config import ModelConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.weights.lite_graph import LiteGraph, Operation
from deeplab_tf.weights.lite_match import Match, Mismatch, check_order, match
from deeplab_tf.weights.recognize import BackboneOptions, recognize, width_options
from deeplab_tf.weights.traced import Traced, trace

# What the converters append to a scope: a variable's name, or an operation's.
_KERNEL_NAME = re.compile(r"^(.+?)/(?:(?:depthwise_)?weights(?:_quant)?|Conv2D(?:_Fold)?|depthwise(?:_Fold)?)(?:/|$)")
_ASPP = re.compile(r"aspp[1-9]\d*(_depthwise)?$")
_Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Found:
    """A network, and where its layers lie in a file."""

    config: ModelConfig
    match: Match


def _scope(operation: Operation) -> str | None:
    """Returns the scope that the names of a convolution's kernel tell, None where they tell none."""
    for name in operation.names:
        for part in name.split(";"):
            if found := _KERNEL_NAME.match(part.removesuffix("/read")):
                return found.group(1)
    return None


def _named_shapes(graph: LiteGraph) -> tuple[dict[str, _Shape], tuple[int, ...]]:
    """Returns TF1 name -> shape as far as names tell, and the rates of ASPP."""
    shapes: dict[str, _Shape] = {}
    rates: list[int] = []
    for operation in graph.operations:
        if operation.kernel is None:
            continue
        scope = _scope(operation)
        leaf = "depthwise_weights" if operation.kind == "depthwise" else "weights"
        if scope is None or f"{scope}/{leaf}" in shapes:
            return {}, ()
        shapes[f"{scope}/{leaf}"] = operation.kernel.shape
        if operation.bias is not None:
            shapes[f"{scope}/biases"] = operation.bias.shape
        if _ASPP.match(scope) and operation.kernel.shape[0] > 1:
            rates.append(operation.rate[0])
    has_logits = any(name.startswith(f"{head.LOGITS}/") for name in shapes)
    biased = head.BIASED if has_logits else head.BIASED | head.BIASED_WITHOUT_LOGITS
    kept = (name for name in shapes if not name.endswith("/biases") or not biased.isdisjoint(name.split("/")))
    return {name: shapes[name] for name in kept}, tuple(rates)


def _at_strides(fields: dict[str, Any]) -> Iterator[ModelConfig]:
    """Yields the network at each output stride; the operations tell which it is."""
    first = fields.get("output_stride", 16)
    for stride in (first, *(s for s in (16, 8, 32) if s != first)):
        with contextlib.suppress(DeepLabError):  # a stride that the backbone has not
            yield ModelConfig(**{**fields, "output_stride": stride})


def _by_names(graph: LiteGraph, preferred: dict[str, Any]) -> Iterator[ModelConfig]:
    """Yields the networks that the names of the tensors tell."""
    shapes, rates = _named_shapes(graph)
    if not shapes:
        return
    try:
        recognized = recognize(shapes, preferred)
    except DeepLabError as error:
        raise Mismatch(str(error)) from None
    fields = {name: value for name, value in recognized.assumed.items() if value is not None} | recognized.known
    if rates:
        fields["atrous_rates"] = rates
    yield from _at_strides(fields)


# ---- without names


def _kernels(logits: Traced) -> dict[str, tuple[str, _Shape]]:
    """Returns scope -> kind and shape of the kernel of each convolution of a network."""
    found: dict[str, tuple[str, _Shape]] = {}
    stack, seen = [logits], set()
    while stack:
        maps = stack.pop()
        if id(maps) in seen:
            continue
        seen.add(id(maps))
        stack += maps.inputs
        if maps.kind in ("conv", "depthwise"):
            size = maps.options["kernel_size"]
            sides = (size, size) if isinstance(size, int) else tuple(size)
            last = 1 if maps.kind == "depthwise" else maps.channels
            found[maps.scope] = (maps.kind, (*sides, maps.inputs[0].channels, last))
    return found


def _traced(fields: dict[str, Any]) -> Traced | None:
    try:
        return trace(ModelConfig(**fields))
    except (DeepLabError, KeyError):
        return None


def _within(fields: dict[str, Any], there: collections.Counter) -> bool:
    """Returns whether the file has every kernel of a network but for its last."""
    logits = _traced(fields)
    if logits is None:
        return False
    kernels = {scope: kernel for scope, kernel in _kernels(logits).items() if not scope.startswith(head.LOGITS)}
    return not collections.Counter(kernels.values()) - there


def _aspps(there: collections.Counter, base: dict[str, Any], rates: tuple[int, ...]) -> Iterator[dict[str, Any]]:
    """Yields the forms of ASPP whose kernels the file has."""
    widths = sorted({shape[3] for kind, shape in there if kind == "conv" and shape[:2] == (1, 1)}, reverse=True)
    switches = itertools.product((True, False), (False, True), (True, False), (True, False) if rates else (True,))
    for (pooled, gated, projected, separable), width in itertools.product(list(switches), widths):
        fields = {
            **base,
            "add_image_level_feature": pooled,
            "aspp_with_squeeze_and_excitation": gated,
            "aspp_with_concat_projection": projected,
            "aspp_with_separable_conv": separable,
            "aspp_convs_filters": width,
            "atrous_rates": rates or None,
        }
        if _within(fields, there):
            yield fields


def _decoders(
    there: collections.Counter, aspp: dict[str, Any], architecture: Architecture, classes: int
) -> Iterator[dict[str, Any]]:
    """Yields the decoders whose kernels the file has, beginning with none."""
    yield aspp
    widths = sorted({shape[3] for kind, shape in there if kind == "conv"}, reverse=True)
    strides = sorted(architecture.decoder_end_points, reverse=True)
    stages = [picked for count in (1, 2) for picked in itertools.combinations(strides, count)]
    forms = [
        {"decoder_output_is_logits": True, "decoder_filters": classes, "decoder_use_sum_merge": True},
        *({"decoder_filters": width, "decoder_use_sum_merge": True} for width in widths),
        *(
            {"decoder_filters": width, "decoder_projection_filters": low}
            for width, low in itertools.product(widths, widths)
        ),
    ]
    options = {name: aspp[name] for name in ("depth_multiplier", "divisible_by") if name in aspp}
    taps = architecture.decoder_widths(BackboneOptions(**options))
    for picked, form, separable in itertools.product(stages, forms, (True, False)):
        projected = form.get("decoder_projection_filters", form["decoder_filters"])
        if any(("conv", (1, 1, taps.get(stride), projected)) not in there for stride in picked):
            continue
        fields = {**aspp, **form, "decoder_output_stride": picked, "decoder_use_separable_conv": separable}
        if _within(fields, there):
            yield fields


def _by_operations(graph: LiteGraph, preferred: dict[str, Any]) -> Iterator[ModelConfig]:
    """Yields the networks whose kernels have the shapes of the file's."""
    kernels = [operation for operation in graph.operations if operation.kernel is not None]
    there = collections.Counter(
        (operation.kind, operation.kernel.shape) for operation in kernels if operation.kernel is not None
    )
    classes = kernels[-1].kernel.shape[-1] if kernels and kernels[-1].kernel is not None else 0
    wanted = preferred.get("model_variant")
    for architecture in sorted(ARCHITECTURES.values(), key=lambda a: a.name != wanted):
        seen: set[tuple] = set()
        for widths in width_options(architecture, preferred):
            base = {"model_variant": architecture.name, "num_classes": classes, **widths}
            rows_of = tuple(architecture.units(BackboneOptions(**widths)))
            if rows_of in seen:  # another multiplier with the same widths
                continue
            seen.add(rows_of)
            if not _as_wide(architecture, base, there):
                continue
            if not _within({**base, "aspp_with_batch_norm": False}, there):
                continue
            rows = {kernel for scope, kernel in _backbone_kernels(base, architecture) if scope}
            outside = [o for o in kernels if o.kernel is not None and (o.kind, o.kernel.shape) not in rows]
            rates = tuple(dict.fromkeys(o.rate[0] for o in outside if o.rate[0] > 1))
            heads = (
                decoder
                for aspp in _aspps(there, base, rates)
                for decoder in _decoders(there, aspp, architecture, classes)
            )
            for fields in itertools.chain(heads, [{**base, "aspp_with_batch_norm": False}]):
                logits = _traced(fields)
                if logits and collections.Counter(_kernels(logits).values()) == there:
                    yield from _at_strides(fields)


def _as_wide(architecture: Architecture, base: dict[str, Any], there: collections.Counter) -> bool:
    """Returns whether the file has kernels as wide as all rows of a backbone: what is soon seen."""
    widths = {shape[3] for kind, shape in there if kind == "conv"}
    options = {name: base[name] for name in ("depth_multiplier", "divisible_by") if name in base}
    rows = architecture.units(BackboneOptions(**options))
    weighted = [row for row in rows if not isinstance(row, MaxPool | Activation)]
    return all(row.output_weights[1] in widths for row in weighted)


def _backbone_kernels(base: dict[str, Any], architecture: Architecture) -> list[tuple[str, tuple[str, _Shape]]]:
    logits = _traced({**base, "aspp_with_batch_norm": False})
    found = _kernels(logits).items() if logits else ()
    return [(scope, kernel) for scope, kernel in found if scope.startswith(architecture.scope)]


def _matched(config: ModelConfig, graph: LiteGraph) -> Match | Mismatch:
    try:
        return match(trace(config), graph)
    except Mismatch as error:
        return error


def find_network(graph: LiteGraph, preferred: dict[str, Any] | None = None) -> Found:
    """Returns the network whose operations are those of a file.

    Args:
      graph: of the file.
      preferred: fields of ModelConfig that come first where several have the same kernels.

    Raises:
      DeepLabError: it is none of the release's; the message lacks the file's name.
    """
    reason = "no network known here has kernels of these shapes"
    try:
        check_order(graph)
        for config in itertools.chain(_by_names(graph, preferred or {}), _by_operations(graph, preferred or {})):
            found = _matched(config, graph)
            if isinstance(found, Match):
                return Found(config, found)
            reason = f"nearest is {config.model_variant} at output stride {config.output_stride}, but {found}"
    except Mismatch as error:
        reason = str(error)
    raise DeepLabError(f"its operations are not those of a network of the release: {reason}")
