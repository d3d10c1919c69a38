"""Losses: the original's figures, NumPy by hand, gradients, and XLA."""

import json

import numpy as np
import pytest
import tensorflow as tf
from conftest import GOLDENS
from golden import golden_label, golden_logits

from deeplab_tf.config import TrainConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.ops.resizing import resize_bilinear, resize_nearest
from deeplab_tf.training import losses

_GOLDEN = json.loads((GOLDENS / "misc" / "losses.json").read_text())


def loss_of(config: TrainConfig, logits, labels, step=0) -> float:
    return float(losses.divided(*losses.loss_terms(config, tf.constant(logits), tf.constant(labels), step)))


def sample(shape=(2, 5, 7), classes=4, key="sample"):
    """Logits and labels, some ignored (255) and some that are no class (17)."""
    labels = np.random.default_rng(3).integers(0, classes, shape).astype(np.int32)
    labels[0, 0, :3] = 255
    labels[1, 1, 2:4] = 17
    return golden_logits(key, (*shape, classes)), labels


def log_softmax(logits: np.ndarray) -> np.ndarray:
    logits = logits.astype(np.float64)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def by_hand(logits, labels) -> np.ndarray:
    """Cross entropy of each pixel with a one-hot row that is zero for labels that are no class."""
    one_hot = labels[..., None] == np.arange(logits.shape[-1])
    return -(one_hot * log_softmax(logits)).sum(-1)


@pytest.mark.parametrize("case", _GOLDEN, ids=[case["name"] for case in _GOLDEN])
def test_golden_losses(case):
    config = TrainConfig(
        label_weights=case.get("loss_weight"),
        top_k_percent_pixels=case.get("top_k_percent_pixels", 1.0),
        hard_example_mining_step=case.get("hard_example_mining_step", 0),
    )
    batch, (height, width), classes = case["logits_shape"][0], case["label_hw"], case["num_classes"]
    logits = tf.constant(golden_logits(case["name"], case["logits_shape"]))
    keys = [f"{case['name']}/{b}" for b in range(batch)]
    labels = np.stack([golden_label(key, height, width, classes) for key in keys])
    labels = tf.constant(np.full_like(labels, 255) if case.get("all_ignored") else labels)
    if case.get("upsample_logits", True):
        logits = resize_bilinear(logits, (height, width))
    else:
        labels = resize_nearest(labels, logits.shape[1:3])
    step = tf.constant(case["global_step"], tf.int64)
    assert loss_of(config, logits, labels, step) == pytest.approx(case["loss"], rel=1e-6, abs=0)


# Cross entropy.


def test_cross_entropy_by_hand():
    logits, labels = sample()
    expected = by_hand(logits, labels).sum() / (labels != 255).sum()
    assert loss_of(TrainConfig(), logits, labels) == pytest.approx(expected, rel=1e-6)


def test_a_label_that_is_no_class_costs_nothing_and_counts():
    logits, labels = sample()
    total, count = losses.loss_terms(TrainConfig(), tf.constant(logits), tf.constant(labels))
    assert int(count) == (labels != 255).sum() == (labels < 4).sum() + 2
    labels[labels == 17] = -1
    assert float(losses.loss_terms(TrainConfig(), tf.constant(logits), tf.constant(labels))[0]) == float(total)


def test_the_ignored_label_may_be_a_class():
    logits, labels = sample()
    labels[labels > 3] = 0
    kept = labels != 0
    expected = by_hand(logits, labels)[kept].sum() / kept.sum()
    assert loss_of(TrainConfig(ignore_label=0), logits, labels) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("weights", [(0.5, 2.0, 0.0, 3.0), (2.0,), (2.0, 2.0, 2.0, 2.0)])
def test_weights_are_not_in_the_divisor(weights):
    logits, labels = sample()
    each = np.broadcast_to(weights, (4,))[np.minimum(labels, 3)]
    expected = (each * by_hand(logits, labels)).sum() / (labels != 255).sum()
    assert loss_of(TrainConfig(label_weights=weights), logits, labels) == pytest.approx(expected, rel=1e-6)


def test_the_number_of_weights_must_fit():
    with pytest.raises(DeepLabError, match=r"label_weights=\(1.0, 2.0\): 2 weights for 4 classes"):
        losses.class_weights((1.0, 2.0), 4)


def test_one_hot_labels_are_not_made():
    logits, labels = sample((2, 33, 33), 21)
    graph = tf.function(lambda x, y: losses.loss_terms(TrainConfig(), x, y)).get_concrete_function(logits, labels).graph
    elements = logits.size
    large = [op.type for op in graph.get_operations() if any(t.shape.num_elements() == elements for t in op.outputs)]
    assert set(large) <= {"Placeholder", "Reshape", "SparseSoftmaxCrossEntropyWithLogits"}


# Mining.


def mined_by_hand(logits, labels, number: int) -> float:
    worst = np.sort(by_hand(logits, labels).ravel())[::-1][:number]
    return worst.sum() / np.count_nonzero(worst)


@pytest.mark.parametrize(
    ("share", "ramp_steps", "step", "number"),
    [(0.25, 0, 0, 17), (0.25, 10, 0, 70), (0.25, 10, 4, 49), (0.25, 10, 10, 17), (0.25, 10, 99, 17), (0.99, 0, 0, 69)],
)
def test_mining_by_hand(share, ramp_steps, step, number):
    logits, labels = sample()
    assert int(losses.mined_number(70, share, ramp_steps=ramp_steps, step=step)) == number
    config = TrainConfig(top_k_percent_pixels=share, hard_example_mining_step=ramp_steps)
    assert loss_of(config, logits, labels, step) == pytest.approx(mined_by_hand(logits, labels, number), rel=1e-6)


def test_mining_of_nothing_is_zero():
    logits, labels = sample()
    assert loss_of(TrainConfig(top_k_percent_pixels=0.001), logits, labels) == 0.0
    labels[:] = 255
    assert loss_of(TrainConfig(top_k_percent_pixels=0.5), logits, labels) == 0.0


@pytest.mark.parametrize("ramp_steps", [0, 10])
def test_only_the_mined_pixels_have_a_gradient(ramp_steps):
    logits, labels = sample()
    config = TrainConfig(top_k_percent_pixels=0.25, hard_example_mining_step=ramp_steps)
    with tf.GradientTape() as tape:
        values = tf.constant(logits)
        tape.watch(values)
        loss = losses.divided(*losses.loss_terms(config, values, tf.constant(labels), tf.constant(20, tf.int64)))
    gradient = tape.gradient(loss, values).numpy()
    ranks = np.argsort(np.argsort(-by_hand(logits, labels).ravel())).reshape(labels.shape)
    np.testing.assert_array_equal(np.abs(gradient).sum(-1) > 0, ranks < 17)


# The other losses.


def test_focal_by_hand():
    logits, labels = sample()
    costs = by_hand(logits, labels)
    expected = ((1 - np.exp(-costs)) ** 1.5 * costs).sum() / (labels != 255).sum()
    assert loss_of(TrainConfig(loss="focal", focal_gamma=1.5), logits, labels) == pytest.approx(expected, rel=1e-5)
    plain = loss_of(TrainConfig(), logits, labels)
    assert loss_of(TrainConfig(loss="focal", focal_gamma=0.0), logits, labels) == pytest.approx(plain, rel=1e-6)


@pytest.mark.parametrize("weights", [None, (0.5, 2.0, 0.0, 3.0)])
def test_dice_by_hand(weights):
    logits, labels = sample()
    kept, p = labels != 255, np.exp(log_softmax(logits))
    each, used = np.ones(4) if weights is None else np.array(weights), []
    for index in range(4):
        true = (labels == index)[kept]
        used.append(1 - 2 * (p[kept][:, index] * true).sum() / (p[kept][:, index].sum() + true.sum()))
    expected = (each * used).sum() / each.sum()
    assert loss_of(TrainConfig(loss="dice", label_weights=weights), logits, labels) == pytest.approx(expected, rel=1e-5)


def lovasz_by_hand(p, labels, classes: int) -> float:
    """The Lovasz extension of the Jaccard loss as the sum over thresholds of its increments (Berman et al., eq. 8)."""
    values = []
    for index in range(classes):
        true = labels == index
        if not true.any():
            continue
        errors = np.abs(true - p[:, index])
        order, value, before = np.argsort(-errors), 0.0, 0.0
        for rank in range(1, len(order) + 1):
            wrong = np.zeros(len(order), bool)
            wrong[order[:rank]] = True
            predicted = true ^ wrong
            now = 1 - (predicted & true).sum() / (predicted | true).sum()
            value += errors[order[rank - 1]] * (now - before)
            before = now
        values.append(value)
    return float(np.mean(values))


@pytest.mark.parametrize("missing", [None, 2])
def test_lovasz_by_hand(missing):
    logits, labels = sample()
    labels[labels == missing] = 0
    kept = labels != 255
    expected = lovasz_by_hand(np.exp(log_softmax(logits))[kept], labels[kept], 4)
    assert loss_of(TrainConfig(loss="lovasz"), logits, labels) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss", ["cross_entropy", "focal", "dice", "lovasz"])
def test_every_loss_falls_to_zero_and_has_finite_gradients(loss):
    _, labels = sample()
    config = TrainConfig(loss=loss)
    for sharpness, bar in ((200.0, 1e-5), (0.0, np.inf)):
        logits = sharpness * (labels[..., None] == np.arange(4)).astype(np.float32)
        logits[labels == 17] = 0.0
        counted = np.where(labels == 17, 255, labels)
        with tf.GradientTape() as tape:
            values = tf.constant(logits)
            tape.watch(values)
            value = losses.divided(*losses.loss_terms(config, values, tf.constant(counted)))
        assert 0 <= float(value) <= bar
        assert np.isfinite(tape.gradient(value, values)).all()
    labels[:] = 255
    assert loss_of(config, logits, labels) == 0.0


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"label_weights": (0.5, 2.0, 0.0, 3.0)},
        {"top_k_percent_pixels": 0.25},
        {"top_k_percent_pixels": 0.25, "hard_example_mining_step": 10},
        {"loss": "focal"},
        {"loss": "dice"},
        {"loss": "lovasz"},
    ],
    ids=str,
)
def test_losses_compile_with_static_shapes(options):
    logits, labels = sample()
    config = TrainConfig(**options)

    def value_and_gradient(logits, labels, step):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            value = losses.divided(*losses.loss_terms(config, logits, labels, step))
        return value, tape.gradient(value, logits)

    arguments = (tf.constant(logits), tf.constant(labels), tf.constant(4, tf.int64))
    compiled = tf.function(value_and_gradient, jit_compile=True)
    outputs = [t for op in compiled.get_concrete_function(*arguments).graph.get_operations() for t in op.outputs]
    assert not [t.name for t in outputs if not t.shape.is_fully_defined()]
    for found, expected in zip(compiled(*arguments), value_and_gradient(*arguments), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_l2_has_the_half():
    kernels = [tf.Variable([[3.0, 4.0]]), tf.Variable([2.0])]
    assert float(losses.l2(kernels, 0.1)) == pytest.approx(0.1 / 2 * 29)
