"""The end of a command that is interrupted: by Ctrl-C, by a reader of its output that goes, by a disk that is full."""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from typing import NoReturn

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
INTERRUPTED = 130  # the status that shells report for a process that SIGINT ended


@contextlib.contextmanager
def ending(name: str) -> Iterator[None]:
    """Ends the process without a traceback: with status 130 after Ctrl-C, with 1 if its output cannot be written.

    The reader of the output may have gone, or its disk is full. name: of the command, for the line on standard error.
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
        _end_output()  # the reader was a pager or `head`
    except OSError as error:
        if error.errno not in _FULL or error.filename:  # those of files have names
            raise
        print(
            f"{name}: the output cannot be written ({error.strerror}); make room, or write it elsewhere",
            file=sys.stderr,
        )
        _end_output()


def _end_output() -> NoReturn:
    """Ends the process whose output goes nowhere: the flush at exit would write what is left to it again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(1)
