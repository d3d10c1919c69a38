"""Scoring a model on a data set, every example once."""

from collections.abc import Iterable, Mapping, Sequence

import keras
import numpy as np

from deeplab_tf.errors import DeepLabError
from deeplab_tf.metrics import confusion_matrix, iou_per_class, mean_iou, pixel_accuracy
from deeplab_tf.model import config_of
from deeplab_tf.predictor import predictor_of


def evaluate(
    model: keras.Model,
    dataset: Iterable[Mapping[str, object]],
    *,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    ignore_label: int = 255,
) -> dict:
    """Returns the scores of `model` over all of `dataset`, in the release's convention (its eval.py).

    Args:
      model: from `build_model` or `load`.
      dataset: yields {"image": [b, h, w, 3] in 0..255, "label": [b, h, w] or [b, h, w, 1] integers}; batches may differ
        in size, the last may be smaller.
      scales, flip: as `predict.predict`.
      ignore_label: pixels with this label count nowhere.

    Returns:
      "miou" (mean over the classes with a non-empty union), "iou_per_class" (float64 [classes], NaN for a class in
      neither labels nor predictions), "pixel_accuracy", "confusion_matrix" (int64, rows are the labels), "examples".

    Raises:
      DeepLabError: the data set is empty, or a label is out of range.
    """
    predictor, classes = predictor_of(model), config_of(model).num_classes
    total, examples = np.zeros((classes, classes), np.int64), 0
    for batch in dataset:
        images, labels = np.asarray(batch["image"]), np.asarray(batch["label"])
        labels = labels[..., 0] if labels.ndim == 4 else labels
        found = predictor.labels(images, scales=tuple(scales), flip=flip)
        try:
            total += confusion_matrix(labels, found, classes, ignore_label=ignore_label)
        except ValueError as error:
            raise DeepLabError(f"{error}: the model has {classes} classes; mend the labels or the model") from None
        examples += len(images)
    if not examples:
        raise DeepLabError("the data set is empty: nothing to score; check the split's name and the folder")
    return {
        "miou": mean_iou(total),
        "iou_per_class": iou_per_class(total),
        "pixel_accuracy": pixel_accuracy(total),
        "confusion_matrix": total,
        "examples": examples,
    }
