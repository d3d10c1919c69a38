"""What the commands eval and vis share: their flags, passes over a data set with one checkpoint after the other."""

import functools
import math
import os
import time
from collections.abc import Mapping

from absl import flags

from deeplab_tf.config import DataConfig, EvalConfig, ModelConfig, VisConfig
from deeplab_tf.data.tfds_folder import PREFIX
from deeplab_tf.tools import options

# The data set has the number of classes, the checkpoint the backbone; what is random is training's.
OF_DATA = dict.fromkeys(("crop_size", "batch_size", "model_variant", "min_scale_factor", "max_scale_factor"))
OF_DATA |= dict.fromkeys(("scale_factor_step_size", "color_jitter", "gaussian_blur", "grid_mask", "cut_mix"))
OF_MODEL = {"num_classes": None, "crop_size": None}
_RETIRED = {
    "master": ("", "address of a TensorFlow 1 master, which there is no more"),
    "batch_norm_decay": (0.9997, "the release never read it, and only training moves the statistics"),
    "label_weights": ((), "weights of the loss, which only training has"),
}
_SECONDS_A_LINE = 60


def define(values: flags.FlagValues, config_class: type[EvalConfig], names: Mapping[str, str | None]):
    """Defines the flags of a command whose options are `config_class`, with the flag `names` of some of its fields."""
    options.define_flags(values, config_class, names)
    options.define_flags(values, DataConfig, OF_DATA)
    options.define_flags(values, ModelConfig, OF_MODEL)
    options.define_retired(values, _RETIRED)


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
    DataConfig(**data)  # a mistake shall not wait for a checkpoint
    return config, data, model


def notes(values: flags.FlagValues, config: EvalConfig) -> list[str]:
    """Returns a line for each given flag that does nothing today, or something else than in the release."""
    lines = options.retired_notes(values, _RETIRED)
    if config.add_flipped_images and config.eval_scales == (1.0,):
        lines.append("--add_flipped_images counts at the single scale 1 too, where the release ignores it")
    return lines


def _described(opened, config: EvalConfig, data: Mapping) -> str:
    from deeplab_tf.evaluation.following import data_for
    from deeplab_tf.network.cost import model_cost

    card, cost = opened.loaded.card, model_cost(opened.loaded.model)
    records, facts = data_for(opened, config, data)
    rows = {"checkpoint": opened.path, "step": opened.step, **card.config.to_json()}
    rows |= {"output_stride": card.config.output_stride, "dataset": records.dataset, "split": config.eval_split}
    rows |= {"dataset_dir": records.dataset_dir, "eval_scales": config.eval_scales}
    rows |= {"add_flipped_images": config.add_flipped_images, "parameters": f"{cost.parameters:,}"}
    if cost.multiply_adds:
        rows |= {"multiply-adds": f"{cost.multiply_adds:,} an image of the crop's size"}
    notes = list(opened.loaded.notes)
    contaminated = card.seen(facts.name, config.eval_split)
    notes += [f"contaminated: {contaminated}"] if contaminated else []
    return "\n".join([f"Configuration\n{options.table(rows)}", *(f"Note: {note}" for note in notes)])


class _Display:
    """Tells of each pass: a bar on a terminal, a line a minute elsewhere."""

    def __init__(self, config: EvalConfig, data: Mapping):
        import rich.console

        self._config, self._data = config, data
        self._console = rich.console.Console(soft_wrap=True, highlight=False, markup=False)
        self._bar, self._described = None, False

    def tell(self, line: str):
        self._console.print(line)

    def begin(self, opened):
        import rich.progress

        from deeplab_tf.data.locate import count_records
        from deeplab_tf.evaluation.following import data_for

        if self._described:
            self.tell(f"{opened.path} (step {opened.step})")
        else:
            self.tell(_described(opened, self._config, self._data))
        columns = (*rich.progress.Progress.get_default_columns(), rich.progress.MofNCompleteColumn())
        hidden = not self._console.is_terminal
        self._bar = rich.progress.Progress(*columns, console=self._console, disable=hidden, transient=True)
        records, _ = data_for(opened, self._config, self._data)
        self._total, self._done = count_records(records, self._config.eval_split), 0
        self._task = self._bar.add_task("Segmenting", total=self._total)
        self._bar.start()
        self._described, self._told = True, time.monotonic()

    def advance(self, count: int):
        self._bar.advance(self._task, count)
        self._done += count
        if not self._console.is_terminal and time.monotonic() - self._told > _SECONDS_A_LINE:
            self.tell(f"{self._done} of {self._total} images")
            self._told = time.monotonic()

    def end(self):
        if self._bar:
            self._bar.stop()


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
    display = _Display(config, data)
    try:
        for result in verb(config, data, model, tell=display.tell, begin=display.begin, advance=display.advance):
            display.end()
            display.tell(report(result))
    finally:
        display.end()
