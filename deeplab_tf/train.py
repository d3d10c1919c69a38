"""The training run: data in, updates, a log, checkpoints that nothing can lose."""

import dataclasses
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping

import keras
import numpy as np
import tensorflow as tf

from deeplab_tf.checkpoint import ModelCard, variable_map
from deeplab_tf.config import DataConfig, ModelConfig, RunConfig, TrainConfig
from deeplab_tf.data.examples import dataset_of, named_errors
from deeplab_tf.data.pipeline import make_dataset
from deeplab_tf.errors import DeepLabError
from deeplab_tf.initialize import Initialized, initialize
from deeplab_tf.loading import weights_path
from deeplab_tf.model import build_model
from deeplab_tf.optimizers import GLOBAL_STEP, last_layer_scopes
from deeplab_tf.run_directory import RunDirectory
from deeplab_tf.train_step import TrainStep, make_train_step

# What may change between two parts of one run: where things lie, how often they are written, when it ends.
_FREE = ("train_logdir", "tf_initial_checkpoint", "log_steps", "save_interval_secs", "keep_checkpoints", "dataset_dir")
_FREE += ("training_number_of_steps",)


@dataclasses.dataclass(frozen=True)
class Progress:
    """The state of a run at one line of its log: updates done, mean losses since the last line, the rate of the last
    update, images a second, the share of the time that was spent waiting for data, and seconds to the end at this
    pace."""

    step: int
    steps: int
    total_loss: float
    cross_entropy: float
    regularization: float
    learning_rate: float
    images_per_second: float
    waiting: float
    seconds_left: float


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended: the updates done, the last checkpoint, whether a signal stopped it before its end."""

    step: int
    checkpoint: str
    stopped: bool


class _StopSignals:
    """Notes SIGTERM and SIGINT while it is entered, so that the loop can end after the update at hand."""

    def __init__(self):
        self.received = False
        self._before = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def _note(self, number, frame):
        del number, frame
        self.received = True

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)


class _Meter:
    """Sums what the steps since the last line of the log gave."""

    def __init__(self, batch_size: int):
        self._batch_size = batch_size
        self._restart()

    def _restart(self):
        self._results, self._waited, self._start = [], 0.0, time.monotonic()

    def add(self, results: Mapping[str, tf.Tensor], waited: float):
        self._results.append(results)
        self._waited += waited

    def __bool__(self):
        return bool(self._results)

    def line(self, step: int, steps: int) -> Progress:
        """Returns the means, and begins anew. Reading the results waits for the device, so only here it is done."""
        names = ("total_loss", "cross_entropy", "regularization")
        means = {name: float(np.mean([float(r[name]) for r in self._results])) for name in names}
        seconds = max(time.monotonic() - self._start, 1e-9)
        progress = Progress(
            step=step,
            steps=steps,
            learning_rate=float(self._results[-1]["learning_rate"]),
            images_per_second=len(self._results) * self._batch_size / seconds,
            waiting=min(1.0, self._waited / seconds),
            seconds_left=(steps - step) * seconds / len(self._results),
            **means,
        )
        self._restart()
        return progress


class _Run:
    """One run: its model, its step and its folder."""

    def __init__(self, model_config: ModelConfig, train_config: TrainConfig, data: DataConfig, run: RunConfig):
        self.data, self.run, self.train = data, run, train_config
        facts = dataset_of(data)
        self.config = dataclasses.replace(model_config, num_classes=facts.num_classes, crop_size=data.crop_size)
        self.train = dataclasses.replace(train_config, ignore_label=facts.ignore_label)
        self.card = ModelCard(
            self.config,
            dataset=facts.name,
            class_names=facts.class_names,
            palette=tuple(facts.palette)[:256],
            ignore_label=facts.ignore_label,
            train_split=run.train_split,
            source_checkpoint=run.tf_initial_checkpoint,
            output_stride=self.config.output_stride,
        )
        self.directory = RunDirectory(run.train_logdir)

    def described(self) -> dict:
        """The options that make the run what it is."""
        parts = (self.train, self.data, self.run)
        return {k: v for part in parts for k, v in dataclasses.asdict(part).items() if k not in _FREE}

    def build(self):
        keras.utils.set_random_seed(self.train.seed)
        if self.run.deterministic:
            tf.config.experimental.enable_op_determinism()
        several = len(self.config.image_pyramid or ()) > 1
        self.model = build_model(self.config, all_scales=several)
        self.step: TrainStep = make_train_step(self.model, self.train)

    def variables(self) -> dict[str, tf.Variable]:
        """Everything that a checkpoint holds, by TF1 name."""
        return {**{name: v.value for name, v in variable_map(self.model).items()}, **self.step.state}

    def restore(self) -> Initialized | None:
        """Goes on from the newest checkpoint, or starts from the initial one; None where neither is given."""
        latest = self.directory.latest()
        if latest:
            reader = tf.train.load_checkpoint(str(latest))
            for name, variable in self.variables().items():
                variable.assign(reader.get_tensor(name))
            return None
        if not self.run.tf_initial_checkpoint:
            return None
        excluded = () if self.run.initialize_last_layer else last_layer_scopes(self.train)
        path = weights_path(self.run.tf_initial_checkpoint)
        return initialize(self.variables(), path, excluded_scopes=excluded)

    def done(self) -> int:
        return int(self.step.state[GLOBAL_STEP].numpy())

    def save(self):
        self.directory.save(self.done(), self.variables(), keep=self.run.keep_checkpoints)

    def batches(self) -> Iterator[dict]:
        options = {"split": self.run.train_split, "training": True, "seed": self.train.seed, "start_step": self.done()}
        return iter(make_dataset(self.data, **options))


def _check_finite(progress: Progress, directory: RunDirectory):
    if not math.isfinite(progress.total_loss):
        raise DeepLabError(
            f"the loss is {progress.total_loss} before step {progress.step}; {directory.latest()} is intact. Likely "
            "cures: a lower --base_learning_rate, a slow start, labels in range (--label_policy=error), a larger batch "
            "where batch norm is trained"
        )


def _log(run: _Run, progress: Progress, report: Callable[[Progress], None]):
    _check_finite(progress, run.directory)
    run.directory.log(dataclasses.asdict(progress))
    report(progress)


def _loop(run: _Run, report: Callable[[Progress], None]) -> bool:
    """Trains to the end or to a signal; returns whether a signal came."""
    steps, meter, saved = run.train.training_number_of_steps, _Meter(run.data.batch_size), time.monotonic()
    batches, step = run.batches(), run.done()
    with _StopSignals() as signals, named_errors():
        while step < steps and not signals.received:
            start = time.monotonic()
            batch = next(batches)
            waited = time.monotonic() - start
            meter.add(run.step(batch["image"], batch["label"]), waited)
            step += 1
            due = time.monotonic() - saved >= run.run.save_interval_secs
            if step % run.run.log_steps == 0 or due:
                _log(run, meter.line(step, steps), report)
            if due:
                run.save()
                saved = time.monotonic()
    if meter:
        _log(run, meter.line(step, steps), report)
    return signals.received


def train(
    model_config: ModelConfig,
    train_config: TrainConfig,
    data_config: DataConfig,
    run_config: RunConfig,
    *,
    report: Callable[[Progress], None] = lambda progress: None,
    tell: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """Trains a network, or goes on with a run that was interrupted.

    The folder holds the newest checkpoints (TF1 names, with the optimiser's slots and global_step) and is a model
    directory: the other commands read it. A run that is stopped by SIGTERM or SIGINT saves first; one that is killed
    goes on from its last checkpoint with the same data and the same draws, bit for bit with `deterministic` on one
    device.

    Args:
      model_config: the network; its number of classes follows the data set, its crop_size the data's.
      train_config, data_config, run_config: update, input, folders.
      report: called with the progress every log_steps.
      tell: called with lines that a user should see: what was restored or loaded.

    Raises:
      DeepLabError: options or data that do not fit, a folder of another experiment, a loss that is not finite, bad
        records. The last checkpoint is intact.
    """
    if not run_config.train_logdir:
        raise DeepLabError("--train_logdir is missing; expected the folder of the run")
    run = _Run(model_config, train_config, data_config, run_config)
    with run.directory.locked():
        run.directory.begin(run.card, run.described())
        run.build()
        resumed, found = run.directory.latest(), run.restore()
        if resumed:
            tell(f"Going on from {resumed}")
            run.directory.forget_metrics_after(run.done())
        elif found:
            tell(f"Started from {run_config.tf_initial_checkpoint}\n{found.summary()}")
        if not resumed:
            run.save()
        stopped = _loop(run, report)
        if run.directory.steps()[-1] != run.done():
            run.save()
        return Outcome(run.done(), str(run.directory.latest()), stopped)
