r"""Adds classes to a trained network, from pictures labelled for the new classes alone, without losing the old ones.

  deeplab-tf extend --checkpoint=exp/street --add=curb,manhole --background=sidewalk --dataset_dir=new_records \
    --train_logdir=exp/street_curb --old_dataset_dir=street_records

The last layer grows: old weights stay, new classes begin as parts of the one that their pixels belonged to
(--background). It is then trained as Cermelli et al. (2020, Modeling the Background) do: what the new labels call
background may be any old class, and the network before teaches the old ones. Other flags are those of train; the recipe
is --config=extend. At the end the mean IoU of old and new classes is printed, before and after.
"""

import json
import math
from collections.abc import Mapping, Sequence

from absl import flags

from deeplab_tf import files
from deeplab_tf.documents.json_files import plain
from deeplab_tf.errors import DeepLabError
from deeplab_tf.tools import help_pages, options, train
from deeplab_tf.tools.ending import INTERRUPTED

# Flags of train whose values follow from the checkpoint and --add.
_FOLLOWING = (
    "tf_initial_checkpoint",
    "initialize_last_layer",
    "initialize_extra_bands",
    "unfold_batch_norm",
    "teacher",
    "loss",
    "focal_gamma",
    "old_classes",
    "background_class",
    "label_weights",
    "top_k_percent_pixels",
    "dataset",
    "tfds_features",
    "classes_of",
    "label_policy",
    "label_map",
    "mode",
)
_SCORES = "extended.json"
_FIRST = ("checkpoint", "add", "background", "dataset_dir", "old_dataset_dir", "train_logdir", "config", "train_split")
_FIRST += ("train_batch_size", "base_learning_rate", "training_number_of_steps", "distillation_weight")


def define(values: flags.FlagValues) -> None:
    """Defines the flags of this command: its own, and those of train."""
    train.define(values)
    values["config"].value = "extend"
    text = f"network to extend: {options.CHECKPOINT_HELP} (required)"
    options.define_path(values, "checkpoint", None, text, named=True)
    text = "names of the classes to add, as the dataset.json beside the records calls them: curb,manhole (required)"
    flags.DEFINE_list("add", None, text, flag_values=values)
    text = "class of the network that pixels of the new ones belonged to before (default: background)"
    flags.DEFINE_string("background", None, text, flag_values=values)
    text = "records labelled for the old classes, to score these on (default: they are not scored)"
    options.define_path(values, "old_dataset_dir", None, text)
    help_pages.leave_out(values, _FOLLOWING)
    help_pages.put_first(values, _FIRST)


def _mean(scores: Mapping[str, float]) -> float:
    known = [value for value in scores.values() if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def _lines(before: Mapping[str, Mapping[str, float]], after: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Returns the table of the scores."""
    lines: list[str] = []
    for group, scores in after.items():
        was = before.get(group)
        earlier = f"{_mean(was):.4f} before, " if was else ""
        lines.append(f"{group} classes: mean IoU {earlier}{_mean(scores):.4f} after")
        for name, value in scores.items():
            lines.append(f"  {name}: {f'{was[name]:.4f}, ' if was else ''}{value:.4f}")
    return lines


def main(values: flags.FlagValues) -> int | None:
    """Extends a network, trains it and prints its scores; returns 130 where control-C ended the run."""
    options.require(values, "checkpoint", "add", "dataset_dir", "train_logdir")
    for name in _FOLLOWING:
        if values[name].present:
            raise DeepLabError(f"--{name}: follows from --checkpoint and --add; leave it out")
    options.start_tensorflow()
    from deeplab_tf.training import extending

    extension = extending.Extension.of(values.checkpoint, values.add, values.background)
    following = extending.options(extension, values.dataset_dir, values.train_logdir, values.checkpoint)
    for name, value in following.items():
        values[name].value = value
    if values.old_dataset_dir:
        extension.labels_of(values.old_dataset_dir, flag="--old_dataset_dir", old_alone=True)
    asked = extension.followed(train.experiment(values, tell=print))
    train.require_use(values, asked)
    outcome = train.run_experiment(asked)
    if outcome.stopped:
        return INTERRUPTED if outcome.reason == "interrupt" else None
    before = extension.scores(asked, None, values.old_dataset_dir)
    after = extension.scores(asked, outcome.checkpoint, values.old_dataset_dir)
    print("\n".join(_lines(before, after)))
    file = files.path(values.train_logdir) / _SCORES
    with files.written(file, flag="--train_logdir") as partial:
        partial.write_text(json.dumps(plain({"before": before, "after": after}), indent=1) + "\n", "utf-8")
    return None


def run(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    options.run(main, define, argv, prepare=train.prepare)


if __name__ == "__main__":
    run()
