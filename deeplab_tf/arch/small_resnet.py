"""A small residual network of our own, the embedded checkpoint's (no release has it).

ResNet's lite units behind a strided 3x3 convolution a block. On a CPU its plain convolutions learn the `shapes` data
set in half the time of MobileNetV2's depthwise ones, which wait for memory.
"""

from deeplab_tf.arch.spec import NORM_OPTIONS, Architecture, BackboneOptions
from deeplab_tf.arch.units import BatchNorm, Conv, ResNetUnit, Unit

_STEM = 24
# Channels of the three blocks, each a strided convolution and two units.
_BLOCKS = (48, 96, 128)


def units(config: BackboneOptions) -> tuple[Unit, ...]:
    """Returns the rows; no option changes them. The very last unit's stride leads from 16 to 32."""
    del config
    rows: list[Unit] = [Conv("conv1", _STEM, stride=2, end_point="conv1")]
    for block, filters in enumerate(_BLOCKS, start=1):
        scope = f"block{block}"
        rows += [
            Conv(f"{scope}/conv1", filters, stride=2, end_point=f"{scope}/conv1"),
            ResNetUnit(scope=f"{scope}/unit_1", filters=filters, bottleneck=None),
            ResNetUnit(
                scope=f"{scope}/unit_2",
                filters=filters,
                bottleneck=None,
                stride=2 if block == len(_BLOCKS) else 1,
                ends_block=scope,
            ),
        ]
    return tuple(rows)


_SCOPE = "SmallResNet"

ARCHITECTURES = (
    Architecture(
        name="small_resnet",
        scope=_SCOPE,
        units=units,
        batch_norm=BatchNorm(decay=0.99, epsilon=1e-3),
        takes=NORM_OPTIONS,
        decoder_end_points={4: f"{_SCOPE}/block1/unit_2/conv2", 8: f"{_SCOPE}/block2/unit_2/conv2"},
    ),
)
