"""A network that grows: unbiased cross entropy and distillation against the paper's formulas, by hand."""

import numpy as np
import pytest
import tensorflow as tf

from deeplab_tf.config import ModelConfig, TrainConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.network.build import build_model
from deeplab_tf.training import losses, teaching
from deeplab_tf.training.step import make_train_step

OLD, NEW, BACKGROUND = 3, 2, 1


def probabilities(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype(np.float64))
    return powers / powers.sum(-1, keepdims=True)


def drawn(classes: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 2, (2, 3, 4, classes)).astype(np.float32)


LABELS = np.array([1, 3, 4, 0, 255, 2, 1, 1, 4, 3, 255, 1] * 2, np.int32).reshape(2, 3, 4)
CONFIG = TrainConfig(loss="unbiased", old_classes=OLD, background_class=BACKGROUND, distillation_weight=10.0)


def test_unbiased_cross_entropy_by_hand():
    """Section 3.2 of the paper: a pixel of the background is one of any old class."""
    logits = drawn(OLD + NEW)
    merged = probabilities(logits)
    merged[..., BACKGROUND] = merged[..., :OLD].sum(-1)
    expected = sum(-np.log(merged[place][LABELS[place]]) for place in zip(*np.where(LABELS != 255), strict=True))
    total, count = losses.loss_terms(CONFIG, tf.constant(logits), tf.constant(LABELS))
    assert float(total) == pytest.approx(expected, rel=1e-6) and int(count) == (LABELS != 255).sum()


def test_unbiased_distillation_by_hand():
    """The old background is compared with background and new classes together; ignored pixels do not count."""
    logits, teacher = drawn(OLD + NEW), drawn(OLD, seed=1)
    ours, theirs = probabilities(logits), probabilities(teacher)
    ours[..., BACKGROUND] += ours[..., OLD:].sum(-1)
    expected = -(theirs * np.log(ours[..., :OLD])).sum(-1)[LABELS != 255].sum()
    total, unsure = teaching.teaching_terms(CONFIG, tf.constant(logits), tf.constant(teacher), tf.constant(LABELS))
    assert float(total) == pytest.approx(10 * expected, rel=1e-6) and int(unsure) == 0


@pytest.mark.parametrize("weights", [None, (1.0, 2.0, 0.5)])
def test_pixels_without_a_label_learn_what_the_teacher_is_sure_of(weights):
    """Labelled pixels learn all of it; what is ignored counts nowhere, what is unsure not in the divisor either.

    Those without a label weigh what the teacher's best class does in the loss of labels.
    """
    logits, teacher = drawn(OLD), drawn(OLD, seed=1)
    labels = np.where(LABELS == 255, 255, np.where(LABELS < OLD, 254, LABELS - OLD))
    ours, theirs = probabilities(logits), probabilities(teacher)
    costs = -(theirs * np.log(ours)).sum(-1)
    sure = (labels != 255) & ((labels != 254) | (theirs.max(-1) >= 0.7))
    weighed = costs * np.where(labels == 254, np.asarray(weights or (1.0, 1.0, 1.0))[theirs.argmax(-1)], 1.0)
    config = TrainConfig(teacher_confidence=0.7, label_weights=weights)
    total, unsure = teaching.teaching_terms(config, tf.constant(logits), tf.constant(teacher), tf.constant(labels))
    assert float(total) == pytest.approx(weighed[sure].sum(), rel=1e-6)
    assert 0 < int(unsure) == ((labels == 254) & ~sure).sum() < (labels == 254).sum()


def test_the_mean_is_over_what_counts():
    """A batch whose second picture has no label: its unsure pixels are not divided by."""
    student, teacher = networks(OLD, OLD)
    images = np.random.default_rng(0).uniform(0, 255, (2, 33, 33, 3)).astype(np.float32)
    labels = np.stack([np.full((33, 33), 1), np.full((33, 33), 254)]).astype(np.int32)
    found = {}
    for confidence in (0.0, 1.0):
        config = TrainConfig(teacher_confidence=confidence, base_learning_rate=0.0)
        found[confidence] = float(make_train_step(student, config, teacher=teacher)(images, labels)["cross_entropy"])
    # New networks give all classes about a third: labelled pixels cost log 3 twice, unlabelled ones once or nothing.
    assert found[1.0] == pytest.approx(2 * np.log(3), abs=0.05)
    assert found[0.0] == pytest.approx(1.5 * np.log(3), abs=0.05)


def test_far_logits_stay_finite():
    logits = tf.Variable([[300.0, -300.0, 0.0, 90.0, -90.0]])
    with tf.GradientTape() as tape:
        total = losses.unbiased_cross_entropy(logits, tf.constant([1]), old=OLD, background=1)
        total += teaching.unbiased_distillation(logits, tf.constant([[-300.0, 300.0, 0.0]]), background=1)
    assert np.isfinite(total.numpy()).all() and np.isfinite(tape.gradient(total, logits).numpy()).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "unbiased"}, "old_classes=0: expected the number of classes before the network grew"),
        ({"old_classes": 2}, "old_classes=2: expected the number .* 0 with another loss"),
        ({"loss": "unbiased", "old_classes": 2, "background_class": 2}, r"background_class=2: expected .* 0\.\.1"),
        ({"background_class": 1}, "background_class=1: needs loss=unbiased"),
        ({"distillation_weight": -1.0}, "distillation_weight=-1.0: expected a number of at least 0"),
    ],
)
def test_options_that_do_not_belong_together(options, message):
    with pytest.raises(DeepLabError, match=message):
        TrainConfig(**options)


def networks(*classes: int):
    crop = (33, 33)
    return [build_model(ModelConfig("tiny", num_classes=n, crop_size=crop, aspp_convs_filters=8)) for n in classes]


def test_a_step_adds_the_teachers_loss_and_leaves_the_teacher_alone():
    grown, teacher = networks(OLD + NEW, OLD)
    before = [weight.numpy() for weight in teacher.weights]
    images = np.random.default_rng(0).uniform(0, 255, (2, 33, 33, 3)).astype(np.float32)
    labels = np.full((2, 33, 33), 255, np.int32)
    labels[0] = 4
    expected = []
    for weight, network in ((0.0, teacher), (2.0, teacher), (2.0, None)):
        config = TrainConfig(loss="unbiased", old_classes=OLD, distillation_weight=weight, base_learning_rate=0.0)
        step = make_train_step(grown, config, teacher=network)
        expected.append(float(step(images, labels)["cross_entropy"]))
    without, both, alone = expected
    assert without == alone
    # New networks give all classes about the same probability: -log(1/5) and the cross entropy with thirds.
    assert without == pytest.approx(np.log(5), abs=0.05)
    assert both - without == pytest.approx(2 * -(2 * np.log(1 / 5) + np.log(3 / 5)) / 3, abs=0.05)
    assert all(np.array_equal(was, weight.numpy()) for was, weight in zip(before, teacher.weights, strict=True))


def test_teachers_that_do_not_fit():
    grown, teacher, other = networks(OLD + NEW, OLD, 4)
    with pytest.raises(DeepLabError, match="teacher: has 4 classes; expected 3, the old classes"):
        make_train_step(grown, CONFIG, teacher=other)
    with pytest.raises(DeepLabError, match="teacher: has 3 classes; expected 5, the classes of the network"):
        make_train_step(grown, TrainConfig(), teacher=teacher)
    with pytest.raises(DeepLabError, match="loss=dice with top_k_percent_pixels=1: a teacher's loss is a sum"):
        make_train_step(grown, TrainConfig(loss="dice"), teacher=grown)
    with pytest.raises(DeepLabError, match="old_classes=3: expected fewer than the 3 classes"):
        make_train_step(teacher, CONFIG)
