"""The table of released checkpoints against the catalog and the architectures; names, files, and the printed table."""

import dataclasses
import hashlib
import io
import json
import re
import tarfile

import pytest
from conftest import read_case

from deeplab_tf.arch import ARCHITECTURES
from deeplab_tf.arch.dense_prediction_cell import CITYSCAPES_TOP1
from deeplab_tf.catalog.datasets import DATASETS
from deeplab_tf.config import ModelConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.weights.loading import manifest_of
from deeplab_tf.zoo import download, lookup, released


def _archive() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("model/model.ckpt.index"))
    return buffer.getvalue()


CONTENT = _archive()
ENTRIES = list(lookup.CHECKPOINTS.values())
ARCHIVES = [entry for entry in ENTRIES if entry.file]
SEGMENTATION = [entry for entry in ENTRIES if entry.kind == "segmentation"]


def named(entry):
    return entry.name


def test_the_release_has_24_archives():
    kinds = [entry.kind for entry in ENTRIES]
    assert (kinds.count("segmentation"), kinds.count("backbone"), kinds.count("embedded")) == (18, 6, 1)
    assert len(ARCHIVES) == len({entry.file for entry in ARCHIVES}) == 24
    assert [sum(e.dataset == name for e in SEGMENTATION) for name in ("pascal_voc_seg", "cityscapes", "ade20k")] == [
        8,
        8,
        2,
    ]


@pytest.mark.parametrize("entry", ENTRIES, ids=named)
def test_every_entry_is_complete(entry):
    assert lookup.CHECKPOINTS[entry.name] is entry
    assert isinstance(entry.config, ModelConfig)
    assert ModelConfig.from_json(entry.config.to_json()) == entry.config
    assert (entry.file is None) == (entry.url is None) == (entry.kind == "embedded")
    assert (entry.dataset is None) == (entry.train_split is None) == (entry.kind == "backbone")
    assert entry.sha256 is None or re.fullmatch("[0-9a-f]{64}", entry.sha256)
    assert entry.quantized == entry.name.endswith("_8bit") == bool(entry.tflite_size)


@pytest.mark.parametrize("entry", ARCHIVES, ids=named)
def test_every_archive_has_its_address(entry):
    assert entry.url == f"https://storage.googleapis.com/download.tensorflow.org/models/{entry.file}"
    assert re.fullmatch(r"[a-z0-9_-]+_20(18|19|20)_\d\d_\d\d\.tar\.gz", entry.file)
    assert entry.size or entry.name.startswith("edgetpu")


@pytest.mark.parametrize("entry", SEGMENTATION, ids=named)
def test_every_segmentation_agrees_with_the_catalog(entry):
    dataset = DATASETS[entry.dataset]
    assert entry.config.num_classes == dataset.num_classes
    assert entry.train_split in dataset.splits
    assert all(score.split in {*dataset.splits, "test"} for score in entry.scores)


@pytest.mark.parametrize("entry", SEGMENTATION, ids=named)
def test_every_segmentation_has_scores_at_rates_that_follow_the_stride(entry):
    assert entry.scores
    for score in entry.scores:
        assert 30 < score.value < 90
        assert score.metric in ("mIoU", "pixel accuracy")
        at_stride = entry.config.at_output_stride(score.output_stride)
        assert entry.config_for(score) == at_stride
        assert score.flip == (len(score.scales) > 1)


def test_configurations_that_differ_from_the_defaults():
    def config(name):
        return lookup.find(name).config

    assert {e.name for e in SEGMENTATION if e.config.depth_multiplier == 0.5} == {
        "mobilenetv2_dm05_coco_voc_trainaug",
        "mobilenetv2_dm05_coco_voc_trainval",
        "mobilenetv2_dm05_coco_voc_trainaug_8bit",
    }
    assert config("xception71_dpc_cityscapes_trainval").dense_prediction_cell_json == CITYSCAPES_TOP1
    assert config("xception71_dpc_cityscapes_trainval").atrous_rates is None
    assert config("mobilenetv2_ade20k_train").decoder_output_stride == (4,)
    slim = config("edgetpu_deeplab_slim")
    assert (slim.depth_multiplier, slim.aspp_convs_filters, slim.num_classes) == (0.75, 128, 19)
    large, small = config("mobilenetv3_large_cityscapes_trainfine"), config("mobilenetv3_small_cityscapes_trainfine")
    assert dataclasses.replace(small, model_variant=large.model_variant) == large
    assert (large.output_stride, large.decoder_output_stride, large.decoder_filters) == (32, (8,), 19)
    assert (large.crop_size, large.image_pooling_crop_size, large.image_pooling_stride) == (
        (1025, 2049),
        (769, 769),
        (4, 5),
    )


def test_scales_are_the_releases_ranges():
    multi = lookup.find("mobilenetv2_coco_voc_trainaug").scores[1]
    assert multi.scales == (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
    assert str(multi) == "77.33 % mIoU, val (OS 8, scales 0.5:0.25:1.75, flip)"
    assert lookup.find("xception71_dpc_cityscapes_trainval").scores[0].scales == (0.75, 1.0, 1.25, 1.5, 1.75, 2.0)


def test_names_and_files_are_recognised():
    entry = lookup.find("mobilenetv2_coco_voc_trainaug")
    assert lookup.find_by_file(f"/some/where/{entry.file}") is entry
    assert lookup.find_by_file(entry.file.removesuffix(".tar.gz")) is entry
    assert lookup.find_by_file("model.ckpt") is None
    assert all(lookup.find_by_file(e.file) is e for e in ARCHIVES)
    with pytest.raises(DeepLabError, match="did you mean mobilenetv2_coco_voc_trainaug"):
        lookup.find("mobilenetv2_coco_voc_train_aug")


def test_a_file_put_by_hand_is_fetched(tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPLAB_TF_CACHE", str(tmp_path))
    entry = lookup.find("xception_41_imagenet")
    lookup.archive_path(entry).write_bytes(CONTENT)
    assert lookup.fetch(entry) == tmp_path / entry.file


def test_the_published_sum_and_another_address_are_used(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(download, "fetch", lambda url, path, *, sha256, most_bytes: calls.append((url, path, sha256)))
    entry = lookup.find("mobilenetv2_coco_voc_trainaug")
    lookup.fetch(entry, cache=tmp_path)
    lookup.fetch(entry, cache=tmp_path, url="http://mirror.example/a.tar.gz")
    path = tmp_path / entry.file
    assert calls == [(entry.url, path, entry.sha256), ("http://mirror.example/a.tar.gz", path, entry.sha256)]


def test_a_file_that_is_not_the_published_one_is_refused(tmp_path):
    entry = lookup.find("mobilenetv2_coco_voc_trainaug")
    lookup.archive_path(entry, cache=tmp_path).write_bytes(CONTENT)
    with pytest.raises(DeepLabError) as error:
        lookup.fetch(entry, cache=tmp_path)
    assert entry.sha256 in str(error.value)
    assert hashlib.sha256(CONTENT).hexdigest() in str(error.value)


def test_the_embedded_checkpoint_is_not_downloaded(tmp_path, monkeypatch):
    with pytest.raises(DeepLabError, match="part of the package"):
        lookup.fetch(released.SHAPES)
    monkeypatch.setattr(lookup.importlib.resources, "files", lambda package: tmp_path)
    with pytest.raises(DeepLabError, match="reinstall"):
        lookup.embedded_folder(released.SHAPES)
    (tmp_path / "shapes_resnet").mkdir()
    assert lookup.embedded_folder(released.SHAPES) == tmp_path / "shapes_resnet"
    assert released.SHAPES_CONFIG.num_classes == DATASETS["shapes"].num_classes


def test_the_table_says_what_is_cached(tmp_path):
    entry = lookup.find("mobilenetv2_coco_voc_trainaug")
    lookup.archive_path(entry, cache=tmp_path).write_bytes(CONTENT)
    rows = lookup.zoo_table(cache=tmp_path)
    assert [row["name"] for row in rows] == list(lookup.CHECKPOINTS)
    assert [row["name"] for row in rows if row["cached"] == "yes"] == [entry.name]
    assert all(row[key] for row in rows for key in row)


def test_the_markdown_does_not_depend_on_the_machine(tmp_path, monkeypatch):
    before = lookup.zoo_markdown()
    monkeypatch.setenv("DEEPLAB_TF_CACHE", str(tmp_path))
    (tmp_path / lookup.find("xception_41_imagenet").file).touch()
    lines = before.splitlines()
    assert lookup.zoo_markdown() == before
    assert len(lines) == 2 + len(ENTRIES)
    assert {line.count("|") for line in lines} == {6}


def _shapes(rows) -> dict[str, list[int]]:
    return {name: list(shape) for name, shape in rows}


def _entry(entry):
    large = entry.config.model_variant.startswith(("xception_65", "xception_71", "resnet_v1_101"))
    return pytest.param(entry, id=entry.name, marks=[pytest.mark.heavy] * large)


@pytest.mark.heavy
@pytest.mark.parametrize("entry", [_entry(entry) for entry in ARCHIVES])
def test_manifests_are_what_our_tables_build(entry):
    if entry.config.model_variant.startswith("xception") and entry.kind == "segmentation":
        same = next(e for e in ARCHIVES if _network(e) == _network(entry))
        if same is not entry:  # one network, one build: the files must agree
            assert lookup.manifest(entry.name) == lookup.manifest(same.name)
            return
    assert lookup.manifest(entry.name) == manifest_of(entry)


def _network(entry):
    return entry.kind, dataclasses.replace(entry.config, output_stride=16, atrous_rates=(1, 2, 3))


# The lists measured on the original: golden case or reference list, and where the number of classes differs.
_JUDGES = {
    "mobilenetv2_dm05_coco_voc_trainaug": "mobilenet_v2_dm05_os16",
    "mobilenetv2_coco_voc_trainaug": "mobilenet_v2_os16",
    "xception65_coco_voc_trainval": "xception_65_v3plus_os16",
    "mobilenetv3_large_cityscapes_trainfine": "mobilenet_v3_large_seg_cityscapes_os32",
    "mobilenetv3_small_cityscapes_trainfine": "mobilenet_v3_small_seg_cityscapes_os32",
    "xception71_dpc_cityscapes_trainfine": "xception_71_dpc_cityscapes_os16",
    "edgetpu_deeplab": "mobilenet_edgetpu_os16",
}


@pytest.mark.parametrize("name", _JUDGES)
def test_manifests_are_the_originals_variables(name):
    values, _ = read_case(_JUDGES[name])
    assert lookup.manifest(name) == _shapes((n, s) for n, s, _ in values["variables"])


@pytest.mark.parametrize(
    ("name", "tag"),
    [
        ("edgetpu_deeplab_slim", "etpu075"),
        ("mobilenetv2_ade20k_train", "mnv2_dec4"),
        ("xception_41_imagenet", "x41"),
        ("xception_65_imagenet", "x65"),
        ("xception_71_imagenet", "x71"),
        ("resnet_v1_50_beta_imagenet", "r50b"),
        ("resnet_v1_101_beta_imagenet", "r101b"),
    ],
)
def test_manifests_are_the_reference_lists(name, tag, shared):
    """The lists have 21 classes, and the backbones' archives no head."""
    text = (shared / "reference" / "variables" / f"{tag}.txt").read_text().split("\nREG")[0]
    listed = _shapes((n, json.loads(s)) for n, s in re.findall(r"^(\S+) (\[.*\])$", text, re.MULTILINE))
    entry, found = lookup.find(name), lookup.manifest(name)
    if entry.kind == "backbone":
        scope = ARCHITECTURES[entry.config.model_variant].scope
        listed = {n: s for n, s in listed.items() if n.startswith(f"{scope}/")}
    without_logits = [{n: s for n, s in rows.items() if not n.startswith("logits/")} for rows in (found, listed)]
    assert without_logits[0] == without_logits[1]
