"""Pickles of PyTorch's weights, read as data: what reads them knows containers, numbers and tensors, and calls nothing.

Python's own unpickler calls whatever a file names. Here an instruction that would do so is an error, unless it makes
one of the objects that a state dict consists of. (Instructions: the standard library's pickletools; what PyTorch
writes: torch/serialization.py and torch/_utils.py.)
"""

import dataclasses
import io
import pickletools
from collections.abc import Callable
from typing import Any, cast

from deeplab_tf.errors import DeepLabError

# A network of ten thousand tensors, with two slots of an optimiser for each, has a tenth of these.
LARGEST_PICKLE = 1 << 24  # bytes
_MOST_INSTRUCTIONS = 3_000_000
_DEEPEST = 1000  # marks that are open at once
_LARGEST = 1 << 62

# What NumPy reads the elements of a typed storage as.
DTYPES = {
    "FloatStorage": "f4",
    "DoubleStorage": "f8",
    "HalfStorage": "f2",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}


class RefusedError(DeepLabError):
    """A pickle holds something else than tensors, containers and numbers."""


@dataclasses.dataclass(frozen=True)
class Storage:
    """Elements that lie in the file one after the other: their key, type (of DTYPES) and number."""

    key: str
    dtype: str
    elements: int


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A view of a storage; offset and strides are in elements. It lies within the storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class _Named:
    """Something that the pickle names and that is known here."""

    name: str


def _whole(value: object) -> int:
    if type(value) is not int or not 0 <= value < _LARGEST:
        raise ValueError("a size, stride or offset that is not a number of elements")
    return value


def _tensor(storage: object, offset: object, shape: object, strides: object, *rest: object) -> Tensor:
    """Returns what torch._utils._rebuild_tensor_v2 makes of its arguments."""
    del rest  # requires_grad and hooks
    if not (isinstance(storage, Storage) and isinstance(shape, tuple) and isinstance(strides, tuple)):
        raise ValueError("a tensor without storage, shape and strides")
    sides = tuple(_whole(side) for side in cast("tuple[object, ...]", shape))
    steps = tuple(_whole(step) for step in cast("tuple[object, ...]", strides))
    start = _whole(offset)
    if len(sides) != len(steps) or len(sides) > 8:
        raise ValueError(f"a tensor of {len(sides)} sides and {len(steps)} strides")
    number = 1
    for side in sides:
        number *= side
        if number > storage.elements:
            raise ValueError(f"a tensor of shape {list(sides)} in a storage of {storage.elements} elements")
    last = start + sum((side - 1) * step for side, step in zip(sides, steps, strict=True))
    if number and last >= storage.elements:
        raise ValueError(f"a tensor that ends at element {last} of a storage of {storage.elements}")
    return Tensor(storage, start, sides, steps)


def _parameter(data: object, *rest: object) -> Tensor:
    del rest
    if not isinstance(data, Tensor):
        raise ValueError("a parameter that is not a tensor")
    return data


def _ordered(*pairs: object) -> dict[Any, Any]:
    if pairs:
        raise ValueError("an OrderedDict that begins with values")
    return {}


def _size(*sides: object) -> tuple[Any, ...]:
    (inner,) = sides
    if not isinstance(inner, tuple):
        raise ValueError("a torch.Size without sides")
    return cast("tuple[Any, ...]", inner)


# What may be called, and what it gives here: plain data.
_MAKES: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "collections.OrderedDict": _ordered,
    "torch.Size": _size,
}


def _named(module: str, name: str) -> _Named:
    full = f"{module}.{name}"
    if full in _MAKES or (module == "torch" and name in DTYPES):
        return _Named(full)
    raise RefusedError(f"holds {full[:100]!r}, which is code, not weights")


def _storage(entry: object) -> Storage:
    """Returns the storage of a persistent id: ("storage", type, key, device, elements[, view])."""
    values = list(cast("tuple[object, ...]", entry)) if isinstance(entry, tuple) else list[object]()
    if len(values) not in (5, 6) or values[0] != "storage" or not isinstance(values[1], _Named):
        raise ValueError("a persistent id that is not a storage")
    dtype = DTYPES.get(values[1].name.rpartition(".")[2])
    if dtype is None or not isinstance(values[2], str):
        raise ValueError("a storage without type or key")
    if len(values) == 6 and values[5] is not None:
        raise RefusedError("holds a storage that is a view of another (PyTorch before 0.4), which is not read")
    return Storage(values[2], dtype, _whole(values[4]))


_Stack = list[Any]


class _Machine:
    """Executes the instructions of one pickle, without calling anything."""

    def __init__(self) -> None:
        self.stack: _Stack = []
        self.below: list[_Stack] = []  # what lies under each open mark
        self.memo: dict[int, Any] = {}

    def mark(self) -> None:
        if len(self.below) >= _DEEPEST:
            raise RefusedError(f"is nested more than {_DEEPEST} deep, which no state dict is")
        self.below.append(self.stack)
        self.stack = []

    def push(self, value: object) -> None:
        self.stack.append(value)

    def since_mark(self) -> _Stack:
        items = self.stack
        self.stack = self.below.pop()
        return items

    def pop(self, number: int) -> _Stack:
        if len(self.stack) < number:
            raise ValueError("an instruction that finds nothing to work on")
        taken = self.stack[len(self.stack) - number :]
        del self.stack[len(self.stack) - number :]
        return taken

    def set_items(self, items: _Stack) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise ValueError("pairs for something that is not a dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Other keys would be hashed, which for tuples in tuples has no end.
            if not isinstance(key, str | int | float | None):
                kind = type(key).__name__
                raise RefusedError(f"holds a dictionary with a key of type {kind}, which no state dict has")
            cast("dict[Any, Any]", target)[key] = value

    def dictionary(self) -> None:
        items = self.since_mark()
        self.push({})
        self.set_items(items)

    def append(self, items: _Stack) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise ValueError("items for something that is not a list")
        cast("list[Any]", target).extend(items)

    def reduce(self) -> None:
        function, arguments = self.pop(2)
        if not isinstance(function, _Named) or not isinstance(arguments, tuple):
            raise ValueError("a call of something that cannot be called")
        make = _MAKES.get(function.name)
        if make is None:
            raise RefusedError(f"calls {function.name}, which makes no tensor")
        try:
            self.push(make(*arguments))
        except TypeError:
            raise ValueError(f"{function.name} with {len(arguments)} arguments") from None

    def build(self) -> None:
        """Leaves out the attributes of a dictionary: PyTorch's notes of the versions of its layers."""
        (attributes,) = self.pop(1)
        if not self.stack or not isinstance(self.stack[-1], dict) or not isinstance(attributes, dict):
            raise RefusedError("sets attributes of something that is not a dictionary, which no state dict does")

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def call(self, name: str, argument: Any) -> None:
        """Executes an instruction that neither is a value nor makes a plain container."""
        if name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.put(argument)
        elif name == "MEMOIZE":
            self.put(len(self.memo))
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self.push(self.memo[argument])
        elif name == "GLOBAL":
            self.push(_named(*argument.split(" ", 1)))
        elif name == "STACK_GLOBAL":
            self.push(_named(*map(str, self.pop(2))))
        elif name == "BINPERSID":
            self.push(_storage(*self.pop(1)))
        elif name == "REDUCE":
            self.reduce()
        elif name == "BUILD":
            self.build()
        elif name not in ("PROTO", "FRAME"):
            raise RefusedError(f"has the pickle instruction {name}, which no state dict needs")


# Instructions whose argument is the value.
_VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "STRING", "BINSTRING", "SHORT_BINSTRING"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_CONTAINERS: dict[str, Callable[[_Machine], object]] = {
    "MARK": _Machine.mark,
    "EMPTY_DICT": lambda m: m.push({}),
    "EMPTY_LIST": lambda m: m.push([]),
    "TUPLE": lambda m: m.push(tuple(m.since_mark())),
    "DICT": _Machine.dictionary,
    "LIST": lambda m: m.push(m.since_mark()),
    "TUPLE1": lambda m: m.push(tuple(m.pop(1))),
    "TUPLE2": lambda m: m.push(tuple(m.pop(2))),
    "TUPLE3": lambda m: m.push(tuple(m.pop(3))),
    "SETITEM": lambda m: m.set_items(m.pop(2)),
    "SETITEMS": lambda m: m.set_items(m.since_mark()),
    "APPEND": lambda m: m.append(m.pop(1)),
    "APPENDS": lambda m: m.append(m.since_mark()),
    "POP": lambda m: m.pop(1),
    "POP_MARK": _Machine.since_mark,
}


def read_pickle(stream: io.BytesIO) -> object:
    """Returns what a pickle holds: dictionaries, lists, tuples, strings, numbers and `Tensor`.

    Args:
      stream: at most LARGEST_PICKLE bytes; afterwards it stands behind the pickle.

    Raises:
      RefusedError: it holds something else; nothing of it was executed.
      ValueError: it is damaged.
    """
    machine = _Machine()
    number = 0
    try:
        for instruction, argument, _ in pickletools.genops(stream):
            name = instruction.name
            number += 1
            if number > _MOST_INSTRUCTIONS:
                raise RefusedError(f"has more than {_MOST_INSTRUCTIONS} pickle instructions, which no state dict has")
            if name == "STOP":
                (result,) = machine.pop(1)
                return result
            if name in _VALUES:
                machine.push(argument)
            elif name in _CONSTANTS:
                machine.push(_CONSTANTS[name])
            elif name in _CONTAINERS:
                _CONTAINERS[name](machine)
            else:
                machine.call(name, argument)
    except (LookupError, OverflowError, MemoryError, AttributeError, TypeError) as error:
        raise ValueError(f"its pickle is damaged ({type(error).__name__}: {error})") from None
    raise ValueError("its pickle has no end")
