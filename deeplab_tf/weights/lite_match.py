"""Which operation of a .tflite is which layer of a network: both graphs are walked from the logits back to the images.

The file's names are not looked at: its graph is the map.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras

from deeplab_tf.arch.units import BatchNorm
from deeplab_tf.network.layers import Dropout, ResizeBilinear
from deeplab_tf.weights.lite_graph import MOVES, RECTIFIERS, LiteGraph, Operation
from deeplab_tf.weights.traced import RANGES, Traced

# Layers that leave the last operation's tensor what it is in a file.
_PLAIN = (*RANGES, BatchNorm, Dropout, ResizeBilinear, keras.layers.ReLU, keras.layers.ZeroPadding2D)
_SIX = 6.01


class Mismatch(Exception):
    """The file is not one of this network; the text says where they part."""


@dataclasses.dataclass(frozen=True)
class Match:
    """Where the weights and the ranges of a network lie in a file.

    Attributes:
      convolutions: scope -> the operation.
      norms: scope of a convolution -> scope and epsilon of the batch norm behind it.
      ranges: scope of a range -> the number of the maps that have it.
      joined: scope of a sum or a concatenation -> the operation, its inputs in the network's order.
    """

    convolutions: Mapping[str, Operation]
    norms: Mapping[str, tuple[str, float]]
    ranges: Mapping[str, int]
    joined: Mapping[str, Operation]


@dataclasses.dataclass(frozen=True)
class _Place:
    """Maps of a file: the operation that made them, None for the images, and those that changed them by themselves."""

    maker: Operation | None
    last: Operation | None = None
    before: "_Place | None" = None

    @property
    def changes(self) -> list[Operation]:
        """The operations behind the maker, in their order."""
        found, place = [], self
        while place.last is not None and place.before is not None:
            found.append(place.last)
            place = place.before
        return found[::-1]


def _places(graph: LiteGraph) -> dict[int, _Place]:
    places = {graph.source: _Place(None)}
    for operation in graph.operations:
        unknown = [i for i in operation.inputs if i not in places]
        if unknown or operation.output in places:
            raise Mismatch(f"its operation {operation.name} reads or writes maps out of order")
        given = [places[i] for i in operation.inputs]
        alone = operation.kind in ("add", "mul") and all(place.maker is given[0].maker for place in given)
        if given and (operation.kind == "other" or alone):  # a hard swish in parts reads its map twice
            places[operation.output] = _Place(given[0].maker, operation, given[0])
        else:
            places[operation.output] = _Place(operation)
    return places


class _Walk:
    """The walk through both graphs, and what it has found."""

    def __init__(self, graph: LiteGraph):
        self._graph, self._file = graph, _places(graph)
        self._partners: dict[int, Traced] = {}
        self.convolutions: dict[str, Operation] = {}
        self.norms: dict[str, tuple[str, float]] = {}
        self.ranges: dict[str, int] = {}
        self.joined: dict[str, Operation] = {}
        self._open: list[tuple[Traced, int]] = []

    def run(self, logits: Traced) -> None:
        """Walks from the logits, which the file's first output comes from, to the images."""
        if self._graph.outputs[0] not in self._file:
            raise Mismatch("nothing gives its output")
        self._open = [(logits, self._graph.outputs[0])]
        while self._open:
            self._pair(*self._open.pop())

    def _pair(self, maps: Traced, index: int) -> None:
        changes: list[Traced] = []
        while maps.kind == "other":
            changes.append(maps)
            maps = maps.inputs[0]
        changes.reverse()
        place = self._file[index]
        self._take_changes(maps, changes, place, index)
        if place.maker is None or maps.kind == "images":
            if place.maker is not None or maps.kind != "images":
                raise Mismatch(f"the images are read at another place than {maps.scope or 'the first layer'}")
            return
        known = self._partners.setdefault(place.maker.output, maps)
        if known is not maps:
            raise Mismatch(f"{maps.scope} and {known.scope} are one operation of the file")
        if len(self.convolutions) and maps.scope in self.convolutions:
            if self.convolutions[maps.scope] is not place.maker:
                raise Mismatch(f"{maps.scope} is two operations of the file")
            return
        if (problem := _difference(maps, place.maker)) is not None:
            raise Mismatch(problem)
        if maps.kind in ("conv", "depthwise"):
            self.convolutions[maps.scope] = place.maker
        self._open += self._inputs(maps, place.maker)

    def _inputs(self, maps: Traced, maker: Operation) -> list[tuple[Traced, int]]:
        """Returns the inputs of both in pairs; a sum or a product may have them the other way round."""
        given = list(maker.inputs)
        if maps.kind in ("add", "mul") and len(given) == 2 and not self._alike(maps.inputs[0], given[0]):
            given.reverse()
        if maps.kind in ("add", "concat"):
            self.joined[maps.scope] = dataclasses.replace(maker, inputs=tuple(given))
        return list(zip(maps.inputs, given, strict=True))

    def _alike(self, maps: Traced, index: int) -> bool:
        while maps.kind == "other":
            maps = maps.inputs[0]
        maker = self._file[index].maker
        if maker is None or maps.kind == "images":
            return maker is None and maps.kind == "images"
        return _difference(maps, maker) is None

    def _take_changes(self, maps: Traced, changes: list[Traced], place: _Place, index: int) -> None:
        """Notes norm and ranges behind an operation, and that its activation is the network's."""
        norms = [change for change in changes if change.make is BatchNorm]
        if norms and maps.kind in ("conv", "depthwise"):
            self.norms[maps.scope] = (norms[0].scope, norms[0].options["epsilon"])
        tensors, activation = self._tensors(place, index)
        self._check_activation(maps, changes, tensors[0], activation)
        scopes = [change.scope for change in changes if change.make in RANGES]
        if not scopes:
            return
        calculates = any(change.make not in _PLAIN for change in changes)
        self.ranges[scopes[0]] = tensors[-1 if calculates and len(scopes) == 1 else 0]
        self.ranges |= dict.fromkeys(scopes[1:], tensors[-1])

    def _tensors(self, place: _Place, index: int) -> tuple[list[int], str | None]:
        """Returns the maker's tensor, rectified, with those of what calculates behind it, and the activation."""
        if place.maker is None:
            return [index], None
        tensors, activation = [place.maker.output], place.maker.activation
        for change in place.changes:
            if change.name in RECTIFIERS and len(tensors) == 1 and activation is None:
                tensors, activation = [change.output], RECTIFIERS[change.name]
            elif change.name not in MOVES:
                tensors.append(change.output)
        return tensors, activation

    def _check_activation(self, maps: Traced, changes: list[Traced], tensor: int, found: str | None) -> None:
        if maps.kind not in ("conv", "depthwise", "add"):
            return
        relus = [change for change in changes if change.make is keras.layers.ReLU]
        wanted = ("relu6" if relus[0].options.get("max_value") else "relu") if relus else None
        low, high = self._graph.ranges.get(tensor, (-1.0, 2 * _SIX))
        # The range of eight bits may be all that is left of an activation.
        good = {
            "relu": found == "relu" or (found is None and low >= 0),
            "relu6": found == "relu6" or (found in (None, "relu") and low >= 0 and high <= _SIX),
            None: found is None or len(changes) == 0 or any(change.make not in _PLAIN for change in changes),
        }[wanted]
        if not good:
            raise Mismatch(f"{maps.scope} is followed by {found or 'no activation'} instead of {wanted or 'none'}")


def _pair_of(value: Any) -> tuple[int, int]:
    return tuple(value) if isinstance(value, tuple | list) else (value, value)  # pyright: ignore[reportReturnType]


def _difference(maps: Traced, maker: Operation) -> str | None:
    """Returns how an operation differs from that of the network, None where it does not."""
    if maps.kind != maker.kind or len(maps.inputs) != len(maker.inputs):
        return f"{maps.scope} is {maker.name} there"
    if maker.kernel is None:
        return None
    sides, options = _pair_of(maps.options["kernel_size"]), maps.options
    depthwise = maps.kind == "depthwise"
    shape = (*sides, maps.inputs[0].channels, 1 if depthwise else maps.channels)
    if maker.kernel.shape != shape or (maker.bias is not None and maker.bias.shape != (maps.channels,)):
        return f"{maps.scope} has {list(maker.kernel.shape)} instead of {list(shape)}"
    if maker.stride != _pair_of(options["strides"]):
        return f"{maps.scope} has the stride {maker.stride} instead of {options['strides']}"
    if sides != (1, 1) and maker.rate != _pair_of(options["dilation_rate"]):
        return f"{maps.scope} has the rate {maker.rate} instead of {options['dilation_rate']}"
    return None


def check_order(graph: LiteGraph) -> None:
    """Raises Mismatch where an operation reads maps that nothing has given before it."""
    _places(graph)


def match(logits: Traced, graph: LiteGraph) -> Match:
    """Returns where the layers of a network lie in a file: each convolution of either side once.

    Args:
      logits: of the network.
      graph: of the file.

    Raises:
      Mismatch: the file is not one of this network.
    """
    walk = _Walk(graph)
    walk.run(logits)
    used = {operation.output for operation in walk.convolutions.values()}
    kernels = [operation for operation in graph.operations if operation.kernel is not None]
    left = [operation for operation in kernels if operation.output not in used]
    if left:
        raise Mismatch(f"{len(left)} of its {len(kernels)} convolutions have no place, {left[0].names[0]} the first")
    return Match(walk.convolutions, walk.norms, walk.ranges, walk.joined)
