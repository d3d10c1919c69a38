"""Other people's Keras networks by the names of their layers: read as data, with the logits of their own layers."""

import json

import h5py
import keras2_files
import numpy as np
import pytest
from conftest import GOLDENS
from golden import golden_image

from deeplab_tf.errors import DeepLabError
from deeplab_tf.weights.keras_layers import system_of, tf1_name
from deeplab_tf.weights.loading import open_model
from deeplab_tf.weights.sources import open_source

MOBILENET = "seed2_keras_mobilenet_16_96x128"


def facts(name):
    return json.loads((GOLDENS / "keras" / f"{name}.json").read_text())


def difference(model, name):
    """Returns the largest difference of the logits, over the largest recorded one."""
    case = facts(name)
    image = golden_image(name, case["height"], case["width"]).astype(np.float32)[None]
    with np.load(GOLDENS / "keras" / f"{name}.npz") as arrays:
        logits = model(image, training=False).numpy()[0]
        return np.abs(logits[::4, ::4] - arrays["every_fourth"]).max() / arrays["largest"]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return keras2_files.write(tmp_path_factory.mktemp("keras") / "best_epoch_weights.h5", facts(MOBILENET)["layers"])


def test_mobilenet_at_both_downsample_factors(file):
    loaded = open_model(file)
    config = loaded.card.config
    assert (config.model_variant, config.output_stride, config.atrous_rates) == (
        *("mobilenet_v2_tf2", 16),
        (6, 12, 18),
    )
    assert (config.decoder_output_stride, config.aspp_with_separable_conv, loaded.card.letterbox) == ((4,), True, 512)
    assert difference(loaded.model, MOBILENET) <= 1e-5
    assert "names and layout are those of bubbliiiing/deeplabv3-plus-keras (MobileNetV2)" in loaded.notes
    layers = facts(MOBILENET)["layers"]
    assert len(loaded.receipt.loaded) == sum(len(variables) for variables in layers.values())
    assert loaded.receipt.loaded["aspp1_depthwise/depthwise_weights"]["source"] == "aspp1_depthwise/depthwise_kernel"
    finer = open_model(file, {"output_stride": 8})
    assert finer.card.config.atrous_rates == (12, 24, 36)
    assert difference(finer.model, "seed2_keras_mobilenet_8_64x96") <= 1e-5


@pytest.mark.heavy
def test_xception(tmp_path):
    name = "seed2_keras_xception_16_64x96"
    loaded = open_model(keras2_files.write(tmp_path / "xception.h5", facts(name)["layers"]))
    assert (loaded.card.config.model_variant, loaded.card.config.output_stride) == ("xception_65_tf2", 16)
    assert difference(loaded.model, name) <= 1e-5


def edited(file, target, **changes):
    """Copies the weights with other layers: name -> new name, or None to leave it out."""
    with h5py.File(file) as source, h5py.File(target, "w") as content:
        for key, value in source.attrs.items():
            content.attrs[key] = value
        for layer in source:
            if changes.get(layer, layer) is not None:
                source.copy(layer, content, name=changes.get(layer, layer))
    return target


def test_a_whole_model_tells_its_rates_and_its_description_is_not_run(file, tmp_path):
    whole = tmp_path / "whole.h5"
    rates = [{"config": {"name": f"aspp{n}_depthwise", "dilation_rate": [12 * n, 12 * n]}} for n in (1, 2, 3)]
    code = {"class_name": "Lambda", "config": {"name": "code", "function": ["raise", None, None]}}
    with h5py.File(file) as source, h5py.File(whole, "w") as content:
        group = content.create_group("model_weights")
        group.attrs["layer_names"] = source.attrs["layer_names"]
        for layer in source:
            source.copy(layer, group)
        content.attrs["model_config"] = json.dumps({"class_name": "Model", "config": {"layers": [*rates, code]}})
    with open_source(whole) as opened:
        assert opened.known == {"atrous_rates": (12, 24, 36), "output_stride": 8}
        assert opened.model_variant == "mobilenet_v2_tf2"
        with h5py.File(whole, "a") as content:
            content.attrs["model_config"] = "{"
    with open_source(whole) as opened:
        assert opened.known == {}


def test_layers_that_do_not_fit_are_named(file, tmp_path):
    with pytest.raises(DeepLabError, match=r"4 have no place in the model: aspp4_depthwise/BatchNorm"):
        open_model(edited(file, tmp_path / "more.h5", conv2d="conv2d", aspp3_depthwise_BN="aspp4_depthwise_BN"))
    with pytest.raises(DeepLabError, match=r"more\.h5: there is a head but no logits"):
        open_model(edited(file, tmp_path / "more.h5", conv2d="logits"))
    with pytest.raises(DeepLabError, match=r"weights of another Keras network \(layers Conv_BN, .*expected those"):
        open_model(edited(file, tmp_path / "other.h5", Conv="stem"))
    with h5py.File(edited(file, tmp_path / "twice.h5"), "a") as content:
        content.copy("conv2d", content, name="conv2d_1")
    with pytest.raises(DeepLabError, match=r"conv2d_1/\w+ and conv2d/\w+ are both logits/semantic/\w+ of bubbliiiing"):
        open_model(tmp_path / "twice.h5")
    with h5py.File(edited(file, tmp_path / "whole.h5", conv2d=None), "a") as content:
        content.create_dataset("conv2d/conv2d/kernel:0", data=np.zeros((1, 1, 256, 21), np.int32))
    with pytest.raises(DeepLabError, match=r"conv2d/kernel holds int32; expected floats"):
        open_model(tmp_path / "whole.h5")


def test_links_are_not_followed(file, tmp_path):
    with h5py.File(edited(file, tmp_path / "linked.h5", Conv=None), "a") as content:
        content["Conv"] = h5py.ExternalLink(str(file), "/Conv")
    with pytest.raises(DeepLabError, match="Conv is a link of HDF5"):
        open_model(tmp_path / "linked.h5")


def test_google_s_weights_by_names_that_follow_the_release():
    """bonlime's networks name their logits; the one on MobileNetV2 has no decoder, and both are the release's."""
    theirs = {"Conv", "aspp0", "image_pooling", "concat_projection", "logits_semantic"}
    assert system_of(theirs).model_variant == "mobilenet_v2"
    assert system_of({"entry_flow_conv1_1", "aspp0", "custom_logits_semantic"}).model_variant == "xception_65"
    assert system_of({"conv1", "aspp0"}) is None
    assert tf1_name("logits_semantic", "bias") == "logits/semantic/biases"
    assert tf1_name("Conv_BN", "gamma") == "MobilenetV2/Conv/BatchNorm/gamma"
    assert tf1_name("Conv", "alpha") is None and tf1_name("Convolution", "kernel") is None
