"""The samples of a label file as the file stores them, where Pillow and TensorFlow scale, round or convert them.

This module does not import TensorFlow, so that worker processes start fast.
"""

import dataclasses
import io
import re

import numpy as np
import PIL.Image

from deeplab_tf.catalog.palettes import Colour
from deeplab_tf.data.encoded_files import undecoded
from deeplab_tf.data.faults import FileError
from deeplab_tf.ops.images import FORMATS, PILLOW_ERRORS
from deeplab_tf.ops.png_samples import png_kind, read_png16

_GREY_MODES = ("1", "L", "LA", "I", "I;16", "I;16L", "I;16B", "I;16N", "F")
_PALETTE_MODES = ("P", "PA")
_COLOUR_MODES = ("RGB", "RGBA")
_BITS_PER_SAMPLE, _COMPRESSION, _PHOTOMETRIC = (258, 259, 262)  # tags of TIFF 6.0
_TIFF_JPEG = ("tiff_jpeg", "jpeg", "webp")  # Pillow's names of lossy compressions
_PNM_HEADER = re.compile(rb"P([1-6])" + rb"(?:\s|#[^\n]*\n)+(\d+)" * 3)


@dataclasses.dataclass(frozen=True)
class Samples:
    """What a label file stores.

    Attributes:
      values: integers [h, w], grey levels or indices of the palette; or [h, w, 3], colours.
      palette: the colours of a palette, or None.
      encoding: the kind of file in words, such as "2-bit grey PNG".
      bits: those of one sample.
      plain: whether the file is an 8-bit grey PNG, which records can hold as it is.
    """

    values: np.ndarray
    palette: tuple[Colour, ...] | None
    encoding: str
    bits: int = 8
    plain: bool = False


def read_samples(file: str, content: bytes) -> Samples:
    """Returns the samples of a label file.

    Args:
      file: its name in messages.
      content: its bytes.

    Raises:
      FileError: the file is damaged; or its values are not those that were drawn (JPEG and other lossy formats, colours
        of 5 bits, several pictures in one, fractions); or one colour is there with several transparencies.
    """
    try:
        with PIL.Image.open(io.BytesIO(content), formats=FORMATS) as image:
            kind = png_kind(content) if image.format == "PNG" else None
            if problem := _inexact(image, content):
                raise FileError(f"{file}: {problem}", "inexact label")
            if kind == (8, 0):
                return Samples(np.asarray(image), None, "8-bit grey PNG", plain=True)
            if kind and kind[0] == 16 and kind[1] != 0:
                values = read_png16(content)
                bits = 16
            else:
                values, bits = _pillow_samples(image, kind)
            mode = image.mode
            flat = image.getpalette("RGB") if mode in _PALETTE_MODES else None
            file_format = image.format
    except FileError:
        raise
    except PILLOW_ERRORS as error:
        raise FileError(
            f"{file}: no label that can be decoded ({undecoded(error, content)})", "damaged label"
        ) from None
    if values.dtype.kind == "f":
        values = _whole_numbers(file, values)
    if values.ndim == 3:
        values = _without_alpha(file, values)
    if values.ndim == 3 and values.dtype != np.uint8:
        values = _eight_bits(file, values)
    palette = tuple(zip(flat[::3], flat[1::3], flat[2::3], strict=True)) if flat is not None else None
    name = "palette" if palette is not None else "RGB" if values.ndim == 3 else f"{bits}-bit grey"
    return Samples(values, palette, f"{name} {file_format}", bits)


def _inexact(image: PIL.Image.Image, content: bytes) -> str | None:
    """Returns why the values of an opened picture may not be those that were drawn, or None."""
    cure = "export the labels as PNG"
    if image.format in ("JPEG", "MPO"):
        return f"a JPEG label, whose values are no longer exact; {cure}"
    if image.format == "JPEG2000" or (image.format == "WEBP" and b"VP8L" not in content[12:4096]):
        return f"a {image.format} label, whose values may no longer be exact; {cure}"
    if image.mode not in _GREY_MODES + _PALETTE_MODES + _COLOUR_MODES:
        return f"a label of mode {image.mode}, which is converted on its way; {cure}"
    if image.format in ("TIFF", "GIF", "WEBP") and getattr(image, "n_frames", 1) > 1:
        return f"a {image.format} of {getattr(image, 'n_frames', 1)} pictures; expected a single label"
    if image.format == "TIFF":
        return _inexact_tiff(image, cure)
    if image.format == "BMP" and int.from_bytes(content[28:30], "little") == 16:
        return f"a BMP of 16 bits a pixel, whose colours are rounded; {cure}"
    if image.format == "PPM":
        header = _PNM_HEADER.match(content)
        if not header or header[1] in b"14" or int(header[4]) != 255:
            return f"a portable anymap of other levels than 0 to 255, which are scaled; {cure}"
    return None


def _inexact_tiff(image: PIL.Image.Image, cure: str) -> str | None:
    tags = getattr(image, "tag_v2", {})
    if tags.get(_PHOTOMETRIC) == 0:
        return f"a TIFF that stores white as 0, so that its values are ambiguous; {cure}"
    if image.info.get("compression") in _TIFF_JPEG:
        return f"a TIFF with JPEG compression, whose values are no longer exact; {cure}"
    if image.mode in (*_COLOUR_MODES, "LA") and max(tags.get(_BITS_PER_SAMPLE, (8,))) != 8:
        return f"a TIFF with colours of {max(tags[_BITS_PER_SAMPLE])} bits, which are rounded; {cure}"
    return None


def _pillow_samples(image: PIL.Image.Image, kind: tuple[int, int] | None) -> tuple[np.ndarray, int]:
    """Returns the samples of a picture that Pillow has opened, and their bits; `kind` is that of a PNG."""
    values = np.asarray(image)
    if image.mode == "1":
        return values.astype(np.uint8), 1
    if image.mode == "L":
        # Pillow scales 2 and 4 bits to 0..255.
        bits = kind[0] if kind else _tiff_bits(image)
        return (values // (255 // (2**bits - 1)) if bits < 8 else values), bits
    return values, values.dtype.itemsize * 8


def _tiff_bits(image: PIL.Image.Image) -> int:
    return max(getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (8,)))


def _whole_numbers(file: str, values: np.ndarray) -> np.ndarray:
    """Returns a floating-point label as integers; a fraction, NaN or infinity is a FileError."""
    whole = np.isfinite(values) & (values == np.floor(values)) & (np.abs(values) < 2**31)
    if not whole.all():
        strange = values[~whole].flat[0]
        raise FileError(f"{file}: label {strange:g}; expected whole numbers (a map of probabilities?)", "fractions")
    return values.astype(np.int64)


def _without_alpha(file: str, values: np.ndarray) -> np.ndarray:
    """Returns the values without their transparency, which must be one and the same for each colour."""
    if values.shape[2] in (1, 3):
        return values[..., 0] if values.shape[2] == 1 else values
    alpha = values[..., -1].astype(np.int64)
    colours = values[..., 0] if values.shape[2] == 2 else values[..., :3]
    if alpha.size and alpha.min() != alpha.max():
        codes = colour_codes(colours) if colours.ndim == 3 else colours.astype(np.int64)
        pairs = np.unique(np.stack([codes.ravel(), alpha.ravel()]), axis=1)
        twice = np.flatnonzero(pairs[0, 1:] == pairs[0, :-1])
        if len(twice):
            code, low = pairs[:, twice[0]]
            shown = colours[codes == code][0].tolist()
            raise FileError(
                f"{file}: {shown} is there with transparencies of {low} and {pairs[1, twice[0] + 1]}; is the mask in "
                "the alpha channel, or smoothed? Export it as a PNG without transparency",
                "transparency",
            )
    return colours


def _eight_bits(file: str, colours: np.ndarray) -> np.ndarray:
    """Returns colours of 16 bits as uint8: as they are where all are below 256, else where all are n * 257."""
    if not colours.size or colours.max() < 256:
        return colours.astype(np.uint8)
    if (colours % 257).any():
        raise FileError(f"{file}: colours of 16 bits up to {colours.max()}; expected 0..255", "colours of 16 bits")
    return (colours // 257).astype(np.uint8)


def colour_codes(colours: np.ndarray) -> np.ndarray:
    """Returns the number of each colour, red the highest: unsigned [h, w, 3] of 8 or 16 bits to int64 [h, w].

    For uint8 they are red * 65536 + green * 256 + blue, and int32.
    """
    if colours.dtype == np.uint8:
        return colours.astype(np.int32) @ np.array([65536, 256, 1], np.int32)
    return colours.astype(np.int64) @ np.array([1 << 32, 1 << 16, 1], np.int64)
