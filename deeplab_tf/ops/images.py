"""Photographs in and out of arrays: decoding as Pillow does, PNGs, the demo's resize rule, nearest label resizing."""

import io
import os
import struct
import warnings
import zlib

import numpy as np
import PIL.Image
import PIL.ImageOps

from deeplab_tf import files
from deeplab_tf.errors import DeepLabError

# All that Pillow reads of these extensions, and no EPS: it would be run by Ghostscript, whatever the file is called.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "JPEG2000")
EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
_JPEG_SIDE = 65_500  # pixels that the library writes at most


def _eight_bit(image: PIL.Image.Image) -> PIL.Image.Image:
    """Returns a picture of 16 or 32 bits a channel as 8-bit grey, 65535 becoming 255; others unchanged."""
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.nan_to_num(np.asarray(image).astype(np.float32))
    # A dark 16-bit picture stays dark; older Pillows open 16-bit PNGs with 32 bits, so there the values must tell.
    if image.mode.startswith("I;16") or (image.mode == "I" and values.max(initial=0) > 255):
        values = values / 257.0
    return PIL.Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))


def _upright(image: PIL.Image.Image) -> PIL.Image.Image:
    image.load()
    try:
        return PIL.ImageOps.exif_transpose(image)
    except (SyntaxError, ValueError, TypeError, KeyError, OSError, struct.error):
        return image  # the EXIF block is damaged, the pixels are not


def read_image(source: str | os.PathLike | bytes, *, name: str | None = None) -> np.ndarray:
    """Returns a picture as RGB, uint8 [height, width, 3], upright (its EXIF orientation applied).

    Grey, palette, CMYK and 16-bit pictures become 8-bit RGB; transparency is dropped; of several frames the first is
    taken. JPEGs are decoded as Pillow does, on which the recorded figures rest (golden/README.md).

    Args:
      source: a file, or the encoded bytes.
      name: what errors call it; by default the path.

    Raises:
      DeepLabError: the file is missing, empty, not an image, truncated or absurdly large.
    """
    name = name or (str(source) if not isinstance(source, bytes) else "image")
    try:
        content = source if isinstance(source, bytes) else files.path(source).read_bytes()
    except OSError as error:
        raise DeepLabError(f"{name}: cannot be read ({error.strerror or error}); expected an image file") from None
    if not content:
        raise DeepLabError(f"{name}: the file is empty (0 bytes); expected an image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a damaged EXIF block, a palette's transparency, many pixels
            with PIL.Image.open(io.BytesIO(content), formats=FORMATS) as image:
                return np.array(_eight_bit(_upright(image)).convert("RGB"))
    except PIL.UnidentifiedImageError:
        start = content[:8]
        raise DeepLabError(f"{name}: not an image (begins with {start!r}); expected JPEG, PNG or the like") from None
    except PIL.Image.DecompressionBombError as error:
        raise DeepLabError(f"{name}: too large to be a photograph ({error})") from None
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        raise DeepLabError(f"{name}: damaged or truncated image ({error}); fetch or save it again") from None


def png_bytes(picture: np.ndarray, palette: bytes = b"") -> bytes:
    """Returns a picture, uint8 [h, w] (grey) or [h, w, 3] (RGB), as a PNG; with a `palette` [h, w] are its indices.

    Args:
      palette: up to 256 colours, three bytes each.
    """
    if picture.dtype != np.uint8:
        raise TypeError(f"a picture of {picture.dtype}: expected uint8")
    image = PIL.Image.fromarray(picture)
    if palette:
        image.putpalette(palette)
    content = io.BytesIO()
    # Once rows are filtered, runs are all there is to find: searching further takes half as long again, for larger
    # files.
    image.save(content, format="PNG", compress_type=zlib.Z_RLE)
    return content.getvalue()


def jpeg_bytes(picture: np.ndarray, *, quality: int = 92) -> bytes:
    """Returns a picture to look at, uint8 [h, w, 3], as a JPEG; made smaller where a JPEG cannot be so large.

    Of a photograph it is a fifth of the PNG's size and takes a tenth of its time; fine lines keep their colours.

    Args:
      quality: Pillow's, 1 to 95.
    """
    content = io.BytesIO()
    if max(picture.shape) > _JPEG_SIDE:
        picture = resize_longest(picture, _JPEG_SIDE)
    PIL.Image.fromarray(picture).save(content, format="JPEG", quality=quality, subsampling="4:4:4")
    return content.getvalue()


def write_png(array: np.ndarray, place: str | os.PathLike, *, flag: str | None = None):
    """Writes a picture, uint8 [h, w] or [h, w, 3], as a PNG that is there completely or not at all.

    UnwritableError, which names `flag`, where the folder cannot be written.
    """
    with files.written(place, flag=flag, durable=False) as file:
        file.write_bytes(png_bytes(array))


def resize_longest(image: np.ndarray, longest: int) -> np.ndarray:
    """Returns the picture with its longest side `longest` pixels, the other truncated (release: deeplab_demo.ipynb).

    The demo's filter is Pillow's Lanczos, which does not alias.
    """
    height, width = image.shape[:2]
    ratio = longest / max(height, width)
    size = (max(1, int(ratio * width)), max(1, int(ratio * height)))
    if size == (width, height):
        return image
    return np.asarray(PIL.Image.fromarray(image).resize(size, PIL.Image.Resampling.LANCZOS))


def nearest_indices(size_in: int, size_out: int) -> np.ndarray:
    """Returns the source index of each output index of an align-corners nearest resize: halves round away from 0."""
    scale = np.float32((size_in - 1) / (size_out - 1)) if size_out > 1 else np.float32(0)
    positions = np.arange(size_out, dtype=np.float32) * scale
    low = np.floor(positions)
    # Not floor(x + 0.5): just below a half, that sum rounds up in float32.
    return np.minimum((low + (positions - low >= 0.5)).astype(np.int64), size_in - 1)


def resize_labels(labels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Returns a label map [h, w] at another size, nearest with aligned corners, as the release's export_model does."""
    if labels.shape == (height, width):
        return labels
    rows, columns = nearest_indices(labels.shape[0], height), nearest_indices(labels.shape[1], width)
    return labels.take(columns, axis=1).take(rows, axis=0)
