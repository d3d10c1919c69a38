"""Photographs as they are: of any depth and number of bands, from image files, multi-band TIFF and .npy.

`open_photograph` returns what a file stores; what a network reads of it is in ops/network_pictures.py. This module does
not import TensorFlow, so that worker processes start fast.
"""

import dataclasses
import io
import lzma
import threading
import tokenize
import warnings
from collections.abc import Callable

import numpy as np
import PIL.Image

from deeplab_tf.catalog.image_facts import RGB, describe_pixels
from deeplab_tf.errors import DeepLabError
from deeplab_tf.ops import deep_png
from deeplab_tf.ops.images import LARGEST_IMAGE, PILLOW_ERRORS, opened_image, too_large

NPY = b"\x93NUMPY"
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# What tifffile and its codecs raise for damaged files; a header may announce more than the memory holds.
_TIFFFILE_ERRORS = (*PILLOW_ERRORS, AttributeError, ZeroDivisionError, MemoryError, lzma.LZMAError)
# And NumPy for a damaged .npy, whose header is Python's text.
NPY_ERRORS = (*PILLOW_ERRORS, MemoryError, tokenize.TokenError)
_ORIENTATION = 0x0112  # tag of the orientation in EXIF data and in a TIFF
_BITS, _SAMPLES, _EXTRA, _PHOTOMETRIC = 258, 277, 338, 262  # tags of a TIFF
_TILE_WIDTH, _TILE_LENGTH = 322, 323
_CMYK = 5
_TRANSPARENT = ("RGBA", "LA", "PA", "La", "RGBa")

# What is told of photographs that are not taken as they are.
FRAMES = "the first frame or page of several is used"
ALPHA = "the transparency is left out"

_turn = threading.Lock()  # of tifffile, whose first import is slow


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


def _as_stored(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Returns the pixels that `upright` makes `pixels` of."""
    return upright(pixels, {6: 8, 8: 6}.get(orientation, orientation))


def open_photograph(content: bytes, reading: Reading = ANY) -> Photograph:
    """Returns what the bytes of an image file, a TIFF or a .npy store; its pixels may be decoded later.

    Raises:
      DeepLabError: it has too many pixels, or bands that cannot be told. The message does not name the file.
      PILLOW_ERRORS: it is not an image, or damaged; `pixels` may raise them too.
    """
    if content.startswith(NPY):
        return _open_array(content, reading)
    if content.startswith(TIFF):
        return _open_tiff(content, reading)
    return _open_picture(content, reading)


# ---- pictures that Pillow reads


def _orientation_of(image: PIL.Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except (*PILLOW_ERRORS, AttributeError):
        return 1  # the EXIF block is damaged, the pixels are not
    return value if value in range(1, 9) else 1


def _open_picture(content: bytes, reading: Reading) -> Photograph:
    image = opened_image(content, reading.max_pixels)
    orientation = _orientation_of(image)
    notes = [FRAMES] if getattr(image, "n_frames", 1) > 1 and image.format != "MPO" else []
    deep = deep_png.bit_depth(content) == 16
    plain = image.format in ("JPEG", "MPO", "PNG")
    if deep and image.mode in ("RGB", "RGBA", "LA"):  # Pillow has cut it to 8 bits
        samples = deep_png.sample_count(content)
        channels = 4 if samples == 4 and reading.channels == 4 else RGB if samples > 2 else 1
        notes += [ALPHA] if samples in (2, 4) and channels != 4 else []
        size = (image.height, image.width)
        return Photograph(
            size,
            channels,
            "uint16",
            orientation,
            plain,
            tuple(notes),
            lambda: deep_png.decode_deep_png(content)[..., :channels],
            image,
        )
    return _of_pillow(image, orientation, plain, notes, reading)


def _of_pillow(image: PIL.Image.Image, orientation: int, plain: bool, notes: list[str], reading: Reading) -> Photograph:
    """Returns a picture that Pillow opens without losing bits."""
    size = (image.height, image.width)
    if image.mode.startswith(("I", "F")):
        dtype = "float32" if image.mode == "F" else "uint16"
        if image.mode == "I":  # 32 bits, or 16 with a sign
            values = np.asarray(image)
            dtype = "uint16" if 0 <= values.min(initial=0) <= values.max(initial=0) <= 65535 else "float32"
        plain = plain and dtype == "uint16" and image.mode != "I"

        def deep_pixels() -> np.ndarray:
            return _exact(np.asarray(image), dtype)[..., None]

        return Photograph(size, 1, dtype, orientation, plain, tuple(notes), deep_pixels)
    keeps_alpha = reading.channels == 4 and image.mode in ("RGBA", "CMYK", "RGBX")
    transparent = image.mode in _TRANSPARENT or "transparency" in image.info
    told = [*notes, ALPHA] if transparent and not keeps_alpha and _is_transparent(image) else notes

    def pixels() -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about a palette's transparency
            return np.asarray(image if keeps_alpha else image.convert("RGB"))

    channels = 4 if keeps_alpha else RGB
    return Photograph(size, channels, "uint8", orientation, plain and not keeps_alpha, tuple(told), pixels, image)


def _is_transparent(image: PIL.Image.Image) -> bool:
    """Returns whether a picture with an alpha channel or a transparent colour makes any use of it."""
    if image.mode in ("RGBA", "LA", "PA"):
        low, _ = image.getchannel("A").getextrema()
        return isinstance(low, int) and low < 255
    return True


def _exact(values: np.ndarray, dtype: str) -> np.ndarray:
    """Returns `values` in another dtype, without loss. DeepLabError where that is not possible."""
    with np.errstate(all="ignore"):
        converted = values.astype(dtype)
        same = np.array_equal(converted.astype(values.dtype), values, equal_nan=values.dtype.kind == "f")
    if not same:
        raise DeepLabError(f"values of {values.dtype} that {dtype} cannot hold exactly; save it as {dtype}")
    return converted


# ---- TIFF


def _open_tiff(content: bytes, reading: Reading) -> Photograph:
    try:
        image = opened_image(content, reading.max_pixels)
    except PIL.UnidentifiedImageError:
        return _open_bands(content, reading)
    tags = getattr(image, "tag_v2", {})
    _require_tiles(tags.get(_TILE_WIDTH), tags.get(_TILE_LENGTH), reading)
    samples = tags.get(_SAMPLES, 1)
    extra = tags.get(_EXTRA, ())
    is_alpha = samples == 4 and bool(extra) and set(extra) <= {1, 2}
    is_picture = max(tags.get(_BITS, (1,))) <= 8 and (samples <= RGB or is_alpha or tags.get(_PHOTOMETRIC) == _CMYK)
    if getattr(image, "n_frames", 1) > 1 or not (samples == 1 or is_picture):
        return _open_bands(content, reading)
    orientation = _orientation_of(image)
    if orientation == 1:
        return _of_pillow(image, 1, False, [], reading)
    image.load()
    opened = _of_pillow(image, 1, False, [], reading)
    if _orientation_of(image) != 1:
        return dataclasses.replace(opened, orientation=orientation)
    # Pillow has turned it as it decoded it; what is stored is the other way round.
    height, width = opened.size
    size = (width, height) if orientation > 4 else (height, width)

    def pixels() -> np.ndarray:
        return _as_stored(opened.pixels(), orientation)

    return dataclasses.replace(opened, size=size, orientation=orientation, pixels=pixels, image=None)


def _require_tiles(width: object, length: object, reading: Reading) -> None:
    """Raises DeepLabError for tiles of too many pixels, each of which is decoded whole, however small the picture."""
    if isinstance(width, int) and isinstance(length, int):
        _require_pixels((length, width), reading)


def _tifffile():
    try:
        with _turn:
            import tifffile
    except ImportError:
        raise DeepLabError(
            "a TIFF of several bands, pages or more than 8 bits; reading it needs tifffile: "
            "pip install 'deeplab_tf[bands]'"
        ) from None
    return tifffile


def _open_bands(content: bytes, reading: Reading) -> Photograph:
    tifffile = _tifffile()
    try:
        with tifffile.TiffFile(io.BytesIO(content)) as tiff:
            page = tiff.pages.first
            series = tiff.series[0]
            shaped = len(tiff.pages) > 1 and tiff.is_shaped and len(series.shape) == 3
            shape, axes = (series.shape, "") if shaped else (page.shape, page.axes)
            _require_pixels(shape, reading)
            if page.is_tiled:
                _require_tiles(page.tilewidth, page.tilelength, reading)
            array = series.asarray() if shaped else page.asarray()
            tag = page.tags.get(_ORIENTATION)
            pages = 1 if shaped else len(tiff.pages)
            alpha = [int(extra) for extra in page.extrasamples] if not shaped else []
            alone = page.photometric.name == "RGB" and len(alpha) == 1 and alpha[0] in (1, 2)
    except DeepLabError:
        raise
    except _TIFFFILE_ERRORS as error:
        raise DeepLabError(f"a TIFF that cannot be decoded ({error})") from None
    notes = [FRAMES] if pages > 1 else []
    if axes == "SYX":
        array = np.moveaxis(array, 0, -1)
    elif shaped:
        array = _bands_last(array, reading)
    array = array[..., None] if array.ndim == 2 else array
    if alone and array.shape[-1] == 4 and reading.channels != 4:
        array = array[..., :3]
        notes.append(ALPHA)
    orientation = int(tag.value) if tag and tag.value in range(1, 9) else 1
    return _of_array(array, orientation, notes)


# ---- arrays


def _require_pixels(shape: tuple[int, ...], reading: Reading) -> None:
    limit = LARGEST_IMAGE if reading.max_pixels is None else reading.max_pixels
    sides = sorted(shape)[-2:]
    if len(sides) == 2 and sides[0] * sides[1] > limit:
        raise too_large(sides[0] * sides[1], limit)


def _open_array(content: bytes, reading: Reading) -> Photograph:
    try:
        array = np.load(io.BytesIO(content), allow_pickle=False)
    except NPY_ERRORS as error:
        raise DeepLabError(f"a .npy that cannot be read ({error})") from None
    if array.ndim not in (2, 3) or not array.size:
        raise DeepLabError(f"an array of shape {list(array.shape)}; expected [height, width, bands]")
    _require_pixels(array.shape, reading)
    return _of_array(array[..., None] if array.ndim == 2 else _bands_last(array, reading), 1, [])


def _bands_last(array: np.ndarray, reading: Reading) -> np.ndarray:
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


def _of_array(array: np.ndarray, orientation: int, notes: list[str]) -> Photograph:
    """Returns the photograph of an array [h, w, bands], in the first of the three dtypes that holds its own."""
    if array.ndim != 3 or not array.size:  # a damaged TIFF may say that its page has no rows
        raise DeepLabError(f"pixels of shape {list(array.shape)}; expected [height, width, bands]")
    kind, bits = array.dtype.kind, 8 * array.dtype.itemsize
    if kind not in "biuf":
        raise DeepLabError(f"values of {array.dtype}; expected uint8, uint16 or float32")
    dtype = "float32"
    if kind == "b" or (kind == "u" and bits <= 16):
        dtype = "uint16" if bits == 16 else "uint8"
    array = _exact(array, dtype)
    channels = array.shape[-1]
    if dtype == "uint8" and channels == 1:  # as every other grey picture of 8 bits
        array = np.repeat(array, RGB, axis=-1)
    size = (array.shape[0], array.shape[1])
    return Photograph(size, array.shape[-1], dtype, orientation, False, tuple(notes), lambda: array)


def widened(pixels: np.ndarray, channels: int) -> np.ndarray:
    """Returns pixels [h, w, c]; those of a single band as three equal ones where `channels` are three."""
    return np.repeat(pixels, RGB, axis=-1) if pixels.shape[-1] == 1 and channels == RGB else pixels
