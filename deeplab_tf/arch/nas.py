"""The searched backbones: PNASNet's cell and Auto-DeepLab's (arXiv 1712.00559, 1901.02985; release: nas_network.py)."""

from collections.abc import Callable, Sequence

from deeplab_tf.arch.spec import Architecture, BackboneOptions, strides_and_rates
from deeplab_tf.arch.units import Activation, BatchNorm, Combination, Conv, NasCell, Unit

_PNAS: tuple[Combination, ...] = (
    ((1, "separable_5x5"), (1, "max_3x3")),
    ((0, "separable_7x7"), (0, "max_3x3")),
    ((0, "separable_5x5"), (0, "separable_3x3")),
    ((4, "separable_3x3"), (0, "max_3x3")),
    ((1, "separable_3x3"), (0, "none")),
)
_HNAS: tuple[Combination, ...] = (
    ((1, "atrous_5x5"), (0, "separable_3x3")),
    ((1, "separable_3x3"), (0, "atrous_3x3")),
    ((3, "separable_3x3"), (1, "separable_3x3")),
    ((4, "separable_5x5"), (2, "separable_5x5")),
    ((3, "separable_5x5"), (5, "atrous_5x5")),
)
# The level of each cell: PNASNet's by output stride, Auto-DeepLab's always the same.
_PNAS_LEVELS = {8: (1,) * 12, 16: (1,) * 4 + (2,) * 8, 32: (1,) * 4 + (2,) * 4 + (3,) * 4}
_HNAS_LEVELS = (0, 0, 0, 1, 2, 1, 2, 2, 3, 3, 2, 1)

_STEM: tuple[Unit, ...] = (
    Conv("conv0", 64, stride=2, explicit_padding=True, norm_scope="conv0_bn"),
    Conv("conv1", 64, norm_scope="conv1_bn", keep_for_cells=True),
    Conv(
        "conv2",
        128,
        stride=2,
        explicit_padding=True,
        norm_scope="conv2_bn",
        activation=None,
        end_point="Stem",
        keep_for_cells=True,
    ),
)


def cells(levels: Sequence[int], operations: tuple[Combination, ...], config: BackboneOptions) -> tuple[NasCell, ...]:
    """Returns the cells that visit `levels` (level n has stride 4 * 2**n).

    A step up has stride 2 and doubles the width, a step down enlarges the running tensor and halves the width.
    """
    rows: list[NasCell] = []
    level = 0
    scale = 1.0
    for index, target in enumerate(levels):
        # With nas_remove_os32_stride a step to or from level 3 changes the width alone.
        same_size = config.nas_remove_os32_stride and 3 in (level, target)
        scale *= 2.0 ** (target - level)
        rows.append(
            NasCell(
                scope=f"cell_{index}",
                end_point=f"Cell_{index}",
                filters=int(config.nas_stem_output_num_conv_filters * scale),
                level=min(target, 2) if config.nas_remove_os32_stride else target,
                operations=operations,
                stride=2 if target > level and not same_size else 1,
                enlarge=target < level and not same_size,
                depth=(index + 1) / len(levels),
            )
        )
        level = target
    return tuple(rows)


def _classification_head(stride: int, output_stride: int) -> list[Unit]:
    steps = [step for step in (8, 16, 32) if step > stride]
    walk = strides_and_rates([stride] + [2] * len(steps), max(output_stride, stride))[1:]
    rows: list[Unit] = [
        Conv(
            f"downsample_os{step}_conv",
            32 * step,
            stride=kept,
            rate=rate,
            explicit_padding=True,
            norm_scope=f"downsample_os{step}_bn",
        )
        for step, (kept, rate) in zip(steps, walk, strict=True)
    ]
    head = "classification_head"
    return [*rows, Conv(f"{head}_conv", 2048, kernel=1, norm_scope=f"{head}_bn")]


_LevelsOf = Callable[[int], Sequence[int]]


def _units(levels_of: _LevelsOf, operations: tuple[Combination, ...], config: BackboneOptions) -> tuple[Unit, ...]:
    rows = cells(levels_of(config.output_stride), operations, config)
    units: tuple[Unit, ...] = (*_STEM, *rows, Activation())
    if config.nas_use_classification_head:
        units += tuple(_classification_head(4 * 2 ** rows[-1].level, config.output_stride))
    return units


def _architecture(
    name: str, levels_of: _LevelsOf, operations: tuple[Combination, ...], taps: tuple[str, str, str]
) -> Architecture:
    """`levels_of` gives the cells' levels at an output stride, `taps` are what a decoder reads at strides 4, 8, 16."""
    return Architecture(
        name=f"nas_{name}",
        scope=name,
        units=lambda config: _units(levels_of, operations, config),
        batch_norm=BatchNorm(decay=0.9997, epsilon=1e-3),
        decoder_end_points=dict(zip((4, 8, 16), taps, strict=True)),
        initializer="nas",
        bare_end_points=True,
        smallest_output_stride=8,
        strides_from_rows=True,
    )


ARCHITECTURES = (
    _architecture("pnasnet", lambda output_stride: _PNAS_LEVELS[output_stride], _PNAS, ("Stem", "Cell_3", "Cell_7")),
    _architecture("hnasnet", lambda output_stride: _HNAS_LEVELS, _HNAS, ("Cell_2", "Cell_5", "Cell_7")),
)
