"""What the configurations share: an option as a dataclass field with its help, lists in every spelling, errors.

A configuration is a frozen dataclass below `Options` whose fields are made by `option`.
"""

import dataclasses
import typing

from deeplab_tf.errors import DeepLabError


def option(
    default: typing.Any, help_text: str, *, flag: str | None = None, path: bool = False, training: bool = False
) -> typing.Any:
    """Returns a field with its default and the help of its flag.

    Args:
      default: what the field is where it is not given; None: unset.
      help_text: what the flag's help says, without the default.
      flag: the flag's name, where the release has another than the field.
      path: whether it holds a path, or several of them; its flag expands `~`, for instance.
      training: whether training alone reads it.
    """
    metadata = {"help": help_text, "flag": flag, "path": path, "training": training}
    return dataclasses.field(default=default, metadata=metadata)


def path_option(default: typing.Any, help_text: str) -> typing.Any:
    """Returns a field that holds a path, or several of them; see `option`."""
    return option(default, help_text, path=True)


def _as_tuple(name: str, value, kind: type):
    """Returns `value` (a scalar, a string such as "6,12", or a sequence of either) as a tuple; empty is None."""
    if isinstance(value, str | int | float):
        value = [value]
    try:
        parts = [p for v in value for p in (v.split(",") if isinstance(v, str) else [v])]
        numbers = tuple(kind(p) for p in parts if p != "")
    except (TypeError, ValueError):
        numbers = None
    if numbers is None or any(
        float(n) != float(p) for n, p in zip(numbers, (p for p in parts if p != ""), strict=True)
    ):
        example = "6,12,18" if kind is int else "0.5,1.0"
        raise DeepLabError(f"{name}={value!r}: expected {kind.__name__} numbers, for instance {name}={example}")
    return numbers or None


@dataclasses.dataclass(frozen=True)
class Options:
    """Normalises lists to tuples by the declared type of each field."""

    def __post_init__(self):
        for field in dataclasses.fields(self):
            kinds = [a for a in typing.get_args(field.type) if typing.get_origin(a) is tuple] or [field.type]
            value = getattr(self, field.name)
            if typing.get_origin(kinds[0]) is tuple and value is not None and field.name not in _PARSED_ELSEWHERE:
                kind = typing.get_args(kinds[0])[0]
                value = tuple(value) if kind is str else _as_tuple(field.name, value, kind)
                object.__setattr__(self, field.name, value)

    def _require(self, name: str, good: bool, expected: str):
        if not good:
            raise DeepLabError(f"{name}={getattr(self, name)!r}: {expected}")


_PARSED_ELSEWHERE = {"dense_prediction_cell_json"}
