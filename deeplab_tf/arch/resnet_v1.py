"""ResNet v1 with 18, 50 and 101 layers, and the beta forms with a stem of three 3x3 (release: resnet_v1_beta.py)."""

from deeplab_tf.arch.spec import RGB_MEAN, SCALE_PIXEL, Architecture, BatchNorm, Conv, MaxPool, ResNetUnit, Unit

# Units in each block; the stride of blocks 1 to 3 is on their last unit.
_UNITS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
_STRIDES = (2, 2, 2, 1)


def _stem(depth: int, beta: bool) -> list[Unit]:
    if not beta:
        return [Conv("conv1", 64, kernel=7, stride=2, explicit_padding=True, end_point="conv1"), MaxPool()]
    widths = (16, 16, 32) if depth == 18 else (64, 64, 128)
    return [
        Conv("conv1_1", widths[0], stride=2, explicit_padding=True, end_point="conv1_1"),
        Conv("conv1_2", widths[1], end_point="conv1_2"),
        Conv("conv1_3", widths[2], end_point="conv1_3"),
        MaxPool(),
    ]


def _units(depth: int, beta: bool, config) -> tuple[Unit, ...]:
    rows = _stem(depth, beta)
    kind = "lite_bottleneck_v1" if depth == 18 else "bottleneck_v1"
    for block, (count, stride) in enumerate(zip(_UNITS[depth], _STRIDES, strict=True), start=1):
        width = 32 * 2**block
        grid = (config.multi_grid or (1,) * count) if block == 4 else (1,) * count
        rows += [
            ResNetUnit(
                scope=f"block{block}/unit_{n}/{kind}",
                filters=width if depth == 18 else 4 * width,
                bottleneck=None if depth == 18 else width,
                stride=stride if n == count else 1,
                rate=grid[n - 1],
                ends_block=f"block{block}" if n == count else None,
            )
            for n in range(1, count + 1)
        ]
    return tuple(rows)


def _architecture(depth: int, beta: bool) -> Architecture:
    scope = f"resnet_v1_{depth}"
    if depth == 18:
        taps = {4 * 2**i: f"{scope}/block{i + 1}/unit_1/lite_bottleneck_v1/conv2" for i in range(3)}
    else:
        units = {4: "block1/unit_2", 8: "block2/unit_3", 16: f"block3/unit_{_UNITS[depth][2] - 1}"}
        taps = {stride: f"{scope}/{unit}/bottleneck_v1/conv3" for stride, unit in units.items()}
    return Architecture(
        name=scope + ("_beta" if beta else ""),
        scope=scope,
        units=lambda config: _units(depth, beta, config),
        batch_norm=BatchNorm(decay=0.95, epsilon=1e-5),
        preprocessing="scale" if beta else "subtract_mean",
        # The release pads resnet_v1_18 with 127.5 although its network subtracts the mean.
        pad_pixel=SCALE_PIXEL if beta or depth == 18 else RGB_MEAN,
        decoder_end_points=taps,
        initializer="resnet",
        smallest_output_stride=4,
        multi_grid_length=_UNITS[depth][3],
    )


ARCHITECTURES = tuple(_architecture(depth, beta) for depth in (18, 50, 101) for beta in (False, True))
