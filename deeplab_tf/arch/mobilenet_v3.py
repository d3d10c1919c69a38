"""MobileNetV3 large and small for segmentation: the last block halved (arXiv 1905.02244; slim's mobilenet_v3.py)."""

from deeplab_tf.arch.mobilenet_v2 import block_scope
from deeplab_tf.arch.spec import Architecture, BackboneOptions, make_divisible
from deeplab_tf.arch.units import ActivationName, BatchNorm, Conv, InvertedResidual, Unit

# (kernel, expanded, output, squeeze-and-excite, activation, stride) at depth multiplier 1.
_Block = tuple[int, int, int, bool, ActivationName, int]
_LARGE: tuple[_Block, ...] = (
    (3, 16, 16, False, "relu", 1),
    (3, 64, 24, False, "relu", 2),
    (3, 72, 24, False, "relu", 1),
    (5, 72, 40, True, "relu", 2),
    (5, 120, 40, True, "relu", 1),
    (5, 120, 40, True, "relu", 1),
    (3, 240, 80, False, "hard_swish", 2),
    (3, 200, 80, False, "hard_swish", 1),
    (3, 184, 80, False, "hard_swish", 1),
    (3, 184, 80, False, "hard_swish", 1),
    (3, 480, 112, True, "hard_swish", 1),
    (3, 672, 112, True, "hard_swish", 1),
    (5, 336, 80, True, "hard_swish", 2),
    (5, 480, 80, True, "hard_swish", 1),
    (5, 480, 80, True, "hard_swish", 1),
)
_SMALL: tuple[_Block, ...] = (
    (3, 16, 16, True, "relu", 2),
    (3, 72, 24, False, "relu", 2),
    (3, 88, 24, False, "relu", 1),
    (5, 96, 40, True, "hard_swish", 2),
    (5, 240, 40, True, "hard_swish", 1),
    (5, 240, 40, True, "hard_swish", 1),
    (5, 120, 48, True, "hard_swish", 1),
    (5, 144, 48, True, "hard_swish", 1),
    (5, 144, 48, True, "hard_swish", 2),
    (5, 288, 48, True, "hard_swish", 1),
    (5, 288, 48, True, "hard_swish", 1),
)


def _units(blocks: tuple[_Block, ...], last: int, config: BackboneOptions) -> tuple[Unit, ...]:
    def width(channels: float) -> int:
        return make_divisible(channels * config.depth_multiplier, 8)

    nominal = 16
    channels = width(nominal)
    rows: list[Unit] = [Conv("Conv", channels, stride=2, activation="hard_swish", end_point="layer_1")]
    for index, (kernel, expanded, filters, squeeze, activation, stride) in enumerate(blocks):
        expanded = make_divisible(expanded / nominal * channels, 8)
        rows.append(
            InvertedResidual(
                scope=block_scope(index),
                end_point=f"layer_{index + 2}",
                inputs=channels,
                expanded=expanded,
                filters=width(filters),
                kernel=kernel,
                stride=stride,
                activation=activation,
                squeeze=make_divisible(expanded / 4, 8) if squeeze else None,
            )
        )
        nominal = filters
        channels = width(filters)
    end_point = f"layer_{len(blocks) + 2}"
    return (*rows, Conv("Conv_1", width(last), kernel=1, activation="hard_swish", end_point=end_point))


def _architecture(name: str, blocks: tuple[_Block, ...], last: int, taps: tuple[int, int, int]) -> Architecture:
    """`last` is the width of the last 1x1 convolution, `taps` the layers that a decoder reads at strides 4, 8, 16."""
    return Architecture(
        name=name,
        scope="MobilenetV3",
        units=lambda config: _units(blocks, last, config),
        batch_norm=BatchNorm(decay=0.997, epsilon=1e-3),
        bare_end_points=True,
        scaled_by=("depth_multiplier",),
        usual_output_stride=32,
        gate_is_q_sigmoid=True,
        decoder_end_points={s: f"layer_{n}/depthwise_output" for s, n in zip((4, 8, 16), taps, strict=True)},
    )


ARCHITECTURES = (
    _architecture("mobilenet_v3_large_seg", _LARGE, 480, (4, 7, 13)),
    _architecture("mobilenet_v3_small_seg", _SMALL, 288, (2, 4, 9)),
)
