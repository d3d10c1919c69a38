"""Sizes that follow from a ModelConfig: padding, fixed inputs, the stride of the logits."""

import math

from deeplab_tf.config import ModelConfig


def padded_size(config: ModelConfig, height: int, width: int) -> tuple[int, int]:
    """Returns the size an image is padded to: the crop where it fits, else k * output_stride + 1.

    A pooling crop (MobileNetV3) is the smallest size its window fits into.
    """
    if config.crop_size and height <= config.crop_size[0] and width <= config.crop_size[1]:
        return config.crop_size
    smallest = config.image_pooling_crop_size or (1, 1)
    stride = config.output_stride
    sides = (max(side, least) for side, least in zip((height, width), smallest, strict=True))
    return tuple(math.ceil((side - 1) / stride) * stride + 1 for side in sides)


def needs_fixed_size(config: ModelConfig) -> bool:
    cell = config.dense_prediction_cell_json or ()
    return bool(config.image_pooling_crop_size) or any(branch.op == "pyramid_pooling" for branch in cell)


def logits_stride(config: ModelConfig) -> int:
    """Returns the stride of the logits: the last decoder stride, or the output stride."""
    return min(config.decoder_output_stride or (config.output_stride,))
