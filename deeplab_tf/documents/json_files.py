"""JSON that the project writes: read with limits of size and depth and the types of its fields; `plain`, to write it.

Whatever is wrong with a file, from bytes that are not text to a word where a number is expected, is one error.
"""

import json
import math
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from deeplab_tf import files
from deeplab_tf.errors import DeepLabError

MOST_BYTES = 1 << 26
_DEEPEST = 64  # nested objects and lists; what the project writes has fewer than 10
_SHOWN = 120

_Kind = TypeVar("_Kind")


class JSONError(DeepLabError):
    """A text is not the JSON that was expected; the message says in a few words why, and names no file."""


def _require_shallow(values: Any) -> None:
    level = [values]
    for _ in range(_DEEPEST):
        inner = [v.values() if isinstance(v, dict) else v for v in level if isinstance(v, dict | list)]
        level = [value for part in inner for value in part]
        if not level:
            return
    raise JSONError(f"nested more than {_DEEPEST} deep")


def typed(values: Any, kind: type[_Kind]) -> _Kind:
    """Returns a value of JSON as a type: lists become tuples where the type says so, whole numbers fractions.

    Args:
      values: as Python's reader of JSON returns them.
      kind: a class, a TypedDict, or any type of those that dataclasses here have for their fields.

    Raises:
      JSONError: it is of another type; the message says where and which.
    """
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise JSONError(" ".join(str(error).split())) from None


def parse_json(content: str | bytes, kind: type[_Kind]) -> _Kind:
    """Returns the value of a JSON text, which may begin with a byte-order mark, as `typed` returns it.

    NaN and Infinity are read, as the logs of a training hold them.

    Raises:
      JSONError: it is not UTF-8, not JSON, larger than 64 MB, nested more than 64 deep, or of another type.
    """
    if len(content) > MOST_BYTES:
        raise JSONError(f"has {len(content)} bytes; expected at most {MOST_BYTES}")
    try:
        text = content.decode("utf-8-sig") if isinstance(content, bytes) else content.removeprefix("\ufeff")
        values = json.loads(text)
    except UnicodeDecodeError as error:
        raise JSONError(f"not UTF-8 text ({error.reason} at byte {error.start})") from None
    except RecursionError:
        raise JSONError(f"nested more than {_DEEPEST} deep") from None
    except ValueError as error:
        raise JSONError(f"not JSON ({' '.join(str(error).split())[:_SHOWN]})") from None
    _require_shallow(values)
    return typed(values, kind)


def read_json(path: files.AnyPath, kind: type[_Kind]) -> _Kind:
    """Returns the value in a JSON file, as `parse_json` returns it.

    Raises:
      JSONError: as `parse_json` raises it.
      OSError: the file cannot be read.
    """
    with path.open("rb") as stream:
        return parse_json(stream.read(MOST_BYTES + 1), kind)


def plain(value: Any) -> Any:
    """Returns a value as JSON has it: null for NaN, lists for tuples and arrays, texts for the keys of mappings."""
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return None if isinstance(value, float) and math.isnan(value) else value
