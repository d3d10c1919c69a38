"""A network of our own for tests, tutorials and first runs: MobileNetV2's units, few and narrow (no release has it).

It learns the `shapes` data set in minutes on a CPU, and shallow as it is, rounding does not grow in its batch norms:
runs on one device and on several can be compared digit by digit.
"""

from deeplab_tf.arch.spec import Architecture, BackboneOptions
from deeplab_tf.arch.units import BatchNorm, Conv, InvertedResidual, Unit

# (output channels, stride) of layers 2 to 6; every block expands three times.
_BLOCKS = ((24, 2), (24, 1), (32, 2), (48, 2), (64, 2))
_STEM = 16


def units(config: BackboneOptions) -> tuple[Unit, ...]:
    """Returns the rows; no option changes them."""
    del config
    rows: list[Unit] = [Conv("Conv", _STEM, stride=2, activation="relu6", end_point="layer_1")]
    channels = _STEM
    for index, (filters, stride) in enumerate(_BLOCKS, start=1):
        rows.append(
            InvertedResidual(
                scope=f"block_{index}",
                end_point=f"layer_{index + 1}",
                inputs=channels,
                expanded=3 * channels,
                filters=filters,
                stride=stride,
                activation="relu6",
            )
        )
        channels = filters
    return tuple(rows)


ARCHITECTURES = (
    Architecture(
        name="tiny",
        scope="Tiny",
        units=units,
        batch_norm=BatchNorm(decay=0.99, epsilon=1e-3),
        bare_end_points=True,
        decoder_end_points={4: "layer_3/depthwise_output", 8: "layer_4/depthwise_output"},
    ),
)
