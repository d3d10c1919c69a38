"""The faults of files: one line each, with its kind, so that thousands of one kind are told as one finding."""

import re
from collections.abc import Iterable, Sequence

from deeplab_tf.errors import DeepLabError

_SHOWN = 3  # examples of one kind


class FileError(DeepLabError):
    """A file is at fault.

    Attributes:
      kind: what is wrong, in words that files with the same fault share.
      amounts: (value, pixels) pairs of what the file holds, where that explains the fault: labels, or colours as
        numbers (see `label_samples.colour_codes`).
    """

    def __init__(self, message: str, kind: str, amounts: Sequence[tuple[int, int]] = ()) -> None:
        super().__init__(message)
        self.kind = kind
        self.amounts = tuple(amounts)


class Fault(str):
    """The message of a fault, with the `kind` and the `amounts` of a FileError."""

    kind: str
    amounts: tuple[tuple[int, int], ...]

    def __new__(cls, message: str, kind: str = "", amounts: Iterable[Sequence[int]] = ()) -> "Fault":
        """Makes the fault of a message; without a kind, faults are alike whose messages differ in numbers alone."""
        fault = super().__new__(cls, message)
        fault.kind = kind or re.sub(r"\d+", "#", message.partition(": ")[2])
        fault.amounts = tuple((value, pixels) for value, pixels in amounts)
        return fault

    @classmethod
    def of(cls, error: DeepLabError) -> "Fault":
        """Returns the fault of an error."""
        if isinstance(error, FileError):
            return cls(str(error), error.kind, error.amounts)
        return cls(str(error))


def fault_lines(faults: Sequence[Fault]) -> list[str]:
    """Returns the messages, kind by kind; of many of one kind the first three, and how many more there are."""
    by_kind: dict[str, list[Fault]] = {}
    for fault in faults:
        by_kind.setdefault(fault.kind, []).append(fault)
    lines: list[str] = []
    for kind, alike in by_kind.items():
        lines += alike[:_SHOWN]
        if len(alike) > _SHOWN:
            lines.append(f"and {len(alike) - _SHOWN} more of this kind: {kind}")
    return lines
