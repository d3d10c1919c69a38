"""Builders of TensorFlow Datasets for the data sets of the catalogue; importing this module registers them.

  import deeplab_tf.data.tfds_builders
  tfds.load("deeplab_shapes", split="train")
  tfds.builder("deeplab_voc", data_dir=...).download_and_prepare(download_config=DownloadConfig(manual_dir=...))

Examples are {"image": uint8 [h, w, 3], "segmentation_mask": uint8 [h, w, 1] of class indices, "file_name": text}; the
feature of the mask has the names of the classes. Training reads the prepared files by --dataset=tfds:deeplab_voc.
"""

import io
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping

import tensorflow_datasets as tfds

from deeplab_tf.catalog import datasets
from deeplab_tf.data import ade20k, cityscapes, shapes, voc
from deeplab_tf.data.faults import fault_lines
from deeplab_tf.data.masks import LabelRules
from deeplab_tf.data.packing import pack
from deeplab_tf.data.pairs import Pair
from deeplab_tf.data.tfds_folder import CATALOGUE
from deeplab_tf.errors import DeepLabError
from deeplab_tf.ops.images import label_png

Examples = Iterator[tuple[str, dict]]


class _Segmentation(  # pyright: ignore[reportGeneralTypeIssues] (TFDS has no types)
    tfds.core.GeneratorBasedBuilder,
    skip_registration=True,  # pyright: ignore[reportCallIssue]
):
    """A data set of the catalogue, whose name is `CATALOGUE[self.name]`."""

    VERSION = tfds.core.Version("1.0.0")

    @property
    def facts(self) -> datasets.Dataset:
        """The entry of the catalogue."""
        return datasets.DATASETS[CATALOGUE[self.name]]

    def _info(self) -> tfds.core.DatasetInfo:
        mask = tfds.features.LabeledImage(labels=list(self.facts.class_names), shape=(None, None, 1))
        features = {"image": tfds.features.Image(), "segmentation_mask": mask, "file_name": tfds.features.Text()}
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"{self.facts.name}: images and class indices; {self.facts.ignore_label} is ignored.",
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "segmentation_mask"),
            homepage=self.facts.homepage or None,
            license=self.facts.terms,
        )

    def _generate_examples(self, pairs: Iterable[Pair]) -> Examples:
        """Yields the encoded examples of a split.

        Raises:
          DeepLabError: at the end, if files are faulty; it lists all of them.
        """
        rules = LabelRules(self.facts.num_classes, self.facts.ignore_label, self.facts.palette)
        faults = []
        for pair in pairs:
            packed = pack(pair, rules)
            if isinstance(packed, list):
                faults += packed
            else:
                yield packed.filename, _example(packed.filename, packed.image, packed.label)
        if faults:
            lines = "\n".join(f"  {line}" for line in fault_lines(faults))
            raise DeepLabError(f"{len(faults)} faults, nothing was prepared:\n{lines}")

    def _generators(self, splits: Mapping[str, list[Pair]]) -> dict[str, Examples]:
        return {split: self._generate_examples(pairs) for split, pairs in splits.items()}


def _example(name: str, image: bytes, label: bytes | None) -> dict:
    return {"image": io.BytesIO(image), "segmentation_mask": io.BytesIO(label or b""), "file_name": name}


def _find_folder(manager: tfds.download.DownloadManager, folder: str, archives: Iterable[str]) -> pathlib.Path | None:
    """Returns <manual_dir>/<folder>, or that folder of an archive in manual_dir, or None if there is neither."""
    manual = pathlib.Path(os.fspath(manager.manual_dir))
    if (manual / folder).is_dir():
        return manual / folder
    archive = next((manual / name for name in archives if (manual / name).is_file()), None)
    return pathlib.Path(os.fspath(manager.extract(archive))) / folder if archive else None


def _require_folder(manager: tfds.download.DownloadManager, folder: str, *archives: str) -> pathlib.Path:
    path = _find_folder(manager, folder, archives)
    if path is None:
        listed = " or ".join((f"the folder {folder}", *archives))
        raise DeepLabError(f"manual_dir={manager.manual_dir}: expected {listed} there")
    return path


class DeeplabVoc(_Segmentation):
    """PASCAL VOC 2012, with the release's train_aug if manual_dir has SBD."""

    name = "deeplab_voc"
    MANUAL_DOWNLOAD_INSTRUCTIONS = """
    manual_dir should have VOCtrainval_11-May-2012.tar, or the folder VOCdevkit that it contains; for the split
    train_aug also SBD's benchmark.tgz, or the folder benchmark_RELEASE that it contains.
    """

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Examples]:
        root = _require_folder(dl_manager, "VOCdevkit", "VOCtrainval_11-May-2012.tar") / "VOC2012"
        splits = voc.voc_splits(root / "JPEGImages", root / "SegmentationClass", root / "ImageSets" / "Segmentation")
        sbd = _find_folder(dl_manager, "benchmark_RELEASE", ["benchmark.tgz"])
        return self._generators({**splits, "train_aug": voc.train_aug(splits, sbd)} if sbd else splits)


class DeeplabCityscapes(_Segmentation):
    """Cityscapes: the fine splits, and the coarse ones if manual_dir has their labels."""

    name = "deeplab_cityscapes"
    MANUAL_DOWNLOAD_INSTRUCTIONS = """
    manual_dir should have leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip, or the folders leftImg8bit and
    gtFine that they contain; for the coarse splits the folders leftImg8bit (with train_extra) and gtCoarse.
    """

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Examples]:
        images = _require_folder(dl_manager, "leftImg8bit", "leftImg8bit_trainvaltest.zip").parent
        labels = _require_folder(dl_manager, "gtFine", "gtFine_trainvaltest.zip").parent
        splits = cityscapes.cityscapes_splits(images, label_root=labels)
        if _find_folder(dl_manager, "gtCoarse", []):
            names = [name for name in self.facts.splits if name.endswith("_coarse")]
            splits |= cityscapes.cityscapes_splits(images, splits=names)
        return self._generators(splits)


class DeeplabAde20k(_Segmentation):
    """ADE20K, the 150 classes of SceneParse150."""

    name = "deeplab_ade20k"
    MANUAL_DOWNLOAD_INSTRUCTIONS = """
    manual_dir should have ADEChallengeData2016.zip, or the folder ADEChallengeData2016 that it contains.
    """

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Examples]:
        root = _require_folder(dl_manager, "ADEChallengeData2016", "ADEChallengeData2016.zip")
        splits = ade20k.ade20k_splits(
            train_images=root / "images" / "training",
            train_labels=root / "annotations" / "training",
            val_images=root / "images" / "validation",
            val_labels=root / "annotations" / "validation",
        )
        return self._generators(splits)


class DeeplabShapes(_Segmentation):
    """The synthetic shapes, which the builder draws."""

    name = "deeplab_shapes"

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Examples]:
        return {split: self._drawn_examples(split, count) for split, count in self.facts.splits.items()}

    def _drawn_examples(self, split: str, count: int) -> Examples:
        for name, image, label in shapes.encoded_shapes(split, count):
            yield name, _example(name, image, label_png(label))
