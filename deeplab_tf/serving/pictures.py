"""Encoded pictures from strangers: looked at before they are decoded, so that a small file cannot take all memory."""

import io
import warnings

import numpy as np
import PIL.Image

from deeplab_tf.errors import DeepLabError
from deeplab_tf.ops.images import FORMATS, read_image
from deeplab_tf.serving.refusal import Refused


def _announced_pixels(content: bytes) -> int:
    """How many pixels the picture says it has; 0 where it does not say."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of many pixels; that is what is asked here
            with PIL.Image.open(io.BytesIO(content), formats=FORMATS) as image:
                return image.width * image.height
    except PIL.Image.DecompressionBombError as error:
        raise Refused(413, f"too many pixels ({error})") from None
    except Exception:  # not a picture; the decoder says what is wrong
        return 0


def decoded(content: bytes, *, max_pixels: int, name: str = "image") -> np.ndarray:
    """Returns a picture as RGB, uint8 [h, w, 3], upright. `Refused` 413 above `max_pixels`, 400 where it is none."""
    pixels = _announced_pixels(content)
    if pixels > max_pixels:
        raise Refused(413, f"{name}: {pixels} pixels; expected at most {max_pixels}")
    try:
        return read_image(content, name=name)
    except DeepLabError as error:
        raise Refused(400, str(error)) from None
