"""Extra augmentation by layers of keras-cv: colour jitter, Gaussian blur, grid mask, CutMix. All off by default.

Left to themselves the layers draw from generators whose numbers depend on all that ran before. So they draw nothing
here: each is given its transformation, made of numbers that follow from seed, epoch and record, and a run that resumes
sees the same pixels. Of the layers that leave labels sound under Keras 3 these are the ones that add to the release's
own scale, crop and flip.
"""

import math

import numpy as np
import tensorflow as tf

from deeplab_tf.config import DataConfig

DRAWS = "draws"  # key of an example's numbers in its batch, until `Augmentation.mixed`
_NUMBERS = 15
_PLACE = -2  # takes the place of a record's number in the key; records are 0 and more, -1 is the order's
_SEED = 1  # the layers make generators even where nothing is drawn; without a seed --deterministic forbids that
_TURN = 0.15  # of a full turn either way: keras-cv's default for the grid


def make_augmentation(config: DataConfig, pixel: tuple[float, ...]) -> "Augmentation | None":
    """Returns what a configuration asks for; None, and keras-cv is not imported, where all of it is off.

    `pixel` (RGB, 0..255) is what a grid hides pictures with: the colour of the network's padding.
    """
    asked = (config.color_jitter, config.gaussian_blur, config.grid_mask, config.cut_mix)
    return Augmentation(config, pixel) if any(asked) else None


class Augmentation:
    """The layers, and what they are told to do."""

    def __init__(self, config: DataConfig, pixel: tuple[float, ...]):
        from keras_cv import layers

        self._config, self._pixel = config, np.array(pixel, np.float32)
        options = {"seed": _SEED, "dtype": "float32"}
        # The layers' own factors matter only to what they would draw.
        ranged = (layers.RandomBrightness, layers.RandomContrast, layers.RandomHue)
        self._brightness, self._contrast, self._hue = (
            layer(factor=0.5, value_range=(0, 255), **options) for layer in ranged
        )
        self._saturation = layers.RandomSaturation(0.5, **options)
        size = 2 * math.ceil(3 * (config.gaussian_blur or 0)) + 1  # holds all but three thousandths of the bell
        self._blur = layers.RandomGaussianBlur(size, 1.0, **options)
        self._grid, self._rotation = layers.GridMask(**options), layers.RandomRotation(0.5, "constant", **options)
        self._cut_mix = layers.CutMix(**options)

    def draws(self, epoch_key: tf.Tensor, record: tf.Tensor) -> tf.Tensor:
        """Returns the numbers of an example, float32 [15] in [0, 1), from two int64: of seed and epoch, its number."""
        return tf.random.stateless_uniform([_NUMBERS], tf.stack([epoch_key, _PLACE - record]), alg="philox")

    def picture(self, image: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        """Returns an image, float32 [h, w, 3] in 0..255, in other colours, blurred, behind a grid; its label stays.

        To be used before padding, which keeps its colour.
        """
        config, shape = self._config, image.shape
        if config.color_jitter:
            image = self._jittered(image, draws[:4])
        if config.gaussian_blur:
            image = self._blurred(image, draws[4] * config.gaussian_blur)
        if config.grid_mask:
            image = self._hidden(image, draws[5:10])
        return tf.ensure_shape(image, shape)

    def _jittered(self, image: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        """Returns the image with brightness, contrast, saturation and hue changed, in keras-cv's order."""
        brightness, contrast, saturation, hue = tf.unstack((2 * draws - 1) * self._config.color_jitter)
        images = self._brightness.augment_images(image[None], brightness * 255)
        images = self._contrast.augment_images(images, 1 + contrast)
        factor = 1 + saturation
        images = self._saturation.augment_images(images, (factor / (1 + factor))[None])  # it makes f / (1 - f) of it
        return self._hue.augment_images(images, hue[None])[0]

    def _blurred(self, image: tf.Tensor, sigma: tf.Tensor) -> tf.Tensor:
        kernel = self._blur.get_kernel(tf.maximum(sigma, 1e-3), self._blur.x)
        transformation = tf.reshape(kernel, [-1, 1, 1, 1]), tf.reshape(kernel, [1, -1, 1, 1])
        # The layer takes what is beyond the edge for black; the share of the bell that lies inside makes up for it.
        inside = self._blur.augment_image(tf.ones_like(image[..., :1]), transformation)
        return self._blur.augment_image(image, transformation) / inside

    def _hidden(self, image: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        """Returns the image behind a turned grid of squares, as large and as far apart as keras-cv draws them."""
        height, width = (tf.cast(side, tf.float32) for side in tf.unstack(tf.shape(image)[:2]))
        least, most = tf.minimum(0.5 * height, 0.3 * width), tf.maximum(0.5 * height, 0.3 * width) + 1
        unit = least + draws[0] * (most - least)
        side = draws[1] * self._config.grid_mask * unit
        along = tf.range(tf.math.ceil(tf.sqrt(height**2 + width**2)))
        rows, columns = (tf.math.floormod(along + draws[i] * unit, unit) < side for i in (2, 3))
        grid = tf.cast(rows[:, None] & columns[None, :], tf.float32)[..., None]
        angle = (2 * draws[4] - 1) * (_TURN * 2 * math.pi)
        turned = self._rotation.augment_images(grid[None], {"angles": angle[None]})[0]
        return self._grid.augment_image(image, (turned, tf.broadcast_to(self._pixel, tf.shape(image))))

    def mixed(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Returns the batch without its numbers, and with CutMix: in the share `cut_mix` of its pictures a rectangle of
        image and label is that of another one.

        Its area is uniform in 0..1 of the picture, its centre anywhere (what is beyond the edge is lost).
        """
        batch = dict(batch)
        draws = batch.pop(DRAWS)
        if not self._config.cut_mix:
            return batch
        chosen, order, area, row, column = tf.unstack(draws[:, 10:], axis=1)
        height, width = batch["image"].shape[1:3]
        side = tf.where(chosen < self._config.cut_mix, tf.sqrt(area), 0.0)
        numbers = [tf.cast(part, tf.int32) for part in (row * height, column * width, side * width, side * height)]
        for key in ("image", "label"):
            # The layer's method for masks, as it takes the numbers; the one for images is the same and draws them.
            changed = self._cut_mix._update_segmentation_masks(batch[key], tf.argsort(order), *numbers)
            batch[key] = tf.ensure_shape(changed, batch[key].shape)
        return batch
