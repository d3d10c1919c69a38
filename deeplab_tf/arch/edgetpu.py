"""MobileNet EdgeTPU: fused inverted residuals first, ReLU throughout, the last 1x1 kept (slim's mobilenet_v3.py)."""

from deeplab_tf.arch.mobilenet_v2 import block_scope
from deeplab_tf.arch.spec import Architecture, BackboneOptions, Classifier, make_divisible
from deeplab_tf.arch.units import BatchNorm, Conv, InvertedResidual, Unit

# (fused, kernel, expansion factor, output, stride, residual allowed) at depth multiplier 1.
_BLOCKS = (
    (True, 1, 1, 16, 1, True),
    (True, 3, 8, 32, 2, True),
    *((True, 3, 4, 32, 1, True),) * 3,
    (True, 3, 8, 48, 2, True),
    *((True, 3, 4, 48, 1, True),) * 3,
    (False, 3, 8, 96, 2, True),
    *((False, 3, 4, 96, 1, True),) * 3,
    (False, 3, 8, 96, 1, False),
    *((False, 3, 4, 96, 1, True),) * 3,
    (False, 5, 8, 160, 2, True),
    *((False, 5, 4, 160, 1, True),) * 3,
    (False, 3, 8, 192, 1, True),
)


def units(config: BackboneOptions) -> tuple[Unit, ...]:
    """Returns the rows; every width is a multiple of 8 whatever the depth multiplier."""

    def width(channels: int) -> int:
        return make_divisible(channels * config.depth_multiplier, 8)

    channels = width(32)
    rows: list[Unit] = [Conv("Conv", channels, stride=2, end_point="layer_1")]
    for index, (fused, kernel, factor, filters, stride, residual) in enumerate(_BLOCKS):
        rows.append(
            InvertedResidual(
                scope=block_scope(index),
                end_point=f"layer_{index + 2}",
                inputs=channels,
                expanded=make_divisible(factor * channels, 8) if factor > 1 else channels,
                filters=width(filters),
                kernel=kernel,
                stride=stride,
                fused=fused,
                residual=residual,
            )
        )
        channels = width(filters)
    return (*rows, Conv("Conv_1", width(1280), kernel=1, end_point=f"layer_{len(_BLOCKS) + 2}"))


ARCHITECTURES = (
    Architecture(
        name="mobilenet_edgetpu",
        scope="MobilenetEdgeTPU",
        units=units,
        batch_norm=BatchNorm(decay=0.997, epsilon=1e-3),
        bare_end_points=True,
        scaled_by=("depth_multiplier",),
        classifier=Classifier(logits="Logits/Conv2d_1c_1x1"),
        smallest_output_stride=8,
    ),
)
