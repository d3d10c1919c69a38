"""Batches, the data sets that `make_dataset` returns, and what Keras's fit takes of them."""

from typing import Any

import tensorflow as tf


class Batches(tf.data.Dataset):
    """The batches of a split: a data set of TensorFlow's, with what Keras asks for.

    Args:
      batches: of dictionaries, as `make_dataset` describes them.
      ignore_label: the label whose pixels do not count.
    """

    def __init__(self, batches: tf.data.Dataset, ignore_label: int):
        self._batches = batches
        self.ignore_label = ignore_label
        super().__init__(batches._variant_tensor)  # pyright: ignore[reportCallIssue] (the stubs lack the constructor)

    def _inputs(self) -> list[tf.data.Dataset]:
        return [self._batches]

    @property
    def element_spec(self) -> Any:
        """The shapes and dtypes of a batch."""
        return self._batches.element_spec

    def for_fit(self, *, ignored: int | None = None) -> tf.data.Dataset:
        """Returns the batches as (image, label, weight), for `model.fit` and `model.evaluate` of Keras.

        The image is float32 [b, h, w, 3] in 0..255, the label int32 [b, h, w], and the weight float32 [b, h, w]: 0 for
        pixels that are ignored, else 1. Of training batches all sizes are static.

        Args:
          ignored: the label that ignored pixels get. None: they keep the ignore label, which
            `deeplab_tf.SegmentationLoss` and `MeanIoU` know, and Keras's `ignore_class`. For losses of Keras that know
            no such label give a class, 0 for instance: the weight leaves the pixels out. Metrics then need the weight
            too (`weighted_metrics` of `compile`, not `metrics`).
        """
        ignore_label = self.ignore_label

        def element(batch: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            label = tf.squeeze(batch["label"], axis=3)
            counted = label != ignore_label
            if ignored is not None:
                label = tf.where(counted, label, tf.fill(tf.shape(label), ignored))
            return batch["image"], label, tf.cast(counted, tf.float32)

        return self._batches.map(element, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
