"""`json_numbers`: arrays of whole numbers as JSON, fast enough that other requests do not wait for it."""

import numpy as np

_COMMA, _SPACE, _ZERO, _OPEN, _CLOSE = b", 0[]"
_TABLE = 1 << 12  # numbers that a table has the digits of


def _digits(numbers: np.ndarray, width: int) -> np.ndarray:
    """Returns the digits of whole numbers of at least 0, uint8 [..., width]: ASCII, with spaces before them."""
    digits = np.full((*numbers.shape, width), _SPACE, np.uint8)
    left = numbers
    for place in range(width - 1, -1, -1):
        digits[..., place] = np.where((left > 0) | (place == width - 1), left % 10 + _ZERO, _SPACE)
        left = left // 10
    return digits


def json_numbers(numbers: np.ndarray) -> bytes:
    """Returns whole numbers of at least 0, [n] or [rows, n], as a JSON list, or a list of lists.

    Each takes the same number of characters, with spaces before the shorter ones: so all of it is done by NumPy. json's
    encoder holds Python's lock for the whole of an array, for a large picture seconds in which nobody else is served.
    """
    if not numbers.size:
        return b"[]" if numbers.ndim == 1 else b"[" + b",".join([b"[]"] * len(numbers)) + b"]"
    rows = numbers.reshape(1, -1) if numbers.ndim == 1 else numbers
    largest = int(rows.max())
    width = len(str(largest))
    text = np.empty((len(rows), 2 + rows.shape[1] * (width + 1)), np.uint8)
    text[:, 0], text[:, 1], text[:, -1] = _COMMA, _OPEN, _COMMA
    cells = text[:, 2:].reshape(*rows.shape, width + 1)
    if largest < _TABLE:
        cells[..., :width] = _digits(np.arange(largest + 1), width)[rows]
    else:
        cells[..., :width] = _digits(rows, width)
    cells[..., width] = _COMMA
    text[:, -1] = _CLOSE
    content = text.tobytes()[1:]
    return content if numbers.ndim == 1 else b"[" + content + b"]"
