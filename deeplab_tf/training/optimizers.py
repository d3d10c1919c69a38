"""TensorFlow 1's momentum and Adam, the release's gradient multipliers, and their state under TensorFlow 1's names.

Keras's SGD multiplies the gradient by the rate before it accumulates; TensorFlow 1 accumulates the bare gradient, which
differs as soon as the rate changes. Both optimisers here run the same kernels as TensorFlow 1 did.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from deeplab_tf.arch import head
from deeplab_tf.config import TrainConfig
from deeplab_tf.weights.names import AVERAGE, GLOBAL_STEP, LATE_POWERS, POWERS, SLOTS

_ADAM_DECAYS = (0.9, 0.999)


def last_layer_scopes(config: TrainConfig) -> tuple[str, ...]:
    """Returns the scopes of the release's last layers, which have a gradient multiplier and may be left unrestored."""
    return (head.LOGITS,) if config.last_layers_contain_logits_only else head.LAST_LAYERS


def gradient_multiplier(name: str, config: TrainConfig) -> float:
    """Returns the factor of the whole gradient, its L2 part included, of the variable with the TF1 name `name`.

    2 for biases, times last_layer_gradient_multiplier in the last layers. The release looks for both as substrings of
    the name (utils/train_utils.py), so that "aspp" is also found in "aspp1_depthwise".
    """
    multiplier = 2.0 if "biases" in name else 1.0
    if any(scope in name for scope in last_layer_scopes(config)):
        multiplier *= config.last_layer_gradient_multiplier
    return multiplier


def in_backbone(name: str) -> bool:
    """Returns whether a variable (by its TF1 name) or a layer (by its name) belongs to the backbone, not the head."""
    return not name.startswith(head.BEGINNINGS)


def begin_late(config: TrainConfig, name: str) -> bool:
    """Returns whether the variable with the TF1 name `name` learns only after freeze_steps."""
    return config.freeze_steps > 0 and in_backbone(name)


def rate_used(config: TrainConfig, scheduled: tf.Tensor) -> tf.Tensor:
    """Returns the rate of the update: the scheduled one, or Adam's constant adam_learning_rate (release: train.py)."""
    constant = config.adam_learning_rate if config.optimizer == "adam" else 0.0
    return tf.constant(constant, tf.float32) if constant else scheduled


def initial_state(config: TrainConfig, variables: Mapping[str, tf.Variable]) -> dict[str, tf.Variable]:
    """Returns a new state of the update by TF1 name: global_step, the slots, Adam's powers, moving averages.

    Args:
      config: the options. With freeze_steps Adam's powers of the variables that begin late are their own, since the
        powers correct slots that have just begun.
      variables: TF1 name -> variable that is trained. Its slots are called <variable>/Momentum, <variable>/Adam, ...;
        its moving average (ema_decay above 0) is <variable>/ExponentialMovingAverage and begins at its value.
    """
    once = tf.VariableAggregation.ONLY_FIRST_REPLICA
    zero = tf.constant(0, tf.int64)
    state = {GLOBAL_STEP: tf.Variable(zero, trainable=False, aggregation=once, name=GLOBAL_STEP)}
    if config.optimizer == "adam":
        for names in (POWERS, LATE_POWERS) if config.freeze_steps else (POWERS,):
            for name, value in zip(names, _ADAM_DECAYS, strict=True):
                state[name] = tf.Variable(tf.constant(value, tf.float32), trainable=False, aggregation=once, name=name)
    for name, variable in variables.items():
        for slot in SLOTS[config.optimizer]:
            zeros = tf.zeros(variable.shape, variable.dtype)
            state[f"{name}/{slot}"] = tf.Variable(zeros, trainable=False, name=f"{name}/{slot}")
        if config.ema_decay:
            label = f"{name}/{AVERAGE}"
            state[label] = tf.Variable(tf.identity(variable), trainable=False, name=label)
    return state


class _Scalars(NamedTuple):
    """Values without axes that the updates of all variables share.

    A named tuple because the strategy looks into it and gives each device its own of what is distributed.

    Attributes:
      rate: the learning rate, float32; 0 where the step is skipped.
      good: whether the step is done, bool; None: it is.
      powers: Adam's beta1_power and beta2_power, float32, in this order; () for momentum.
    """

    rate: tf.Tensor
    good: tf.Tensor | None
    powers: tuple[tf.Variable, ...]


def _momentum(config: TrainConfig, variable: Any, gradient: tf.Tensor, slots: Sequence[Any], scalars: _Scalars) -> None:
    tf.raw_ops.ResourceApplyMomentum(
        var=variable.handle,
        accum=slots[0].handle,
        lr=scalars.rate,
        grad=gradient,
        momentum=_kept(tf.constant(config.momentum, tf.float32), scalars),
    )


def _adam(config: TrainConfig, variable: Any, gradient: tf.Tensor, slots: Sequence[Any], scalars: _Scalars) -> None:
    tf.raw_ops.ResourceApplyAdam(
        var=variable.handle,
        m=slots[0].handle,
        v=slots[1].handle,
        beta1_power=scalars.powers[0],
        beta2_power=scalars.powers[1],
        lr=scalars.rate,
        beta1=_kept(tf.constant(_ADAM_DECAYS[0], tf.float32), scalars),
        beta2=_kept(tf.constant(_ADAM_DECAYS[1], tf.float32), scalars),
        epsilon=tf.constant(config.adam_epsilon, tf.float32),
        grad=gradient,
    )


def _kept(decay: tf.Tensor, scalars: _Scalars) -> tf.Tensor:
    """Returns `decay`, or 1 where the step is skipped: with a gradient and a rate of 0 nothing changes then."""
    return decay if scalars.good is None else tf.where(scalars.good, decay, 1.0)


def _update(
    variable: Any,
    gradient: tf.Tensor,
    slots: Sequence[Any],
    average: Any | None,
    scalars: _Scalars,
    config: TrainConfig,
) -> None:
    """Changes one variable, its slots and its moving average, if it has one."""
    if scalars.good is not None:
        gradient = tf.where(scalars.good, gradient, tf.zeros_like(gradient))
    {"momentum": _momentum, "adam": _adam}[config.optimizer](config, variable, gradient, slots, scalars)
    if average is not None:
        average.assign_sub((average - variable) * (1.0 - config.ema_decay))


def apply_gradients(
    config: TrainConfig,
    variables: Mapping[str, tf.Variable],
    state: Mapping[str, tf.Variable],
    gradients: Mapping[str, tf.Tensor],
    rate: tf.Tensor,
    *,
    good: tf.Tensor | None = None,
) -> None:
    """Changes `variables` and `state` by one step; to be called in a replica, with gradients equal on all replicas.

    Args:
      config: the options.
      variables: TF1 name -> variable; those that this step changes.
      state: what `initial_state` made for them, and for those that begin late.
      gradients: TF1 name -> complete gradient: multiplied, L2 included.
      rate: the learning rate, float32 scalar.
      good: bool scalar; if it is false, variables and slots keep their values and only global_step changes. None: true.
    """

    def update_all(
        strategy: tf.distribute.Strategy, gradients: Sequence[Any], rate: tf.Tensor, good: tf.Tensor | None
    ) -> None:
        for variable, change, arguments in _changes(config, variables, state, gradients, _Common(rate, good)):
            strategy.extended.update(variable, change, args=arguments, group=False)
        state[GLOBAL_STEP].assign_add(1)

    # The rate is found in the replica: what merge_call hands on is one value a device, which no operation takes.
    replica = tf.distribute.get_replica_context()
    replica.merge_call(update_all, args=([gradients[name] for name in variables], _applied(rate, good), good))


def apply_gradients_here(
    config: TrainConfig,
    variables: Mapping[str, tf.Variable],
    state: Mapping[str, tf.Variable],
    gradients: Mapping[str, tf.Tensor],
    rate: tf.Tensor,
    *,
    good: tf.Tensor | None = None,
) -> None:
    """Changes one replica's own variables as `apply_gradients` changes those of all, without a word between them."""
    common = _Common(_applied(rate, good), good)
    for variable, change, arguments in _changes(config, variables, state, list(gradients.values()), common):
        change(variable, *arguments)
    state[GLOBAL_STEP].assign_add(1)


def _applied(rate: tf.Tensor, good: tf.Tensor | None) -> tf.Tensor:
    """Returns the rate, or 0 where the step is skipped."""
    return rate if good is None else tf.where(good, rate, 0.0)


class _Common(NamedTuple):
    """What all variables share: the rate, 0 where the step is skipped, and whether it is done; see `_Scalars`."""

    rate: tf.Tensor
    good: tf.Tensor | None


def _changes(
    config: TrainConfig,
    variables: Mapping[str, tf.Variable],
    state: Mapping[str, tf.Variable],
    gradients: Sequence[Any],
    common: _Common,
) -> Iterator[tuple[tf.Variable, Callable[..., None], tuple[Any, ...]]]:
    """Yields a variable, the function that changes it and its further arguments, for each change but global_step's.

    gradients: in the order of `variables`.
    """
    names = list(variables)
    scalars = [_Scalars(*common, tuple(state[name] for name in powers)) for powers in _powers(config, names)]
    for name, gradient in zip(names, gradients, strict=True):
        slots = [state[f"{name}/{slot}"] for slot in SLOTS[config.optimizer]]
        average = state.get(f"{name}/{AVERAGE}")
        yield variables[name], _update, (gradient, slots, average, scalars[begin_late(config, name)], config)
    for powers in _powers(config, names):
        for name, decay in zip(powers, _ADAM_DECAYS, strict=False):
            yield state[name], _multiply, (decay, common.good)


def _powers(config: TrainConfig, names: Sequence[str]) -> list[tuple[str, ...]]:
    """Returns the names of Adam's powers of the variables that begin at once and, if there are some, of the others."""
    late = any(begin_late(config, name) for name in names)
    if config.optimizer != "adam":
        return [(), ()] if late else [()]
    return [POWERS, LATE_POWERS] if late else [POWERS]


def _multiply(variable: Any, factor: float, good: tf.Tensor | None) -> None:
    variable.assign(variable * (factor if good is None else tf.where(good, factor, 1.0)))
