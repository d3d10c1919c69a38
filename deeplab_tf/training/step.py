"""One update of a network (`make_train_step`), as the release's train.py computes it; compiled, of static shape."""

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

import keras
import numpy as np
import tensorflow as tf

from deeplab_tf.config import ModelConfig, TrainConfig
from deeplab_tf.data.crossing import BytePictures, float_pictures
from deeplab_tf.errors import DeepLabError
from deeplab_tf.network.cost import regularized_kernels
from deeplab_tf.network.layers import FusedBatchNorm
from deeplab_tf.network.model import MERGED, config_of
from deeplab_tf.network.stepped import StepBatch, as_trained, begin_batch
from deeplab_tf.ops.resizing import resize_bilinear, resize_bilinear_by_matrix, resize_nearest
from deeplab_tf.training import losses, optimizers
from deeplab_tf.training.compilation import compiled_by_xla, on_tpu
from deeplab_tf.training.precision import Hardware, settled
from deeplab_tf.training.schedules import learning_rate
from deeplab_tf.weights import names
from deeplab_tf.weights.tf1 import variable_map

LOSS_SCALE = "loss_scale"
_GOOD_STEPS = "loss_scale_good_steps"
_FIRST_LOSS_SCALE = 2.0**15
_STEPS_TO_DOUBLE = 2000  # good steps after which the loss scale is tried at twice its value


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
      compiled_by_xla: whether it is "true".
      variables: TF1 name -> variable that is trained, with freeze_steps after them if it is of the backbone.
      state: TF1 name -> variable: global_step, the optimiser's slots, moving averages (and the loss scale of float16).
        With the model's weights this is all that a run needs to go on bit for bit.
    """

    def __init__(
        self, model: keras.Model, config: TrainConfig, *, strategy: tf.distribute.Strategy | None = None
    ) -> None:
        config, _ = settled(config, config_of(model), Hardware.of(strategy))
        self.model = model
        self.compiled_by_xla = compiled_by_xla(config, model, strategy)
        self.config = config = dataclasses.replace(config, jit_compile=self.compiled_by_xla)
        self._strategy = strategy
        self._several = bool(strategy) and strategy.num_replicas_in_sync > 1
        # A batch in one piece is divided before its gradient is taken, as the release does: the same rounding.
        self._whole = not self._several and config.gradient_accumulation_steps == 1
        self._check()
        self.variables = trained_variables(model, config)
        self.state = optimizers.initial_state(config, self.variables)
        # What the function that is traced changes, and the layers whose statistics it keeps.
        self._learning = self.variables
        self._all_learn = not config.freeze_steps
        if config.mixed_precision == "float16":
            self.state[LOSS_SCALE] = _counter(LOSS_SCALE, tf.constant(_FIRST_LOSS_SCALE))
            self.state[_GOOD_STEPS] = _counter(_GOOD_STEPS, tf.constant(0, tf.int64))
        self._kernels = regularized_kernels(model)
        # What XLA compiles is one function in the graph of the update, since a loop around it, with its input, is not.
        self._of_replica = self.replica_step
        if self.compiled_by_xla and not on_tpu(model, strategy):
            self._of_replica = tf.function(self.replica_step, jit_compile=True, autograph=False)
        self.compiled = tf.function(self.update, autograph=False)

    def _check(self) -> None:
        """Raises DeepLabError for options that do not fit the model or the devices."""
        model, config = self.model, self.config
        built_from = config_of(model)
        losses.class_weights(config.label_weights, built_from.num_classes)
        scales = built_from.image_pyramid or (1.0,)
        if len(scales) > 1 and not isinstance(model.output, dict):
            raise DeepLabError(
                f"image_pyramid={scales}: every scale has a loss; build the model with all_scales=True to train it"
            )
        self._check_quantized(built_from)
        self._check_frozen(built_from)

    def _check_quantized(self, built_from: ModelConfig) -> None:
        if not built_from.quantized:
            return
        given, precision = f"quantize_delay_step={built_from.quantize_delay_step}", self.config.mixed_precision
        if precision != "none":
            raise DeepLabError(
                f"mixed_precision={precision} with {given}: ranges of eight bits need float32; expected none"
            )
        if self._several:
            raise DeepLabError(
                f"{given} on several devices: expected one, as in the release (--num_clones=1, --strategy=one_device)"
            )

    def _check_frozen(self, built_from: ModelConfig) -> None:
        if self.config.freeze != "none" and built_from.quantized:
            raise DeepLabError(
                f"freeze={self.config.freeze} with quantize_delay_step={built_from.quantize_delay_step}: the ranges of "
                "the backbone's maps follow each batch; expected freeze=none, or -1"
            )

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
        results = self.compiled(images, labels, first_phase=self.in_first_phase())
        if self._strategy and self._several:
            results = {name: self._strategy.experimental_local_results(value)[0] for name, value in results.items()}
        return results

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
        self._learning = early if first_phase else self.variables
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
        config = self.config
        step = tf.identity(self.state[names.GLOBAL_STEP])
        rate = learning_rate(config, step)
        images = float_pictures(images)  # the same number whichever side of the wire it becomes a float
        labels = _checked_labels(self.model, images, tf.cast(labels, tf.int32), config.gradient_accumulation_steps)
        total, count, gradients = self._all_reduced(self._accumulated(images, labels, step))
        cross_entropy = losses.divided(total, count)
        regularization = losses.l2(self._kernels, config.weight_decay)
        gradients = self._complete(gradients, self._scale(labels, count))
        good = self._adapt_loss_scale(gradients)
        used = optimizers.rate_used(config, rate)
        optimizers.apply_gradients(config, self._learning, self.state, gradients, used, good=good)
        return {
            "total_loss": cross_entropy + regularization,
            "cross_entropy": cross_entropy,
            "regularization": regularization,
            "learning_rate": rate,
            "step": step,
        }

    def _begin_part(self, step: tf.Tensor, part: int) -> None:
        """Tells the layers which part of which batch comes.

        What they draw is a function of it, so that a run that resumes draws the same.
        """
        number = step * self.config.gradient_accumulation_steps + part
        begin_batch(self.model, StepBatch(step, number, config_of(self.model).quantize_delay_step))

    def _loss(self, logits: Mapping[str, tf.Tensor], labels: tf.Tensor, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns sum and count over all scales: each has a loss of weight 1, and all count the same pixels."""
        terms = []
        for output in logits.values():
            output = tf.cast(output, tf.float32)
            fitted = labels
            if not self.config.upsample_logits:
                fitted = resize_nearest(labels, _sizes(output)[1:3])
            elif _sizes(output)[1:3] != _sizes(labels)[1:3]:
                resize = resize_bilinear_by_matrix if self.compiled_by_xla else resize_bilinear
                output = resize(output, _sizes(labels)[1:3])
            terms.append(losses.loss_terms(self.config, output, fitted, step))
        return tf.add_n([total for total, _ in terms]), terms[0][1]

    def _unit(self, labels: tf.Tensor) -> float:
        """Returns the divisor of the sum before its gradient is taken, which keeps that in the range of float16."""
        pixels = np.prod(_sizes(labels)) / self.config.gradient_accumulation_steps
        return float(pixels) if losses.counts_pixels(self.config) else 1.0

    def _part(self, images: tf.Tensor, labels: tf.Tensor, step: tf.Tensor, unit: float) -> list[Any]:
        """Returns sum, count and the gradients of (sum / unit, times the loss scale) of a part of the batch."""
        with tf.GradientTape() as tape:
            logits = self.model(images, training=True)
            total, count = self._loss(logits if isinstance(logits, dict) else {MERGED: logits}, labels, step)
            target = losses.divided(total, count) if self._whole else total / unit
            if LOSS_SCALE in self.state:
                target *= self.state[LOSS_SCALE]
        sources = list(self._learning.values())
        return [total, count, *tape.gradient(target, sources, unconnected_gradients=tf.UnconnectedGradients.ZERO)]

    def _accumulated(self, images: tf.Tensor, labels: tf.Tensor, step: tf.Tensor) -> list[Any]:
        """Returns the sums of `_part` over gradient_accumulation_steps parts of the batch."""
        parts = self.config.gradient_accumulation_steps
        unit = self._unit(labels)
        sums: list[Any] = []
        for number, part in enumerate(zip(tf.split(images, parts), tf.split(labels, parts), strict=True)):
            self._begin_part(step, number)
            # A part waits for the one before: side by side they would need the memory of the whole batch.
            with tf.control_dependencies(sums):
                values = self._part(*part, step, unit)
                sums = [a + b for a, b in zip(sums, values, strict=True)] if sums else values
        return sums

    def _all_reduced(self, values: list[Any]) -> tuple[tf.Tensor, tf.Tensor, dict[str, tf.Tensor]]:
        """Returns sum, count and the gradients by TF1 name, each summed over the replicas."""
        if self._several:
            replica = tf.distribute.get_replica_context()
            values = replica.all_reduce(tf.distribute.ReduceOp.SUM, values)
        return values[0], values[1], dict(zip(self._learning, values[2:], strict=True))

    def _scale(self, labels: tf.Tensor, count: tf.Tensor) -> tf.Tensor | None:
        """Returns the factor that makes the gradients those of the mean loss; None where it is 1."""
        scale = None if self._whole else losses.divided(tf.constant(self._unit(labels)), count)
        if LOSS_SCALE in self.state:
            scale = (1.0 if scale is None else scale) / self.state[LOSS_SCALE]
        return scale

    def _complete(self, gradients: dict[str, tf.Tensor], scale: tf.Tensor | None) -> dict[str, tf.Tensor]:
        """Returns the gradients to apply: those of the mean loss, plus L2, times the multipliers."""
        decayed = {id(kernel.value) for kernel in self._kernels} if self.config.weight_decay else set()
        complete = {}
        for name, gradient in gradients.items():
            gradient = gradient if scale is None else gradient * scale
            if id(self.variables[name]) in decayed:
                gradient += self.config.weight_decay * self.variables[name]
            multiplier = optimizers.gradient_multiplier(name, self.config)
            complete[name] = gradient if multiplier == 1 else gradient * multiplier
        return complete

    def _adapt_loss_scale(self, gradients: Mapping[str, tf.Tensor]) -> tf.Tensor | None:
        """Returns whether all gradients are finite, and adapts the loss scale; None where there is no loss scale.

        A gradient that is not finite halves it; _STEPS_TO_DOUBLE good steps in a row double it.
        """
        if LOSS_SCALE not in self.state:
            return None
        scale = self.state[LOSS_SCALE]
        steps = self.state[_GOOD_STEPS]
        good = tf.reduce_all([tf.reduce_all(tf.math.is_finite(gradient)) for gradient in gradients.values()])
        double = steps + 1 >= _STEPS_TO_DOUBLE
        scale.assign(tf.where(good, tf.where(double, scale * 2.0, scale), scale / 2.0))
        steps.assign(tf.where(tf.logical_and(good, tf.logical_not(double)), steps + 1, 0))
        return good


def _sizes(tensor: tf.Tensor) -> list[int]:
    """Returns the shape of a tensor, which `_checked_labels` has seen to be static."""
    return cast("list[int]", tensor.shape.as_list())


def _checked_labels(model: keras.Model, images: tf.Tensor, labels: tf.Tensor, parts: int) -> tf.Tensor:
    """Returns the labels as [b, h, w]; raises DeepLabError where they do not fit the images, or these the model."""
    if labels.shape.rank == 4:
        labels = tf.squeeze(labels, axis=3)
    if not images.shape.is_fully_defined() or images.shape[:3] != labels.shape:
        raise DeepLabError(
            f"images {images.shape} and labels {labels.shape}: expected [b, h, w, 3] and [b, h, w] or [b, h, w, 1] of "
            "one fixed size; crop or pad both, and drop an incomplete last batch"
        )
    crop = model.input_shape[1:3]
    if None not in crop and tuple(images.shape[1:3]) != tuple(crop):
        raise DeepLabError(f"images {images.shape}: the model was built for crop_size={crop}; give both the same size")
    if _sizes(images)[0] % parts:
        raise DeepLabError(f"gradient_accumulation_steps={parts}: does not divide the batch of {images.shape[0]}")
    return labels


def make_train_step(
    model: keras.Model, config: TrainConfig, *, strategy: tf.distribute.Strategy | None = None
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
    return TrainStep(model, config, strategy=strategy)
