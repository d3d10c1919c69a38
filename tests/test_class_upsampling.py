"""The ways of upsampling classes: the fastest is found, compiled where that pays. Clocks are fakes."""

import numpy as np
import tensorflow as tf
from test_measured_runtime import LOGITS, Clock

from deeplab_tf.inference import class_upsampling
from deeplab_tf.inference.class_upsampling import ClassUpsampling


class Ways:
    """Ways that take a number of seconds each, and note their names."""

    def __init__(self, monkeypatch, **seconds):
        self.clock, self.seconds, self.calls = Clock(), seconds, []
        monkeypatch.setattr(class_upsampling, "_WAYS", {name: self.way(name) for name in ("sparse", "plain")})
        monkeypatch.setattr(class_upsampling, "compile_classes", lambda shape, size: self.way("compiled"))

    def way(self, name):
        def run(logits, size):
            self.clock.now += self.seconds[name]
            self.calls.append(name)

        return run


def test_the_fastest_way_is_found(monkeypatch):
    ways = Ways(monkeypatch, sparse=0.004, plain=0.006, compiled=0.001)
    classes = ClassUpsampling(ways.clock)
    for _ in range(60):
        classes(LOGITS, (65, 97))
    assert ways.calls[:6] == ["sparse", "sparse", "plain", "plain", "sparse", "sparse"]
    # 0.02 s for the trials and 33 times 0.004 s are more than 0.15 s.
    assert set(ways.calls[4:37]) == {"sparse"} and set(ways.calls[37:]) == {"compiled"}


def test_without_xla(monkeypatch):
    ways = Ways(monkeypatch, sparse=0.04, plain=0.06, compiled=0.001)

    def refuse(logits, size):
        ways.calls.append("refused")
        raise tf.errors.UnimplementedError(None, None, "no XLA")

    monkeypatch.setattr(class_upsampling, "compile_classes", lambda shape, size: refuse)
    monkeypatch.setattr(class_upsampling, "plain_classes", ways.way("plain"))
    classes = ClassUpsampling(ways.clock)
    for _ in range(60):
        classes(LOGITS, (65, 97))
    assert ways.calls.count("refused") == 2 and ways.calls[-1] == "sparse"


def test_few_pictures_of_a_size_are_not_compiled_for(monkeypatch):
    ways = Ways(monkeypatch, sparse=0.004, plain=0.006, compiled=0.001)
    classes = ClassUpsampling(ways.clock)
    for number in range(60):
        classes(np.zeros((1, 5, 3 + number % 6, 6), np.float32), (65, 16 * (2 + number % 6) + 1))
    assert "compiled" not in ways.calls


def test_pictures_may_change(monkeypatch):
    ways = Ways(monkeypatch, sparse=0.02, plain=0.03, compiled=0.09)
    classes = ClassUpsampling(ways.clock)
    for _ in range(40):
        classes(LOGITS, (65, 97))
    assert ways.calls.count("compiled") == 3 and ways.calls[-1] == "sparse"
    ways.seconds["sparse"] = 0.08
    for _ in range(10):
        classes(LOGITS, (65, 97))
    assert ways.calls[-1] == "plain"
