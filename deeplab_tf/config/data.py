"""DataConfig: the options of records and their preprocessing. Import it from deeplab_tf.config."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Literal, get_args

from deeplab_tf.arch import ARCHITECTURES
from deeplab_tf.config.fields import Options, auto_or_count, option, path_option, split_names
from deeplab_tf.config.groups import TRAINING
from deeplab_tf.errors import DeepLabError, unknown_name

LabelPolicy = Literal["error", "ignore", "map"]
LABEL_POLICIES: tuple[LabelPolicy, ...] = get_args(LabelPolicy)


@dataclasses.dataclass(frozen=True)
class DataConfig(Options, group="data"):
    """Which records are read and what becomes of them before the network: the release's data flags.

    `crop_size` and `batch_size` are its train_crop_size and train_batch_size. Sizes are (height, width) in pixels.
    An `Experiment` sets `model_variant` to its network's.

    >>> deeplab_tf.DataConfig(dataset="cityscapes", crop_size="769,769").crop_size
    (769, 769)
    """

    dataset: str | None = path_option(
        None,
        "data set: a name of the catalogue or of the dataset.json beside the records; a folder that holds a "
        "dataset.json, written with a separator, ./data; or tfds:name/config:version, a set that TensorFlow Datasets "
        "has prepared. Unset: what the dataset.json beside the records says, without one pascal_voc_seg",
        named=True,
    )
    dataset_dir: str | None = path_option(
        None, "folder with the TFRecord shards <split>-00000-of-0000N.tfrecord; for tfds:name the data_dir of TFDS"
    )
    tfds_features: tuple[str, ...] | None = option(
        None,
        "for tfds:name: the features of image and mask, image,segmentation_mask; unset: found by kind and name",
        parse=split_names,
    )
    classes_of: str | None = path_option(
        None,
        "dataset.json, or the folder that holds it, whose classes the labels have after label_map; unset: those of "
        "the records",
    )
    crop_size: tuple[int, int] | None = option(
        (513, 513),
        "height,width that training crops to and smaller images are padded to; unset: evaluation only",
        flag="train_crop_size",
        group=TRAINING,
    )
    batch_size: int = option(
        8,
        "examples in a batch, over all devices; auto: as many as the memory holds, with the rate for them",
        flag="train_batch_size",
        parse=auto_or_count,
        group=TRAINING,
    )
    min_resize_value: int | None = option(
        None, "resize images so that their shorter side has this many pixels", group="sizes"
    )
    max_resize_value: int | None = option(
        None, "but their longer side at most this many; needs min_resize_value", group="sizes"
    )
    resize_factor: int | None = option(
        None, "and both sides a multiple of this, plus one; needs min_resize_value", group="sizes"
    )
    min_scale_factor: float = option(0.5, "smallest random scale of training", group=TRAINING)
    max_scale_factor: float = option(2.0, "largest random scale of training", group=TRAINING)
    scale_factor_step_size: float = option(
        0.25, "distance of the random scales; 0: any between smallest and largest", group=TRAINING
    )
    color_jitter: tuple[float, ...] | None = option(
        None,
        "largest random change of brightness, contrast, saturation (shares) and hue (of a turn): 0.2,0.2,0.2,0.05",
        group=TRAINING,
    )
    gaussian_blur: float | None = option(
        None, "largest random blur: the width sigma of the bell in pixels", group=TRAINING
    )
    grid_mask: float | None = option(
        None, "hide squares of a random grid: their largest side as a share of its spacing", group=TRAINING
    )
    cut_mix: float | None = option(
        None, "share of the pictures that get a rectangle of another one of their batch", group=TRAINING
    )
    model_variant: str = option("mobilenet_v2", "backbone, whose mean pixel fills the image's padding")
    label_policy: LabelPolicy = option(
        "error", "labels that are not a class: error stops; ignore: not counted; map: renamed by label_map, or an error"
    )
    label_map: tuple[str, ...] | None = option(
        None, "for --label_policy=map: old:new pairs, for instance 255:1,7:0", parse=split_names
    )
    skip_corrupt_records: bool = option(False, "skip records that cannot be read, instead of stopping")
    decoded_cache: str | None = path_option(
        None,
        "folder on a fast disk of this machine that keeps training's pictures decoded: later epochs read only the "
        "window that they crop. Takes 4 bytes a pixel: 8 MB a picture of Cityscapes, 25 GB for its train_fine",
        group="devices",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.model_variant not in ARCHITECTURES:
            raise unknown_name("model_variant", self.model_variant, ARCHITECTURES)
        self._require_size("crop_size")
        features = self.tfds_features
        self._require("tfds_features", features is None or len(features) == 2, "expected two names, image,mask")
        self._require(
            "batch_size", not isinstance(self.batch_size, str), "expected a number; the flag alone takes auto"
        )
        self._require_at_least(1, "batch_size")
        self._require_resizing()
        self._require_scales()
        self._require_augmentation()
        self._require_labels()

    def _require_scales(self) -> None:
        self._require("min_scale_factor", self.min_scale_factor > 0, "expected a scale above 0")
        expected = f"expected at least min_scale_factor={self.min_scale_factor}"
        self._require("max_scale_factor", self.max_scale_factor >= self.min_scale_factor, expected)
        self._require("scale_factor_step_size", self.scale_factor_step_size >= 0, "expected 0 or more")

    def _require_augmentation(self) -> None:
        jitter = self.color_jitter
        blur = self.gaussian_blur
        in_range = jitter is None or (len(jitter) == 4 and all(0 <= v <= 1 for v in jitter) and jitter[3] <= 0.5)
        expected = "expected brightness,contrast,saturation in 0..1 and hue in 0..0.5, as in 0.2,0.2,0.2,0.05"
        self._require("color_jitter", in_range, expected)
        self._require("gaussian_blur", blur is None or 0 <= blur <= 100, "expected pixels, 0 to 100")
        for name in ("grid_mask", "cut_mix"):
            value = getattr(self, name)
            self._require(name, value is None or 0 <= value <= 1, "expected a share, 0 to 1")
        alone = self.cut_mix and self.batch_size == 1
        self._require("cut_mix", not alone, "needs a batch_size of at least 2; a picture alone has none to take from")

    def _require_labels(self) -> None:
        if self.label_policy not in LABEL_POLICIES:
            raise unknown_name("label_policy", self.label_policy, LABEL_POLICIES)
        expected = f"label_policy={self.label_policy}; pairs belong to label_policy=map and it needs some, as in 255:1"
        self._require("label_map", bool(self.label_map) == (self.label_policy == "map"), expected)
        _ = self.label_table  # raises for a pair that is none

    @property
    def label_table(self) -> Mapping[int, int]:
        """The pairs of `label_map`: old label -> new label, both 0..255."""
        table: dict[int, int] = {}
        for pair in self.label_map or ():
            match = re.fullmatch(r"\s*(\d{1,3})\s*:\s*(\d{1,3})\s*", pair)
            if not match or max(int(match[1]), int(match[2])) > 255:
                raise DeepLabError(
                    f"label_map={self.label_map!r}: expected old:new pairs of labels 0..255, as in 255:1,7:0"
                )
            table[int(match[1])] = int(match[2])
        return table
