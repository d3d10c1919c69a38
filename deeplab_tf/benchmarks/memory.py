"""The resident memory of this process, as the kernel counts it."""

import contextlib
import pathlib

_STATUS = pathlib.Path("/proc/self/status")
_CLEAR = pathlib.Path("/proc/self/clear_refs")


def resident(field: str) -> float:
    """Returns a field of /proc in MB: VmRSS, or VmHWM, the most since the last `reset_peak`; 0 without /proc."""
    with contextlib.suppress(OSError):
        for line in _STATUS.read_text(encoding="ascii").splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) / 1e3
    return 0.0


def reset_peak() -> None:
    """Begins to count the peak anew; where the kernel does not allow that it remains the whole process's."""
    with contextlib.suppress(OSError):
        _CLEAR.write_text("5", encoding="ascii")
