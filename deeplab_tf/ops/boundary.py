"""How good a segmentation is where classes meet: trimap bands, boundary IoU, contour F-score. SciPy alone.

Labels and predictions are integer class maps [h, w] of one image; distances are in its pixels. What is labelled
`ignore_label` never counts: predictions there are taken to be right, so that a perfect prediction scores 1 even where
void surrounds the objects.
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy import ndimage, spatial

from deeplab_tf.ops.metrics import Counts

TRIMAP_WIDTHS = (1, 2, 3, 4, 6, 8, 10, 15, 20, 30, 40)


def contours(labels: np.ndarray, ignore_label: int = 255) -> np.ndarray:
    """Returns where a class ends: bool [h, w], pixels with one of their four neighbours in another class or in void.

    Pixels of void, and the picture's rim by itself, are no contour.
    """
    found = np.zeros(labels.shape, bool)
    across, down = labels[:, 1:] != labels[:, :-1], labels[1:] != labels[:-1]
    found[:, 1:] |= across
    found[:, :-1] |= across
    found[1:] |= down
    found[:-1] |= down
    return found & (labels != ignore_label)


def trimap_matrices(
    label: np.ndarray,
    prediction: np.ndarray,
    num_classes: int,
    *,
    widths: Sequence[int] = TRIMAP_WIDTHS,
    ignore_label: int = 255,
    around_void: bool = True,
) -> np.ndarray:
    """Returns confusion matrices int64 [widths, classes, classes] of the bands around boundaries, wider and wider.

    As v1 Fig. 7, v2 Fig. 10 and v3+ Fig. 5: a band is what a square of 2 * width + 1 pixels reaches from the void
    labels, which in PASCAL VOC lie between the objects. Without `around_void`, for sets that have no such void: the
    pixels of that many on each side of the boundaries between classes.

    Args:
      widths: in pixels, ascending.
    """
    near = label == ignore_label if around_void else contours(label, ignore_label)
    shape = (len(widths), num_classes, num_classes)
    if not near.any():
        return np.zeros(shape, np.int64)
    distance = ndimage.distance_transform_cdt(~near, "chessboard")
    distance += not around_void  # a contour is the first pixel of a band, void is none
    band = np.searchsorted(widths, np.arange(widths[-1] + 1))  # of each distance
    inside = np.flatnonzero((distance <= widths[-1]) & (label != ignore_label))
    cells = band[distance.ravel()[inside]]
    for values in (label, prediction):
        cells = cells * num_classes + values.ravel()[inside]
    return np.bincount(cells, minlength=math.prod(shape)).reshape(shape).cumsum(0)


def _boundary_region(labels: np.ndarray, width: int) -> np.ndarray:
    """Where another class, or the end of the picture, is within `width` pixels: bool [h, w]."""
    reach = {"size": 2 * width + 1, "mode": "constant", "cval": -1}
    return (ndimage.minimum_filter(labels, **reach) != labels) | (ndimage.maximum_filter(labels, **reach) != labels)


def boundary_counts(
    label: np.ndarray, prediction: np.ndarray, num_classes: int, *, ignore_label: int = 255, ratio: float = 0.02
) -> Counts:
    """Returns the counts whose IoU is the boundary IoU of each class (Cheng et al., CVPR 2021).

    Of each class counts only what lies inside it within `ratio` of the picture's diagonal from its edge; the picture's
    rim is an edge, as in their code. Sums of counts over images give the score of all.
    """
    ignored, width = label == ignore_label, max(1, round(ratio * math.hypot(*label.shape)))
    # One class more for void; 16 bits are faster than 32.
    maps = [np.where(ignored, num_classes, values).astype(np.int16) for values in (label, prediction)]
    regions = [_boundary_region(values, width) & ~ignored for values in maps]
    both = regions[0] & regions[1] & (maps[0] == maps[1])
    kept = (maps[0][both], maps[0][regions[0]], maps[1][regions[1]])
    return Counts(*(np.bincount(values, minlength=num_classes) for values in kept))


def contour_f_scores(
    label: np.ndarray, prediction: np.ndarray, num_classes: int, *, ignore_label: int = 255, ratio: float = 0.0075
) -> np.ndarray:
    """Returns the boundary F-score of each class, float64 [classes] (Csurka et al., BMVC 2013).

    Precision is the share of the class's predicted contour that lies within `ratio` of the picture's diagonal of its
    true contour, recall the other way round. NaN for a class without contour in both, 0 for one with it in one alone.
    The score of a data set is the mean over images of their means over classes.
    """
    prediction = np.where(label == ignore_label, label, prediction)
    reach, found = ratio * math.hypot(*label.shape), []
    for values in (label, prediction):
        rows, columns = np.nonzero(contours(values, ignore_label))
        found.append((rows, columns, values[rows, columns]))
    # One tree for all classes, which lie out of reach of each other in a third dimension.
    points = [np.stack([rows, columns, classes * 4 * reach], axis=1) for rows, columns, classes in found]
    totals, near = [], []
    for own, (_, _, classes), others in zip(points, found, points[::-1], strict=True):
        totals.append(np.bincount(classes, minlength=num_classes))
        near.append(np.bincount(classes[_within(own, others, reach)], minlength=num_classes))
    recall, precision = (n / np.maximum(total, 1) for n, total in zip(near, totals, strict=True))
    f_score = 2 * recall * precision / np.maximum(recall + precision, np.finfo(float).tiny)
    return np.where(totals[0] + totals[1] > 0, f_score, np.nan)


def _within(points: np.ndarray, others: np.ndarray, reach: float) -> np.ndarray:
    """Returns which of `points` [n, 3] have one of `others` [m, 3] at most `reach` away: bool [n]."""
    if not len(points) or not len(others):
        return np.zeros(len(points), bool)
    tree = spatial.cKDTree(others, balanced_tree=False, compact_nodes=False)
    return tree.query(points, distance_upper_bound=reach + 1e-3)[0] <= reach  # the bound, exclusive, is for speed
