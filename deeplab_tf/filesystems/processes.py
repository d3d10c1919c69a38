"""Which process is which: what is equal for those that see one another's numbers, and whether one lives."""

import contextlib
import os
import pathlib
import socket


def this_machine() -> str:
    """Returns what is equal for processes that see one another's numbers: a container is a machine of its own."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(pathlib.Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def lives(process: int) -> bool:
    """Returns whether the process of this machine with a number lives, or whether that cannot be known."""
    if os.name != "posix":
        return True  # os.kill would end it
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
