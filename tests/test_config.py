"""Options: the release's names and defaults, lists in every spelling, and errors that name field, value and cure."""

import dataclasses
import json

import pytest

from deeplab_tf.arch import ARCHITECTURES, dense_prediction_cell
from deeplab_tf.arch.dense_prediction_cell import Branch
from deeplab_tf.config import ModelConfig, PredictConfig, override
from deeplab_tf.errors import DeepLabError

# The model flags of the release's common.py with their defaults; rates, stride and crop are from train and export.
RELEASE_DEFAULTS = {
    "logits_kernel_size": 1,
    "model_variant": "mobilenet_v2",
    "image_pyramid": None,
    "add_image_level_feature": True,
    "image_pooling_crop_size": None,
    "image_pooling_stride": (1, 1),
    "aspp_with_batch_norm": True,
    "aspp_with_separable_conv": True,
    "multi_grid": None,
    "depth_multiplier": 1.0,
    "divisible_by": None,
    "decoder_output_stride": None,
    "decoder_use_separable_conv": True,
    "merge_method": "max",
    "prediction_with_upsampled_logits": True,
    "dense_prediction_cell_json": None,
    "nas_stem_output_num_conv_filters": 20,
    "nas_use_classification_head": False,
    "nas_remove_os32_stride": False,
    "use_bounded_activation": False,
    "aspp_with_concat_projection": True,
    "aspp_with_squeeze_and_excitation": False,
    "aspp_convs_filters": 256,
    "decoder_use_sum_merge": False,
    "decoder_filters": 256,
    "decoder_output_is_logits": False,
    "image_se_uses_qsigmoid": False,
    "num_classes": 21,
    "output_stride": 16,
    "atrous_rates": None,
    "crop_size": None,
    "quantize_delay_step": -1,
}
# What the papers have beyond the release.
PAPER_DEFAULTS = {
    "fc_kernel_size": 3,
    "fc_filters": 1024,
    "multi_scale_features": False,
    "cascade_blocks": 0,
    "decoder_projection_filters": 48,
    "decoder_convs": 2,
    "decoder_kernel_size": 3,
    # of weights from a file of eight bits
    "quantize_as_file": False,
    "align_corners": True,
    # of photographs that are not RGB
    "input_channels": 3,
    "extra_band_means": None,
    # of the same networks in transformers and PyTorch
    "smallest_width": None,
    "expand_ratio": 6.0,
    "expand_first_block": False,
    "fixed_padding": False,
    "batch_norm_epsilon": None,
    "aspp_output_convs": 0,
    # of the release's core/resnet_v1_beta.py, which no flag of it sets
    "normalization_method": "batch",
    "group_norm_groups": 32,
    "use_weight_standardization": False,
}
OWN_VARIANTS = {"mobilenet_v1", "vgg16", "resnet_v1_101_caffe", "tiny", "small_resnet"}
OWN_VARIANTS |= {"mobilenet_v2_pytorch", "xception_65_pytorch", "mobilenet_v2_tf2", "xception_65_tf2"}
OWN_VARIANTS |= {"resnet_v1_50_pytorch", "resnet_v1_101_pytorch"}
V2 = {"aspp_with_batch_norm": False}


def test_names_and_defaults_are_the_releases():
    found = {field.name: field.default for field in dataclasses.fields(ModelConfig)}
    assert found == {**RELEASE_DEFAULTS, **PAPER_DEFAULTS}
    assert set(ARCHITECTURES) >= OWN_VARIANTS and len(ARCHITECTURES) == 15 + len(OWN_VARIANTS)
    assert all(field.metadata["help"] for field in dataclasses.fields(ModelConfig))


@pytest.mark.parametrize("rates", [(6, 12, 18), [6, 12, 18], ["6", "12", "18"], "6,12,18", ["6,12", "18"]])
def test_lists_in_every_spelling(rates):
    assert ModelConfig(atrous_rates=rates).atrous_rates == (6, 12, 18)


def test_scalars_and_nothing():
    assert ModelConfig(decoder_output_stride=4).decoder_output_stride == (4,)
    assert ModelConfig(decoder_output_stride="").decoder_output_stride is None
    assert ModelConfig(decoder_output_stride=()).decoder_output_stride is None
    assert ModelConfig(image_pyramid="0.5,1").image_pyramid == (0.5, 1.0)
    assert hash(ModelConfig(atrous_rates=[1])) == hash(ModelConfig(atrous_rates=(1,)))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"model_variant": "xception_66"}, "unknown model_variant 'xception_66'; did you mean xception_65"),
        ({"model_variant": "yolo"}, "known: mobilenet_edgetpu"),
        ({"num_classes": 0}, "num_classes=0"),
        ({"output_stride": 12}, "output_stride=12.*power of two"),
        ({"output_stride": 64}, "output_stride=64"),
        ({"model_variant": "resnet_v1_50", "output_stride": 2}, "output_stride=2.*from 4 to 32"),
        ({"model_variant": "mobilenet_edgetpu", "output_stride": 4}, "from 8 to 32"),
        ({"atrous_rates": (6, 12.5)}, "atrous_rates.*int numbers"),
        ({"atrous_rates": "six"}, "atrous_rates"),
        ({"atrous_rates": (0,)}, "at least 1"),
        ({"crop_size": (513,)}, "crop_size.*two numbers"),
        ({"decoder_output_stride": (4, 8)}, "descending"),
        ({"decoder_output_stride": (2,)}, r"decoder inputs at strides \[4, 8, 16\]"),
        ({"model_variant": "mobilenet_edgetpu", "decoder_output_stride": (4,)}, "no decoder"),
        ({"model_variant": "resnet_v1_101", "multi_grid": (1, 2)}, "3 unit rates"),
        ({"model_variant": "resnet_v1_18", "multi_grid": (1, 2, 4)}, "2 unit rates"),
        ({"merge_method": "sum"}, "max or avg"),
        ({"logits_kernel_size": 3}, "logits_kernel_size=3.*aspp_with_batch_norm"),
        ({"model_variant": "vgg16", **V2}, "atrous_rates=None: expected the rates of fc6: 12"),
        ({"model_variant": "vgg16", **V2, "atrous_rates": 12, "logits_kernel_size": 3}, "not with VGG-16's fc7"),
        ({"model_variant": "vgg16", "multi_scale_features": True}, "belongs to DeepLab-v1"),
        ({"model_variant": "vgg16", **V2, "atrous_rates": (6, 12), "multi_scale_features": True}, "one rate"),
        ({"model_variant": "vgg16", "decoder_output_stride": 4}, "it has no decoder"),
        ({"cascade_blocks": 1}, "cascade_blocks=1: mobilenet_v2 has no block to copy"),
        ({"model_variant": "resnet_v1_50", "cascade_blocks": -1}, "0 or more"),
        ({"model_variant": "resnet_v1_50", "cascade_blocks": 2, "output_stride": 256}, "from 4 to 128"),
        ({"decoder_convs": 0}, "decoder_convs=0"),
        ({"decoder_output_is_logits": True}, "decoder_output_stride"),
        ({"decoder_output_is_logits": True, "decoder_output_stride": 8}, "decoder_filters=256.*num_classes=21"),
        ({"image_pyramid": (0.5, 0)}, "scales above 0"),
        ({"depth_multiplier": -1.0}, "depth_multiplier"),
        ({"dense_prediction_cell_json": "nowhere.json"}, "nowhere.json"),
        ({"dense_prediction_cell_json": [{"op": "pool", "input": -1}]}, "branch 0"),
        ({"dense_prediction_cell_json": [{"op": "conv", "input": 0, "kernel": 3}]}, "earlier branch"),
        ({"dense_prediction_cell_json": [{"op": "conv", "kernel": 3}]}, "branch 0"),
        ({"dense_prediction_cell_json": {"op": "conv"}}, "list of branches"),
    ],
    ids=str,
)
def test_mistakes_are_named(options, expected):
    with pytest.raises(DeepLabError, match=expected) as caught:
        ModelConfig(**options)
    assert "\n" not in str(caught.value)


def test_a_cell_from_path_list_and_shipped_name(tmp_path):
    listed = [
        {"op": "conv", "input": -1, "kernel": 1},
        {"op": "conv", "input": 0, "kernel": 3, "rate": [1, 3]},
        {"op": "pyramid_pooling", "input": 1, "grid_size": [1, 2]},
    ]
    file = tmp_path / "cell.json"
    file.write_text(json.dumps(listed))
    by_path, by_list = (ModelConfig(dense_prediction_cell_json=cell) for cell in (str(file), listed))
    assert by_path == by_list
    assert by_path.dense_prediction_cell_json == (
        Branch("conv", -1, kernel=(1, 1), rate=(1, 1)),
        Branch("conv", 0, kernel=(3, 3), rate=(1, 3)),
        Branch("pyramid_pooling", 1, grid_size=(1, 2)),
    )
    release = "deeplab/core/dense_prediction_cell_branch5_top1_cityscapes.json"
    assert ModelConfig(dense_prediction_cell_json=release).dense_prediction_cell_json == (
        dense_prediction_cell.CITYSCAPES_TOP1
    )
    assert ModelConfig(dense_prediction_cell_json="").dense_prediction_cell_json is None


def test_json_comes_back_equal():
    config = ModelConfig(
        model_variant="xception_71",
        dense_prediction_cell_json="dense_prediction_cell_branch5_top1_cityscapes.json",
        decoder_output_stride=(4,),
        crop_size=(1025, 2049),
        image_pyramid=(0.5, 1.0),
    )
    assert ModelConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    with pytest.raises(
        DeepLabError, match="unknown model option in deeplab.json 'atrous_rate'; did you mean atrous_rates"
    ):
        ModelConfig.from_json({"atrous_rate": 3})


def test_rates_follow_the_stride_when_asked():
    config = ModelConfig(atrous_rates=(6, 12, 18))
    assert config.at_output_stride(8).atrous_rates == (12, 24, 36)
    assert config.at_output_stride(32).atrous_rates == (3, 6, 9)
    assert ModelConfig().at_output_stride(8).atrous_rates is None


def test_only_inference_fields_may_differ_from_what_is_remembered():
    config = ModelConfig(num_classes=19)
    remembered = ("num_classes", "output_stride")
    assert override(config, {"output_stride": 8}, remembered=remembered, source="x").output_stride == 8
    assert override(config, {"aspp_convs_filters": 8}, remembered=remembered, source="x").aspp_convs_filters == 8
    assert override(config, {"num_classes": 19}, remembered=remembered, source="x") == config
    with pytest.raises(DeepLabError, match="--num_classes=21 contradicts x, which has num_classes=19"):
        override(config, {"num_classes": 21}, remembered=remembered, source="x")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"resize": "shortest"}, "longest or none"),
        ({"save": ("mask", "masks")}, "unknown value of save 'masks'; did you mean mask"),
        ({"eval_scales": (0.0,)}, "eval_scales"),
        ({"eval_scales": (float("inf"),)}, "at most 16"),
        ({"eval_scales": (float("nan"),)}, "float numbers, for instance eval_scales=0.5"),
        ({"max_pixels": 3}, "max_pixels"),
    ],
)
def test_prediction_options(options, expected):
    with pytest.raises(DeepLabError, match=expected):
        PredictConfig(**options)
    assert PredictConfig(eval_scales="0.5,1", save=["raw"]).eval_scales == (0.5, 1.0)
