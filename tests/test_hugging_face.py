"""Folders of transformers' MobileNetV2 with the DeepLab head: read, written and refused."""

import json
import shutil

import numpy as np
import pytest
import safetensors.numpy
from absl import flags
from commands import finished
from conftest import GOLDENS
from exports import certificate_of
from golden import golden_image
from golden_torch import golden_torch_tensor

import deeplab_tf
from deeplab_tf import files
from deeplab_tf.arch import ARCHITECTURES
from deeplab_tf.config import ModelConfig, ServeConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.evaluation.following import is_run
from deeplab_tf.inference.exported import open_runnable
from deeplab_tf.network.build import build_model
from deeplab_tf.serving.engine import Engine
from deeplab_tf.tools import export_model as export_tool
from deeplab_tf.tools import options
from deeplab_tf.weights import hugging_face
from deeplab_tf.weights.describing import describe_weights
from deeplab_tf.weights.exported import find_export
from deeplab_tf.weights.loading import open_model
from deeplab_tf.weights.model_directory import ModelCard
from deeplab_tf.weights.renaming import their_name
from deeplab_tf.weights.repository import Evidence, write_repository
from deeplab_tf.weights.sources import open_source
from deeplab_tf.weights.systems import HUGGING_FACE
from deeplab_tf.weights.tf1 import Receipt, variable_map

CASES = sorted(path.stem for path in (GOLDENS / "torch").glob("hf_*.npz"))
RECEIPT = Receipt("weights", "0" * 64, {}, {})


def _case(name):
    return json.loads((GOLDENS / "torch" / f"{name}.json").read_text())


def _folder(path, name, changes=None, *, drop=()):
    """Writes the folder of a golden case, with other fields of config.json."""
    case = _case(name)
    path.mkdir()
    config = {**case["config"], **(changes or {})}
    (path / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not ...}))
    tensors = {n: golden_torch_tensor(n, s) for n, s in case["variables"].items() if n not in drop}
    (path / "model.safetensors").write_bytes(safetensors.numpy.save(tensors, metadata={"format": "pt"}))
    return path


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    return _folder(tmp_path_factory.mktemp("hub") / "half", "hf_mnv2_dm05_os16")


@pytest.mark.parametrize("name", CASES)
def test_logits_are_those_of_transformers(name, tmp_path):
    case = _case(name)
    loaded = open_model(_folder(tmp_path / name, name))
    image = golden_image(name, case["height"], case["width"]).astype(np.float32)[None]
    logits = np.asarray(loaded.model(image, training=False))[0]
    with np.load(GOLDENS / "torch" / f"{name}.npz") as arrays:
        golden = arrays["logits"]
    assert logits.shape == golden.shape
    assert np.abs(logits - golden).max() <= 1e-5 * np.abs(golden).max()
    counts = loaded.receipt.to_json()["counts"]
    assert counts["loaded"] + counts["skipped"] == len(case["variables"])
    assert counts["loaded"] == len(variable_map(loaded.model))
    entry = loaded.receipt.loaded["image_pooling/BatchNorm/gamma"]
    assert entry["source"] == "segmentation_head.conv_pool.normalization.weight"
    reasons = {value["reason"] for value in loaded.receipt.skipped.values()}
    assert reasons == {
        "counter of the training",
        "belongs to the ImageNet classifier, which segmentation does not run",
    }


def test_the_released_width_has_no_option_of_its_own(tmp_path):
    said = hugging_face.read_folder(_folder(tmp_path / "a", "hf_mnv2_dm10_os16"))
    assert said.config == ModelConfig(num_classes=21)
    said = hugging_face.read_folder(_folder(tmp_path / "b", "hf_mnv2_dm035_os8_nopad"))
    expected = ModelConfig(num_classes=7, output_stride=8, depth_multiplier=0.35, divisible_by=8, fixed_padding=True)
    assert said.config == expected


def _widths(multiplier, divisor, smallest, ratio):
    """Returns the widths that transformers' modeling_mobilenet_v2.py gives, written out anew."""

    def divisible(value):
        new = max(smallest, int(value + divisor / 2) // divisor * divisor)
        return int(new + divisor if new < 0.9 * value else new)

    channels = [32, 16, 24, 24, 32, 32, 32, 64, 64, 64, 64, 96, 96, 96, 160, 160, 160, 320]
    outs = [divisible(int(round(c * multiplier))) for c in channels]
    return outs, [divisible(int(round(c * ratio))) for c in outs[1:-1]]


@pytest.mark.parametrize("divisor", [1, 2, 8, 16])
@pytest.mark.parametrize("multiplier", [0.1, 0.25, 0.35, 0.5, 0.68125, 0.75, 1.0, 1.3, 1.4])
def test_widths_are_transformers(multiplier, divisor):
    for smallest, ratio in ((1, 6.0), (8, 6.0), (16, 4.0), (8, 1.0)):
        config = ModelConfig(
            depth_multiplier=multiplier, divisible_by=divisor, smallest_width=smallest, expand_ratio=ratio
        )
        rows = ARCHITECTURES["mobilenet_v2"].units(config)
        outs, inside = _widths(multiplier, divisor, smallest, ratio)
        assert [row.filters for row in rows] == outs
        assert [row.expanded for row in rows[2:]] == inside


def test_other_fields(tmp_path):
    fields = {"layer_norm_eps": 1e-5, "expand_ratio": 4, "min_depth": 16, "output_stride": 32, "num_channels": 4}
    changes = {**fields, "first_layer_is_expansion": False, "semantic_loss_ignore_index": 0}
    said = hugging_face.read_folder(_folder(tmp_path / "a", "hf_mnv2_dm05_os16", changes))
    config = said.config
    assert (config.batch_norm_epsilon, config.expand_ratio, config.smallest_width) == (1e-5, 4.0, 16)
    assert (config.output_stride, config.input_channels, config.expand_first_block) == (32, 4, True)
    assert said.ignore_label == 0
    model = build_model(config, zeros=True)
    names = [their_name(HUGGING_FACE, name) for name in variable_map(model)]
    assert None not in names and len(set(names)) == len(names)
    assert "mobilenet_v2.conv_stem.expand_1x1.convolution.weight" in names
    epsilons = {layer.epsilon for layer in model.layers if hasattr(layer, "epsilon")}
    assert epsilons == {1e-5}


def test_fields_that_are_left_out_have_transformers_values(tmp_path):
    path = tmp_path / "a"
    path.mkdir()
    (path / "config.json").write_text('\ufeff{"model_type": "mobilenet_v2", "id2label": {"0": "sky", "1": "sea"}}')
    said = hugging_face.read_folder(path)
    assert said.config == ModelConfig(num_classes=2, output_stride=32)
    assert said.class_names == ("sky", "sea") and said.kind == "segmentation"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model_type": "segformer"}, 'model_type="segformer"; expected mobilenet_v2'),
        ({"model_type": ...}, "model_type=null"),
        ({"hidden_act": "gelu"}, 'hidden_act="gelu"'),
        ({"auto_map": {"AutoModel": "evil.Model"}}, "'auto_map' is not a field"),
        ({"new\nfield": 1}, "'new field' is not a field"),
        ({"output_stride": 12}, "output_stride=12"),
        ({"output_stride": "16"}, 'output_stride="16"; expected a whole number'),
        ({"output_stride": True}, "output_stride=true"),
        ({"depth_multiplier": "1"}, 'depth_multiplier="1"; expected a number'),
        ({"depth_multiplier": -1}, "depth_multiplier"),
        ({"depth_multiplier": 1e300}, "depth_multiplier"),
        ({"tf_padding": 1}, "tf_padding=1; expected true or false"),
        ({"min_depth": 0}, "smallest_width"),
        ({"layer_norm_eps": 0}, "batch_norm_epsilon"),
        ({"id2label": {"0": "a", "2": "b"}}, "id2label"),
        ({"id2label": ["a"]}, "id2label"),
        ({"id2label": {}}, "id2label"),
        ({"num_labels": 20}, "num_labels=20; expected 21"),
        ({"id2label": None, "num_labels": 1 << 31}, "num_labels=2147483648; expected a number of classes, at most"),
        ({"label2id": {"LABEL_0": 1}}, "label2id"),
    ],
)
def test_fields_that_are_refused(changes, expected, tmp_path):
    path = tmp_path / "a"
    path.mkdir()
    config = {**_case("hf_mnv2_dm05_os16")["config"], **changes}
    (path / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not ...}))
    with pytest.raises(DeepLabError) as caught:
        hugging_face.read_folder(path)
    message = str(caught.value)
    assert expected in message and message.startswith(str(path)) and "\n" not in message


@pytest.mark.parametrize("text", [b"", b"[1]", b"\xff\xfe", b"{", b"[" * 100_000])
def test_a_config_that_is_no_json(text, tmp_path):
    (tmp_path / "config.json").write_bytes(text)
    with pytest.raises(DeepLabError, match=r"config\.json: ") as caught:
        hugging_face.read_folder(tmp_path)
    assert "\n" not in str(caught.value)


def test_the_image_processor_is_told_or_refused(half, tmp_path):
    path = tmp_path / "copy"
    shutil.copytree(half, path)
    processor = {"do_resize": True, "size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}}
    for changes, expected in (
        ({"image_mean": [0.485, 0.456, 0.406]}, "image_mean="),
        ({"image_std": 1.0}, "image_std="),
        ({"rescale_factor": 1.0}, "rescale_factor="),
        ({"do_rescale": False}, "do_rescale true"),
        ({"do_normalize": False}, "do_normalize true"),
        ({"do_flip_channel_order": True}, "red, green, blue"),
    ):
        (path / "preprocessor_config.json").write_text(json.dumps({**processor, **changes}))
        with pytest.raises(DeepLabError, match=expected):
            hugging_face.read_folder(path)
    (path / "preprocessor_config.json").write_text(json.dumps(processor))
    assert hugging_face.read_folder(path).notes == (
        "preprocessor_config.json resizes to a shortest side of 256; predict resizes by --resize and --longest_side",
        "preprocessor_config.json cuts out the middle, 224 x 224; predict keeps the whole picture",
    )


def test_weights_must_all_be_there_and_be_the_configs(half, tmp_path):
    less = _folder(tmp_path / "less", "hf_mnv2_dm05_os16", drop=["segmentation_head.classifier.convolution.bias"])
    with pytest.raises(DeepLabError, match="1 variables are missing: logits/semantic/biases"):
        open_model(less)
    with pytest.raises(DeepLabError, match="contradicts .*config.json, which has num_classes=21"):
        open_model(half, {"num_classes": 20})
    shutil.copytree(half, tmp_path / "other")
    (tmp_path / "other" / "config.json").write_text(
        json.dumps({**_case("hf_mnv2_dm05_os16")["config"], "expand_ratio": 4})
    )
    with pytest.raises(DeepLabError, match="have another shape"):
        open_model(tmp_path / "other")
    described = describe_weights(half)
    assert (described.config.depth_multiplier, described.kind, described.folded) == (0.5, "segmentation", False)


@pytest.mark.heavy
def test_from_a_folder_to_saved_model_tflite_and_a_server(half, tmp_path, capsys):
    for name, *more in (("saved",), ("model.tflite", "--crop_size=65,65")):
        path = tmp_path / name
        where = (f"--checkpoint_path={half}", f"--export_path={path}", "--num_images=1")
        assert finished(export_tool, *where, *more) == 0, capsys.readouterr().err
        assert certificate_of(path)["output_stride"] == {"exported": 16, "from": "the model's own", "trained": 16}
    loaded = open_model(half)
    image = golden_image("served", 65, 65)
    expected = deeplab_tf.predict(loaded.model, image[None], runtime="tf")[0]
    for opened in (loaded, open_runnable(tmp_path / "saved"), open_runnable(tmp_path / "model.tflite")):
        engine = Engine(opened.model, opened.card, ServeConfig(runtime="tf" if opened is loaded else "auto"))
        assert engine.info()["classes"][0]["name"] == loaded.card.class_names[0]
        ((labels, _),) = engine._run(image[None])
        assert np.mean(labels == expected) >= 0.999


@pytest.mark.parametrize("flag", ["checkpoint", "checkpoint_path", "checkpoint_dir", "tf_initial_checkpoint", "input"])
def test_names_of_the_hub_are_no_paths(flag):
    values = flags.FlagValues()
    options.define_path(values, flag, None, "")
    values(["tool", f"--{flag}=hf://owner/name@main"])
    if flag != "input":
        options._require_file_systems(values)
        assert values[flag].value == "hf://owner/name@main" and not is_run("hf://owner/name@main")
        assert find_export("hf://owner/name@main") is None
    else:
        with pytest.raises(DeepLabError, match="--input=hf://owner/name@main: hf:// is no file system"):
            options._require_file_systems(values)


def test_safetensors_that_are_made_to_do_harm(tmp_path):
    def file(header, data=b"", size=None):
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        path = tmp_path / "x.safetensors"
        path.write_bytes((len(text) if size is None else size).to_bytes(8, "little") + text + data)
        return path

    def entry(shape, begin, end, dtype="F32"):
        return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}

    for path in (
        file({}, size=1 << 62),
        file({"a": entry([1], 0, 4), "b": entry([1], 0, 4)}, bytes(4)),
        file({"a": entry([1], 4, 8)}, bytes(8)),
        file({"a": entry([1 << 62, 1 << 62], 0, 8)}, bytes(8)),
        file({"a": entry([-1], 0, 4)}, bytes(4)),
        file({"a": entry([100], 0, 400)}, bytes(4)),
        file({"a\nb": entry([1], 0, 4, "F99")}, bytes(4)),
        file(b"[" * 100_000),
        file(b""),
    ):
        with (
            pytest.raises(DeepLabError, match=r"damaged, truncated or not a \.safetensors") as caught,
            open_source(path),
        ):
            pass
        assert "\n" not in str(caught.value)
    with (
        pytest.raises(DeepLabError, match="F8_E4M3"),
        open_source(file({"a/b": entry([4], 0, 4, "F8_E4M3")}, bytes(4))),
    ):
        pass
    with (
        pytest.raises(DeepLabError, match="weights of an unknown network"),
        open_source(file({"a": entry([1], 0, 4)}, bytes(4))),
    ):
        pass


def test_a_repository_of_transformers_comes_back_bit_by_bit(half, tmp_path):
    loaded = open_model(half, dataset="pascal_voc_seg")
    evidence = Evidence({"miou": 0.5, "version": "1", "matrix": [[1]]}, {"agreement": 1.0}, "mit")
    assert write_repository(tmp_path / "out", loaded.model, loaded.receipt, loaded.card, evidence)
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == sorted(
        ["README.md", "config.json", "deeplab.json", "model.safetensors", "preprocessor_config.json", "receipt.json"]
    )
    text = (tmp_path / "out" / "README.md").read_text()
    assert 'license: "mit"' in text and "| miou | 0.5000 |" in text and "aeroplane" in text and '"agreement"' in text
    expected = {name: np.asarray(value) for name, value in variable_map(loaded.model).items()}
    case = _case("hf_mnv2_dm05_os16")
    tensors = safetensors.numpy.load_file(tmp_path / "out" / "model.safetensors")
    assert {name: list(value.shape) for name, value in tensors.items()} == case["variables"]
    (tmp_path / "bare").mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(tmp_path / "out" / name, tmp_path / "bare" / name)
    for folder in (tmp_path / "out", tmp_path / "bare"):
        again = open_model(folder)
        assert again.card.config == loaded.card.config
        assert again.card.class_names == loaded.card.class_names and again.card.dataset == "pascal_voc_seg"
        for name, variable in variable_map(again.model).items():
            np.testing.assert_array_equal(np.asarray(variable), expected[name])
    with pytest.raises(DeepLabError, match="already holds"):
        write_repository(tmp_path / "out", loaded.model, loaded.receipt, loaded.card)


def test_a_network_that_transformers_has_not_is_a_repository_of_ours(tmp_path):
    config = ModelConfig("tiny", num_classes=3, crop_size=(33, 33), decoder_output_stride=(4,))
    model = build_model(config)
    card = ModelCard(config, class_names=("a", "b|c", "d\ne"))
    assert not write_repository(tmp_path / "out", model, RECEIPT, card)
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == ["README.md", "deeplab.json", "model.safetensors", "receipt.json"]
    again = open_model(tmp_path / "out")
    assert again.card == card
    for name, variable in variable_map(model).items():
        np.testing.assert_array_equal(np.asarray(variable), np.asarray(variable_map(again.model)[name]))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (ModelConfig("tiny"), "model_variant=tiny"),
        (ModelConfig(decoder_output_stride=(4,)), "decoder_output_stride"),
        (ModelConfig(atrous_rates=(6, 12, 18)), "atrous_rates"),
        (ModelConfig(add_image_level_feature=False), "add_image_level_feature"),
        (ModelConfig(depth_multiplier=0.35), "depth_multiplier=0.35"),
    ],
)
def test_what_transformers_has_not(config, expected):
    with pytest.raises(DeepLabError, match=expected):
        hugging_face.config_json(config, (), 255)


@pytest.mark.parametrize("multiplier", [0.5, 1.0])
def test_released_networks_can_be_written(multiplier, tmp_path):
    config = ModelConfig(depth_multiplier=multiplier, num_classes=21)
    (tmp_path / "config.json").write_text(json.dumps(hugging_face.config_json(config, (), 255)))
    units = ARCHITECTURES["mobilenet_v2"].units
    assert units(hugging_face.read_folder(files.path(tmp_path)).config) == units(config)
