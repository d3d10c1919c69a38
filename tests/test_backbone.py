"""What the release's own tests state of its backbones and heads, on small networks made of our rows."""

import itertools

import keras
import numpy as np
import pytest
from conftest import fill
from networks import reduced

from deeplab_tf.arch import ARCHITECTURES, dense_prediction_cell, nas
from deeplab_tf.arch.spec import Architecture, make_divisible, strides_and_rates
from deeplab_tf.arch.units import Activation, BatchNorm, Conv, MaxPool, ResNetUnit, XceptionUnit
from deeplab_tf.config import ModelConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.network.backbone import backbone, build_backbone
from deeplab_tf.network.build import build_model
from deeplab_tf.network.graph import Graph

DEFAULT = ModelConfig()


def build(architecture: Architecture, *, size=(None, None), output_stride=None, config=DEFAULT) -> keras.Model:
    images = keras.Input((*size, 3))
    features, end_points = backbone(
        Graph(zeros=True), images, config, architecture=architecture, output_stride=output_stride
    )
    return keras.Model(images, {"features": features, **end_points})


def end_point_shapes(model: keras.Model) -> dict[str, tuple[int, ...]]:
    return {name: x.shape[1:] for name, x in model.output.items() if name != "features"}


def ramp(*shape: int) -> np.ndarray:
    rows, columns = np.arange(shape[1])[:, None, None], np.arange(shape[2])[:, None]
    return np.broadcast_to(rows + columns, shape).astype(np.float32)


def assert_atrous_equivalence(architecture: Architecture, images: np.ndarray, tolerance: float):
    nominal = build(architecture)
    fill(nominal)
    expected = np.asarray(nominal(images, training=False)["features"])
    assert np.std(expected) > 0.01
    for stride in (4, 8, 16, 32):
        atrous = build(architecture, output_stride=stride)
        fill(atrous)
        value = atrous(images, training=False)["features"][:, :: 32 // stride, :: 32 // stride]
        np.testing.assert_allclose(value, expected, rtol=tolerance, atol=tolerance, err_msg=f"output stride {stride}")


# Xception (core/xception_test.py). The release's small network has fused separable convolutions, ours the split ones.

XCEPTION_BLOCKS = (
    ("entry_flow/block1", 1, "conv", 2, 1),
    ("entry_flow/block2", 2, "conv", 2, 1),
    ("entry_flow/block3", 4, "conv", 1, 1),
    ("entry_flow/block4", 4, "conv", 2, 1),
    ("middle_flow/block1", 4, "sum", 1, 2),
    ("exit_flow/block1", 8, "conv", 2, 1),
    ("exit_flow/block2", 16, "none", 1, 1),
)


def xception_rows(_):
    rows = [
        Conv("entry_flow/conv1_1", 32, stride=2, explicit_padding=True, end_point="entry_flow/conv1_1"),
        Conv("entry_flow/conv1_2", 64, end_point="entry_flow/conv1_2"),
    ]
    for block, depth, skip, stride, count in XCEPTION_BLOCKS:
        rows += [
            XceptionUnit(
                f"{block}/unit_{n}/xception_module",
                filters=(depth, depth, depth),
                skip=skip,
                stride=stride,
                activation_inside=skip == "none",
                ends_block=block if n == count else None,
            )
            for n in range(1, count + 1)
        ]
    return tuple(rows)


XCEPTION = Architecture("xception", "xception", xception_rows, BatchNorm(0.9997, 1e-3))


def test_xception_end_points():
    names = {"xception/entry_flow/conv1_1", "xception/entry_flow/conv1_2"}
    for block, _, skip, _, count in XCEPTION_BLOCKS:
        names.add(f"xception/{block}")
        for n in range(1, count + 1):
            unit = f"xception/{block}/unit_{n}/xception_module"
            names |= {f"{unit}/separable_conv{i}_{part}" for i in (1, 2, 3) for part in ("depthwise", "pointwise")}
            names |= {unit, f"{unit}/shortcut"} if skip == "conv" else {unit}
    found = set(end_point_shapes(build(XCEPTION, size=(32, 32))))
    assert found == names
    # The release counts 49: three of its classifier, and one for each fused separable convolution instead of two.
    assert len(found) == 49 - 3 + 3 * 8


def test_xception_65_has_159_end_points():
    config = ModelConfig(model_variant="xception_65")
    assert len(end_point_shapes(build_backbone(config, zeros=True))) == 159


@pytest.mark.parametrize(
    ("side", "output_stride", "sides"),
    [
        (64, None, (32, 16, 8, 4, 4, 2, 2)),
        (65, None, (33, 17, 9, 5, 5, 3, 3)),
        (65, 8, (33, 17, 9, 9, 9, 9, 9)),
    ],
)
def test_xception_shapes(side, output_stride, sides):
    ends = ("conv1_1", "block1", "block2", "block4")
    names = [f"entry_flow/{end}" for end in ends] + ["middle_flow/block1", "exit_flow/block1", "exit_flow/block2"]
    shapes = end_point_shapes(build(XCEPTION, size=(side, side), output_stride=output_stride))
    for name, size, depth in zip(names, sides, (32, 1, 2, 4, 4, 8, 16), strict=True):
        assert shapes[f"xception/{name}"] == (size, size, depth), name


def test_xception_of_unknown_batch_and_size():
    images = ramp(2, 65, 65, 3)
    for output_stride, side in ((None, 3), (8, 9)):
        model = build(XCEPTION, output_stride=output_stride)
        assert model.input_shape == (None, None, None, 3)
        assert model(images)["features"].shape == (2, side, side, 16)


@pytest.mark.heavy
def test_xception_atrous_equivalence():
    assert_atrous_equivalence(XCEPTION, ramp(2, 96, 97, 3), 1e-5)


@pytest.mark.parametrize("bounded", [False, True])
def test_every_activation_is_bounded_or_none(bounded):
    config = ModelConfig(
        model_variant="xception_41",
        atrous_rates=(6,),
        decoder_output_stride=(4,),
        use_bounded_activation=bounded,
    )
    layers = build_model(config, zeros=True).layers
    found = {layer.name: layer.max_value for layer in layers if type(layer) is keras.layers.ReLU}
    # Pooling's convolution is never bounded: the release leaves it out.
    assert found.pop("image_pooling.relu") is None
    # Bounded units also activate the sum of each of the 12 shortcuts.
    assert len(found) == 53 + (12 if bounded else 0)
    assert set(found.values()) == {6.0 if bounded else None}


def test_bounded_activation_is_of_xception_and_the_head_only():
    layers = build_backbone(ModelConfig(model_variant="resnet_v1_18", use_bounded_activation=True), zeros=True).layers
    assert {layer.max_value for layer in layers if type(layer) is keras.layers.ReLU} == {None}


# ResNet (core/resnet_v1_beta_test.py).


def resnet(lite: bool, grid=(1, 1, 1)) -> Architecture:
    kind = "lite_bottleneck_v1" if lite else "bottleneck_v1"
    widths = ((1, None), (2, None), (4, None), (8, None)) if lite else ((4, 1), (8, 2), (16, 4), (32, 8))
    stem = (16, 16, 32) if lite else (64, 64, 128)

    def rows(_):
        units = [
            Conv(f"conv1_{n}", width, stride=2 if n == 1 else 1, explicit_padding=True, end_point=f"conv1_{n}")
            for n, width in enumerate(stem, start=1)
        ]
        units.append(MaxPool())
        for block, (filters, bottleneck) in enumerate(widths, start=1):
            units += [
                ResNetUnit(
                    f"block{block}/unit_{n}/{kind}",
                    filters=filters,
                    bottleneck=bottleneck,
                    stride=2 if n == 3 and block < 4 else 1,
                    rate=grid[n - 1] if block == 4 else 1,
                    ends_block=f"block{block}" if n == 3 else None,
                )
                for n in (1, 2, 3)
            ]
        return tuple(units)

    return Architecture("resnet", "resnet", rows, BatchNorm(0.95, 1e-5), preprocessing="subtract_mean")


@pytest.mark.parametrize("lite", [False, True])
@pytest.mark.parametrize(
    ("side", "output_stride", "sides"),
    [
        (224, None, (112, 112, 112, 28, 14, 7, 7)),
        (321, None, (161, 161, 161, 41, 21, 11, 11)),
        (321, 8, (161, 161, 161, 41, 41, 41, 41)),
    ],
)
def test_resnet_shapes(lite, side, output_stride, sides):
    names = ("conv1_1", "conv1_2", "conv1_3", "block1", "block2", "block3", "block4")
    depths = (16, 16, 32, 1, 2, 4, 8) if lite else (64, 64, 128, 4, 8, 16, 32)
    shapes = end_point_shapes(build(resnet(lite), size=(side, side), output_stride=output_stride))
    for name, size, depth in zip(names, sides, depths, strict=True):
        assert shapes[f"resnet/{name}"] == (size, size, depth), name


def test_resnet_end_points():
    names = {f"resnet/conv1_{n}" for n in (1, 2, 3)} | {f"resnet/block{n}" for n in (1, 2, 3, 4)}
    for block, n in itertools.product((1, 2, 3, 4), (1, 2, 3)):
        unit = f"resnet/block{block}/unit_{n}/bottleneck_v1"
        parts = ("conv1", "conv2", "conv3", "shortcut") if n == 1 else ("conv1", "conv2", "conv3")
        names |= {unit} | {f"{unit}/{part}" for part in parts}
    assert set(end_point_shapes(build(resnet(lite=False), size=(65, 65)))) == names


@pytest.mark.parametrize("lite", [False, True])
def test_resnet_of_unknown_batch_and_size(lite):
    for output_stride, side in ((None, 3), (8, 9)):
        model = build(resnet(lite), output_stride=output_stride)
        assert model(ramp(2, 65, 65, 3))["features"].shape == (2, side, side, 8 if lite else 32)


# Without unit rates, test_architectures.py compares every end point of the shipped ResNets.
@pytest.mark.parametrize("lite", [False, True])
def test_resnet_atrous_equivalence(lite):
    assert_atrous_equivalence(resnet(lite, (1, 2, 4)), ramp(2, 81, 81, 3), 1e-4)


# Strides to rates: the specification's table 1.3, as unit -> (stride, rate), for the units whose walk is not (s, 1).

RATES = {
    ("xception_65", 16): {"exit_flow/block1": (1, 1), "exit_flow/block2": (1, 2)},
    ("xception_65", 8): {
        "entry_flow/block3": (1, 1),
        "middle_flow/block1": (1, 2),
        "exit_flow/block1": (1, 2),
        "exit_flow/block2": (1, 4),
    },
    ("xception_71", 8): {
        "entry_flow/block4": (1, 1),
        "entry_flow/block5": (1, 1),
        "middle_flow/block1": (1, 2),
        "exit_flow/block1": (1, 2),
        "exit_flow/block2": (1, 4),
    },
    ("mobilenet_v2", 16): {15: (1, 1), **dict.fromkeys((16, 17, 18), (1, 2))},
    ("mobilenet_v2", 8): {8: (1, 1), 9: (1, 2), 14: (1, 2), 15: (1, 2), 16: (1, 4), 18: (1, 4)},
    ("mobilenet_v3_large_seg", 16): {14: (1, 1), 15: (1, 2), 16: (1, 2)},
    ("mobilenet_v3_large_seg", 8): {8: (1, 1), 9: (1, 2), 13: (1, 2), 14: (1, 2), 15: (1, 4), 16: (1, 4)},
    ("mobilenet_v3_small_seg", 16): {10: (1, 1), 11: (1, 2), 12: (1, 2)},
    ("mobilenet_v3_small_seg", 8): {5: (1, 1), 6: (1, 2), 9: (1, 2), 10: (1, 2), 11: (1, 4), 12: (1, 4)},
    ("mobilenet_edgetpu", 16): {19: (1, 1), 20: (1, 2), 23: (1, 2)},
    ("mobilenet_edgetpu", 8): {11: (1, 1), 12: (1, 2), 18: (1, 2), 19: (1, 2), 20: (1, 4), 23: (1, 4)},
    ("resnet_v1_50", 16): {"block3/unit_5": (1, 1), "block3/unit_6": (1, 1), "block4/unit_1": (1, 2)},
    ("resnet_v1_101", 8): {
        "block2/unit_4": (1, 1),
        "block3/unit_1": (1, 2),
        "block3/unit_23": (1, 2),
        "block4/unit_3": (1, 4),
    },
}


@pytest.mark.parametrize(("variant", "output_stride"), RATES)
def test_strides_become_rates_as_the_table_says(variant, output_stride):
    rows = ARCHITECTURES[variant].units(ModelConfig(model_variant=variant))
    walk = strides_and_rates([row.stride for row in rows], output_stride)
    for key, expected in RATES[variant, output_stride].items():
        name = f"layer_{key}" if isinstance(key, int) else key
        chosen = [
            step
            for row, step in zip(rows, walk, strict=True)
            if getattr(row, "end_point", None) == name or getattr(row, "scope", "").startswith(f"{name}/")
        ]
        assert set(chosen) == {expected}, name


@pytest.mark.parametrize("variant", ["xception_65", "mobilenet_v2", "resnet_v1_50"])
def test_nothing_is_dilated_at_32(variant):
    strides = [row.stride for row in ARCHITECTURES[variant].units(ModelConfig(model_variant=variant))]
    assert strides_and_rates(strides, 32) == strides_and_rates(strides, None) == [(stride, 1) for stride in strides]


@pytest.mark.parametrize("output_stride", [3, 64])
def test_an_output_stride_that_the_strides_cannot_give_is_refused(output_stride):
    with pytest.raises(DeepLabError, match=f"output_stride={output_stride}.*reach 32"):
        strides_and_rates([2, 2, 1, 2, 2, 2], output_stride)


# MobileNets (slim's mobilenet_v2_test.py and mobilenet_v3_test.py).


def mobilenet_shapes(variant: str, side: int, **options) -> dict[str, tuple[int, ...]]:
    config = ModelConfig(model_variant=variant, crop_size=(side, side), **options)
    return end_point_shapes(build_backbone(config, zeros=True))


@pytest.mark.parametrize(
    ("side", "output_stride", "expected"),
    [*((side, 32, side // 32) for side in (224, 192, 160, 128, 96)), (224, 8, 28), (224, 16, 14)],
)
def test_mobilenet_v2_sizes(side, output_stride, expected):
    shapes = mobilenet_shapes("mobilenet_v2", side, output_stride=output_stride)
    assert shapes["layer_18"] == (expected, expected, 320)
    assert {f"layer_{n}/depthwise_output" for n in range(2, 19)} <= set(shapes)
    assert "layer_2/expansion_output" not in shapes and "layer_3/expansion_output" in shapes


def test_mobilenet_v2_has_34_convolutions_without_its_classifier():
    layers = build_backbone(ModelConfig(), zeros=True).layers
    # 2 * 19 - 2 = 36 in the release's test; its last two are layer 19 and the classifier.
    assert sum(type(layer) is keras.layers.Conv2D for layer in layers) == 34
    assert sum(type(layer) is keras.layers.DepthwiseConv2D for layer in layers) == 17


def conv_widths(**options) -> set[int]:
    layers = build_backbone(ModelConfig(**options), zeros=True).layers
    return {layer.filters for layer in layers if type(layer) is keras.layers.Conv2D}


def test_mobilenet_v2_divisible_by():
    # The release's test also raises the smallest width to 32; DeepLab's flag leaves it at 8.
    assert conv_widths(divisible_by=16) == {32, 16, 96, 64, 160, 192, 320, 384, 576, 960}
    channels, widths = 32, {32}
    for nominal in (16, 24, 32, 64, 96, 160, 320):
        widths |= {make_divisible(6 * channels, 8)} if nominal > 16 else set()
        channels = make_divisible(nominal, 16, 32)
        widths.add(channels)
    assert widths == {32, 64, 96, 160, 192, 320, 384, 576, 960}


def test_a_depth_multiplier_frees_mobilenet_v2_of_multiples_of_8():
    half = {16, 8, 12, 32, 48, 80, 160, 72, 96, 192, 288, 480}  # specification 1.5, column dm 0.5
    assert conv_widths(depth_multiplier=0.5) == half
    tiny = conv_widths(depth_multiplier=0.01)  # outputs fall to 1, 2 or 3; expansions stay multiples of 8
    assert tiny == {1, 2, 3, 8, 16}


@pytest.mark.parametrize(
    ("value", "divisor", "smallest", "expected"),
    [
        (16, 8, 8, 16),
        (12, 8, 8, 16),
        (11, 8, 8, 16),
        (8.4, 8, None, 8),
        (3, 8, None, 8),
        (3, 1, 1, 3),
        (84, 8, None, 88),
    ],
)
def test_make_divisible(value, divisor, smallest, expected):
    assert make_divisible(value, divisor, smallest) == expected


@pytest.mark.parametrize(
    ("variant", "end_point", "expected"),
    [
        ("mobilenet_v3_large_seg", "layer_17", (7, 7, 480)),
        ("mobilenet_v3_small_seg", "layer_13", (7, 7, 288)),
        ("mobilenet_edgetpu", "layer_24", (7, 7, 1280)),
    ],
)
def test_last_layers_of_the_later_mobilenets(variant, end_point, expected):
    config = ModelConfig(model_variant=variant, crop_size=(224, 224), output_stride=32)
    model = build_backbone(config, zeros=True)
    assert end_point_shapes(model)[end_point] == model.output["features"].shape[1:] == expected
    scope = ARCHITECTURES[variant].scope
    assert all(layer.name.startswith(f"{scope}.") for layer in model.layers if layer.weights)


# NAS (core/nas_network_test.py): PNASNet's cell along Auto-DeepLab's levels.


def test_nas_end_points():
    config = ModelConfig(nas_stem_output_num_conv_filters=10)

    def rows(_):
        return (*nas._STEM, *nas.cells(nas._HNAS_LEVELS, nas._PNAS, config), Activation())

    options = {"initializer": "nas", "bare_end_points": True, "strides_from_rows": True}
    architecture = Architecture("nas", "nas", rows, BatchNorm(0.9997, 1e-3), **options)
    shapes = end_point_shapes(build(architecture, size=(321, 321), config=config))
    widths = {81: 50, 41: 100, 21: 200, 11: 400}
    sides = (81, 81, 81, 41, 21, 41, 21, 21, 11, 11, 21, 41)
    cells = {f"Cell_{n}": (side, side, widths[side]) for n, side in enumerate(sides)}
    assert shapes == {"Stem": (81, 81, 128), **cells}


# Heads (model_test.py, core/dense_prediction_cell_test.py).


def test_an_unknown_variant_is_refused():
    with pytest.raises(DeepLabError, match="unknown model_variant 'xception_56'; did you mean xception_65"):
        ModelConfig(model_variant="xception_56")


@pytest.mark.parametrize("variant", ["mobilenet_v2", "xception_65"])
@pytest.mark.parametrize(
    ("pyramid", "keys"), [((1.0,), {"merged_logits"}), ((0.5, 1.0), {"merged_logits", "logits_0.50", "logits_1.00"})]
)
def test_deeplab_v2_style_outputs(variant, pyramid, keys, monkeypatch):
    monkeypatch.setitem(ARCHITECTURES, variant, reduced(ARCHITECTURES[variant]))
    config = ModelConfig(
        model_variant=variant,
        num_classes=3,
        output_stride=8,
        crop_size=(41, 41),
        image_pyramid=pyramid,
        add_image_level_feature=False,
        aspp_with_batch_norm=False,
        aspp_with_separable_conv=False,
    )
    outputs = build_model(config, all_scales=True, zeros=True).output
    assert set(outputs) == keys
    assert {tuple(x.shape) for x in outputs.values()} == {(None, 6, 6, 3)}


def test_a_small_deeplab_v3plus_gives_logits():
    config = ModelConfig(crop_size=(33, 33), decoder_output_stride=(4,))
    logits = build_model(config)(ramp(1, 33, 33, 3), training=False)
    assert logits.shape == (1, 9, 9, 21) and np.any(np.asarray(logits))


def test_a_dense_prediction_cell_gives_merged_logits_alone():
    cell = [
        {"op": "conv", "kernel": 3, "rate": [1, 6], "input": -1},
        {"op": "conv", "kernel": 3, "rate": [18, 15], "input": 0},
    ]
    config = ModelConfig(num_classes=2, crop_size=(33, 33), dense_prediction_cell_json=cell)
    assert list(build_model(config, all_scales=True, zeros=True).output) == ["merged_logits"]


CELL = (
    {"op": "conv", "kernel": [1, 1], "input": -1, "rate": [1, 1]},
    {"op": "conv", "kernel": [3, 3], "rate": [1, 3], "input": 0},
    {"op": "pyramid_pooling", "grid_size": [1, 2], "input": 1},
)


@pytest.mark.parametrize(
    ("crop", "grid", "target", "window"),
    [(513, (4, 4), (33, 33), (9, 9)), (257, (1, 1), (17, 17), (17, 17)), (513, (2, 2), (33, 33), (17, 17))],
)
def test_windows_of_pyramid_pooling(crop, grid, target, window):
    cell = [{"op": "pyramid_pooling", "grid_size": list(grid), "input": -1}]
    model = build_model(ModelConfig(crop_size=(crop, crop), dense_prediction_cell_json=cell), zeros=True)
    pool = model.get_layer("meta_architecture.branch0.pool")
    assert (pool.pool_size, pool.strides, pool.padding) == (window, (1, 1), "valid")
    concat = model.get_layer("meta_architecture.concat_projection")
    assert concat.output.shape[1:3] == target


@pytest.mark.parametrize("entry", CELL[:2])
def test_parsing_a_convolution_leaves_it_unchanged(entry):
    (branch,) = dense_prediction_cell.parse([{**entry, "input": -1}])
    assert branch.to_json() == {**entry, "input": -1}


@pytest.mark.parametrize(("pooling_crop", "window"), [(None, (33, 17)), ((129, 129), (17, 9))])
def test_a_dense_prediction_cell_at_output_stride_8(pooling_crop, window):
    config = ModelConfig(
        model_variant="mobilenet_v2",
        depth_multiplier=0.1,
        output_stride=8,
        crop_size=(257, 257),
        image_pooling_crop_size=pooling_crop,
        dense_prediction_cell_json=CELL,
    )
    model = build_model(config)
    assert model.get_layer("meta_architecture.branch1_depthwise").dilation_rate == (2, 6)
    assert model.get_layer("meta_architecture.branch2.pool").pool_size == window
    logits = model(ramp(2, 257, 257, 3), training=False)
    assert logits.shape == (2, 33, 33, 21) and np.any(np.asarray(logits))
