"""What a model is unsure of in a picture, and the order in which pictures are worth labelling.

A picture counts as its least sure regions do, since a mean over all pixels drowns a small thing that is not known in a
large sky that is. (Entropy of regions as in Mackowiak et al., 2018, CEREALS, and Xie et al., 2022, RIPU.)
"""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from deeplab_tf.evaluation.report.thumbnails import distances, usual_distance
from deeplab_tf.labelling.pictures import Place, as_box

_FIELDS = 16  # of the longer side, which regions are made of
_SHARE = 0.1  # of the fields: those that the picture's score is the mean of
_PLACES = 8
_SPREAD = 400  # pictures that are put in order by their distances too; the rest is by score alone


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """Returns the entropy of each pixel, as a share of the largest that there is.

    Args:
      probabilities: float32 [h, w, classes].

    Returns:
      float32 [h, w] in 0..1.
    """
    classes = probabilities.shape[-1]
    if classes < 2:
        return np.zeros(probabilities.shape[:2], np.float32)
    logs = np.log(np.maximum(probabilities, 1e-12))
    return np.clip(-(probabilities * logs).sum(-1) / np.log(classes), 0, 1).astype(np.float32)


def _fields(values: np.ndarray) -> tuple[np.ndarray, int]:
    """Returns the means of square fields of [h, w], and their side."""
    side = max(1, -(-max(values.shape) // _FIELDS))
    rows, columns = np.arange(0, values.shape[0], side), np.arange(0, values.shape[1], side)
    sums = np.add.reduceat(np.add.reduceat(values, rows, 0), columns, 1)
    counts = np.outer(np.diff(rows, append=values.shape[0]), np.diff(columns, append=values.shape[1]))
    return sums / counts, side


def unsure_places(unsure: np.ndarray) -> tuple[float, tuple[Place, ...]]:
    """Returns the score of a picture, the mean of its least sure tenth, and its least sure places, the worst first.

    Args:
      unsure: the entropy of each pixel, float32 [h, w].
    """
    fields, side = _fields(unsure)
    counted = max(1, round(_SHARE * fields.size))
    least = np.partition(fields.ravel(), -counted)[-counted:]
    score = float(least.mean())
    regions, _ = ndimage.label(fields >= max(float(least.min()), 1e-6), np.ones((3, 3)))
    places = []
    for number, where in enumerate(ndimage.find_objects(regions), 1):
        rows, columns = (
            slice(one.start * side, min(one.stop * side, n)) for one, n in zip(where, unsure.shape, strict=True)
        )
        worst = float(fields[where][regions[where] == number].max())
        places.append(Place(as_box(rows, columns, unsure.shape), round(worst, 4)))
    return score, tuple(sorted(places, key=lambda place: -place.score)[:_PLACES])


def ranked(scores: Sequence[float], looks: Sequence[np.ndarray], labelled: Sequence[int]) -> list[int]:
    """Returns the order in which pictures are worth labelling: unsure ones first, that do not look like one before.

    A picture's score counts the less the nearer its look is to one that is labelled, or that comes before it, up to
    the distance that two pictures of the set usually have.

    Args:
      scores: of the pictures.
      looks: as `thumbnails.look` gives them.
      labelled: the places in `scores` of those that are labelled already; they are not in the order.
    """
    left = [number for number in range(len(scores)) if number not in set(labelled)]
    if not left:
        return []
    table = np.stack(looks)
    usual = max(usual_distance(looks), 1e-6)
    nearest = np.full(len(scores), usual)
    for number in labelled:
        nearest = np.minimum(nearest, distances(table[number], table))
    values = np.asarray(scores, float)
    order: list[int] = []
    waiting = np.zeros(len(scores), bool)
    waiting[left] = True
    while waiting.any() and len(order) < _SPREAD:
        best = int(np.where(waiting, values * nearest / usual, -1).argmax())
        order.append(best)
        waiting[best] = False
        nearest = np.minimum(nearest, distances(table[best], table))
    return order + sorted(np.flatnonzero(waiting).tolist(), key=lambda number: -values[number])
