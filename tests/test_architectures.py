"""Contracts that every architecture keeps: its variables, its features at every output stride, its sizes.

The last two hold for each kind of unit, and are looked at on backbones without the units that repeat the one before.
"""

import dataclasses
import functools
import pathlib

import keras
import numpy as np
import pytest
from conftest import V3_HEAD
from golden import golden_tensor
from networks import bare, reduced

from deeplab_tf.arch import ARCHITECTURES
from deeplab_tf.arch.units import InvertedResidual, NasCell
from deeplab_tf.config import ModelConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.network import graph
from deeplab_tf.network.backbone import build_backbone
from deeplab_tf.network.build import build_model
from deeplab_tf.network.cost import regularized_kernels
from deeplab_tf.network.sizes import logits_stride
from deeplab_tf.ops.resizing import scale_dimension
from deeplab_tf.weights.tf1 import variable_map

LARGE = ("xception_65", "xception_71", "resnet_v1_101", "nas_")
V3PLUS = {"atrous_rates": (6, 12, 18), "decoder_output_stride": (4,)}
DECODER = {"decoder_output_stride": (4,)}
# The configuration of each list of variables in shared/reference/variables.
LISTS = {
    "mnv2": ("mobilenet_v2", {}),
    "mnv2_dm05": ("mobilenet_v2", {"depth_multiplier": 0.5}),
    "mnv2_dec4": ("mobilenet_v2", DECODER),
    "mnv2_dec2": ("mobilenet_v2", {"decoder_output_stride": (8, 4)}),
    "mnv2_summ": ("mobilenet_v2", {**DECODER, "decoder_use_sum_merge": True}),
    "mnv2_noaspp": (
        "mobilenet_v2",
        {"aspp_with_batch_norm": False, "logits_kernel_size": 3, "atrous_rates": (6, 12)},
    ),
    "v3l": ("mobilenet_v3_large_seg", V3_HEAD),
    "v3s": ("mobilenet_v3_small_seg", V3_HEAD),
    "etpu": ("mobilenet_edgetpu", {}),
    "etpu075": ("mobilenet_edgetpu", {"depth_multiplier": 0.75, "aspp_convs_filters": 128}),
    "x41": ("xception_41", V3PLUS),
    "x65": ("xception_65", V3PLUS),
    "x71": ("xception_71", V3PLUS),
    "x71dpc": (
        "xception_71",
        {**DECODER, "dense_prediction_cell_json": "dense_prediction_cell_branch5_top1_cityscapes.json"},
    ),
    "x65nosep": ("xception_65", {**V3PLUS, "aspp_with_separable_conv": False, "decoder_use_separable_conv": False}),
    "r18b": ("resnet_v1_18_beta", V3PLUS),
    "r50": ("resnet_v1_50", V3PLUS),
    "r50b": ("resnet_v1_50_beta", V3PLUS),
    "r101b": ("resnet_v1_101_beta", V3PLUS),
    "pnas": ("nas_pnasnet", DECODER),
    "hnas": ("nas_hnasnet", {**DECODER, "output_stride": 8}),
}


FULL = dict(ARCHITECTURES)


def apart() -> list[str]:
    """The variants; of those that are one network but for names and the number of repeated units, the first."""
    found: dict[str, str] = {}
    for name, architecture in FULL.items():
        rows = bare(reduced(architecture).units(ModelConfig(model_variant=name)))
        names = {"name": "", "scope": "", "units": None, "decoder_end_points": {}, "classifier": None}
        found.setdefault(repr((rows, dataclasses.replace(architecture, **names))), name)
    return list(found.values())


NETWORKS = apart()


@pytest.fixture(autouse=True, scope="module")
def _networks_are_reduced():
    with pytest.MonkeyPatch.context() as patch:
        for name, architecture in FULL.items():
            patch.setitem(ARCHITECTURES, name, reduced(architecture))
        yield


@pytest.fixture
def full(monkeypatch):
    """The networks as they are shipped."""
    for name, architecture in FULL.items():
        monkeypatch.setitem(ARCHITECTURES, name, architecture)


@pytest.fixture(autouse=True, scope="module")
def _weights_start_at_zero():
    # Each test gives its own weights or looks at names alone; drawing them first would take most of the time.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph, "initializer", lambda kind: "zeros")
        yield


def fill(model: keras.Model, make=golden_tensor) -> keras.Model:
    for name, variable in variable_map(model).items():
        variable.assign(make(name, tuple(variable.shape)))
    return model


def random_images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)


def distance(value, expected) -> float:
    """Returns the largest difference in parts of the largest expected value."""
    return float(np.max(np.abs(np.asarray(value) - expected)) / np.max(np.abs(expected)))


# Variables.


def read_list(path: pathlib.Path) -> tuple[dict[str, tuple[int, ...]], list[str]]:
    """Returns name -> shape of the release's variables, and the names of the regularised kernels."""
    lines = path.read_text().split("\n")
    rows = [line.split(" ", 1) for line in lines[: lines.index("REG")]]
    shapes = {name: tuple(int(side) for side in shape.strip("[]").split(",")) for name, shape in rows}
    regularized = []
    for line in lines[lines.index("REG") + 1 :]:
        if line:
            scope, _, kernel = line.removesuffix("/Regularizer/l2_regularizer").rpartition("/")
            regularized.append(f"{scope}/{kernel.replace('kernel', 'weights')}")
    return shapes, regularized


def test_every_list_of_variables_has_a_configuration(shared):
    assert {path.stem for path in (shared / "reference" / "variables").glob("*.txt")} == set(LISTS)


@pytest.mark.parametrize(
    "tag", [pytest.param(t, marks=[pytest.mark.heavy] * LISTS[t][0].startswith(LARGE)) for t in LISTS]
)
def test_variables_and_regularised_kernels_are_those_of_the_release(shared, full, tag):
    variant, options = LISTS[tag]
    model = build_model(ModelConfig(model_variant=variant, **options))
    shapes, regularized = read_list(shared / "reference" / "variables" / f"{tag}.txt")
    variables = variable_map(model)
    assert {name: tuple(variable.shape) for name, variable in variables.items()} == shapes
    names = {variable.path: name for name, variable in variables.items()}
    assert sorted(names[kernel.path] for kernel in regularized_kernels(model)) == sorted(regularized)


# Atrous convolution: a smaller output stride computes the same features at more places.


def flat_gates(name: str, shape) -> np.ndarray:
    """Weights whose squeeze-and-excite gates ignore their input, the mean over a map that has more places."""
    return np.zeros(shape) if name.endswith("squeeze_excite/Conv_1/weights") else golden_tensor(name, shape)


def size_for(output_stride: int) -> tuple[int, int]:
    return (65, 97) if output_stride >= 8 else (33, 65)


def run(config: ModelConfig, make, sizes) -> dict[tuple[int, int], dict[str, np.ndarray]]:
    """Returns, for each size, what the backbone gives: its end points, and its "features"."""
    model = fill(build_backbone(config), make)
    results = {}
    for size in sizes:
        outputs = model(random_images(1, *size, 3), training=False)
        results[size] = {name: np.asarray(x) for name, x in outputs.items()}
    return results


@functools.lru_cache(maxsize=1)
def nominal(config: ModelConfig, make=golden_tensor, sizes=((65, 97), (33, 65))):
    largest = ARCHITECTURES[config.model_variant].nominal_output_stride
    return run(dataclasses.replace(config, output_stride=largest), make, sizes)


def subsampled(value: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Returns the places of `value` that `expected` has too."""
    step = next(s for s in (1, 2, 4, 8, 16, 32, 64, 128, 256) if -(-value.shape[2] // s) == expected.shape[2])
    return value[:, ::step, ::step]


def worst(outputs: dict, expected: dict, names=None) -> tuple[float, str]:
    """Returns the largest distance of the end points, subsampled, and the end point."""
    names = expected if names is None else names
    return max((distance(subsampled(outputs[n], expected[n]), expected[n]), n) for n in names)


# Elsewhere in this file, with what changes in them at a smaller output stride.
ELSEWHERE = ("mobilenet_v3_small_seg", "vgg16")
STRIDES = [
    pytest.param(name, stride, id=f"{name}-{stride}")
    for name, architecture in FULL.items()
    if name in NETWORKS and not architecture.strides_from_rows and name not in ELSEWHERE
    for stride in (16, 8, 4, 2, 1)
    if architecture.smallest_output_stride <= stride < architecture.nominal_output_stride
]


@pytest.mark.parametrize(("variant", "output_stride"), STRIDES)
def test_a_smaller_output_stride_gives_the_same_features_at_more_places(variant, output_stride):
    make = flat_gates if "mobilenet_v3" in variant else golden_tensor
    config, size = ModelConfig(model_variant=variant, output_stride=output_stride), size_for(output_stride)
    largest = ARCHITECTURES[variant].nominal_output_stride
    expected = nominal(ModelConfig(model_variant=variant, output_stride=largest), make)[size]
    outputs = run(config, make, [size])[size]
    assert set(outputs) == set(expected)
    assert outputs["features"].shape[1:3] == tuple((side - 1) // output_stride + 1 for side in size)
    error, end_point = worst(outputs, expected)
    assert error < 2e-5, end_point


@pytest.mark.parametrize(
    ("variant", "options"),
    [
        ("xception_41", {"multi_grid": (1, 2, 4)}),
        ("xception_41", {"use_bounded_activation": True}),
        ("resnet_v1_18", {"multi_grid": (1, 2)}),
        ("resnet_v1_50_beta", {"multi_grid": (1, 2, 4)}),
        ("mobilenet_v2", {"depth_multiplier": 0.5}),
        ("mobilenet_edgetpu", {"depth_multiplier": 0.75}),
        ("resnet_v1_18", {"cascade_blocks": 3}),
        ("resnet_v1_50", {"cascade_blocks": 1, "multi_grid": (1, 2, 1)}),
        ("resnet_v1_50_beta", {"cascade_blocks": 3, "multi_grid": (1, 2, 4)}),
    ],
)
def test_options_keep_the_features(variant, options):
    size = (65, 97)
    config = ModelConfig(model_variant=variant, output_stride=8, **options)
    largest = ARCHITECTURES[variant].largest_output_stride(config)
    expected = run(dataclasses.replace(config, output_stride=largest), golden_tensor, [size])[size]
    assert expected["features"].shape[1] == 64 // largest + 1
    error, end_point = worst(run(config, golden_tensor, [size])[size], expected)
    assert error < 2e-5, end_point


def test_multi_grid_multiplies_the_rates_of_the_last_block():
    for variant, last in (("xception_41", "exit_flow.block2"), ("resnet_v1_50", "block4")):
        model = build_backbone(ModelConfig(model_variant=variant, output_stride=8, multi_grid=(1, 2, 4)))
        found = [layer for layer in model.layers if last in layer.name and hasattr(layer, "dilation_rate")]
        rates = [layer.dilation_rate for layer in found if layer.kernel_size == (3, 3)]
        assert rates == [(4, 4), (8, 8), (16, 16)], variant


@pytest.mark.parametrize("output_stride", [8, 16, 32, 64, 128, 256])
def test_a_cascade_reaches_every_output_stride(output_stride):
    # Table 1 of arXiv 1706.05587: block5 to block7 at strides 8 to 256, at rates that keep what is asked for.
    options = {"cascade_blocks": 3, "multi_grid": (1, 2, 1), "output_stride": output_stride}
    model = build_backbone(ModelConfig(model_variant="resnet_v1_50", crop_size=(257, 513), **options))
    shapes = {name: x.shape[1:] for name, x in model.output.items()}
    for block in (4, 5, 6, 7):
        stride = min(2 ** (block + 2) if block < 7 else 256, output_stride)
        assert shapes[f"resnet_v1_50/block{block}"] == (256 // stride + 1, 512 // stride + 1, 2048 // 8)
        first = model.get_layer(f"resnet_v1_50.block{block}.unit_1.bottleneck_v1.conv2").dilation_rate
        second = model.get_layer(f"resnet_v1_50.block{block}.unit_2.bottleneck_v1.conv2").dilation_rate
        rate = max(1, 2 ** (block + 1) // output_stride)
        assert first == (rate, rate) and second == (2 * rate, 2 * rate)
    assert "resnet_v1_50.block5.unit_1.bottleneck_v1.shortcut" not in {layer.name for layer in model.layers}


def test_a_cascade_of_unit_rates_1_2_1_at_16_is_figure_3b():
    config = ModelConfig(model_variant="resnet_v1_50", cascade_blocks=3, output_stride=16)
    found = {}
    for layer in build_backbone(config).layers:
        if layer.name.endswith("bottleneck_v1.conv2"):
            found.setdefault(layer.name.split(".")[1], set()).add(layer.dilation_rate)
    rates = {"block1": 1, "block2": 1, "block3": 1, "block4": 2, "block5": 4, "block6": 8, "block7": 16}
    assert found == {block: {(rate, rate)} for block, rate in rates.items()}


VGG = {"model_variant": "vgg16", "depth_multiplier": 0.25}


@pytest.mark.parametrize(("output_stride", "last"), [(16, "pool5"), (8, "conv5/conv5_3"), (4, "conv4/conv4_3")])
def test_vgg16_keeps_its_features_up_to_the_second_pool_without_a_stride(output_stride, last):
    # The first pool whose stride goes has neighbours as before. Those after it would have to be dilated, and are not in
    # the public models: they are plain 3x3.
    for size in ((65, 97), (64, 90)):
        expected = run(ModelConfig(**VGG, output_stride=32), golden_tensor, [size])[size]
        outputs = run(ModelConfig(**VGG, output_stride=output_stride), golden_tensor, [size])[size]
        names = [name for name in expected if name != "features"]
        assert set(outputs) == set(expected) and names == sorted(names, key=lambda n: n.split("/")[1][-1])
        kept = names[: names.index(f"vgg_16/{last}") + 1]
        error, end_point = worst(outputs, expected, kept)
        assert error < 2e-5, end_point
        changed = names[len(kept) :]
        assert all(distance(subsampled(outputs[n], expected[n]), expected[n]) > 1e-3 for n in changed)


def pooled_by_hand(x: np.ndarray, stride: int) -> np.ndarray:
    """Caffe's 3x3 maximum with a pad of 1: windows centred at every `stride`-th pixel, padding never chosen."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    return windows.max((-2, -1))[:, ::stride, ::stride]


@pytest.mark.parametrize("size", [(65, 97), (64, 90)])
def test_vgg16_pools_as_caffe_does(size):
    outputs = run(ModelConfig(**VGG, output_stride=8), golden_tensor, [size])[size]
    for block, stride in ((1, 2), (2, 2), (3, 2), (4, 1), (5, 1)):
        last = max(n for n in outputs if n.startswith(f"vgg_16/conv{block}/"))
        np.testing.assert_array_equal(outputs[f"vgg_16/pool{block}"], pooled_by_hand(outputs[last], stride))
    np.testing.assert_array_equal(outputs["features"], outputs["vgg_16/pool5"])


def test_caffes_place_of_a_stride_is_none_but_another_order():
    # Caffe's ResNet strides in the first 1x1 convolutions of a block, slim's in the last 3x3 of the block before.
    early = ModelConfig(model_variant="resnet_v1_101_caffe", output_stride=4)
    late = ModelConfig(model_variant="resnet_v1_101_caffe", output_stride=8)
    outputs = [run(config, golden_tensor, [(33, 65)])[33, 65]["resnet_v1_101/block1"] for config in (early, late)]
    assert outputs[0].shape[1:3] == (9, 17) and outputs[1].shape[1:3] == (5, 9)
    # What a 1x1 convolution of stride 2 takes from the whole map is the map that block1 leaves when it strides itself.
    assert distance(outputs[0][:, ::2, ::2], outputs[1]) < 1e-6


EVEN = (64, 96)


@pytest.mark.parametrize("variant", ["xception_41", "resnet_v1_18_beta", "resnet_v1_50"])
def test_explicit_padding_keeps_the_features_at_even_sizes_too(variant):
    config = ModelConfig(model_variant=variant, output_stride=32)
    expected = nominal(config, sizes=(EVEN,))[EVEN]
    outputs = run(dataclasses.replace(config, output_stride=8), golden_tensor, [EVEN])[EVEN]
    assert worst(outputs, expected)[0] < 2e-5


@pytest.mark.parametrize(
    ("variant", "options"),
    [("mobilenet_v2", {}), ("mobilenet_edgetpu", {}), ("xception_41", {"use_bounded_activation": True})],
)
def test_same_padding_shifts_the_features_at_even_sizes(variant, options):
    # SAME pads an even map on the far sides only, so removing a stride moves the window by a pixel: in the release too.
    config = ModelConfig(model_variant=variant, output_stride=32, **options)
    expected = nominal(config, sizes=(EVEN,))[EVEN]
    outputs = run(dataclasses.replace(config, output_stride=8), golden_tensor, [EVEN])[EVEN]
    assert distance(subsampled(outputs["features"], expected["features"]), expected["features"]) > 0.05


@pytest.mark.parametrize(("output_stride", "layer"), [(16, 10), (8, 10), (4, 10), (2, 2), (1, 2)])
def test_mobilenet_v3_small_gains_a_residual_where_a_stride_goes(output_stride, layer):
    # Halving the last layers left layer 10 with 48 channels on both sides, and layer 2 has 16; the release adds its
    # input wherever the stride is 1, which at output stride 32 it is not. All that follows differs.
    config, size = ModelConfig(model_variant="mobilenet_v3_small_seg", output_stride=32), size_for(output_stride)
    expected = nominal(config, flat_gates)[size]
    outputs = run(dataclasses.replace(config, output_stride=output_stride), flat_gates, [size])[size]
    changed, before = f"layer_{layer}", f"layer_{layer - 1}"
    same = [name for name in expected if name.startswith("layer_") and int(name.split("/")[0][6:]) < layer]
    assert worst(outputs, expected, [*same, f"{changed}/depthwise_output"])[0] < 2e-5
    block = outputs[changed] - outputs[before]
    assert distance(subsampled(block, expected[changed]), expected[changed]) < 2e-5
    for name in (changed, "features"):
        assert distance(subsampled(outputs[name], expected[name]), expected[name]) > 0.05


@pytest.mark.parametrize("variant", ["mobilenet_v3_large_seg", "mobilenet_v3_small_seg"])
def test_squeeze_and_excite_sees_the_larger_map(full, variant):
    # Its mean runs over the whole map, which is not the mean over every other place.
    config, size = ModelConfig(model_variant=variant, output_stride=32), (65, 97)
    expected = nominal(config, sizes=(size,))[size]
    outputs = run(dataclasses.replace(config, output_stride=8), golden_tensor, [size])[size]
    assert distance(subsampled(outputs["features"], expected["features"]), expected["features"]) > 1e-3


def symbolic_end_points(variant: str, size=(65, 97), **options) -> dict[str, tuple[int, ...]]:
    model = build_backbone(ModelConfig(model_variant=variant, crop_size=size, **options))
    return {name: x.shape[1:] for name, x in model.output.items()}


def cells(variant: str, **options) -> list[NasCell]:
    rows = FULL[variant].units(ModelConfig(model_variant=variant, **options))
    return [row for row in rows if isinstance(row, NasCell)]


@pytest.mark.parametrize(("output_stride", "side", "channels"), [(8, 9, 200), (16, 5, 400), (32, 3, 800)])
def test_nas_pnasnet_chooses_other_cells_instead(output_stride, side, channels):
    # It is not made for atrous convolution: each output stride is another network, with other widths.
    shapes = symbolic_end_points("nas_pnasnet", (65, 65), output_stride=output_stride)
    last = cells("nas_pnasnet", output_stride=output_stride)[-1]
    assert (last.end_point, last.tap_widths["Cell_11"], 4 * 2**last.level) == ("Cell_11", channels, output_stride)
    assert shapes["features"] == (side, side, channels)


@pytest.mark.heavy
def test_nas_hnasnet_has_output_stride_8_whatever_is_asked():
    assert cells("nas_hnasnet", output_stride=8) == cells("nas_hnasnet", output_stride=32)
    assert cells("nas_hnasnet")[-1].tap_widths == {"Cell_11": 200} and cells("nas_hnasnet")[-1].level == 1
    shapes = [symbolic_end_points("nas_hnasnet", (65, 65), output_stride=stride) for stride in (8, 32)]
    assert shapes[0] == shapes[1] and shapes[0]["features"] == (9, 9, 200)


def test_mobilenet_edgetpu_stops_at_8():
    # Below, the release cannot build it: the strides of its fused blocks (layers 3 and 7) are baked in.
    rows = ARCHITECTURES["mobilenet_edgetpu"].units(ModelConfig(model_variant="mobilenet_edgetpu"))
    fused = [row.end_point for row in rows if isinstance(row, InvertedResidual) and row.fused and row.stride > 1]
    assert fused == ["layer_3", "layer_7"]
    with pytest.raises(DeepLabError, match="output_stride=4: mobilenet_edgetpu takes a power of two from 8 to 32"):
        ModelConfig(model_variant="mobilenet_edgetpu", output_stride=4)


# Sizes.

SIZES = ((65, 97), (64, 90))


def full_config(variant: str) -> ModelConfig:
    taps = ARCHITECTURES[variant].decoder_end_points
    return ModelConfig(
        model_variant=variant,
        num_classes=3,
        output_stride=8 if variant == "nas_hnasnet" else 16,
        aspp_convs_filters=16,
        atrous_rates=(1, 2),
        decoder_output_stride=(4,) if taps else None,
        decoder_filters=16,
    )


@pytest.mark.parametrize("variant", [name for name in NETWORKS if not name.startswith("nas_")])
def test_a_graph_for_any_size_agrees_with_the_graph_for_one(variant):
    config = full_config(variant)
    free = fill(build_model(config))
    assert free.input_shape == (None, None, None, 3)
    for size in SIZES:
        fixed = build_model(dataclasses.replace(config, crop_size=size), share_with=free)
        sides = tuple(scale_dimension(side, 1 / logits_stride(config)) for side in size)
        assert fixed.output_shape == (None, *sides, 3)
        images = random_images(2, *size, 3)
        expected, value = np.asarray(fixed(images, training=False)), free(images, training=False)
        assert value.shape == expected.shape == (2, *sides, 3)
        assert distance(value, expected) < 1e-5


@pytest.mark.heavy
@pytest.mark.parametrize("variant", ["nas_pnasnet", "nas_hnasnet"])
def test_nas_agrees_at_sizes_a_multiple_of_32_plus_1(variant):
    config, size = full_config(variant), (65, 97)
    free = fill(build_model(config))
    fixed = build_model(dataclasses.replace(config, crop_size=size), share_with=free)
    images = random_images(1, *size, 3)
    expected = np.asarray(fixed(images, training=False))
    assert expected.shape == (1, 17, 25, 3)
    assert distance(free(images, training=False), expected) < 1e-5


@pytest.mark.parametrize("variant", ["mobilenet_v2", "resnet_v1_18"])
def test_an_image_does_not_depend_on_its_batch(variant):
    model = fill(build_model(dataclasses.replace(full_config(variant), crop_size=(65, 97))))
    images = random_images(3, 65, 97, 3)
    together = np.asarray(model(images, training=False))
    for index in range(3):
        assert distance(model(images[index : index + 1], training=False)[0], together[index]) < 1e-5
