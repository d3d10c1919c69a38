"""The processor that inference runs on: what it is called, its instructions, and how many of its cores may be used."""

import hashlib
import math
import os
import pathlib
import platform

_CPUINFO = pathlib.Path("/proc/cpuinfo")
_CGROUP = pathlib.Path("/sys/fs/cgroup")
_QUOTAS = ("cpu.max", "cpu/cpu.cfs_quota_us")  # of version 2 and 1; the period of 1 is in a file beside it
_PERIOD = "cpu/cpu.cfs_period_us"


def _words(file: pathlib.Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        return []


def _quota() -> float:
    """Returns how many cores' time the control group of a container allows; infinity where it does not limit it."""
    new, old = (_words(_CGROUP / name) for name in _QUOTAS)
    words = new or [*old, *_words(_CGROUP / _PERIOD)]
    try:
        limit, period = map(float, words)  # "max" stands for no limit in version 2, -1 in version 1
    except ValueError:
        return math.inf
    return limit / period if limit > 0 and period > 0 else math.inf


def available_cores() -> int:
    """Returns how many cores this process may use, at least 1: a container or `taskset` may leave it fewer than all."""
    # macOS and Windows cannot bind a process to cores.
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(bound, _quota())))


def _facts() -> dict[str, str]:
    """Returns the fields of the first core in /proc/cpuinfo; empty where there is no such file."""
    try:
        text = _CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    lines = text.strip().partition("\n\n")[0].splitlines()
    pairs = (line.partition(":") for line in lines)
    return {name.strip(): value.strip() for name, _, value in pairs}


def processor() -> dict[str, str | int]:
    """Returns what decides how fast something runs here: model, instructions (a digest), cores that may be used."""
    facts = _facts()
    # ARM has no name of the model, but these numbers.
    parts = ("model name", "cpu family", "model", "stepping", "CPU implementer", "CPU part", "CPU variant")
    words = [facts[name] for name in parts if facts.get(name)]
    instructions = " ".join(sorted((facts.get("flags") or facts.get("Features") or "").split()))
    return {
        "model": ", ".join(words) or platform.processor() or platform.machine(),
        "instructions": hashlib.sha256(instructions.encode()).hexdigest()[:16],
        "cores": available_cores(),
    }
