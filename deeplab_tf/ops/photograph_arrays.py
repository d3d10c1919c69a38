"""Photographs as arrays of bands, those of .npy files among them."""

import io
import tokenize

import numpy as np

from deeplab_tf.catalog.image_facts import RGB
from deeplab_tf.errors import DeepLabError
from deeplab_tf.ops.images import LARGEST_IMAGE, PILLOW_ERRORS, too_large
from deeplab_tf.ops.photographs import Photograph, Reading

# What NumPy raises for a damaged .npy, whose header is Python's text.
NPY_ERRORS = (*PILLOW_ERRORS, MemoryError, tokenize.TokenError)


def require_pixels(shape: tuple[int, ...], reading: Reading) -> None:
    """Raises DeepLabError where the two longest sides of an array hold more pixels than are read."""
    limit = LARGEST_IMAGE if reading.max_pixels is None else reading.max_pixels
    sides = sorted(shape)[-2:]
    if len(sides) == 2 and sides[0] * sides[1] > limit:
        raise too_large(sides[0] * sides[1], limit)


def open_array(content: bytes, reading: Reading) -> Photograph:
    """Returns what the bytes of a .npy store; see `photograph_files.open_photograph`."""
    try:
        array = np.load(io.BytesIO(content), allow_pickle=False)
    except NPY_ERRORS as error:
        raise DeepLabError(f"a .npy that cannot be read ({error})") from None
    if array.ndim not in (2, 3) or not array.size:
        raise DeepLabError(f"an array of shape {list(array.shape)}; expected [height, width, bands]")
    require_pixels(array.shape, reading)
    return of_array(array[..., None] if array.ndim == 2 else bands_last(array, reading), 1, [])


def bands_last(array: np.ndarray, reading: Reading) -> np.ndarray:
    """Returns [h, w, bands] of an array in that order or with the bands first.

    The size of the label tells, or the number of bands; where neither is known, bands are fewer than rows and columns.
    """
    first, middle, last = array.shape
    fits_last, fits_first = True, True
    if reading.size is not None:
        fits_last, fits_first = (first, middle) == reading.size, (middle, last) == reading.size
    if fits_last == fits_first and reading.channels is not None:
        wanted = (1, RGB) if reading.channels == RGB else (reading.channels,)
        fits_last, fits_first = last in wanted, first in wanted
    if fits_last == fits_first and reading.size is None and reading.channels is None:
        fits_last, fits_first = last < min(first, middle), first < min(middle, last)
    if fits_last == fits_first:
        hint = f"; the label has {reading.size[0]} x {reading.size[1]}" if reading.size else ""
        raise DeepLabError(
            f"an array of shape {list(array.shape)}, whose bands cannot be told from rows and columns{hint}; save it "
            "as [height, width, bands]"
        )
    return array if fits_last else np.moveaxis(array, 0, -1)


def of_array(array: np.ndarray, orientation: int, notes: list[str]) -> Photograph:
    """Returns the photograph of an array [h, w, bands], in the first of the three dtypes that holds its own."""
    if array.ndim != 3 or not array.size:  # a damaged TIFF may say that its page has no rows
        raise DeepLabError(f"pixels of shape {list(array.shape)}; expected [height, width, bands]")
    kind, bits = array.dtype.kind, 8 * array.dtype.itemsize
    if kind not in "biuf":
        raise DeepLabError(f"values of {array.dtype}; expected uint8, uint16 or float32")
    dtype = "float32"
    if kind == "b" or (kind == "u" and bits <= 16):
        dtype = "uint16" if bits == 16 else "uint8"
    array = exact(array, dtype)
    channels = array.shape[-1]
    if dtype == "uint8" and channels == 1:  # as every other grey picture of 8 bits
        array = np.repeat(array, RGB, axis=-1)
    size = (array.shape[0], array.shape[1])
    return Photograph(size, array.shape[-1], dtype, orientation, False, tuple(notes), lambda: array)


def exact(values: np.ndarray, dtype: str) -> np.ndarray:
    """Returns `values` in another dtype, without loss. DeepLabError where that is not possible."""
    with np.errstate(all="ignore"):
        converted = values.astype(dtype)
        same = np.array_equal(converted.astype(values.dtype), values, equal_nan=values.dtype.kind == "f")
    if not same:
        raise DeepLabError(f"values of {values.dtype} that {dtype} cannot hold exactly; save it as {dtype}")
    return converted
