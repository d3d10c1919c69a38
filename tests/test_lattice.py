"""The permutohedral lattice against the Gaussian itself, and the geometry of its simplices."""

import numpy as np
import pytest

from deeplab_tf.errors import DeepLabError
from deeplab_tf.ops import lattice
from deeplab_tf.ops.lattice import gaussian_kernel


def features(dimensions: int, points: int = 400, spread: float = 1.0) -> np.ndarray:
    return np.random.default_rng(dimensions).uniform(-3, 3, (dimensions, points)).astype(np.float32) * spread


def exact(values: np.ndarray) -> np.ndarray:
    kernel = np.exp(-((values[:, :, None] - values[:, None, :]) ** 2).sum(0).astype(np.float64) / 2)
    norm = 1 / np.sqrt(kernel.sum(1))
    return kernel * norm[:, None] * norm


def dense(kernel) -> np.ndarray:
    return kernel(np.eye(kernel.splat.shape[0], dtype=np.float32))


@pytest.mark.parametrize(("dimensions", "worst"), [(1, 0.04), (2, 0.07), (5, 0.15)])
def test_the_kernel_is_nearly_the_gaussian(dimensions, worst):
    values = features(dimensions, spread=0.3)
    truth, found = exact(values), dense(gaussian_kernel(values))
    assert np.linalg.norm(found - truth) < worst * np.linalg.norm(truth)
    assert np.corrcoef(found.ravel(), truth.ravel())[0, 1] > 0.97
    assert found.sum() == pytest.approx(truth.sum(), rel=0.003)


def test_points_far_apart_do_not_meet():
    values = np.concatenate([features(5, 30), features(5, 30) + 100], axis=1)
    found = dense(gaussian_kernel(values))
    assert not found[:30, 30:].any() and not found[30:, :30].any()
    assert found[:30, :30].any(axis=1).all()


def test_a_point_alone_keeps_its_value():
    found = gaussian_kernel(np.zeros((5, 1), np.float32))(np.array([[3.0, 4.0]], np.float32))
    np.testing.assert_allclose(found, [[3.0, 4.0]], rtol=1e-5)


def test_equal_points_share_equally():
    np.testing.assert_allclose(dense(gaussian_kernel(np.full((2, 4), 0.3, np.float32))), 0.25, rtol=1e-4)


@pytest.mark.parametrize("dimensions", [1, 2, 5])
def test_each_point_is_the_weighted_mean_of_its_vertices(dimensions):
    elevated = lattice._elevated(features(dimensions, 2000, 3.0))
    origin, offset, rank = lattice._simplex(elevated)
    size = dimensions + 1
    assert not origin.sum(0).any() and not (origin % size).any()
    assert (np.sort(rank, 0) == np.arange(size)[:, None]).all()
    weights = lattice._weights(offset, rank)
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-5)
    assert weights.min() > -1e-5
    mean = 0
    for remainder in range(size):
        vertex = origin + remainder - size * (rank > dimensions - remainder)
        assert not vertex.sum(0).any() and (vertex % size == remainder).all()
        mean = mean + weights[:, remainder] * vertex
    np.testing.assert_allclose(mean, elevated, atol=1e-3)


def test_codes_tell_vertices_apart_and_neighbours_lie_a_step_away():
    origin, _, rank = lattice._simplex(lattice._elevated(features(3, 3000, 2.0)))
    codes, steps = lattice._codes(origin, rank)
    place = {}
    for remainder in range(4):
        vertices = origin + remainder - 4 * (rank > 3 - remainder)
        for code, vertex in zip(codes[:, remainder].tolist(), vertices.T.tolist(), strict=True):
            assert place.setdefault(code, vertex) == vertex
    assert len({tuple(vertex) for vertex in place.values()}) == len(place)
    neighbours = 0
    for axis, step in enumerate(steps.tolist()):
        along = np.ones(4, int) - 4 * (np.arange(4) == axis)
        known = {tuple(vertex) for vertex in place.values()}
        for code, vertex in place.items():
            other = tuple(np.add(vertex, along).tolist())
            assert (code + step in place) == (other in known)
            if other in known:
                neighbours += 1
                assert tuple(place[code + step]) == other
    assert neighbours > len(place)


@pytest.mark.parametrize("spread", [0.2, 30.0])
def test_multiplied_blurs_do_the_same(monkeypatch, spread):
    values, signal = features(5, 3000, spread), features(7, 3000).T.copy()
    grouped = gaussian_kernel(values)
    monkeypatch.setattr(lattice, "_LONGEST_ROW", 0)
    single = gaussian_kernel(values)
    assert len(single.blurs) == 6 > len(grouped.blurs)
    np.testing.assert_allclose(grouped(signal), single(signal), atol=2e-6)


def test_a_scaled_kernel_multiplies_both_ends():
    kernel = gaussian_kernel(features(2, 50))
    factors = np.linspace(0.5, 2, 50)
    np.testing.assert_allclose(dense(kernel.scaled(factors)), dense(kernel) * factors[:, None] * factors, rtol=1e-5)


def test_features_that_spread_too_far_are_refused():
    with pytest.raises(DeepLabError, match="larger sigmas"):
        gaussian_kernel(features(5, 50, 1e5))
