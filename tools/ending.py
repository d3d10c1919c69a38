"""The end of a command that is interrupted, by Ctrl-C or by a reader of its output that closes the pipe."""

import contextlib
import os
import sys
from collections.abc import Iterator

INTERRUPTED = 130  # the status that shells report for a process that SIGINT ended


@contextlib.contextmanager
def ending(name: str) -> Iterator[None]:
    """Ends the process without a traceback: with status 130 after Ctrl-C, with 1 if the reader of its output has gone.

    name: of the command, for the line on standard error.
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
        # The reader was a pager or `head`. Without this the flush at exit would write to the closed pipe again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
