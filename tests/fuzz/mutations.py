"""Damages bytes: the ways in which files are cut, filled, mixed and forged, drawn by a generator with a seed."""

import json
import random
from collections.abc import Callable
from typing import Any

# Sizes and counts at the edges of the types that hold them.
_NUMBERS = (
    0,
    1,
    127,
    128,
    255,
    256,
    32767,
    32768,
    65535,
    1 << 24,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
    (1 << 63) - 1,
)
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 255, 1 << 31, 1 << 63, 10**40, 0.5, -0.0, 1e308, float("nan"), float("inf")),
    *(
        "",
        "x",
        "21",
        "\x00",
        "\x1b[31m",
        "=1+1",
        "../../x",
        "gs://nowhere/x",
        "é" * 300,
        [],
        [[]],
        {},
        [1, 2, 3],
        ["a"],
    ),
)


def _flip(content: bytearray, draw: random.Random) -> None:
    for _ in range(draw.choice((1, 1, 1, 2, 8))):
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)


def _write(content: bytearray, draw: random.Random) -> None:
    for _ in range(draw.choice((1, 1, 3, 16))):
        content[draw.randrange(len(content))] = draw.choice((0, 1, 0x7F, 0x80, 0xFF, draw.randrange(256)))


def _number(content: bytearray, draw: random.Random) -> None:
    size = draw.choice((2, 4, 8))
    number = draw.choice(_NUMBERS) & (1 << 8 * size) - 1
    at = draw.randrange(len(content))
    content[at : at + size] = number.to_bytes(size, draw.choice(("little", "big")))


def _varint(content: bytearray, draw: random.Random) -> None:
    value, out = draw.choice(_NUMBERS), bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    at = draw.randrange(len(content))
    content[at : at + draw.choice((0, 1, 2))] = bytes([*out, value])


def _cut(content: bytearray, draw: random.Random) -> None:
    del content[draw.randrange(len(content)) :]


def _remove(content: bytearray, draw: random.Random) -> None:
    at = draw.randrange(len(content))
    del content[at : at + draw.choice((1, 2, 7, 64, 500))]


def _repeat(content: bytearray, draw: random.Random) -> None:
    at = draw.randrange(len(content))
    content[at:at] = content[at : at + draw.choice((1, 8, 64, 500))] * draw.choice((1, 2, 30))


def _move(content: bytearray, draw: random.Random) -> None:
    here, there = draw.randrange(len(content)), draw.randrange(len(content))
    size = draw.choice((1, 4, 32, 300))
    content[here : here + size] = content[there : there + size]


def _zero(content: bytearray, draw: random.Random) -> None:
    at = draw.randrange(len(content))
    size = draw.choice((1, 16, 512, len(content)))
    content[at : at + size] = bytes(len(content[at : at + size]))


def _insert(content: bytearray, draw: random.Random) -> None:
    at = draw.randrange(len(content) + 1)
    content[at:at] = draw.randbytes(draw.choice((1, 4, 40)))


_WAYS: tuple[Callable[[bytearray, random.Random], None], ...] = (
    *(_flip, _flip, _write, _write, _number, _number, _varint, _cut, _remove, _repeat, _move, _zero, _insert),
)


def damaged(content: bytes, draw: random.Random) -> bytes:
    """Returns the bytes after one to four damages."""
    changed = bytearray(content)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        if changed:
            draw.choice(_WAYS)(changed, draw)
    return bytes(changed)


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Returns every (container, key) of a JSON value."""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [place for key in keys for place in [(value, key), *_places(value[key])]]


def damaged_json(content: bytes, draw: random.Random) -> bytes:
    """Returns JSON with other values, without or with other fields, or nested deep; a third of all as plain bytes."""
    if not draw.randrange(3):
        return damaged(content, draw)
    root = [json.loads(content)]
    for _ in range(draw.choice((1, 1, 2, 5))):
        places = _places(root)
        container, key = draw.choice(places)
        way = draw.randrange(6)
        if way == 0 and container is not root:
            del container[key]
        elif way == 1:
            container[key] = [container[key]]
        elif way == 2 and isinstance(container, dict):
            container[draw.choice(("", "x", str(key) * 2))] = draw.choice(_VALUES)
        elif way == 3:
            for _ in range(draw.choice((2, 70))):
                container[key] = {"a": container[key]}
        else:
            container[key] = draw.choice(_VALUES)
        root = json.loads(json.dumps(root))
    text = json.dumps(root[0])
    deep = draw.choice((0, 0, 0, 0, 0, 0, 0, 0, 0, 5000))
    return ("[" * deep + text + "]" * deep).encode()
