"""The facts of the data sets: what the release's registry and its colour map test say."""

import subprocess
import sys

import pytest

from deeplab_tf.catalog import datasets, palettes
from deeplab_tf.errors import DeepLabError

ALL = list(datasets.DATASETS.values())


@pytest.mark.parametrize("dataset", ALL, ids=lambda d: d.name)
def test_names_and_colours_match_the_class_count(dataset):
    assert len(dataset.class_names) == len(set(dataset.class_names)) == dataset.num_classes
    assert len(dataset.palette) == dataset.num_classes
    assert all(name and name == name.strip() for name in dataset.class_names)
    assert palettes.colour_map(dataset.colour_map)[: dataset.num_classes] == dataset.palette
    assert datasets.dataset(dataset.name) is dataset


@pytest.mark.parametrize(
    ("name", "num_classes", "ignore_label", "splits"),
    [
        ("pascal_voc_seg", 21, 255, {"train": 1464, "train_aug": 10582, "trainval": 2913, "val": 1449}),
        (
            "cityscapes",
            19,
            255,
            {
                "train_fine": 2975,
                "train_coarse": 22973,
                "trainval_fine": 3475,
                "trainval_coarse": 23473,
                "val_fine": 500,
                "test_fine": 1525,
            },
        ),
        ("ade20k", 151, 0, {"train": 20210, "val": 2000}),
    ],
)
def test_release_registry(name, num_classes, ignore_label, splits):
    dataset = datasets.dataset(name)
    assert (dataset.num_classes, dataset.ignore_label, dict(dataset.splits)) == (num_classes, ignore_label, splits)


@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("pascal_voc_seg", {0: "background", 1: "aeroplane", 8: "cat", 15: "person", 20: "tv"}),
        ("cityscapes", {0: "road", 7: "traffic sign", 11: "person", 13: "car", 18: "bicycle"}),
        ("ade20k", {0: "other", 1: "wall", 4: "floor", 13: "person", 65: "coffee table", 128: "bicycle", 150: "flag"}),
        ("shapes", {0: "background", 1: "circle", 8: "heart"}),
    ],
)
def test_class_order(name, places):
    names = datasets.dataset(name).class_names
    assert {i: names[i] for i in places} == places


def test_pascal_rule_against_the_release_test():
    palette = palettes.pascal_palette(256)
    expected = {5: (128, 0, 128), 23: (128, 192, 128), 37: (128, 0, 192), 127: (224, 192, 192), 175: (192, 160, 192)}
    assert {i: palette[i] for i in expected} == expected
    assert palette[0] == (0, 0, 0)
    assert palette[255] == (224, 224, 192)


def test_pascal_palette_sizes():
    assert palettes.pascal_palette(0) == ()
    assert len(set(palettes.pascal_palette(512))) == 512
    for size in (-1, 513):
        with pytest.raises(DeepLabError, match="0 to 512"):
            palettes.pascal_palette(size)


@pytest.mark.parametrize(
    ("name", "size", "places"),
    [
        ("pascal", 512, {16: (0, 64, 0), 52: (0, 64, 192), 7: (128, 128, 128)}),
        ("cityscapes", 256, {0: (128, 64, 128), 13: (0, 0, 142), 18: (119, 11, 32), 19: (0, 0, 0), 255: (0, 0, 0)}),
        ("ade20k", 151, {0: (0, 0, 0), 1: (120, 120, 120), 3: (6, 230, 230), 10: (4, 250, 7), 20: (204, 70, 3)}),
        ("mapillary_vistas", 66, {3: (190, 153, 153), 6: (102, 102, 156), 65: (0, 0, 0)}),
    ],
)
def test_colour_maps_are_as_long_as_the_release_tables(name, size, places):
    table = palettes.colour_map(name)
    assert len(table) == size
    assert {i: table[i] for i in places} == places
    assert table[-1] == (92, 0, 255) if name == "ade20k" else True


def test_cityscapes_evaluation_ids():
    ids = datasets.dataset("cityscapes").evaluation_ids
    assert len(ids) == 19
    assert (ids[0], ids[11], ids[16], ids[18]) == (7, 24, 31, 33)


def test_unknown_names_are_told_with_the_nearest():
    with pytest.raises(DeepLabError, match="cityscape'.*did you mean cityscapes"):
        datasets.dataset("cityscape")
    with pytest.raises(DeepLabError, match="colormap_type 'pascl'.*pascal"):
        palettes.colour_map("pascl")
    assert datasets.dataset("pascal_voc_seg").splits["train_aug"] == 10582


def test_datasets_are_frozen_and_hashable():
    with pytest.raises(AttributeError):
        datasets.dataset("shapes").num_classes = 3
    assert len(set(ALL)) == len(ALL)


def test_import_is_cheap():
    code = "import sys, deeplab_tf.catalog.datasets; print(sorted({'tensorflow', 'keras', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
