"""Finds what is silently wrong with a data set, a training run, a checkpoint or an export, and names the cure.

  deeplab-tf doctor --dataset_dir=voc_records          TFRecords, or a folder of images with labels or annotations
  deeplab-tf doctor --train_logdir=exp/voc             a run: its options, its folder, its log
  deeplab-tf doctor --checkpoint=exp/voc               weights: what they are, what they may be scored on
  deeplab-tf doctor --checkpoint=exp/voc --dataset_dir=voc_records     and what they predict
  deeplab-tf doctor --checkpoint=exp/voc --dataset_dir=my_data --suspects=suspects.json     labels that look wrong
  deeplab-tf doctor --export_dir=out/saved_model       an export: its stride, its agreement, whether it is stale

Several may be given. With --dataset_dir, the predictions of a run or a checkpoint are checked too: if one class has
nearly all pixels, the five usual causes are tested. With --suspects, labelled regions that the network contradicts with
confidence are listed, and written to a file that deeplab-tf label --suspects opens.

The exit status is 1 if there are errors.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from absl import flags

from deeplab_tf import configs
from deeplab_tf.errors import DeepLabError
from deeplab_tf.tools import options

if TYPE_CHECKING:
    from deeplab_tf.doctor.findings import Diagnosis

_SUBJECTS = ("dataset_dir", "train_logdir", "checkpoint", "export_dir")


_OF_DATA = ("dataset", "tfds_features", "splits", "num_images")
_USES: tuple[options.Use[flags.FlagValues], ...] = (
    options.Use(_OF_DATA, "--dataset_dir", lambda values: values.dataset_dir),
    options.Use(("tfds_features",), "--dataset=tfds:...", lambda values: (values.dataset or "").startswith("tfds:")),
    options.Use(("config",), "--train_logdir", lambda values: values.train_logdir),
    options.Use(
        ("suspects",),
        "--dataset_dir and --checkpoint",
        lambda values: values.dataset_dir and (values.checkpoint or values.fold_checkpoints),
    ),
    options.Use(("fold_checkpoints",), "--suspects", lambda values: values.suspects),
    options.Use(
        ("eval_split", "num_images"),
        "--checkpoint or --train_logdir",
        lambda values: values.checkpoint or values.train_logdir,
    ),
)


def define(values: flags.FlagValues) -> None:
    """Defines the flags of this command."""
    text = "folder of TFRecords, or of images with labels or annotations as build-data --dataset=folder takes it"
    options.define_path(values, "dataset_dir", None, text)
    text = "what the labels mean, as train's (default: what the folder says, else pascal_voc_seg)"
    options.define_path(values, "dataset", None, text, named=True)
    text = "with --dataset=tfds:..., as train's: image,mask (default: the only ones of their kind)"
    flags.DEFINE_list("tfds_features", None, text, flag_values=values)
    flags.DEFINE_list("splits", [], "only these splits of the data set (default: all)", flag_values=values)
    options.define_path(values, "train_logdir", None, "folder of a training run")
    text = "recipe to compare the run with (default: the nearest one)"
    flags.DEFINE_string("config", None, text, flag_values=values)
    options.define_path(values, "checkpoint", None, options.CHECKPOINT_HELP)
    text = "exported file or folder; --checkpoint then names the weights that it should hold"
    options.define_path(values, "export_dir", None, text)
    text = "split that the weights will be scored on (default: val, val_fine for Cityscapes)"
    flags.DEFINE_string("eval_split", None, text, flag_values=values)
    text = "images that weights are run on, with --dataset_dir (default: 8)"
    flags.DEFINE_integer("num_images", 8, text, flag_values=values)
    text = "file to write: labelled regions that the network contradicts with confidence, for label --suspects"
    options.define_path(values, "suspects", None, text)
    text = (
        "with --suspects: runs on other divisions of the same pictures; each picture is judged by those that were not "
        "trained on it (default: --checkpoint alone)"
    )
    options.define_path_list(values, "fold_checkpoints", [], text)
    flags.DEFINE_boolean("json", False, "print JSON", flag_values=values)


def _dataset(values: flags.FlagValues) -> "Diagnosis":
    """Returns the diagnosis of a data set, and shows a progress bar until it is done."""
    import rich.console
    import rich.progress

    from deeplab_tf.doctor.dataset import check_dataset

    console = rich.console.Console(stderr=True)
    with rich.progress.Progress(console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("Looking at images and labels", total=None)
        return check_dataset(
            values.dataset_dir,
            dataset=values.dataset,
            splits=values.splits,
            tfds_features=values.tfds_features,
            begin=lambda count: bar.update(task, total=count),
            advance=lambda: bar.advance(task),
        )


def _suspects(values: flags.FlagValues) -> "Diagnosis":
    """Returns the diagnosis of suspects, which writes their file, and shows a progress bar until it is done."""
    import rich.console
    import rich.progress

    from deeplab_tf.doctor.samples import open_data
    from deeplab_tf.doctor.suspects import check_suspects

    data = open_data(
        values.dataset_dir, dataset=values.dataset, splits=values.splits, tfds_features=values.tfds_features
    )
    checkpoints = [*([values.checkpoint] if values.checkpoint else []), *values.fold_checkpoints]
    console = rich.console.Console(stderr=True)
    with rich.progress.Progress(console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("Comparing labels with predictions", total=sum(data.splits.values()))
        return check_suspects(checkpoints, data, values.suspects, advance=lambda: bar.advance(task))


def _diagnoses(values: flags.FlagValues) -> "Iterator[Diagnosis]":
    """Yields the diagnosis of each subject that the flags name."""
    exported = values.export_dir
    weights = values.checkpoint
    if weights and not exported:
        from deeplab_tf.doctor.exports import is_export

        if is_export(weights):
            exported = weights
            weights = None
    if values.dataset_dir:
        yield _dataset(values)
    if values.train_logdir:
        from deeplab_tf.doctor.run import check_run

        names = [values.config] if values.config else configs.names()
        recipes = {name: configs.read(name) for name in names if not configs.follows_data(name)}
        if not recipes:
            raise DeepLabError(f"--config={values.config}: follows the data, so there is nothing to compare a run with")
        yield check_run(values.train_logdir, recipes, eval_split=values.eval_split)
    if weights:
        from deeplab_tf.doctor.checkpoint import check_checkpoint

        yield check_checkpoint(weights, eval_split=values.eval_split)
    if exported:
        from deeplab_tf.doctor.exports import check_exports

        yield check_exports(exported, checkpoint=weights)
    weights = weights or values.train_logdir
    if weights and values.dataset_dir:
        from deeplab_tf.doctor.predictions import check_predictions

        yield check_predictions(
            weights,
            values.dataset_dir,
            dataset=values.dataset,
            split=values.eval_split,
            tfds_features=values.tfds_features,
            num_images=values.num_images,
        )
    if values.suspects:
        yield _suspects(values)


def main(values: flags.FlagValues) -> int:
    """Runs the requested checks and prints their diagnoses; returns 1 if there are errors."""
    if not any(values[name].value for name in _SUBJECTS):
        raise DeepLabError(f"nothing to check; expected one of {', '.join(f'--{name}' for name in _SUBJECTS)}")
    options.require_use(values, _USES, values)
    if values.num_images < 1:
        raise DeepLabError(f"--num_images={values.num_images}: expected a number of at least 1")
    options.require_writable_file(values, "suspects")
    options.start_tensorflow()
    diagnoses = []
    for diagnosis in _diagnoses(values):
        if not values.json:
            separator = "\n" if diagnoses else ""
            print(f"{separator}{diagnosis.text()}", flush=True)
        diagnoses.append(diagnosis)
    if values.json:
        json.dump([diagnosis.to_json() for diagnosis in diagnoses], sys.stdout, indent=1)
        print()
    return int(any(diagnosis.count("error") for diagnosis in diagnoses))


def run(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    options.run(main, define, argv)


if __name__ == "__main__":
    run()
