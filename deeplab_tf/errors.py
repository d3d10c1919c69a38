"""`DeepLabError`, the exception for a user's mistake: the commands print it as a single line and exit with status 1."""

import difflib
from collections.abc import Iterable


class DeepLabError(ValueError):
    """A mistake that the user can mend.

    The message is one line that names the file or option, the value, what was expected and the cure.

    >>> deeplab_tf.ModelConfig(output_stride=12)
    Traceback (most recent call last):
      ...
    deeplab_tf.errors.DeepLabError: output_stride=12: mobilenet_v2 takes a power of two from 1 to 32
    """


class OptionError(DeepLabError):
    """An option is at fault, and not the file that is worked on: the next file would fail as well."""


class DamagedError(DeepLabError):
    """A file is damaged, truncated, or still being written."""


def unknown_name(kind: str, name: object, known: Iterable[str]) -> DeepLabError:
    """Returns the error for a `name` of a `kind` of thing that is not `known`; the message lists the nearest."""
    known = sorted(known)
    near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
    return DeepLabError(f"unknown {kind} {str(name)!r}; {hint}")
