"""The facts of the data sets: what the release's registry and its colour map test say."""

import pathlib
import subprocess
import sys

import numpy as np
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


# ---- colours of sets that bring none

# What protanopes and deuteranopes see of linear sRGB (Machado, Oliveira and Fernandes 2009, severity 1).
DICHROMATS = {
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}
NO_CLASS = (224, 224, 192)


def cielab(colours, seen_by=None) -> np.ndarray:
    """Returns L*a*b* (D65) of sRGB colours of 0..255, [n, 3]."""
    values = np.asarray(colours, float) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    if seen_by:
        linear = np.clip(linear @ np.transpose(DICHROMATS[seen_by]), 0, 1)
    primaries = [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
    xyz = linear @ np.transpose(primaries) / (0.95047, 1, 1.08883)
    x, y, z = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * (29 / 6) ** 2 / 3 + 4 / 29).T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


def ciede2000(one, other) -> np.ndarray:
    """Returns the distances of L*a*b* colours [..., 3] (Sharma, Wu and Dalal 2005)."""
    (light, a, b), (light2, a2, b2) = np.moveaxis(one, -1, 0), np.moveaxis(other, -1, 0)
    mean = (np.hypot(a, b) + np.hypot(a2, b2)) / 2
    grey = 1.5 - 0.5 * np.sqrt(mean**7 / (mean**7 + 25.0**7))
    chroma, chroma2 = np.hypot(a * grey, b), np.hypot(a2 * grey, b2)
    hue, hue2 = np.degrees(np.arctan2(b, a * grey)) % 360, np.degrees(np.arctan2(b2, a2 * grey)) % 360
    turn = np.where(chroma * chroma2 == 0, 0, (hue2 - hue + 180) % 360 - 180)
    middle = np.where(chroma * chroma2 == 0, hue + hue2, hue + turn / 2)
    lightness, strength = (light + light2) / 2, (chroma + chroma2) / 2
    waves = ((-0.17, 1, -30), (0.24, 2, 0), (0.32, 3, 6), (-0.2, 4, -63))
    weight = 1 + sum(height * np.cos(np.radians(n * middle + shift)) for height, n, shift in waves)
    far = (light2 - light) / (1 + 0.015 * (lightness - 50) ** 2 / np.sqrt(20 + (lightness - 50) ** 2))
    strong = (chroma2 - chroma) / (1 + 0.045 * strength)
    tinted = 2 * np.sqrt(chroma * chroma2) * np.sin(np.radians(turn / 2)) / (1 + 0.015 * strength * weight)
    bent = np.sin(np.radians(60 * np.exp(-(((middle - 275) / 25) ** 2))))
    rotation = -2 * np.sqrt(strength**7 / (strength**7 + 25.0**7)) * bent
    return np.sqrt(far**2 + strong**2 + tinted**2 + rotation * strong * tinted)


def nearest(colours, seen_by=None) -> float:
    """Returns the smallest distance between two of some colours."""
    lab = cielab(colours, seen_by)
    return ciede2000(lab[:, None], lab[None])[~np.eye(len(lab), dtype=bool)].min()


def test_ciede2000_against_published_pairs():
    """Of the supplement of Sharma, Wu and Dalal 2005."""
    one = np.array([[50, 2.6772, -79.7751], [50, 2.5, 0], [2.0776, 0.0795, -1.1350], [50, 0, 0]])
    other = np.array([[50, 0, -82.7485], [58, 24, 15], [0.9033, -0.0636, -0.5514], [50, -1, 2]])
    np.testing.assert_allclose(ciede2000(one, other), [2.0425, 19.4535, 0.9082, 2.3669], atol=1e-4)


@pytest.mark.parametrize("first", ["background", "sky"])
def test_colours_of_ones_own_classes_differ(first):
    colours = palettes.default_palette([first, *map(str, range(255))])
    assert len(set(colours)) == 256 and NO_CLASS not in colours
    assert colours[0] == ((0, 0, 0) if first == "background" else (86, 180, 233))
    for seen_by in DICHROMATS:
        assert nearest(colours[:8], seen_by) > 11 and nearest(colours[:16], seen_by) > 9
    assert [nearest(colours[:n]) > bound for n, bound in ((8, 21), (16, 19), (64, 11.9), (255, 6.8))] == [True] * 4
    lab = cielab(colours)
    neighbours = ciede2000(lab[1:], lab[:-1])
    assert neighbours[:63].min() > 15 and neighbours.min() > 8
    drawn = lab[1:] if first == "background" else lab
    assert drawn[:, 0].min() > 40  # none is nearly black
    assert ciede2000(drawn, cielab([NO_CLASS])).min() > 8


@pytest.mark.parametrize("name", ["background", "_background_", "Void", "REST", "__unlabeled__", "bg"])
def test_a_background_is_black(name):
    assert palettes.default_palette([name, "a"]) == ((0, 0, 0), (86, 180, 233))
    assert palettes.default_palette(["a", name]) == ((86, 180, 233), (213, 94, 0))


@pytest.mark.parametrize("dataset", ALL, ids=lambda d: d.name)
def test_further_colours_are_far_from_those_that_are_used(dataset):
    further = palettes.further_colours(dataset.palette, 6)
    assert ciede2000(cielab(further)[:, None], cielab(dataset.palette)[None]).min() > 10
    assert nearest(further) > 10


@pytest.mark.parametrize("count", [1, 8])
def test_further_colours_go_on_with_those_of_ones_own_classes(count):
    names = ["background", *map(str, range(24))]
    palette = palettes.default_palette(names)
    assert palettes.further_colours(palette[:count], 4) == palette[count : count + 4]
    assert len(set(palettes.further_colours(palette[:count], 230))) == 230


def test_pascals_colours_are_for_its_own_pictures_and_for_labels_of_other_programs():
    root = pathlib.Path(palettes.__file__).parents[1]
    users = {file.parent.name + "/" + file.stem for file in root.rglob("*.py") if "pascal_palette" in file.read_text()}
    assert users == {"catalog/palettes", "catalog/datasets", "weights/model_directory"}


def test_colours_of_no_and_of_many_classes():
    assert palettes.default_palette([]) == () == palettes.default_palette(["a"] * 257)
    pascal = palettes.pascal_palette(3)
    assert palettes.is_default(pascal) and palettes.is_default(palettes.default_palette("abc"))
    assert not palettes.is_default([*pascal[:2], (1, 2, 3)])
