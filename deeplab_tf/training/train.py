"""The training run: input, updates, log, scores, and checkpoints from which it resumes after any interruption."""

import contextlib
import dataclasses
import itertools
import math
import time
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from deeplab_tf.config import Experiment
from deeplab_tf.data.examples import dataset_of, named_errors
from deeplab_tf.data.pipeline import BatchPart, make_dataset
from deeplab_tf.errors import DeepLabError
from deeplab_tf.evaluation.summaries import Summaries
from deeplab_tf.inference.predictor import predictor_of
from deeplab_tf.network.model import build_model
from deeplab_tf.training.batch_statistics import recalibrate_batch_norm, unfold_batch_norm
from deeplab_tf.training.distribution import make_devices
from deeplab_tf.training.optimizers import last_layer_scopes
from deeplab_tf.training.progress import Meter, Progress, StopSignals, TrainingObserver
from deeplab_tf.training.step import TrainStep, make_train_step
from deeplab_tf.training.validation import Validation, averages_in_place
from deeplab_tf.weights.initialize import Initialized, initialize
from deeplab_tf.weights.loading import weights_path
from deeplab_tf.weights.model_directory import ModelCard
from deeplab_tf.weights.names import GLOBAL_STEP
from deeplab_tf.weights.run_directory import RunDirectory
from deeplab_tf.weights.sources import checkpoint_reader
from deeplab_tf.weights.tf1 import variable_map

# Options of the run that, with those of update and data, must not change when it is resumed; those in _FREE may: where
# files are and when the run ends.
_IDENTITY = ("train_split", "initialize_last_layer", "unfold_batch_norm", "recalibrate_batch_norm", "deterministic")
_FREE = ("dataset_dir", "decoded_cache", "training_number_of_steps")
_PROFILED = (10, 20)  # updates of this process


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
      step: number of updates done.
      checkpoint: prefix of the last checkpoint.
      reason: "done", "patience" (the scores stopped rising), "signal" or, where it was this process's control-C,
        "interrupt".
    """

    step: int
    checkpoint: str
    reason: str

    @property
    def stopped(self) -> bool:
        """Whether a signal stopped the run before its end; the same call resumes it."""
        return self.reason in ("signal", "interrupt")


class _Session:
    """One run: its options, model, step, folder and devices."""

    def __init__(self, asked: Experiment) -> None:
        facts = dataset_of(asked.data)
        self.asked = asked = asked.on(facts)
        self.config = asked.model
        self.train = asked.train
        self.data = asked.data
        self.options = run = asked.run
        self.card = ModelCard(
            asked.model,
            dataset=facts.name,
            class_names=facts.class_names,
            palette=tuple(facts.palette)[:256],
            ignore_label=facts.ignore_label,
            train_split=run.train_split,
            source_checkpoint=run.tf_initial_checkpoint,
            output_stride=asked.model.output_stride,
            averages=asked.train.ema_decay > 0,
        )
        if run.unfold_batch_norm and not run.tf_initial_checkpoint:
            raise DeepLabError(
                f"unfold_batch_norm={run.unfold_batch_norm}: needs tf_initial_checkpoint, to unfold its own"
            )
        self.directory = RunDirectory.of(run)
        self.devices = make_devices(run)
        if asked.data.batch_size % self.devices.replicas:
            expected = f"expected a multiple of {self.devices.replicas}, the devices"
            raise DeepLabError(f"batch_size={asked.data.batch_size}: {expected}")

    def described(self) -> dict[str, Any]:
        """Returns the options that must stay the same when the run is resumed."""
        given = {**dataclasses.asdict(self.train), **dataclasses.asdict(self.data)}
        kept = {name: value for name, value in given.items() if name not in _FREE}
        return {"model": self.config.to_json(), **kept, **{name: getattr(self.options, name) for name in _IDENTITY}}

    def build(self) -> None:
        """Builds the network and its step on the devices, with new weights."""
        keras.utils.set_random_seed(self.train.seed)
        if self.options.deterministic:
            tf.config.experimental.enable_op_determinism()
        several = len(self.config.image_pyramid or ()) > 1
        with self.devices.scope():
            self.model: keras.Model = build_model(self.config, all_scales=several)
            self.step: TrainStep = make_train_step(self.model, self.train, strategy=self.devices.strategy)

    def variables(self) -> dict[str, tf.Variable]:
        """Returns everything that a checkpoint holds, by TF1 name."""
        return {**{name: v.value for name, v in variable_map(self.model).items()}, **self.step.state}

    def resume(self, latest: str) -> None:
        """Restores everything from a checkpoint of this run, or of a run of TensorFlow 1 that it continues."""
        variables = self.variables()
        with checkpoint_reader(latest) as reader:
            shapes = reader.get_variable_to_shape_map()
            wrong = [name for name, v in variables.items() if shapes.get(name) != v.shape.as_list()]
            if wrong:
                found = shapes.get(wrong[0], "not there")
                raise DeepLabError(
                    f"{latest}: {len(wrong)} variables do not fit this run ({wrong[0]}: {found}, expected "
                    f"{variables[wrong[0]].shape.as_list()}); give the run's own flags, or another --train_logdir and "
                    "this as --tf_initial_checkpoint"
                )
            for name, variable in variables.items():
                variable.assign(reader.get_tensor(name))

    def start(self) -> Initialized | None:
        """Loads initial weights, where tf_initial_checkpoint names some, and returns what was loaded."""
        found = None
        if self.options.tf_initial_checkpoint:
            excluded = () if self.options.initialize_last_layer else last_layer_scopes(self.train)
            path = weights_path(self.options.tf_initial_checkpoint)
            found = initialize(self.variables(), path, excluded_scopes=excluded)
            scopes = {name.rsplit("/", 1)[0] for name in found.loaded if name.endswith("/moving_mean")}
            if self.options.unfold_batch_norm:
                unfold_batch_norm(self.model, self._images(self.options.unfold_batch_norm), scopes=scopes)
        return found

    def _images(self, count: int) -> Iterator[tf.Tensor]:
        return (batch["image"] for batch in itertools.islice(self.dataset((0, 1), 1), count))

    def done(self) -> int:
        """Returns the number of updates done."""
        return int(self.step.state[GLOBAL_STEP].numpy())

    def recalibrate(self) -> None:
        """Measures batch norm's statistics for the final weights, or their averages, if that is configured."""
        if self.options.recalibrate_batch_norm:
            weights = {name: v.value for name, v in variable_map(self.model).items()}
            with averages_in_place(weights, self.step.state):
                recalibrate_batch_norm(self.model, self._images(self.options.recalibrate_batch_norm))

    def save(self) -> None:
        """Writes a checkpoint, in the chief's process."""
        if self.devices.is_chief:
            self.directory.save(self.done(), self.variables(), keep=self.options.keep_checkpoints)

    def dataset(self, part: tuple[int, int], pieces: int) -> tf.data.Dataset:
        """Returns the batches that follow the updates done; see `Devices.iterate` for the arguments."""
        batches = make_dataset(
            self.data,
            split=self.options.train_split,
            training=True,
            seed=self.train.seed,
            start_step=self.done(),
            part=BatchPart(*part, pieces),
        )
        return batches.map(lambda batch: {key: batch[key] for key in ("image", "label")})

    def local(self, value: Any) -> np.ndarray:
        """Returns the first local device's part of a distributed value."""
        strategy = self.devices.strategy
        return (strategy.experimental_local_results(value)[0] if strategy else value).numpy()


class _Watch:
    """The duties of a run besides updates, each when it is due: log, TensorBoard, checkpoints and scores."""

    def __init__(self, run: _Session, validation: Validation | None, observer: TrainingObserver) -> None:
        self._run = run
        self._validation = validation
        self._observer = observer
        self._is_chief = run.devices.is_chief
        self._steps = run.train.training_number_of_steps
        self._summaries = Summaries(run.directory.path, write=self._is_chief)
        self._meter = Meter(run.data.batch_size)
        self._first = run.done()
        self._saved = self._shown = time.monotonic()
        self.patience = validation is None or validation.patience()

    def after(self, step: int, batch: Mapping, results: Mapping, waited: float) -> None:
        """Does what is due after update number `step`.

        Args:
          step: counted from 1, over the whole run.
          batch: of the update, as the devices have it.
          results: of the step.
          waited: seconds that the update waited for its batch.
        """
        options = self._run.options
        now = time.monotonic()
        self._meter.add(results, waited)
        self._profile(step - self._first)
        if step == self._steps:
            self._run.recalibrate()
        save = step == self._steps or now - self._saved >= options.save_interval_secs
        if save or step % options.log_steps == 0:
            self._line(step)
        if save:
            self._run.save()
            self._saved = time.monotonic()
        if self._is_chief and now - self._shown >= options.save_summaries_secs:
            self._show(step, batch)
            self._shown = time.monotonic()
        if self._validation and self._validation.due(step, last=step == self._steps, saved=save):
            self._score(self._validation, step)

    def finish(self, step: int) -> None:
        """Logs and saves what has not been logged and saved yet."""
        if self._meter:
            self._line(step)
        if self._run.directory.steps()[-1] != step:
            self._run.save()

    def _line(self, step: int) -> None:
        progress = self._meter.line(step, self._steps)
        directory = self._run.directory
        _check_finite(progress, directory)
        if self._is_chief:
            directory.log(dataclasses.asdict(progress))
            self._summaries.scalars(step, progress.tags())
            self._observer.progressed(progress)

    def _score(self, validation: Validation, step: int) -> None:
        scores = validation.score(step, self._run.model, self._run.step.state)
        self.patience = scores["patience"]
        self._summaries.scalars(step, scores["tags"])
        best = "  the best so far" if scores["best"] else ""
        self._observer.tell(f"step {step}: mIoU {scores['miou']:.4f} on {scores['examples']} images{best}")

    def _show(self, step: int, batch: Mapping) -> None:
        run = self._run
        self._summaries.histograms(step, {name: variable.value for name, variable in variable_map(run.model).items()})
        if run.options.save_summaries_images:
            images, labels = (run.local(batch[key]) for key in ("image", "label"))
            predicted = predictor_of(run.model).labels(images)
            self._summaries.samples(step, images, labels[..., 0], predicted, run.config.num_classes)

    def _profile(self, step: int) -> None:
        folder = self._run.options.profile_logdir
        if folder and self._is_chief and step == _PROFILED[0]:
            tf.profiler.experimental.start(folder)
        if folder and self._is_chief and step == _PROFILED[1]:
            tf.profiler.experimental.stop()


def _check_finite(progress: Progress, directory: RunDirectory) -> None:
    if not math.isfinite(progress.total_loss):
        raise DeepLabError(
            f"the loss is {progress.total_loss} before step {progress.step}; {directory.latest()} is intact. Likely "
            "cures: a lower --base_learning_rate, a slow start, labels in range (--label_policy=error), a larger batch "
            "where batch norm is trained"
        )


@contextlib.contextmanager
def _workers_present(run: _Session) -> Iterator[None]:
    """Turns the errors by which TensorFlow reports that another worker has gone into a DeepLabError."""
    try:
        yield
    except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError) as error:
        if run.devices.workers == 1:
            raise
        raise DeepLabError(
            f"another worker has gone ({str(error).splitlines()[0]}); start all of them again with the same commands: "
            f"the run goes on from {run.directory.latest()}"
        ) from None


def _loop(run: _Session, watch: _Watch) -> str:
    """Trains to the end, to a signal or until the patience with the scores ends; returns Outcome's reason."""
    steps = run.train.training_number_of_steps
    reason = "done"
    batches = run.devices.iterate(run.dataset)
    step = run.done()
    with StopSignals() as signals, named_errors(), _workers_present(run):
        while step < steps and reason == "done":
            # All workers stop after the same step, so all of them ask at the same ones; rarely, as each question is a
            # message to all.
            if run.devices.workers == 1 or step % run.options.log_steps == 0:
                if run.devices.any(not watch.patience):
                    reason = "patience"
                elif run.devices.any(signals.received):
                    reason = "interrupt" if signals.interrupted else "signal"
                if reason != "done":
                    break
            start = time.monotonic()
            batch = next(batches)
            waited = time.monotonic() - start
            results = run.step(batch["image"], batch["label"])
            step += 1
            watch.after(step, batch, results, waited)
        watch.finish(step)
    return reason


def train(experiment: Experiment, *, observer: TrainingObserver | None = None) -> Outcome:
    """Trains a network, or resumes a run that was interrupted.

    The folder holds the newest checkpoints (TF1 names, with the optimiser's slots and global_step) and is a model
    directory: the other commands read it. A run that is stopped by SIGTERM or SIGINT saves first; one that is killed
    resumes from its last checkpoint with the same data and the same draws, bit for bit with `deterministic` on one
    device. Checkpoints of TensorFlow 1 in the folder, with their slots and global_step, are resumed from too.

    With several devices (`run.strategy`) the batch is that of all of them. Every worker of TF_CONFIG makes this same
    call and sees the same folder, which the chief writes.

    Args:
      experiment: the network, the update, the input, folders and devices, and what run.mode=train_and_eval scores.
        The number of classes and the ignore label are those of the data set.
      observer: gets what was restored or loaded, each line of the log, and the scores.

    Raises:
      DeepLabError: options, data or devices that do not fit, a folder of another experiment, a loss that is not finite,
        bad records, a full disk, a worker that has gone. The last checkpoint is intact.
    """
    RunDirectory.of(experiment.run)  # a missing folder is reported before data and devices are opened
    run = _Session(experiment)
    is_chief = run.devices.is_chief
    observer = observer if observer and is_chief else TrainingObserver()
    if not run.directory.lockable:
        observer.tell(f"Note: {run.directory.path} cannot be locked; see to it that no other trainer works there")
    with run.directory.locked() if is_chief else contextlib.nullcontext():
        run.directory.check(run.described())
        run.build()
        _begin(run, observer)
        validation = None
        if run.options.mode == "train_and_eval" and is_chief:
            validation = Validation(run.asked, run.card)
        reason = _loop(run, _Watch(run, validation, observer))
        return Outcome(run.done(), str(run.directory.latest()), reason)


def _begin(run: _Session, observer: TrainingObserver) -> None:
    """Brings the run to where it begins: its last checkpoint, or initial weights, which become the first one.

    A checkpoint in the run's own folder comes before --tf_initial_checkpoint, as in the release: the command that
    started a run then also resumes it.
    """
    latest = run.directory.latest()
    if latest:
        run.resume(str(latest))
        observer.tell(f"Going on from {latest}")
    else:
        loaded = run.start()
        if loaded:
            observer.tell(f"Started from {run.options.tf_initial_checkpoint}\n{loaded.summary()}")
    # Before anything is written: workers that see different folders must not leave a run that only some of them know.
    run.devices.require_equal(run.done(), "the step they begin at")
    if run.devices.is_chief:
        run.directory.describe(run.card, run.described())
        run.directory.forget_after(run.done())
    if not latest:
        run.save()
