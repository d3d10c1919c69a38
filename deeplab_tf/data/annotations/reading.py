"""Files of annotations read with suspicion: JSON, YAML and XML in, values of the expected types out, or one line."""

import json
import math
import os
import posixpath
import re
from collections.abc import Iterator
from typing import IO, Any, TypeVar

import numpy as np

from deeplab_tf import files
from deeplab_tf.errors import DeepLabError

LARGEST = 10_000_000  # pixels; no picture is as wide, and a polygon that reaches further is damaged
_DEEPEST = 40  # elements of XML within each other; CVAT has six
_INSTALL = "pip install 'deeplab_tf[annotations]'"
_Kind = TypeVar("_Kind")
_WORDS = {dict: "an object", list: "a list", str: "a text", int: "a whole number", bool: "true or false"}


def needs(error: ImportError) -> DeepLabError:
    """Returns the error for a package of the extra `annotations` that is not installed."""
    return DeepLabError(f"reading annotations needs {error.name}: {_INSTALL}")


def shown(value: object) -> str:
    """Returns a value for a message, shortened."""
    text = repr(value) if not isinstance(value, int) or abs(value) < 10**18 else "a huge number"
    return text if len(text) <= 40 else f"{text[:36]}..."


def read_bytes(file: str) -> bytes:
    """Returns the contents of a file. DeepLabError where it cannot be read or is empty."""
    try:
        content = files.path(file).read_bytes()
    except OSError as error:
        raise DeepLabError(f"{file}: cannot be read ({error.strerror or error}); expected annotations") from None
    if not content.strip():
        raise DeepLabError(f"{file}: the file is empty; expected annotations")
    return content


def no_constant(name: str) -> float:
    """Refuses NaN and Infinity, which JSON does not have, though Python's reader takes them."""
    raise ValueError(f"{name} is not a number of JSON")


def parse_json(content: bytes, where: str) -> Any:
    """Returns the value of JSON text in UTF-8, with or without a byte-order mark. DeepLabError names `where`."""
    try:
        return json.loads(content.decode("utf-8-sig"), parse_constant=no_constant)
    except UnicodeDecodeError as error:
        raise DeepLabError(f"{where}: not UTF-8 text ({error.reason}); export the annotations again") from None
    except RecursionError:
        raise DeepLabError(f"{where}: JSON nested too deeply; export the annotations again") from None
    except ValueError as error:
        raise DeepLabError(f"{where}: damaged JSON ({error}); export the annotations again") from None


def read_json(file: str) -> dict[str, Any]:
    """Returns the object in a JSON file."""
    return checked(parse_json(read_bytes(file), file), dict, file)


def read_yaml(file: str) -> dict[str, Any]:
    """Returns the mapping in a YAML file."""
    try:
        import yaml
    except ImportError as error:
        raise needs(error) from None
    try:
        values = yaml.safe_load(read_bytes(file).decode("utf-8-sig"))
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
        reason = str(error).splitlines() or ["nested too deeply"]
        raise DeepLabError(f"{file}: damaged YAML ({reason[0]}); expected names, train, val") from None
    return checked(values, dict, file)


def checked(value: Any, kind: type[_Kind], where: str) -> _Kind:
    """Returns a value that has the type `kind`; a DeepLabError otherwise."""
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise DeepLabError(f"{where}: {shown(value)} where {_WORDS[kind]} was expected; export the annotations again")
    return value


def field(values: dict[str, Any], key: str, kind: type[_Kind], where: str) -> _Kind:
    """Returns the value of a key, which must be there and have the type `kind`."""
    if key not in values:
        raise DeepLabError(f"{where}: no {key!r}; expected {_WORDS[kind]}")
    return checked(values[key], kind, f"{where}: {key}")


def optional(values: dict[str, Any], key: str, kind: type[_Kind], where: str, default: _Kind) -> _Kind:
    """Returns `field`, or `default` where the key is missing or null."""
    return default if values.get(key) is None else field(values, key, kind, where)


def number(value: Any, where: str) -> float:
    """Returns a finite number of a believable size."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DeepLabError(f"{where}: {shown(value)} where a number was expected; export the annotations again")
    if not (math.isfinite(value) and abs(value) <= LARGEST) if isinstance(value, float) else abs(value) > LARGEST:
        raise DeepLabError(f"{where}: {shown(value)} lies outside of any picture; export the annotations again")
    return float(value)


def points(value: Any, where: str) -> np.ndarray:
    """Returns a list of [x, y] as float64 [n, 2]."""
    rows = checked(value, list, where)
    if not all(isinstance(row, list) and len(row) == 2 for row in rows):
        raise DeepLabError(f"{where}: expected points [x, y]")
    return _numbers([item for row in rows for item in row], where).reshape(-1, 2)


def flat_points(value: Any, where: str) -> np.ndarray:
    """Returns a list x, y, x, y... as float64 [n, 2]."""
    found = _numbers(checked(value, list, where), where)
    if len(found) % 2:
        raise DeepLabError(f"{where}: {len(found)} numbers; expected pairs of x and y")
    return found.reshape(-1, 2)


def _numbers(items: list[Any], where: str) -> np.ndarray:
    # One look at all types is fast; only what is wrong is looked at one by one.
    if set(map(type, items)) <= {int, float}:
        try:
            found = np.array(items, np.float64)
        except OverflowError:
            found = np.array([np.inf])
        if np.all(np.abs(found) <= LARGEST):
            return found
    return np.array([number(item, where) for item in items], np.float64)


def picture_size(height: Any, width: Any, where: str) -> tuple[int, int]:
    """Returns (height, width), both positive; whole numbers that were written as 640.0 are taken."""
    sides = number(height, f"{where}: height"), number(width, f"{where}: width")
    if not all(side > 0 and side == int(side) for side in sides):
        raise DeepLabError(f"{where}: a picture of {shown(width)} x {shown(height)} pixels; expected whole numbers")
    return int(sides[0]), int(sides[1])


def xml_elements(stream: IO[bytes], where: str) -> Iterator[tuple[str, Any]]:
    """Yields ("start" or "end", element) of an XML file; entities and document types are refused.

    Whoever is done with an element clears it, so that a large file takes little memory.
    """
    try:
        import defusedxml
        from defusedxml import ElementTree
    except ImportError as error:
        raise needs(error) from None
    depth = 0
    try:
        for event, element in ElementTree.iterparse(stream, ("start", "end"), forbid_dtd=True):
            depth += 1 if event == "start" else -1
            if depth > _DEEPEST:
                raise DeepLabError(f"{where}: XML nested more than {_DEEPEST} deep; expected CVAT's")
            yield event, element
    except defusedxml.DefusedXmlException as error:
        raise DeepLabError(f"{where}: XML with a document type or entities ({type(error).__name__}); refused") from None
    except (ElementTree.ParseError, LookupError, UnicodeError, ValueError) as error:
        if isinstance(error, DeepLabError):
            raise
        raise DeepLabError(f"{where}: damaged XML ({error}); export the annotations again") from None
    except OSError as error:
        raise DeepLabError(f"{where}: cannot be read ({error.strerror or error}); expected annotations") from None


def slashes(name: str) -> str:
    """Returns a path as written on any system with / between its folders."""
    return name.replace("\\", "/").strip()


def joined(folder: str, name: str) -> str:
    """Returns the path of a name in a folder, without . and .. parts; a name with a scheme is a path by itself."""
    path = name if files.is_remote(name) else posixpath.join(folder, name)
    scheme, found, rest = path.partition("://") if files.is_remote(path) else ("", "", path)
    return scheme + found + posixpath.normpath(rest)


def split_of(name: str) -> str | None:
    """Returns the split that a word stands for, or None.

    >>> from deeplab_tf.data.annotations.reading import split_of
    >>> split_of("val2017"), split_of("Validation"), split_of("photos")
    ('val', 'val', None)
    """
    return _SPLITS.get(name.lower().rstrip("0123456789"))


def split_of_file(file: str) -> str | None:
    """Returns the split that the last such word in a file's name stands for, or None: instances_val2017.json, val."""
    words = re.split(r"[-_. ]", os.path.splitext(os.path.basename(file))[0])
    return next(filter(None, map(split_of, reversed(words))), None)


def split_of_folders(path: str) -> str | None:
    """Returns the split of the deepest folder in a path that is named for one, or None: train/one/a.jpg, train."""
    return next(filter(None, map(split_of, reversed(os.path.dirname(path).split("/")))), None)


_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
