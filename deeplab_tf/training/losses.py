"""Losses of segmentation logits, each as a sum and its divisor; shapes are static, so that XLA can compile them.

Sum and divisor are separate so that a batch that replicas share, or that runs in parts, has the loss of the whole.
The release's rules are in utils/train_utils.py (add_softmax_cross_entropy_loss_for_each_scale).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from deeplab_tf.config import TrainConfig
from deeplab_tf.errors import DeepLabError

_SMALLEST_DIVISOR = 1e-5


def divided(total: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Returns total / count, or 0 where the count is 0."""
    # The maximum keeps the branch that is not taken finite: its gradient would be 0 * inf, which is not a number.
    return tf.where(count > 0, total / tf.maximum(count, _SMALLEST_DIVISOR), tf.zeros_like(total))


def kept_pixels(labels: tf.Tensor, ignore_label: int) -> tf.Tensor:
    """Returns 1 where a label counts and 0 where it is ignored, float32."""
    return tf.cast(tf.not_equal(labels, ignore_label), tf.float32)


def _static(tensor: tf.Tensor, axis: int) -> int:
    """Returns the size of an axis, which has to be static."""
    size = tensor.shape[axis]
    if size is None:
        raise ValueError(f"shape {tensor.shape}: expected a static size of axis {axis}")
    return size


def class_count(logits: tf.Tensor) -> int:
    """Returns the number of classes, the size of the last axis."""
    return _static(logits, -1)


def in_range(labels: tf.Tensor, classes: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the labels, with 0 for those that are not a class, and 1.0 where they are a class, 0.0 elsewhere."""
    known = tf.logical_and(labels >= 0, labels < classes)
    return tf.where(known, labels, tf.zeros_like(labels)), tf.cast(known, tf.float32)


def class_weights(label_weights: float | Sequence[float] | None, classes: int) -> np.ndarray:
    """Returns a loss weight for each class, float32 [classes].

    Args:
      label_weights: one number for all classes, one number for each class, or None: 1 for all.
      classes: the number of classes.

    Raises:
      DeepLabError: the number of weights is neither 1 nor the number of classes.
    """
    weights = np.ravel(1.0 if label_weights is None else label_weights).astype(np.float32)
    if weights.size not in (1, classes):
        raise DeepLabError(
            f"label_weights={label_weights}: {weights.size} weights for {classes} classes; give one a class"
        )
    return np.broadcast_to(weights, (classes,))


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Returns the softmax cross entropy of each pixel, float32 [n], for logits [n, classes] and labels [n].

    A label that is not a class (the ignored one is not) costs 0: its row of the release's one-hot labels is all 0.
    """
    known, is_class = in_range(labels, class_count(logits))
    return is_class * tf.nn.sparse_softmax_cross_entropy_with_logits(labels=known, logits=logits)


def focal(logits: tf.Tensor, labels: tf.Tensor, *, gamma: float) -> tf.Tensor:
    """Returns the focal loss of each pixel, (1 - p)^gamma * -log p (Lin et al. 2017); see `cross_entropy`."""
    losses = cross_entropy(logits, labels)
    # 1 - p comes from the cross entropy itself, which is exact where p is close to 1. Where p rounds to 1, the bound
    # keeps the gradient of the power from being 0 * inf.
    return tf.pow(tf.maximum(-tf.math.expm1(-losses), 1e-7), gamma) * losses


def unbiased_cross_entropy(logits: tf.Tensor, labels: tf.Tensor, *, old: int, background: int) -> tf.Tensor:
    """Returns the cross entropy of each pixel, float32 [n], where the label `background` stands for every old class.

    Pictures that are labelled for new classes alone call an old one background, and its probability there is that of
    all old classes together (Cermelli et al. 2020, Modeling the Background, arXiv 2002.00718, section 3.2).

    Args:
      logits: float32 [n, classes].
      labels: int32 [n]; as for `cross_entropy`, one that is not a class costs 0.
      old: the number of old classes, the first ones.
      background: one of these.
    """
    known, is_class = in_range(labels, class_count(logits))
    of_label = tf.gather(logits, known, batch_dims=1)
    of_old = tf.reduce_logsumexp(logits[:, :old], axis=1)
    chosen = tf.where(tf.equal(known, background), of_old, of_label)
    return is_class * (tf.reduce_logsumexp(logits, axis=1) - chosen)


def _pixel_weights(config: TrainConfig, labels: tf.Tensor, classes: int) -> tf.Tensor:
    """Returns the weight of each pixel's loss, float32 [n]."""
    weights = class_weights(config.label_weights, classes)
    kept = kept_pixels(labels, config.ignore_label)
    if np.all(weights == weights[0]):
        return kept * weights[0]
    known, is_class = in_range(labels, classes)
    return kept * is_class * tf.gather(tf.constant(weights), known)


def mined_number(pixels: int, share: float, *, ramp_steps: int = 0, step: tf.Tensor | int = 0) -> int | tf.Tensor:
    """Returns the number of pixels, ignored ones included, that hard-example mining chooses from `pixels`.

    It is trunc(share * pixels), in float32 as the release computes it; during the first `ramp_steps` steps the share
    falls linearly from 1. Without a ramp it is an int, else an int32 scalar.
    """
    if not ramp_steps:
        return int(np.float32(share) * np.float32(pixels))
    progress = tf.minimum(1.0, tf.cast(step, tf.float32) / tf.constant(ramp_steps, tf.float32))
    return tf.cast((progress * share + (1.0 - progress)) * tf.constant(pixels, tf.float32), tf.int32)


def hardest(
    losses: tf.Tensor, share: float, *, ramp_steps: int = 0, step: tf.Tensor | int = 0
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the sum of the hardest losses and how many of these are not 0, float32 scalars.

    Args:
      losses: float32 [n], n static.
      share: of the n losses, 0..1; see `mined_number`, as for the other two.
      ramp_steps: number of steps.
      step: the step counter before its increment.
    """
    pixels = _static(losses, 0)
    number = mined_number(pixels, share, ramp_steps=ramp_steps, step=step)
    # During the ramp all losses are sorted and those beyond the number set to 0: XLA's top_k needs a static k.
    values, _ = tf.math.top_k(losses, k=pixels if ramp_steps else number)
    if ramp_steps:
        values = tf.where(tf.range(pixels) < number, values, tf.zeros_like(values))
    return tf.reduce_sum(values), tf.reduce_sum(tf.cast(tf.not_equal(values, 0.0), tf.float32))


def _mean_over_classes(losses: tf.Tensor, present: tf.Tensor, weights: np.ndarray) -> tf.Tensor:
    """Returns the weighted mean of losses [classes] over the classes that are present (bool [classes])."""
    counted = tf.cast(present, tf.float32) * weights
    return divided(tf.reduce_sum(counted * losses), tf.reduce_sum(counted))


def dice(logits: tf.Tensor, labels: tf.Tensor, kept: tf.Tensor, *, weights: np.ndarray) -> tf.Tensor:
    """Returns the soft Dice loss 1 - 2 |p y| / (|p| + |y|) of the kept pixels, the mean over the classes that occur.

    Args:
      logits: float32 [n, classes].
      labels: int32 [n].
      kept: float32 [n], 1 for pixels that count and 0 for those that are ignored.
      weights: float32 [classes], of the classes in the mean.
    """
    classes = class_count(logits)
    known, is_class = in_range(labels, classes)
    kept_class = kept * is_class
    probabilities = tf.nn.softmax(logits)
    right = tf.gather(probabilities, known, batch_dims=1) * kept_class
    overlap = tf.math.unsorted_segment_sum(right, known, classes)
    occurring = tf.math.unsorted_segment_sum(kept_class, known, classes)
    predicted = tf.linalg.matvec(probabilities, kept, transpose_a=True)
    return _mean_over_classes(1.0 - divided(2.0 * overlap, predicted + occurring), occurring > 0, weights)


def lovasz(logits: tf.Tensor, labels: tf.Tensor, kept: tf.Tensor, *, weights: np.ndarray) -> tf.Tensor:
    """Returns the Lovasz-Softmax loss (Berman et al. 2018, algorithm 1), the mean over the classes that occur.

    It sorts all pixels once for each class, which is slow at large crops.

    Args:
      logits: float32 [n, classes].
      labels: int32 [n].
      kept: float32 [n], as in `dice`.
      weights: float32 [classes], as in `dice`.
    """
    classes = class_count(logits)
    probabilities = tf.nn.softmax(logits)
    losses, occurring = [], []
    for index in range(classes):
        # An ignored pixel has an error of 0 and is sorted to the end, where it changes neither overlap nor union.
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
    return config.by_pixel and config.top_k_percent_pixels == 1


def loss_terms(
    config: TrainConfig,
    logits: tf.Tensor,
    labels: tf.Tensor,
    step: tf.Tensor | int = 0,
    pixel_weights: tf.Tensor | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns sum and count, float32 scalars, of the loss that `config` asks for; `divided(sum, count)` is the loss.

    Of a sum over pixels (`config.by_pixel`) these are the weighted losses of all that are not ignored, and the number
    of these pixels (not the sum of their weights). Mining (the mean over the hardest pixels that cost
    something), dice and lovasz cannot be summed over parts: the count is 1, and a batch in several parts has the mean
    of its parts' losses.

    Args:
      config: loss and its options, label_weights, ignore_label, top_k_percent_pixels and hard_example_mining_step.
      logits: [b, h, w, classes], any float type, of static shape.
      labels: [b, h, w] integers. Those outside 0..classes-1 cost nothing; unless they are ignored, they are counted.
      step: the step counter before its increment.
      pixel_weights: float32, as labels: multiply the cross entropy and focal loss of a pixel; None: 1.

    Raises:
      DeepLabError: the number of label_weights is neither 1 nor the number of classes.
    """
    classes = class_count(logits)
    logits = tf.cast(tf.reshape(logits, [-1, classes]), tf.float32)
    labels = tf.cast(tf.reshape(labels, [-1]), tf.int32)
    if not config.by_pixel:
        region = {"dice": dice, "lovasz": lovasz}[config.loss]
        weights = class_weights(config.label_weights, classes)
        kept = kept_pixels(labels, config.ignore_label)
        return region(logits, labels, kept, weights=weights), tf.constant(1.0)
    if config.loss == "focal":
        losses = focal(logits, labels, gamma=config.focal_gamma)
    elif config.loss == "unbiased":
        old, background = config.old_classes, config.background_class
        losses = unbiased_cross_entropy(logits, labels, old=old, background=background)
    else:
        losses = cross_entropy(logits, labels)
    losses *= _pixel_weights(config, labels, classes)
    if pixel_weights is not None:
        losses *= tf.reshape(pixel_weights, [-1])
    if counts_pixels(config):
        return tf.reduce_sum(losses), tf.reduce_sum(kept_pixels(labels, config.ignore_label))
    ramp_steps = config.hard_example_mining_step
    total, number = hardest(losses, config.top_k_percent_pixels, ramp_steps=ramp_steps, step=step)
    return divided(total, number), tf.constant(1.0)


def l2(kernels: Sequence[Any], weight_decay: float) -> tf.Tensor:
    """Returns weight_decay / 2 * the sum of squares of all `kernels`, as slim's l2_regularizer computes it.

    `cost.regularized_kernels` names the kernels that a network regularises.
    """
    return tf.add_n([tf.constant(weight_decay, tf.float32) * tf.nn.l2_loss(kernel) for kernel in kernels])
