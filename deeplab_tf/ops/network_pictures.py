"""Pictures as a network reads them: from image files and bytes, in the value range that the model was trained with."""

import dataclasses
import os

import numpy as np
import PIL.Image

from deeplab_tf.catalog.image_facts import RGB, ImageFacts, describe_pixels
from deeplab_tf.errors import DeepLabError, first_line
from deeplab_tf.ops import deep_png
from deeplab_tf.ops.images import PILLOW_ERRORS, image_content, opened_image, read_image
from deeplab_tf.ops.photograph_files import NPY, TIFF, open_photograph
from deeplab_tf.ops.photographs import FRAMES, Reading, upright, widened
from deeplab_tf.ops.value_range import has_contrast, scaled, shown_picture


@dataclasses.dataclass(frozen=True)
class Picture:
    """A photograph as a network reads it.

    Attributes:
      pixels: [h, w, channels] in 0..255: uint8 for 8-bit RGB, else float32.
      shown: the same to look at, uint8 [h, w, 3].
      notes: a line for each thing that the user should know.
    """

    pixels: np.ndarray
    shown: np.ndarray
    notes: tuple[str, ...] = ()


def read_stored(
    source: str | os.PathLike[str] | bytes,
    image: ImageFacts | None,
    *,
    name: str | None = None,
    max_pixels: int | None = None,
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Returns the values that a photograph stores, upright, [h, w, bands], and what the user should know of it.

    Args:
      source: a file, or its bytes.
      image: what the model reads; None: 8-bit RGB, which pictures of more bits become with 255 for 65535.
      name: the photograph's name in errors; by default the path.
      max_pixels: a larger one is refused.

    Raises:
      DeepLabError: the file is missing, damaged or too large; or its bands or its dtype are not those of the model.
    """
    name = name or (str(source) if not isinstance(source, bytes) else "image")
    content = image_content(source, name)
    if image is None and not content.startswith((NPY, *TIFF)):
        return _read_rgb(content, name, max_pixels)
    try:
        reading = Reading(None if image is None else image.channels, None, max_pixels)
        photograph = open_photograph(content, reading)
        from_pillow = photograph.image is not None or photograph.channels == 1
        if image is None and photograph.dtype != "uint8" and from_pillow and not content.startswith(NPY):
            return _read_rgb(content, name, max_pixels)
        wanted = (RGB, "uint8") if image is None else (image.channels, image.dtype)
        found = (RGB if photograph.channels == 1 and wanted[0] == RGB else photograph.channels, photograph.dtype)
        if found != wanted:
            expected = describe_pixels(*wanted) if image is None else image.describe()
            raise DeepLabError(
                f"{photograph.describe()}; the model reads {expected}: give photographs as those it was trained on"
            )
        pixels = widened(upright(photograph.pixels(), photograph.orientation), wanted[0])
    except DeepLabError as error:
        raise DeepLabError(f"{name}: {error}") from None
    except PIL.UnidentifiedImageError:
        start = content[:8]
        raise DeepLabError(f"{name}: not an image (begins with {start!r}); expected JPEG, PNG or the like") from None
    except PILLOW_ERRORS as error:
        raise DeepLabError(
            f"{name}: damaged or truncated image ({first_line(error)}); fetch or save it again"
        ) from None
    return np.ascontiguousarray(pixels), photograph.notes


def _read_rgb(content: bytes, name: str, max_pixels: int | None) -> tuple[np.ndarray, tuple[str, ...]]:
    """Returns a picture as `read_image` does, and what the user should know of it."""
    pixels = read_image(content, name=name, max_pixels=max_pixels)
    notes: list[str] = []
    with opened_image(content, max_pixels) as image:
        deep = image.mode.startswith(("I", "F")) or deep_png.bit_depth(content) == 16
        if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
            notes.append(FRAMES)
    if deep:
        notes.append(
            f"more than 8 bits a sample for a model of 8-bit photographs, which has no value range: 65535 was taken "
            f"for white, and the picture has {pixels.min()} to {pixels.max()} of 255; save it with 8 bits, or train on "
            "such photographs"
        )
    return pixels, tuple(notes)


def read_photograph(
    source: str | os.PathLike[str] | bytes,
    image: ImageFacts | None,
    *,
    name: str | None = None,
    max_pixels: int | None = None,
) -> Picture:
    """Returns a photograph as a network reads it, upright. The arguments and errors are those of `read_stored`."""
    pixels, notes = read_stored(source, image, name=name, max_pixels=max_pixels)
    if image is None:
        return Picture(pixels, pixels, notes)
    values = scaled(image, pixels)
    return Picture(values, shown_picture(image, values), (*notes, *contrast_notes(image, pixels, values)))


def contrast_notes(image: ImageFacts, pixels: np.ndarray, values: np.ndarray) -> tuple[str, ...]:
    """Returns what the user should know of a photograph in which a network sees nothing, if that is so.

    Args:
      image: what the model reads.
      pixels: the stored values, [h, w, bands].
      values: the same in 0..255, as the network reads them.
    """
    if has_contrast(values):
        return ()
    low, high = image.range[0]
    return (
        f"without contrast in the model's value range {low:g} to {high:g}: its values are {np.nanmin(pixels):g} to "
        f"{np.nanmax(pixels):g}, and its classes mean nothing",
    )
