"""The decoder of untrusted pictures: few formats, and their size is checked before anything is decoded."""

import io
import math
import warnings
import zlib

import numpy as np
import PIL.Image

from deeplab_tf.catalog.image_facts import ImageFacts
from deeplab_tf.errors import DeepLabError
from deeplab_tf.ops.deep_png import is_short
from deeplab_tf.ops.images import LARGEST_IMAGE, PILLOW_ERRORS, is_heic
from deeplab_tf.ops.network_pictures import Picture, read_photograph
from deeplab_tf.ops.photograph_arrays import NPY_ERRORS
from deeplab_tf.ops.photograph_files import NPY, TIFF
from deeplab_tf.serving.limits import Limits
from deeplab_tf.serving.refusal import Refused

# How files begin that a browser or a phone sends; libraries of other formats are out of reach of a client.
_PHOTOGRAPHS = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"BM": "BMP",
    b"RIFF": "WEBP",
}
_BANDS = (*TIFF, NPY)  # what else a model of other bands than RGB is sent
_PNG_HEADER = 33  # bytes of a PNG's signature and header
_HEADER = 10_000  # characters of a .npy's header, at most, as NumPy allows


def _format(content: bytes, image: ImageFacts | None, name: str) -> str | None:
    """Returns Pillow's name of the format; None: a TIFF or a .npy, for a model that reads bands. Refused for others."""
    for start, known in _PHOTOGRAPHS.items():
        if content.startswith(start) and (known != "WEBP" or content[8:12] == b"WEBP"):
            return known
    if image is not None and content.startswith(_BANDS):
        return None
    more = "" if image is None else ", TIFF or .npy"
    if is_heic(content):
        raise Refused(400, f"{name}: HEIC, as phones save it, which is not read here; save it as JPEG")
    raise Refused(
        400,
        f"{name}: not an image of a format that is read here (begins with {content[:8]!r}); expected JPEG, PNG, "
        f"WebP, BMP or GIF{more}",
    )


def _require_array(content: bytes, name: str) -> None:
    """Raises Refused where the header of a .npy announces other bytes than there are."""
    stream = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version[0] == 1 else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(stream, max_header_size=_HEADER)
    except NPY_ERRORS as error:
        raise Refused(400, f"{name}: a .npy that cannot be read ({str(error)[:100]})") from None
    rest = len(content) - stream.tell()
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != rest:
        raise Refused(400, f"{name}: a .npy that announces {list(shape)} of {dtype} and holds {rest} bytes of it")


def _require_size(content: bytes, kind: str | None, limits: Limits, name: str) -> None:
    """Raises Refused (413) where the header of a picture announces too many pixels; what is damaged is told later."""
    formats = ("TIFF",) if kind is None else (kind,)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of many pixels, which are counted here
            with PIL.Image.open(io.BytesIO(content), formats=formats) as image:
                width, height = image.size
    except PIL.Image.DecompressionBombError:
        raise Refused(413, f"{name}: more than {LARGEST_IMAGE} pixels; expected at most {limits.max_pixels}") from None
    except PILLOW_ERRORS:
        return
    limits.require(height, width, name)
    limits.require(width, height, name)  # it may be turned


def _require_rows(content: bytes, kind: str | None, name: str) -> None:
    """Raises Refused for a PNG that announces more rows than it holds, which would be black in silence."""
    try:
        short = kind == "PNG" and len(content) > _PNG_HEADER and is_short(content)
    except zlib.error:
        return  # the decoder tells what is wrong with it
    if short:
        raise Refused(400, f"{name}: damaged or truncated image (a PNG that announces more rows than it holds)")


def decode_picture(content: bytes, limits: Limits, *, name: str = "image", image: ImageFacts | None = None) -> Picture:
    """Returns a picture as the network reads it: RGB, uint8 [h, w, 3], or what `image` says, upright.

    Raises:
      Refused: 413 if it has more pixels than allowed, 400 if it is not a picture, or not one that the model reads.
    """
    kind = _format(content, image, name)
    if content.startswith(NPY):
        _require_array(content, name)
    else:
        _require_size(content, kind, limits, name)
    _require_rows(content, kind, name)
    try:
        picture = read_photograph(content, image, name=name, max_pixels=max(limits.max_pixels, 0))
    except DeepLabError as error:
        raise Refused(400, str(error)) from None
    limits.require(picture.shown.shape[0], picture.shown.shape[1], name)
    return picture
