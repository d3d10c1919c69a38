"""Stored values of photographs to the 0..255 that networks see, and back, by the range of a data set's ImageFacts."""

import numpy as np

from deeplab_tf.catalog.image_facts import ImageFacts


def limits(image: ImageFacts) -> tuple[np.ndarray, np.ndarray]:
    """Returns the low end of each band's range, and the distance from there to the high end: float32 [channels]."""
    pairs = np.array(image.range if len(image.range) > 1 else image.range * image.channels, np.float64)
    return pairs[:, 0].astype(np.float32), (pairs[:, 1] - pairs[:, 0]).astype(np.float32)


def scaled(image: ImageFacts, pixels: np.ndarray) -> np.ndarray:
    """Returns stored values [..., channels] as float32 in 0..255.

    (v - low) / (high - low) * 255, clipped; a value that is not a number becomes 0.
    """
    values = np.asarray(pixels, np.float32)
    if image.is_byte:
        return values
    low, distance = limits(image)
    with np.errstate(all="ignore"):
        result = (values - low) / distance * np.float32(255)
    return np.clip(np.nan_to_num(result, nan=0.0, posinf=255.0, neginf=0.0), 0, 255)


def stored(image: ImageFacts, values: np.ndarray) -> np.ndarray:
    """Returns the stored values, float32, of which `scaled` makes `values` [..., channels] of 0..255."""
    low, distance = limits(image)
    values = np.asarray(values, np.float32)
    return values if image.is_byte else values / np.float32(255) * distance + low


def has_contrast(pixels: np.ndarray) -> bool:
    """Returns whether a band of [h, w, bands] has more than one value; values that are not numbers do not count."""
    flat = pixels.reshape(-1, pixels.shape[-1])
    if flat.dtype.kind == "f" and not np.isfinite(flat).any():
        return False
    return bool((flat.min(axis=0) != flat.max(axis=0)).any())


def shown_picture(image: ImageFacts, values: np.ndarray) -> np.ndarray:
    """Returns the picture to look at, uint8 [..., 3], of values [..., channels] in 0..255."""
    return np.clip(np.rint(values[..., list(image.shown)]), 0, 255).astype(np.uint8)
