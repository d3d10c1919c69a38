"""Outlines: inside the unit circle, unlike each other, in the order of the classes."""

import numpy as np
import pytest

from deeplab_tf.catalog import datasets
from deeplab_tf.data.outlines import OUTLINES


def _outline(number: int, side: int = 201) -> np.ndarray:
    axis = np.linspace(-1.2, 1.2, side, dtype=np.float32)
    return OUTLINES[number](*np.meshgrid(axis, axis)) <= 0


def test_outlines_fit_the_unit_circle_and_differ():
    masks = [_outline(n) for n in range(len(OUTLINES))]
    axis = np.linspace(-1.2, 1.2, 201)
    outside = np.hypot(*np.meshgrid(axis, axis)) > 1.1
    assert not any((mask & outside).any() for mask in masks)
    for i, a in enumerate(masks):
        for b in masks[:i]:
            assert (a & b).sum() / (a | b).sum() < 0.85
    names = datasets.DATASETS["shapes"].class_names[1:]
    centre = {name: bool(mask[100, 100]) for name, mask in zip(names, masks, strict=True)}
    assert centre == {name: name not in ("ring", "crescent") for name in names}
    circle, square = masks[0].mean() * 2.4**2, masks[2].mean() * 2.4**2
    assert circle == pytest.approx(np.pi * 0.81, rel=0.02)
    assert square == pytest.approx(2.25, rel=0.03)
