"""Networks whose weights lie in PyTorch's layout: the rules of their names, and the logits of their own code."""

import json

import numpy as np
import pytest
from conftest import GOLDENS
from golden import golden_image
from golden_torch import golden_torch_tensor
from torch_files import save

from deeplab_tf.config import ModelConfig, PredictConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.inference.predictor import Predictor
from deeplab_tf.inference.segmenter import Segmenter
from deeplab_tf.inference.tiles import network_labels, network_size
from deeplab_tf.network.build import build_model
from deeplab_tf.ops.resizing import resize_bilinear
from deeplab_tf.weights.loading import open_model
from deeplab_tf.weights.renaming import renamed, their_name
from deeplab_tf.weights.sources import WeightSource, open_source
from deeplab_tf.weights.systems import PYTORCH_XCEPTION, SYSTEMS, system_of
from deeplab_tf.weights.tf1 import load_source, variable_map

CASES = sorted(path.stem for path in (GOLDENS / "torch").glob("seed2_*.npz"))


def _case(name):
    return json.loads((GOLDENS / "torch" / f"{name}.json").read_text())


def _tensors(name):
    return {n: golden_torch_tensor(n, shape) for n, shape in _case(name)["variables"].items()}


def _difference(model, name):
    """Returns the largest difference of the logits at the image's size, over the largest golden one."""
    case = _case(name)
    image = golden_image(name, case["height"], case["width"]).astype(np.float32)[None]
    logits = resize_bilinear(model(image, training=False), image.shape[1:3]).numpy()[0]
    with np.load(GOLDENS / "torch" / f"{name}.npz") as arrays:
        return np.abs(logits[::8, ::8] - arrays["every_eighth"]).max() / arrays["largest"]


def test_mobilenet_at_both_downsample_factors(tmp_path):
    path = save(tmp_path / "weights.pth", _tensors("seed2_mobilenet_16_96x128"))
    loaded = open_model(path)
    config = loaded.card.config
    assert (config.model_variant, config.output_stride, config.atrous_rates) == (
        *("mobilenet_v2_pytorch", 16),
        (6, 12, 18),
    )
    assert (config.decoder_output_stride, config.decoder_use_separable_conv) == ((4,), False)
    assert (loaded.card.letterbox, loaded.card.dataset) == (512, "pascal_voc_seg")
    assert any("a grey square of 512 pixels: predict and Segmenter do that" in note for note in loaded.notes)
    options = Segmenter(path).options
    assert (options.resize, options.longest_side) == ("letterbox", 512)
    assert Segmenter(path, PredictConfig(resize="none")).options.resize == "none"
    assert _difference(loaded.model, "seed2_mobilenet_16_96x128") <= 1e-5
    reasons = {entry["reason"] for entry in loaded.receipt.skipped.values()}
    assert reasons == {"counter of the training", "taken from the moving mean of the batch norm behind it"}
    assert len(loaded.receipt.loaded) + len(loaded.receipt.skipped) == len(
        _case("seed2_mobilenet_16_96x128")["variables"]
    )
    # The golden tensors follow from the names, which are the same at both factors.
    finer = open_model(path, {"output_stride": 8})
    assert finer.card.config.atrous_rates == (12, 24, 36)
    assert _difference(finer.model, "seed2_mobilenet_8_65x97") <= 1e-5


@pytest.mark.heavy
def test_xception():
    name = "seed2_xception_16_96x128"
    shapes = {n: tuple(shape) for n, shape in _case(name)["variables"].items()}
    found = renamed(PYTORCH_XCEPTION, shapes, lambda n: golden_torch_tensor(n, shapes[n]))
    config = ModelConfig(
        model_variant="xception_65_pytorch",
        atrous_rates=(6, 12, 18),
        aspp_with_separable_conv=False,
        decoder_output_stride=(4,),
        decoder_use_separable_conv=False,
    )
    model = build_model(config, zeros=True)
    source = WeightSource("x.pth", "", found.shapes, found.read)
    receipt = load_source(model, source)
    assert len(receipt.loaded) + len(found.left_out) == len(shapes)
    assert _difference(model, name) <= 1e-5


@pytest.mark.heavy
def test_torchvision(tmp_path):
    name = "torchvision_resnet50_64x97"
    loaded = open_model(save(tmp_path / "deeplabv3_resnet50_coco.pth", _tensors(name)))
    config = loaded.card.config
    assert (config.model_variant, config.output_stride, config.atrous_rates) == (
        *("resnet_v1_50_pytorch", 8),
        (12, 24, 36),
    )
    case = _case(name)
    image = golden_image(name, case["height"], case["width"]).astype(np.float32)[None]
    with np.load(GOLDENS / "torch" / f"{name}.npz") as arrays:
        logits = loaded.model(image, training=False).numpy()[0]
        assert np.abs(logits - arrays["logits"]).max() / arrays["largest"] <= 1e-5
    reasons = {entry["reason"].partition(",")[0] for entry in loaded.receipt.skipped.values()}
    assert reasons == {"counter of the training", "belongs to the auxiliary classifier"}
    assert len(loaded.receipt.loaded) + len(loaded.receipt.skipped) == len(case["variables"])
    assert any("without aligned corners" in note for note in loaded.notes)


@pytest.mark.parametrize("name", [*CASES, "hf_mnv2_dm10_os16", "torchvision_resnet101_65x64"])
def test_every_name_has_a_rule_and_every_rule_an_inverse(name):
    case = _case(name)
    system = system_of(case["variables"])
    assert system is not None and system in SYSTEMS
    shapes = {n: tuple(shape) for n, shape in case["variables"].items()}
    found = renamed(system, shapes, lambda n: np.empty(shapes[n]))
    assert set(found.origins.values()) | set(found.left_out) == set(shapes)
    assert not set(found.origins) & set(shapes)
    for ours, theirs in found.origins.items():
        assert their_name(system, ours) == theirs


def test_a_name_without_a_rule_has_no_place(tmp_path):
    tensors = _tensors("seed2_mobilenet_16_96x128")
    tensors["aspp.branch6.0.weight"] = np.zeros((1, 1, 1, 1), np.float32)
    with pytest.raises(DeepLabError, match=r"1 have no place in the model: aspp\.branch6\.0\.weight"):
        open_model(save(tmp_path / "more.pth", tensors))
    for name in ("aspp.branch6.0.weight", "aspp.branch1.1.running_mean"):
        tensors.pop(name)
    with pytest.raises(DeepLabError, match="1 variables are missing: aspp0/BatchNorm/moving_mean"):
        open_model(save(tmp_path / "less.pth", tensors))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("classifier.0.convs.0.0.weight", "torchvision's DeepLabV3 on another backbone"),
        ("segmentation_head.0.weight", "segmentation_models_pytorch: .* the first unit has the rate of the others"),
        ("layer.weight\nx", r"weights of an unknown network \(layer.weight x, ...\)"),
    ],
)
def test_networks_that_cannot_be_built_are_named(name, expected, tmp_path):
    path = save(tmp_path / "other.pth", {name: np.zeros((1, 1), np.float32)})
    with pytest.raises(DeepLabError, match=expected) as caught, open_source(path):
        pass
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("net.onnx", b"\x08\x08", "an ONNX model"),
        ("zipped", b"PK\x05\x06" + bytes(18), "a ZIP archive"),
        ("net", b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        ("NET.PTH", b"text", "damaged, truncated or not a file of PyTorch's"),
        ("net.pth.tar", b"\x80\x02}.", "not PyTorch's"),
    ],
)
def test_files_of_known_kinds_are_named(name, content, expected, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DeepLabError, match=expected) as caught, open_source(tmp_path / name):
        pass
    assert "\n" not in str(caught.value)


def test_a_saved_model_is_named(tmp_path):
    (tmp_path / "variables").mkdir()
    (tmp_path / "variables" / "variables.index").write_bytes(b"")
    (tmp_path / "saved_model.pb").write_bytes(b"")
    with pytest.raises(DeepLabError, match="a SavedModel, a graph"), open_source(tmp_path):
        pass


class _Corners:
    """A backend whose logits are class 1 where a picture is bright, at full size."""

    name, batches = "test", False
    sizes = ()

    def logits(self, images, config):
        self.sizes = (*self.sizes, images.shape[1:3])
        bright = (images.mean(-1, keepdims=True) > 200).astype(np.float32)
        return np.concatenate([0.5 - bright, bright - 0.5], -1)

    def upsampled_classes(self, logits, size):
        assert logits.shape[1:3] == tuple(size)
        return logits.argmax(-1).astype(np.int32)

    def prepare(self):
        pass


@pytest.mark.parametrize("size", [(40, 80), (80, 40), (64, 64), (1, 90)])
def test_a_letterbox_fits_the_picture_into_a_square(size):
    picture = np.zeros((*size, 3), np.uint8)
    picture[: size[0] // 2 + 1] = 255
    backend = _Corners()
    predictor = Predictor(ModelConfig("mobilenet_v2_pytorch", num_classes=2), backend)
    options = PredictConfig(resize="letterbox", longest_side=64)
    sized = network_size(picture, options)
    labels = network_labels(predictor, sized, options)
    assert backend.sizes == ((64, 64),)
    assert labels.shape == sized.shape[:2] and max(labels.shape) == 64
    np.testing.assert_array_equal(labels, (sized.mean(-1) > 200).astype(np.int32))


def test_the_rule_of_a_model_gives_way_to_the_users():
    assert PredictConfig().for_model(512, None, {}) == PredictConfig(resize="letterbox", longest_side=512)
    assert PredictConfig(longest_side=256).for_model(512, None, {"longest_side"}).longest_side == 256
    assert PredictConfig(resize="none").for_model(512, None, {"resize"}).resize == "none"
    assert PredictConfig().for_model(None, None, {}) == PredictConfig(resize="longest")


def test_variables_have_the_names_of_the_release():
    theirs = variable_map(build_model(ModelConfig("mobilenet_v2_pytorch", num_classes=21), zeros=True))
    ours = variable_map(build_model(ModelConfig("mobilenet_v2", num_classes=21), zeros=True))
    assert list(theirs) == list(ours)
