"""EvalConfig and VisConfig: which checkpoints are scored or drawn, and how. Import them from deeplab_tf.config."""

import dataclasses

from deeplab_tf.catalog.palettes import colour_map
from deeplab_tf.config.crf import CrfConfig
from deeplab_tf.config.fields import EXPORTS, WEIGHTS, option, path_option
from deeplab_tf.config.inference import LARGE_IMAGES, Exactness, Inference, LargeImages
from deeplab_tf.errors import unknown_name

DATASET_COLOURS = "dataset"


@dataclasses.dataclass(frozen=True)
class Averaging(Exactness, group="averaging"):
    """The scales and flips whose probabilities are averaged, and how exactly."""

    eval_scales: tuple[float, ...] = option((1.0,), "scales whose probabilities are averaged")
    add_flipped_images: bool = option(False, "also average over the horizontally flipped image")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_averaged("eval_scales")


@dataclasses.dataclass(frozen=True)
class EvalConfig(Averaging, CrfConfig, group="evaluation"):
    """Which checkpoints are run on which split, and where the results go: the flags of the release's eval.py.

    vis.py has the same flags under its own names (vis_logdir for eval_logdir and so on). Sizes are (height, width) in
    pixels. Of an `Experiment` the checkpoints are those of its run.

    >>> config = deeplab_tf.EvalConfig(checkpoint_dir="runs/voc", eval_scales="0.5,1.0,1.75", add_flipped_images=True)
    >>> config.eval_scales, config.eval_crop_size
    ((0.5, 1.0, 1.75), (513, 513))
    """

    checkpoint_dir: str | None = path_option(
        None,
        f"folder of a training run, whose new checkpoints are followed; or one checkpoint: {WEIGHTS}; or {EXPORTS}",
        group="what",
    )
    eval_logdir: str | None = path_option(None, "folder to write", group="what")
    report: str | None = path_option(
        None, "folder to write metrics.json, per_image.csv and report.html to", group="what"
    )
    eval_split: str = option("val", "split of the data set", group="data")
    eval_batch_size: int = option(1, "images run together")
    eval_crop_size: tuple[int, int] | None = option(
        (513, 513),
        "height,width that images are padded to, as the release does; empty: each as little as it needs. This "
        "and the split, batch, scales, flips, resizing and CRF of a run are its own unless they are given",
        group="sizes",
    )
    large_images: LargeImages = option(
        "pad",
        "images larger than the crop: pad runs them whole; tile in overlapping pieces of the crop's size",
        group="sizes",
    )
    eval_interval_secs: int = option(300, "a followed run: seconds from one checkpoint to the next, at least")
    max_number_of_evaluations: int = option(0, "a followed run: checkpoints to end after; 0 or less: never")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_size("eval_crop_size")
        self._require_at_least(1, "eval_batch_size")
        self._require("eval_interval_secs", self.eval_interval_secs >= 0, "expected seconds, 0 or more")
        if self.large_images not in LARGE_IMAGES:
            raise unknown_name("large_images", self.large_images, LARGE_IMAGES)
        needs = "tile needs eval_crop_size, the size of the pieces"
        self._require("large_images", self.large_images == "pad" or self.eval_crop_size is not None, needs)

    @property
    def inference(self) -> Inference:
        """How images become classes: scales, flip, large images and CRF."""
        return Inference(self.eval_scales, self.add_flipped_images, self.large_images, self.crf_parameters, self.tf32)


@dataclasses.dataclass(frozen=True)
class VisConfig(EvalConfig, group="what"):
    """Which pictures are drawn: `EvalConfig` and the release's vis flags."""

    colormap_type: str = option(
        "pascal",
        "colours: pascal, cityscapes, ade20k, mapillary_vistas, shapes, or dataset for the data set's own, the "
        "default of a data set that is not in the catalogue",
    )
    also_save_raw_predictions: bool = option(
        False, "also write the class indices, for Cityscapes as its evaluation server wants them"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.colormap_type != DATASET_COLOURS:
            colour_map(self.colormap_type)
