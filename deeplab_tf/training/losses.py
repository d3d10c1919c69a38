"""Losses of segmentation logits, each as a sum and what it is divided by; shapes are static, so that XLA compiles them.

The sum and the divisor come apart so that a batch may be shared by replicas, or run in parts, and still have the loss
of the whole. The release's rules are in utils/train_utils.py (add_softmax_cross_entropy_loss_for_each_scale).
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from deeplab_tf.config import TrainConfig
from deeplab_tf.errors import DeepLabError

_SMALLEST_DIVISOR = 1e-5


def divided(total: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Returns total / count, or 0 where the count is 0."""
    return tf.where(count > 0, total / tf.maximum(count, _SMALLEST_DIVISOR), tf.zeros_like(total))


def kept_pixels(labels: tf.Tensor, ignore_label: int) -> tf.Tensor:
    """Returns 1 where a label counts and 0 where it is ignored, float32."""
    return tf.cast(tf.not_equal(labels, ignore_label), tf.float32)


def _in_range(labels, classes: int):
    """Returns (labels with 0 for those that are no class, 1 or 0 for whether they are one)."""
    known = tf.logical_and(labels >= 0, labels < classes)
    return tf.where(known, labels, tf.zeros_like(labels)), tf.cast(known, tf.float32)


def class_weights(label_weights: float | Sequence[float] | None, classes: int) -> np.ndarray:
    """Returns one loss weight a class, float32 [classes], from one number, one number a class, or None (all 1).

    Raises:
      DeepLabError: another number of weights than classes.
    """
    weights = np.ravel(1.0 if label_weights is None else label_weights).astype(np.float32)
    if weights.size not in (1, classes):
        raise DeepLabError(
            f"label_weights={label_weights}: {weights.size} weights for {classes} classes; give one a class"
        )
    return np.broadcast_to(weights, (classes,))


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Returns the softmax cross entropy of each pixel, float32 [n], for logits [n, classes] and labels [n].

    A label that is no class (the ignored one as well) costs 0, as it would with an all-zero one-hot row.
    """
    known, is_class = _in_range(labels, logits.shape[-1])
    return is_class * tf.nn.sparse_softmax_cross_entropy_with_logits(labels=known, logits=logits)


def focal(logits: tf.Tensor, labels: tf.Tensor, *, gamma: float) -> tf.Tensor:
    """Returns the focal loss of each pixel, (1 - p)^gamma * -log p (Lin et al. 2017); see `cross_entropy`."""
    losses = cross_entropy(logits, labels)
    # 1 - p from the cross entropy itself; where p rounds to 1 the power's gradient would otherwise be 0 * inf.
    return tf.pow(tf.maximum(-tf.math.expm1(-losses), 1e-7), gamma) * losses


def _pixel_weights(labels, classes: int, label_weights, ignore_label: int):
    weights, kept = class_weights(label_weights, classes), kept_pixels(labels, ignore_label)
    if np.all(weights == weights[0]):
        return kept * weights[0]
    known, is_class = _in_range(labels, classes)
    return kept * is_class * tf.gather(tf.constant(weights), known)


def mined_number(pixels: int, share: float, *, ramp_steps: int = 0, step: tf.Tensor | int = 0) -> int | tf.Tensor:
    """Returns how many of `pixels` (ignored ones included) hard-example mining looks at.

    trunc(share * pixels); during the first `ramp_steps` steps the share falls linearly from 1. In float32, as the
    release computes it. An int without a ramp, else an int32 scalar.
    """
    if not ramp_steps:
        return int(np.float32(share) * np.float32(pixels))
    progress = tf.minimum(1.0, tf.cast(step, tf.float32) / tf.constant(ramp_steps, tf.float32))
    return tf.cast((progress * share + (1.0 - progress)) * tf.constant(pixels, tf.float32), tf.int32)


def hardest(losses: tf.Tensor, share: float, *, ramp_steps: int = 0, step: tf.Tensor | int = 0):
    """Returns (sum of the hardest losses, how many of them are not 0) for losses [n]; see `mined_number`.

    During the ramp all n are sorted and the first ones counted, since XLA knows no top_k of a varying k.
    """
    pixels = losses.shape[0]
    number = mined_number(pixels, share, ramp_steps=ramp_steps, step=step)
    values, _ = tf.math.top_k(losses, k=pixels if ramp_steps else number)
    if ramp_steps:
        values = tf.where(tf.range(pixels) < number, values, tf.zeros_like(values))
    return tf.reduce_sum(values), tf.reduce_sum(tf.cast(tf.not_equal(values, 0.0), tf.float32))


def _mean_over_classes(losses, present, weights):
    """Returns the mean of losses [classes] over the classes that are present."""
    weights = tf.cast(present, tf.float32) * weights
    return divided(tf.reduce_sum(weights * losses), tf.reduce_sum(weights))


def dice(logits: tf.Tensor, labels: tf.Tensor, kept: tf.Tensor, *, weights: np.ndarray) -> tf.Tensor:
    """Returns 1 - 2 |p y| / (|p| + |y|) over the kept pixels, the mean over the classes that occur (soft Dice).

    Args:
      logits: [n, classes]; labels: [n]; kept: float32 [n], 1 or 0; weights: [classes].
    """
    classes = logits.shape[-1]
    known, is_class = _in_range(labels, classes)
    kept_class = kept * is_class
    probabilities = tf.nn.softmax(logits)
    right = tf.gather(probabilities, known, batch_dims=1) * kept_class
    overlap = tf.math.unsorted_segment_sum(right, known, classes)
    occurring = tf.math.unsorted_segment_sum(kept_class, known, classes)
    predicted = tf.linalg.matvec(probabilities, kept, transpose_a=True)
    return _mean_over_classes(1.0 - divided(2.0 * overlap, predicted + occurring), occurring > 0, weights)


def lovasz(logits: tf.Tensor, labels: tf.Tensor, kept: tf.Tensor, *, weights: np.ndarray) -> tf.Tensor:
    """Returns the Lovasz-Softmax loss (Berman et al. 2018, algorithm 1), the mean over the classes that occur.

    Arguments as of `dice`. Ignored pixels get an error of 0 and thus stand last, where they change nothing. It sorts
    all pixels once a class: slow at large crops.
    """
    classes, probabilities = logits.shape[-1], tf.nn.softmax(logits)
    losses, occurring = [], []
    for index in range(classes):
        true = kept * tf.cast(tf.equal(labels, index), tf.float32)
        errors, order = tf.math.top_k(tf.abs(true - kept * probabilities[:, index]), k=labels.shape[0])
        hits = tf.gather(true, order)
        number = tf.reduce_sum(true)
        overlap = number - tf.cumsum(hits)
        union = number + tf.cumsum(1.0 - hits)
        jaccard = 1.0 - overlap / union
        steps = tf.concat([jaccard[:1], jaccard[1:] - jaccard[:-1]], axis=0)
        losses.append(tf.tensordot(errors, tf.stop_gradient(steps), 1))
        occurring.append(number > 0)
    return _mean_over_classes(tf.stack(losses), tf.stack(occurring), weights)


def counts_pixels(config: TrainConfig) -> bool:
    """Returns whether the loss is a sum over pixels divided by the number of those that are not ignored."""
    return config.loss in ("cross_entropy", "focal") and config.top_k_percent_pixels == 1


def loss_terms(config: TrainConfig, logits: tf.Tensor, labels: tf.Tensor, step: tf.Tensor | int = 0):
    """Returns (sum, count) of the loss that `config` asks for; `divided(sum, count)` is the loss.

    Cross entropy and focal loss: the weighted losses over all pixels that are not ignored, and the number of these
    pixels (not the sum of their weights). Their mean over the hardest pixels that cost something (mining), dice and
    lovasz are complete: the count is 1, and a batch in several parts has the mean of its parts' losses.

    Args:
      config: loss, focal_gamma, label_weights, ignore_label, top_k_percent_pixels and hard_example_mining_step.
      logits: [b, h, w, classes], any float type, of static shape.
      labels: [b, h, w] integers; those outside 0..classes-1 that are not ignored cost nothing but are counted.
      step: the step counter before its increment.

    Raises:
      DeepLabError: another number of label_weights than classes.
    """
    classes = logits.shape[-1]
    logits = tf.cast(tf.reshape(logits, [-1, classes]), tf.float32)
    labels = tf.cast(tf.reshape(labels, [-1]), tf.int32)
    if config.loss in ("dice", "lovasz"):
        region = {"dice": dice, "lovasz": lovasz}[config.loss]
        weights = class_weights(config.label_weights, classes)
        return region(logits, labels, kept_pixels(labels, config.ignore_label), weights=weights), tf.constant(1.0)
    if config.loss == "focal":
        losses = focal(logits, labels, gamma=config.focal_gamma)
    else:
        losses = cross_entropy(logits, labels)
    losses *= _pixel_weights(labels, classes, config.label_weights, config.ignore_label)
    if counts_pixels(config):
        return tf.reduce_sum(losses), tf.reduce_sum(kept_pixels(labels, config.ignore_label))
    ramp_steps = config.hard_example_mining_step
    return divided(*hardest(losses, config.top_k_percent_pixels, ramp_steps=ramp_steps, step=step)), tf.constant(1.0)


def l2(kernels: Sequence, weight_decay: float) -> tf.Tensor:
    """Returns weight_decay / 2 * the sum of squares of all `kernels` (slim's l2_regularizer, which has the half).

    Which kernels a network regularises is `cost.regularized_kernels`.
    """
    return tf.add_n([tf.constant(weight_decay, tf.float32) * tf.nn.l2_loss(kernel) for kernel in kernels])
