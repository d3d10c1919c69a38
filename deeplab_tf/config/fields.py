"""Options, the base of every configuration, and `option`, which makes its fields.

A configuration is a frozen dataclass below `Options`. Each field holds an option once: its type, default and help.
"""

import dataclasses
import types
import typing
from collections.abc import Callable, Iterable
from typing import Any, Literal

from deeplab_tf.errors import DeepLabError

# What an option is that may be left to the program: auto decides where it runs.
Switch = Literal["auto", "true", "false"]
SWITCHES: tuple[Switch, ...] = typing.get_args(Switch)
HUB = "hf://"  # begins the names of repositories of the Hugging Face Hub, which are no paths
# What a flag or an option for weights takes, in the words of its help.
WEIGHTS = (
    "model directory, TF1 checkpoint (prefix, folder, .tar.gz), .keras or .h5 of Keras, .weights.h5 (with the flags of "
    "its network), .safetensors or .pth, folder of transformers', hf://owner/name[@revision], frozen .pb or .tflite of "
    "the release, .caffemodel of DeepLab v1 or v2, or a name of the zoo"
)
EXPORTS = "what deeplab-tf export has written: a SavedModel, .tflite, .onnx, .xml or .pb with its certificate"
LARGEST_SCALE = 16  # of the scales whose probabilities are averaged


def option(
    default: Any,
    help_text: str,
    *,
    flag: str | None = None,
    parse: Callable[[Any], object] | None = None,
    path: bool | Literal["named"] = False,
    group: str | None = None,
) -> Any:
    """Returns a field with its default and the help of its flag.

    Args:
      default: the value of a field that is not given; None: unset.
      help_text: the help of the flag, without the default.
      flag: the flag's name, where the release has another than the field.
      parse: makes the field's value from what is given; unset: lists are parsed by the field's type.
      path: whether it holds a path, or several of them, so that its flag expands `~`; "named": a path or a name, so
        that its flag also keeps the separator that tells the one from the other.
      group: the heading of `GROUPS` that help lists it under; unset: that of its class.
    """
    metadata = {"help": help_text, "flag": flag, "parse": parse, "path": path, "group": group}
    return dataclasses.field(default=default, metadata=metadata)


def path_option(default: Any, help_text: str, *, named: bool = False, group: str | None = None) -> Any:
    """Returns a field that holds a path, or several of them, or where it is `named` a path or a name; see `option`."""
    return option(default, help_text, path="named" if named else True, group=group)


def switch(value: Any) -> Any:
    """Returns the Switch that a bool is; anything else as it is, for the configuration to check."""
    return str(value).lower() if isinstance(value, bool) else value


def auto_or_count(value: Any) -> Any:
    """Returns the number that a text is, or auto; anything else as it is, for the configuration to check."""
    text = value.strip().lower() if isinstance(value, str) else ""
    return text if text == "auto" else int(text) if text.isdecimal() and text.isascii() else value


def item_type(annotation: Any) -> Any:
    """Returns the type of a list's elements, int for tuple[int, ...] | None; None for an annotation that is no list."""
    for kind in (annotation, *typing.get_args(annotation)):
        if typing.get_origin(kind) is tuple:
            return typing.get_args(kind)[0]
    return None


def split_names(value: str | Iterable[str] | None) -> tuple[str, ...] | None:
    """Returns names that are given as a list, as a text with commas between them, or as a list of such; empty: None."""
    texts = [value] if isinstance(value, str) else value or ()
    return tuple(name for text in texts for name in text.split(",") if name) or None


def _numbers(name: str, value: Any, kind: type[int] | type[float]) -> tuple[float, ...] | None:
    """Returns a number, a string such as "6,12", or a sequence of either, as a tuple; empty is None."""
    values: Iterable[Any] = [value] if isinstance(value, str | int | float) else value
    try:
        parts: list[Any] = [part for v in values for part in (v.split(",") if isinstance(v, str) else [v])]
        given = [part for part in parts if part != ""]
        numbers = tuple(kind(part) for part in given)
        # An int of "6.5" would fail by itself, that of 6.5 would be another number.
        exact = all(float(number) == float(part) for number, part in zip(numbers, given, strict=True))
    except (TypeError, ValueError):
        numbers = ()
        exact = False
    if not exact:
        example = "6,12,18" if kind is int else "0.5,1.0"
        raise DeepLabError(f"{name}={value!r}: expected {kind.__name__} numbers, for instance {name}={example}")
    return numbers or None


@dataclasses.dataclass(frozen=True)
class Options:
    """A configuration: values are parsed and checked on construction.

    Lists may be given in every spelling, as (6, 12), "6,12" or ("6", "12"), and become tuples. Sub-classes check their
    values in __post_init__; a DeepLabError names field, value and cure. A sub-class says the `group` of those of its
    options that name none.
    """

    def __init_subclass__(cls, *, group: str = "what") -> None:
        for field in vars(cls).values():
            if isinstance(field, dataclasses.Field):
                own = field.metadata["group"] or group
                field.metadata = types.MappingProxyType({**field.metadata, "group": own})

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            parse = field.metadata["parse"]
            item = item_type(field.type)
            if parse:
                object.__setattr__(self, field.name, parse(value))
            elif item is not None and value is not None:
                numeric = item in (int, float)
                object.__setattr__(self, field.name, _numbers(field.name, value, item) if numeric else tuple(value))

    def _require(self, name: str, good: bool, expected: str) -> None:
        """Raises DeepLabError, with the field's value and what is `expected`, unless it is `good`."""
        if not good:
            raise DeepLabError(f"{name}={getattr(self, name)!r}: {expected}")

    def _require_at_least(self, least: float, *names: str) -> None:
        for name in names:
            self._require(name, getattr(self, name) >= least, f"expected a number of at least {least}")

    def _require_size(self, *names: str) -> None:
        """Raises DeepLabError unless the fields are unset or a height and a width."""
        for name in names:
            size = getattr(self, name)
            self._require(name, size is None or (len(size) == 2 and min(size) > 0), "expected two numbers, h,w")

    def _require_averaged(self, name: str) -> None:
        """Raises DeepLabError unless a field holds scales whose probabilities can be averaged."""
        scales = getattr(self, name)
        good = bool(scales) and all(0 < scale <= LARGEST_SCALE for scale in scales)
        self._require(name, good, f"expected scales above 0, at most {LARGEST_SCALE}")

    def _require_resizing(self) -> None:
        """Raises DeepLabError unless min_resize_value, max_resize_value and resize_factor belong together."""
        values = {name: getattr(self, name) for name in ("min_resize_value", "max_resize_value", "resize_factor")}
        for name, value in values.items():
            self._require(name, value is None or value > 0, "expected a number of pixels")
            alone = value is not None and values["min_resize_value"] is None
            self._require(name, not alone, "needs min_resize_value too")
