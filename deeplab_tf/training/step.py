"""One update of a network (`make_train_step`), as the release's train.py computes it; compiled, of static shape."""

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import keras
import numpy as np
import tensorflow as tf

from deeplab_tf.config import TrainConfig
from deeplab_tf.data.crossing import BytePictures
from deeplab_tf.errors import DeepLabError
from deeplab_tf.network.layers import FusedBatchNorm
from deeplab_tf.network.stepped import as_trained, replaced
from deeplab_tf.network.wrapped import config_of
from deeplab_tf.training import optimizers
from deeplab_tf.training.compilation import compiler_of, refusal
from deeplab_tf.training.mismatches import require_fit, require_teacher
from deeplab_tf.training.precision import Hardware, settled
from deeplab_tf.training.replica import FIRST_LOSS_SCALE, GOOD_STEPS, LOSS_SCALE, Place, Replica
from deeplab_tf.training.schedules import learning_rate
from deeplab_tf.weights import names
from deeplab_tf.weights.tf1 import variable_map

_Result = TypeVar("_Result")


def trained_variables(model: keras.Model, config: TrainConfig) -> dict[str, tf.Variable]:
    """Returns TF1 name -> variable of what the step trains: the trainable ones, less what is frozen for the whole run.

    That are those of frozen batch norms and of a frozen backbone.
    """
    norms = [layer for layer in model.layers if isinstance(layer, FusedBatchNorm)]
    frozen = {id(weight) for layer in norms for weight in layer.weights} if config.freeze_batch_norm else set()
    head_alone = config.freeze != "none" and not config.freeze_steps
    return {
        name: variable.value
        for name, variable in variable_map(model).items()
        if variable.trainable and id(variable) not in frozen and not (head_alone and optimizers.in_backbone(name))
    }


def _counter(name: str, value: tf.Tensor) -> tf.Variable:
    """Returns a variable of the step itself; all replicas change it alike."""
    once = tf.VariableAggregation.ONLY_FIRST_REPLICA
    return tf.Variable(value, trainable=False, aggregation=once, name=name)


class TrainStep:
    """One training step, called with a batch; made by `make_train_step`.

    Attributes:
      model: the network that is trained.
      config: the options of the update; its jit_compile is "true" or "false".
      compiled_by_xla: whether it is "true"; a step that XLA cannot compile goes over to TensorFlow if that was asked by
        auto.
      why_not_xla: why auto does without XLA on devices where it uses it elsewhere; "" where there is nothing to say.
      tell: called with a line when the step goes over to TensorFlow.
      variables: TF1 name -> variable that is trained, with freeze_steps after them if it is of the backbone.
      state: TF1 name -> variable: global_step, the optimiser's slots, moving averages (and the loss scale of float16).
        With the model's weights this is all that a run needs to go on bit for bit.
    """

    def __init__(
        self,
        model: keras.Model,
        config: TrainConfig,
        *,
        strategy: tf.distribute.Strategy | None = None,
        teacher: keras.Model | None = None,
    ) -> None:
        hardware = Hardware.of(strategy)
        config, _ = settled(config, config_of(model), hardware)
        self.model = model
        replicas = strategy.num_replicas_in_sync if strategy else 1
        compiler = compiler_of(config, hardware, replicas)
        self.compiled_by_xla, self.why_not_xla = compiler.xla, compiler.why_not
        self.tell: Callable[[str], object] = tf.get_logger().warning
        self._asked = config.jit_compile
        self.config = config = dataclasses.replace(config, jit_compile=self.compiled_by_xla)
        self._strategy = strategy
        self._on_tpu = hardware.kind == "TPU"
        self._several = replicas > 1
        self._workers = replicas // hardware.count
        require_fit(model, config, several=self._several)
        if teacher is not None:
            require_teacher(teacher, model, config)
        self._teacher = teacher
        self.variables = trained_variables(model, config)
        self.state = optimizers.initial_state(config, self.variables)
        self._all_learn = not config.freeze_steps
        if config.mixed_precision == "float16":
            self.state[LOSS_SCALE] = _counter(LOSS_SCALE, tf.constant(FIRST_LOSS_SCALE))
            self.state[GOOD_STEPS] = _counter(GOOD_STEPS, tf.constant(0, tf.int64))
        self._compiled_before: set[object] = set()
        self._set_functions()

    def _set_functions(self) -> None:
        several = self._several
        self._replica = Replica(self.model, self.config, self.state, several=several, teacher=self._teacher)
        self._replica.learning = self.variables
        # What XLA compiles is a function in the graph of the update, since a loop around it, with its input, is not.
        self._of_replica = self.replica_step
        if self.compiled_by_xla and not self._on_tpu:
            whole = tf.function(self.replica_step, jit_compile=True, autograph=False)
            self._of_replica = self._step_in_two if self._several else whole
        self.compiled = tf.function(self.update, autograph=False)

    def still_layers(self, *, first_phase: bool) -> set[str]:
        """Returns the names of the layers whose batch statistics stay as they are: of a backbone that is frozen.

        first_phase: whether it is before freeze_steps.
        """
        frozen = self.config.freeze != "none" and (first_phase or not self.config.freeze_steps)
        return {layer.name for layer in self.model.layers if frozen and optimizers.in_backbone(layer.name)}

    def in_first_phase(self) -> bool:
        """Returns whether the next step leaves the backbone alone; asks the devices in that phase only."""
        self._all_learn = self._all_learn or int(self.state[names.GLOBAL_STEP].numpy()) >= self.config.freeze_steps
        return not self._all_learn

    def __call__(self, images: Any, labels: Any) -> dict[str, tf.Tensor]:
        """Trains on one batch; see `make_train_step`. With a strategy, the arguments may be its per-replica values."""
        if not isinstance(images, tf.distribute.DistributedValues | BytePictures):
            kind = tf.uint8 if getattr(images, "dtype", None) in (tf.uint8, np.uint8) else tf.float32
            images, labels = tf.convert_to_tensor(images, kind), tf.cast(labels, tf.int32)
        first_phase = self.in_first_phase()

        def run() -> dict[str, tf.Tensor]:
            return self.compiled(images, labels, first_phase=first_phase)

        results = self.attempt(run, run, what=(first_phase, getattr(images, "shape", None)))
        if self._strategy and self._several:
            results = {name: self._strategy.experimental_local_results(value)[0] for name, value in results.items()}
        return results

    def attempt(self, run: Callable[[], _Result], again: Callable[[], _Result], *, what: object) -> _Result:
        """Returns `run()`; where XLA cannot compile the step that it calls first, `again()`, without XLA.

        Args:
          run: calls the step, in a function of its own or not.
          again: does the same once more, from a new trace and with the same batch.
          what: decides what is compiled, and may not change: nothing but its first call can fail to compile.

        Raises:
          DeepLabError: jit_compile=true asks for XLA alone; or other processes would not know of it.
        """
        if not self.compiled_by_xla or self._on_tpu or what in self._compiled_before:
            return run()
        before = self._steps_done()
        try:
            results = run()
        except tf.errors.OpError as error:
            reason = refusal(error)
            # What is compiled has all of an update's effects on a device, or none.
            if reason is None or self._steps_done() != before:
                raise
            if self._asked == "true" or self._workers > 1:
                others = " on all workers" if self._workers > 1 else ""
                cure = f"expected false{others}, which has TensorFlow run it"
                raise DeepLabError(
                    f"jit_compile={self._asked}: XLA cannot compile the step ({reason}); {cure}"
                ) from None
            self._leave_xla(reason)
            return again()
        self._compiled_before.add(what)
        return results

    def _steps_done(self) -> list[int]:
        """Returns the number of updates done on each device of this process."""
        step = self.state[names.GLOBAL_STEP]
        parts = self._strategy.experimental_local_results(step) if self._strategy else (step,)
        return [int(part.numpy()) for part in parts]

    def _leave_xla(self, reason: str) -> None:
        """Has TensorFlow run the step from now on."""
        self.compiled_by_xla, self.why_not_xla = False, reason
        self.config = dataclasses.replace(self.config, jit_compile="false")
        self._set_functions()
        self.tell(f"Note: XLA cannot compile the step, TensorFlow runs it: {reason}")

    def update(
        self, images: tf.Tensor | BytePictures, labels: tf.Tensor, *, first_phase: bool = False
    ) -> dict[str, tf.Tensor]:
        """Adds one update to the graph that is being traced; what a function around it does is not compiled by XLA.

        Args:
          images: uint8 or float32 [b, h, w, 3], RGB in 0..255, or BytePictures; with a strategy, per-replica values.
          labels: uint8 or int32 [b, h, w] or [b, h, w, 1], as `images`.
          first_phase: whether it is before freeze_steps.

        Returns:
          The scalars of `make_train_step`; with a strategy, its per-replica values, which are equal.
        """
        late = optimizers.begin_late
        early = {name: variable for name, variable in self.variables.items() if not late(self.config, name)}
        self._replica.learning = early if first_phase else self.variables
        with as_trained(self.model, self.config, still=self.still_layers(first_phase=first_phase)):
            if self._strategy is None:
                return self._of_replica(images, labels, first_phase=first_phase)
            return self._strategy.run(self._of_replica, args=(images, labels), kwargs={"first_phase": first_phase})

    def replica_step(
        self, images: tf.Tensor | BytePictures, labels: tf.Tensor, *, first_phase: bool
    ) -> dict[str, tf.Tensor]:
        """Updates by this replica's share of the batch; to be called by `strategy.run`.

        Args:
          images: uint8 or float32 [b, h, w, 3], RGB in 0..255; or BytePictures.
          labels: uint8 or int32 [b, h, w] or [b, h, w, 1].
          first_phase: as for `update`, which has the layers and variables follow it.

        Returns:
          The scalars of `make_train_step`, all-reduced.
        """
        del first_phase  # a compiled function is another one in the other phase
        step = tf.identity(self.state[names.GLOBAL_STEP])
        rate = learning_rate(self.config, step)
        values, unit = self._replica.before_sum(images, labels, step)
        place = Place(step, rate, self._replica.learning, self.state)
        return self._replica.after_sum(self._all_reduced(values), unit, place)

    def _step_in_two(
        self, images: tf.Tensor | BytePictures, labels: tf.Tensor, *, first_phase: bool
    ) -> dict[str, tf.Tensor]:
        """Returns what `replica_step` does; XLA compiles what comes before the sum over the replicas, and after it.

        TensorFlow's own way (`strategy.run` of a compiled function) compiles the sum too, but none except NCCL's: it
        ends with an error on CPUs, see docs/accelerators.md.

        Variables change in the second part only, so that a first one that fails to compile has changed nothing.
        """
        del first_phase
        norms = [layer for layer in self.model.layers if isinstance(layer, FusedBatchNorm)]
        units: list[float] = []

        def before(images: tf.Tensor | BytePictures, labels: tf.Tensor) -> tuple[list[Any], list[Any]]:
            with contextlib.ExitStack() as stack:
                for norm in norms:
                    stack.enter_context(replaced(norm, gathered=()))
                values, unit = self._replica.before_sum(images, labels, tf.identity(self.state[names.GLOBAL_STEP]))
                units.append(unit)
                return values, [norm.gathered for norm in norms]

        def after(values: list[Any], statistics: list[Any]) -> dict[str, tf.Tensor]:
            step = tf.identity(self.state[names.GLOBAL_STEP])
            rate = learning_rate(self.config, step)
            learning = {name: self._own(variable) for name, variable in self._replica.learning.items()}
            state = {name: self._own(variable) for name, variable in self.state.items()}
            results = self._replica.after_sum(values, units[0], Place(step, rate, learning, state, alone=True))
            for norm, moved in zip(norms, statistics, strict=True):
                for moving, value in zip((norm.moving_mean, norm.moving_variance) if moved else (), moved, strict=True):
                    self._own(moving.value).assign(value)
            return results

        # Made for this replica alone: a function keeps the variables that it was traced with.
        compiled = [tf.function(part, jit_compile=True, autograph=False) for part in (before, after)]
        values, statistics = compiled[0](images, labels)
        return compiled[1](self._all_reduced(values), statistics)

    def _own(self, variable: Any) -> tf.Variable:
        """Returns the part of a variable that belongs to this replica."""
        parts = self._strategy.experimental_local_results(variable) if self._strategy else (variable,)
        return next(part for part in parts if part.handle is variable.handle)

    def _all_reduced(self, values: list[Any]) -> list[Any]:
        """Returns the values, each summed over the replicas."""
        if not self._several:
            return values
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, values)


def make_train_step(
    model: keras.Model,
    config: TrainConfig,
    *,
    strategy: tf.distribute.Strategy | None = None,
    teacher: keras.Model | None = None,
) -> TrainStep:
    """Returns a compiled step that trains `model`, in place, as the release does.

    step(images, labels) takes images [b, h, w, 3] float32 or uint8, RGB in 0..255, and labels [b, h, w] or [b, h, w, 1]
    int32, of the same shapes in every call, and returns scalars from before the update: "total_loss", "cross_entropy"
    (of whichever loss is configured, summed over the scales of an image pyramid), "regularization", "learning_rate"
    (that of the policy, which Adam ignores) and "step".

    Batch norm uses and updates statistics of the batch if config.fine_tune_batch_norm; without it the moving ones are
    used and kept, while gamma and beta are trained (release: --fine_tune_batch_norm=false); with
    config.freeze_batch_norm these are kept too. With config.freeze="backbone" the backbone's variables and statistics
    stay bit for bit, for config.freeze_steps or the whole run; the slots of its variables begin after that. Dropout is
    independent of it. A layer whose `trainable` is False is not changed.

    Args:
      model: made by build_model or load; with all_scales=True if its image_pyramid has several scales.
      config: the options of the update.
      strategy: trains on its replicas; build the model and call this function in its scope. The losses are then those
        of the batch of all replicas.
      teacher: a network, itself not changed, whose probabilities the model learns with config.distillation_weight: with
        config.loss="unbiased" that of the old classes, from before the model grew.

    Raises:
      DeepLabError: options that do not fit the model; the step raises it for a batch that does not fit.

    Example:
      >>> import numpy as np
      >>> import deeplab_tf
      >>> from deeplab_tf.config import TrainConfig
      >>> from deeplab_tf.training.step import make_train_step
      >>> config = deeplab_tf.ModelConfig(model_variant="tiny", num_classes=2, crop_size=(33, 33))
      >>> step = make_train_step(deeplab_tf.build_model(config), TrainConfig(training_number_of_steps=10))
      >>> images = np.zeros((2, 33, 33, 3), np.float32)
      >>> labels = np.ones((2, 33, 33), np.int32)
      >>> results = step(images, labels)
      >>> sorted(results)
      ['cross_entropy', 'learning_rate', 'regularization', 'step', 'total_loss']
      >>> int(step(images, labels)["step"])
      1
    """
    return TrainStep(model, config, strategy=strategy, teacher=teacher)
