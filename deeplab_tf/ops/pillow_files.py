"""Photographs in the formats that Pillow reads."""

import warnings

import numpy as np
import PIL.Image

from deeplab_tf.catalog.image_facts import RGB
from deeplab_tf.ops import deep_png
from deeplab_tf.ops.images import PILLOW_ERRORS, opened_image
from deeplab_tf.ops.photograph_arrays import exact
from deeplab_tf.ops.photographs import ALPHA, FRAMES, Photograph, Reading

ORIENTATION = 0x0112  # tag of the orientation in EXIF data and in a TIFF
_TRANSPARENT = ("RGBA", "LA", "PA", "La", "RGBa")


def orientation_of(image: PIL.Image.Image) -> int:
    """Returns the orientation, 1 to 8, that the EXIF data or the tags of a picture say; 1 where they say none."""
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except (*PILLOW_ERRORS, AttributeError):
        return 1  # the EXIF block is damaged, the pixels are not
    return value if value in range(1, 9) else 1


def open_picture(content: bytes, reading: Reading) -> Photograph:
    """Returns what the bytes of a file store that Pillow reads; see `photograph_files.open_photograph`."""
    image = opened_image(content, reading.max_pixels)
    orientation = orientation_of(image)
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
    return of_pillow(image, orientation, plain, notes, reading)


def of_pillow(image: PIL.Image.Image, orientation: int, plain: bool, notes: list[str], reading: Reading) -> Photograph:
    """Returns a picture that Pillow opens without losing bits."""
    size = (image.height, image.width)
    if image.mode.startswith(("I", "F")):
        dtype = "float32" if image.mode == "F" else "uint16"
        if image.mode == "I":  # 32 bits, or 16 with a sign
            values = np.asarray(image)
            dtype = "uint16" if 0 <= values.min(initial=0) <= values.max(initial=0) <= 65535 else "float32"
        plain = plain and dtype == "uint16" and image.mode != "I"

        def deep_pixels() -> np.ndarray:
            return exact(np.asarray(image), dtype)[..., None]

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
