"""ResNet v1 with 18, 50 and 101 layers, and the beta forms with a stem of three 3x3 (release: resnet_v1_beta.py).

`cascade_blocks` puts copies of block4 behind it: block5, block6, block7 (arXiv 1706.05587, section 3.2).
"""

from typing import Literal

from deeplab_tf.arch.spec import (
    CAFFE_MEAN,
    NORM_OPTIONS,
    RGB_MEAN,
    SCALE_PIXEL,
    TORCH_MEAN,
    Architecture,
    BackboneOptions,
    Classifier,
)
from deeplab_tf.arch.units import BatchNorm, Conv, MaxPool, ResNetUnit, Unit

# Units in each block; the last unit of every block but the last one has stride 2. In PyTorch the first unit of every
# block but the first one has.
_UNITS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
_Kind = Literal["", "_beta", "_caffe", "_pytorch"]


def _stem(depth: int, kind: _Kind) -> list[Unit]:
    if kind != "_beta":
        stem = Conv("conv1", 64, kernel=7, stride=2, explicit_padding=True, end_point="conv1")
        return [stem, MaxPool(explicit_padding=kind in ("_caffe", "_pytorch"))]
    widths = (16, 16, 32) if depth == 18 else (64, 64, 128)
    return [
        Conv("conv1_1", widths[0], stride=2, explicit_padding=True, end_point="conv1_1"),
        Conv("conv1_2", widths[1], end_point="conv1_2"),
        Conv("conv1_3", widths[2], end_point="conv1_3"),
        MaxPool(),
    ]


def _block(depth: int, block: int, stride: int, grid: tuple[int, ...], *, strided: int) -> list[Unit]:
    """Returns the units of a block, of which number `strided` has the stride."""
    kind = "lite_bottleneck_v1" if depth == 18 else "bottleneck_v1"
    width = 32 * 2 ** min(block, 4)
    count = len(grid)
    return [
        ResNetUnit(
            scope=f"block{block}/unit_{n}/{kind}",
            filters=width if depth == 18 else 4 * width,
            bottleneck=None if depth == 18 else width,
            stride=stride if n == strided else 1,
            rate=grid[n - 1],
            ends_block=f"block{block}" if n == count else None,
        )
        for n in range(1, count + 1)
    ]


def _units(depth: int, kind: _Kind, config: BackboneOptions) -> tuple[Unit, ...]:
    rows = _stem(depth, kind)
    last = 4 + config.cascade_blocks
    for block in range(1, last + 1):
        count = _UNITS[depth][min(block, 4) - 1]
        grid = (config.multi_grid if block >= 4 else None) or (1,) * count
        if kind == "_pytorch":
            rows += _block(depth, block, 1 if block == 1 else 2, grid, strided=1)
        else:
            rows += _block(depth, block, 1 if block == last else 2, grid, strided=count)
    return tuple(rows)


def _architecture(depth: int, kind: _Kind) -> Architecture:
    scope = f"resnet_v1_{depth}"
    if depth == 18:
        taps = {4 * 2**i: f"{scope}/block{i + 1}/unit_1/lite_bottleneck_v1/conv2" for i in range(3)}
    else:
        units = {4: "block1/unit_2", 8: "block2/unit_3", 16: f"block3/unit_{_UNITS[depth][2] - 1}"}
        taps = {stride: f"{scope}/{unit}/bottleneck_v1/conv3" for stride, unit in units.items()}
    mean = {"_caffe": CAFFE_MEAN, "_pytorch": TORCH_MEAN}.get(kind, RGB_MEAN)
    pytorch = kind == "_pytorch"
    return Architecture(
        name=scope + kind,
        scope=scope,
        units=lambda config: _units(depth, kind, config),
        batch_norm=BatchNorm(decay=0.9 if pytorch else 0.95, epsilon=1e-5),
        preprocessing="scale" if kind == "_beta" else "subtract_mean",
        mean=mean,
        # The release pads resnet_v1_18 with 127.5 although its network subtracts the mean.
        pad_pixel=SCALE_PIXEL if kind == "_beta" or depth == 18 else mean,
        decoder_end_points=taps,
        initializer="resnet",
        smallest_output_stride=8 if pytorch else 4,
        usual_output_stride=8 if pytorch else None,
        multi_grid_length=0 if pytorch else _UNITS[depth][3],
        cascades=not pytorch,
        classifier=None if pytorch or kind == "_caffe" else Classifier(),
        takes=NORM_OPTIONS,
    )


_RELEASED: tuple[_Kind, ...] = ("", "_beta")

ARCHITECTURES = (
    *(_architecture(depth, kind) for depth in (18, 50, 101) for kind in _RELEASED),
    # DeepLab-v2's ResNet-101: the same variables, with the mean and the padding of its Caffe model.
    _architecture(101, "_caffe"),
    # torchvision's backbones: the same variables, with the strides elsewhere and the pooling of the Caffe model.
    _architecture(50, "_pytorch"),
    _architecture(101, "_pytorch"),
)
