"""Pictures that a program has at hand, arrays and Pillow's, as a network reads them."""

import contextlib
import io
import struct
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageOps

from deeplab_tf.catalog.image_facts import RGB, ImageFacts
from deeplab_tf.errors import DeepLabError
from deeplab_tf.ops.network_pictures import Picture, read_photograph
from deeplab_tf.ops.value_range import scaled, shown_picture

ValueRange = tuple[float, float]  # the values of black and white

_BYTES: ValueRange = (0.0, 255.0)
_ONE: ValueRange = (0.0, 1.0)
# A photograph in 0..255 whose brightest value is lower is black to the eye; one in 0..1 that interpolation has
# overshot is not higher.
_DARKEST = 16.0
_OF_PNG = ("1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16")


def picture_of_pillow(image: PIL.Image.Image, facts: ImageFacts | None, *, name: str = "image") -> Picture:
    """Returns a picture of Pillow's as that of its file would be: upright, in RGB, without transparency.

    Args:
      image: of any mode.
      facts: what the model reads; None: 8-bit RGB.
      name: the picture's name in errors.

    Raises:
      DeepLabError: it is not what the model reads.
    """
    with contextlib.suppress(SyntaxError, ValueError, TypeError, KeyError, struct.error):  # only the EXIF is damaged
        image = PIL.ImageOps.exif_transpose(image)
    if image.mode == "F":
        grey = np.asarray(image)[..., None]
        return picture_of_array(np.repeat(grey, RGB, axis=-1), facts, bands=RGB, name=name)
    image = image if image.mode in _OF_PNG else image.convert("RGB")
    content = io.BytesIO()
    image.save(content, format="PNG", compress_level=0)
    return read_photograph(content.getvalue(), facts, name=name)


def _range_of(values: np.ndarray, name: str) -> ValueRange:
    """Returns the range that values are in, where they tell; DeepLabError where they may be in several."""
    low, high = float(values.min()), float(values.max())
    expected = "give value_range=(black, white), for instance (0, 1) or (0, 255)"
    if not np.isfinite((low, high)).all():
        raise DeepLabError(f"{name}: holds values that are not finite numbers; expected 0..1 or 0..255")
    if low < 0 or high > 255:
        raise DeepLabError(f"{name}: holds values from {low:g} to {high:g}; expected 0..1 or 0..255, or {expected}")
    if values.dtype.kind in "iu":
        return _BYTES
    if high <= 1:
        return _ONE
    if high < _DARKEST:
        raise DeepLabError(f"{name}: floats from {low:g} to {high:g} may be of 0..1 or of 0..255; {expected}")
    return _BYTES


def _in_bytes(values: np.ndarray, value_range: ValueRange | None, name: str) -> np.ndarray:
    """Returns values in 0..255: uint8 where they are whole, as those of a file are, else float32."""
    if values.dtype == np.uint8 and value_range in (None, _BYTES):
        return values
    black, white = _range_of(values, name) if value_range is None else value_range
    if not (np.isfinite((black, white)).all() and black < white):
        raise DeepLabError(f"value_range=({black:g}, {white:g}): expected two numbers, black below white")
    if not (values.min() >= black and values.max() <= white):  # numbers that are none are in no range
        found = f"{float(values.min()):g} to {float(values.max()):g}"
        raise DeepLabError(f"{name}: holds values from {found}, beyond value_range=({black:g}, {white:g}); clip them")
    result = (values.astype(np.float64) - black) * (255.0 / (white - black))
    whole = np.rint(result)
    return whole.astype(np.uint8) if np.abs(result - whole).max() < 1e-3 else result.astype(np.float32)


def _check_shape(array: np.ndarray, bands: int, name: str) -> None:
    if array.dtype.kind not in "iuf":
        raise DeepLabError(f"{name}: an array of {array.dtype}; expected uint8 or floats")
    if array.ndim == 3 and array.shape[-1] == bands and array.size:
        return
    cure = ""
    if array.ndim == 3 and array.shape[0] == bands:
        cure = "; move the channels to the end: np.moveaxis(image, 0, -1)"
    elif array.ndim == 3 and array.shape[-1] == 4 and bands == RGB:
        cure = "; leave transparency out: image[..., :3]"
    elif array.ndim == 3 and array.shape[-1] == 1 and bands == RGB:
        cure = "; repeat grey three times: np.repeat(image, 3, -1)"
    elif array.ndim == 2 and bands == RGB:
        cure = "; repeat grey three times: np.stack([image] * 3, -1)"
    raise DeepLabError(f"{name}: an array of shape {array.shape}; expected [h, w, {bands}] or [b, h, w, {bands}]{cure}")


def picture_of_array(
    array: Any,
    facts: ImageFacts | None,
    *,
    bands: int = RGB,
    value_range: ValueRange | None = None,
    name: str = "image",
) -> Picture:
    """Returns an array as the picture that a network reads.

    Args:
      array: [h, w, bands] of integers in 0..255, or of floats. Floats up to 1 are taken for 0..1, those that reach 16
        or more for 0..255; what lies between may be either, and is refused without a `value_range`.
      facts: what the model reads; its arrays hold the values as photographs store them. None: RGB.
      bands: the number of channels that the model reads.
      value_range: the values of black and white, where they are others, for instance (-1, 1) or (0, 65535).
      name: the picture's name in errors.

    Raises:
      DeepLabError: another shape or dtype, or values that are not in one range.
    """
    array = np.asarray(array)
    _check_shape(array, bands, name)
    if facts is not None and value_range is None and not facts.is_byte:
        values = scaled(facts, array)
        return Picture(values, shown_picture(facts, values))
    values = _in_bytes(array, value_range, name)
    shown = list(facts.shown) if facts else [min(band, bands - 1) for band in range(RGB)]
    return Picture(values, np.clip(np.rint(values[..., shown]), 0, 255).astype(np.uint8))


def batch_range(array: np.ndarray) -> ValueRange | None:
    """Returns the range of a batch of arrays, which its brightest picture tells; None for uint8.

    Raises:
      DeepLabError: as `picture_of_array`.
    """
    if array.dtype == np.uint8 or array.dtype.kind not in "iuf":
        return None
    return _range_of(array, "the batch")
