"""Sizes that follow from a ModelConfig: fixed inputs, the stride of the logits, another input size."""

import dataclasses
import functools
import math

from deeplab_tf.config import ModelConfig
from deeplab_tf.config.padding import padded_size as padded_size
from deeplab_tf.ops.resizing import scale_dimension

LARGEST_CROP = 769  # the release's largest crop of training, for Cityscapes


def crop_holding(side: float, stride: int = 16) -> int:
    """Returns the smallest k * stride + 1 that is at least `side`: there features and pixels are aligned."""
    return int(-(-(side - 1) // stride)) * stride + 1


def halved(size: tuple[int, int], stride: int = 16) -> tuple[int, int]:
    """Returns the largest k * stride + 1 by k * stride + 1 of about half the area, at least one stride a side."""
    height, width = (max(1, int((side * math.sqrt(0.5) - 1) // stride)) * stride + 1 for side in size)
    return min(height, size[0]), min(width, size[1])


def needs_fixed_size(config: ModelConfig) -> bool:
    """Returns whether the graph depends on the size of the images: a pooling window is part of it."""
    cell = config.dense_prediction_cell_json or ()
    return bool(config.image_pooling_crop_size) or any(branch.op == "pyramid_pooling" for branch in cell)


def logits_stride(config: ModelConfig) -> int:
    """Returns the stride of the logits: the last decoder stride, or the output stride.

    It is 1 in a network that rounds as a file of eight bits does, for the file rounds the upsampled logits too.
    """
    if config.quantized and config.quantize_as_file:
        return 1
    return min(config.decoder_output_stride or (config.output_stride,))


@functools.lru_cache(maxsize=256)
def at_size(
    config: ModelConfig,
    size: tuple[int, int] | None,
    *,
    scale: float = 1.0,
    pyramid: tuple[float, ...] | None = None,
) -> ModelConfig:
    """Returns the configuration of the same network for images of another size.

    Args:
      config: of the network.
      size: height and width of the images; None: any.
      scale: by which these images were resized; the pooling crop is resized alike.
      pyramid: the scales inside the graph.
    """
    crop = config.image_pooling_crop_size
    pooling = crop and (scale_dimension(crop[0], scale), scale_dimension(crop[1], scale))
    return dataclasses.replace(config, crop_size=size, image_pooling_crop_size=pooling, image_pyramid=pyramid)
