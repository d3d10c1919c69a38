"""The one exception that tells a user of a mistake: the commands print it as a single line and exit with status 1."""

import difflib
from collections.abc import Iterable


class DeepLabError(ValueError):
    """A mistake the user can mend. The message names the file or option, the value, what was expected and the cure."""


class DamagedError(DeepLabError):
    """A file that should be whole is not: damaged, truncated, or still being written."""


def unknown_name(kind: str, name: object, known: Iterable[str]) -> DeepLabError:
    """Returns the error for a `name` that is not among the `known` ones; the message lists the nearest."""
    known = sorted(known)
    near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
    return DeepLabError(f"unknown {kind} {str(name)!r}; {hint}")
