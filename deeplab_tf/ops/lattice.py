"""Gaussian filters in few dimensions: the permutohedral lattice as a short chain of sparse matrices.

Adams, Baek and Davis, "Fast high-dimensional filtering using the permutohedral lattice" (2010): d features of a point
are embedded in d + 1 coordinates of sum 0; the vertices of the simplex around it share its value (splat), are blurred
along the d + 1 axes of the lattice, and give the result back (slice).
"""

import dataclasses
import itertools
import math

import numpy as np
from scipy import sparse

from deeplab_tf.errors import DeepLabError

# A product of blurs saves passes over the vertices as long as its rows stay about this short.
_LONGEST_ROW = 8
_LARGEST_CODE = 2.0**62  # leaves room for sums in 64 bits


def _elevated(features: np.ndarray) -> np.ndarray:
    """Returns features [d, n] embedded in the plane of coordinates with sum 0, float32 [d + 1, n].

    They are scaled so that splat, blur and slice together have the standard deviation 1 in the features' unit.
    """
    d, n = features.shape
    result = np.empty((d + 1, n), np.float32)
    total = np.zeros(n, np.float32)
    for j in range(d, 0, -1):
        part = features[j - 1] * np.float32(math.sqrt(2 / 3) * (d + 1) / math.sqrt(j * (j + 1)))
        result[j] = total - j * part
        total += part
    result[0] = total
    return result


def _simplex(elevated: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the simplex of the lattice around each point.

    Returns:
      Its vertex of remainder 0, that is with multiples of d + 1 as coordinates, int64 [d + 1, n]; the point's offset
      from there, float32 [d + 1, n]; the rank of each coordinate of the offset, 0 for the largest, int64 [d + 1, n].
    """
    size = len(elevated)
    origin = np.rint(elevated * np.float32(1 / size))
    excess = origin.sum(0).astype(np.int64)
    origin *= size
    offset = elevated - origin
    # So few coordinates are ranked faster by comparing all pairs than by sorting.
    rank = np.zeros(elevated.shape, np.int64)
    for i, j in itertools.combinations(range(size), 2):
        less = offset[i] < offset[j]
        rank[i] += less
        rank[j] += ~less
    # Rounded one by one, the coordinates need not have the sum 0 any more. As many of them as `excess` says move by one
    # multiple of d + 1 to restore it: those that were rounded furthest, whose ranks now lie outside 0..d and wrap.
    rank += excess
    shift = size * ((rank < 0).astype(np.int64) - (rank >= size))
    return origin.astype(np.int64) + shift, offset - shift, rank + shift


def _by_rank(values: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """Returns `values` [d + 1, n or 1] with each column in the order of its `rank`."""
    result = np.empty(rank.shape, values.dtype)
    np.put_along_axis(result, rank, np.broadcast_to(values, rank.shape), 0)
    return result


def _weights(offset: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """Returns each point's barycentric coordinates float32 [n, d + 1], one for the vertex of each remainder."""
    # A vertex's share is the difference between two neighbours among the offsets in the order of their ranks.
    steps = _by_rank(offset, rank) * np.float32(1 / len(rank))
    weights = np.empty(rank.T.shape, np.float32)
    weights[:, 0] = 1 + steps[-1] - steps[0]
    weights[:, 1:] = (steps[:-1] - steps[1:])[::-1].T
    return weights


def _codes(origin: np.ndarray, rank: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the vertices as numbers, linear in their coordinates: what a hash table does elsewhere, a sort does here.

    Returns:
      int64 codes of the vertices [n, d + 1]; the difference of code between neighbours along each of the d + 1 axes.
    """
    size = len(origin)
    # The last coordinate follows from the others. The margin keeps neighbours' codes from running into the next row.
    low = origin[:-1].min(1) - 2 * size
    spans = origin[:-1].max(1) + 2 * size - low
    if math.prod(map(float, spans)) > _LARGEST_CODE:
        raise DeepLabError("the features of a Gaussian kernel spread too far; give larger sigmas")
    strides = np.append(np.cumprod(spans[:0:-1])[::-1], 1)
    code = strides @ (origin[:-1] - low[:, None])
    # The vertex of the next remainder is one further along every coordinate, but d back along that of the largest rank
    # left.
    backs = _by_rank(np.append(size * strides, 0)[:, None], rank)
    codes = np.empty(rank.T.shape, np.int64)
    for remainder in range(size):
        codes[:, remainder] = code
        code = code + strides.sum() - backs[size - 1 - remainder]
    return codes, strides.sum() - np.append(size * strides, 0)


def _blur(codes: np.ndarray, step: int) -> sparse.csr_matrix:
    """Returns the filter 1/2, 1, 1/2 along one axis between the vertices that exist; `codes` are sorted."""
    neighbours = codes + step
    index = np.searchsorted(codes, neighbours)
    index[index == len(codes)] = 0
    # Most vertices of a photograph's lattice lack a neighbour; the filter takes it as 0, as the authors' does.
    before = np.flatnonzero(codes[index] == neighbours).astype(np.int32)
    after = index[before].astype(np.int32)
    own = np.arange(len(codes), dtype=np.int32)
    values = np.full(len(own) + 2 * len(before), 0.5, np.float32)
    values[: len(own)] = 1.0
    rows = np.concatenate([own, before, after])
    columns = np.concatenate([own, after, before])
    return sparse.csr_matrix((values, (rows, columns)), shape=(len(own), len(own)))


def _blurs(codes: np.ndarray, steps: np.ndarray) -> tuple[sparse.csr_matrix, ...]:
    """Returns the blurs along all axes, in order, some multiplied together."""
    groups: list[sparse.csr_matrix] = []
    for step in steps:
        blur = _blur(codes, step)
        # The mean lengths of the two matrices' rows multiply, or less where rows overlap.
        if groups and groups[-1].nnz * blur.nnz <= _LONGEST_ROW * float(len(codes)) ** 2:
            groups[-1] = blur @ groups[-1]
        else:
            groups.append(blur)
    return tuple(groups)


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A Gaussian of the distance between features, as a chain of sparse matrices.

    `splat` is [points, vertices] with d + 1 values in each row; `blurs` are [vertices, vertices], the first applied
    first.
    """

    splat: sparse.csr_matrix
    blurs: tuple[sparse.csr_matrix, ...]

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Returns the filtered `values`, float32 [points, channels]."""
        values = self.splat.T @ values
        for blur in self.blurs:
            values = blur @ values
        return self.splat @ values

    def scaled(self, factors: np.ndarray) -> "Kernel":
        """Returns the kernel whose value between points i and j is factors[i] * factors[j] times this one's.

        `factors` are [points], or [1] for all.
        """
        splat = self.splat
        row_length = splat.indptr[1]
        data = (splat.data.reshape(-1, row_length) * factors.astype(np.float32)[:, None]).ravel()
        return Kernel(sparse.csr_matrix((data, splat.indices, splat.indptr), shape=splat.shape), self.blurs)


def gaussian_kernel(features: np.ndarray) -> Kernel:
    """Returns the kernel exp(-|f_i - f_j|^2 / 2) between n points, normalised symmetrically.

    It is divided by the square roots of both points' sums over all points, themselves included, as the CRF's authors do
    in their code.

    Args:
      features: [d, n], in standard deviations.

    Raises:
      DeepLabError: the features spread so far that the vertices cannot be numbered in 64 bits.
    """
    origin, offset, rank = _simplex(_elevated(features))
    codes, steps = _codes(origin, rank)
    vertices, columns = np.unique(codes, return_inverse=True)
    n, size = codes.shape
    row_starts = np.arange(0, n * size + 1, size, dtype=np.int32)
    splat = (_weights(offset, rank).ravel(), columns.reshape(-1).astype(np.int32), row_starts)
    kernel = Kernel(sparse.csr_matrix(splat, shape=(n, len(vertices))), _blurs(vertices, steps))
    sums = kernel(np.ones((n, 1), np.float32))[:, 0]
    return kernel.scaled(1 / np.sqrt(np.maximum(sums, 1e-20)))
