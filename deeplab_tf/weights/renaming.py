"""Weights in PyTorch's layout and under the names of another system's modules, as TF1 variables and back.

A system is a table of rules, `System`: a row for each kind of module, not for each variable. Kernels are [out, in, h,
w] there and [h, w, in, out] here.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from deeplab_tf.errors import DeepLabError

Shape = tuple[int, ...]
_NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
_CONV = {"weight": "weights", "bias": "biases"}
_COUNTER = "num_batches_tracked"
_BATCH_NORM = "/BatchNorm"
# A convolution in the module itself, and what a norm in it is called.
ITSELF: Mapping[str, str] = {"": ""}
NORM: Mapping[str, str] = {"": _BATCH_NORM}


@dataclasses.dataclass(frozen=True)
class Row:
    """A rule: modules of the other system, and the TF1 scopes that they have here.

    Attributes:
      theirs: name of the module; {} is a number, {4-19} one of a range.
      ours: the scope; {} is the number that stands there, {-3} the number less three, in the same order. None: the
        network has nothing for the module, for `reason`.
      parts: the module's parts -> what their scopes end in.
      reason: why it is left out.
    """

    theirs: str
    ours: str | None
    parts: Mapping[str, str] = dataclasses.field(default_factory=lambda: ITSELF)
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class System:
    """The modules of a system that DeepLab's weights come from.

    Attributes:
      name: to be shown.
      marks: variables that its files have, and no other system's.
      rows: the rules; the first that fits counts.
      model_variant: the backbone, where the names tell it.
      pooling_last: ASPP's pooled feature is concatenated last there, and first here.
      first_kernel: of a system that divides pixels of 0..255, less their mean, by numbers, those of each band: the name
        here of the kernel that is divided instead.
      deviation: these numbers.
      note: what a user should know of the system.
    """

    name: str
    marks: tuple[str, ...]
    rows: tuple[Row, ...]
    model_variant: str | None = None
    pooling_last: bool = False
    first_kernel: str | None = None
    deviation: tuple[float, ...] = ()
    note: str | None = None


@dataclasses.dataclass(frozen=True)
class Renamed:
    """Weights under TF1 names.

    Attributes:
      shapes: TF1 name -> shape; a name that no rule has is as it was.
      read: TF1 name -> array.
      origins: TF1 name -> name there.
      left_out: name there -> reason.
    """

    shapes: Mapping[str, Shape]
    read: Callable[[str], np.ndarray]
    origins: Mapping[str, str]
    left_out: Mapping[str, str]


@functools.cache
def _holes(theirs: str, ours: str) -> tuple[re.Pattern[str], re.Pattern[str], tuple[tuple[int, int, int], ...]]:
    """Returns what finds the numbers in either name, and of each the smallest and largest there, and what is added."""
    ranges = re.findall(r"\{(?:(\d+)-(\d+))?\}", theirs)
    added = re.findall(r"\{([+-]\d+)?\}", ours)
    numbers = [
        (int(low or 0), int(high or 10_000), int(add or 0)) for (low, high), add in zip(ranges, added, strict=True)
    ]
    patterns = ("([0-9]{1,5})".join(map(re.escape, re.split(r"\{[^}]*\}", template))) for template in (theirs, ours))
    first, second = map(re.compile, patterns)
    return first, second, tuple(numbers)


def _filled(template: str, numbers: Iterable[int]) -> str:
    rest = iter(numbers)
    return re.sub(r"\{[^}]*\}", lambda _: str(next(rest)), template)


def _scope(row: Row, module: str) -> tuple[str | None, bool]:
    """Returns the scope that a row gives to a module of theirs, and whether it has the module at all."""
    for part, end in row.parts.items():
        inner = module.removesuffix(f".{part}") if part else module
        if part and inner == module:
            continue
        there, _, numbers = _holes(row.theirs, re.sub(r"\{[^}]*\}", "{}", row.theirs) if row.ours is None else row.ours)
        match = there.fullmatch(inner)
        found = [int(group) for group in match.groups()] if match else []
        if match and all(low <= n <= high for n, (low, high, _) in zip(found, numbers, strict=True)):
            if row.ours is None:
                return None, True
            return _filled(row.ours, [n + add for n, (_, _, add) in zip(found, numbers, strict=True)]) + end, True
    return None, False


def _module(row: Row, scope: str) -> str | None:
    """Returns the module of theirs that a row has for a scope."""
    for part, end in row.parts.items():
        if row.ours is None or not scope.endswith(end):
            continue
        _, here, numbers = _holes(row.theirs, row.ours)
        match = here.fullmatch(scope.removesuffix(end))
        found = [int(group) for group in match.groups()] if match else []
        theirs = [n - add for n, (_, _, add) in zip(found, numbers, strict=False)]
        if match and all(low <= n <= high for n, (low, high, _) in zip(theirs, numbers, strict=True)):
            return _filled(row.theirs, theirs) + (f".{part}" if part else "")
    return None


def _leaf(scope: str, leaf: str) -> str | None:
    """Returns TF1's name for a leaf of PyTorch's."""
    if scope.endswith(_BATCH_NORM):
        return _NORM.get(leaf)
    if leaf == "weight" and scope.endswith("depthwise"):
        return "depthwise_weights"
    return _CONV.get(leaf)


def _placed(system: System, name: str) -> tuple[str | None, str]:
    """Returns the TF1 name of a variable of theirs, or None and why it is left out, or None and ""."""
    module, _, leaf = name.rpartition(".")
    for row in system.rows:
        scope, has = _scope(row, module)
        if has and leaf == _COUNTER:
            return None, "counter of the training"
        if has and scope is None:
            return None, row.reason
        ours = _leaf(scope, leaf) if scope is not None else None
        if ours is not None:
            return f"{scope}/{ours}", ""
    return None, ""


def _shape(name: str, shape: Shape) -> Shape:
    """Returns the shape here of a kernel there; others keep theirs."""
    if len(shape) != 4:
        return shape
    out, inputs, height, width = shape
    return (height, width, out, inputs) if name.endswith("depthwise_weights") else (height, width, inputs, out)


def from_theirs(name: str, value: np.ndarray) -> np.ndarray:
    """Returns the value here of a variable there; `name` is its TF1 name."""
    if value.ndim != 4:
        return value
    order = (2, 3, 0, 1) if name.endswith("depthwise_weights") else (2, 3, 1, 0)
    return np.ascontiguousarray(value.transpose(order))


def to_theirs(name: str, value: np.ndarray) -> np.ndarray:
    """Returns the value there of a variable here; `name` is its TF1 name."""
    if value.ndim != 4:
        return value
    order = (2, 3, 0, 1) if name.endswith("depthwise_weights") else (3, 2, 0, 1)
    return np.ascontiguousarray(value.transpose(order))


def renamed(system: System, shapes: Mapping[str, Shape], read: Callable[[str], np.ndarray]) -> Renamed:
    """Returns the weights of a system under TF1 names and in TF1's layout.

    A bias before a batch norm is taken from that one's moving mean, which is the same network.

    Args:
      system: whose names they are.
      shapes: name there -> shape there.
      read: name there -> array.

    Raises:
      DeepLabError: two of them have the same place here.
    """
    origins: dict[str, str] = {}
    left_out: dict[str, str] = {}
    for name in shapes:
        ours, reason = _placed(system, name)
        if reason:
            left_out[name] = reason
        elif (ours or name) in origins:
            raise DeepLabError(f"{name} and {origins[ours or name]} are both {ours or name}")
        else:
            origins[ours or name] = name
    folded: dict[str, str] = {}
    for ours in [name for name in origins if name.endswith("/biases")]:
        mean = f"{ours.removesuffix('/biases')}{_BATCH_NORM}/moving_mean"
        if mean in origins and shapes[origins[mean]] == shapes[origins[ours]]:
            bias = folded[mean] = origins.pop(ours)
            left_out[bias] = "taken from the moving mean of the batch norm behind it"

    def value(name: str) -> np.ndarray:
        array = from_theirs(name, read(origins[name]))
        if name in folded:
            array = (array.astype(np.float64) - read(folded[name])).astype(np.float32)
        if system.pooling_last and name == "concat_projection/weights":
            array = np.roll(array, array.shape[-1], axis=2)
        if name == system.first_kernel and array.shape[2] == len(system.deviation):
            array = (array / np.array(system.deviation)[:, None]).astype(np.float32)
        return array

    return Renamed({n: _shape(n, shapes[there]) for n, there in origins.items()}, value, origins, left_out)


def their_name(system: System, name: str) -> str | None:
    """Returns the name there of a TF1 variable, or None: the system has no place for it."""
    scope, _, leaf = name.rpartition("/")
    for row in system.rows:
        module = _module(row, scope)
        if module is None:
            continue
        for theirs in _NORM if scope.endswith(_BATCH_NORM) else _CONV:
            if _leaf(scope, theirs) == leaf:
                return f"{module}.{theirs}"
    return None
