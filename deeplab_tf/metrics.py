"""Segmentation scores from one confusion matrix, int64, so that shards add up exactly."""

import numpy as np


def confusion_matrix(
    labels: np.ndarray, predictions: np.ndarray, num_classes: int, *, ignore_label: int = 255
) -> np.ndarray:
    """Returns counts int64 [num_classes, num_classes]: rows are the true classes, columns the predicted ones.

    Args:
      labels, predictions: integers of equal shape; pixels labelled `ignore_label` count nowhere.
      num_classes: number of classes.

    Raises:
      ValueError: the shapes differ, or a label or prediction is not in 0..num_classes - 1.
    """
    if labels.shape != predictions.shape:
        raise ValueError(f"labels {labels.shape} and predictions {predictions.shape} differ in shape")
    seen = labels != ignore_label
    truth, found = labels[seen].astype(np.int64), predictions[seen].astype(np.int64)
    for name, values in (("label", truth), ("prediction", found)):
        if values.size and not 0 <= values.min() <= values.max() < num_classes:
            raise ValueError(f"{name} {values.min()}..{values.max()} outside 0..{num_classes - 1}")
    counts = np.bincount(truth * num_classes + found, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def iou_per_class(matrix: np.ndarray) -> np.ndarray:
    """Returns intersection over union float64 [classes]; NaN for a class in neither labels nor predictions."""
    hits = np.diag(matrix).astype(np.float64)
    union = matrix.sum(0) + matrix.sum(1) - np.diag(matrix)
    return np.divide(hits, union, out=np.full(len(hits), np.nan), where=union > 0)


def mean_iou(matrix: np.ndarray) -> float:
    """Returns the mean over the classes with a non-empty union, as the release's eval (tf.metrics.mean_iou)."""
    iou = iou_per_class(matrix)
    return float(np.nanmean(iou)) if np.any(~np.isnan(iou)) else float("nan")


def pixel_accuracy(matrix: np.ndarray) -> float:
    """Returns the share of pixels that are right, among those that count."""
    total = matrix.sum()
    return float(np.trace(matrix) / total) if total else float("nan")
