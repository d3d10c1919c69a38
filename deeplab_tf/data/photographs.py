"""Photograph files as records hold them.

JPEG and PNG of 8 bits stay as they are encoded. Everything else is stored without loss: as PNG of 8 or 16 bits, or as
the bytes of a .npy. This module does not import TensorFlow, so that worker processes start fast.
"""

import dataclasses
import io
from typing import Literal

import numpy as np
import PIL.Image

from deeplab_tf.catalog.image_facts import RGB, ImageFacts, describe_pixels
from deeplab_tf.data.encoded_files import read_file, undecoded
from deeplab_tf.data.faults import FileError
from deeplab_tf.errors import DeepLabError
from deeplab_tf.ops import deep_png
from deeplab_tf.ops.images import PILLOW_ERRORS, png_bytes
from deeplab_tf.ops.photograph_files import open_photograph
from deeplab_tf.ops.photographs import Photograph, Reading, upright, widened
from deeplab_tf.ops.value_range import has_contrast, scaled

Exif = Literal["auto", "apply", "ignore"]

# What is told of photographs that are not stored as they are.
TURNED = "turned upright, as their EXIF data say and as predict does"
UNTURNED = "not turned upright, because of --exif=ignore; predict turns such pictures"
FLAT = "without contrast within the value range; see --value_range"

_GREY = (128, 128, 128)  # what a JPEG decoder puts in place of what is missing
_CUT = 16  # bytes of a JPEG whose loss shows where its data end
# The kinds of faults.
CUT_OFF = "cut off"
NO_CONTRAST = "without contrast"
UNCLEAR_TURN = "EXIF orientation"
OTHER_BANDS = "other bands than the set's"
_OTHER = "photographs that cannot be stored"
_SMALL = 64  # pixels; a picture of fewer may well have one colour


@dataclasses.dataclass(frozen=True)
class PhotographOptions:
    """What the user says of the photographs.

    Attributes:
      value_range: low and high of the stored values, for all bands, or for each band in turn; (): found in the set.
      bands: the names of the bands; (): none. Their number decides whether the alpha of a picture is a band.
      shown: the bands that pictures show as red, green and blue; (): the first three.
      exif: whether pictures are turned as their EXIF orientation says; auto: where the label shows that they are meant
        so, and a fault where it does not show it.
      max_pixels: larger pictures are faults; None: Pillow's limit.
    """

    value_range: tuple[float, ...] = ()
    bands: tuple[str, ...] = ()
    shown: tuple[int, ...] = ()
    exif: Exif = "auto"
    max_pixels: int | None = None

    def rules(self, image: ImageFacts | None) -> "PhotographRules":
        """Returns the rules for the photographs of a set whose facts are `image`."""
        return PhotographRules(image, self.exif, self.max_pixels)


@dataclasses.dataclass(frozen=True)
class PhotographRules:
    """What every photograph of a data set must be, and how it is read.

    Attributes:
      image: the facts of the set; None: 8-bit RGB.
      exif: as in PhotographOptions.
      max_pixels: as in PhotographOptions.
    """

    image: ImageFacts | None = None
    exif: Exif = "auto"
    max_pixels: int | None = None

    @property
    def channels(self) -> int:
        """The bands of a photograph as it is read."""
        return self.image.channels if self.image else RGB

    def reading(self, size: tuple[int, int] | None) -> Reading:
        """Returns what is known of a photograph whose label has `size`."""
        return Reading(self.image and self.image.channels, size, self.max_pixels)


PLAIN = PhotographRules()


@dataclasses.dataclass(frozen=True)
class StoredPhotograph:
    """A photograph as a record holds it.

    Attributes:
      content: its bytes.
      height: of what is stored.
      width: of what is stored.
      notes: what is told of it (see `Packed.notes`).
      plain: whether `content` is what was given.
      picture: Pillow's, decoded and not turned, of an ordinary picture of 8 bits; None: of what Pillow does not read.
    """

    content: bytes
    height: int
    width: int
    notes: tuple[str, ...]
    plain: bool
    picture: PIL.Image.Image | None


def stored_photograph(file: str, label_size: tuple[int, int] | None, rules: PhotographRules) -> StoredPhotograph:
    """Returns a photograph as a record holds it.

    Args:
      file: its path.
      label_size: height and width of its label, by which its orientation is told; None: it has none.
      rules: of the data set.

    Raises:
      DeepLabError: it is missing, damaged, cut off, without contrast, too large or of another kind than the set's, or
        it is not known whether it must be turned.
    """
    content = read_file(file, "image")
    try:
        return stored_content(content, label_size, rules)
    except FileError as error:
        raise FileError(f"{file}: {error}", error.kind) from None


def stored_content(content: bytes, label_size: tuple[int, int] | None, rules: PhotographRules) -> StoredPhotograph:
    """Returns the photograph of encoded `content` as a record holds it; arguments and errors as `stored_photograph`.

    The errors are FileErrors that do not name the file.
    """
    try:
        photograph = open_photograph(content, rules.reading(label_size))
        turn = photograph.orientation != 1 and _turns(photograph, label_size, rules.exif)
        notes = list(photograph.notes)
        if photograph.orientation != 1:
            notes.append(TURNED if turn else UNTURNED)
        height, width = photograph.upright_size if turn else photograph.size
        if rules.image is None:
            encoded = _stored_rgb(content, photograph, turn)
        else:
            encoded, more = _stored_bands(content, photograph, turn, rules.image)
            notes += more
    except DeepLabError as error:
        raise FileError(str(error), getattr(error, "kind", _OTHER)) from None
    except PILLOW_ERRORS as error:
        raise FileError(f"no image that can be decoded ({undecoded(error, content)})", "damaged image") from None
    picture = photograph.image if photograph.is_rgb else None
    return StoredPhotograph(encoded, height, width, tuple(notes), encoded is content, picture)


def without_turn(content: bytes) -> bytes:
    """Returns an encoded photograph such that nobody turns it: one with an EXIF orientation as a PNG of what it stores.

    What cannot be decoded is returned as it is.
    """
    try:
        photograph = open_photograph(content)
        return content if photograph.orientation == 1 else png_bytes(photograph.pixels())
    except (DeepLabError, *PILLOW_ERRORS):
        return content


def _turns(photograph: Photograph, label_size: tuple[int, int] | None, exif: Exif) -> bool:
    """Returns whether a picture with an EXIF orientation is turned. DeepLabError where that cannot be told."""
    if exif != "auto" or label_size is None:
        return exif != "ignore"
    orientation = photograph.orientation
    sides = photograph.size
    if orientation <= 4 or sides[0] == sides[1]:
        raise FileError(
            f"EXIF orientation {orientation} turns it, and its label fits it turned or not; give --exif=apply if the "
            "labels were drawn on the upright pictures, as most programs show them, or --exif=ignore if they were not",
            UNCLEAR_TURN,
        )
    if label_size == sides:
        raise FileError(
            f"EXIF orientation {orientation} turns it to {sides[1]} x {sides[0]}, and its label has {sides[0]} x "
            f"{sides[1]}, as before turning; turn the label, or give --exif=ignore to store both as they are",
            UNCLEAR_TURN,
        )
    return True


# ---- 8-bit RGB


def _stored_rgb(content: bytes, photograph: Photograph, turn: bool) -> bytes:
    if not photograph.is_rgb:
        raise FileError(
            f"{photograph.describe()}; expected {describe_pixels(RGB, 'uint8')}, as the others of the set", OTHER_BANDS
        )
    image = photograph.image
    if image is not None:
        image.load()
        # One row tells of nearly all photographs that they are whole and have contrast.
        last = _extrema(image.crop((0, image.height - 1, image.width, image.height)))
        if all(low == high for low, high in last):
            _require_whole(content, image, last)
            extrema = _extrema(image)
            if all(low == high for low, high in extrema) and image.width * image.height > _SMALL:
                raise _without_contrast(extrema[0][0])
        if photograph.plain and not turn:
            return content
    pixels = photograph.pixels()
    if image is None:
        _require_contrast(pixels)
    return png_bytes(np.ascontiguousarray(upright(pixels, photograph.orientation) if turn else pixels))


def _extrema(image: PIL.Image.Image) -> tuple[tuple[float, float], ...]:
    """Returns the least and the largest value of each channel."""
    extrema: tuple = image.getextrema()
    return extrema if isinstance(extrema[0], tuple) else (extrema,)


def _without_contrast(value: object) -> FileError:
    text = f"without contrast: every pixel is {value}; leave it out, or save the photograph again"
    return FileError(text, NO_CONTRAST)


def _require_contrast(pixels: np.ndarray) -> None:
    """Raises DeepLabError where each band of [h, w, bands] has one value."""
    if pixels.shape[0] * pixels.shape[1] > _SMALL and not has_contrast(pixels):
        raise _without_contrast(pixels[0, 0, 0])


def _require_whole(content: bytes, image: PIL.Image.Image, last: tuple[tuple[float, float], ...]) -> None:
    """Raises DeepLabError where a JPEG or a PNG announces more rows than it holds, which Pillow fills in silence.

    last: least and largest value of each channel in the last row.
    """
    short = False
    if image.format in ("JPEG", "MPO"):
        short = image.getpixel((0, image.height - 1)) in (_GREY, _GREY[0]) and _ends_before(content, image)
    elif image.format == "PNG":
        short = not any(high for _, high in last) and deep_png.is_short(content)
    if short:
        raise FileError(
            f"cut off: it announces {image.height} rows and does not hold them all; fetch or save it again", CUT_OFF
        )


def _ends_before(content: bytes, image: PIL.Image.Image) -> bool:
    """Returns whether the data of a JPEG end above the grey rows at its bottom.

    Where they do, the last bytes belong to the pixels just above the grey: without them these change.
    """
    pixels = np.asarray(image.convert("RGB"))
    grey = (pixels == _GREY).all(axis=(1, 2))
    first = len(grey) - int(np.argmin(grey[::-1])) if not grey.all() else 0
    end = content.rfind(b"\xff\xd9")
    shorter = content[: max(0, end - _CUT)] + b"\xff\xd9"
    try:
        with PIL.Image.open(io.BytesIO(shorter), formats=("JPEG",)) as cut:
            changed = (np.asarray(cut.convert("RGB")) != pixels).any(axis=(1, 2))
    except PILLOW_ERRORS:
        return False
    return not changed.any() or int(np.argmax(changed)) < first


# ---- more bits, more bands


def _stored_bands(
    content: bytes, photograph: Photograph, turn: bool, image: ImageFacts
) -> tuple[bytes, tuple[str, ...]]:
    """Returns the bytes to store of a photograph of a set that is not 8-bit RGB, and what is told of it."""
    if kind_of(photograph) != (image.channels, image.dtype):
        raise FileError(f"{photograph.describe()}; expected {image.describe()}, as the others of the set", OTHER_BANDS)
    pixels = photograph.pixels()
    _require_contrast(pixels)
    notes = () if has_contrast(scaled(image, widened(pixels, image.channels))) else (FLAT,)
    if photograph.plain and not turn and image.is_png:
        return content, notes
    pixels = np.ascontiguousarray(upright(pixels, photograph.orientation) if turn else pixels)
    if image.is_png and image.dtype == "uint16":
        return deep_png.encode_deep_png(pixels), notes
    if image.is_png:
        return png_bytes(pixels), notes
    return npy_bytes(pixels), notes


def npy_bytes(pixels: np.ndarray) -> bytes:
    """Returns an array as the bytes of a .npy of version 1.0, in C order and little-endian."""
    stream = io.BytesIO()
    array = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<"))
    np.lib.format.write_array(stream, array, version=(1, 0), allow_pickle=False)
    return stream.getvalue()


def kind_of(photograph: Photograph) -> tuple[int, str]:
    """Returns channels and dtype of a photograph as a network reads it: a single band as three equal ones."""
    return (RGB if photograph.channels == 1 else photograph.channels), photograph.dtype
