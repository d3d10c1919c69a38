"""What the commands eval and vis share: their flags, passes over a data set with one checkpoint after the other."""

import dataclasses
import math
import os
import typing
from collections.abc import Collection, Iterator, Mapping
from typing import Any, TypeVar

from absl import flags

from deeplab_tf.config import DERIVED, DataConfig, EvalConfig, ModelConfig, VisConfig
from deeplab_tf.config.crf import CrfConfig
from deeplab_tf.config.groups import TRAINING
from deeplab_tf.data.tfds_folder import PREFIX
from deeplab_tf.errors import DeepLabError
from deeplab_tf.tools import options, retired

if typing.TYPE_CHECKING:
    from deeplab_tf.evaluation.evaluate import Evaluation
    from deeplab_tf.evaluation.passes import Observer, Pass

# The data set has the number of classes, the checkpoint its backbone; crop and batch are the command's own.
OF_MODEL = dict.fromkeys(DERIVED[ModelConfig])
OF_DATA = dict.fromkeys(DERIVED[DataConfig])
OF_DATA |= {field.name: None for field in dataclasses.fields(DataConfig) if field.metadata["group"] == TRAINING}


# The CRF's parameters do something where there is a CRF.
CRF_FLAGS = tuple(field.name for field in dataclasses.fields(CrfConfig) if field.name != "crf")
WITH_CRF: options.Use[flags.FlagValues] = options.Use(CRF_FLAGS, "--crf", lambda values: values.crf)
_USES: tuple[options.Use[flags.FlagValues], ...] = (
    WITH_CRF,
    # A model may have been trained on a set of TFDS, which then needs no name.
    options.Use(
        ("tfds_features",),
        "--dataset=tfds:...",
        lambda values: (values.dataset or PREFIX).startswith(PREFIX),
    ),
)


@dataclasses.dataclass(frozen=True)
class Given:
    """What the user gives, by the names of fields: of DataConfig, of ModelConfig, and which ones of the command's own.

    What is not given the run has that is scored or drawn.
    """

    data: Mapping[str, Any]
    model: Mapping[str, Any]
    names: Collection[str]


def define(values: flags.FlagValues, config_class: type[EvalConfig], names: Mapping[str, str | None]) -> None:
    """Defines the flags of a command whose options are `config_class`, with the flag `names` of some of its fields."""
    options.define_flags(values, config_class, names)
    text = f"the one checkpoint to run, another name of --checkpoint_dir: {options.RUNNABLE_HELP}"
    options.define_path(values, "checkpoint", None, text)
    options.define_flags(values, DataConfig, OF_DATA)
    options.define_flags(values, ModelConfig, OF_MODEL)
    options.define_retired(values, retired.PASSES)


def name_checkpoint(values: flags.FlagValues) -> None:
    """Takes --checkpoint for --checkpoint_dir; DeepLabError where both are given, or neither."""
    if values.checkpoint and values.checkpoint_dir:
        raise DeepLabError(
            f"--checkpoint={values.checkpoint} is another name of --checkpoint_dir={values.checkpoint_dir}; give one"
        )
    if values.checkpoint:
        values["checkpoint_dir"].parse(values.checkpoint)
    options.require(values, "checkpoint_dir")


def require_records(values: flags.FlagValues) -> None:
    """Raises DeepLabError where it is not said which records to read. What TFDS has prepared has a place of its own."""
    if not (values["dataset"].value or "").startswith(PREFIX):
        options.require(values, "dataset_dir")


_Config = TypeVar("_Config", bound=EvalConfig)


def configurations(
    values: flags.FlagValues, config_class: type[_Config], names: Mapping[str, str | None]
) -> tuple[_Config, dict[str, Any], dict[str, Any]]:
    """Returns the options of the command, and the fields of DataConfig and ModelConfig that the flags give.

    Raises:
      DeepLabError: a flag is wrong or would do nothing.
    """
    options.require_use(values, _USES, values)
    config = config_class(**options.given(values, config_class, names))
    data = options.given(values, DataConfig, OF_DATA)
    model = options.given(values, ModelConfig, OF_MODEL)
    DataConfig(**data)  # validate now, before waiting for a checkpoint
    return config, data, model


def given(values: flags.FlagValues, config_class: type[EvalConfig], names: Mapping[str, str | None]) -> Given:
    """Returns what the flags of the command give."""
    own = frozenset(options.given(values, config_class, names))
    return Given(options.given(values, DataConfig, OF_DATA), options.given(values, ModelConfig, OF_MODEL), own)


def notes(values: flags.FlagValues, config: EvalConfig) -> list[str]:
    """Returns a line for each given flag that does nothing today, or something else than in the release."""
    lines = options.retired_notes(values, retired.PASSES)
    if config.add_flipped_images and config.eval_scales == (1.0,):
        lines.append("--add_flipped_images counts at the single scale 1 too, where the release ignores it")
    return lines


def _described(work: "Pass") -> str:
    from deeplab_tf.network.cost import model_cost
    from deeplab_tf.weights.loading import Loaded

    opened = work.opened
    card = opened.loaded.card
    rows = {"checkpoint": opened.path, "step": opened.step, **card.config.to_json()}
    rows |= {"output_stride": card.config.output_stride, "dataset": work.facts.name}
    rows |= {"split": work.records.split, "dataset_dir": work.records.config.dataset_dir}
    rows |= {"eval_scales": work.config.eval_scales, "add_flipped_images": work.config.add_flipped_images}
    if isinstance(opened.loaded, Loaded):
        cost = model_cost(opened.loaded.model)
        rows |= {"parameters": f"{cost.parameters:,}"}
        if cost.multiply_adds:
            rows |= {"multiply-adds": f"{cost.multiply_adds:,} an image of the crop's size"}
    notes = list(opened.loaded.notes)
    if work.contaminated:
        notes.append(f"contaminated: {work.contaminated}")
    return "\n".join([f"Configuration\n{options.table(rows)}", *(f"Note: {note}" for note in notes)])


def _scores(evaluation: "Evaluation") -> str:
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


def _results(config: EvalConfig, given: Given, command: str, observer: "Observer") -> Iterator[str]:
    """Runs the checkpoints that `config` names over the data, and yields what to print of each."""
    data, model, names = given.data, given.model, given.names
    if isinstance(config, VisConfig):
        from deeplab_tf.evaluation.vis import vis_checkpoints

        for drawn in vis_checkpoints(config, data, model, observer=observer, given=names):
            yield f"{drawn.checkpoint}, step {drawn.step}: {drawn.images} images drawn in {drawn.folder}"
    elif config.report:
        from deeplab_tf.evaluation.report.report import report_checkpoints

        page = os.path.join(config.report, "report.html")
        reported = report_checkpoints(config, data, model, command=command, observer=observer, given=names)
        for evaluation in reported:
            yield f"{_scores(evaluation)}\nReport: {page}"
    else:
        from deeplab_tf.evaluation.evaluate import evaluate_checkpoints

        yield from map(_scores, evaluate_checkpoints(config, data, model, observer=observer, given=names))


def run_passes(config: EvalConfig, given: Given, *, command: str = "") -> None:
    """Runs the checkpoints that `config` names over the data, and prints the pictures or scores of each.

    Args:
      config: of vis for pictures, of eval for scores.
      given: the fields that the user gives.
      command: the command line, for a report.
    """
    from deeplab_tf.tools.display import Display

    options.tell_exactness(config.tf32)
    with Display(_described) as display:
        for text in _results(config, given, command, display):
            display.end()
            display.tell(text)
