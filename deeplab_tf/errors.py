"""`DeepLabError`, the exception for a user's mistake: the commands print it as a single line and exit with status 1.

And what tells a shortage of memory among the exceptions of others.
"""

import difflib
import re
from collections.abc import Iterable

# What moves a terminal's cursor, colours it, ends a line or turns the direction of writing; halves of characters.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    r"""Returns a text of a file or a user for a message: control characters are shown as \n, \x1b, \u202e."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def _in_lines(text: str) -> str:
    return "\n  ".join(map(visible, text.split("\n  ")))


class DeepLabError(ValueError):
    """A mistake that the user can mend.

    The message is one line that names the file or option, the value, what was expected and the cure.

    >>> deeplab_tf.ModelConfig(output_stride=12)
    Traceback (most recent call last):
      ...
    deeplab_tf.errors.DeepLabError: output_stride=12: mobilenet_v2 takes a power of two from 1 to 32

    Names of files and variables are in it, so that control characters are shown as escapes. A list of faults goes on in
    indented lines.
    """

    def __init__(self, *arguments: object):
        super().__init__(*(_in_lines(part) if isinstance(part, str) else part for part in arguments))


class OptionError(DeepLabError):
    """An option is at fault, and not the file that is worked on: the next file would fail as well."""


class ShortageError(DeepLabError):
    """The memory does not suffice for what was asked; the message has the numbers to try."""


class DamagedError(DeepLabError):
    """A file is damaged, truncated, or still being written."""


def unknown_name(kind: str, name: object, known: Iterable[str]) -> DeepLabError:
    """Returns the error for a `name` of a `kind` of thing that is not `known`; the message lists the nearest."""
    known = sorted(known)
    near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
    return DeepLabError(f"unknown {kind} {str(name)!r}; {hint}")


_RESOURCE_EXHAUSTED = 8  # the code of TensorFlow's errors for a shortage of any kind
# What TensorFlow's files and gRPC report under that code, and is no shortage of memory.
_OTHER_SHORTAGES = re.compile("no space left|quota|too many open files|message larger than|file too large", re.I)
# What cuDNN, cuBLAS and the driver report under other codes when there is no memory for their workspaces.
_ALLOCATIONS = re.compile("out of memory|OUT_OF_MEMORY|_ALLOC_FAILED|no algorithm worked|failed to allocate", re.I)
_ASKED = re.compile(
    r"OOM when allocating tensor with shape ?\[[\d,]*\] and type \w+|out of memory while trying to allocate [\d.]+ ?\w+"
    r"|Unable to allocate [\d.]+ \w+",
    re.I,
)


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether an exception, Python's, NumPy's or TensorFlow's, says that the memory does not suffice.

    TensorFlow reports a full disk under the same code, and cuDNN's workspaces that find no room under others.
    """
    if isinstance(error, MemoryError):
        return True
    code = getattr(error, "error_code", None)  # of tf.errors.OpError, without importing TensorFlow
    if not isinstance(code, int) or _OTHER_SHORTAGES.search(str(error)):
        return False
    return code == _RESOURCE_EXHAUSTED or _ALLOCATIONS.search(str(error)) is not None


def first_line(error: BaseException) -> str:
    """Returns the first line of what the exception of a library says, its type's name where it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def what_was_asked(error: BaseException) -> str:
    """Returns what there was no memory for, as the exception of `is_out_of_memory` tells it, in a few words."""
    text = str(error)
    found = _ASKED.search(text)
    return found[0] if found else (text.strip().splitlines() or ["no room for what it needs"])[0][:120]
