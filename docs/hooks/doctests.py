"""An extension of griffe, which reads the docstrings: their examples become blocks of code."""

import re
from typing import Any

import griffe


def fenced(text: str) -> str:
    """Returns a docstring whose blocks of `>>>` lines stand between fences."""
    lines: list[str] = []
    indent = None  # of the block at hand
    for line in [*text.splitlines(), ""]:
        stripped = line.strip()
        if indent is None and stripped.startswith(">>> "):
            indent = line[: len(line) - len(line.lstrip())]
            lines.append(f"{indent}```pycon")
        elif indent is not None and not stripped:
            lines.append(f"{indent}```")
            indent = None
        lines.append(line)
    return "\n".join(lines[:-1])


def single(text: str) -> str:
    """Returns a docstring whose attributes of one line, `a, b: text`, are one entry: griffe expects one name."""
    return re.sub(r"^( +)(\w+), (\w+(?:, \w+)*): ", r"\1\2: (with \3) ", text, flags=re.MULTILINE)


class Doctests(griffe.Extension):
    """Puts fences around the examples of every docstring."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Changes the docstring of an object."""
        if obj.docstring:
            obj.docstring.value = fenced(single(obj.docstring.value))
