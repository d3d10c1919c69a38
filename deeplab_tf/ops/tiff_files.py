"""Photographs in TIFF: by Pillow where it loses nothing of them, else by tifffile."""

import dataclasses
import io
import lzma
import threading

import numpy as np
import PIL.Image

from deeplab_tf.catalog.image_facts import RGB
from deeplab_tf.errors import DeepLabError
from deeplab_tf.ops.images import PILLOW_ERRORS, opened_image
from deeplab_tf.ops.photograph_arrays import bands_last, of_array, require_pixels
from deeplab_tf.ops.photographs import ALPHA, FRAMES, Photograph, Reading, upright
from deeplab_tf.ops.pillow_files import ORIENTATION, of_pillow, orientation_of

# What tifffile and its codecs raise for damaged files; a header may announce more than the memory holds.
_TIFFFILE_ERRORS = (*PILLOW_ERRORS, AttributeError, ZeroDivisionError, MemoryError, lzma.LZMAError)
_BITS, _SAMPLES, _EXTRA, _PHOTOMETRIC = 258, 277, 338, 262  # tags
_TILE_WIDTH, _TILE_LENGTH = 322, 323
_CMYK = 5

_turn = threading.Lock()  # of tifffile, whose first import is slow


def _as_stored(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Returns the pixels that `upright` makes `pixels` of."""
    return upright(pixels, {6: 8, 8: 6}.get(orientation, orientation))


def open_tiff(content: bytes, reading: Reading) -> Photograph:
    """Returns what the bytes of a TIFF store; see `photograph_files.open_photograph`."""
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
    orientation = orientation_of(image)
    if orientation == 1:
        return of_pillow(image, 1, False, [], reading)
    image.load()
    opened = of_pillow(image, 1, False, [], reading)
    if orientation_of(image) != 1:
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
        require_pixels((length, width), reading)


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
            require_pixels(shape, reading)
            if page.is_tiled:
                _require_tiles(page.tilewidth, page.tilelength, reading)
            array = series.asarray() if shaped else page.asarray()
            tag = page.tags.get(ORIENTATION)
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
        array = bands_last(array, reading)
    array = array[..., None] if array.ndim == 2 else array
    if alone and array.shape[-1] == 4 and reading.channels != 4:
        array = array[..., :3]
        notes.append(ALPHA)
    orientation = int(tag.value) if tag and tag.value in range(1, 9) else 1
    return of_array(array, orientation, notes)
