"""Options of the data: the release's names and defaults, and errors that name field, value and cure."""

import dataclasses

import pytest

import deeplab_tf
from deeplab_tf.config import DataConfig
from deeplab_tf.errors import DeepLabError

# train.py, common.py; crop and batch as --train_crop_size, --train_batch_size.
RELEASE_DEFAULTS = {
    "dataset_dir": None,
    "crop_size": (513, 513),
    "batch_size": 8,
    "min_resize_value": None,
    "max_resize_value": None,
    "resize_factor": None,
    "min_scale_factor": 0.5,
    "max_scale_factor": 2.0,
    "scale_factor_step_size": 0.25,
    "model_variant": "mobilenet_v2",
}


def test_names_and_defaults_are_the_releases():
    found = {field.name: field.default for field in dataclasses.fields(DataConfig)}
    assert {name: found[name] for name in RELEASE_DEFAULTS} == RELEASE_DEFAULTS
    own = {"label_policy", "label_map", "skip_corrupt_records", "tfds_features", "decoded_cache"}
    own |= {"dataset"}  # the release's default holds for records that do not say what they are
    own |= {"color_jitter", "gaussian_blur", "grid_mask", "cut_mix", "classes_of"}
    assert set(found) - set(RELEASE_DEFAULTS) == own
    assert all(found[name] is None for name in own if name not in ("label_policy", "skip_corrupt_records"))
    assert all(field.metadata["help"] for field in dataclasses.fields(DataConfig))
    assert deeplab_tf.DataConfig is DataConfig


def test_spellings():
    assert DataConfig(crop_size="513,257").crop_size == (513, 257)
    assert DataConfig(crop_size=["513", "257"]).crop_size == (513, 257)
    assert DataConfig(crop_size="").crop_size is None
    for pairs in ("255:1,7:0", ["255:1", "7:0"], ("255:1,7:0",)):
        config = DataConfig(label_policy="map", label_map=pairs)
        assert dict(config.label_table) == {255: 1, 7: 0}
    assert hash(DataConfig(label_policy="map", label_map=["1:0"]))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"crop_size": (513,)}, "crop_size.*two numbers"),
        ({"crop_size": (513, 0)}, "crop_size.*two numbers"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"min_resize_value": 0}, "min_resize_value=0"),
        ({"max_resize_value": 513}, "max_resize_value=513: needs min_resize_value"),
        ({"resize_factor": 16}, "resize_factor=16: needs min_resize_value"),
        ({"min_scale_factor": 0.0}, "min_scale_factor=0.0.*above 0"),
        ({"min_scale_factor": 1.5, "max_scale_factor": 1.0}, "max_scale_factor=1.0.*min_scale_factor=1.5"),
        ({"scale_factor_step_size": -0.25}, "scale_factor_step_size=-0.25"),
        ({"model_variant": "xception"}, "unknown model_variant 'xception'"),
        ({"label_policy": "skip"}, "unknown label_policy 'skip'; known: error, ignore, map"),
        ({"label_policy": "map"}, "label_map=None.*label_policy=map"),
        ({"label_map": "255:1"}, "label_map.*label_policy=error"),
        ({"label_policy": "map", "label_map": "255=1"}, "label_map.*old:new"),
        ({"label_policy": "map", "label_map": "256:1"}, "label_map.*old:new pairs of labels 0..255"),
    ],
    ids=str,
)
def test_mistakes_are_named(options, expected):
    with pytest.raises(DeepLabError, match=expected) as caught:
        DataConfig(**options)
    assert "\n" not in str(caught.value)
