"""Names and shapes tell the network: every golden case, reference list and multiplier; and what they cannot tell."""

import contextlib
import functools
import json
import re

import pytest
from conftest import case_config, golden_cases, read_case

from deeplab_tf.arch import ARCHITECTURES, dense_prediction_cell
from deeplab_tf.config import ModelConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.network.build import build_model
from deeplab_tf.weights.recognize import recognize
from deeplab_tf.weights.tf1 import variable_map
from deeplab_tf.zoo import lookup

V2 = {"aspp_with_batch_norm": False}
RESNET_101 = ModelConfig(model_variant="resnet_v1_101", **V2)
VGG = {"model_variant": "vgg16", **V2, "depth_multiplier": 0.25, "fc_filters": 64}


@functools.cache
def shapes_of(config: ModelConfig) -> dict[str, tuple]:
    return {name: tuple(v.shape) for name, v in variable_map(build_model(config, zeros=True)).items()}


@pytest.mark.parametrize("case", golden_cases())
def test_golden_cases(case):
    values, _ = read_case(case)
    config = case_config(values)
    found = recognize({name: tuple(shape) for name, shape, _ in values["variables"]})
    assert found.kind == "segmentation"
    assert {name: getattr(config, name) for name in found.known} == found.known
    branches = () if config.dense_prediction_cell_json else config.atrous_rates or ()
    assert found.branches == len(branches)
    # Of what is neither known nor assumed, only these may differ from the default: no shape shows them.
    hidden = {"crop_size", "image_pooling_crop_size", "image_pooling_stride", "divisible_by", "atrous_rates"}
    fields = set(config.to_json()) - set(found.known) - set(found.assumed)
    assert fields <= hidden


def test_reference_lists(shared):
    expected = {"mnv2_dm05": 0.5, "etpu075": 0.75, "mnv2": 1.0, "etpu": 1.0}
    lists = sorted((shared / "reference" / "variables").glob("*.txt"))
    assert len(lists) == 21
    for path in lists:
        head = path.read_text().split("\nREG")[0]
        rows = re.findall(r"^(\S+) (\[.*\])$", head, re.MULTILINE)
        found = recognize({name: tuple(json.loads(shape)) for name, shape in rows})
        scope = ARCHITECTURES[found.known["model_variant"]].scope
        assert any(name.startswith(f"{scope}/") for name, _ in rows)
        assert found.known["num_classes"] == (19 if path.stem in ("v3l", "v3s") else 21)
        assert found.known.get("depth_multiplier") == expected.get(path.stem, found.known.get("depth_multiplier"))


@pytest.mark.parametrize(
    "options",
    [
        {"depth_multiplier": 0.35},
        {"depth_multiplier": 1.4},
        {"depth_multiplier": 0.63},
        {"depth_multiplier": 1.4, "divisible_by": 8},
        {"model_variant": "mobilenet_v3_small_seg", "depth_multiplier": 0.75},
        {"model_variant": "mobilenet_edgetpu", "depth_multiplier": 0.75, "aspp_convs_filters": 128},
        {"decoder_output_stride": (8, 4), "decoder_filters": 32},
        {"decoder_output_stride": (4,), "decoder_use_sum_merge": True, "decoder_use_separable_conv": False},
        {"decoder_output_stride": (16,), "decoder_output_is_logits": True, "decoder_filters": 21},
        {"add_image_level_feature": False, "aspp_with_concat_projection": False},
        {"atrous_rates": (6, 12, 18), "aspp_with_separable_conv": False},
        {"aspp_with_batch_norm": False, "decoder_output_stride": (4,)},
        {"decoder_output_stride": (4,), "decoder_convs": 1, "decoder_projection_filters": 8},
        {"decoder_output_stride": (8, 4), "decoder_convs": 3, "decoder_use_separable_conv": False},
        {"decoder_output_stride": (4,), "decoder_kernel_size": 1, "decoder_use_separable_conv": False},
        {"model_variant": "mobilenet_v1", "depth_multiplier": 0.5},
        {"model_variant": "vgg16", "depth_multiplier": 0.25},
        {"model_variant": "resnet_v1_50", "cascade_blocks": 2},
        {"model_variant": "resnet_v1_18", "cascade_blocks": 1},
        {**VGG, "atrous_rates": (12,), "multi_scale_features": True, "output_stride": 8},
        {**VGG, "atrous_rates": (6, 12, 18, 24), "output_stride": 8},
        {"model_variant": "resnet_v1_50", **V2, "atrous_rates": (12,), "logits_kernel_size": 3, "output_stride": 8},
    ],
    ids=str,
)
def test_options_are_found(options):
    config = ModelConfig(**{"image_pooling_crop_size": None, **options})
    found = recognize(shapes_of(config))
    for name, value in options.items():
        if name == "depth_multiplier":
            # Another multiplier may round to the same widths: then it is the same network.
            again = ModelConfig(**{**options, "depth_multiplier": found.known[name]})
            assert shapes_of(again) == shapes_of(config)
        elif name in ("atrous_rates", "output_stride"):
            assert found.assumed[name] == value
        else:
            assert found.known[name] == value, name
    said = recognize(shapes_of(config), {"depth_multiplier": config.depth_multiplier}).known
    assert said.get("depth_multiplier", 1.0) == config.depth_multiplier


@pytest.mark.heavy
def test_nas_options_are_found():
    for stride in (8, 16, 32):
        config = ModelConfig(
            model_variant="nas_pnasnet",
            output_stride=stride,
            nas_stem_output_num_conv_filters=4,
            nas_use_classification_head=True,
            aspp_convs_filters=8,
        )
        known = recognize(shapes_of(config)).known
        for name in ("output_stride", "nas_stem_output_num_conv_filters", "nas_use_classification_head"):
            assert known[name] == getattr(config, name)


def test_backbones_without_a_head():
    shapes = {n: s for n, s in shapes_of(ModelConfig(model_variant="resnet_v1_18")).items() if n.startswith("resnet")}
    found = recognize({**shapes, "resnet_v1_18/logits/weights": (1, 1, 512, 1000)})
    assert found.kind == "backbone" and found.known["model_variant"] == "resnet_v1_18"


def test_what_fits_nothing_is_refused():
    shapes = shapes_of(ModelConfig())
    with pytest.raises(DeepLabError, match="no known backbone"):
        recognize({"alexnet_v2/conv1/weights": (11, 11, 3, 64)})
    for name, shape in [
        ("MobilenetV2/expanded_conv_3/project/weights", (1, 1, 144, 33)),
        ("MobilenetV2/expanded_conv_17/project/weights", (1, 1, 960, 320)),
    ]:
        with pytest.raises(DeepLabError, match="MobilenetV2"):
            recognize({**shapes, name: shape})
    missing = {n: s for n, s in shapes.items() if "expanded_conv_9/" not in n}
    with pytest.raises(DeepLabError, match="MobilenetV2"):
        recognize(missing)
    with pytest.raises(DeepLabError, match="no logits"):
        recognize({n: s for n, s in shapes.items() if not n.startswith("logits")})


@pytest.mark.parametrize("kernel", [4, 7])
def test_the_rates_of_other_fields_of_view_must_be_given(kernel):
    found = recognize(shapes_of(ModelConfig(**VGG, fc_kernel_size=kernel, atrous_rates=(4,))))
    assert found.known["fc_kernel_size"] == kernel and found.branches == 1
    assert found.assumed["atrous_rates"] is None and found.assumed["output_stride"] == 8


def test_of_two_variants_with_the_same_variables_the_given_one_is_taken():
    shapes = {n: s for n, s in shapes_of(RESNET_101).items() if n.startswith("resnet")}
    assert recognize(shapes).known["model_variant"] == "resnet_v1_101"
    given = {"model_variant": "resnet_v1_101_caffe"}
    assert recognize(shapes, given).known["model_variant"] == "resnet_v1_101_caffe"


def test_vgg16_of_imagenet_is_a_backbone():
    shapes = {n: s for n, s in shapes_of(ModelConfig(model_variant="vgg16")).items() if n.startswith("vgg_16/")}
    fully_connected = {"vgg_16/fc6/weights": (7, 7, 512, 4096), "vgg_16/fc8/weights": (1, 1, 4096, 1000)}
    found = recognize({**shapes, **fully_connected})
    assert found.kind == "backbone" and found.known["depth_multiplier"] == 1.0


def test_unknown_rates_and_cells_must_be_given():
    four = recognize(shapes_of(ModelConfig(atrous_rates=(3, 6, 9, 12))))
    assert four.branches == 4 and four.assumed["atrous_rates"] is None
    cell = dense_prediction_cell.CITYSCAPES_TOP1
    assert (
        recognize(shapes_of(ModelConfig(dense_prediction_cell_json=cell))).assumed["dense_prediction_cell_json"] == cell
    )
    other = recognize(shapes_of(ModelConfig(dense_prediction_cell_json=cell[:2])))
    assert other.assumed["dense_prediction_cell_json"] is None


def test_shapes_with_too_few_sides_are_one_line():
    """Whatever a file says of its variables: each of the head in turn is a scalar, or has a side less."""
    shapes = {name: tuple(shape) for name, shape in lookup.manifest("xception65_ade20k_train").items()}
    head = [name for name in shapes if not name.startswith("xception_65/") and "BatchNorm" not in name]
    assert len(head) > 8
    for name in head:
        for shape in ((), shapes[name][1:]):
            with contextlib.suppress(DeepLabError):
                recognize({**shapes, name: shape})
    with pytest.raises(DeepLabError, match="its names are those of a network, and its shapes are not"):
        recognize({**shapes, "aspp0/weights": ()})
