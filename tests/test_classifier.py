"""ImageNet checkpoints as classifiers: the release's names, published costs, and the command on photographs."""

import keras
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from commands import finished, one_line
from conftest import fill
from golden import golden_image

from deeplab_tf.config import ModelConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.inference.classify import class_names, classify, imagenet_input
from deeplab_tf.network.classifier import build_classifier
from deeplab_tf.network.cost import model_cost
from deeplab_tf.tools import classify as tool
from deeplab_tf.weights.classifying import open_classifier
from deeplab_tf.weights.loading import open_model
from deeplab_tf.weights.tf1 import save_tf1_checkpoint, variable_map

SMALL = ModelConfig("mobilenet_v2", depth_multiplier=0.35, divisible_by=8)


def shapes(variant: str, classes: int = 10) -> dict[str, tuple[int, ...]]:
    model = build_classifier(ModelConfig(variant, crop_size=(65, 65)), classes, zeros=True)
    assert model.output_shape == (None, classes)
    return {name: tuple(variable.shape) for name, variable in variable_map(model).items()}


@pytest.mark.parametrize(
    ("variant", "scope", "filters"),
    [
        ("resnet_v1_18_beta", "resnet_v1_18/logits", 512),
        ("mobilenet_v1", "MobilenetV1/Logits/Conv2d_1c_1x1", 1024),
        ("mobilenet_v2", "MobilenetV2/Logits/Conv2d_1c_1x1", 1280),
        ("mobilenet_edgetpu", "MobilenetEdgeTPU/Logits/Conv2d_1c_1x1", 1280),
        pytest.param("resnet_v1_50_beta", "resnet_v1_50/logits", 2048, marks=pytest.mark.heavy),
        pytest.param("xception_65", "xception_65/logits", 2048, marks=pytest.mark.heavy),
    ],
)
def test_the_names_are_the_releases(variant, scope, filters):
    """resnet_v1_beta_test.py, xception_test.py: <scope>/logits; slim's MobileNets: Logits/Conv2d_1c_1x1."""
    found = shapes(variant)
    assert found[f"{scope}/weights"] == (1, 1, filters, 10) and found[f"{scope}/biases"] == (10,)


def test_mobilenet_v2_has_its_tail_again():
    """slim's mobilenet_v2_test.py: 36 full convolutions; layer 19 is 1x1 to 1,280 with batch norm."""
    found = shapes("mobilenet_v2", 1001)
    assert found["MobilenetV2/Conv_1/weights"] == (1, 1, 320, 1280)
    assert found["MobilenetV2/Conv_1/BatchNorm/moving_mean"] == (1280,)
    model = build_classifier(ModelConfig("mobilenet_v2"), 1001, zeros=True)
    assert sum(isinstance(layer, keras.layers.Conv2D) for layer in model.layers) == 36


@pytest.mark.parametrize(
    ("multiplier", "multiply_adds", "parameters"), [(1.0, 300e6, 3.47e6), (0.5, 97e6, 1.95e6)], ids=["1.0", "0.5"]
)
def test_costs_are_the_published_ones(multiplier, multiply_adds, parameters):
    """slim's table of MobileNetV2 at 224 x 224."""
    config = ModelConfig("mobilenet_v2", depth_multiplier=multiplier, divisible_by=8, crop_size=(224, 224))
    cost = model_cost(build_classifier(config, 1001, zeros=True))
    assert cost.multiply_adds == pytest.approx(multiply_adds, rel=0.01)
    assert cost.parameters == pytest.approx(parameters, rel=0.02)


# ---- a checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> str:
    """A MobileNetV2 of slim's names with golden weights and 1,001 classes."""
    model = build_classifier(SMALL, 1001)
    fill(model)
    place = tmp_path_factory.mktemp("imagenet") / "model.ckpt"
    slots = {name: np.zeros(v.shape, np.float32) for name, v in variable_map(model).items() if name.endswith("biases")}
    state = {"global_step": np.array(9, np.int64), **{f"{name}/RMSProp": value for name, value in slots.items()}}
    save_tf1_checkpoint(model, place, state=state)
    return str(place)


@pytest.mark.heavy
def test_a_checkpoint_is_a_classifier_and_a_backbone(checkpoint):
    opened = open_classifier(checkpoint)
    assert (opened.classes, opened.side, opened.config.depth_multiplier) == (1001, 224, 0.35)
    expected = build_classifier(SMALL, 1001)
    fill(expected)
    picture = golden_image("cat", 90, 120)
    shares = classify(opened.model, [picture, picture[:, ::-1]], 96)
    logits = expected(imagenet_input(picture, 96)[None], training=False)
    np.testing.assert_allclose(shares[0], tf.nn.softmax(logits)[0], atol=1e-6)
    backbone = open_model(checkpoint)
    assert backbone.card.kind == "backbone"
    reasons = {name: entry["reason"] for name, entry in backbone.receipt.skipped.items()}
    assert (
        reasons["MobilenetV2/Conv_1/weights"]
        == reasons["MobilenetV2/Logits/Conv2d_1c_1x1/biases"]
        == "left out on request"
    )


@pytest.mark.heavy
def test_the_command_prints_the_most_likely_classes(checkpoint, tmp_path, capsys):
    PIL.Image.fromarray(golden_image("cat", 90, 120)).save(tmp_path / "cat.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    given = (f"--checkpoint={checkpoint}", "--image_size=96", "--top=3", tmp_path / "cat.png")
    assert finished(tool, *given) == 0
    lines = capsys.readouterr().out.splitlines()
    (shares,) = classify(open_classifier(checkpoint).model, [golden_image("cat", 90, 120)], 96)
    best = shares.argsort()[::-1][:3]
    names = class_names(1001)
    assert names[:3] == ("background", "tench", "goldfish") and names[208] == "golden retriever"
    assert lines[0].startswith("mobilenet_v2, 1001 classes, 96 x 96; ")
    found = [line.split(maxsplit=3) for line in lines if line.startswith("  ")]
    assert [(int(number), name) for _, _, number, name in found] == [(n, names[n]) for n in best]
    assert finished(tool, *given, tmp_path / "broken.png") == 1
    assert "FAILED" in capsys.readouterr().out
    (tmp_path / "names.txt").write_text("".join(f"class {n}\n" for n in range(1, 1001)))
    assert finished(tool, *given, f"--class_names={tmp_path / 'names.txt'}") == 0
    assert f"  class {best[0]}\n" in capsys.readouterr().out


def test_what_holds_no_classifier(tmp_path, capsys):
    PIL.Image.fromarray(golden_image("cat", 40, 40)).save(tmp_path / "cat.png")
    assert finished(tool, "--checkpoint=shapes_resnet", f"--input={tmp_path / 'cat.png'}") == 1
    assert "holds no ImageNet classifier of small_resnet" in one_line(capsys.readouterr().err)
    (tmp_path / "names.txt").write_text("a\nb\n")
    with pytest.raises(DeepLabError, match="2 names for a network of 7 classes"):
        class_names(7, ["a", "b"])
    assert class_names(7) == tuple("0123456")
    with pytest.raises(DeepLabError, match="nas_pnasnet: has no ImageNet classifier here"):
        build_classifier(ModelConfig("nas_pnasnet"), 10)


def test_the_middle_of_a_photograph():
    """slim: 87.5 % of each side, from whole pixels, then TensorFlow 1's bilinear resize to a square."""
    image = golden_image("middle", 80, 160)
    found = imagenet_input(image, 70)
    assert found.shape == (70, 70, 3)
    np.testing.assert_array_equal(found[:, 0], image[5:75, 10].astype(np.float32))
    np.testing.assert_array_equal(found[:, 1], image[5:75, 12].astype(np.float32))
