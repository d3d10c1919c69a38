"""An option of the network is refused where it changes nothing, and only there: networks are built and compared."""

import dataclasses
import json

import pytest

from deeplab_tf.arch.dense_prediction_cell import Branch
from deeplab_tf.config import ModelConfig, require_effect
from deeplab_tf.errors import DeepLabError
from deeplab_tf.network.build import build_model

CELL = (Branch("conv", -1, (1, 1), None, None), Branch("conv", 0, (3, 3), (1, 2), None))
POOLING = (*CELL, Branch("pyramid_pooling", -1, None, None, (1, 1)))
TINY = ModelConfig("tiny", num_classes=3, crop_size=(33, 33))
BASES = {
    "default": TINY,
    "no ASPP": dataclasses.replace(TINY, aspp_with_batch_norm=False),
    "a cell, and a sum of logits": dataclasses.replace(
        TINY,
        dense_prediction_cell_json=POOLING,
        decoder_output_stride=(4,),
        decoder_filters=3,
        decoder_use_sum_merge=True,
        decoder_output_is_logits=True,
    ),
}
OTHERS = {
    "atrous_rates": (2, 3),
    "add_image_level_feature": False,
    "image_pooling_crop_size": (17, 17),
    "image_pooling_stride": (2, 2),
    "aspp_with_separable_conv": False,
    "multi_grid": (1, 2, 1),
    "depth_multiplier": 0.5,
    "divisible_by": 16,
    "decoder_use_separable_conv": False,
    "merge_method": "avg",
    "nas_stem_output_num_conv_filters": 12,
    "nas_use_classification_head": True,
    "nas_remove_os32_stride": True,
    "use_bounded_activation": True,
    "aspp_with_concat_projection": False,
    "aspp_with_squeeze_and_excitation": True,
    "aspp_convs_filters": 8,
    "decoder_use_sum_merge": True,
    "decoder_filters": 5,
    "decoder_output_is_logits": True,
    "image_se_uses_qsigmoid": True,
    "fc_kernel_size": 4,
    "fc_filters": 8,
    "decoder_projection_filters": 7,
    "aspp_output_convs": 1,
    "decoder_convs": 1,
    "decoder_kernel_size": 5,
    "dense_prediction_cell_json": CELL,
}


def network(config: ModelConfig) -> str:
    layers = json.loads(build_model(config, zeros=True).to_json())["config"]["layers"]
    for layer in layers:
        layer["config"].pop("network", None)  # the options themselves, which layers on pixels carry
    return json.dumps(layers, default=str)


def changed(base: ModelConfig, name: str) -> ModelConfig | None:
    try:
        other = dataclasses.replace(base, **{name: OTHERS[name]})
    except DeepLabError:
        return None  # refused with a reason of its own
    return None if other == base else other


@pytest.mark.heavy
@pytest.mark.parametrize("base", BASES)
def test_what_is_refused_changes_nothing_and_what_is_taken_does(base):
    before = network(BASES[base])
    for name in OTHERS:
        other = changed(BASES[base], name)
        if other is None:
            continue
        try:
            require_effect(other, [name])
        except DeepLabError as error:
            assert f"--{name}" in str(error) and "would do nothing: it needs" in str(error)
            assert network(other) == before, name
        else:
            try:
                after = network(other)
            except DeepLabError:
                continue  # does not fit: that is said
            assert after != before, name
