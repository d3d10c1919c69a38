"""The training run: input, updates, log, scores, and checkpoints from which it resumes after any interruption."""

import contextlib
import dataclasses
import functools
import math
import time
from collections.abc import Iterator

import tensorflow as tf

from deeplab_tf import files
from deeplab_tf.config import Experiment
from deeplab_tf.data.examples import named_errors
from deeplab_tf.errors import DeepLabError, first_line
from deeplab_tf.evaluation.summaries import Summaries
from deeplab_tf.inference.predictor import predictor_of
from deeplab_tf.network.precision import exact_float32
from deeplab_tf.training.compile_times import FirstTimed
from deeplab_tf.training.loop import Updater, Updates
from deeplab_tf.training.progress import InputAdvice, Meter, Progress, StopSignals, TrainingObserver
from deeplab_tf.training.session import Session
from deeplab_tf.training.shortage import named_shortage
from deeplab_tf.training.trackers import Trackers
from deeplab_tf.training.validation import Validation
from deeplab_tf.weights.run_directory import RunDirectory
from deeplab_tf.weights.tf1 import variable_map

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


class _Watch:
    """The duties of a run besides updates, each when it is due: log, TensorBoard, checkpoints and scores."""

    def __init__(
        self, run: Session, validation: Validation | None, observer: TrainingObserver, trackers: Trackers
    ) -> None:
        self._run = run
        self._validation = validation
        self._observer = observer
        self._trackers = trackers
        self._is_chief = run.devices.is_chief
        self._steps = run.train.training_number_of_steps
        self._summaries = Summaries(run.directory.path, write=self._is_chief)
        self._meter = Meter(run.data.batch_size)
        self._advice = InputAdvice(cached=bool(run.data.decoded_cache), epoch=run.batches.epoch_steps)
        self._first = run.done()
        self._saved = self._shown = time.monotonic()
        self.patience = validation is None or validation.patience()

    def room(self, step: int) -> int:
        """Returns how many updates may follow update number `step` before something is due: at least 1."""
        options = self._run.options
        marks = [self._steps, self._run.train.freeze_steps]
        marks += [self._first + number for number in _PROFILED if options.profile_logdir]
        marks += [step - step % every + every for every in (options.log_steps, options.eval_interval_steps) if every]
        counts = [mark - step for mark in marks if mark > step]
        now = time.monotonic()
        # Each worker has another clock, and all of them must take equal loops.
        if self._run.devices.workers == 1 or not options.save_interval_secs:
            counts.append(self._run.pace.within(self._saved + options.save_interval_secs - now))
        if self._run.devices.workers == 1:
            counts.append(self._run.pace.within(self._shown + options.save_summaries_secs - now))
        return min(counts)

    def after(self, step: int, updates: Updates) -> None:
        """Does what is due after update number `step`, counted from 1 over the whole run, the last of `updates`."""
        options = self._run.options
        now = time.monotonic()
        self._meter.add(updates)
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
            self._show(step)
            self._shown = time.monotonic()
        if self._validation and self._validation.due(step, last=step == self._steps, saved=save):
            self._score(self._validation, step)

    def catch_up(self, step: int) -> None:
        """Scores the weights after `step` updates where a kill came between their save and their scores."""
        validation, last = self._validation, step == self._steps
        if validation and step and validation.due(step, last=last, saved=False) and not validation.has_scored(step):
            self._score(validation, step)

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
            self._trackers.log(step, progress.tags())
            self._observer.progressed(progress)
            # A loop's estimate takes every hesitation for a wait, and processors that others share hesitate.
            if self._run.steps_per_loop == 1 or self._run.hardware.kind != "CPU":
                for line in self._advice.lines(progress.waiting, step - self._first):
                    self._observer.tell(line)

    def _score(self, validation: Validation, step: int) -> None:
        scores = validation.score(step, self._run.model, self._run.step.state)
        self.patience = scores["patience"]
        self._summaries.scalars(step, scores["tags"])
        self._trackers.log(step, scores["tags"])
        best = "  the best so far" if scores["best"] else ""
        self._observer.validated(scores["miou"])
        self._observer.tell(f"step {step}: mIoU {scores['miou']:.4f} on {scores['examples']} images{best}")

    def _show(self, step: int) -> None:
        run = self._run
        self._summaries.histograms(step, {name: variable.value for name, variable in variable_map(run.model).items()})
        if run.options.save_summaries_images:
            batch = run.batches.batch_of(step, run.devices.replicas)
            images, labels = (batch[key].numpy() for key in ("image", "label"))
            predicted = predictor_of(run.model).labels(images)
            shown = images[..., list(run.card.image.shown)] if run.card.image else images
            self._summaries.samples(step, shown, labels[..., 0], predicted, run.config.num_classes)

    def _profile(self, step: int) -> None:
        folder = self._run.options.profile_logdir
        if folder and self._is_chief and step == _PROFILED[0]:
            tf.profiler.experimental.start(str(files.path(folder)))
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
def _workers_present(run: Session) -> Iterator[None]:
    """Turns the errors by which TensorFlow reports that another worker has gone into a DeepLabError."""
    try:
        yield
    except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError) as error:
        if run.devices.workers == 1:
            raise
        raise DeepLabError(
            f"another worker has gone ({first_line(error)}); start all of them again with the same commands: "
            f"the run goes on from {run.directory.latest()}"
        ) from None


def _loop(run: Session, watch: _Watch, update: Updater) -> str:
    """Trains to the end, to a signal or until the patience with the scores ends; returns Outcome's reason."""
    steps = run.train.training_number_of_steps
    reason = "done"
    step = run.done()
    with StopSignals() as signals, named_errors(), _workers_present(run):
        watch.catch_up(step)
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
            updates = update(watch.room(step))
            step += updates.count
            watch.after(step, updates)
        watch.finish(step)
    return reason


def _tell_plain(run: Session, observer: TrainingObserver, line: str) -> None:
    """Tells, and writes down, that TensorFlow runs the step from here on."""
    observer.tell(line)
    if run.devices.is_chief:
        run.directory.log({"event": "without_xla", "step": run.done(), "reason": run.step.why_not_xla})


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
        bad records, a full disk or memory, a worker that has gone. The last checkpoint is intact.
    """
    RunDirectory.of(experiment.run)  # a missing folder is reported before data and devices are opened
    files.path(experiment.run.profile_logdir or "")
    run = Session(experiment)
    is_chief = run.devices.is_chief
    observer = observer if observer and is_chief else TrainingObserver()
    if not run.directory.lockable:
        observer.tell(f"Note: {run.directory.path} cannot be locked; see to it that no other trainer works there")
    lock = run.directory.locked() if is_chief else contextlib.nullcontext()
    with lock, exact_float32(unless=run.options.tf32), named_shortage(run):
        observer.described(run.overview())
        for line in run.first_lines():
            observer.tell(line)
        changes = run.changes()
        for flag, (then, now) in changes.items():
            observer.tell(f"Changed: {flag} from {then} to {now}")
        trackers = Trackers(run, observer.tell)
        validation = None
        if run.options.mode == "train_and_eval" and is_chief:
            validation = Validation(run.asked, run.card)
        run.build()
        with _workers_present(run):
            update = run.begin(changes, observer)
        run.step.tell = functools.partial(_tell_plain, run, observer)
        if run.step.why_not_xla:
            observer.tell(f"Note: TensorFlow runs the step, not XLA: {run.step.why_not_xla}")
        if is_chief and run.done() < run.train.training_number_of_steps:
            run.directory.log(run.started())
        if run.step.compiled_by_xla:
            update = FirstTimed(update, run.compiled(), observer.tell, compiled=lambda: run.step.compiled_by_xla)
        scored = validation is None or validation.has_scored(run.done())
        with trackers if run.done() < run.train.training_number_of_steps or not scored else contextlib.nullcontext():
            reason = _loop(run, _Watch(run, validation, observer, trackers), update)
            outcome = Outcome(run.done(), str(run.directory.latest()), reason)
            trackers.end("KILLED" if outcome.stopped else "FINISHED")
        return outcome
