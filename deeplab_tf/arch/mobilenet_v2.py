"""MobileNetV2 without its classification tail (arXiv 1801.04381; release: slim's mobilenet_v2.py)."""

from deeplab_tf.arch.spec import Architecture, BackboneOptions, BatchNorm, Conv, InvertedResidual, Unit, make_divisible

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


def units(config: BackboneOptions) -> tuple[Unit, ...]:
    """Returns the rows.

    A depth multiplier other than 1 rounds channels to 1 instead of 8 (release: core/feature_extractor.py);
    `divisible_by` overrides the divisor but not the smallest width. Expansions stay multiples of 8.
    """
    smallest = 8 if config.depth_multiplier == 1.0 else 1
    divisor = config.divisible_by or smallest

    def width(channels: int) -> int:
        return make_divisible(channels * config.depth_multiplier, divisor, smallest)

    channels = width(32)
    rows: list[Unit] = [Conv("Conv", channels, stride=2, activation="relu6", end_point="layer_1")]
    for index, (filters, stride) in enumerate(_BLOCKS):
        rows.append(
            InvertedResidual(
                scope=block_scope(index),
                end_point=f"layer_{index + 2}",
                inputs=channels,
                expanded=make_divisible(6 * channels, 8) if index else channels,
                filters=width(filters),
                stride=stride,
                activation="relu6",
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
        scaled_by=("depth_multiplier", "divisible_by"),
        decoder_end_points={
            4: "layer_4/depthwise_output",
            8: "layer_7/depthwise_output",
            16: "layer_14/depthwise_output",
        },
    ),
)
