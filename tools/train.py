"""Trains a network with the flags of the release's train.py, or goes on with a run that was interrupted.

  deeplab-tf train --train_logdir=exp/voc --dataset=pascal_voc_seg --dataset_dir=tfrecord --train_split=train_aug \\
    --model_variant=xception_65 --atrous_rates=6,12,18 --output_stride=16 --decoder_output_stride=4 \\
    --train_crop_size=513,513 --train_batch_size=16 --base_learning_rate=0.007 --training_number_of_steps=30000 \\
    --tf_initial_checkpoint=deeplabv3_xception_2018_01_04.tar.gz

The folder becomes a model directory: predict and convert read it while the run goes on. SIGTERM and control-C save
first; the same command goes on where the run stopped.
"""

import dataclasses
import importlib
import os
import pkgutil
from collections.abc import Mapping

from absl import flags

from deeplab_tf import configs
from deeplab_tf.config import DataConfig, EvalConfig, ModelConfig, RunConfig, TrainConfig
from deeplab_tf.data.find import find_dataset
from deeplab_tf.doctor.findings import WARNING
from deeplab_tf.doctor.network import training_findings
from deeplab_tf.errors import unknown_name
from deeplab_tf.tools import options, passes
from deeplab_tf.tools.ending import INTERRUPTED
from deeplab_tf.zoo.contamination import contamination

_OF_DATA = {"crop_size": "train_crop_size", "batch_size": "train_batch_size", "model_variant": None}
# The data set has the number of classes and the ignore label, the data's crop is the model's.
_OF_MODEL = {"num_classes": None, "crop_size": None}
_OF_TRAIN = {"ignore_label": None}
_OF_EVAL = {"checkpoint_dir": None, "report": None}  # the run's folder; a report is eval's
_RETIRED = {"batch_norm_decay": (0.9997, "the release never read it: each part has its own decay")}
# Fields of TrainConfig that describe asynchronous training with parameter servers, which there is no more.
_ASYNCHRONOUS = ("num_replicas", "startup_delay_steps", "num_ps_tasks", "master", "task")


def define(values: flags.FlagValues):
    """Defines the flags of this command."""
    text = "recipe of configs/ to start from, by its name; the other flags change it"
    flags.DEFINE_string("config", None, text, flag_values=values)
    options.define_flags(values, RunConfig)
    options.define_flags(values, DataConfig, _OF_DATA)
    options.define_flags(values, ModelConfig, _OF_MODEL)
    options.define_flags(values, TrainConfig, _OF_TRAIN)
    options.define_flags(values, EvalConfig, _OF_EVAL)
    options.define_retired(values, _RETIRED)


def read_recipe(name: str | None) -> Mapping[str, object]:
    """Returns what the recipe says, by the names of its parts; the defaults where it says nothing."""
    defaults = {"MODEL": ModelConfig(), "TRAIN": TrainConfig(), "DATA": DataConfig(), "RUN": RunConfig()}
    defaults["EVAL"] = EvalConfig()
    if name is None:
        return defaults
    known = [module.name for module in pkgutil.iter_modules(configs.__path__)]
    if name not in known:
        raise unknown_name("config", name, known)
    module = importlib.import_module(f"{configs.__name__}.{name}")
    return {part: getattr(module, part, default) for part, default in defaults.items()}


def configurations(values: flags.FlagValues) -> tuple[RunConfig, ModelConfig, TrainConfig, DataConfig, EvalConfig]:
    """Returns what the flags say, over what the recipe of --config does; the network has as many classes as the data
    set, and what is scored is the run."""
    recipe = read_recipe(values["config"].value)

    def said(part: str, names: Mapping | None = None, **more: object):
        return dataclasses.replace(recipe[part], **more, **options.given(values, type(recipe[part]), names))

    variant = values["model_variant"].value or recipe["MODEL"].model_variant
    data = said("DATA", _OF_DATA, model_variant=variant)
    classes = find_dataset(data.dataset, data.dataset_dir, data.tfds_features).num_classes
    run, of_eval = said("RUN"), {"checkpoint_dir": None}
    if run.train_logdir:
        of_eval = {"checkpoint_dir": run.train_logdir, "eval_logdir": os.path.join(run.train_logdir, "eval")}
    of_eval |= options.given(values, EvalConfig, _OF_EVAL)
    if run.mode == "eval":
        of_eval["max_number_of_evaluations"] = 1
    evaluation = dataclasses.replace(recipe["EVAL"], **of_eval)
    return run, said("MODEL", _OF_MODEL, num_classes=classes), said("TRAIN", _OF_TRAIN), data, evaluation


def notes(values: flags.FlagValues) -> list[str]:
    """Returns a line for each given flag that does nothing today."""
    given = [name for name in _ASYNCHRONOUS if values[name].value is not None]
    asynchronous = [f"--{name}={values[name].value} has no effect: {values[name].help}" for name in given]
    return [*options.retired_notes(values, _RETIRED), *asynchronous]


def concerns(run: RunConfig, model: ModelConfig, update: TrainConfig, data: DataConfig, scored: str) -> list[str]:
    """Returns a line for each odd thing about the options, `scored` being the split that train_and_eval scores."""
    config = dataclasses.replace(model, crop_size=data.crop_size)
    found = training_findings(config, {**dataclasses.asdict(update), **dataclasses.asdict(data)})
    lines = [f"{finding.evidence[0]}; {finding.cure}" for finding in found if finding.severity == WARNING]
    if run.mode == "train_and_eval":
        contaminated = contamination(
            data.dataset,
            scored,
            train_dataset=data.dataset,
            train_split=run.train_split,
            source=run.tf_initial_checkpoint,
        )
        lines += [f"the scores are contaminated: {contaminated}"] if contaminated else []
    return lines


def main(values: flags.FlagValues) -> int | None:
    """Trains a network; returns 130 where control-C ended it, the run being saved."""
    options.require(values, "train_logdir")
    passes.require_records(values)
    run, model, update, data, evaluation = configurations(values)
    for note in notes(values):
        print(f"Note: {note}")
    options.start_tensorflow()
    if run.mode in ("eval", "continuous_eval"):
        given = options.given(values, ModelConfig, _OF_MODEL)
        passes.run_passes(evaluation, options.given(values, DataConfig, passes.OF_DATA), given)
        return None
    from deeplab_tf.tools.display import Display
    from deeplab_tf.training.train import train

    for line in concerns(run, model, update, data, evaluation.eval_split):
        print(f"Note: {line}")
    with Display() as display:
        display.expect(update.training_number_of_steps)
        outcome = train(model, update, data, run, evaluation, observer=display)
    end = "Stopped by a signal; the same command goes on" if outcome.stopped else "Done"
    print(f"{end}: step {outcome.step}, {outcome.checkpoint}")
    return INTERRUPTED if outcome.reason == "interrupt" else None


def run(argv=None):
    """Runs the command."""
    options.run(main, define, argv)


if __name__ == "__main__":
    run()
