"""Learning rates of the steps of a run, by the release's policies (utils/train_utils.py get_model_learning_rate)."""

import math

import tensorflow as tf

from deeplab_tf.config import TrainConfig


def _poly(config: TrainConfig, progress: tf.Tensor) -> tf.Tensor:
    # The difference is taken in float32: near the end of a run float64 would be 4e-4 away from the release.
    base, end = tf.constant(config.base_learning_rate, tf.float32), tf.constant(config.end_learning_rate, tf.float32)
    return (base - end) * tf.pow(1.0 - progress, config.learning_power) + end


def _cosine(config: TrainConfig, progress: tf.Tensor) -> tf.Tensor:
    base, end = tf.constant(config.base_learning_rate, tf.float32), tf.constant(config.end_learning_rate, tf.float32)
    return (base - end) * 0.5 * (1.0 + tf.cos(math.pi * progress)) + end


def _policy(config: TrainConfig, step: tf.Tensor) -> tf.Tensor:
    """Returns the rate at `step`, which is float32 and counted from the end of the slow start."""
    if config.learning_policy == "step":
        times = tf.floor(step / tf.constant(config.learning_rate_decay_step, tf.float32))
        return config.base_learning_rate * tf.pow(tf.constant(config.learning_rate_decay_factor, tf.float32), times)
    steps = config.decay_steps or config.training_number_of_steps - config.slow_start_step
    steps = tf.constant(steps, tf.float32)
    return {"poly": _poly, "cosine": _cosine}[config.learning_policy](config, tf.minimum(step, steps) / steps)


def learning_rate(config: TrainConfig, step: int | tf.Tensor) -> tf.Tensor:
    """Returns the policy's rate at a step, float32 of the shape of `step`, in the release's own arithmetic.

    During the slow start it is slow_start_learning_rate, or with slow_start_burnin_type "linear" a ramp from there to
    base_learning_rate. `decay_steps`, where given, is not shortened by the slow start. The Adam optimizer ignores the
    policy (`optimizers.rate_used`).

    Args:
      config: the options.
      step: the step counter before its increment; an int, or an integer tensor of any shape.
    """
    step = tf.cast(tf.convert_to_tensor(step), tf.int64)
    rate = _policy(config, tf.cast(tf.maximum(step - config.slow_start_step, 0), tf.float32))
    if not config.slow_start_step:
        return rate
    slow = tf.constant(config.slow_start_learning_rate, tf.float32)
    if config.slow_start_burnin_type == "linear":
        rise = tf.constant(config.base_learning_rate - config.slow_start_learning_rate, tf.float32)
        slow = slow + rise * tf.cast(step, tf.float32) / tf.constant(config.slow_start_step, tf.float32)
    return tf.where(step < config.slow_start_step, slow, rate)
