"""The data sets and the colour maps of the release, as facts: `DATASETS`, `COLOUR_MAPS`. Importing this is cheap.

Class counts, ignore labels and split sizes are the release's data_generator.py; colours are its
utils/get_dataset_colormap.py (index order, RGB 0..255).
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping, Sequence

from deeplab_tf.data import tfds_folder
from deeplab_tf.errors import DeepLabError, unknown_name

DATASET_FILE = "dataset.json"

Colour = tuple[int, int, int]
Palette = tuple[Colour, ...]


@dataclasses.dataclass(frozen=True)
class Dataset:
    """One data set. `class_names` and `palette` have `num_classes` entries, in label order.

    `splits` maps the name of a split to its number of images. `ignore_label` is the label that neither loss nor score
    counts. `colour_map` names the entry of COLOUR_MAPS that the set is drawn with. `evaluation_ids`, where
    given, are the label values that the set's own evaluation server wants in place of 0, 1, 2... `label_map` says which
    labels were renamed when its records were built: (old, new) pairs.
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

    def split_size(self, split: str) -> int:
        """Returns the number of images in `split`; an unknown name is a DeepLabError."""
        if split not in self.splits:
            raise unknown_name(f"split of {self.name}", split, self.splits)
        return self.splits[split]


def pascal_palette(size: int) -> Palette:
    """Returns the first `size` (0..512) colours of the PASCAL VOC rule.

    Bits 3j, 3j+1 and 3j+2 of the label become bit 7-j of red, green and blue: near labels get far colours.
    """
    if not 0 <= size <= 512:
        raise DeepLabError(
            f"a PASCAL palette of {size} colours: expected 0 to 512, where the rule has them all distinct"
        )
    return tuple(_pascal_colour(label) for label in range(size))


def _pascal_colour(label: int) -> Colour:
    channels = [sum((label >> (3 * j + channel) & 1) << (7 - j) for j in range(8)) for channel in range(3)]
    return channels[0], channels[1], channels[2]


def _colours(text: str) -> Palette:
    """Returns the palette written as six hexadecimal digits a colour."""
    return tuple((int(c[:2], 16), int(c[2:4], 16), int(c[4:], 16)) for c in text.split())


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


_ADE20K_COLOURS = _colours(
    """000000 787878 b47878 06e6e6 503232 04c803 787850 8c8c8c cc05ff e6e6e6 04fa07 e005ff ebff07 96053d 787846
    08ff33 ff0652 8fff8c ccff04 ff3307 cc4603 0066c8 3de6fa ff0633 0b66ff ff0747 ff09e0 0907e6 dcdcdc ff095c
    7009ff 08ffd6 07ffe0 ffb806 0aff47 ff290a 07ffff e0ff08 6608ff ff3d06 ffc207 ff7a08 00ff14 ff0829 ff0599
    0633ff eb0cff a09614 00a3ff 8c8c8c fa0a0f 14ff00 1fff00 ff1f00 ffe000 99ff00 0000ff ff4700 00ebff 00adff
    1f00ff 0bc8c8 ff5200 00fff5 003dff 00ff70 00ff85 ff0000 ffa300 ff6600 c2ff00 008fff 33ff00 0052ff 00ff29
    00ffad 0a00ff adff00 00ff99 ff5c00 ff00ff ff00f5 ff0066 ffad00 ff0014 ffb8b8 001fff 00ff3d 0047ff ff00cc
    00ffc2 00ff52 000aff 0070ff 3300ff 00c2ff 007aff 00ffa3 ff9900 00ff0a ff7000 8fff00 5200ff a3ff00 ffeb00
    08b8aa 8500ff 00ff5c b800ff ff001f 00b8ff 00d6ff ff0070 5cff00 00e0ff 70e0ff 46b8a0 a300ff 9900ff 47ff00
    ff00a3 ffcc00 ff008f 00ffeb 85ff00 ff00eb f500ff ff007a fff500 0abed4 d6ff00 00ccff 1400ff ffff00 0099ff
    0029ff 00ffcc 2900ff 29ff00 ad00ff 00f5ff 4700ff 7a00ff 00ffb8 005cff b8ff00 0085ff ffd600 19c2c2 66ff00
    5c00ff"""
)

_MAPILLARY_VISTAS_COLOURS = _colours(
    """a52a2a 00c000 c4c4c4 be9999 b4a5b4 66669c 66669c 8040ff 8c8cc8 aaaaaa faaaa0 606060 e6968c 804080 6e6e6e
    f423e8 966464 464646 96785a dc143c ff0000 ff0000 ff0000 c88080 ffffff 40aa40 804040 4682b4 ffffff 98fb98
    6b8e23 00aa1e ffff80 fa001e 000000 dcdcdc aaaaaa de2828 64aa1e 282828 212121 aaaaaa 00008e aaaaaa d2aa64
    999999 808080 00008e faaa1e c0c0c0 dcdc00 b4a5b4 770b20 00008e 003c64 00008e 00005a 0000e6 005064 804040
    00006e 000046 0000c0 202020 000000 000000"""
)

_CITYSCAPES_COLOURS = _colours(
    """804080 f423e8 464646 66669c be9999 999999 faaa1e dcdc00 6b8e23 98fb98 4682b4 dc143c ff0000 00008e 000046
    003c64 005064 0000e6 770b20"""
)

_VOC_NAMES = _names(
    """background, aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, diningtable, dog, horse,
    motorbike, person, pottedplant, sheep, sofa, train, tv"""
)

_CITYSCAPES_NAMES = _names(
    """road, sidewalk, building, wall, fence, pole, traffic light, traffic sign, vegetation, terrain, sky, person,
    rider, car, truck, bus, train, motorcycle, bicycle"""
)

# The first synonym of each line of the scene parsing challenge's objectInfo150.txt; 0 is whatever is none of them.
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

_SHAPES_COLOURS = _colours("000000 e6484d 3fa34d f2c12e 3d7be0 a44ac2 19b5c9 a0744a ff8fc0")

_SHAPES_NAMES = _names("background, circle, triangle, square, star, ring, cross, crescent, heart")

# As long as the release's, whose vis draws any label below the length: VOC's 255 comes out as (224, 224, 192).
# The last is ours.
COLOUR_MAPS: dict[str, Palette] = {
    "pascal": pascal_palette(512),
    "cityscapes": _CITYSCAPES_COLOURS + ((0, 0, 0),) * (256 - len(_CITYSCAPES_COLOURS)),
    "ade20k": _ADE20K_COLOURS,
    "mapillary_vistas": _MAPILLARY_VISTAS_COLOURS,
    "shapes": _SHAPES_COLOURS,
}

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
    palette=_CITYSCAPES_COLOURS,
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
    palette=_ADE20K_COLOURS,
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
    palette=_SHAPES_COLOURS,
    splits={"train": 96000, "val": 500},
    colour_map="shapes",
    terms="generated by deeplab_tf.data.shapes",
)

DATASETS: dict[str, Dataset] = {d.name: d for d in (_PASCAL_VOC_SEG, _CITYSCAPES, _ADE20K, _SHAPES)}


def dataset(name: str) -> Dataset:
    """Returns the data set called `name`; an unknown name is a DeepLabError that lists the nearest."""
    if name not in DATASETS:
        raise unknown_name("dataset", name, DATASETS)
    return DATASETS[name]


def colour_map(name: str) -> Palette:
    """Returns the table for `--colormap_type=name`; an unknown name is a DeepLabError."""
    if name not in COLOUR_MAPS:
        raise unknown_name("colormap_type", name, COLOUR_MAPS)
    return COLOUR_MAPS[name]


def read_dataset(source: str | os.PathLike) -> Dataset:
    """Returns the data set of a name of DATASETS, of a dataset.json, or of the folder that holds one.

    dataset.json: `class_names` (in label order), and as wanted `name` (default: the folder's), `palette` (a colour
    [red, green, blue] a class; default: the PASCAL rule), `ignore_label` (255), `splits` (name -> number of images),
    `homepage`, `terms`, `label_map` (pairs [old, new] that were renamed in building it). DeepLabError for an unknown
    name, and for a file that is none of that.
    """
    path = pathlib.Path(source)
    if str(source) in DATASETS:
        return DATASETS[str(source)]
    if path.is_dir():
        path = path / DATASET_FILE
    elif path.suffix != ".json":
        error = unknown_name("dataset", source, DATASETS)
        raise DeepLabError(f"{error}; or give the folder that holds a {DATASET_FILE}")
    try:
        return parse_dataset(path.read_bytes(), path)
    except OSError as error:
        raise DeepLabError(f"{path}: cannot be read ({error.strerror}); expected class_names, palette...") from None


def parse_dataset(content: bytes, path: str | os.PathLike) -> Dataset:
    """Returns the data set of the contents of a dataset.json. DeepLabError as read_dataset."""
    try:
        values = json.loads(content)
    except ValueError as error:
        raise DeepLabError(f"{path}: not JSON ({error})") from None
    return _described(values, pathlib.Path(path))


def find_dataset(name: str, dataset_dir: str | None = None, tfds_features: Sequence[str] | None = None) -> Dataset:
    """Returns the data set called `name`: of the catalogue, of a folder or file, of the dataset.json beside the records
    in `dataset_dir`, or one that TensorFlow Datasets has prepared (tfds_folder.read_prepared says how they are named).
    DeepLabError as read_dataset and read_prepared."""
    if name.startswith(tfds_folder.PREFIX):
        return _prepared_dataset(tfds_folder.read_prepared(name, dataset_dir, tfds_features))
    beside = pathlib.Path(dataset_dir or "") / DATASET_FILE
    if name not in DATASETS and dataset_dir and beside.is_file():
        facts = read_dataset(beside)
        if facts.name == name:
            return facts
    return read_dataset(name)


def _prepared_dataset(prepared: tfds_folder.Prepared) -> Dataset:
    """Returns the facts of a set of TFDS: from a dataset.json in its folder, the catalogue, or its mask's feature."""
    names = prepared.class_names
    if (prepared.folder / DATASET_FILE).is_file():
        facts = read_dataset(prepared.folder)
    elif prepared.builder in tfds_folder.CATALOGUE:
        facts = DATASETS[tfds_folder.CATALOGUE[prepared.builder]]
    elif names:
        facts = _described({"class_names": list(names)}, prepared.folder / DATASET_FILE)
    else:
        raise DeepLabError(
            f"{prepared.name}: the feature {prepared.mask} does not say which classes there are; write them into "
            f'{prepared.folder / DATASET_FILE}, as in {{"class_names": ["background", "cat"]}}'
        )
    sizes = {split: sum(lengths) for split, lengths in prepared.lengths.items()}
    return dataclasses.replace(facts, name=prepared.name, splits=sizes)


_DESCRIBED = {"name": str, "class_names": list, "palette": list, "ignore_label": int, "splits": dict}
_DESCRIBED |= {"homepage": str, "terms": str, "label_map": list}


def dataset_json(facts: Dataset) -> str:
    """Returns the contents of the dataset.json that `read_dataset` reads as `facts`; what is empty is left out."""
    values = {key: getattr(facts, key) for key in _DESCRIBED}
    values["splits"] = dict(facts.splits)
    optional = ("homepage", "terms", "label_map")
    return json.dumps({key: value for key, value in values.items() if value or key not in optional}) + "\n"


def _described(values: Mapping, path: pathlib.Path) -> Dataset:
    """Returns the data set of the contents of `path`, checked."""

    def require(good: bool, expected: str):
        if not good:
            raise DeepLabError(f"{path}: {expected}")

    require(isinstance(values, dict), "expected an object with class_names, palette, ignore_label, splits")
    for key, value in values.items():
        if key not in _DESCRIBED:
            raise unknown_name(f"key in {path}", key, _DESCRIBED)
        kind = _DESCRIBED[key]
        require(isinstance(value, kind) and not isinstance(value, bool), f"{key}={value!r}: expected a {kind.__name__}")
    names = values.get("class_names", [])
    require(all(isinstance(name, str) and name for name in names), "class_names: expected strings")
    require(0 < len(set(names)) == len(names) <= 256, "class_names: expected 1 to 256 different names, in label order")
    palette = [tuple(c) if isinstance(c, list) else c for c in values.get("palette", pascal_palette(len(names)))]
    require(len(palette) == len(names), f"palette has {len(palette)} colours for {len(names)} classes")
    whole = all(len(c) == 3 and all(type(v) is int and 0 <= v <= 255 for v in c) for c in palette if type(c) is tuple)
    require(whole and all(type(c) is tuple for c in palette), "palette: expected [red, green, blue] of 0..255 each")
    ignore_label, splits = values.get("ignore_label", 255), values.get("splits", {})
    require(0 <= ignore_label <= 255, f"ignore_label={ignore_label}: expected 0..255 (labels are 8-bit PNGs)")
    require(all(type(n) is int and n >= 0 for n in splits.values()), "splits: expected name -> number of images")
    renamed = [tuple(pair) if isinstance(pair, list) else () for pair in values.get("label_map", [])]
    good = all(len(pair) == 2 and all(type(v) is int and 0 <= v <= 255 for v in pair) for pair in renamed)
    require(good, "label_map: expected pairs [old, new] of labels 0..255")
    return Dataset(
        name=values.get("name", path.resolve().parent.name),
        num_classes=len(names),
        ignore_label=ignore_label,
        class_names=tuple(names),
        palette=tuple(palette),
        splits=splits,
        colour_map="pascal",
        homepage=values.get("homepage", ""),
        terms=values.get("terms", ""),
        label_map=tuple(renamed),
    )
