"""The outlines of the shapes data set (data/shapes.py): functions from coordinates to the distance to an outline.

Each takes float32 x and y of one shape, y downwards, and returns float32 of that shape: about the distance to the
outline, negative inside. Each outline fits into the circle of radius 1. As in data/shapes.py only the arithmetic that
IEEE 754 rounds in one way is used, so that pictures are equal on every machine.
"""

from collections.abc import Callable, Sequence

import numpy as np

Floats = np.ndarray  # float32 [h, w], one number for each pixel


def _half_planes(x: Floats, y: Floats, directions: Sequence[tuple[float, float]]) -> tuple[Floats, Floats]:
    """Returns the largest and the second largest of the projections of (x, y) on `directions`."""
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


def _radius(x: Floats, y: Floats) -> Floats:
    return np.sqrt(x * x + y * y)


def _circle(x: Floats, y: Floats) -> Floats:
    return _radius(x, y) - np.float32(0.9)


def _triangle(x: Floats, y: Floats) -> Floats:
    return _half_planes(x, y, _THIRDS)[0] - np.float32(0.5)


def _square(x: Floats, y: Floats) -> Floats:
    return np.maximum(abs(x), abs(y)) - np.float32(0.75)


def _star(x: Floats, y: Floats) -> Floats:
    # The points inside at least four of the five half planes of a pentagon form the five-pointed star around it.
    return _half_planes(x, y, _FIFTHS)[1] - np.float32(0.33)


def _ring(x: Floats, y: Floats) -> Floats:
    return abs(_radius(x, y) - np.float32(0.74)) - np.float32(0.25)


def _cross(x: Floats, y: Floats) -> Floats:
    x = abs(x)
    y = abs(y)
    thin = np.float32(0.29)
    long = np.float32(0.95)
    return np.minimum(np.maximum(x - thin, y - long), np.maximum(x - long, y - thin))


def _crescent(x: Floats, y: Floats) -> Floats:
    return np.maximum(_radius(x, y) - 1, np.float32(0.82) - _radius(x - np.float32(0.5), y))


def _heart(x: Floats, y: Floats) -> Floats:
    # A square on its corner, and a disc on each of its two upper edges.
    half = np.float32(0.54)
    centre = np.float32(0.38183766)
    x = abs(x)
    y = np.float32(0.08) - y
    diamond = (x + abs(y)) * np.float32(0.70710678) - half
    return np.minimum(diamond, _radius(x - centre, y - centre) - half)


# In the order of the classes from 1 on.
OUTLINES: tuple[Callable[[Floats, Floats], Floats], ...] = (
    _circle,
    _triangle,
    _square,
    _star,
    _ring,
    _cross,
    _crescent,
    _heart,
)
