"""Group norm and weight standardisation of ResNets' backbones: the rules, the names, and what is exported."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from golden import golden_tensor
from networks import lively

import deeplab_tf
from deeplab_tf.config import ExportConfig, ModelConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.network.build import build_model
from deeplab_tf.network.cost import regularized_kernels
from deeplab_tf.network.normalisation import GroupNormalization, StandardizedConv2D
from deeplab_tf.ops.normalisation import group_normalized, standardized
from deeplab_tf.weights.loading import open_model
from deeplab_tf.weights.tf1 import save_tf1_checkpoint, variable_map

PLAIN = ModelConfig("small_resnet", num_classes=3, aspp_convs_filters=8, crop_size=(65, 65))
GROUPS = {"normalization_method": "group", "group_norm_groups": 4}
BOTH = dataclasses.replace(PLAIN, use_weight_standardization=True, **GROUPS)


def maps(*shape: int) -> np.ndarray:
    return golden_tensor("maps", shape).astype(np.float32) * 3 + 1


def test_a_standardised_kernel_has_mean_0_and_variance_1():
    """In each output channel, over all others; 1e-5 is added to the variance (core/conv2d_ws.py)."""
    kernel = golden_tensor("a/weights", (3, 3, 4, 6)).astype(np.float64)
    found = standardized(tf.constant(kernel, tf.float32)).numpy()
    expected = (kernel - kernel.mean((0, 1, 2))) / np.sqrt(kernel.var((0, 1, 2)) + 1e-5)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.all(standardized(tf.fill((1, 1, 2, 2), 5.0)).numpy() == 0)


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_a_group_is_of_neighbouring_channels(groups):
    values, gamma, beta = maps(2, 5, 3, 8), golden_tensor("a/gamma", (8,)), golden_tensor("a/beta", (8,))
    grouped = values.astype(np.float64).reshape(2, 5, 3, groups, 8 // groups)
    mean, variance = (statistic(grouped, axis=(1, 2, 4), keepdims=True) for statistic in (np.mean, np.var))
    expected = ((grouped - mean) / np.sqrt(variance + 1e-6)).reshape(values.shape) * gamma + beta
    found = group_normalized(tf.constant(values), gamma, beta, groups=groups, epsilon=1e-6)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    theirs = keras.layers.GroupNormalization(groups, epsilon=1e-6)
    theirs.build(values.shape)
    theirs.gamma.assign(gamma)
    theirs.beta.assign(beta)
    np.testing.assert_allclose(found, theirs(values), atol=2e-5)


def names(config: ModelConfig) -> set[str]:
    return set(variable_map(build_model(config, zeros=True)))


def test_the_variables_are_the_releases():
    """Group norms lie under GroupNorm and have no statistics; without a norm there are biases; the head stays."""
    group, none = (
        names(dataclasses.replace(PLAIN, **GROUPS)),
        names(dataclasses.replace(PLAIN, normalization_method="none")),
    )
    plain, both = names(PLAIN), names(BOTH)
    conv = "SmallResNet/block1/unit_1/conv1"
    assert f"{conv}/BatchNorm/gamma" in plain
    assert {n for n in group if n.startswith(conv)} == {
        f"{conv}/weights",
        f"{conv}/GroupNorm/gamma",
        f"{conv}/GroupNorm/beta",
    }
    assert {n for n in none if n.startswith(conv)} == {f"{conv}/weights", f"{conv}/biases"}
    assert both == group and not any("SmallResNet" in n and "moving" in n for n in group | none)
    head = {name for name in plain if not name.startswith("SmallResNet/")}
    assert head <= group and head <= none


def test_a_resnet_of_the_release_with_both():
    """core/resnet_v1_beta_test.py builds them; of 16 channels there are no 32 groups."""
    config = ModelConfig("resnet_v1_18_beta", crop_size=(33, 33), use_weight_standardization=True, **GROUPS)
    model = build_model(config, zeros=True)
    kinds = [type(layer) for layer in model.layers if layer.name.startswith("resnet_v1_18.")]
    assert kinds.count(StandardizedConv2D) == kinds.count(GroupNormalization) == 3 + 16 + 4  # stem, units, shortcuts
    with pytest.raises(DeepLabError, match="group_norm_groups=32: .*conv1_1/GroupNorm has 16 channels"):
        build_model(dataclasses.replace(config, group_norm_groups=32), zeros=True)


def test_l2_is_of_the_kernel_itself():
    model = build_model(BOTH, zeros=True)
    assert len(regularized_kernels(model)) == len(regularized_kernels(build_model(PLAIN, zeros=True)))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"model_variant": "mobilenet_v2", **GROUPS}, "mobilenet_v2 does not take it"),
        ({"normalization_method": "layer"}, "expected batch, group, none"),
        ({**GROUPS, "group_norm_groups": 0}, "group_norm_groups=0"),
        ({**GROUPS, "batch_norm_epsilon": 1e-3}, "has no batch norms"),
        ({"use_weight_standardization": True, "quantize_delay_step": 0}, "only convolutions with batch norms"),
    ],
)
def test_options_that_do_not_go_together(options, expected):
    with pytest.raises(DeepLabError, match=expected):
        dataclasses.replace(PLAIN, **options)


@pytest.fixture(scope="module")
def model():
    return lively(BOTH)


def test_files_keep_them(model, tmp_path):
    """A checkpoint of TensorFlow 1 shows the norms; what it cannot show is told."""
    image = maps(1, 65, 65, 3) * 40
    expected = model(image, training=False).numpy()
    save_tf1_checkpoint(model, tmp_path / "model.ckpt")
    opened = open_model(tmp_path / "model.ckpt", {"group_norm_groups": 4, "use_weight_standardization": True})
    assert opened.card.config.normalization_method == "group"
    again = build_model(BOTH, share_with=opened.model) if opened.card.config.crop_size else opened.model
    np.testing.assert_allclose(again(image, training=False), expected, atol=1e-4)
    assert any("--group_norm_groups=32 assumed" in note for note in _notes(tmp_path / "model.ckpt"))
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(deeplab_tf.load(tmp_path / "model.keras")[1](image, training=False), expected)


def _notes(path) -> tuple[str, ...]:
    try:
        return open_model(path).notes
    except DeepLabError as error:  # 32 groups do not divide these channels
        return (f"--group_norm_groups=32 assumed: {error}",)


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["saved", "a.tflite", "a.onnx"])
def test_exports_calculate_the_same(name, model, tmp_path):
    made = deeplab_tf.export(model, tmp_path / name, ExportConfig(num_images=2))
    assert made["agreement"] > 0.999
