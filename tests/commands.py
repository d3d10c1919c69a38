"""Runs a command in this process or another, and looks at what it printed and left."""

import os
import pathlib
import subprocess
import sys
import types
from collections.abc import Callable

import pytest


def finished(command: types.ModuleType | Callable, *arguments: object, name: str = "tool") -> int:
    """Runs a module of `tools`, or its `run`, with these arguments under a program's name; returns its exit status."""
    run = getattr(command, "run", command)
    with pytest.raises(SystemExit) as ended:
        run([name, *map(str, arguments)])
    return ended.value.code or 0


def begin(arguments: list[str], folder: pathlib.Path) -> subprocess.Popen:
    """Starts a command that takes SIGINT as one on a terminal does, even where this process ignores it.

    The command sets that itself: a function between fork and exec would let TensorFlow's handlers of a fork run, which
    write.
    """
    program = (
        "import signal, runpy; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "runpy.run_module('deeplab_tf.tools.cli', run_name='__main__', alter_sys=True)"
    )
    return subprocess.Popen(
        [sys.executable, "-X", "faulthandler", "-c", program, *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


def one_line(text: str) -> str:
    """Returns the one line of an error output."""
    assert text.endswith("\n") and text.count("\n") == 1, text
    assert "Traceback" not in text
    return text.strip()


def everything(folder: pathlib.Path | str) -> set[str]:
    """Returns the names of all files and folders below a folder, hidden ones too; none where there is no folder."""
    return {str(path.relative_to(folder)) for path in pathlib.Path(folder).rglob("*")}
