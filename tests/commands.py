"""Runs a command in this process, and looks at what it printed and left."""

import pathlib
import types
from collections.abc import Callable

import pytest


def finished(command: types.ModuleType | Callable, *arguments: object, name: str = "tool") -> int:
    """Runs a module of `tools`, or its `run`, with these arguments under a program's name; returns its exit status."""
    run = getattr(command, "run", command)
    with pytest.raises(SystemExit) as ended:
        run([name, *map(str, arguments)])
    return ended.value.code or 0


def one_line(text: str) -> str:
    """Returns the one line of an error output."""
    assert text.endswith("\n") and text.count("\n") == 1, text
    assert "Traceback" not in text
    return text.strip()


def everything(folder: pathlib.Path | str) -> set[str]:
    """Returns the names of all files and folders below a folder, hidden ones too; none where there is no folder."""
    return {str(path.relative_to(folder)) for path in pathlib.Path(folder).rglob("*")}
