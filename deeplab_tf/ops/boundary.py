"""Scores of a segmentation along the borders between classes: trimap bands, boundary IoU, contour F-score.

Labels and predictions are integer class maps [h, w] of one image; distances are in its pixels. Pixels labelled
`ignore_label` never count: predictions there are taken to be right, so that a perfect prediction scores 1 even if void
surrounds the objects.
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy import ndimage, spatial

from deeplab_tf.ops.metrics import Counts

TRIMAP_WIDTHS = (1, 2, 3, 4, 6, 8, 10, 15, 20, 30, 40)


def contours(labels: np.ndarray, ignore_label: int = 255) -> np.ndarray:
    """Returns the ends of classes: bool [h, w], pixels with one of their four neighbours in another class or in void.

    Pixels of void are not a contour, nor is the picture's rim by itself.
    """
    ends = np.zeros(labels.shape, bool)
    across = labels[:, 1:] != labels[:, :-1]
    down = labels[1:] != labels[:-1]
    ends[:, 1:] |= across
    ends[:, :-1] |= across
    ends[1:] |= down
    ends[:-1] |= down
    return ends & (labels != ignore_label)


def trimap_matrices(
    label: np.ndarray,
    prediction: np.ndarray,
    num_classes: int,
    *,
    widths: Sequence[int] = TRIMAP_WIDTHS,
    ignore_label: int = 255,
    around_void: bool = True,
) -> np.ndarray:
    """Returns confusion matrices int64 [widths, classes, classes] of wider and wider bands around boundaries.

    Source: v1 Fig. 7, v2 Fig. 10 and v3+ Fig. 5.

    Args:
      label: integers [h, w].
      prediction: integers [h, w] in 0..num_classes - 1.
      num_classes: number of classes.
      widths: of the bands, in pixels, ascending.
      ignore_label: pixels with this label do not count.
      around_void: a band is what a square of 2 * width + 1 pixels reaches from the void labels, which in PASCAL VOC lie
        between the objects; False, for sets without such void: `width` pixels on each side of the contours.
    """
    near = label == ignore_label if around_void else contours(label, ignore_label)
    shape = (len(widths), num_classes, num_classes)
    if not near.any():
        return np.zeros(shape, np.int64)
    distance = ndimage.distance_transform_cdt(~near, "chessboard")
    if not around_void:
        distance += 1  # a contour is the first pixel of a band, void is not part of it
    narrowest = np.searchsorted(widths, np.arange(widths[-1] + 1))  # band that holds a distance
    inside = np.flatnonzero((distance <= widths[-1]) & (label != ignore_label))
    cells = narrowest[distance.ravel()[inside]]
    for values in (label, prediction):
        cells = cells * num_classes + values.ravel()[inside]
    return np.bincount(cells, minlength=math.prod(shape)).reshape(shape).cumsum(0)


def _boundary_region(labels: np.ndarray, width: int) -> np.ndarray:
    """Returns the pixels with another class, or the end of the picture, within `width` pixels: bool [h, w]."""
    lowest = ndimage.minimum_filter(labels, 2 * width + 1, mode="constant", cval=-1)
    highest = ndimage.maximum_filter(labels, 2 * width + 1, mode="constant", cval=-1)
    return (lowest != labels) | (highest != labels)


def boundary_counts(
    label: np.ndarray, prediction: np.ndarray, num_classes: int, *, ignore_label: int = 255, ratio: float = 0.02
) -> Counts:
    """Returns the counts whose IoU is the boundary IoU of each class (Cheng et al., CVPR 2021).

    Of each class only those pixels count that lie inside it within `ratio` of the picture's diagonal from its edge; the
    picture's rim is an edge, as in the authors' code. Sums of counts over images give the score of all.
    """
    ignored = label == ignore_label
    width = max(1, round(ratio * math.hypot(*label.shape)))
    # One class more for void; 16 bits are faster than 32.
    maps = [np.where(ignored, num_classes, values).astype(np.int16) for values in (label, prediction)]
    regions = [_boundary_region(values, width) & ~ignored for values in maps]
    both = regions[0] & regions[1] & (maps[0] == maps[1])
    return Counts(
        hits=np.bincount(maps[0][both], minlength=num_classes),
        labelled=np.bincount(maps[0][regions[0]], minlength=num_classes),
        predicted=np.bincount(maps[1][regions[1]], minlength=num_classes),
    )


def contour_f_scores(
    label: np.ndarray, prediction: np.ndarray, num_classes: int, *, ignore_label: int = 255, ratio: float = 0.0075
) -> np.ndarray:
    """Returns the boundary F-score of each class, float64 [classes] (Csurka et al., BMVC 2013).

    Precision is the share of the class's predicted contour that lies within `ratio` of the picture's diagonal of its
    true contour; recall is the same with the two exchanged. The score is NaN for a class without a contour in both, and
    0 for one with a contour in only one of them. The score of a data set is the mean over images of their means over
    classes.
    """
    prediction = np.where(label == ignore_label, label, prediction)
    reach = ratio * math.hypot(*label.shape)
    true_points, true_classes = _contour_points(label, ignore_label, reach)
    predicted_points, predicted_classes = _contour_points(prediction, ignore_label, reach)
    matched = true_classes[_within(true_points, predicted_points, reach)]
    true_total, recall = _shares(matched, true_classes, num_classes)
    matched = predicted_classes[_within(predicted_points, true_points, reach)]
    predicted_total, precision = _shares(matched, predicted_classes, num_classes)
    f_score = 2 * recall * precision / np.maximum(recall + precision, np.finfo(float).tiny)
    return np.where(true_total + predicted_total > 0, f_score, np.nan)


def _contour_points(labels: np.ndarray, ignore_label: int, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns the points of all contours, float64 [n, 3], and their classes, integers [n].

    The third coordinate puts classes out of `reach` of each other, so that one tree serves for all.
    """
    rows, columns = np.nonzero(contours(labels, ignore_label))
    classes = labels[rows, columns]
    return np.stack([rows, columns, classes * (4 * reach)], axis=1), classes


def _shares(part: np.ndarray, classes: np.ndarray, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the number of points of each class, and the share of them that are in `part`."""
    total = np.bincount(classes, minlength=num_classes)
    return total, np.bincount(part, minlength=num_classes) / np.maximum(total, 1)


def _within(points: np.ndarray, others: np.ndarray, reach: float) -> np.ndarray:
    """Returns which of `points` [n, 3] have one of `others` [m, 3] at most `reach` away: bool [n]."""
    if not len(points) or not len(others):
        return np.zeros(len(points), bool)
    tree = spatial.cKDTree(others, balanced_tree=False, compact_nodes=False)
    distance, _ = tree.query(points, distance_upper_bound=reach + 1e-3)  # the bound, exclusive, is for speed
    return distance <= reach
