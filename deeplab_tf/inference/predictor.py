"""One way from images to classes, whoever asks: any size, padded as the release pads, scales and flips averaged.

Source: the release's model.py (predict_labels, predict_labels_multi_scale) and export_model.py.
"""

import dataclasses
import weakref
from collections.abc import Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

from deeplab_tf.arch import ARCHITECTURES
from deeplab_tf.errors import DeepLabError
from deeplab_tf.network.model import as_network, build_model, config_of
from deeplab_tf.network.sizes import logits_stride, needs_fixed_size, padded_size
from deeplab_tf.ops.crf import densecrf
from deeplab_tf.ops.images import resize_labels
from deeplab_tf.ops.resizing import resize_bilinear, scale_dimension


class Predictor:
    """A model made ready to run on images of any size and at any scale, sharing its weights."""

    def __init__(self, model: keras.Model):
        self.config = config_of(model)
        # The cache below must not keep the model alive.
        self._model = weakref.ref(model)
        self._networks = {}

    def _source(self) -> keras.Model:
        model = self._model()
        if model is None:
            raise DeepLabError("the model of this predictor is gone; expected the caller to keep it")
        return model

    def prepare(self):
        """Does what can be done before the first image comes."""

    def _network(self, size: tuple[int, int], scale: float = 1.0, pyramid: tuple[float, ...] | None = None):
        """Returns images [b, *size, 3] -> logits, compiled; one graph for all sizes where the network allows it."""
        fixed = needs_fixed_size(self.config)
        key = (pyramid, size, scale) if fixed else pyramid
        if key not in self._networks:
            pooling = self.config.image_pooling_crop_size
            config = dataclasses.replace(
                self.config,
                crop_size=size if fixed else None,
                image_pooling_crop_size=pooling and tuple(scale_dimension(d, scale) for d in pooling),
                image_pyramid=pyramid,
            )
            network = build_model(config, share_with=self._source())
            signature = [tf.TensorSpec([None, *network.input_shape[1:3], 3], tf.float32)]
            self._networks[key] = tf.function(lambda x: network(x, training=False), input_signature=signature)
        return self._networks[key]

    def _padded(self, images: np.ndarray) -> np.ndarray:
        height, width = images.shape[1:3]
        target = padded_size(self.config, height, width)
        pixel = ARCHITECTURES[self.config.model_variant].pad_pixel
        padded = np.empty((len(images), *target, 3), np.float32)
        padded[:, :height, :width] = images
        padded[:, :height, width:] = padded[:, height:] = pixel
        return padded

    def _single(self, images: np.ndarray) -> tf.Tensor:
        """Logits at the size of the network's output."""
        return self._network(images.shape[1:3], pyramid=self.config.image_pyramid)(images)

    def _upsampled(self, logits: tf.Tensor, size: tuple[int, int]) -> np.ndarray:
        """The classes of logits resized to `size`."""
        return tf.argmax(resize_bilinear(logits, size), axis=-1, output_type=tf.int32).numpy()

    def _averaged(self, images: np.ndarray, scales: Sequence[float], flip: bool) -> tf.Tensor:
        """Probabilities at full size, averaged over scales and flips (release: predict_labels_multi_scale, which runs
        each scale without the image pyramid)."""
        size = images.shape[1:3]
        total = tf.zeros((), tf.float32)
        for scale in scales:
            scaled = tuple(scale_dimension(d, scale) for d in size)
            inputs = images if scale == 1.0 else resize_bilinear(images, scaled)
            canvas = [scale_dimension(d, max(1.0, scale) / logits_stride(self.config)) for d in size]
            for reverse in (False, True) if flip else (False,):
                logits = self._network(scaled, scale)(tf.reverse(inputs, [2]) if reverse else inputs)
                logits = resize_bilinear(logits, canvas)
                logits = tf.reverse(logits, [2]) if reverse else logits
                total += tf.nn.softmax(resize_bilinear(logits, size))
        return total / (len(scales) * (2 if flip else 1))

    def labels(
        self,
        images: np.ndarray,
        *,
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
        crf: Mapping[str, float] | None = None,
    ) -> np.ndarray:
        """Returns the class maps int32 [b, h, w] of images [b, h, w, 3], RGB in 0..255; see `predict.predict`."""
        if crf is not None:
            pairs = zip(images, self.probabilities(images, scales=scales, flip=flip), strict=True)
            return np.stack([densecrf(image, found, **crf).argmax(-1).astype(np.int32) for image, found in pairs])
        padded = self._padded(images)
        if tuple(scales) != (1.0,) or flip:
            labels = tf.argmax(self._averaged(padded, scales, flip), axis=-1, output_type=tf.int32).numpy()
        elif self.config.prediction_with_upsampled_logits:
            labels = self._upsampled(self._single(padded), padded.shape[1:3])
        else:
            small = tf.argmax(self._single(padded), axis=-1, output_type=tf.int32).numpy()
            labels = np.stack([resize_labels(label, *padded.shape[1:3]) for label in small])
        return labels[:, : images.shape[1], : images.shape[2]]

    def probabilities(self, images: np.ndarray, *, scales: Sequence[float] = (1.0,), flip: bool = False) -> np.ndarray:
        """Returns the class probabilities float32 [b, h, w, classes], which sum to 1.

        The release applies a second softmax to the average over scales; that is mended here (no score rests on it).
        """
        padded = self._padded(images)
        if tuple(scales) != (1.0,) or flip:
            result = self._averaged(padded, scales, flip)
        elif self.config.prediction_with_upsampled_logits:
            result = tf.nn.softmax(resize_bilinear(self._single(padded), padded.shape[1:3]))
        else:
            result = resize_bilinear(tf.nn.softmax(self._single(padded)), padded.shape[1:3])
        return result[:, : images.shape[1], : images.shape[2]].numpy()


def predictor_of(model: keras.Model) -> Predictor:
    """Returns the one Predictor of `model`, so that its graphs are compiled once."""
    return as_network(model).derived.get(Predictor, lambda: Predictor(model))
