"""What the commands eval and vis share: their flags, passes over a data set with one checkpoint after the other."""

import dataclasses
import functools
import math
import os
import typing
from collections.abc import Mapping

from absl import flags

from deeplab_tf.config import DERIVED, DataConfig, EvalConfig, ModelConfig, VisConfig
from deeplab_tf.data.tfds_folder import PREFIX
from deeplab_tf.tools import options, retired

if typing.TYPE_CHECKING:
    from deeplab_tf.evaluation.passes import Pass

# The data set has the number of classes, the checkpoint its backbone; crop and batch are the command's own.
OF_MODEL = dict.fromkeys(DERIVED[ModelConfig])
OF_DATA = dict.fromkeys(DERIVED[DataConfig])
OF_DATA |= {field.name: None for field in dataclasses.fields(DataConfig) if field.metadata["training"]}


def define(values: flags.FlagValues, config_class: type[EvalConfig], names: Mapping[str, str | None]):
    """Defines the flags of a command whose options are `config_class`, with the flag `names` of some of its fields."""
    options.define_flags(values, config_class, names)
    options.define_flags(values, DataConfig, OF_DATA)
    options.define_flags(values, ModelConfig, OF_MODEL)
    options.define_retired(values, retired.PASSES)


def require_records(values: flags.FlagValues):
    """Raises DeepLabError where it is not said which records to read. What TFDS has prepared has a place of its own."""
    if not (values["dataset"].value or "").startswith(PREFIX):
        options.require(values, "dataset_dir")


def configurations(
    values: flags.FlagValues, config_class: type[EvalConfig], names: Mapping[str, str | None]
) -> tuple[EvalConfig | VisConfig, dict, dict]:
    """Returns what the flags say: the options of the command, and the given fields of DataConfig and ModelConfig."""
    config = config_class(**options.given(values, config_class, names))
    data, model = options.given(values, DataConfig, OF_DATA), options.given(values, ModelConfig, OF_MODEL)
    DataConfig(**data)  # validate now, before waiting for a checkpoint
    return config, data, model


def notes(values: flags.FlagValues, config: EvalConfig) -> list[str]:
    """Returns a line for each given flag that does nothing today, or something else than in the release."""
    lines = options.retired_notes(values, retired.PASSES)
    if config.add_flipped_images and config.eval_scales == (1.0,):
        lines.append("--add_flipped_images counts at the single scale 1 too, where the release ignores it")
    return lines


def _described(work: "Pass", config: EvalConfig) -> str:
    from deeplab_tf.network.cost import model_cost

    opened = work.opened
    card = opened.loaded.card
    cost = model_cost(opened.loaded.model)
    rows = {"checkpoint": opened.path, "step": opened.step, **card.config.to_json()}
    rows |= {"output_stride": card.config.output_stride, "dataset": work.records.config.dataset}
    rows |= {"split": work.records.split, "dataset_dir": work.records.config.dataset_dir}
    rows |= {"eval_scales": config.eval_scales, "add_flipped_images": config.add_flipped_images}
    rows |= {"parameters": f"{cost.parameters:,}"}
    if cost.multiply_adds:
        rows |= {"multiply-adds": f"{cost.multiply_adds:,} an image of the crop's size"}
    notes = list(opened.loaded.notes)
    if work.contaminated:
        notes.append(f"contaminated: {work.contaminated}")
    return "\n".join([f"Configuration\n{options.table(rows)}", *(f"Note: {note}" for note in notes)])


def _scores(evaluation) -> str:
    meanings = {name.rpartition("_")[2]: name for name in evaluation.tagged}
    names = {meanings[str(i)]: text for i, text in enumerate(evaluation.class_names) if str(i) in meanings}
    rows = {
        name: ("    nan" if math.isnan(value) else f"{value:7.4f}") + f"  {names.get(name, '')}".rstrip()
        for name, value in evaluation.tagged.items()
    }
    scores = evaluation.scores
    summary = f"step {evaluation.step}: mean IoU {scores['miou']:.4f}, pixel accuracy {scores['pixel_accuracy']:.4f}"
    marked = f"\nContaminated: {evaluation.contaminated}" if evaluation.contaminated else ""
    return f"{options.table(rows)}\n{evaluation.checkpoint}, {summary}, {scores['examples']} images{marked}"


def _pictures(drawn) -> str:
    return f"{drawn.checkpoint}, step {drawn.step}: {drawn.images} images drawn in {drawn.folder}"


def run_passes(config: EvalConfig | VisConfig, data: Mapping, model: Mapping, *, command: str = ""):
    """Runs the checkpoints that `config` names over the data, and prints what comes of each: pictures for a VisConfig,
    else scores. `command` is what a report calls it."""
    from deeplab_tf.tools.display import Display

    if isinstance(config, VisConfig):
        from deeplab_tf.evaluation.vis import vis_checkpoints as verb

        report = _pictures
    elif config.report:
        from deeplab_tf.evaluation.report.report import report_checkpoints

        verb = functools.partial(report_checkpoints, command=command)

        def report(evaluation):
            return f"{_scores(evaluation)}\nReport: {os.path.join(config.report, 'report.html')}"

    else:
        from deeplab_tf.evaluation.evaluate import evaluate_checkpoints as verb

        report = _scores
    with Display(lambda work: _described(work, config)) as display:
        for result in verb(config, data, model, observer=display):
            display.end()
            display.tell(report(result))
