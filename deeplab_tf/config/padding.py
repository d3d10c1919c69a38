"""The size that a network's images are padded to (`padded_size`), and what it costs to run them (`counted_size`)."""

import math

from deeplab_tf.config.model import ModelConfig

_LEAST_SIDE = 33  # pixels: a row of one pixel takes a network about as long as one of so many


def padded_size(config: ModelConfig, height: int, width: int) -> tuple[int, int]:
    """Returns the size an image is padded to: the crop where it fits, else k * output_stride + 1.

    A pooling crop (MobileNetV3) is the smallest size its window fits into.
    """
    if config.crop_size and height <= config.crop_size[0] and width <= config.crop_size[1]:
        return config.crop_size
    smallest = config.image_pooling_crop_size or (1, 1)
    stride = config.output_stride
    rows, columns = (
        math.ceil((max(side, least) - 1) / stride) for side, least in ((height, smallest[0]), (width, smallest[1]))
    )
    return rows * stride + 1, columns * stride + 1


def counted_size(config: ModelConfig, height: int, width: int) -> tuple[int, int]:
    """Returns the size whose pixels tell what it costs to run an image: as it is padded, and no side a mere few."""
    rows, columns = padded_size(config, height, width)
    return max(rows, _LEAST_SIDE), max(columns, _LEAST_SIDE)
