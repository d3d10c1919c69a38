r"""Trains a network with the flags of the release's train.py, or goes on with a run that was interrupted.

  deeplab-tf train --train_logdir=exp/voc --dataset=pascal_voc_seg --dataset_dir=tfrecord --train_split=train_aug \
    --model_variant=xception_65 --atrous_rates=6,12,18 --output_stride=16 --decoder_output_stride=4 \
    --train_crop_size=513,513 --train_batch_size=16 --base_learning_rate=0.007 --training_number_of_steps=30000 \
    --tf_initial_checkpoint=deeplabv3_xception_2018_01_04.tar.gz

The folder becomes a model directory: predict and convert read it while the run goes on. SIGTERM and control-C save
first; the same command goes on where the run stopped. The folder may be one of a bucket (--train_logdir=gs://bucket/run):
a second trainer is refused there as well, by a lease that a killed trainer of another machine holds for 2 minutes more.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from absl import flags

from deeplab_tf import configs
from deeplab_tf.arch import ARCHITECTURES, nas
from deeplab_tf.config import (
    DERIVED,
    DataConfig,
    EvalConfig,
    Experiment,
    ModelConfig,
    RunConfig,
    TrainConfig,
    require_effect,
)
from deeplab_tf.config.fields import Options
from deeplab_tf.data.find import dataset_of
from deeplab_tf.data.tfds_folder import PREFIX
from deeplab_tf.doctor.findings import WARNING
from deeplab_tf.doctor.network import training_findings
from deeplab_tf.tools import help_pages, options, passes, retired
from deeplab_tf.tools.ending import INTERRUPTED
from deeplab_tf.tools.option_kinds import AUTO
from deeplab_tf.zoo.contamination import contamination

if TYPE_CHECKING:
    from deeplab_tf.training.train import Outcome

# What follows from another part of the experiment has no flag, and reports are written by eval.
_NAMES: dict[type, dict[str, None]] = {part: dict.fromkeys(fields) for part, fields in DERIVED.items()}
_NAMES[EvalConfig] |= {"report": None, "tf32": None}  # scores in training are the published pixels


_BATCH = "batch_size"
_TRAINING = ("train", "train_and_eval")
_DECODER = ("decoder_use_separable_conv", "decoder_filters", "decoder_projection_filters", "decoder_convs")
_DECODER += ("decoder_kernel_size", "decoder_use_sum_merge", "decoder_output_is_logits")
_ADAM = ("adam_learning_rate", "adam_epsilon")
_STEPPED = ("learning_rate_decay_factor", "learning_rate_decay_step")
_SLOW = ("slow_start_learning_rate", "slow_start_burnin_type")
_NAS = ("nas_stem_output_num_conv_filters", "nas_use_classification_head", "nas_remove_os32_stride")
_NAS += ("drop_path_keep_prob",)
_SCHEDULE = ("base_learning_rate", "learning_policy", "decay_steps", "end_learning_rate", "learning_power")
_SCHEDULE += (*_STEPPED, "slow_start_step", *_SLOW)
_FALLING = ("decay_steps", "end_learning_rate")


def _changed(
    part: type[Options], names: Sequence[str], needs: str, met: Callable[[Experiment], object]
) -> list[options.Use[Experiment]]:
    """Returns the rule of flags that the release takes without effect: they are refused, but never their defaults.

    Its documented command lines give more than they must.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(part)}
    where = {TrainConfig: "train", DataConfig: "data", RunConfig: "run"}[part]

    def use(name: str) -> options.Use[Experiment]:
        def either(asked: Experiment) -> object:
            return getattr(getattr(asked, where), name) == defaults[name] or met(asked)

        return options.Use((name,), needs, either)

    return [use(name) for name in names]


_USES: tuple[options.Use[Experiment], ...] = (
    options.Use(passes.CRF_FLAGS, "--crf", lambda asked: asked.evaluation.crf),
    options.Use(("tfds_features",), "--dataset=tfds:...", lambda asked: (asked.data.dataset or "").startswith(PREFIX)),
    options.Use(_ADAM, "--optimizer=adam", lambda asked: asked.train.optimizer == "adam"),
    options.Use(("momentum",), "--optimizer=momentum", lambda asked: asked.train.optimizer == "momentum"),
    options.Use(("learning_power",), "--learning_policy=poly", lambda asked: asked.train.learning_policy == "poly"),
    options.Use(_STEPPED, "--learning_policy=step", lambda asked: asked.train.learning_policy == "step"),
    options.Use(_SLOW, "--slow_start_step", lambda asked: asked.train.slow_start_step),
    options.Use(("focal_gamma",), "--loss=focal", lambda asked: asked.train.loss == "focal"),
    options.Use(
        ("hard_example_mining_step",),
        "--top_k_percent_pixels",
        lambda asked: asked.train.top_k_percent_pixels < 1,
    ),
    options.Use(("distillation_weight",), "--teacher", lambda asked: asked.run.teacher),
    options.Use(
        ("unlabelled_split", "unlabelled_share", "teacher_confidence"),
        "--unlabelled_dir",
        lambda asked: asked.run.unlabelled_dir,
    ),
    options.Use(("initialize_last_layer",), "--tf_initial_checkpoint", lambda asked: asked.run.tf_initial_checkpoint),
    options.Use(("freeze_steps",), "--freeze=backbone", lambda asked: asked.train.freeze != "none"),
    options.Use(_DECODER, "--decoder_output_stride", lambda asked: asked.model.decoder_output_stride),
    options.Use(
        _NAS, "a --model_variant of NAS", lambda asked: ARCHITECTURES[asked.model.model_variant] in nas.ARCHITECTURES
    ),
    options.Use(("merge_method",), "--image_pyramid", lambda asked: asked.model.image_pyramid),
    options.Use(("eval_interval_steps",), "--mode=train_and_eval", lambda asked: asked.run.mode == "train_and_eval"),
    options.Use(
        ("eval_logdir",), "--mode=eval or continuous_eval", lambda asked: asked.run.mode in ("eval", "continuous_eval")
    ),
    options.Use(
        ("eval_interval_secs", "max_number_of_evaluations"),
        "--mode=continuous_eval",
        lambda asked: asked.run.mode == "continuous_eval",
    ),
    options.Use(("log_to", "tf32"), "--mode=train or train_and_eval", lambda asked: asked.run.mode.startswith("train")),
    options.Use(("tpu",), "--strategy=tpu or auto", lambda asked: asked.run.strategy in ("tpu", "auto")),
    options.Use(
        ("num_clones", "clone_on_cpu"),
        "--strategy=mirrored or auto",
        lambda asked: asked.run.strategy in ("mirrored", "auto"),
    ),
    # The release computes and logs the schedule beside Adam, and goes by adam_learning_rate all the same.
    *_changed(
        TrainConfig,
        _SCHEDULE,
        "--optimizer=momentum, or --adam_learning_rate=0, with which Adam's rate follows the schedule",
        lambda asked: asked.train.optimizer != "adam" or not asked.train.adam_learning_rate,
    ),
    *_changed(
        TrainConfig,
        _FALLING,
        "--learning_policy=poly or cosine",
        lambda asked: asked.train.learning_policy in ("poly", "cosine"),
    ),
    *_changed(
        TrainConfig,
        ("last_layers_contain_logits_only",),
        "--noinitialize_last_layer or --last_layer_gradient_multiplier, which are about the last layers",
        lambda asked: not asked.run.initialize_last_layer or asked.train.last_layer_gradient_multiplier != 1,
    ),
    *_changed(
        RunConfig,
        ("initialize_extra_bands",),
        "--tf_initial_checkpoint, and photographs of more than 3 bands",
        lambda asked: asked.run.tf_initial_checkpoint and asked.model.input_channels > 3,
    ),
    *_changed(
        RunConfig, ("unfold_batch_norm",), "--tf_initial_checkpoint", lambda asked: asked.run.tf_initial_checkpoint
    ),
    *_changed(
        DataConfig,
        ("scale_factor_step_size",),
        "--min_scale_factor below --max_scale_factor",
        lambda asked: asked.data.min_scale_factor < asked.data.max_scale_factor,
    ),
)


_FIRST = (
    "train_logdir",
    "config",
    "dataset_dir",
    "dataset",
    "train_split",
    "tf_initial_checkpoint",
    "model_variant",
    "train_crop_size",
    "train_batch_size",
    "base_learning_rate",
    "training_number_of_steps",
    "mode",
)


def define(values: flags.FlagValues) -> None:
    """Defines the flags of this command."""
    text = "recipe of configs/ to start from, by its name; the other flags change it"
    flags.DEFINE_string("config", None, text, flag_values=values)
    for part, names in _NAMES.items():
        options.define_flags(values, part, names)
    options.define_retired(values, retired.TRAIN)
    help_pages.put_first(values, _FIRST)


def experiment(values: flags.FlagValues, tell: Callable[[str], object] = lambda line: None) -> Experiment:
    """Returns what the flags say, over what the recipe of --config does.

    tell: gets a line for each option that a recipe chooses by the data.
    """
    name = values["config"].value
    recipe = configs.read(name) if name else Experiment()

    def given(part: type) -> dict[str, object]:
        return options.given(values, part, _NAMES[part])

    fit = values["train_batch_size"].value == AUTO
    of_data = {field: value for field, value in given(DataConfig).items() if value != AUTO or field != _BATCH}
    if name and configs.follows_data(name):
        return _planned(recipe, {**{part: given(part) for part in _NAMES}, DataConfig: of_data}, tell, fit=fit)

    data = dataclasses.replace(recipe.data, **of_data)
    facts = dataset_of(data)
    # With the classes in the same step: some flags of the network must fit their number.
    model = dataclasses.replace(recipe.model, num_classes=facts.num_classes, **given(ModelConfig))
    asked = Experiment(
        model=model,
        train=dataclasses.replace(recipe.train, **given(TrainConfig)),
        data=data,
        run=dataclasses.replace(recipe.run, **given(RunConfig)),
        evaluation=dataclasses.replace(recipe.evaluation, **given(EvalConfig)),
    ).on(facts)
    return _fitted(asked, tell, rate_given="base_learning_rate" in given(TrainConfig)) if fit else asked


def _fitted(asked: Experiment, tell: Callable[[str], object], *, rate_given: bool) -> Experiment:
    """Returns the experiment with the largest batch that fits; of one that only scores the batch does not matter."""
    if not asked.run.mode.startswith("train"):
        return asked
    options.start_tensorflow()
    from deeplab_tf.training.batch import fitted

    experiment, line = fitted(asked, rate_given=rate_given, tell=tell)
    tell(line)
    return experiment


def _planned(
    recipe: Experiment,
    given: Mapping[type[Options], Mapping[str, object]],
    tell: Callable[[str], object],
    *,
    fit: bool,
) -> Experiment:
    options.start_tensorflow()
    from deeplab_tf.training.batch import planned_to_fit
    from deeplab_tf.training.finetuning import plan

    planned = planned_to_fit(recipe, given, tell) if fit else plan(recipe, given)
    for line in planned.lines:
        tell(line)
    return planned.experiment


def concerns(asked: Experiment) -> list[str]:
    """Returns a line for each odd thing about the options."""
    update = {name: value for part in (asked.train, asked.data, asked.run) for name, value in vars(part).items()}
    found = training_findings(asked.model, update)
    lines = [f"{finding.evidence[0]}; {finding.cure}" for finding in found if finding.severity == WARNING]
    if asked.run.mode == "train_and_eval":
        name = dataset_of(asked.data).name
        contaminated = contamination(
            name,
            asked.evaluation.eval_split,
            train_dataset=name,
            train_split=asked.run.train_split,
            source=asked.run.tf_initial_checkpoint,
        )
        lines += [f"the scores are contaminated: {contaminated}"] if contaminated else []
    return lines


def require_use(values: flags.FlagValues, asked: Experiment) -> None:
    """Raises DeepLabError for a flag that would do nothing; prints a note for each that the release has no use for."""
    options.require_use(values, _USES, asked)
    require_effect(asked.model, options.given(values, ModelConfig, _NAMES[ModelConfig]))
    for note in options.retired_notes(values, retired.TRAIN):
        print(f"Note: {note}")


def run_experiment(asked: Experiment) -> "Outcome":
    """Trains with the progress on the screen, and prints how it ended."""
    from deeplab_tf.tools.display import Display
    from deeplab_tf.training.train import train

    for line in concerns(asked):
        print(f"Note: {line}")
    with Display() as display:
        display.expect(asked.train.training_number_of_steps)
        outcome = train(asked, observer=display)
    end = "Stopped by a signal; the same command goes on" if outcome.stopped else "Done"
    print(f"{end}: step {outcome.step}, {outcome.checkpoint}")
    return outcome


def main(values: flags.FlagValues) -> int | None:
    """Trains a network, or scores its checkpoints where --mode says so; returns 130 where control-C ended the run."""
    if not (values["config"].value and configs.follows_data(values["config"].value)):
        options.require(values, "train_logdir")
    passes.require_records(values)
    scores = values["mode"].value in ("eval", "continuous_eval")
    asked = experiment(values, tell=(lambda line: None) if scores else print)
    require_use(values, asked)
    options.start_tensorflow()
    if asked.run.mode in ("eval", "continuous_eval"):
        given = passes.given(values, EvalConfig, _NAMES[EvalConfig])
        # What a recipe says is given too: it differs from the defaults, or there is nothing to tell apart.
        said = {name for name, value in vars(asked.evaluation).items() if value != getattr(EvalConfig(), name)}
        passes.run_passes(asked.evaluation_of_run, dataclasses.replace(given, names={*given.names, *said}))
        return None
    return INTERRUPTED if run_experiment(asked).reason == "interrupt" else None


def prepare(values: flags.FlagValues) -> None:
    """Has XLA keep what it compiles, where it may compile a step."""
    if values["jit_compile"].value == "false" or values["mode"].value not in (None, *_TRAINING):
        return
    from deeplab_tf.training.kept_compilations import keep_compilations

    line = keep_compilations()
    if line:
        print(line)


def run(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    options.run(main, define, argv, prepare=prepare)


if __name__ == "__main__":
    run()
