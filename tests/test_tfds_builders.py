"""The catalogue as builders of TensorFlow Datasets: the same records as build-data, from the layouts as downloaded."""

import pathlib
import shutil
import tarfile

import numpy as np
import pytest
import scipy.io
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

import deeplab_tf.data.tfds_builders  # noqa: F401
from deeplab_tf.catalog import datasets, palettes
from deeplab_tf.config import DataConfig
from deeplab_tf.data import records, shapes, tfds_folder, voc
from deeplab_tf.data.build import build_records
from deeplab_tf.data.examples import dataset_of
from deeplab_tf.data.locate import locate_records
from deeplab_tf.data.pipeline import make_dataset
from deeplab_tf.errors import DeepLabError

RANDOM = np.random.default_rng(0)
VOC = datasets.DATASETS["pascal_voc_seg"]


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("NO_GCE_CHECK", "true")


def prepare(name: str, data_dir: pathlib.Path, manual_dir: pathlib.Path | None = None, **options):
    download = tfds.download.DownloadConfig(manual_dir=manual_dir, try_download_gcs=False, **options)
    return tfds.load(
        name, data_dir=str(data_dir), with_info=True, download_and_prepare_kwargs={"download_config": download}
    )


def photo(file: pathlib.Path):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RANDOM.integers(0, 256, (6, 8, 3), np.uint8)).save(file)


def label(file: pathlib.Path, array: np.ndarray, palette: bool = False):
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    if palette:
        image.putpalette([channel for colour in palettes.pascal_palette(256) for channel in colour])
    image.save(file)


@pytest.fixture
def manual_voc(tmp_path) -> pathlib.Path:
    """manual_dir with VOCdevkit: a, b, c to train, d to validate; palette labels."""
    root = tmp_path / "manual" / "VOCdevkit" / "VOC2012"
    for name in "abcd":
        photo(root / "JPEGImages" / f"{name}.jpg")
        array = RANDOM.integers(0, 21, (6, 8), np.uint8)
        array[0, 0] = 255
        label(root / "SegmentationClass" / f"{name}.png", array, palette=True)
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for split, ids in (("train", "abc"), ("val", "d")):
        (lists / f"{split}.txt").write_text("".join(f"{i}\n" for i in ids))
    return tmp_path / "manual"


def stored(folder: pathlib.Path, keys: tuple[str, str]) -> set[tuple[bytes, bytes]]:
    """The encoded image and label of each record of split train."""
    found = set()
    for file in folder.glob("*train*"):
        for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
            features = tf.train.Example.FromString(record).features.feature
            found.add(tuple(features[key].bytes_list.value[0] for key in keys))
    return found


def test_voc_has_the_images_and_labels_of_build_data(manual_voc, tmp_path):
    sets, info = prepare("deeplab_voc", tmp_path / "tfds", manual_voc)
    assert {split: part.num_examples for split, part in info.splits.items()} == {"train": 3, "val": 1}
    assert info.features["segmentation_mask"].names == list(VOC.class_names)
    assert info.supervised_keys == ("image", "segmentation_mask")
    root = manual_voc / "VOCdevkit" / "VOC2012"
    splits = voc.voc_splits(root / "JPEGImages", root / "SegmentationClass", root / "ImageSets" / "Segmentation")
    build_records(splits, VOC, tmp_path / "records")
    folder = tmp_path / "tfds" / "deeplab_voc" / "1.0.0"
    ours = stored(tmp_path / "records", (records.IMAGE, records.LABEL))
    assert stored(folder, ("image", "segmentation_mask")) == ours
    assert len(ours) == 3
    for example in sets["train"].as_numpy_iterator():
        name = example["file_name"].decode()
        array = np.asarray(Image.open(root / "SegmentationClass" / f"{name}.png"))
        np.testing.assert_array_equal(example["segmentation_mask"][..., 0], array)


@pytest.mark.heavy
def test_the_pipeline_reads_it_with_the_facts_of_the_catalogue(manual_voc, tmp_path):
    prepare("deeplab_voc", tmp_path / "tfds", manual_voc)
    config = DataConfig(dataset="tfds:deeplab_voc", dataset_dir=str(tmp_path / "tfds"), crop_size=(9, 9), batch_size=3)
    facts = dataset_of(config)
    assert (facts.class_names, facts.palette, facts.ignore_label) == (VOC.class_names, VOC.palette, 255)
    batch = next(iter(make_dataset(config, split="train", training=True)))
    assert (batch["image"].shape, batch["label"].shape) == ((3, 9, 9, 3), (3, 9, 9, 1))
    (batch,) = make_dataset(config, split="train", training=False)
    assert sorted(batch["image_name"].numpy()) == [b"a", b"b", b"c"]


def test_voc_from_its_archive_and_with_sbd(manual_voc, tmp_path, monkeypatch):
    archived = tmp_path / "archived"
    archived.mkdir()
    with tarfile.open(archived / "VOCtrainval_11-May-2012.tar", "w") as tar:
        tar.add(manual_voc / "VOCdevkit", "VOCdevkit")
    sbd = tmp_path / "benchmark_RELEASE" / "dataset"
    for name in "ax":
        photo(sbd / "img" / f"{name}.jpg")
        (sbd / "cls").mkdir(exist_ok=True)
        scipy.io.savemat(sbd / "cls" / f"{name}.mat", {"GTcls": {"Segmentation": np.full((6, 8), 7, np.uint8)}})
    (sbd / "train.txt").write_text("a\n")
    (sbd / "val.txt").write_text("x\n")
    with tarfile.open(archived / "benchmark.tgz", "w:gz") as tar:
        tar.add(tmp_path / "benchmark_RELEASE", "benchmark_RELEASE")
    with pytest.raises(DeepLabError, match="train_aug would have 4 images, expected 10582"):
        prepare("deeplab_voc", tmp_path / "tfds", archived)
    monkeypatch.setattr(voc.train_aug, "__kwdefaults__", {"expected": 4})
    sets, info = prepare("deeplab_voc", tmp_path / "tfds", archived)
    assert {split: part.num_examples for split, part in info.splits.items()} == {"train": 3, "train_aug": 4, "val": 1}
    (extra,) = (e for e in sets["train_aug"].as_numpy_iterator() if e["file_name"] == b"x")
    assert (extra["segmentation_mask"] == 7).all()


@pytest.mark.parametrize("archives", [False, True])
def test_cityscapes(tmp_path, archives):
    root, ids = tmp_path / "manual", np.array([[7, 8, 33], [0, 255, 4]], np.uint8)
    for split, city in (("train", "aachen"), ("val", "ulm")):
        file = root / "leftImg8bit" / split / city / f"{city}_000_leftImg8bit.png"
        file.parent.mkdir(parents=True)
        Image.fromarray(RANDOM.integers(0, 256, (2, 3, 3), np.uint8)).save(file)
        label(root / "gtFine" / split / city / f"{city}_000_gtFine_labelIds.png", ids)
        if not archives:
            label(root / "gtCoarse" / split / city / f"{city}_000_gtCoarse_labelIds.png", ids)
    if archives:
        for name in ("leftImg8bit", "gtFine"):
            shutil.make_archive(str(root / f"{name}_trainvaltest"), "zip", root, name)
            shutil.rmtree(root / name)
    sets, info = prepare("deeplab_cityscapes", tmp_path / "tfds", root)
    fine = {"train_fine": 1, "val_fine": 1}
    coarse = {} if archives else {"train_coarse": 1, "trainval_coarse": 2}
    assert {split: part.num_examples for split, part in info.splits.items()} == fine | coarse
    for dataset in sets.values():
        for example in dataset.as_numpy_iterator():
            np.testing.assert_array_equal(example["segmentation_mask"][..., 0], [[0, 1, 18], [255, 255, 255]])
    config = DataConfig(dataset="tfds:deeplab_cityscapes", dataset_dir=str(tmp_path / "tfds"))
    assert len(locate_records(config, "val_fine").index) == 1


def test_ade20k(tmp_path):
    root = tmp_path / "manual" / "ADEChallengeData2016"
    for kind, name in (("training", "ADE_train_1"), ("validation", "ADE_val_1")):
        photo(root / "images" / kind / f"{name}.jpg")
        label(root / "annotations" / kind / f"{name}.png", RANDOM.integers(0, 151, (6, 8), np.uint8))
    sets, _ = prepare("deeplab_ade20k", tmp_path / "tfds", tmp_path / "manual")
    (example,) = sets["val"].as_numpy_iterator()
    expected = np.asarray(Image.open(root / "annotations" / "validation" / "ADE_val_1.png"))
    np.testing.assert_array_equal(example["segmentation_mask"][..., 0], expected)
    config = DataConfig(dataset="tfds:deeplab_ade20k", dataset_dir=str(tmp_path / "tfds"), crop_size=(9, 9))
    assert dataset_of(config).ignore_label == 0


def test_shapes_need_no_files(tmp_path):
    sets, info = prepare("deeplab_shapes", tmp_path, max_examples_per_split=3)
    assert {split: part.num_examples for split, part in info.splits.items()} == {"train": 3, "val": 3}
    drawn = {name: (image, label) for name, image, label in shapes.encoded_shapes("val", 3)}
    for example in sets["val"].as_numpy_iterator():
        image, classes = drawn.pop(example["file_name"].decode())
        np.testing.assert_array_equal(example["image"], records.decode_image(image))
        np.testing.assert_array_equal(example["segmentation_mask"][..., 0], classes)
    assert not drawn


def test_all_faults_are_listed_and_nothing_is_left(manual_voc, tmp_path):
    root = manual_voc / "VOCdevkit" / "VOC2012"
    (root / "JPEGImages" / "a.jpg").unlink()
    label(root / "SegmentationClass" / "c.png", np.full((6, 8), 77, np.uint8))
    with pytest.raises(DeepLabError) as caught:
        prepare("deeplab_voc", tmp_path / "tfds", manual_voc)
    lines = str(caught.value).splitlines()
    assert lines[0].endswith("2 faults, nothing was prepared:")
    assert ["a.jpg: missing image" in lines[1], "c.png: label 77" in lines[2]] == [True, True]
    assert not list((tmp_path / "tfds").rglob("*.tfrecord*"))


@pytest.mark.parametrize("name", [name for name in tfds_folder.CATALOGUE if name != "deeplab_shapes"])
def test_what_manual_dir_must_hold_is_said(name, tmp_path):
    (tmp_path / "manual" / "something else").mkdir(parents=True)
    with pytest.raises(DeepLabError, match="manual_dir=.*: expected the folder .* or .* there"):
        prepare(name, tmp_path / "tfds", tmp_path / "manual")
    assert "manual_dir should have" in tfds.builder_cls(name).MANUAL_DOWNLOAD_INSTRUCTIONS
    with pytest.raises(AssertionError, match="does not exist or is empty(.|\n)*manual_dir should have"):
        prepare(name, tmp_path / "tfds", tmp_path / "nowhere")


def test_every_entry_of_the_catalogue_has_a_builder():
    assert set(tfds_folder.CATALOGUE.values()) == set(datasets.DATASETS)
    assert set(tfds_folder.CATALOGUE) <= set(tfds.list_builders())
