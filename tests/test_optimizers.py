"""Updates by hand in NumPy, the release's multipliers, and the state's names."""

import numpy as np
import pytest
import tensorflow as tf

from deeplab_tf.config import TrainConfig
from deeplab_tf.training import optimizers

_RATES = (0.1, 0.1, 0.02, 0.3)
_NAME = "logits/semantic/weights"


def gradients_of(steps: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal((2, 3)).astype(np.float32) for _ in range(steps)]


def trained(config: TrainConfig, gradients, rates=_RATES, good=None):
    """Returns the variable after each step, and the state."""
    variables = {_NAME: tf.Variable(np.arange(6, dtype=np.float32).reshape(2, 3))}
    state, values = optimizers.initial_state(config, variables), []

    @tf.function
    def step(gradient, rate, good):
        optimizers.apply_gradients(config, variables, state, {_NAME: gradient}, rate, good=good)

    for index, (gradient, rate) in enumerate(zip(gradients, rates, strict=True)):
        step(tf.constant(gradient), tf.constant(rate), None if good is None else tf.constant(good[index]))
        values.append(variables[_NAME].numpy())
    return values, state


def test_momentum_keeps_the_rate_out_of_its_accumulator():
    value, slot = np.arange(6, dtype=np.float64).reshape(2, 3), 0.0
    found, state = trained(TrainConfig(momentum=0.8), gradients_of(4))
    for gradient, rate, after in zip(gradients_of(4), _RATES, found, strict=True):
        slot = 0.8 * slot + gradient
        value = value - rate * slot
        np.testing.assert_allclose(after, value, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(state[f"{_NAME}/Momentum"], slot, rtol=1e-5)
    assert set(state) == {"global_step", f"{_NAME}/Momentum"}
    assert state["global_step"].dtype == tf.int64
    assert int(state["global_step"]) == 4


def test_adam_is_tensorflow_1s():
    config = TrainConfig(optimizer="adam", adam_epsilon=1e-3)
    value, first, second = np.arange(6, dtype=np.float64).reshape(2, 3), 0.0, 0.0
    found, state = trained(config, gradients_of(4))
    for t, (gradient, rate, after) in enumerate(zip(gradients_of(4), _RATES, found, strict=True), start=1):
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient.astype(np.float64) ** 2
        # Its epsilon stands beside the root of the uncorrected second moment.
        corrected = rate * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        value = value - corrected * first / (np.sqrt(second) + 1e-3)
        np.testing.assert_allclose(after, value, rtol=1e-4, atol=1e-5)
    names = {"global_step", "beta1_power", "beta2_power", f"{_NAME}/Adam", f"{_NAME}/Adam_1"}
    assert set(state) == names
    assert float(state["beta1_power"]) == pytest.approx(0.9**5)
    assert float(state["beta2_power"]) == pytest.approx(0.999**5)


def test_adam_ignores_the_schedule():
    scheduled = tf.constant(0.5)
    assert float(optimizers.rate_used(TrainConfig(optimizer="adam"), scheduled)) == pytest.approx(0.001)
    assert float(optimizers.rate_used(TrainConfig(), scheduled)) == 0.5
    assert float(optimizers.rate_used(TrainConfig(optimizer="adam", adam_learning_rate=0), scheduled)) == 0.5


def test_moving_averages():
    found, state = trained(TrainConfig(ema_decay=0.9), gradients_of(4))
    average = np.arange(6, dtype=np.float64).reshape(2, 3)
    for value in found:
        average = 0.9 * average + 0.1 * value
    np.testing.assert_allclose(state[f"{_NAME}/ExponentialMovingAverage"], average, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_a_bad_step_changes_nothing_but_the_counter(optimizer):
    config = TrainConfig(optimizer=optimizer)
    first, bad, last = gradients_of(3)
    bad[0, 1] = np.nan
    found, state = trained(config, [first, bad, last], (0.1, 0.1, 0.1), good=[True, False, True])
    expected, clean = trained(config, [first, last], (0.1, 0.1))
    np.testing.assert_array_equal(found[1], found[0])
    np.testing.assert_array_equal(found[2], expected[1])
    assert all(np.array_equal(state[name], clean[name]) for name in clean if name != "global_step")
    assert (int(state["global_step"]), int(clean["global_step"])) == (3, 2)


@pytest.mark.parametrize(
    ("name", "multiplier", "logits_only"),
    [
        ("logits/semantic/weights", 10, 10),
        ("logits/semantic/biases", 20, 20),
        ("logits/semantic_1/biases", 20, 20),
        ("aspp1_depthwise/depthwise_weights", 10, 1),
        ("image_pooling/BatchNorm/beta", 10, 1),
        ("image_pooling/biases", 20, 2),
        ("concat_projection/weights", 10, 1),
        ("decoder/feature_projection0/biases", 20, 2),
        ("decoder/decoder_conv1_pointwise/BatchNorm/gamma", 10, 1),
        ("meta_architecture/branch0_pointwise/weights", 10, 1),
        ("MobilenetV3/expanded_conv_3/squeeze_excite/Conv/biases", 2, 2),
        ("xception_65/entry_flow/conv1_1/weights", 1, 1),
        ("xception_65/entry_flow/conv1_1/BatchNorm/beta", 1, 1),
    ],
)
def test_gradient_multipliers(name, multiplier, logits_only):
    config = TrainConfig(last_layer_gradient_multiplier=10)
    assert optimizers.gradient_multiplier(name, config) == multiplier
    config = TrainConfig(last_layer_gradient_multiplier=10, last_layers_contain_logits_only=True)
    assert optimizers.gradient_multiplier(name, config) == logits_only
    assert optimizers.gradient_multiplier(name, TrainConfig()) == (2 if "biases" in name else 1)
