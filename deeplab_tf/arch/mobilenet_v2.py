"""MobileNetV2 without its classification tail (arXiv 1801.04381; release: slim's mobilenet_v2.py)."""

import functools

from deeplab_tf.arch.spec import LETTERBOX_PIXEL, Architecture, BackboneOptions, Classifier, make_divisible
from deeplab_tf.arch.units import BatchNorm, Conv, InvertedResidual, Unit

# (output channels, stride) of layers 2 to 18 at depth multiplier 1; every block but the first expands six times.
_BLOCKS = (
    (16, 1),
    *((24, 2), (24, 1)),
    *((32, 2), (32, 1), (32, 1)),
    *((64, 2), (64, 1), (64, 1), (64, 1)),
    *((96, 1), (96, 1), (96, 1)),
    *((160, 2), (160, 1), (160, 1)),
    (320, 1),
)


def block_scope(index: int) -> str:
    """Returns the TF1 scope of inverted residual number `index`, from 0."""
    return f"expanded_conv_{index}" if index else "expanded_conv"


def units(config: BackboneOptions, *, explicit_padding: bool = False) -> tuple[Unit, ...]:
    """Returns the rows, whose strided convolutions pad explicitly where either argument says so.

    A depth multiplier other than 1 rounds channels to 1 instead of 8 (release: core/feature_extractor.py);
    `divisible_by` overrides the divisor but not the smallest width. Expansions stay multiples of 8. With
    `smallest_width` all of it is as in transformers' modeling_mobilenet_v2.py: expansions have the same divisor, and
    products are rounded to whole numbers first.
    """
    free = 8 if config.depth_multiplier == 1.0 else 1
    divisor = config.divisible_by or free
    smallest = config.smallest_width

    def width(channels: int) -> int:
        scaled = channels * config.depth_multiplier
        return make_divisible(scaled if smallest is None else round(scaled), divisor, smallest or free)

    def expansion(inputs: int) -> int:
        expanded = inputs * config.expand_ratio
        return make_divisible(expanded, 8) if smallest is None else make_divisible(round(expanded), divisor, smallest)

    channels = width(32)
    padding = config.fixed_padding or explicit_padding
    first = Conv("Conv", channels, stride=2, activation="relu6", end_point="layer_1", explicit_padding=padding)
    rows: list[Unit] = [first]
    for index, (filters, stride) in enumerate(_BLOCKS):
        rows.append(
            InvertedResidual(
                scope=block_scope(index),
                end_point=f"layer_{index + 2}",
                inputs=channels,
                expanded=expansion(channels) if index else channels,
                filters=width(filters),
                stride=stride,
                activation="relu6",
                explicit_padding=padding,
                always_expands=bool(index) or config.expand_first_block,
            )
        )
        channels = width(filters)
    return tuple(rows)


ARCHITECTURES = (
    Architecture(
        name="mobilenet_v2",
        scope="MobilenetV2",
        units=units,
        batch_norm=BatchNorm(decay=0.997, epsilon=1e-3),
        bare_end_points=True,
        classifier=Classifier(logits="Logits/Conv2d_1c_1x1", tail="Conv_1"),
        scaled_by=("depth_multiplier", "divisible_by"),
        takes=("smallest_width", "expand_ratio", "expand_first_block", "fixed_padding"),
        decoder_end_points={
            4: "layer_4/depthwise_output",
            8: "layer_7/depthwise_output",
            16: "layer_14/depthwise_output",
        },
    ),
    # The backbone of a public PyTorch implementation of DeepLab-v3+ (bubbliiiing/deeplabv3-plus-pytorch): the same
    # variables; its decoder reads the second block of 24 channels.
    Architecture(
        name="mobilenet_v2_pytorch",
        scope="MobilenetV2",
        units=functools.partial(units, explicit_padding=True),
        batch_norm=BatchNorm(decay=0.9, epsilon=1e-5),
        preprocessing="unit",
        pad_pixel=LETTERBOX_PIXEL,
        bare_end_points=True,
        decoder_end_points={4: "layer_4/output"},
        letterbox=512,
    ),
    # That of the same author's Keras implementation (bubbliiiing/deeplabv3-plus-keras and -tf2), which follows the
    # release but for what its decoder reads.
    Architecture(
        name="mobilenet_v2_tf2",
        scope="MobilenetV2",
        units=units,
        batch_norm=BatchNorm(decay=0.999, epsilon=1e-3),
        pad_pixel=LETTERBOX_PIXEL,
        bare_end_points=True,
        decoder_end_points={4: "layer_4/output"},
        smallest_output_stride=8,
        letterbox=512,
    ),
)
