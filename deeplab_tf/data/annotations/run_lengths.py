"""Run lengths: pixels as the lengths of runs outside and inside by turns, plain or in COCO's compressed text."""

from collections.abc import Sequence

import numpy as np

from deeplab_tf.data.annotations.reading import shown
from deeplab_tf.errors import DeepLabError

_CURE = "export the annotations again"


def runs(counts: Sequence[int] | np.ndarray, pixels: int, where: str) -> np.ndarray:
    """Returns bool [pixels] of run lengths, the first of which is of pixels outside.

    Raises:
      DeepLabError: they are not whole numbers of at least 0 with the sum `pixels`.
    """
    wrong = DeepLabError(f"{where}: run lengths that do not add up to {pixels} pixels; {_CURE}")
    if not isinstance(counts, np.ndarray):
        if set(map(type, counts)) != {int}:
            raise wrong
        try:
            counts = np.array(counts, np.int64)
        except OverflowError:
            raise wrong from None
    if not len(counts) or counts.min() < 0 or counts.max() > pixels or counts.sum() != pixels:
        raise wrong
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts)


def compressed_counts(text: str, where: str) -> np.ndarray:
    """Returns the run lengths of COCO's compressed text, int64 [n] (rleFrString in its maskApi.c).

    Each length has 5 bits a character, the lowest first; bit 5 says that more follow, bit 4 of the last is the sign.
    From the fourth on it is the difference to the length before the last. COCO's own reader trusts its input: of a
    damaged text it makes pixels of whatever lies behind it in memory.

    Raises:
      DeepLabError: the text is not one of run lengths.
    """
    codes = np.frombuffer(text.encode() if text.isascii() else b"", np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero((codes & 32) == 0)
    if not len(codes) or codes.min() < 0 or codes.max() > 63 or not len(ends) or ends[-1] != len(codes) - 1:
        raise DeepLabError(f"{where}: {shown(text)} is not a text of run lengths; {_CURE}")
    starts = np.concatenate([[0], ends[:-1] + 1])
    widths = 5 * (ends - starts + 1)
    if widths.max() > 35:
        raise DeepLabError(f"{where}: {shown(text)} has a run longer than any picture; {_CURE}")
    shifts = 5 * (np.arange(len(codes)) - np.repeat(starts, widths // 5))
    counts = np.add.reduceat((codes & 31) << shifts, starts)
    counts -= np.where(codes[ends] & 16, np.int64(1) << widths, 0)
    for first in (1, 2):
        counts[first::2] = np.cumsum(counts[first::2])
    return counts
