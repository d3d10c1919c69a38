"""The folders of data sets that TensorFlow Datasets has prepared, read without that package.

A prepared folder, <data_dir>/<name>/[<config>/]<version>, describes itself: dataset_info.json has the splits and their
shards, features.json the contents of a record. Its records are tf.train.Examples in TFRecord files, so they are indexed
and read like those of build-data, and neither the builder's code nor the package is needed.
"""

import dataclasses
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypedDict

from deeplab_tf import files
from deeplab_tf.documents.json_files import JSONError, read_json, typed
from deeplab_tf.errors import DeepLabError, unknown_name

PREFIX = "tfds:"
# Builder of data/tfds_builders.py -> the data set of the catalogue that it prepares.
CATALOGUE = {
    "deeplab_voc": "pascal_voc_seg",
    "deeplab_cityscapes": "cityscapes",
    "deeplab_ade20k": "ade20k",
    "deeplab_shapes": "shapes",
}

_MASKS = ("segmentation_mask", "segmentation_label", "segmentation", "label", "annotation", "mask")
_FILE_NAMES = ("file_name", "filename", "image_id", "id", "name")
_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"


class _Split(TypedDict, total=False):
    name: str
    filepathTemplate: str
    shardLengths: list[str | int]


class _Info(TypedDict, total=False):
    """The fields of dataset_info.json."""

    name: str
    fileFormat: str
    splits: list[_Split]


@dataclasses.dataclass(frozen=True)
class PreparedShard:
    """A file of a split, and the range of its records that belong to the split: from `first` to `last`, exclusive."""

    file: str
    first: int
    last: int


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A prepared data set.

    Attributes:
      name: as the user gave it, with the prefix "tfds:".
      builder: its name in TFDS.
      folder: of its files.
      templates: split -> template of the names of its files.
      lengths: split -> number of records in each of its files.
      image: key of the image in a record.
      mask: key of the mask in a record.
      file_name: key of the file's name in a record; None without one.
      num_classes: of the mask's feature; None if it does not say.
    """

    name: str
    builder: str
    folder: files.AnyPath
    templates: Mapping[str, str]
    lengths: Mapping[str, tuple[int, ...]]
    image: str
    mask: str
    file_name: str | None
    num_classes: int | None

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The names of the classes, or their numbers if they have no names; None if their number is unknown."""
        file = self.folder / f"{self.mask.replace('/', '-')}.labels.txt"
        if file.is_file():
            return tuple(file.read_text(encoding="utf-8").splitlines())
        return tuple(map(str, range(self.num_classes))) if self.num_classes else None

    def shards(self, split: str) -> list[PreparedShard]:
        """Returns the files of a split, or of a part of one in the syntax of TFDS: "train[:90%]", "train[100:200]".

        Raises:
          DeepLabError: the split does not exist or is empty, or a file is missing.
        """
        match = re.fullmatch(r"([\w-]+)(?:\[(-?\d+%?)?:(-?\d+%?)?\])?", split)
        if not match or match[1] not in self.lengths:
            raise unknown_name(f"split of {self.name}", split, self.lengths)
        lengths = self.lengths[match[1]]
        count = sum(lengths)
        first = _bound(match[2], count, 0)
        last = _bound(match[3], count, count)
        if not (0 <= first <= count and 0 <= last <= count):
            raise DeepLabError(f"{self.name}: split {split} reaches beyond the {count} records of {match[1]}")
        shards = []
        start = 0
        for number, length in enumerate(lengths):
            begin = max(first - start, 0)
            end = min(last - start, length)
            if begin < end:
                shards.append(PreparedShard(self._file(match[1], number, len(lengths)), begin, end))
            start += length
        if not shards:
            raise DeepLabError(f"{self.name}: split {split} has no records; {match[1]} has {count}")
        return shards

    def _file(self, split: str, number: int, shards: int) -> str:
        name = self.templates[split].format(
            DATASET=self.builder,
            SPLIT=split,
            FILEFORMAT="tfrecord",
            SHARD_X_OF_Y=f"{number:05d}-of-{shards:05d}",
        )
        if not (self.folder / name).is_file():
            raise DeepLabError(f"{self.folder / name} is missing; prepare {self.name} again")
        return str(self.folder / name)


def _bound(text: str | None, count: int, default: int) -> int:
    if not text:
        return default
    value = round(int(text[:-1]) * count / 100) if text.endswith("%") else int(text)
    return value + count if value < 0 else value


def _cure(name: str, data_dir: os.PathLike) -> str:
    builder = name.removeprefix(PREFIX)
    return f'prepare it first, in Python: tfds.builder("{builder}", data_dir="{data_dir}").download_and_prepare()'


def _usual_folder() -> files.AnyPath:
    named = os.environ.get("TFDS_DATA_DIR")
    try:
        return files.path(named or "~/tensorflow_datasets")
    except DeepLabError as error:
        raise DeepLabError(f"$TFDS_DATA_DIR={named}: {str(error).removeprefix(f'{named}: ')}") from None


def read_prepared(
    dataset: str, data_dir: str | os.PathLike | None = None, keys: Sequence[str] | None = None
) -> Prepared:
    """Returns the description of a prepared data set. Downloads and prepares nothing.

    Args:
      dataset: "tfds:name", "tfds:name/config" or "tfds:name/config:1.0.0". Without a version the newest is taken,
        without a configuration the default one or the only one.
      data_dir: the data_dir of TFDS; by default $TFDS_DATA_DIR or ~/tensorflow_datasets, like TFDS.
      keys: the features of image and mask, a/b for nested ones. By default the mask is the feature with class names,
        or one with a common name (segmentation_mask, label...), and the image is "image" or the only other one.

    Raises:
      DeepLabError: the data set is not prepared there, its files are not TFRecords, or image and mask are ambiguous.
    """
    data_dir = files.path(data_dir) if data_dir else _usual_folder()
    folder = _folder(dataset, data_dir)
    info = _read_json(folder / "dataset_info.json")
    try:
        typed(info, _Info)
    except JSONError as error:
        raise DeepLabError(f"{folder / 'dataset_info.json'}: {error}; prepare the data set again") from None
    features = _read_json(folder / "features.json")
    if info.get("fileFormat", "tfrecord") != "tfrecord":
        raise DeepLabError(
            f"{dataset}: {folder} holds {info['fileFormat']} files; the pipeline reads TFRecords: prepare it again "
            'with tfds.builder(..., file_format="tfrecord")'
        )
    if "featuresDict" not in features:
        raise DeepLabError(f"{folder / 'features.json'}: no features; a recent tensorflow-datasets writes them")
    try:
        return _described(dataset, folder, info, features, keys)
    except DeepLabError:
        raise
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise DeepLabError(
            f"{folder}: its descriptions are not as TFDS writes them ({error!r}); prepare the data set again"
        ) from None


def _described(
    dataset: str, folder: files.AnyPath, info: Mapping, features: Mapping, keys: Sequence[str] | None
) -> Prepared:
    """Returns the data set of the contents of dataset_info.json and features.json."""
    images = dict(_leaves(features, "image"))
    texts = dict(_leaves(features, "text"))
    image, mask = _image_and_mask(dataset, images, keys)
    splits = {split["name"]: split for split in info.get("splits", [])}
    names = [text for wanted in _FILE_NAMES for text in texts if text.rpartition("/")[2] == wanted]
    return Prepared(
        name=dataset,
        builder=info["name"],
        folder=folder,
        templates={name: split.get("filepathTemplate") or _TEMPLATE for name, split in splits.items()},
        lengths={name: tuple(map(int, split.get("shardLengths", []))) for name, split in splits.items()},
        image=image,
        mask=mask,
        file_name=names[0] if names else None,
        num_classes=int(images[mask].get("label", {}).get("numClasses", 0)) or None,
    )


def _read_json(file: files.AnyPath) -> dict:
    try:
        return read_json(file, dict[str, Any])
    except OSError as error:
        raise DeepLabError(f"{file}: cannot be read ({error.strerror}); is the folder a prepared data set?") from None
    except JSONError as error:
        raise DeepLabError(f"{file}: {error}; prepare the data set again") from None


# ---- the folder


def _folder(dataset: str, data_dir: files.AnyPath) -> files.AnyPath:
    match = re.fullmatch(rf"{PREFIX}(\w+)(?:/([\w.-]+))?(?::(\d+\.\d+\.\d+))?", dataset)
    if not match:
        raise DeepLabError(f"dataset={dataset}: expected {PREFIX}name, {PREFIX}name/config or {PREFIX}name:1.0.0")
    name, config, version = match.groups()
    base = data_dir / name
    configs = [] if config else _configurations(base)
    if config or configs:
        base = base / (config or configs[0])
    if len(configs) > 1:
        raise DeepLabError(f"{dataset}: prepared are {', '.join(configs)}; say which, {PREFIX}{name}/{configs[0]}")
    versions = _versions(base)
    if not versions or (version and version not in versions):
        known = f" ({', '.join(versions)} is)" if versions else ""
        raise DeepLabError(f"{dataset}: not prepared in {base}{known}; {_cure(dataset, data_dir)}")
    return base / (version or versions[-1])


def _versions(folder: files.AnyPath) -> list[str]:
    """Returns the prepared versions, the newest last."""
    names = [path.parent.name for path in folder.glob("*/features.json")]
    versions = [name for name in names if re.fullmatch(r"\d+\.\d+\.\d+", name)]
    return sorted(versions, key=lambda name: tuple(map(int, name.split("."))))


def _configurations(folder: files.AnyPath) -> list[str]:
    """Returns the prepared configurations, or only the default one if that is prepared."""
    if _versions(folder) or not folder.is_dir():
        return []
    configs = sorted(path.name for path in folder.iterdir() if _versions(path))
    file = folder / ".config" / "metadata.json"
    default = _read_json(file).get("default_config_name") if file.is_file() else None
    return [str(default)] if default in configs else configs


# ---- the features


def _leaves(feature: Mapping, kind: str, path: str = "") -> Iterator[tuple[str, Mapping]]:
    """Yields the key in a record and the description of each feature of a kind, except those in sequences."""
    for name, inner in feature.get("featuresDict", {}).get("features", {}).items():
        key = f"{path}/{name}" if path else name
        if kind in inner:
            yield key, inner[kind]
        yield from _leaves(inner, kind, key)


def _channels(image: Mapping) -> int:
    return int(image.get("shape", {}).get("dimensions", ["-1"])[-1])


def _image_and_mask(dataset: str, images: Mapping[str, Mapping], keys: Sequence[str] | None) -> tuple[str, str]:
    """Returns the keys of image and mask."""
    for key in keys or ():
        if key not in images:
            raise unknown_name(f"image feature of {dataset}", key, images)
    image, mask = keys or (None, _mask(images))
    if mask is None:
        raise _ambiguous(dataset, "mask", images)
    others = [key for key in images if key != mask and _channels(images[key]) != 1]
    image = image or next((key for key in others if key == "image"), others[0] if len(others) == 1 else None)
    if image is None:
        raise _ambiguous(dataset, "image", images)
    kind = images[mask].get("dtype")
    if kind not in (None, "uint8"):
        raise DeepLabError(f"{dataset}: its masks {mask} are {kind}; the pipeline reads 8-bit labels")
    return image, mask


def _mask(images: Mapping[str, Mapping]) -> str | None:
    labelled = [key for key, image in images.items() if "label" in image]
    named = [key for name in _MASKS for key in images if key.rpartition("/")[2] == name]
    return labelled[0] if len(labelled) == 1 else next(iter(named), None)


def _ambiguous(dataset: str, what: str, images: Mapping[str, Mapping]) -> DeepLabError:
    listed = ", ".join(f"{key} ({_channels(image)} channels)" for key, image in images.items()) or "none"
    return DeepLabError(
        f"{dataset}: which feature is the {what}? Image features are {listed}; name image and mask, "
        "--tfds_features=image,segmentation_mask"
    )
