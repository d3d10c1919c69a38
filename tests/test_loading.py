"""From a path or name to a model: what is assumed is said, contradictions are refused, the zoo is converted once."""

import concurrent.futures
import dataclasses
import json
import os
import tarfile
import time
import types

import keras
import numpy as np
import pytest
from golden import golden_tensor

import deeplab_tf
from deeplab_tf.config import ModelConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.network.build import build_model
from deeplab_tf.network.wrapped import config_of
from deeplab_tf.weights import loading
from deeplab_tf.weights.load import load
from deeplab_tf.weights.loading import open_model, renamed
from deeplab_tf.weights.model_directory import ModelCard, save_model
from deeplab_tf.weights.tf1 import load_tf1_checkpoint, variable_map, write_tensors
from deeplab_tf.zoo import lookup

SMALL = ModelConfig(model_variant="tiny", num_classes=3, aspp_convs_filters=16, atrous_rates=(6, 12, 18))


def write(config: ModelConfig, prefix) -> dict:
    variables = variable_map(build_model(config, zeros=True))
    tensors = {name: golden_tensor(name, tuple(v.shape)) for name, v in variables.items()}
    write_tensors(prefix, tensors)
    return tensors


@pytest.fixture(scope="module")
def prefix(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("weights") / "model.ckpt"
    write(SMALL, path)
    return str(path)


@pytest.fixture(scope="module")
def directory(prefix, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("models") / "small"
    model = build_model(SMALL)
    receipt = load_tf1_checkpoint(model, prefix)
    save_model(folder, model, receipt, card=ModelCard(SMALL, class_names=("a", "b", "c"), output_stride=16))
    return str(folder)


def test_bare_weights_say_what_was_assumed(prefix):
    loaded = open_model(prefix)
    assert loaded.card.config == SMALL and config_of(loaded.model) == SMALL
    assert any(note.startswith("--output_stride=16 assumed by convention") for note in loaded.notes)
    assert any(note.startswith("--atrous_rates=6,12,18 assumed") for note in loaded.notes)
    assert loaded.card.class_names == ("class 0", "class 1", "class 2")
    assert loaded.receipt.notes == loaded.notes


def test_a_loaded_network_has_no_drawn_weights_but_its_copies_have(prefix):
    model = open_model(prefix).model
    copy = keras.models.clone_model(model)
    for built in (copy, build_model(SMALL, zeros=True)):
        kernels = [v.numpy() for name, v in variable_map(built).items() if name.endswith("weights")]
        assert kernels and all((kernel != 0).any() for kernel in kernels) == (built is copy)


@pytest.mark.heavy
def test_rates_follow_the_output_stride_unless_given(prefix, directory):
    for path in (prefix, directory):
        assert load(path, output_stride=8)[0].atrous_rates == (12, 24, 36)
        assert load(path, output_stride=8, atrous_rates=(1, 2, 3))[0].atrous_rates == (1, 2, 3)
        assert load(path, output_stride=32)[0].atrous_rates == (3, 6, 9)
    assert any("follow --output_stride=8" in note for note in open_model(directory, {"output_stride": 8}).notes)


def test_flags_that_contradict_are_refused(prefix, directory):
    for path in (prefix, directory):
        with pytest.raises(DeepLabError, match="num_classes=20 contradicts.*num_classes=3"):
            open_model(path, {"num_classes": 20})
        with pytest.raises(DeepLabError, match="model_variant=xception_65 contradicts.*tiny"):
            load(path, model_variant="xception_65")
    with pytest.raises(DeepLabError, match="use_bounded_activation=True contradicts"):
        load(directory, use_bounded_activation=True)
    assert load(prefix, use_bounded_activation=True)[0].use_bounded_activation
    assert load(directory, crop_size=(65, 65), image_pyramid=(0.5, 1.0))[0].crop_size == (65, 65)


def test_the_releases_whole_command_line_is_no_contradiction(tmp_path):
    prefix = tmp_path / "model.ckpt"
    write(dataclasses.replace(SMALL, model_variant="mobilenet_v2", depth_multiplier=0.25), prefix)
    flags = {"model_variant": "mobilenet_v2", "depth_multiplier": 0.25, "aspp_convs_filters": 16, "num_classes": 3}
    assert load(prefix, **flags, atrous_rates=(6, 12, 18), output_stride=16, multi_grid=(1, 2, 4))[0].multi_grid


def test_unknown_rates_must_be_given(tmp_path):
    config = dataclasses.replace(SMALL, atrous_rates=(2, 4))
    write(config, tmp_path / "model.ckpt")
    with pytest.raises(DeepLabError, match="do not tell atrous_rates; give --atrous_rates"):
        load(tmp_path / "model.ckpt")
    assert load(tmp_path / "model.ckpt", atrous_rates=(2, 4))[0] == config


def test_v2_style_logits(tmp_path):
    config = ModelConfig(
        depth_multiplier=0.25, aspp_with_batch_norm=False, logits_kernel_size=3, atrous_rates=(6, 12), num_classes=3
    )
    write(config, tmp_path / "model.ckpt")
    with pytest.raises(DeepLabError, match="atrous_rates"):
        load(tmp_path / "model.ckpt")
    # Nothing shows the stride; heads of this kind are v2's, whose paper has 8.
    assert load(tmp_path / "model.ckpt", atrous_rates="6,12")[0] == dataclasses.replace(config, output_stride=8)
    assert load(tmp_path / "model.ckpt", atrous_rates="6,12", output_stride=16)[0] == config


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("xception65_coco_voc_trainagu", "xception65_coco_voc_trainaug"),
        ("shapes_resnat", "shapes_resnet"),
        ("zzz", "zoo"),
    ],
)
def test_unknown_names_list_near_ones(name, near):
    with pytest.raises(DeepLabError, match=near) as caught:
        load(name)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_unknown_options_and_data_sets(prefix):
    with pytest.raises(DeepLabError, match="unknown dataset 'pascal'.*pascal_voc_seg"):
        open_model(prefix, dataset="pascal")
    with pytest.raises(DeepLabError, match="21 classes, the model 3"):
        open_model(prefix, dataset="pascal_voc_seg")


def test_classes_of_a_folder_s_dataset_json(prefix, tmp_path):
    folder = tmp_path / "my records"
    folder.mkdir()
    with pytest.raises(DeepLabError, match="my records/dataset.json: cannot be read"):
        open_model(prefix, dataset=str(folder))
    (folder / "dataset.json").write_text('{"name": "pets", "class_names": ["ground", "cat", "dog"], "ignore_label": 0}')
    loaded = open_model(prefix, dataset=str(folder))
    card = loaded.card
    assert (card.dataset, card.class_names, card.ignore_label) == ("pets", ("ground", "cat", "dog"), 0)
    assert not any("assumed" in note and "--dataset" in note for note in loaded.notes)
    save_model(tmp_path / "model", loaded.model, loaded.receipt, card=card)
    assert renamed(open_model(tmp_path / "model"), str(folder)).card.class_names == card.class_names
    (folder / "dataset.json").write_text('{"class_names": ["ground", "cow", "dog"]}')
    with pytest.raises(
        DeepLabError, match="calls class 1 'cow', the model, trained on pets, 'cat'; leave the flag out"
    ):
        renamed(open_model(tmp_path / "model"), str(folder))
    image = {"channels": 4, "dtype": "uint16", "range": [[0, 9]], "mean": [1, 2, 3, 4], "shown": [0, 1, 2]}
    (folder / "dataset.json").write_text(json.dumps({"class_names": ["ground", "cat", "dog"], "image": image}))
    with pytest.raises(DeepLabError, match="has photographs of 4 bands of uint16, the model reads 3 bands"):
        open_model(prefix, dataset=str(folder))


@pytest.mark.heavy
def test_zoo_archive_put_by_hand_is_converted_once(tmp_path, monkeypatch):
    """The whole way of `load(name)` with no network: archive in the cache, configuration from the table."""
    name = "mobilenetv2_dm05_coco_voc_trainval"
    entry = lookup.CHECKPOINTS[name]
    monkeypatch.setenv("DEEPLAB_TF_CACHE", str(tmp_path / "cache"))
    tensors = write(entry.config, tmp_path / "deeplabv3" / "model.ckpt-30000")
    (tmp_path / "cache").mkdir()
    with tarfile.open(tmp_path / "cache" / entry.file, "w:gz") as archive:
        archive.add(tmp_path / "deeplabv3", arcname="deeplabv3")
    loaded = open_model(name)
    assert loaded.card.config == entry.config and loaded.card.dataset == "pascal_voc_seg"
    assert loaded.card.train_split == entry.train_split == "trainval"
    assert loaded.card.class_names[15] == "person"
    assert np.array_equal(variable_map(loaded.model)["aspp0/weights"].numpy(), tensors["aspp0/weights"])

    def unexpected(*_args, **_kwargs):
        raise AssertionError("converted a second time")

    monkeypatch.setattr(loading, "_open_weights", unexpected)
    assert open_model(name).card.config == entry.config


def test_an_archive_is_known_by_its_file_name(tmp_path):
    """trainaug and trainval are the same network: the file name tells which, and what it was trained on."""
    entry = lookup.CHECKPOINTS["mobilenetv2_dm05_coco_voc_trainval"]
    write(entry.config, tmp_path / "deeplabv3" / "model.ckpt")
    with tarfile.open(tmp_path / entry.file, "w:gz") as archive:
        archive.add(tmp_path / "deeplabv3", arcname="deeplabv3")
    assert open_model(tmp_path / entry.file).card.train_split == "trainval"
    assert open_model(tmp_path / "deeplabv3").card.train_split is None


def test_public_names_stay_functions():
    """`deeplab_tf.predict` is the function also after its module was imported."""
    import deeplab_tf.inference.predict as _  # noqa: F401

    assert callable(deeplab_tf.predict) and callable(deeplab_tf.load)
    assert set(deeplab_tf.__all__) >= {"ModelConfig", "build_model", "load_tf1_checkpoint", "save_tf1_checkpoint"}
    with pytest.raises(AttributeError, match="predicct"):
        _ = deeplab_tf.predicct


def test_a_model_made_elsewhere_is_refused():
    import keras

    with pytest.raises(DeepLabError, match="build_model"):
        deeplab_tf.predict(keras.Sequential([keras.Input((None, None, 3))]), np.zeros((1, 9, 9, 3)))


# ---- two processes, and one that was killed


def test_row_3_one_process_converts_a_name_and_what_a_killed_one_left_goes(tmp_path, monkeypatch):
    entry = lookup.find("mobilenetv2_coco_voc_trainaug")
    archive, digest, begun = tmp_path / "x.tar.gz", "0" * 64, []
    folder = tmp_path / "converted" / f"{entry.name}-{digest[:12]}"
    folder.mkdir(parents=True)
    (folder / "model.ckpt.index").write_bytes(b"half")
    forgotten = folder.with_name(".partial-1")
    forgotten.mkdir()
    os.utime(forgotten, (0, 0))

    def opened(*_, **__):
        begun.append(1)
        time.sleep(0.2)
        receipt = types.SimpleNamespace(require_sound=lambda: None)
        return types.SimpleNamespace(model=None, receipt=receipt, card=None, state=None)

    def saved(place, *_, **__):
        assert not (folder / "deeplab.json").exists()
        (place / "model.ckpt.index").write_bytes(b"whole")
        (place / "deeplab.json").write_text("{}")

    monkeypatch.setattr(lookup, "fetch", lambda entry: archive)
    monkeypatch.setattr(loading.sums, "verify", lambda path, sha256: digest)
    monkeypatch.setattr(loading, "_open_weights", opened)
    monkeypatch.setattr(loading, "save_model", saved)
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        found = list(pool.map(loading._zoo_directory, [entry] * 3))
    assert (found, len(begun)) == ([folder] * 3, 1)
    assert (folder / "model.ckpt.index").read_bytes() == b"whole"
    assert {path.name for path in folder.parent.iterdir()} == {folder.name, f"{folder.name}.lock"}
