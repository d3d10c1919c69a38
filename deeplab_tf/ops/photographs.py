"""Photograph, what a file stores of a photograph of any depth and number of bands, before a network reads it.

What a network reads of it is in ops/network_pictures.py. This module and those that open photographs do not import
TensorFlow, so that worker processes start fast.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import PIL.Image

from deeplab_tf.catalog.image_facts import RGB, describe_pixels

# What is told of photographs that are not taken as they are.
FRAMES = "the first frame or page of several is used"
ALPHA = "the transparency is left out"


@dataclasses.dataclass(frozen=True)
class Reading:
    """What is known before a photograph is opened.

    Attributes:
      channels: bands that it must have; 4 keeps the alpha of a picture as a band. None: not known.
      size: its height and width, by which the bands of a .npy are found; None: not known.
      max_pixels: a larger one is refused; None: Pillow's limit.
    """

    channels: int | None = None
    size: tuple[int, int] | None = None
    max_pixels: int | None = None


ANY = Reading()


@dataclasses.dataclass(frozen=True, eq=False)
class Photograph:
    """What a file stores.

    Attributes:
      size: height and width as stored, before any turning.
      channels: bands; 3 for every picture of 8 bits, a grey one too, unless 4 were asked for.
      dtype: uint8, uint16 or float32.
      orientation: EXIF's, 1 to 8; 1: upright.
      plain: whether a record can hold the bytes of the file: a JPEG, or a PNG of 8 or 16 bits.
      notes: FRAMES, ALPHA.
      pixels: returns [h, w, channels] as stored; a picture of 16 bits or floats with one band has one.
      image: Pillow's, where it reads the file as 8 bits.
    """

    size: tuple[int, int]
    channels: int
    dtype: str
    orientation: int
    plain: bool
    notes: tuple[str, ...]
    pixels: Callable[[], np.ndarray]
    image: PIL.Image.Image | None = None

    @property
    def upright_size(self) -> tuple[int, int]:
        """Height and width after the turning that the EXIF data ask for."""
        height, width = self.size
        return (width, height) if self.orientation > 4 else (height, width)

    @property
    def is_rgb(self) -> bool:
        """Whether it is an ordinary picture of 8 bits."""
        return self.dtype == "uint8" and self.channels == RGB

    def describe(self) -> str:
        """Returns bands and dtype: "5 bands of uint16"."""
        return describe_pixels(self.channels, self.dtype)


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Returns pixels [h, w, ...] turned as an EXIF orientation says (CIPA DC-008, section 4.6.4, tag 274)."""
    if orientation > 4:
        pixels = pixels.swapaxes(0, 1)
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return pixels[::rows, ::columns]


def widened(pixels: np.ndarray, channels: int) -> np.ndarray:
    """Returns pixels [h, w, c]; those of a single band as three equal ones where `channels` are three."""
    return np.repeat(pixels, RGB, axis=-1) if pixels.shape[-1] == 1 and channels == RGB else pixels
