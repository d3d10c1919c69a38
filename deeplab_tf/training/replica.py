"""What each replica does in an update (`Replica`): loss and gradients of its share, and the change by those of all."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from deeplab_tf.config import TrainConfig
from deeplab_tf.data.crossing import BytePictures, float_pictures
from deeplab_tf.network.cost import regularized_kernels
from deeplab_tf.network.model import MERGED
from deeplab_tf.network.stepped import StepBatch, begin_batch
from deeplab_tf.network.wrapped import config_of
from deeplab_tf.ops.resizing import resize_bilinear, resize_bilinear_by_matrix, resize_nearest, resize_unaligned
from deeplab_tf.training import losses, optimizers
from deeplab_tf.training.mismatches import fitted_labels, sizes
from deeplab_tf.training.teaching import teaching_terms

LOSS_SCALE = "loss_scale"
GOOD_STEPS = "loss_scale_good_steps"
FIRST_LOSS_SCALE = 2.0**15
_STEPS_TO_DOUBLE = 2000  # good steps after which the loss scale is tried at twice its value


class Place(NamedTuple):
    """Where an update happens.

    Attributes:
      step: its number.
      rate: the scheduled learning rate.
      learning: TF1 name -> variable that it trains.
      state: that of the step.
      alone: whether the variables are those of one replica, which all of them change alike.
    """

    step: tf.Tensor
    rate: tf.Tensor
    learning: Mapping[str, tf.Variable]
    state: Mapping[str, tf.Variable]
    alone: bool = False


class Replica:
    """The part of an update that a replica does, added to the graph that is being traced.

    Attributes:
      learning: TF1 name -> variable that the update which is traced changes; whoever traces it sets it.

    Args:
      model: the network, whose layers behave as in a training step.
      config: the options, none of which is auto any more.
      state: that of the step.
      several: whether other replicas share the batch.
      teacher: a network whose probabilities are learned too.
    """

    def __init__(
        self,
        model: keras.Model,
        config: TrainConfig,
        state: Mapping[str, tf.Variable],
        *,
        several: bool,
        teacher: keras.Model | None = None,
    ) -> None:
        self.model = model
        self.teacher = teacher
        self.config = config
        self.state = state
        self.learning: Mapping[str, tf.Variable] = {}
        # A batch in one piece is divided before its gradient is taken, as the release does: the same rounding.
        self._in_one_piece = not several and config.gradient_accumulation_steps == 1
        self._kernels = regularized_kernels(model)

    def before_sum(
        self, images: tf.Tensor | BytePictures, labels: tf.Tensor, step: tf.Tensor
    ) -> tuple[list[Any], float]:
        """Returns what is to be summed over the replicas, see `_accumulated`, and the unit of its gradients."""
        images = float_pictures(images)  # the same number whichever side of the wire it becomes a float
        parts = self.config.gradient_accumulation_steps
        labels = fitted_labels(self.model, images, tf.cast(labels, tf.int32), parts)
        return self._accumulated(images, labels, step), self._unit(labels)

    def after_sum(self, values: list[Any], unit: float, place: Place) -> dict[str, tf.Tensor]:
        """Updates by what was summed over the replicas, and returns the step's results."""
        config, (step, rate) = self.config, place[:2]
        total, count = values[:2]
        cross_entropy = losses.divided(total, count)
        regularization = losses.l2(self._kernels, config.weight_decay)
        gradients = dict(zip(self.learning, values[2:], strict=True))
        gradients = self._complete(gradients, self._scale(unit, count))
        good = self._adapt_loss_scale(gradients, place.state)
        apply = optimizers.apply_gradients_here if place.alone else optimizers.apply_gradients
        apply(config, place.learning, place.state, gradients, optimizers.rate_used(config, rate), good=good)
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

    def _resized(self, logits: tf.Tensor, size: list[int]) -> tf.Tensor:
        """Returns logits, float32, at the height and width `size`."""
        logits = tf.cast(logits, tf.float32)
        if sizes(logits)[1:3] == size:
            return logits
        resize = resize_bilinear_by_matrix if self.config.jit_compile == "true" else resize_bilinear
        return (resize if config_of(self.model).align_corners else resize_unaligned)(logits, size)

    def _loss(
        self, logits: Mapping[str, tf.Tensor], labels: tf.Tensor, step: tf.Tensor, taught: tf.Tensor | None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns sum and count over all scales: each has a loss of weight 1, and all count the same pixels.

        The loss against `taught`, the teacher's logits, is in the sum; what it does not teach is not in the count.
        """
        terms = []
        for output in logits.values():
            size = sizes(labels if self.config.upsample_logits else output)[1:3]
            output = self._resized(output, size)
            fitted = labels if self.config.upsample_logits else resize_nearest(labels, size)
            total, count = losses.loss_terms(self.config, output, fitted, step)
            if taught is not None:
                more, unsure = teaching_terms(self.config, output, self._resized(taught, size), fitted)
                total, count = total + more, count - unsure
            terms.append((total, count))
        return tf.add_n([total for total, _ in terms]), terms[0][1]

    def _unit(self, labels: tf.Tensor) -> float:
        """Returns the divisor of the sum before its gradient is taken, which keeps that in the range of float16."""
        pixels = np.prod(sizes(labels)) / self.config.gradient_accumulation_steps
        return float(pixels) if losses.counts_pixels(self.config) else 1.0

    def _part(self, images: tf.Tensor, labels: tf.Tensor, step: tf.Tensor, unit: float) -> list[Any]:
        """Returns sum, count and the gradients of (sum / unit, times the loss scale) of a part of the batch."""
        taught = None if self.teacher is None else self.teacher(images, training=False)
        with tf.GradientTape() as tape:
            logits = self.model(images, training=True)
            logits = logits if isinstance(logits, dict) else {MERGED: logits}
            total, count = self._loss(logits, labels, step, taught)
            target = losses.divided(total, count) if self._in_one_piece else total / unit
            if LOSS_SCALE in self.state:
                target *= self.state[LOSS_SCALE]
        sources = list(self.learning.values())
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

    def _scale(self, unit: float, count: tf.Tensor) -> tf.Tensor | None:
        """Returns the factor that makes the gradients those of the mean loss; None where it is 1."""
        scale = None if self._in_one_piece else losses.divided(tf.constant(unit), count)
        if LOSS_SCALE in self.state:
            scale = (1.0 if scale is None else scale) / self.state[LOSS_SCALE]
        return scale

    def _complete(self, gradients: dict[str, tf.Tensor], scale: tf.Tensor | None) -> dict[str, tf.Tensor]:
        """Returns the gradients to apply: those of the mean loss, plus L2, times the multipliers."""
        decayed = {id(kernel.value) for kernel in self._kernels} if self.config.weight_decay else set()
        complete = {}
        for name, gradient in gradients.items():
            gradient = gradient if scale is None else gradient * scale
            if id(self.learning[name]) in decayed:
                gradient += self.config.weight_decay * self.learning[name]
            multiplier = optimizers.gradient_multiplier(name, self.config)
            complete[name] = gradient if multiplier == 1 else gradient * multiplier
        return complete

    def _adapt_loss_scale(
        self, gradients: Mapping[str, tf.Tensor], state: Mapping[str, tf.Variable]
    ) -> tf.Tensor | None:
        """Returns whether all gradients are finite, and adapts the loss scale; None where there is no loss scale.

        A gradient that is not finite halves it; _STEPS_TO_DOUBLE good steps in a row double it.
        """
        if LOSS_SCALE not in state:
            return None
        scale = state[LOSS_SCALE]
        steps = state[GOOD_STEPS]
        good = tf.reduce_all([tf.reduce_all(tf.math.is_finite(gradient)) for gradient in gradients.values()])
        double = steps + 1 >= _STEPS_TO_DOUBLE
        scale.assign(tf.where(good, tf.where(double, scale * 2.0, scale), scale / 2.0))
        steps.assign(tf.where(tf.logical_and(good, tf.logical_not(double)), steps + 1, 0))
        return good
