"""TF1 checkpoints in and out: bit-equal round trips, strictness, damage, training state, model directories."""

import dataclasses
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from conftest import SHARED, fill
from golden import golden_tensor
from networks import reduced

from deeplab_tf.arch import ARCHITECTURES
from deeplab_tf.config import ModelConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.network.backbone import build_backbone
from deeplab_tf.network.build import build_model
from deeplab_tf.weights.model_directory import ModelCard, check_target, save_model
from deeplab_tf.weights.tf1 import load_tf1_checkpoint, save_tf1_checkpoint, variable_map, write_tensors

v1 = tf.compat.v1
SMALL = ModelConfig(depth_multiplier=0.25, num_classes=3, aspp_convs_filters=16, crop_size=(33, 33))


def tensors_of(model) -> dict[str, np.ndarray]:
    return {name: golden_tensor(name, tuple(v.shape)) for name, v in variable_map(model).items()}


@pytest.fixture(scope="module")
def built():
    model = build_model(SMALL)
    return model, model.get_weights()


@pytest.fixture
def model(built):
    model, drawn = built
    model.set_weights(drawn)
    return model


@pytest.fixture
def prefix(tmp_path, model) -> str:
    write_tensors(tmp_path / "source" / "model.ckpt", tensors_of(model))
    return str(tmp_path / "source" / "model.ckpt")


def head_for(variant: str) -> ModelConfig:
    stride = 8 if "hnasnet" in variant else 16
    decoder = (4,) if ARCHITECTURES[variant].decoder_end_points else None
    return ModelConfig(
        model_variant=variant, num_classes=5, output_stride=stride, decoder_output_stride=decoder, atrous_rates=(6, 12)
    )


@pytest.mark.parametrize("variant", ARCHITECTURES)
def test_round_trip_is_bit_equal(variant, tmp_path, monkeypatch):
    # Units that repeat the one before have its variables, under names that test_architectures.py knows in full.
    monkeypatch.setitem(ARCHITECTURES, variant, reduced(ARCHITECTURES[variant]))
    model = build_model(head_for(variant), zeros=True)
    expected = tensors_of(model)
    write_tensors(tmp_path / "in" / "model.ckpt", expected)
    receipt = load_tf1_checkpoint(model, str(tmp_path / "in" / "model.ckpt"))
    assert set(receipt.loaded) == set(expected) and not receipt.skipped
    save_tf1_checkpoint(model, tmp_path / "out" / "model.ckpt")
    reader = tf.train.load_checkpoint(str(tmp_path / "out" / "model.ckpt"))
    assert set(reader.get_variable_to_shape_map()) == set(expected)
    for name, value in expected.items():
        assert reader.get_tensor(name).tobytes() == value.tobytes(), name


@pytest.mark.parametrize("version", [v1.train.SaverDef.V1, v1.train.SaverDef.V2])
def test_reads_what_the_original_saver_writes(version, tmp_path, model):
    expected = tensors_of(model)
    with tf.Graph().as_default(), v1.Session() as session:
        for name, value in expected.items():
            v1.get_variable(name, initializer=value, use_resource=False)
        v1.train.get_or_create_global_step()
        session.run(v1.global_variables_initializer())
        path = v1.train.Saver(write_version=version).save(session, str(tmp_path / "model.ckpt"), global_step=30000)
    receipt = load_tf1_checkpoint(model, path)
    assert receipt.skipped == {"global_step": {"shape": [], "reason": "counter of the training"}}
    for name, variable in variable_map(model).items():
        assert np.array_equal(variable.numpy(), expected[name]), name


def test_the_original_saver_reads_what_we_write(tmp_path, model):
    fill(model)
    save_tf1_checkpoint(model, tmp_path / "model.ckpt", state={"global_step": np.int64(7)})
    expected = tensors_of(model)
    with tf.Graph().as_default(), v1.Session() as session:
        variables = {n: v1.get_variable(n, value.shape, use_resource=False) for n, value in expected.items()}
        step = v1.train.get_or_create_global_step()
        v1.train.Saver().restore(session, str(tmp_path / "model.ckpt"))
        assert session.run(step) == 7
        for name, value in session.run(variables).items():
            assert np.array_equal(value, expected[name]), name


def test_receipt_tells_target_shape_and_sum(prefix, model):
    receipt = load_tf1_checkpoint(model, prefix)
    name = "MobilenetV2/Conv/weights"
    expected = golden_tensor(name, (3, 3, 3, 8))
    entry = receipt.loaded[name]
    assert entry["target"] == "MobilenetV2.Conv/kernel" and entry["shape"] == [3, 3, 3, 8]
    assert entry["sum"] == pytest.approx(float(expected.sum(dtype=np.float64)), abs=1e-12)
    assert receipt.source == prefix and len(receipt.sha256) == 64
    assert json.loads(json.dumps(receipt.to_json()))["counts"] == {"loaded": len(receipt.loaded), "skipped": 0}


def _weights(model) -> dict[str, np.ndarray]:
    return {name: v.numpy() for name, v in variable_map(model).items()}


def _refused(model, path, *expected: str):
    before = _weights(model)
    with pytest.raises(DeepLabError) as caught:
        load_tf1_checkpoint(model, path)
    for text in expected:
        assert text in str(caught.value)
    assert "\n" not in str(caught.value)
    assert all(np.array_equal(before[n], v) for n, v in _weights(model).items()), "the model was half loaded"


def test_missing_extra_and_misshaped_variables_are_refused(tmp_path, model):
    tensors, path = tensors_of(model), str(tmp_path / "model.ckpt")
    write_tensors(path, {n: v for n, v in tensors.items() if n != "aspp0/weights"})
    _refused(model, path, path, "missing", "aspp0/weights")
    write_tensors(path, {**tensors, "aspp7/weights": np.zeros(3, np.float32)})
    _refused(model, path, "no place", "aspp7/weights")
    write_tensors(path, {**tensors, "logits/semantic/biases": np.zeros(21, np.float32)})
    _refused(model, path, "shape", "logits/semantic/biases [21] instead of [3]", "num_classes")
    write_tensors(path, {**tensors, "aspp0/weights": tensors["aspp0/weights"].astype(np.float64)})
    _refused(model, path, "float64", "float32")


def test_a_slot_without_its_variable_is_no_training_state(tmp_path, model):
    path = str(tmp_path / "model.ckpt")
    write_tensors(path, {**tensors_of(model), "elsewhere/weights/Momentum": np.zeros(3, np.float32)})
    _refused(model, path, "elsewhere/weights/Momentum")


def test_training_state_is_listed_and_kept(tmp_path, model):
    tensors = tensors_of(model)
    slots = {f"{n}/Momentum": 2 * v for n, v in tensors.items() if not n.endswith(("_mean", "_variance"))}
    others = {
        "global_step": np.int64(30000),
        "beta1_power": np.float32(0.9),
        "aspp0/weights/ExponentialMovingAverage": tensors["aspp0/weights"],
        "MobilenetV2/Conv/act_quant/min": np.float32(0),
    }
    write_tensors(tmp_path / "model.ckpt", {**tensors, **slots, **others})
    receipt = load_tf1_checkpoint(model, str(tmp_path / "model.ckpt"))
    assert set(receipt.skipped) == {*slots, *others}
    assert receipt.skipped["aspp0/weights/Momentum"]["reason"] == "optimiser slot"
    assert receipt.skipped["aspp0/weights/ExponentialMovingAverage"]["reason"] == "moving average of the weights"
    save_tf1_checkpoint(model, tmp_path / "again.ckpt", state={**slots, **others})
    reader = tf.train.load_checkpoint(str(tmp_path / "again.ckpt"))
    for name, value in {**tensors, **slots, **others}.items():
        assert np.array_equal(reader.get_tensor(name), value), name


@pytest.mark.parametrize("suffix", [".data-00000-of-00001", ".index"])
def test_flipped_bits_and_truncation_are_found(suffix, prefix, tmp_path):
    model = build_model(SMALL, zeros=True)
    file = pathlib.Path(prefix + suffix)
    good = file.read_bytes()
    random = np.random.default_rng(0)
    refused = 0
    positions = sorted({int(p) for p in random.integers(0, len(good), 25)})
    for position in positions:
        damaged = bytearray(good)
        damaged[position] ^= 1 << int(random.integers(8))
        file.write_bytes(bytes(damaged))
        try:
            load_tf1_checkpoint(model, prefix)
        except DeepLabError as error:
            refused += prefix in str(error)
        else:  # the index ends in padding that no checksum covers and nobody reads
            assert suffix == ".index" and len(good) - position < 48
            assert all(np.array_equal(v, golden_tensor(n, v.shape)) for n, v in _weights(model).items())
    assert refused >= len(positions) - 2
    for length in (0, 1, len(good) // 2, len(good) - 1):
        file.write_bytes(good[:length])
        with pytest.raises(DeepLabError, match="damaged or truncated"):
            load_tf1_checkpoint(model, prefix)
    file.unlink()
    with pytest.raises(DeepLabError):
        load_tf1_checkpoint(model, prefix)


def test_damage_in_the_training_state_refuses_the_whole_file(tmp_path, model):
    slot = np.full(4096, 3.25, np.float32)
    write_tensors(tmp_path / "model.ckpt", {**tensors_of(model), "logits/semantic/biases/Momentum": slot})
    file = tmp_path / "model.ckpt.data-00000-of-00001"
    content = file.read_bytes()
    file.write_bytes(content.replace(slot[:8].tobytes(), b"\1" * 32, 1))
    _refused(model, str(tmp_path / "model.ckpt"), "logits/semantic/biases/Momentum")


def test_writing_fails_clearly_and_leaves_nothing(tmp_path, model):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DeepLabError, match="cannot be written"):
        save_tf1_checkpoint(model, tmp_path / "file" / "model.ckpt")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_failed_model_directory_leaves_nothing(tmp_path, prefix, model):
    receipt = load_tf1_checkpoint(model, prefix)
    bad = {"global_step": np.int64(1), "x": object()}
    with pytest.raises((DeepLabError, ValueError)):
        save_model(tmp_path / "out", model, receipt, card=ModelCard(SMALL), state=bad)
    assert not any((tmp_path / "out").glob("*"))
    save_model(tmp_path / "out", model, receipt, card=ModelCard(SMALL))
    with pytest.raises(DeepLabError, match="already holds"):
        check_target(tmp_path / "out")
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert names == {"model.ckpt.index", "model.ckpt.data-00000-of-00001", "checkpoint", "receipt.json", "deeplab.json"}


def test_the_card_comes_back_as_it_was_written(tmp_path, prefix, model):
    config = ModelConfig(
        model_variant="xception_71",
        num_classes=19,
        dense_prediction_cell_json="dense_prediction_cell_branch5_top1_cityscapes.json",
        decoder_output_stride=(4,),
    )
    names, palette = ("road", "car"), ((128, 64, 128), (0, 0, 142))
    card = ModelCard(config, dataset="cityscapes", class_names=names, palette=palette, output_stride=16)
    save_model(tmp_path / "out", model, load_tf1_checkpoint(model, prefix), card=card)
    assert ModelCard.read(tmp_path / "out") == card


@pytest.mark.parametrize("text", ["", "{", "[]", '{"config": 3}', '{"config": {"modell_variant": "x"}}', "{}"])
def test_a_broken_card_is_named(text, tmp_path):
    (tmp_path / "deeplab.json").write_text(text)
    with pytest.raises(DeepLabError, match=r"deeplab\.json"):
        ModelCard.read(tmp_path)


@pytest.mark.heavy
def test_loaded_in_a_new_process_the_logits_are_equal(tmp_path, prefix, model):
    receipt = load_tf1_checkpoint(model, prefix)
    save_model(tmp_path / "saved", model, receipt, card=ModelCard(SMALL))
    image = np.random.default_rng(0).uniform(0, 255, (2, 33, 33, 3)).astype(np.float32)
    np.save(tmp_path / "image.npy", image)
    code = (
        "import sys, numpy as np, deeplab_tf; config, model = deeplab_tf.load(sys.argv[1]); "
        "np.save(sys.argv[3], np.asarray(model(np.load(sys.argv[2]), training=False)))"
    )
    files = [str(tmp_path / name) for name in ("saved", "image.npy", "logits.npy")]
    subprocess.run([sys.executable, "-c", code, *files], check=True, capture_output=True)
    assert np.array_equal(np.load(files[2]), np.asarray(model(image, training=False)))


def test_backbones_leave_the_classifier_out_by_name(tmp_path):
    backbone = build_backbone(ModelConfig(model_variant="resnet_v1_18_beta"), zeros=True)
    tensors = tensors_of(backbone)
    classifier = {"resnet_v1_18/logits/weights": np.zeros((1, 1, 512, 10), np.float32)}
    write_tensors(tmp_path / "model.ckpt", {**tensors, **classifier})
    _refused(backbone, str(tmp_path / "model.ckpt"), "resnet_v1_18/logits/weights")
    receipt = load_tf1_checkpoint(backbone, str(tmp_path / "model.ckpt"), skip=["resnet_v1_18/logits"])
    assert set(receipt.skipped) == set(classifier)


def test_variable_names_are_those_of_the_release(model):
    names = list(variable_map(model))
    assert names[:3] == [
        "MobilenetV2/Conv/weights",
        "MobilenetV2/Conv/BatchNorm/gamma",
        "MobilenetV2/Conv/BatchNorm/beta",
    ]
    assert len(set(names)) == len(names) == len(model.weights)


def test_weights_are_shared_only_between_equal_layers(model):
    """Another output stride has other rates under the same names: sharing would be silently wrong."""
    larger = build_model(dataclasses.replace(SMALL, crop_size=(65, 65)), share_with=model)
    assert all(a is b for a, b in zip(variable_map(larger).values(), variable_map(model).values(), strict=True))
    with pytest.raises(DeepLabError, match="output_stride"):
        build_model(dataclasses.replace(SMALL, output_stride=8), share_with=model)


def test_shared_folder_is_where_ci_expects_it():
    assert SHARED.name == "shared"


def test_half_precision_is_widened(tmp_path, model):
    path = str(tmp_path / "model.ckpt")
    halves = {name: np.asarray(value).astype(np.float16) for name, value in tensors_of(model).items()}
    write_tensors(path, halves)
    load_tf1_checkpoint(model, path)
    for name, value in _weights(model).items():
        np.testing.assert_array_equal(value, halves[name].astype(np.float32))
