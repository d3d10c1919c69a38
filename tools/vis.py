r"""Draws a checkpoint's predictions for the images of a split, with the flags of the release.

  deeplab-tf vis --checkpoint_dir=exp/voc --vis_logdir=exp/voc/vis --dataset_dir=tfrecord --vis_split=val \
    --vis_crop_size=513,513 --max_number_of_iterations=1

Writes segmentation_results/000000_image.png and 000000_prediction.png, numbered in the order of the records, and with
--also_save_raw_predictions raw_segmentation_results/<name of the image>.png, the class indices (for Cityscapes the ids
of its evaluation server). The folder of a training run is followed, as by `deeplab-tf eval`.
"""

from collections.abc import Sequence
from typing import Any

from absl import flags

from deeplab_tf.config import VisConfig
from deeplab_tf.tools import help_pages, options, passes

_NAMES: dict[str, str | None] = {
    "report": None,  # eval's
    "eval_logdir": "vis_logdir",
    "eval_split": "vis_split",
    "eval_batch_size": "vis_batch_size",
    "eval_crop_size": "vis_crop_size",
    "max_number_of_evaluations": "max_number_of_iterations",
}


_FIRST = (
    "checkpoint_dir",
    "dataset_dir",
    "dataset",
    "vis_split",
    "vis_logdir",
    "vis_crop_size",
    "colormap_type",
    "also_save_raw_predictions",
    "max_number_of_iterations",
)


def define(values: flags.FlagValues) -> None:
    """Defines the flags of this command."""
    passes.define(values, VisConfig, _NAMES)
    help_pages.put_first(values, _FIRST)


def configurations(values: flags.FlagValues) -> tuple[VisConfig, dict[str, Any], dict[str, Any]]:
    """Returns the options of the command, and the fields of DataConfig and ModelConfig that the flags give."""
    return passes.configurations(values, VisConfig, _NAMES)


def main(values: flags.FlagValues) -> None:
    """Draws the predictions of checkpoints."""
    passes.name_checkpoint(values)
    options.require(values, "vis_logdir")
    passes.require_records(values)
    config, _, _ = configurations(values)
    options.require_writable(values, "vis_logdir")
    for note in passes.notes(values, config):
        print(f"Note: {note}")
    options.start_tensorflow()
    passes.run_passes(config, passes.given(values, VisConfig, _NAMES))


def run(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    options.run(main, define, argv)


if __name__ == "__main__":
    run()
