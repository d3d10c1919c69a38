"""Losses against the probabilities of a teacher, a network that is not trained: distillation."""

import tensorflow as tf

from deeplab_tf.config import TrainConfig
from deeplab_tf.training.losses import class_count, class_weights, in_range, kept_pixels


def unbiased_distillation(logits: tf.Tensor, teacher: tf.Tensor, *, background: int) -> tf.Tensor:
    """Returns the cross entropy of each pixel, float32 [n], against the probabilities of the network before it grew.

    To that network the new classes were background: its probability of background is compared with that of background
    and all new classes together (Cermelli et al. 2020, Modeling the Background, arXiv 2002.00718, section 3.2).

    Args:
      logits: float32 [n, classes], of which the first ones are the old classes.
      teacher: logits float32 [n, old classes].
      background: one of the old classes.
    """
    old = teacher.shape[-1]
    new_and_background = tf.concat([logits[:, background : background + 1], logits[:, old:]], axis=1)
    merged = tf.reduce_logsumexp(new_and_background, axis=1, keepdims=True)
    ours = tf.concat([logits[:, :background], merged, logits[:, background + 1 : old]], axis=1)
    return tf.nn.softmax_cross_entropy_with_logits(labels=tf.nn.softmax(teacher), logits=ours)


def teaching_terms(
    config: TrainConfig, logits: tf.Tensor, teacher: tf.Tensor, labels: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the sum of the loss against a teacher, times its weight, and how many pixels do not count, float32.

    Every pixel learns the teacher's probabilities, but for those that are ignored and, where there is no label, those
    of which the teacher is not sure: these are not to be divided by. A pixel without a label weighs what one of the
    teacher's best class would.

    Args:
      config: background_class, distillation_weight, teacher_confidence, label_weights and ignore_label.
      logits: [b, h, w, classes].
      teacher: logits [b, h, w, old classes].
      labels: [b, h, w] integers; what they ignore (padding, too) does not count. A value that is neither a class nor
        ignored means that there is no label.
    """
    flat = [tf.cast(tf.reshape(part, [-1, part.shape[-1]]), tf.float32) for part in (logits, teacher)]
    costs = unbiased_distillation(*flat, background=config.background_class)
    labels = tf.reshape(labels, [-1])
    kept = kept_pixels(labels, config.ignore_label)
    unlabelled = kept * (1.0 - in_range(labels, class_count(logits))[1])
    confidence = tf.reduce_max(tf.nn.softmax(flat[1]), axis=1)
    unsure = unlabelled * tf.cast(confidence < config.teacher_confidence, tf.float32)
    weights = tf.gather(
        tf.constant(class_weights(config.label_weights, class_count(logits))), tf.argmax(flat[1], axis=1)
    )
    weights = tf.where(unlabelled > 0, weights, tf.ones_like(weights))
    return config.distillation_weight * tf.reduce_sum((kept - unsure) * weights * costs), tf.reduce_sum(unsure)
