"""How a command ends where nobody is to blame: control-C, and a reader of its output that has seen enough."""

import contextlib
import os
import sys
from collections.abc import Iterator

INTERRUPTED = 130  # what shells report of a process that SIGINT ended


@contextlib.contextmanager
def ending(name: str) -> Iterator[None]:
    """Ends the process without a traceback: with status 130 after control-C, with 1 where its reader went away.

    `name` is the command's, for the line on standard error.
    """
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # A pager, or head: there is nothing to tell anyone, and the exit's own flush must not try.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
