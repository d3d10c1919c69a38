"""What Keras's compile takes to train as `train` does, and saves: SegmentationLoss, MeanIoU and PolyDecay."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from deeplab_tf.config import TrainConfig
from deeplab_tf.errors import DeepLabError, unknown_name
from deeplab_tf.ops.resizing import resize_bilinear, resize_nearest
from deeplab_tf.training.losses import divided, loss_terms
from deeplab_tf.training.schedules import learning_rate

_register = keras.saving.register_keras_serializable(package="deeplab_tf")
# The fields of TrainConfig that make a loss, and those that make the poly policy.
_OF_LOSS = (
    "loss",
    "focal_gamma",
    "label_weights",
    "ignore_label",
    "top_k_percent_pixels",
    "hard_example_mining_step",
    "upsample_logits",
)
_OF_POLY = (
    "decay_steps",
    "end_learning_rate",
    "learning_power",
    "slow_start_step",
    "slow_start_learning_rate",
    "slow_start_burnin_type",
)


def _configured(config: TrainConfig, options: Mapping[str, Any], known: Sequence[str]) -> TrainConfig:
    """Returns `config` with `options`, which are some of the `known` fields."""
    for name in options:
        if name not in known:
            raise unknown_name("option", name, known)
    return dataclasses.replace(config, **options)


def _changed(config: TrainConfig, names: Sequence[str]) -> dict[str, Any]:
    """Returns those of the fields that differ from the defaults, as JSON holds them."""
    plain = TrainConfig()
    values = {name: getattr(config, name) for name in names if getattr(config, name) != getattr(plain, name)}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def _label_maps(labels: Any) -> tf.Tensor:
    """Returns labels, [b, h, w] or [b, h, w, 1], as int32 [b, h, w]."""
    labels = tf.convert_to_tensor(labels)
    if labels.shape.rank == 4:
        labels = tf.squeeze(labels, axis=3)
    return tf.cast(labels, tf.int32)


def _without(labels: tf.Tensor, weights: Any, ignore_label: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns labels that are ignored where the weight is 0, and the weights as float32 of their shape."""
    weights = tf.cast(tf.convert_to_tensor(weights), tf.float32)
    if weights.shape.rank == 4:
        weights = tf.squeeze(weights, axis=3)
    if weights.shape.rank == 1:
        weights = weights[:, None, None]
    weights = tf.broadcast_to(weights, tf.shape(labels))
    return tf.where(weights > 0, labels, tf.fill(tf.shape(labels), ignore_label)), weights


def _sides(maps: tf.Tensor) -> Any:
    static = maps.shape[1:3]
    return static if static.is_fully_defined() else tf.shape(maps)[1:3]


@_register
class SegmentationLoss(keras.losses.Loss):
    """The loss of `train` for Keras's `compile`: cross entropy (or focal, dice, lovasz) of logits and labels.

    Pixels with the ignore label, or with a sample weight of 0, neither cost nor count: the sum of the losses is divided
    by the number of the others, in the batch of all replicas. Other sample weights multiply a pixel's loss; the divisor
    stays, as it does with label_weights (release: train_utils.py). Logits of a lower size are upsampled to the labels'.

    >>> loss = deeplab_tf.SegmentationLoss(ignore_label=255, top_k_percent_pixels=0.25)
    >>> loss.get_config()
    {'name': 'segmentation_loss', 'top_k_percent_pixels': 0.25}

    Args:
      config: of a training, of which the loss's fields count; None: the defaults.
      name: of the loss.
      dtype: as Keras has it; the loss is float32.
      **options: fields of TrainConfig: loss, focal_gamma, label_weights, ignore_label, top_k_percent_pixels,
        hard_example_mining_step, upsample_logits.

    Raises:
      DeepLabError: an unknown option, or a value that is out of range.
    """

    def __init__(
        self,
        config: TrainConfig | None = None,
        *,
        name: str = "segmentation_loss",
        dtype: Any = None,
        **options: Any,
    ):
        options.pop("reduction", None)  # Keras's own, of the base class: the sum over the batch is divided here
        super().__init__(name=name, reduction="sum", dtype=dtype)
        self.config = _configured(config or TrainConfig(), options, _OF_LOSS)
        self._iterations: Any = None

    def follow(self, optimizer: keras.optimizers.Optimizer) -> None:
        """Has mining that narrows over steps follow the optimizer's; models of ours call it themselves."""
        self._iterations = optimizer.iterations

    def _step(self) -> Any:
        if not self.config.hard_example_mining_step:
            return 0
        if self._iterations is None:
            raise DeepLabError(
                f"hard_example_mining_step={self.config.hard_example_mining_step}: the loss does not know the step; "
                "call loss.follow(optimizer) before fit, or give 0"
            )
        return tf.cast(tf.convert_to_tensor(self._iterations), tf.int64)

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> tf.Tensor:
        """Returns the loss of a batch, a float32 scalar.

        Args:
          y_true: labels, integers [b, h, w] or [b, h, w, 1].
          y_pred: logits [b, h', w', classes] of any float type.
          sample_weight: [b, h, w], [b, h, w, 1] or [b]; None: 1.
        """
        labels, logits = _label_maps(y_true), tf.cast(tf.convert_to_tensor(y_pred), tf.float32)
        weights = None
        if sample_weight is not None:
            labels, weights = _without(labels, sample_weight, self.config.ignore_label)
        if self.config.upsample_logits:
            if logits.shape[1:3] != labels.shape[1:3]:
                logits = resize_bilinear(logits, _sides(labels))
        else:
            labels = resize_nearest(labels, _sides(logits))
            weights = None if weights is None else resize_nearest(weights, _sides(logits))
        total, count = loss_terms(self.config, logits, labels, self._step(), weights)
        replica = tf.distribute.get_replica_context()
        if replica is not None and replica.num_replicas_in_sync > 1:
            count = replica.all_reduce(tf.distribute.ReduceOp.SUM, count)
        return divided(total, count)

    def call(self, y_true: Any, y_pred: Any) -> tf.Tensor:
        """Returns the loss of a batch without sample weights."""
        return self(y_true, y_pred)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {"name": self.name, **_changed(self.config, _OF_LOSS)}


@_register
class MeanIoU(keras.metrics.Metric):
    """The mean IoU of `evaluate` over all batches: of the classes in labels or predictions.

    It counts pixels as they come in training: `evaluate` pads and predicts pictures as the release does. Labels that
    are not a class do not count.

    >>> metric = deeplab_tf.MeanIoU(num_classes=2)
    >>> metric.update_state([[[0, 1, 255]]], [[[0, 0, 1]]])
    >>> float(metric.result())
    0.25

    Args:
      num_classes: of the model.
      ignore_label: the label whose pixels do not count.
      name: of the metric.
      dtype: as Keras has it; the counts are int64.
    """

    def __init__(self, num_classes: int, *, ignore_label: int = 255, name: str = "mean_iou", dtype: Any = None):
        super().__init__(name=name, dtype=dtype)
        self.num_classes, self.ignore_label = num_classes, ignore_label
        self.matrix = self.add_variable(
            shape=(num_classes, num_classes), initializer="zeros", dtype="int64", name="confusion_matrix"
        )

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Counts the pixels of a batch.

        Args:
          y_true: labels, integers [b, h, w] or [b, h, w, 1].
          y_pred: logits or probabilities [b, h', w', classes], or classes, integers [b, h, w].
          sample_weight: [b, h, w], [b, h, w, 1] or [b]: pixels of weight 0 do not count, others once.
        """
        labels, found, classes = _label_maps(y_true), tf.convert_to_tensor(y_pred), self.num_classes
        if sample_weight is not None:
            labels, _ = _without(labels, sample_weight, self.ignore_label)
        if found.dtype.is_floating:
            found = tf.cast(found, tf.float32)
            if found.shape[1:3] != labels.shape[1:3]:
                found = resize_bilinear(found, _sides(labels))
            found = tf.argmax(found, axis=-1, output_type=tf.int32)
        found = tf.cast(tf.reshape(found, [-1]), tf.int32)
        labels = tf.reshape(labels, [-1])
        counted = (labels != self.ignore_label) & (labels >= 0) & (labels < classes)
        cells = tf.where(counted, labels * classes + found, tf.zeros_like(labels))
        counts = tf.math.unsorted_segment_sum(tf.cast(counted, tf.int64), cells, classes * classes)
        self.matrix.assign_add(tf.reshape(counts, [classes, classes]))

    def result(self) -> tf.Tensor:
        """Returns the mean IoU, a float32 scalar; no number where no pixel was counted."""
        matrix = tf.cast(tf.convert_to_tensor(self.matrix), tf.float64)
        hits = tf.linalg.diag_part(matrix)
        union = tf.reduce_sum(matrix, 0) + tf.reduce_sum(matrix, 1) - hits
        occurring = tf.cast(union > 0, tf.float64)
        return tf.cast(tf.reduce_sum(tf.math.divide_no_nan(hits, union)) / tf.reduce_sum(occurring), tf.float32)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {"name": self.name, "num_classes": self.num_classes, "ignore_label": self.ignore_label}


@_register
class PolyDecay(keras.optimizers.schedules.LearningRateSchedule):
    """The poly policy of `train`, rate by rate: (base - end) * (1 - step / steps)^power + end.

    >>> schedule = deeplab_tf.PolyDecay(0.007, 30_000)
    >>> [round(float(schedule(step)), 6) for step in (0, 15_000, 30_000)]
    [0.007, 0.003751, 0.0]

    Args:
      base_learning_rate: the rate at the first step.
      training_number_of_steps: of the whole training.
      **options: fields of TrainConfig: decay_steps, end_learning_rate, learning_power, slow_start_step,
        slow_start_learning_rate, slow_start_burnin_type.

    Raises:
      DeepLabError: an unknown option, or a value that is out of range.
    """

    def __init__(self, base_learning_rate: float, training_number_of_steps: int, **options: Any):
        super().__init__()
        plain = TrainConfig(base_learning_rate=base_learning_rate, training_number_of_steps=training_number_of_steps)
        self.config = _configured(plain, options, _OF_POLY)

    def __call__(self, step: Any) -> tf.Tensor:
        """Returns the rate, a float32 scalar, at `step`, which counts from 0."""
        return learning_rate(self.config, tf.cast(tf.convert_to_tensor(step), tf.int64))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        config = self.config
        return {
            "base_learning_rate": config.base_learning_rate,
            "training_number_of_steps": config.training_number_of_steps,
            **_changed(config, _OF_POLY),
        }
