"""Trains a network with the flags of the release's train.py, or goes on with a run that was interrupted.

  deeplab-tf train --train_logdir=exp/voc --dataset=pascal_voc_seg --dataset_dir=tfrecord --train_split=train_aug \\
    --model_variant=xception_65 --atrous_rates=6,12,18 --output_stride=16 --decoder_output_stride=4 \\
    --train_crop_size=513,513 --train_batch_size=16 --base_learning_rate=0.007 --training_number_of_steps=30000 \\
    --tf_initial_checkpoint=deeplabv3_xception_2018_01_04.tar.gz

The folder becomes a model directory: predict and convert read it while the run goes on. SIGTERM and control-C save
first; the same command goes on where the run stopped.
"""

import datetime

from absl import flags

from deeplab_tf.config import DataConfig, ModelConfig, RunConfig, TrainConfig
from deeplab_tf.tools import options

_OF_DATA = {"crop_size": "train_crop_size", "batch_size": "train_batch_size", "model_variant": None}
# The data set has the number of classes and the ignore label, the data's crop is the model's.
_OF_MODEL = {"num_classes": None, "crop_size": None}
_OF_TRAIN = {"ignore_label": None}
_WITHOUT_EFFECT = {
    "save_summaries_secs": "the log has a line every log_steps",
    "save_summaries_images": "no images are logged",
    "profile_logdir": "no profile is written",
    "batch_norm_decay": "the release never read it: each part has its own decay",
}


def define(values: flags.FlagValues):
    """Defines the flags of this command."""
    options.define_flags(values, RunConfig)
    options.define_flags(values, DataConfig, _OF_DATA)
    options.define_flags(values, ModelConfig, _OF_MODEL)
    options.define_flags(values, TrainConfig, _OF_TRAIN)
    for name, reason in _WITHOUT_EFFECT.items():
        flags.DEFINE_string(name, None, f"accepted without effect: {reason}", flag_values=values)


def _line(progress) -> str:
    return (
        f"step {progress.step}/{progress.steps}  loss {progress.total_loss:.4f}  "
        f"cross entropy {progress.cross_entropy:.4f}  rate {progress.learning_rate:.2e}  "
        f"{progress.images_per_second:.1f} images/s  waiting {100 * progress.waiting:.0f} %  "
        f"left {datetime.timedelta(seconds=round(progress.seconds_left))}"
    )


class _Display:
    """A bar on a terminal, a line each time elsewhere."""

    def __init__(self, steps: int):
        import rich.console
        import rich.progress

        self._console = rich.console.Console(soft_wrap=True, highlight=False, markup=False)
        columns = (rich.progress.BarColumn(), rich.progress.TextColumn("{task.description}", markup=False))
        self._bar = rich.progress.Progress(*columns, console=self._console, disable=not self._console.is_terminal)
        self._task = self._bar.add_task("starting", total=steps)

    def __enter__(self):
        self._bar.start()
        return self

    def __exit__(self, *_):
        self._bar.stop()

    def report(self, progress):
        if self._console.is_terminal:
            self._bar.update(self._task, completed=progress.step, description=_line(progress))
        else:
            self.tell(_line(progress))

    def tell(self, line: str):
        self._console.print(line)


def main(values: flags.FlagValues) -> None:
    """Trains."""
    options.require(values, "train_logdir", "dataset_dir")
    run = RunConfig(**options.given(values, RunConfig))
    model = ModelConfig(**options.given(values, ModelConfig, _OF_MODEL))
    update = TrainConfig(**options.given(values, TrainConfig, _OF_TRAIN))
    data = DataConfig(**options.given(values, DataConfig, _OF_DATA), model_variant=model.model_variant)
    for name, reason in _WITHOUT_EFFECT.items():
        if values[name].value is not None:
            print(f"Note: --{name} has no effect: {reason}")
    options.start_tensorflow()
    from deeplab_tf.train import train

    with _Display(update.training_number_of_steps) as display:
        outcome = train(model, update, data, run, report=display.report, tell=display.tell)
    end = "Stopped by a signal; the same command goes on" if outcome.stopped else "Done"
    print(f"{end}: step {outcome.step}, {outcome.checkpoint}")


def run(argv=None):
    """Runs the command."""
    options.run(main, define, argv)


if __name__ == "__main__":
    run()
