r"""Builds the TFRecords that training and evaluation read, from images and labels as they are downloaded.

  deeplab-tf build-data --dataset=pascal_voc_seg --voc_root=VOCdevkit/VOC2012 --sbd_dir=SBD --output_dir=voc_records
  deeplab-tf build-data --dataset=pascal_voc_seg --download --sbd_dir=SBD --output_dir=voc_records
  deeplab-tf build-data --dataset=cityscapes --cityscapes_root=cityscapes --output_dir=cityscapes_records
  deeplab-tf build-data --dataset=ade20k --ade20k_root=ADEChallengeData2016 --output_dir=ade20k_records
  deeplab-tf build-data --dataset=folder --root=my_data --output_dir=my_records
  deeplab-tf build-data --dataset=shapes --output_dir=shapes_records

--download fetches PASCAL VOC 2012, SBD (where --sbd_dir is given) and ADE20K from their owners, about 2, 1.4 and 0.9
GB, prints their terms first, continues what was interrupted, and compares each archive with its published sum. Folders
that are there are used. Cityscapes is for those who register: https://www.cityscapes-dataset.com.

Labels may be index, palette or colour PNGs: they are stored as indices. If files are faulty, their kinds are listed and
nothing is written. The flags of the release's builders work too.

`folder` takes your own data: my_data/images and my_data/labels (or masks, annotations...; train/images and train/masks;
images/train and masks/train; a.jpg and a_mask.png), lists train.txt, val.txt of images if there are any, and the names
of the classes in class_names.txt (or classes.txt, CVAT's labelmap.txt, data.yaml; or dataset.json: class_names,
palette, ignore_label); or annotations of COCO, LabelMe, CVAT, YOLO, Supervisely or Label Studio, from which labels are
drawn. Images of a split called test may lack labels. Data without val are divided on request, frames of a video kept
together:

  deeplab-tf build-data --dataset=folder --root=my_data --output_dir=my_records \
    --val_share=0.2 --group_by='(.*)_frame' --split_seed=0

Masks of other values than classes: --label_map=255:1 for 0 and 255, --threshold=128 for smoothed ones.

Data that one machine cannot build, Apache Beam can (pip install 'deeplab_tf[beam]'); the files are the same:

  deeplab-tf build-data --dataset=folder --root=/net/data --output_dir=/net/records --num_shards=1000 \
    --beam_runner=FlinkRunner --beam_options="--flink_master=host:8081 --parallelism=64"
"""

import os
import tempfile
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from absl import flags

from deeplab_tf import files
from deeplab_tf.errors import DeepLabError, unknown_name
from deeplab_tf.tools import help_pages, options, own_data

if TYPE_CHECKING:
    import numpy as np

    from deeplab_tf.catalog.datasets import Dataset
    from deeplab_tf.catalog.downloads import Download
    from deeplab_tf.data.build import Writer
    from deeplab_tf.data.pairs import Pair

_Splits: TypeAlias = "Mapping[str, Sequence[Pair]]"
_FactsAndSplits: TypeAlias = "tuple[Dataset, _Splits]"

_DATASETS = ("pascal_voc_seg", "cityscapes", "ade20k", "folder", "shapes")
_DOWNLOADED = ("pascal_voc_seg", "ade20k")
_SHARDS = {"cityscapes": 10}  # the release's number, which is 4 for all others
_VOC = "./VOCdevkit/VOC2012"
_ADE = "./ADE20K/ADEChallengeData2016"
_FOLDERS = {
    "voc_root": f"folder of PASCAL VOC 2012; replaces the next three (default: {_VOC})",
    "image_folder": "PASCAL VOC: folder of photographs (default: JPEGImages)",
    "semantic_segmentation_folder": "PASCAL VOC: folder of labels (default: SegmentationClassRaw or SegmentationClass)",
    "list_folder": "PASCAL VOC: folder of lists, one *.txt a split (default: ImageSets/Segmentation)",
    "sbd_dir": "SBD (benchmark_RELEASE, or dataset/ below it): train_aug is derived from it",
    "cityscapes_root": "Cityscapes: folder with leftImg8bit and gtFine (default: ./cityscapes)",
    "ade20k_root": f"ADE20K: replaces the next four (default: {_ADE})",
    "train_image_folder": "ADE20K (default: images/training)",
    "train_image_label_folder": "ADE20K (default: annotations/training)",
    "val_image_folder": "ADE20K (default: images/validation)",
    "val_image_label_folder": "ADE20K (default: annotations/validation)",
}


_ANNOTATIONS = ("annotations", "annotation_format", "drawing_order", "border_ignore", "unannotated")
_VOC_PARTS = ("image_folder", "semantic_segmentation_folder", "list_folder")
_ADE_PARTS = ("train_image_folder", "train_image_label_folder", "val_image_folder", "val_image_label_folder")


def _for(dataset: str, *names: str) -> options.Use[flags.FlagValues]:
    return options.Use(names, f"--dataset={dataset}", lambda values: values.dataset == dataset)


def _beside(root: str, *parts: str) -> options.Use[flags.FlagValues]:
    """A folder that others replace does nothing beside all of them."""
    needs = f"one of {', '.join(f'--{part}' for part in parts)} left out, which replace it"
    return options.Use((root,), needs, lambda values: not all(values[part].value for part in parts))


_USES: tuple[options.Use[flags.FlagValues], ...] = (
    _for("pascal_voc_seg", "voc_root", *_VOC_PARTS, "image_format", "sbd_dir"),
    _for("cityscapes", "cityscapes_root"),
    _for("ade20k", "ade20k_root", *_ADE_PARTS),
    _for("folder", "root", "threshold", "val_share", *_ANNOTATIONS),
    options.Use(
        ("exif",),
        "photographs from files: shapes are drawn",
        lambda values: values.dataset != "shapes" or values.exif == "auto",
    ),
    options.Use(
        ("label_format",),
        "a data set of the release, which names labels by it",
        lambda values: values.dataset in _PAIRS,
    ),
    options.Use(("group_by", "split_seed"), "--val_share", lambda values: values.val_share is not None),
    _beside("voc_root", *_VOC_PARTS),
    _beside("ade20k_root", *_ADE_PARTS),
    options.Use(
        ("download",),
        "--dataset=pascal_voc_seg or ade20k, whose owners ask for no registration",
        lambda values: values.dataset in _DOWNLOADED or not values.download,
    ),
    options.Use(
        ("download",),
        "the folders of the data set left to --voc_root or --ade20k_root",
        lambda values: not values.download or not any(values[part].value for part in (*_VOC_PARTS, *_ADE_PARTS)),
    ),
    options.Use(("train_aug_size",), "--sbd_dir", lambda values: values.sbd_dir),
    options.Use(("num_processes",), "a build without --beam_runner", lambda values: not values.beam_runner),
)


_FIRST = (
    "dataset",
    "root",
    "output_dir",
    "annotations",
    "splits",
    "val_share",
    "group_by",
    "label_map",
    "download",
    "voc_root",
    "cityscapes_root",
    "ade20k_root",
)


def define(values: flags.FlagValues) -> None:
    """Defines the flags of this command."""
    flags.DEFINE_string("dataset", None, f"what to build: {', '.join(_DATASETS)}", flag_values=values)
    text = "folder to write; it must not exist, or be empty (default: ./tfrecord)"
    options.define_path(values, "output_dir", "./tfrecord", text)
    with help_pages.grouped(values, "folders"):
        for name, text in _FOLDERS.items():
            options.define_path(values, name, None, text)
        text = "fetch PASCAL VOC 2012, SBD (for --sbd_dir) or ADE20K where their folders are missing (default: false)"
        flags.DEFINE_boolean("download", False, text, flag_values=values)
        text = "extension of the photographs (default: jpg for PASCAL VOC); the format is recognised by the bytes"
        flags.DEFINE_enum("image_format", "jpg", ["jpg", "jpeg", "png"], text, flag_values=values)
        flags.DEFINE_enum("label_format", "png", ["png"], "extension of the labels (default: png)", flag_values=values)
    options.define_path(values, "root", None, "folder: the folder of your own data")
    flags.DEFINE_list("splits", [], "only these splits (default: all there are)", flag_values=values)
    text = "files a split (default: 10 for cityscapes, else 4, as the release)"
    flags.DEFINE_integer("num_shards", None, text, flag_values=values)
    flags.DEFINE_integer("num_processes", os.cpu_count(), "processes (default: one a core)", flag_values=values)
    options.define_beam(values, "build", example="--region=europe-west1 --job_name=voc")
    with help_pages.grouped(values, "annotations"):
        text = "labels to rename, old:new, for instance 255:1 for masks of 0 and 255"
        flags.DEFINE_list("label_map", [], text, flag_values=values)
        text = (
            "of two classes, grey levels from this one on become class 1, others class 0 (default: labels are indices)"
        )
        flags.DEFINE_integer("threshold", None, text, flag_values=values)
    own_data.define_flags(values)
    with help_pages.grouped(values, "folders"):
        text = "images that train_aug must have; 0: any number (default: 10582)"
        flags.DEFINE_integer("train_aug_size", 10582, text, flag_values=values)
    help_pages.put_first(values, _FIRST)


def _folder(values: flags.FlagValues, flag: str, root: str, *names: str) -> str:
    """Returns the folder that a flag gives, or the first existing one of `names` below `root`."""
    folders = [os.path.join(root, name) for name in names]
    return values[flag].value or next((folder for folder in folders if files.path(folder).is_dir()), folders[0])


def _fetch(values: flags.FlagValues, wanted: "Mapping[str | None, Download]") -> None:
    """Fetches the archives of the folders that are given, where --download asks for it."""
    if values.download:
        from deeplab_tf.data.downloads import fetch_data

        for folder, archive in wanted.items():
            if folder:
                fetch_data(archive, folder, tell=print)


def _voc(values: flags.FlagValues) -> _FactsAndSplits:
    from deeplab_tf.catalog import datasets, downloads
    from deeplab_tf.data import voc

    root = values.voc_root or _VOC
    _fetch(values, {root: downloads.VOC, values.sbd_dir: downloads.SBD})
    splits = voc.voc_splits(
        _folder(values, "image_folder", root, "JPEGImages"),
        _folder(values, "semantic_segmentation_folder", root, "SegmentationClassRaw", "SegmentationClass"),
        _folder(values, "list_folder", root, "ImageSets/Segmentation"),
        image_format=values.image_format,
    )
    if values.sbd_dir:
        splits["train_aug"] = voc.train_aug(splits, values.sbd_dir, expected=values.train_aug_size)
    return datasets.dataset("pascal_voc_seg"), splits


def _cityscapes(values: flags.FlagValues) -> _FactsAndSplits:
    from deeplab_tf.catalog import datasets
    from deeplab_tf.data import cityscapes

    splits = cityscapes.cityscapes_splits(values.cityscapes_root or "./cityscapes", splits=values.splits)
    return datasets.dataset("cityscapes"), splits


def _ade20k(values: flags.FlagValues) -> _FactsAndSplits:
    from deeplab_tf.catalog import datasets, downloads
    from deeplab_tf.data import ade20k

    root = values.ade20k_root or _ADE
    _fetch(values, {root: downloads.ADE20K})
    splits = ade20k.ade20k_splits(
        train_images=_folder(values, "train_image_folder", root, "images/training"),
        train_labels=_folder(values, "train_image_label_folder", root, "annotations/training"),
        val_images=_folder(values, "val_image_folder", root, "images/validation"),
        val_labels=_folder(values, "val_image_label_folder", root, "annotations/validation"),
    )
    return datasets.dataset("ade20k"), splits


def _build(facts: "Dataset", splits: "_Splits", values: flags.FlagValues) -> None:
    """Builds the records with a progress bar, and prints their numbers and the shares of the classes."""
    import rich.console
    import rich.progress

    from deeplab_tf.data.build import BuildOptions, build_records
    from deeplab_tf.data.photographs import TURNED, UNTURNED

    unknown = [split for split in values.splits if split not in splits]
    if unknown:
        raise unknown_name("split", unknown[0], splits)
    splits = {split: pairs for split, pairs in splits.items() if not values.splits or split in values.splits}
    shards = values.num_shards if values.num_shards is not None else _SHARDS.get(values.dataset, 4)
    notes: list[str] = []
    label_map = _label_map(values.label_map)
    build_options = BuildOptions(
        shards, values.num_processes, label_map, values.threshold, notes.append, own_data.photograph_options(values)
    )
    writer = _beam_writer(values)
    total = None if writer else sum(map(len, splits.values()))  # the progress of a pipeline is unknown here
    console = rich.console.Console(soft_wrap=True, highlight=False, markup=False)
    columns = (*rich.progress.Progress.get_default_columns(), rich.progress.MofNCompleteColumn())
    with rich.progress.Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(f"Building {facts.name}", total=total)
        counts = build_records(
            splits, facts, values.output_dir, build_options, advance=lambda: bar.advance(task), writer=writer
        )
    _report(facts, splits, counts)
    if values["exif"].present and values.exif != "auto" and not any(TURNED in n or UNTURNED in n for n in notes):
        notes.append(f"--exif={values.exif} changed nothing: no photograph has an EXIF orientation")
    for note in notes:
        print(f"Note: {note}")
    print(f"Written: {values.output_dir} ({shards} files a split, and dataset.json)")


def _beam_writer(values: flags.FlagValues) -> "Writer | None":
    """Returns the writer for --beam_runner, or None without one."""
    if values.beam_runner is None:
        if values.beam_options:
            raise DeepLabError("--beam_options belongs to --beam_runner, which is not given")
        return None
    from deeplab_tf.data.beam import beam_writer

    return beam_writer(values.beam_runner, values.beam_options)


def _label_map(pairs: Sequence[str]) -> tuple[tuple[int, int], ...]:
    from deeplab_tf.config import DataConfig

    if not pairs:
        return ()
    return tuple(DataConfig(label_policy="map", label_map=tuple(pairs)).label_table.items())


def _report(facts: "Dataset", splits: "_Splits", counts_of: "Mapping[str, np.ndarray]") -> None:
    """Prints the images of each split and the share of each class; a class that never occurs suggests a mistake.

    counts_of: split -> pixels of each label, int64 [256].
    """
    import numpy as np

    counts = np.sum(list(counts_of.values()), axis=0)
    print(options.table({split: f"{len(pairs)} images" for split, pairs in splits.items()}))
    shares = {name: f"{counts[i] / max(1, counts.sum()):.2%}" for i, name in enumerate(facts.class_names)}
    if len(shares) <= 40:
        print(f"Shares of the pixels\n{options.table(shares)}")
    absent = [name for i, name in enumerate(facts.class_names) if not counts[i]]
    if absent:
        print(f"Without a single pixel: {', '.join(absent)}")


_PAIRS = {"pascal_voc_seg": _voc, "cityscapes": _cityscapes, "ade20k": _ade20k}


def main(values: flags.FlagValues) -> None:
    """Builds the records of the requested data set and prints a summary."""
    options.require(values, "dataset")
    if values.dataset not in _DATASETS:
        raise unknown_name("dataset", values.dataset, _DATASETS)
    options.require_use(values, _USES, values)
    if values.num_shards is not None and values.num_shards < 1:
        raise DeepLabError(f"--num_shards={values.num_shards}: expected a number of at least 1")
    options.require_writable(values, "output_dir")
    options.start_tensorflow()
    if values.dataset in _PAIRS:
        _build(*_PAIRS[values.dataset](values), values)
        return
    from deeplab_tf.catalog import datasets
    from deeplab_tf.data import shapes, voc

    with tempfile.TemporaryDirectory() as scratch:
        if values.dataset == "folder":
            data = own_data.read_own_data(values, scratch)
            _build(data.facts, data.splits, values)
            return
        root = shapes.write_shapes(os.path.join(scratch, "shapes"))
        splits = voc.voc_splits(root / "JPEGImages", root / "SegmentationClass", root / "ImageSets/Segmentation")
        _build(datasets.dataset("shapes"), splits, values)


def run(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    options.run(main, define, argv)


if __name__ == "__main__":
    run()
