"""Pictures as they cross from the host to the devices: bytes where all pixels are whole, else floats."""

from collections.abc import Sequence
from typing import NamedTuple, cast

import tensorflow as tf

from deeplab_tf.data.windows import Window, cut_window, fill


class BytePictures(NamedTuple):
    """Pictures of a batch, or one without the leading axis, whose padding is still to be coloured.

    A quarter of the bytes of float32. The colour of the padding is not whole, as a rule.

    Attributes:
      pixels: uint8 [b, h, w, c], with zeros for padding.
      extent: float32 [b, 2], the rows and columns that are no padding.
      left: float32 [b], the columns of padding on the left.
      colour: float32 [b, c], of the padding.
    """

    pixels: tf.Tensor
    extent: tf.Tensor
    left: tf.Tensor
    colour: tf.Tensor


def byte_picture(
    image: tf.Tensor, window: Window, corner: tf.Tensor, crop_size: Sequence[int], colour: Sequence[float]
) -> BytePictures:
    """Returns the window of a picture that keeps its size: of uint8 [h, w, c], the part of it from `corner` on."""
    pixels = fill(cut_window(image, window, corner), window, crop_size, 0)
    extent = tf.cast(window.extent, tf.float32)
    left = tf.where(window.mirrored, tf.cast(crop_size[1], tf.float32) - extent[1], 0.0)
    return BytePictures(pixels, extent, left, tf.constant(colour, tf.float32))


def float_pictures(images: tf.Tensor | BytePictures) -> tf.Tensor:
    """Returns pictures float32 [b, h, w, c]: those that `windows.fill` makes of the same windows, bit for bit."""
    if not isinstance(images, BytePictures):
        return tf.cast(images, tf.float32)
    pixels = tf.cast(images.pixels, tf.float32)
    height, width = cast(tuple[int, int], tuple(pixels.shape[1:3]))
    # Counted in floats: operations on int32 run on the host of a GPU.
    rows = tf.range(float(height))[None, :] < images.extent[:, :1]
    columns = tf.range(float(width))[None, :] - images.left[:, None]
    columns = (columns >= 0) & (columns < images.extent[:, 1:])
    inside = rows[:, :, None, None] & columns[:, None, :, None]
    colour = images.colour[:, None, None, :]
    # `fill` pads what is short around the colour, which rounds where the channels' colours differ.
    shifted = (pixels - colour) + colour
    alike = tf.reduce_all(images.colour == images.colour[:, :1], axis=1)
    short = tf.reduce_any(images.extent < tf.constant([height, width], tf.float32), axis=1)
    rounded = (short & ~alike)[:, None, None, None]
    return tf.where(inside, tf.where(rounded, shifted, pixels), colour)
