"""The modified aligned Xception: 41, 65 and 71 layers (arXiv 1802.02611, section 3.2; release: core/xception.py)."""

from deeplab_tf.arch.spec import LETTERBOX_PIXEL, Architecture, BackboneOptions, Classifier
from deeplab_tf.arch.units import BatchNorm, Conv, Skip, Unit, XceptionUnit

# (scope, widths of the three separable convolutions, skip, stride, number of units)
_Block = tuple[str, tuple[int, int, int], Skip, int, int]
_ENTRY_41: tuple[_Block, ...] = (
    ("entry_flow/block1", (128, 128, 128), "conv", 2, 1),
    ("entry_flow/block2", (256, 256, 256), "conv", 2, 1),
    ("entry_flow/block3", (728, 728, 728), "conv", 2, 1),
)
_ENTRY_71: tuple[_Block, ...] = (
    ("entry_flow/block1", (128, 128, 128), "conv", 2, 1),
    ("entry_flow/block2", (256, 256, 256), "conv", 1, 1),
    ("entry_flow/block3", (256, 256, 256), "conv", 2, 1),
    ("entry_flow/block4", (728, 728, 728), "conv", 1, 1),
    ("entry_flow/block5", (728, 728, 728), "conv", 2, 1),
)


def _blocks(
    entry: tuple[_Block, ...], middle_units: int, *, middle_skip: Skip = "sum", exit_stride: int = 2
) -> tuple[_Block, ...]:
    return (
        *entry,
        ("middle_flow/block1", (728, 728, 728), middle_skip, 1, middle_units),
        ("exit_flow/block1", (728, 1024, 1024), "conv", exit_stride, 1),
        ("exit_flow/block2", (1536, 1536, 2048), "none", 1, 1),
    )


def units(blocks: tuple[_Block, ...], config: BackboneOptions, *, explicit_padding: bool = True) -> tuple[Unit, ...]:
    """Returns the rows of `blocks`; the last block takes `config.multi_grid` and activates inside.

    The first convolution pads as `explicit_padding` says.
    """
    first = "entry_flow/conv1_1"
    rows: list[Unit] = [
        Conv(first, 32, stride=2, explicit_padding=explicit_padding, end_point=first),
        Conv("entry_flow/conv1_2", 64, end_point="entry_flow/conv1_2"),
    ]
    for block, filters, skip, stride, count in blocks:
        last = block == blocks[-1][0]
        rates = (config.multi_grid or (1, 1, 1)) if last else (1, 1, 1)
        rows += [
            XceptionUnit(
                scope=f"{block}/unit_{n}/xception_module",
                filters=filters,
                skip=skip,
                stride=stride,
                activation_inside=last,
                rates=rates,
                ends_block=block if n == count else None,
            )
            for n in range(1, count + 1)
        ]
    return tuple(rows)


def _architecture(name: str, blocks: tuple[_Block, ...], taps: tuple[str, str, str]) -> Architecture:
    """`taps` are the blocks that a decoder reads at strides 4, 8, 16."""
    tap = "{}/{}/unit_1/xception_module/separable_conv2_pointwise"
    return Architecture(
        name=name,
        scope=name,
        units=lambda config: units(blocks, config),
        batch_norm=BatchNorm(decay=0.9997, epsilon=1e-3),
        decoder_end_points={stride: tap.format(name, block) for stride, block in zip((4, 8, 16), taps, strict=True)},
        bounded=True,
        smallest_output_stride=2,
        multi_grid_length=3,
        classifier=Classifier(side=299),
    )


_TAPS_41 = ("entry_flow/block2", "entry_flow/block3", "exit_flow/block1")
# The backbone of a public PyTorch implementation of DeepLab-v3+ (bubbliiiing/deeplabv3-plus-pytorch): the variables of
# xception_65. Its exit flow has no stride; its middle flow adds the input as its first activation leaves it, because
# that one works in place.
_XCEPTION_65_PYTORCH = Architecture(
    name="xception_65_pytorch",
    scope="xception_65",
    units=lambda config: units(_blocks(_ENTRY_41, 16, middle_skip="rectified_sum", exit_stride=1), config),
    batch_norm=BatchNorm(decay=0.9997, epsilon=1e-5),
    preprocessing="unit",
    pad_pixel=LETTERBOX_PIXEL,
    decoder_end_points={4: "xception_65/entry_flow/block2/unit_1/xception_module/separable_conv2_pointwise"},
    smallest_output_stride=2,
    nominal_output_stride=16,
    letterbox=512,
)
# That of the same author's Keras implementation (bubbliiiing/deeplabv3-plus-keras and -tf2), which follows the release
# but for the padding of its first convolution, SAME, and so reads other pixels of a map of even sides.
_XCEPTION_65_TF2 = Architecture(
    name="xception_65_tf2",
    scope="xception_65",
    units=lambda config: units(_blocks(_ENTRY_41, 16), config, explicit_padding=False),
    batch_norm=BatchNorm(decay=0.99, epsilon=1e-3),
    pad_pixel=LETTERBOX_PIXEL,
    decoder_end_points=_XCEPTION_65_PYTORCH.decoder_end_points,
    smallest_output_stride=8,
    letterbox=512,
)

_TAPS_71 = ("entry_flow/block3", "entry_flow/block5", "exit_flow/block1")

ARCHITECTURES = (
    _architecture("xception_41", _blocks(_ENTRY_41, 8), _TAPS_41),
    _architecture("xception_65", _blocks(_ENTRY_41, 16), _TAPS_41),
    _architecture("xception_71", _blocks(_ENTRY_71, 16), _TAPS_71),
    _XCEPTION_65_PYTORCH,
    _XCEPTION_65_TF2,
)
