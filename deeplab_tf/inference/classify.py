"""Photographs classified by an ImageNet network, cropped and resized as slim's evaluation does."""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from deeplab_tf.errors import DeepLabError

_KEPT = 0.875  # of each side, in the middle (slim's inception_preprocessing.py, preprocess_for_eval)
_IMAGENET = 1000


def imagenet_input(image: np.ndarray, side: int) -> np.ndarray:
    """Returns the middle 87.5 % of both sides, resized to a square: float32 [side, side, 3] of 0..255.

    The resizing is TensorFlow 1's bilinear one, without aligned corners, and stretches what is not a square.

    Args:
      image: uint8 [h, w, 3].
      side: of the result.
    """
    top, left = (int((size - size * _KEPT) / 2) for size in image.shape[:2])
    middle = image[top : image.shape[0] - top, left : image.shape[1] - left]
    resized = tf.compat.v1.image.resize_bilinear(middle[None].astype(np.float32), (side, side), align_corners=False)
    return resized[0].numpy()


def classify(model: keras.Model, images: Sequence[np.ndarray], side: int) -> np.ndarray:
    """Returns the probabilities of the classes, float32 [n, classes], of pictures, uint8 [h, w, 3] each.

    Args:
      model: images [b, h, w, 3] of 0..255 -> logits [b, classes].
      images: of any sizes.
      side: that the network takes.
    """
    batch = np.stack([imagenet_input(image, side) for image in images])
    return tf.nn.softmax(model(batch, training=False)).numpy()


def class_names(classes: int, names: Sequence[str] | None = None) -> tuple[str, ...]:
    """Returns the names of the classes, in their order.

    Args:
      classes: their number.
      names: those that the user gives, with or without the background that a network has one more class for; None:
        ImageNet's 1,000 as tensorflow_datasets lists them, else numbers.

    Raises:
      DeepLabError: there are too few or too many names.
    """
    given = tuple(names) if names is not None else _imagenet_names(classes)
    if not given:
        return tuple(str(number) for number in range(classes))
    if len(given) == classes - 1:
        given = ("background", *given)
    if len(given) != classes:
        raise DeepLabError(f"{len(given)} names for a network of {classes} classes; expected one for each, or one less")
    return given


def _imagenet_names(classes: int) -> tuple[str, ...]:
    """Returns the first name of each of ImageNet's classes; () of another number of classes."""
    if classes not in (_IMAGENET, _IMAGENET + 1):
        return ()
    try:
        from tensorflow_datasets.datasets.siscore import labels
    except ImportError:  # another version keeps them elsewhere
        return ()
    return tuple(name.partition(",")[0] for name in labels.IMAGENET_LABELS_LIST)
