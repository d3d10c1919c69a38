"""The search for near-duplicates among pictures by their thumbnails.

It finds a picture again in another size, format, quality or brightness.
"""

from collections.abc import Iterator

import numpy as np
import PIL.Image

_SIDE = 16
_LEAST_CONTRAST = 4.0  # grey levels; two pictures with less cannot be told apart
_ROWS = 2048  # pictures that are compared at a time


def thumbnail(image: PIL.Image.Image) -> np.ndarray:
    """Returns the grey thumbnail without its brightness and contrast, float32 [256]; zeros for a plain picture."""
    grey = np.asarray(image.convert("L").resize((_SIDE, _SIDE), PIL.Image.Resampling.BILINEAR), np.float32).ravel()
    grey -= grey.mean()
    length = float(np.linalg.norm(grey))
    return grey / length if length > _LEAST_CONTRAST * _SIDE else np.zeros_like(grey)


def alike(first: np.ndarray, second: np.ndarray, *, least: float) -> Iterator[tuple[int, int, float]]:
    """Yields (i, j, likeness) of thumbnails first[i] and second[j] (float32 [n, 256]) that are at least `least` alike.

    The likeness is the correlation, at most 1, of the pictures or of one and the other mirrored. Each i comes at most
    once, with the j most like it.
    """
    mirrored = second.reshape(-1, _SIDE, _SIDE)[:, :, ::-1].reshape(second.shape)
    for start in range(0, len(first), _ROWS):
        rows = first[start : start + _ROWS]
        likeness = np.maximum(rows @ second.T, rows @ mirrored.T)
        for i, j in enumerate(likeness.argmax(axis=1)):
            if likeness[i, j] >= least:
                yield start + i, int(j), float(likeness[i, j])
