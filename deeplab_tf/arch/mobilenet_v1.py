"""MobileNetV1 without its classifier, a row of MobileNetV2's table (arXiv 1704.04861; slim's mobilenet_v1.py)."""

from deeplab_tf.arch.spec import Architecture, BackboneOptions, Classifier
from deeplab_tf.arch.units import BatchNorm, Conv, SeparableUnit, Unit

# (output channels, stride) of the separable convolutions at depth multiplier 1.
_BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))


def units(config: BackboneOptions) -> tuple[Unit, ...]:
    """Returns the rows; widths are at least 8 and otherwise truncated, as slim's are."""

    def width(channels: int) -> int:
        return max(int(channels * config.depth_multiplier), 8)

    rows: list[Unit] = [Conv("Conv2d_0", width(32), stride=2, activation="relu6", end_point="Conv2d_0")]
    for index, (filters, stride) in enumerate(_BLOCKS, start=1):
        rows.append(SeparableUnit(f"Conv2d_{index}", width(filters), stride=stride, activation="relu6"))
    return tuple(rows)


ARCHITECTURES = (
    Architecture(
        name="mobilenet_v1",
        scope="MobilenetV1",
        units=units,
        batch_norm=BatchNorm(decay=0.9997, epsilon=1e-3),
        bare_end_points=True,
        scaled_by=("depth_multiplier",),
        classifier=Classifier(logits="Logits/Conv2d_1c_1x1"),
    ),
)
