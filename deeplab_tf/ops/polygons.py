"""Masks as polygons: simple rings along the edges of the pixels, which cover a mask exactly."""

import numpy as np

Ring = np.ndarray  # int64 [n, 2], x and y of the corners


def _ring(mask: np.ndarray) -> Ring:
    """Returns the outline of a 4-connected mask without holes, clockwise from its topmost left corner."""
    padded = np.pad(mask, 1)
    inside = padded[1:-1, 1:-1]
    # One edge of a pixel on each side where there is no pixel, with the mask to the right of its direction.
    sides = (
        (inside & ~padded[:-2, 1:-1], (0, 0), (1, 0)),
        (inside & ~padded[1:-1, 2:], (1, 0), (1, 1)),
        (inside & ~padded[2:, 1:-1], (1, 1), (0, 1)),
        (inside & ~padded[1:-1, :-2], (0, 1), (0, 0)),
    )
    following: dict[tuple[int, int], tuple[int, int]] = {}
    for edges, start, end in sides:
        rows, columns = np.nonzero(edges)
        starts = zip((columns + start[0]).tolist(), (rows + start[1]).tolist(), strict=True)
        ends = zip((columns + end[0]).tolist(), (rows + end[1]).tolist(), strict=True)
        following |= zip(starts, ends, strict=True)
    first: tuple[int, int] = (int(np.flatnonzero(mask[0])[0]), 0)
    corners: list[tuple[int, int]] = [first]
    corner = following[first]
    while corner != first:
        corners.append(corner)
        corner = following[corner]
    ring = np.array(corners, np.int64)
    straight = (ring - np.roll(ring, 1, axis=0) == np.roll(ring, -1, axis=0) - ring).all(axis=1)
    return ring[~straight]


def rings(mask: np.ndarray) -> list[Ring]:
    """Returns polygons that cover the True pixels of a mask, and nothing else.

    Each is simple and encloses 4-connected pixels without a hole: a part with holes is cut along rows, since the
    formats that take polygons have no holes.

    Args:
      mask: bool [h, w].

    Returns:
      Rings of the corners of pixels, x in 0..w and y in 0..h; the pixel in row r and column c covers c..c+1, r..r+1.
    """
    from scipy import ndimage

    found: list[Ring] = []
    waiting = [(0, 0, mask)]
    while waiting:
        top, left, part = waiting.pop()
        labels, _ = ndimage.label(part)
        for number, (rows, columns) in enumerate(ndimage.find_objects(labels), 1):
            piece = labels[rows, columns] == number
            y, x = top + rows.start, left + columns.start
            holes, count = ndimage.label(ndimage.binary_fill_holes(piece) & ~piece)
            if count:
                # A hole whose first row begins a part lies open at its edge. The middle one halves the others.
                beginnings = sorted(hole[0].start for hole in ndimage.find_objects(holes))
                cut = beginnings[count // 2]
                waiting += [(y, x, piece[:cut]), (y + cut, x, piece[cut:])]
            else:
                found.append(_ring(piece) + (x, y))
    return found
