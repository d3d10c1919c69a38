"""Extra augmentation by layers of keras-cv: colour jitter, Gaussian blur, grid mask, CutMix. All off by default.

The layers would draw from stateful generators, whose numbers depend on everything that ran before. Here they draw
nothing: each is given its transformation, computed from numbers that follow from (seed, epoch, record), so that a
resumed run sees the same pixels. Of the layers that keep labels intact under Keras 3, these are the ones that add to
the release's own scale, crop and flip.
"""

import math
from typing import cast

import numpy as np
import tensorflow as tf

from deeplab_tf.config import DataConfig

DRAWS = "draws"  # key of an example's random numbers in its batch, until `Augmentation.mix_batch` removes it
_DRAW_COUNT = 15
_FIRST_KEY = -2  # record r draws with key -2 - r: keys from 0 up are the crops' draws, -1 is the epoch's order
_SEED = 1  # the layers create generators even if nothing is drawn; --deterministic forbids one without a seed
_LARGEST_TURN = 0.15  # of a full turn, either way: keras-cv's default for the grid


def make_augmentation(config: DataConfig, pixel: tuple[float, ...]) -> "Augmentation | None":
    """Returns the augmentation that a configuration asks for; None, without importing keras-cv, if all of it is off.

    `pixel` (RGB, 0..255) fills the hidden squares of the grid mask: the colour of the network's padding.
    """
    options = (config.color_jitter, config.gaussian_blur, config.grid_mask, config.cut_mix)
    return Augmentation(config, pixel) if any(options) else None


class Augmentation:
    """The layers of keras-cv, applied with given random numbers."""

    def __init__(self, config: DataConfig, pixel: tuple[float, ...]) -> None:
        from keras_cv import layers

        self._config = config
        self._pixel = np.array(pixel, np.float32)  # [3]
        options = {"seed": _SEED, "dtype": "float32"}
        # The factors given here would only scale what the layers draw, and they draw nothing.
        self._brightness = layers.RandomBrightness(factor=0.5, value_range=(0, 255), **options)
        self._contrast = layers.RandomContrast(factor=0.5, value_range=(0, 255), **options)
        self._hue = layers.RandomHue(factor=0.5, value_range=(0, 255), **options)
        self._saturation = layers.RandomSaturation(0.5, **options)
        size = 2 * math.ceil(3 * (config.gaussian_blur or 0)) + 1  # holds all but three thousandths of the bell
        self._blur = layers.RandomGaussianBlur(size, 1.0, **options)
        self._grid = layers.GridMask(**options)
        self._rotation = layers.RandomRotation(0.5, "constant", **options)
        self._cut_mix = layers.CutMix(**options)

    def draws(self, epoch_key: tf.Tensor, record: tf.Tensor) -> tf.Tensor:
        """Returns the random numbers of an example: float32 [15] in [0, 1).

        Args:
          epoch_key: int64 scalar, made of the seed and the epoch.
          record: int64 scalar, the number of the record.
        """
        return tf.random.stateless_uniform([_DRAW_COUNT], tf.stack([epoch_key, _FIRST_KEY - record]), alg="philox")

    def augment_image(self, image: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        """Returns an image, float32 [h, w, 3] in 0..255, jittered in colour, blurred and masked by a grid.

        Call it before padding, whose colour must not change. The label of the image stays as it is.
        """
        config = self._config
        shape = image.shape
        if config.color_jitter:
            image = self._jittered(image, draws[:4], config.color_jitter)
        if config.gaussian_blur:
            image = self._blurred(image, draws[4] * config.gaussian_blur)
        if config.grid_mask:
            image = self._grid_masked(image, draws[5:10], config.grid_mask)
        return tf.ensure_shape(image, shape)

    def _jittered(self, image: tf.Tensor, draws: tf.Tensor, largest: tuple[float, ...]) -> tf.Tensor:
        """Returns the image with brightness, contrast, saturation and hue changed, in keras-cv's order.

        draws: float32 [4] in [0, 1). largest: the largest change of each.
        """
        brightness, contrast, saturation, hue = tf.unstack((2 * draws - 1) * largest)
        images = self._brightness.augment_images(image[None], brightness * 255)
        images = self._contrast.augment_images(images, 1 + contrast)
        # The layer multiplies the saturation by f / (1 - f) of the f it is given; this f makes that 1 + saturation.
        factor = 1 + saturation
        images = self._saturation.augment_images(images, (factor / (1 + factor))[None])
        return self._hue.augment_images(images, hue[None])[0]

    def _blurred(self, image: tf.Tensor, sigma: tf.Tensor) -> tf.Tensor:
        kernel = self._blur.get_kernel(tf.maximum(sigma, 1e-3), self._blur.x)
        transformation = tf.reshape(kernel, [-1, 1, 1, 1]), tf.reshape(kernel, [1, -1, 1, 1])
        # The layer reads black beyond the edge, which would darken the border; dividing by the share of the bell that
        # lies inside the image undoes that.
        inside = self._blur.augment_image(tf.ones_like(image[:, :, :1]), transformation)
        return self._blur.augment_image(image, transformation) / inside

    def _grid_masked(self, image: tf.Tensor, draws: tf.Tensor, largest: float) -> tf.Tensor:
        """Returns the image behind a rotated grid of squares, of the sizes and spacings that keras-cv draws.

        draws: float32 [5] in [0, 1): spacing, side, offsets of rows and columns, angle. largest: the largest side of a
        square as a share of the spacing.
        """
        height, width = (tf.cast(side, tf.float32) for side in tf.unstack(tf.shape(image)[:2]))
        least = tf.minimum(0.5 * height, 0.3 * width)
        most = tf.maximum(0.5 * height, 0.3 * width) + 1
        unit = least + draws[0] * (most - least)
        side = draws[1] * largest * unit
        # As long as the diagonal, so that the grid covers the whole image however it is rotated.
        along = tf.range(tf.math.ceil(tf.sqrt(height**2 + width**2)))
        rows, columns = (tf.math.floormod(along + draws[i] * unit, unit) < side for i in (2, 3))
        grid = tf.cast(rows[:, None] & columns[None, :], tf.float32)[..., None]
        angle = (2 * draws[4] - 1) * (_LARGEST_TURN * 2 * math.pi)
        rotated = self._rotation.augment_images(grid[None], {"angles": angle[None]})[0]
        return self._grid.augment_image(image, (rotated, tf.broadcast_to(self._pixel, tf.shape(image))))

    def mix_batch(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Returns the batch without its random numbers, after CutMix if that is on.

        CutMix replaces a rectangle of image and label by that of another example of the batch, in the share `cut_mix`
        of the examples. The area of the rectangle is uniform in 0..1 of the image, its centre anywhere; what lies
        beyond the edge is cut off.
        """
        batch = dict(batch)
        draws = batch.pop(DRAWS)
        if not self._config.cut_mix:
            return batch
        chosen, order, area, row, column = tf.unstack(draws[:, 10:], axis=1)
        height, width = cast(tuple[int, int], tuple(batch["image"].shape[1:3]))
        side = tf.where(chosen < self._config.cut_mix, tf.sqrt(area), 0.0)
        numbers = [tf.cast(part, tf.int32) for part in (row * height, column * width, side * width, side * height)]
        for key in ("image", "label"):
            # The layer's method for masks takes the rectangle as an argument; the one for images, otherwise the same,
            # would draw another for the image than for the label.
            changed = self._cut_mix._update_segmentation_masks(batch[key], tf.argsort(order), *numbers)
            batch[key] = tf.ensure_shape(changed, batch[key].shape)
        return batch
