"""The decoder of untrusted pictures: it checks their size first, so that a small file cannot take all memory."""

import io
import warnings

import PIL.Image

from deeplab_tf.catalog.image_facts import ImageFacts
from deeplab_tf.errors import DeepLabError
from deeplab_tf.ops.images import FORMATS
from deeplab_tf.ops.network_pictures import Picture, read_photograph
from deeplab_tf.serving.refusal import Refused


def _announced_pixels(content: bytes) -> int:
    """Returns the number of pixels that the header of a picture announces; 0 if it cannot be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of many pixels, which this function counts
            with PIL.Image.open(io.BytesIO(content), formats=FORMATS) as image:
                return image.width * image.height
    except PIL.Image.DecompressionBombError as error:
        raise Refused(413, f"too many pixels ({error})") from None
    except Exception:  # not a picture; the decoder below reports what is wrong
        return 0


def decode_picture(content: bytes, *, max_pixels: int, name: str = "image", image: ImageFacts | None = None) -> Picture:
    """Returns a picture as the network reads it: RGB, uint8 [h, w, 3], or what `image` says, upright.

    Raises:
      Refused: 413 if it has more than `max_pixels`, 400 if it is not a picture, or not one that the model reads.
    """
    pixels = _announced_pixels(content)
    if pixels > max_pixels:
        raise Refused(413, f"{name}: {pixels} pixels; expected at most {max_pixels}")
    try:
        return read_photograph(content, image, name=name, max_pixels=max_pixels)
    except DeepLabError as error:
        raise Refused(400, str(error)) from None
