"""Photographs in and out of arrays: decoding as Pillow does, encoding, the demo's resize rule, resizing of labels."""

import io
import os
import struct
import threading
import warnings
import zlib
from typing import IO

import numpy as np
import PIL.features
import PIL.Image
import PIL.ImageOps

from deeplab_tf import files
from deeplab_tf.errors import DeepLabError, first_line

# Pillow's formats that these extensions stand for. EPS must not be one: Ghostscript would run it, under any file name.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "JPEG2000")
EXTENSIONS = (
    ".jpg",
    ".jpeg",
    ".png",
    ".bmp",
    ".gif",
    ".tif",
    ".tiff",
    ".webp",
    ".ppm",
    ".pgm",
    ".heic",
    ".heif",
    ".avif",
)
LARGEST_IMAGE = 178_956_970  # pixels, Pillow's limit: a small file can announce more than the memory holds
# What Pillow raises for files that are not pictures, or damaged; its open takes the same for "another format", but what
# decodes later (the pages of a TIFF) lets them pass.
PILLOW_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    OverflowError,
    EOFError,
    RuntimeError,  # of libheif and libavif
    struct.error,
    zlib.error,
    PIL.Image.DecompressionBombError,
)
# Brands of a file of boxes that holds a still picture (ISO/IEC 23008-12, annex B; AV1 Image File Format, section 6).
_AVIF = (b"avif", b"avis")
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_JPEG_SIDE = 65_500  # pixels, the longest side that the library writes
_BRANDS_END = 256  # bytes, in which the brands of a file of boxes lie
_limit = threading.Lock()  # Pillow's limit is one for all threads


def _eight_bit(image: PIL.Image.Image) -> PIL.Image.Image:
    """Returns a picture with 16 or 32 bits in a channel as 8-bit grey, with 255 for 65535; others unchanged."""
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.nan_to_num(np.asarray(image).astype(np.float32))
    # A dark 16-bit picture stays dark. Older Pillows open 16-bit PNGs with 32 bits; then only the values tell.
    if image.mode.startswith("I;16") or (image.mode == "I" and values.max(initial=0) > 255):
        values = values / 257.0
    return PIL.Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))


def _upright(image: PIL.Image.Image) -> PIL.Image.Image:
    """Returns the picture turned as its EXIF orientation says."""
    image.load()
    try:
        return PIL.ImageOps.exif_transpose(image)
    except (SyntaxError, ValueError, TypeError, KeyError, OSError, struct.error):
        return image  # the EXIF block is damaged, the pixels are not


def too_large(pixels: int, limit: int) -> DeepLabError:
    """Returns the error for an image of too many pixels; the caller puts the image's name before it."""
    return DeepLabError(
        f"too large to be a photograph ({pixels} pixels, more than {limit}); --max_image_pixels={pixels} allows it"
    )


def _brands(start: bytes) -> set[bytes]:
    """Returns the brands of a file of boxes that begins with `start`; of other files none."""
    if start[4:8] != b"ftyp":
        return set()
    end = min(len(start), int.from_bytes(start[:4], "big"))
    return {start[8:12], *(start[place : place + 4] for place in range(16, end, 4))}


def is_heic(content: bytes) -> bool:
    """Returns whether encoded `content` is a HEIC, and not an AVIF, whose boxes are the same."""
    brands = _brands(content[:_BRANDS_END])
    return bool(brands.intersection(_HEIC)) and not brands.intersection(_AVIF)


def _formats(stream: IO[bytes]) -> tuple[str, ...]:
    """Returns the formats of Pillow that may read what `stream` begins with.

    Raises:
      DeepLabError: what reads it is not installed.
    """
    start = stream.read(_BRANDS_END)
    stream.seek(0)
    if _brands(start).intersection(_AVIF):
        if not PIL.features.check("avif"):
            raise DeepLabError("AVIF, which this Pillow does not read: pip install 'pillow>=11.3', or save it as JPEG")
        return ("AVIF",)
    if is_heic(start):
        try:
            import pillow_heif
        except ImportError:
            cure = "pip install 'deeplab_tf[heic]', or save it as JPEG"
            raise DeepLabError(f"HEIC, as phones save it, needs pillow-heif: {cure}") from None
        pillow_heif.register_heif_opener()
        return ("HEIF",)
    return FORMATS


def opened_image(content: bytes | IO[bytes], max_pixels: int | None = None) -> PIL.Image.Image:
    """Returns an image, of its bytes or a stream of them, that is opened and not decoded yet.

    Raises:
      DeepLabError: it has more than `max_pixels`, or without a number more than Pillow's limit.
      PILLOW_ERRORS: it is not an image.
    """
    with _limit, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a damaged EXIF block
        before = PIL.Image.MAX_IMAGE_PIXELS
        limit = max_pixels if max_pixels is not None else 2 * (before or LARGEST_IMAGE)
        PIL.Image.MAX_IMAGE_PIXELS = None
        try:
            stream = io.BytesIO(content) if isinstance(content, bytes) else content
            image = PIL.Image.open(stream, formats=_formats(stream))
        finally:
            PIL.Image.MAX_IMAGE_PIXELS = before
    if image.width * image.height > limit:
        raise too_large(image.width * image.height, limit)
    return image


def image_content(source: str | os.PathLike[str] | bytes, name: str) -> bytes:
    """Returns the bytes of a picture, which errors call `name`.

    Raises:
      DeepLabError: the file cannot be read, or there are no bytes.
    """
    try:
        content = source if isinstance(source, bytes) else files.path(source).read_bytes()
    except OSError as error:
        raise DeepLabError(f"{name}: cannot be read ({error.strerror or error}); expected an image file") from None
    if not content:
        raise DeepLabError(f"{name}: the file is empty (0 bytes); expected an image")
    return content


def read_image(
    source: str | os.PathLike[str] | bytes, *, name: str | None = None, max_pixels: int | None = None
) -> np.ndarray:
    """Returns a picture as RGB, uint8 [height, width, 3], upright (its EXIF orientation applied).

    Grey, palette, CMYK and 16-bit pictures become 8-bit RGB; transparency is dropped; of several frames the first is
    taken. JPEGs are decoded by Pillow, as they were for the recorded figures in tests/goldens.

    Args:
      source: a file, or the encoded bytes.
      name: the picture's name in errors; by default the path.
      max_pixels: a larger picture is refused; None: Pillow's limit, LARGEST_IMAGE.

    Raises:
      DeepLabError: the file is missing, empty, not an image, truncated or absurdly large.
    """
    name = name or (str(source) if not isinstance(source, bytes) else "image")
    content = image_content(source, name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about a damaged EXIF block, a palette's transparency, many pixels
            with opened_image(content, max_pixels) as image:
                return np.array(_eight_bit(_upright(image)).convert("RGB"))
    except PIL.UnidentifiedImageError:
        start = content[:8]
        raise DeepLabError(f"{name}: not an image (begins with {start!r}); expected JPEG, PNG or the like") from None
    except DeepLabError as error:
        raise DeepLabError(f"{name}: {error}") from None
    except PILLOW_ERRORS as error:
        raise DeepLabError(
            f"{name}: damaged or truncated image ({first_line(error)}); fetch or save it again"
        ) from None


def png_bytes(picture: np.ndarray, palette: bytes = b"") -> bytes:
    """Returns a picture as a PNG.

    Args:
      picture: uint8 [h, w] (grey, or indices of the `palette`) or [h, w, 3] (RGB).
      palette: up to 256 colours, three bytes each.

    Raises:
      TypeError: the picture is not uint8.
    """
    if picture.dtype != np.uint8:
        raise TypeError(f"a picture of {picture.dtype}: expected uint8")
    image = PIL.Image.fromarray(picture)
    if palette:
        image.putpalette(palette)
    content = io.BytesIO()
    # After the PNG's row filters, zlib finds little else than runs: its full search takes half as long again, and here
    # makes larger files.
    image.save(content, format="PNG", compress_type=zlib.Z_RLE)
    return content.getvalue()


def label_png(classes: np.ndarray) -> bytes:
    """Returns the 8-bit grey PNG of a label, uint8 [h, w], as records and the evaluation servers hold it.

    It keeps zlib's full search, unlike `png_bytes`: these files are stored and sent, and equal labels must stay equal
    to the byte from release to release.
    """
    content = io.BytesIO()
    PIL.Image.fromarray(classes).save(content, format="PNG")
    return content.getvalue()


def jpeg_bytes(picture: np.ndarray, *, quality: int = 92) -> bytes:
    """Returns a picture to look at as a JPEG; one that is too large for a JPEG is made smaller.

    Of a photograph it has a fifth of the PNG's size and takes a tenth of its time; fine lines keep their colours.

    Args:
      picture: uint8 [h, w, 3].
      quality: Pillow's, 1 to 95.
    """
    content = io.BytesIO()
    if max(picture.shape) > _JPEG_SIDE:
        picture = resize_longest(picture, _JPEG_SIDE)
    PIL.Image.fromarray(picture).save(content, format="JPEG", quality=quality, subsampling="4:4:4")
    return content.getvalue()


def write_png(picture: np.ndarray, path: str | os.PathLike[str], *, flag: str | None = None) -> None:
    """Writes a picture, uint8 [h, w] or [h, w, 3], as a PNG, completely or not at all.

    Raises:
      UnwritableError: the folder cannot be written; the message names `flag`.
    """
    with files.written(path, flag=flag, durable=False) as file:
        file.write_bytes(png_bytes(picture))


def longest_size(height: int, width: int, longest: int) -> tuple[int, int]:
    """Returns height and width with the longest side `longest`, the other truncated (release: deeplab_demo.ipynb)."""
    ratio = longest / max(height, width)
    return max(1, int(ratio * height)), max(1, int(ratio * width))


def resize_longest(image: np.ndarray, longest: int) -> np.ndarray:
    """Returns the picture with its longest side `longest` pixels, the other truncated (release: deeplab_demo.ipynb).

    One that is not uint8 [h, w, 3] becomes float32 [h, w, bands].

    The filter is the demo's, Pillow's Lanczos, which does not alias.
    """
    height, width = longest_size(image.shape[0], image.shape[1], longest)
    size = (width, height)
    if (height, width) == image.shape[:2]:
        return image
    if image.dtype == np.uint8 and image.shape[-1] == 3:
        return np.asarray(PIL.Image.fromarray(image).resize(size, PIL.Image.Resampling.LANCZOS))
    bands = [PIL.Image.fromarray(np.ascontiguousarray(band, np.float32)) for band in np.moveaxis(image, -1, 0)]
    resized = np.stack([np.asarray(band.resize(size, PIL.Image.Resampling.LANCZOS)) for band in bands], axis=-1)
    return np.clip(resized, image.min(), image.max())  # the filter overshoots at edges


def nearest_indices(size_in: int, size_out: int) -> np.ndarray:
    """Returns the source index of each output index of a nearest resize with aligned corners; halves go up."""
    scale = np.float32((size_in - 1) / (size_out - 1)) if size_out > 1 else np.float32(0)
    positions = np.arange(size_out, dtype=np.float32) * scale
    low = np.floor(positions)
    # Not floor(x + 0.5): just below a half, that sum rounds up in float32.
    return np.minimum((low + (positions - low >= 0.5)).astype(np.int64), size_in - 1)


def resize_labels(labels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Returns a label map [h, w] at another size, nearest with aligned corners, as the release's export_model does."""
    if labels.shape == (height, width):
        return labels
    rows = nearest_indices(labels.shape[0], height)
    columns = nearest_indices(labels.shape[1], width)
    return labels.take(columns, axis=1).take(rows, axis=0)
