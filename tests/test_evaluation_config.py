"""Options of eval and vis: the release's defaults, spellings, and errors that name field, value and cure."""

import dataclasses
import subprocess
import sys

import pytest

import deeplab_tf
from deeplab_tf.config import EvalConfig, Inference, PredictConfig, VisConfig
from deeplab_tf.config.crf import CrfConfig
from deeplab_tf.errors import DeepLabError

RELEASE_DEFAULTS = {  # eval.py; vis.py has them under its own names
    "eval_scales": (1.0,),
    "add_flipped_images": False,
    "checkpoint_dir": None,
    "eval_logdir": None,
    "eval_split": "val",
    "eval_batch_size": 1,
    "eval_crop_size": (513, 513),
    "eval_interval_secs": 300,
    "max_number_of_evaluations": 0,
}


def defaults(config_class) -> dict:
    assert all(field.metadata["help"] for field in dataclasses.fields(config_class))
    return {field.name: field.default for field in dataclasses.fields(config_class)}


def test_names_and_defaults_are_the_releases():
    ours = {"large_images": "pad", "report": None, "tf32": False}
    assert defaults(EvalConfig) == {**RELEASE_DEFAULTS, **ours, **defaults(CrfConfig)}
    own = {"colormap_type": "pascal", "also_save_raw_predictions": False}
    assert defaults(VisConfig) == {**defaults(EvalConfig), **own}
    assert deeplab_tf.EvalConfig is EvalConfig


def test_spellings():
    for size in ("769,513", ["769", "513"], (769, 513)):
        assert EvalConfig(eval_crop_size=size).eval_crop_size == (769, 513)
    assert EvalConfig(eval_crop_size="").eval_crop_size is None
    assert EvalConfig(eval_scales="0.5,1").eval_scales == (0.5, 1.0)
    assert hash(VisConfig(eval_scales=[0.5])) == hash(VisConfig(eval_scales=(0.5,)))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"eval_scales": ()}, "eval_scales=None: expected scales above 0"),
        ({"eval_scales": (17,)}, "eval_scales.*at most 16"),
        ({"eval_crop_size": (513,)}, "eval_crop_size.*two numbers"),
        ({"eval_crop_size": (0, 513)}, "eval_crop_size.*two numbers"),
        ({"eval_batch_size": 0}, "eval_batch_size=0"),
        ({"eval_interval_secs": -1}, "eval_interval_secs=-1"),
        ({"large_images": "crop"}, "unknown large_images 'crop'; known: pad, tile"),
        ({"large_images": "tile", "eval_crop_size": None}, "large_images='tile': tile needs eval_crop_size"),
        ({"colormap_type": "vistas"}, "unknown colormap_type 'vistas'; did you mean mapillary_vistas"),
    ],
    ids=str,
)
def test_mistakes_are_named(options, expected):
    with pytest.raises(DeepLabError, match=expected) as caught:
        VisConfig(**options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["pascal", "cityscapes", "ade20k", "mapillary_vistas", "shapes", "dataset"])
def test_colours(name):
    assert VisConfig(colormap_type=name).colormap_type == name


def test_scales_are_one_option_of_all_that_predict():
    shared = {"eval_scales", "add_flipped_images", "tf32"}
    assert shared <= set(defaults(PredictConfig)) & set(defaults(EvalConfig))
    for config in (PredictConfig, EvalConfig):
        assert not shared & set(config.__annotations__), "declared once, above both"


def test_it_needs_no_tensorflow():
    code = "import sys; from deeplab_tf.config import VisConfig; VisConfig(); print('tensorflow' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_inference_is_passed_whole():
    assert EvalConfig().inference == PredictConfig().inference == Inference()
    options = {"eval_scales": "0.5,1", "add_flipped_images": True, "crf": True}
    crf = EvalConfig(crf=True).crf_parameters
    assert PredictConfig(**options).inference == Inference((0.5, 1.0), flip=True, crf=crf)
    expected = Inference((0.5, 1.0), flip=True, large_images="tile", crf=crf)
    assert VisConfig(**options, large_images="tile").inference == expected
    assert not Inference([1.0], crf={}).averages
    assert Inference(flip=True).averages and Inference((0.5,)).averages


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"scales": ()}, "scales.*above 0"),
        ({"scales": (1.0, -0.5)}, "scales.*above 0"),
        ({"large_images": "tiles"}, "did you mean tile"),
    ],
)
def test_wrong_inference(options, match):
    with pytest.raises(DeepLabError, match=match):
        Inference(**options)
