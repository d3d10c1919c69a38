"""Session: one training run, with its options, data, network, step, folder and devices, and how it begins."""

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from deeplab_tf import files
from deeplab_tf.config import Experiment
from deeplab_tf.config.resuming import FREE, IDENTITY
from deeplab_tf.config.train import PRECISIONS
from deeplab_tf.data.examples import dataset_of, named_errors
from deeplab_tf.errors import DamagedError, DeepLabError
from deeplab_tf.evaluation.settings import settings_of
from deeplab_tf.network.build import build_model
from deeplab_tf.network.precision import is_rounded
from deeplab_tf.training.batch_statistics import recalibrate_batch_norm, unfold_batch_norm
from deeplab_tf.training.distribution import make_devices
from deeplab_tf.training.loop import Pace, SingleSteps, StepLoop, Updater
from deeplab_tf.training.optimizers import begin_late, in_backbone, last_layer_scopes
from deeplab_tf.training.precision import Hardware, precision_line, settled, shown
from deeplab_tf.training.progress import TrainingObserver
from deeplab_tf.training.restoring import restore_newest
from deeplab_tf.training.run_batches import RunBatches
from deeplab_tf.training.step import TrainStep, make_train_step
from deeplab_tf.training.teacher import opened_teacher, teacher_digest
from deeplab_tf.training.validation import averages_in_place
from deeplab_tf.weights.initialize import Initialized, initialize
from deeplab_tf.weights.loading import weights_path
from deeplab_tf.weights.model_directory import ModelCard
from deeplab_tf.weights.names import AVERAGE, GLOBAL_STEP, SLOTS
from deeplab_tf.weights.run_directory import RunDirectory
from deeplab_tf.weights.run_options import EVALUATION, PLACES, RECORDS, changes_of, read_description, read_run
from deeplab_tf.weights.sources import checkpoint_reader, reading
from deeplab_tf.weights.tf1 import variable_map


class Session:
    """One run: its options, data, model, step, folder and devices. Nothing is written before `begin`."""

    def __init__(self, asked: Experiment) -> None:
        facts = dataset_of(asked.data)
        self.asked = asked = asked.on(facts)
        self.config = asked.model
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
            image=facts.image,
        )
        if run.unfold_batch_norm and not run.tf_initial_checkpoint:
            raise DeepLabError(
                f"unfold_batch_norm={run.unfold_batch_norm}: needs tf_initial_checkpoint, to unfold its own"
            )
        self.directory = RunDirectory.of(run)
        self._teacher = teacher_digest(run.teacher) if run.teacher else None
        self.batches = RunBatches(facts, asked.data, run, asked.train.seed)
        self.devices = make_devices(run)
        if asked.data.batch_size % self.devices.replicas:
            expected = f"expected a multiple of {self.devices.replicas}, the devices"
            raise DeepLabError(f"batch_size={asked.data.batch_size}: {expected}")
        begun = read_description(self.directory.path)
        side = begun.get("training_side") if begun else self.batches.training_side()
        self.card = dataclasses.replace(self.card, training_side=side)
        self.hardware = Hardware.of(self.devices.strategy)
        before = read_run(self.directory.path)
        self.train, self._precision_reason = settled(asked.train, asked.model, self.hardware, before)

    def first_lines(self) -> Iterator[str]:
        """Yields what is told of devices and precision before anything is built; nothing of one CPU in float32."""
        if self.hardware.kind != "CPU":
            others = f" of {self.devices.replicas} in all" if self.devices.workers > 1 else ""
            yield f"Devices: {self.hardware.described()}{others}"
        line = precision_line(self.train, self.hardware, self._precision_reason, tf32=self.options.tf32)
        if line:
            yield line

    def overview(self) -> Iterator[str]:
        """Yields what the run is: its data, a CPU that `first_lines` does not tell of, its folder."""
        yield (
            f"Data: {self.card.dataset}, {self.options.train_split}: {self.config.num_classes} classes, "
            f"{self.batches.images} images, {self.batches.epoch_steps} steps an epoch, batch {self.data.batch_size}"
        )
        unlabelled = self.batches.unlabelled
        if unlabelled:
            taken = unlabelled.of_batch(self.data.batch_size)
            sure = f"where the teacher is sure by {self.train.teacher_confidence:g}"
            yield f"Without labels: {len(unlabelled)} pictures, {taken} of a batch, learned {sure}"
        if self.hardware.kind == "CPU":
            yield f"Devices: {self.hardware.described()}, {shown(self.train)}"
        yield f"Run: {self.directory.path} (curves: tensorboard --logdir={self.directory.path})"

    def started(self) -> dict[str, Any]:
        """Returns what metrics.jsonl keeps of how the run was started, each time that it is."""
        return {
            "event": "started",
            "step": self.done(),
            "devices": self.hardware.described(),
            "precision": shown(self.train),
            "tf32": self.hardware.rounds_float32() and is_rounded(self.options.tf32),
            "xla": self.step.compiled_by_xla,
            "steps_per_loop": self.steps_per_loop,
        }

    def compiled(self) -> str:
        """Returns what decides how long compiling the step takes, as it is printed."""
        crop = ",".join(map(str, self.data.crop_size or ()))
        batch = f"batch {self.data.batch_size}"
        return ", ".join((self.config.model_variant, crop, batch, shown(self.train), self.hardware.described()))

    def described(self) -> dict[str, Any]:
        """Returns what run.json holds: the options, of which most must stay the same when the run is resumed."""
        given = {**dataclasses.asdict(self.train), **dataclasses.asdict(self.data)}
        unlabelled = self.batches.unlabelled
        kept = {name: value for name, value in given.items() if name not in FREE}
        return {
            "model": self.config.to_json(),
            **kept,
            "dataset": self.card.dataset,
            **{name: getattr(self.options, name) for name in IDENTITY},
            RECORDS: self.batches.identity,
            "teacher": self._teacher,
            "unlabelled_dir": unlabelled.identity if unlabelled else None,
            "unlabelled_share": self.options.unlabelled_share,
            EVALUATION: settings_of(self.asked.evaluation),
            PLACES: {name: given[name] for name in FREE},
        }

    def changes(self) -> dict[str, tuple[Any, Any]]:
        """Returns what has changed since the run in the folder began; DeepLabError for what may not have changed."""
        return changes_of(self.directory.path, self.described(), allowed=self.options.allow_change or ())

    def build(self) -> None:
        """Builds the network and its step on the devices, with new weights."""
        keras.utils.set_random_seed(self.train.seed)
        if self.options.deterministic:
            tf.config.experimental.enable_op_determinism()
        several = len(self.config.image_pyramid or ()) > 1
        with self.devices.scope():
            self.model: keras.Model = build_model(self.config, all_scales=several)
            teacher = opened_teacher(self.asked, self.card)
            strategy = self.devices.strategy
            self.step: TrainStep = make_train_step(self.model, self.train, strategy=strategy, teacher=teacher)
        self._set_pace()

    def _set_pace(self) -> None:
        options = self.options
        asked = options.steps_per_loop
        if asked == "auto" and self.hardware.kind == "CPU":
            asked = 1
        # Workers have to take equal loops, and measure different times; signals wait for a line of the log anyway.
        if asked == "auto" and self.devices.workers > 1:
            asked = options.log_steps
        self.steps_per_loop = asked
        self.pace = Pace(asked, options.log_steps)

    def variables(self) -> dict[str, tf.Variable]:
        """Returns everything that a checkpoint holds, by TF1 name."""
        return {**{name: v.value for name, v in variable_map(self.model).items()}, **self.step.state}

    def resume(self, latest: str) -> None:
        """Restores everything from a checkpoint of this run, or of a run of TensorFlow 1 that it continues."""
        variables = self.variables()
        with reading(latest), checkpoint_reader(latest) as reader:
            shapes = reader.get_variable_to_shape_map()
            wrong = [name for name, v in variables.items() if shapes.get(name) != v.shape.as_list()]
            if wrong:
                found = shapes.get(wrong[0], "not there")
                raise DeepLabError(
                    f"{latest}: {len(wrong)} variables do not fit this run ({wrong[0]}: {found}, expected "
                    f"{variables[wrong[0]].shape.as_list()}); give the run's own flags, or another --train_logdir and "
                    "this as --tf_initial_checkpoint"
                )
            done, named = int(reader.get_tensor(GLOBAL_STEP)), files.path(latest).name.rpartition("-")[2]
            if str(done) != named:
                raise DamagedError(f"{latest}: its global_step is {done}; expected {named}, as its name says")
            for name, variable in variables.items():
                variable.assign(reader.get_tensor(name))

    def start(self) -> Initialized | None:
        """Loads initial weights, where tf_initial_checkpoint names some, and returns what was loaded."""
        found = None
        if self.train.freeze != "none" and not self.options.tf_initial_checkpoint:
            raise DeepLabError(
                f"freeze={self.train.freeze}: needs tf_initial_checkpoint; a backbone of random numbers would stay one"
            )
        if self.options.tf_initial_checkpoint:
            excluded = () if self.options.initialize_last_layer else last_layer_scopes(self.train)
            path = weights_path(self.options.tf_initial_checkpoint)
            extra = self.options.initialize_extra_bands
            found = initialize(self.variables(), path, excluded_scopes=excluded, extra_bands=extra)
            scopes = {name.rsplit("/", 1)[0] for name in found.loaded if name.endswith("/moving_mean")}
            scopes -= {name.replace(".", "/") for name in self.step.still_layers(first_phase=False)}
            if self.options.unfold_batch_norm:
                unfold_batch_norm(self.model, self._images(self.options.unfold_batch_norm), scopes=scopes)
            self._begin_state(found)
        return found

    def _begin_state(self, found: Initialized) -> None:
        """Brings averages, and the slots of what is frozen first, to where they begin with initial weights.

        Raises:
          DeepLabError: variables of a backbone that is to be frozen are not among the weights.
        """
        weights = variable_map(self.model)
        absent = [name for name in found.missing if name in weights and in_backbone(name)]
        if absent and self.train.freeze != "none":
            raise DeepLabError(
                f"freeze={self.train.freeze}: {len(absent)} variables of the backbone are not in "
                f"{self.options.tf_initial_checkpoint} ({absent[0]}), and random numbers would stay; expected weights "
                "of this backbone, or freeze=none"
            )
        for name in self.step.variables:
            if begin_late(self.train, name):
                for slot in SLOTS[self.train.optimizer]:
                    state = self.step.state[f"{name}/{slot}"]
                    state.assign(np.zeros_like(state.numpy()))
            average = f"{name}/{AVERAGE}"
            if average in found.missing:
                self.step.state[average].assign(weights[name].numpy())

    def _images(self, count: int) -> Iterator[tf.Tensor]:
        return self.batches.images_from(self.done(), count)

    def done(self) -> int:
        """Returns the number of updates done."""
        return int(self.step.state[GLOBAL_STEP].numpy())

    def recalibrate(self) -> None:
        """Measures batch norm's statistics for the final weights, or their averages, if that is configured."""
        if self.options.recalibrate_batch_norm:
            weights = {name: v.value for name, v in variable_map(self.model).items()}
            with averages_in_place(weights, self.step.state):
                still = self.step.still_layers(first_phase=False)
                recalibrate_batch_norm(self.model, self._images(self.options.recalibrate_batch_norm), still=still)

    def save(self) -> None:
        """Writes a checkpoint, in the chief's process."""
        if self.devices.is_chief:
            self.directory.save(self.done(), self.variables(), keep=self.options.keep_checkpoints)

    def begin(self, changes: Mapping[str, Any], observer: TrainingObserver) -> Updater:
        """Brings the run to where it begins: its last checkpoint, or initial weights, which become the first one.

        A checkpoint in the run's own folder comes before tf_initial_checkpoint, as in the release: the command that
        started a run then also resumes it. Nothing is written before the first batch has been read.

        Args:
          changes: of `changes`.
          observer: told of what was restored or loaded.

        Returns:
          What does the updates that follow.
        """
        latest, damaged = restore_newest(self.directory, self.options.resume, self.resume, observer)
        if latest:
            observer.tell(f"Going on from {latest}")
        else:
            self.batches.try_first_record()
            loaded = self.start()
            if loaded:
                observer.tell(f"Started from {self.options.tf_initial_checkpoint}\n{loaded.summary()}")
        update = self._updater()
        # Before anything is written: workers that see different folders must not leave a run that only some know.
        self.devices.require_equal(self.done(), "the step they begin at")
        self.devices.require_equal(PRECISIONS.index(self.train.mixed_precision), "mixed_precision")
        if self.devices.is_chief:
            for step in damaged:
                self.directory.set_aside(step)
            self.directory.describe(self.card, self.described())
            self.directory.change(self.card, self.described(), changes, self.done())
            self.directory.forget_after(self.done())
            if latest:
                self.directory.finish_save(self.directory.steps()[-1], keep=self.options.keep_checkpoints)
        if not latest:
            self.save()
        return update

    def _read_ahead(self, part: tuple[int, int], pieces: int) -> tf.data.Dataset:
        """Returns the batches that follow the updates done by now, of which the first has been read."""
        return self.batches.read_ahead(part, pieces, start=self.done())

    def _updater(self) -> Updater:
        """Returns what does the updates that follow those done; the first batch has been read."""
        if self.done() >= self.train.training_number_of_steps:
            return SingleSteps(self.step, iter(()))
        with named_errors():
            if self.steps_per_loop != 1:
                again = functools.partial(self.devices.iterate, self._read_ahead)
                strategy = self.devices.strategy
                return StepLoop(self.step, again(), self.pace, strategy=strategy, again=again)
            dataset = functools.partial(self.batches.dataset, start=self.done(), as_bytes=True)
            batches = self.devices.iterate(dataset)
            first = next(batches)
        return SingleSteps(self.step, itertools.chain([first], batches))
