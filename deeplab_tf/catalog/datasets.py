"""The data sets of the release as facts (`DATASETS`), and dataset.json, which describes a data set of the user's own.

Class counts, ignore labels and split sizes are from the release's data_generator.py.
"""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, cast

from deeplab_tf import files
from deeplab_tf.catalog.image_facts import ImageFacts
from deeplab_tf.catalog.palettes import (
    ADE20K_COLOURS,
    CITYSCAPES_COLOURS,
    SHAPES_COLOURS,
    Palette,
    default_palette,
    pascal_palette,
)
from deeplab_tf.documents.json_files import JSONError, parse_json
from deeplab_tf.errors import DeepLabError, unknown_name

DATASET_FILE = "dataset.json"


@dataclasses.dataclass(frozen=True)
class Dataset:
    """What is known of one data set.

    Attributes:
      name: as `--dataset` takes it.
      num_classes: the number of classes, background included.
      ignore_label: the label that neither loss nor score counts.
      class_names: a name for each class, in label order.
      palette: a colour for each class, in label order.
      splits: split name -> number of images.
      colour_map: the entry of `deeplab_tf.catalog.palettes.COLOUR_MAPS` that the set is drawn with.
      homepage, terms: where it is published, and under which terms of use.
      evaluation_ids: the label values that the set's own evaluation server wants in place of 0, 1, 2..., if others.
      label_map: (old, new) pairs of the labels that were renamed when its records were built.
      unlabelled: the splits whose records hold no labels.
      built: options that its records were built with, by the names of their flags, for the record only.
      image: what its photographs are, where they are not 8-bit RGB.
    """

    name: str
    num_classes: int
    ignore_label: int
    class_names: tuple[str, ...]
    palette: Palette
    splits: Mapping[str, int] = dataclasses.field(hash=False)
    colour_map: str
    homepage: str = ""
    terms: str = ""
    evaluation_ids: tuple[int, ...] | None = None
    label_map: tuple[tuple[int, int], ...] = ()
    unlabelled: tuple[str, ...] = ()
    built: Mapping[str, Any] = dataclasses.field(default_factory=dict[str, Any], hash=False)
    image: ImageFacts | None = None


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


_VOC_NAMES = _names(
    """background, aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, diningtable, dog, horse,
    motorbike, person, pottedplant, sheep, sofa, train, tv"""
)

_CITYSCAPES_NAMES = _names(
    """road, sidewalk, building, wall, fence, pole, traffic light, traffic sign, vegetation, terrain, sky, person,
    rider, car, truck, bus, train, motorcycle, bicycle"""
)

# The first synonym of each line of the scene parsing challenge's objectInfo150.txt; 0 is everything else.
_ADE20K_NAMES = _names(
    """other, wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass,
    cabinet, sidewalk, person, earth, door, table, mountain, plant, curtain, chair,
    car, water, painting, sofa, shelf, house, sea, mirror, rug, field,
    armchair, seat, fence, desk, rock, wardrobe, lamp, bathtub, railing, cushion,
    base, box, column, signboard, chest of drawers, counter, sand, sink, skyscraper, fireplace,
    refrigerator, grandstand, path, stairs, runway, case, pool table, pillow, screen door, stairway,
    river, bridge, bookcase, blind, coffee table, toilet, flower, book, hill, bench,
    countertop, stove, palm, kitchen island, computer, swivel chair, boat, bar, arcade machine, hovel,
    bus, towel, light, truck, tower, chandelier, awning, streetlight, booth, television,
    airplane, dirt track, apparel, pole, land, bannister, escalator, ottoman, bottle, buffet,
    poster, stage, van, ship, fountain, conveyer belt, canopy, washer, plaything, swimming pool,
    stool, barrel, basket, waterfall, tent, bag, minibike, cradle, oven, ball,
    food, step, tank, trade name, microwave, pot, animal, bicycle, lake, dishwasher,
    screen, blanket, sculpture, hood, sconce, vase, traffic light, tray, ashcan, fan,
    pier, crt screen, plate, monitor, bulletin board, shower, radiator, glass, clock, flag"""
)


_SHAPES_NAMES = _names("background, circle, triangle, square, star, ring, cross, crescent, heart")


_PASCAL_VOC_SEG = Dataset(
    name="pascal_voc_seg",
    num_classes=21,
    ignore_label=255,
    class_names=_VOC_NAMES,
    palette=pascal_palette(21),
    splits={"train": 1464, "train_aug": 10582, "trainval": 2913, "val": 1449},
    colour_map="pascal",
    homepage="http://host.robots.ox.ac.uk/pascal/VOC/voc2012/",
    terms="photographs from Flickr, under Flickr's terms of use",
)

_CITYSCAPES = Dataset(
    name="cityscapes",
    num_classes=19,
    ignore_label=255,
    class_names=_CITYSCAPES_NAMES,
    palette=CITYSCAPES_COLOURS,
    splits={
        "train_fine": 2975,
        "train_coarse": 22973,
        "trainval_fine": 3475,
        "trainval_coarse": 23473,
        "val_fine": 500,
        "test_fine": 1525,
    },
    colour_map="cityscapes",
    homepage="https://www.cityscapes-dataset.com/",
    terms="non-commercial use; registration needed",
    evaluation_ids=(7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33),
)

_ADE20K = Dataset(
    name="ade20k",
    num_classes=151,
    ignore_label=0,
    class_names=_ADE20K_NAMES,
    palette=ADE20K_COLOURS,
    splits={"train": 20210, "val": 2000},
    colour_map="ade20k",
    homepage="http://sceneparsing.csail.mit.edu/",
    terms="images for non-commercial research and education; annotations BSD-3-Clause",
)

_SHAPES = Dataset(
    name="shapes",
    num_classes=9,
    ignore_label=255,
    class_names=_SHAPES_NAMES,
    palette=SHAPES_COLOURS,
    splits={"train": 96000, "val": 500},
    colour_map="shapes",
    terms="generated by deeplab_tf.data.shapes",
)

DATASETS: dict[str, Dataset] = {d.name: d for d in (_PASCAL_VOC_SEG, _CITYSCAPES, _ADE20K, _SHAPES)}
DEFAULT_DATASET = "pascal_voc_seg"  # the release's, of records that do not say what they are


def dataset(name: str) -> Dataset:
    """Returns the data set called `name`; an unknown name is a DeepLabError that lists the nearest."""
    if name not in DATASETS:
        raise unknown_name("dataset", name, DATASETS)
    return DATASETS[name]


# The keys of dataset.json and the types of their values.
_KEY_TYPES = {
    "name": str,
    "class_names": list,
    "palette": list,
    "ignore_label": int,
    "splits": dict,
    "homepage": str,
    "terms": str,
    "label_map": list,
    "unlabelled": list,
    "built": dict,
    "image": dict,
}
_LEFT_OUT_WHEN_EMPTY = ("homepage", "terms", "label_map", "unlabelled", "built", "image")


def is_place(source: str) -> bool:
    """Returns whether a `--dataset` says that it is a file or a folder: it has a separator, or is a .json file.

    A name never means a folder that happens to lie in the working directory; that is written as ./name.
    """
    return "/" in source or os.sep in source or source.endswith(".json") or source in (".", "..")


def read_dataset(source: str | os.PathLike[str]) -> Dataset:
    """Returns the data set of a name of DATASETS, of a dataset.json, or of the folder that holds one.

    A text is a name unless it says that it is a place (see `is_place`); a pathlib.Path is a place.

    dataset.json is an object with `class_names` (in label order) and, optionally, `name` (default: the folder's),
    `palette` (a colour [red, green, blue] for each class; default: `palettes.default_palette`), `ignore_label` (255),
    `splits` (name -> number of images), `homepage`, `terms`, `label_map` (pairs [old, new] that were renamed in
    building it), `unlabelled` (splits without labels), `built` (an object of the options that its records were built
    with) and `image` (photographs that are not 8-bit RGB, see `ImageFacts`).

    Raises:
      DeepLabError: the name is unknown, or the file is missing or is not such an object.
    """
    if isinstance(source, str) and not is_place(source):
        if source in DATASETS:
            return DATASETS[source]
        error = unknown_name("dataset", source, DATASETS)
        raise DeepLabError(f"{error}; or give the folder that holds a {DATASET_FILE}, with a separator: ./{source}")
    path = files.path(source)
    path = path if path.suffix == ".json" and not path.is_dir() else path / DATASET_FILE
    try:
        return parse_dataset(path.read_bytes(), path)
    except OSError as error:
        raise DeepLabError(f"{path}: cannot be read ({error.strerror}); expected class_names, palette...") from None


def parse_dataset(content: bytes, path: str | os.PathLike[str]) -> Dataset:
    """Returns the data set of the contents of the dataset.json at `path`, which must be as `read_dataset` says."""
    try:
        values = parse_json(content, object)
    except JSONError as error:
        raise DeepLabError(f"{path}: {error}") from None
    return dataset_from_json(cast("Mapping[str, Any]", values), files.path(path))


def dataset_json(facts: Dataset) -> str:
    """Returns the contents of the dataset.json that `read_dataset` reads as `facts`; empty values are left out."""
    values = {key: getattr(facts, key) for key in _KEY_TYPES}
    values |= {"splits": dict(facts.splits), "built": dict(facts.built)}
    values["image"] = facts.image and facts.image.to_json()
    return json.dumps({key: value for key, value in values.items() if value or key not in _LEFT_OUT_WHEN_EMPTY}) + "\n"


def dataset_from_json(values: Mapping[str, Any], path: files.AnyPath) -> Dataset:
    """Returns the data set of the object in the dataset.json at `path`, which must be as `read_dataset` says."""

    def require(good: bool, expected: str) -> None:
        if not good:
            raise DeepLabError(f"{path}: {expected}")

    require(isinstance(values, dict), "expected an object with class_names, palette, ignore_label, splits")
    for key, value in values.items():
        if key not in _KEY_TYPES:
            raise unknown_name(f"key in {path}", key, _KEY_TYPES)
        kind = _KEY_TYPES[key]
        require(isinstance(value, kind) and not isinstance(value, bool), f"{key}={value!r}: expected a {kind.__name__}")
    names = values.get("class_names", [])
    require(all(isinstance(name, str) and name for name in names), "class_names: expected strings")
    require(0 < len(set(names)) == len(names) <= 256, "class_names: expected 1 to 256 different names, in label order")
    colours = values.get("palette", default_palette(names))
    require(len(colours) == len(names), f"palette has {len(colours)} colours for {len(names)} classes")
    require(_are_bytes(colours, 3), "palette: expected [red, green, blue] of 0..255 each")
    ignore_label = values.get("ignore_label", 255)
    require(0 <= ignore_label <= 255, f"ignore_label={ignore_label}: expected 0..255 (labels are 8-bit PNGs)")
    splits = values.get("splits", {})
    require(all(type(n) is int and n >= 0 for n in splits.values()), "splits: expected name -> number of images")
    renamed = values.get("label_map", [])
    require(_are_bytes(renamed, 2), "label_map: expected pairs [old, new] of labels 0..255")
    unlabelled = values.get("unlabelled", [])
    require(all(isinstance(name, str) for name in unlabelled), "unlabelled: expected the names of splits")
    return Dataset(
        name=values.get("name", path.resolve().parent.name),
        num_classes=len(names),
        ignore_label=ignore_label,
        class_names=tuple(names),
        palette=tuple((red, green, blue) for red, green, blue in colours),
        splits=splits,
        colour_map="pascal",
        homepage=values.get("homepage", ""),
        terms=values.get("terms", ""),
        label_map=tuple((old, new) for old, new in renamed),
        unlabelled=tuple(unlabelled),
        built=values.get("built", {}),
        image=ImageFacts.from_json(values["image"], path) if "image" in values else None,
    )


def _are_bytes(rows: Sequence[Any], length: int) -> bool:
    """Returns whether each of `rows` is a list (or a tuple) of `length` integers in 0..255."""
    if not all(isinstance(row, list | tuple) for row in rows):
        return False
    return all(len(row) == length and all(type(v) is int and 0 <= v <= 255 for v in row) for row in rows)
