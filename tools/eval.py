r"""Scores a checkpoint on a split, or the checkpoints of a training run as they come, with the flags of the release.

  deeplab-tf eval --checkpoint_dir=exp/voc --eval_logdir=exp/voc/eval --dataset_dir=tfrecord --eval_split=val \
    --eval_crop_size=513,513 --max_number_of_evaluations=1
  deeplab-tf eval --checkpoint_dir=xception65_coco_voc_trainaug --eval_logdir=eval --dataset_dir=tfrecord

The folder of a training run is followed: its newest checkpoint, then each newer one, for ever unless
--max_number_of_evaluations says how many. Anything else that holds weights is scored once. Every example counts once,
whatever its size. Scores are printed and written to --eval_logdir: TensorBoard scalars under the release's names, and
metrics.jsonl. --report=DIR writes DIR/report.html, a page for the browser: scores with intervals, what is taken for
what, the worst images; beside it metrics.json and per_image.csv.
"""

import shlex
from collections.abc import Sequence
from typing import Any

from absl import flags

from deeplab_tf.config import EvalConfig
from deeplab_tf.tools import help_pages, options, passes

_NAMES: dict[str, str | None] = {}


_FIRST = (
    "checkpoint_dir",
    "dataset_dir",
    "dataset",
    "eval_split",
    "eval_logdir",
    "report",
    "eval_crop_size",
    "eval_scales",
    "add_flipped_images",
    "max_number_of_evaluations",
)


def define(values: flags.FlagValues) -> None:
    """Defines the flags of this command."""
    passes.define(values, EvalConfig, _NAMES)
    help_pages.put_first(values, _FIRST)


def configurations(values: flags.FlagValues) -> tuple[EvalConfig, dict[str, Any], dict[str, Any]]:
    """Returns the options of the command, and the fields of DataConfig and ModelConfig that the flags give."""
    return passes.configurations(values, EvalConfig, _NAMES)


def _command(values: flags.FlagValues) -> str:
    given = (values[name].serialize().splitlines() for name in values if values[name].present)
    return shlex.join(["deeplab-tf", "eval", *(flag for lines in given for flag in lines)])


def main(values: flags.FlagValues) -> None:
    """Scores checkpoints."""
    folders = [name for name in ("eval_logdir", "report") if values[name].value] or ["eval_logdir"]
    passes.name_checkpoint(values)
    options.require(values, *folders)
    passes.require_records(values)
    config, _, _ = configurations(values)
    for name in folders:
        options.require_writable(values, name)
    for note in passes.notes(values, config):
        print(f"Note: {note}")
    options.start_tensorflow()
    passes.run_passes(config, passes.given(values, EvalConfig, _NAMES), command=_command(values))


def run(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    options.run(main, define, argv)


if __name__ == "__main__":
    run()
