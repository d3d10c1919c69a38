"""The outlines of the shapes data set (data/shapes.py), each a function of the place.

float32 x, y (any equal shape; y downwards) -> about the distance to the outline, negative inside. Each fits the circle
of radius 1. Only arithmetic that IEEE 754 rounds one way, as there.
"""

from collections.abc import Callable

import numpy as np


def _half_planes(x, y, directions) -> tuple[np.ndarray, np.ndarray]:
    """Returns the largest and the second largest of the projections on `directions`."""
    first = np.full_like(x, -9)
    second = first
    for dx, dy in directions:
        projection = x * np.float32(dx) + y * np.float32(dy)
        second = np.maximum(second, np.minimum(first, projection))
        first = np.maximum(first, projection)
    return first, second


_THIRDS = ((0, 1), (0.8660254, -0.5), (-0.8660254, -0.5))
_FIFTHS = (
    (0, 1),
    (0.95105652, 0.30901699),
    (0.58778525, -0.80901699),
    (-0.58778525, -0.80901699),
    (-0.95105652, 0.30901699),
)


def _radius(x, y):
    return np.sqrt(x * x + y * y)


def _circle(x, y):
    return _radius(x, y) - np.float32(0.9)


def _triangle(x, y):
    return _half_planes(x, y, _THIRDS)[0] - np.float32(0.5)


def _square(x, y):
    return np.maximum(abs(x), abs(y)) - np.float32(0.75)


def _star(x, y):
    # Inside at least four of the five half planes of a pentagon is the five-pointed star around it.
    return _half_planes(x, y, _FIFTHS)[1] - np.float32(0.33)


def _ring(x, y):
    return abs(_radius(x, y) - np.float32(0.74)) - np.float32(0.25)


def _cross(x, y):
    x, y = abs(x), abs(y)
    thin, long = np.float32(0.29), np.float32(0.95)
    return np.minimum(np.maximum(x - thin, y - long), np.maximum(x - long, y - thin))


def _crescent(x, y):
    return np.maximum(_radius(x, y) - 1, np.float32(0.82) - _radius(x - np.float32(0.5), y))


def _heart(x, y):
    # A square on its corner, and a disc on each of its two upper edges.
    half, centre = np.float32(0.54), np.float32(0.38183766)
    x, y = abs(x), np.float32(0.08) - y
    diamond = (x + abs(y)) * np.float32(0.70710678) - half
    return np.minimum(diamond, _radius(x - centre, y - centre) - half)


# In the order of the classes from 1 on.
OUTLINES: tuple[Callable[[np.ndarray, np.ndarray], np.ndarray], ...] = (
    _circle,
    _triangle,
    _square,
    _star,
    _ring,
    _cross,
    _crescent,
    _heart,
)
