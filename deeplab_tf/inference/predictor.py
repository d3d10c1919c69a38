"""From images of any size to classes: padded as in the release, scales and flips averaged; every caller uses it.

Source: the release's model.py (predict_labels, predict_labels_multi_scale) and export_model.py.
"""

import dataclasses
import weakref
from collections.abc import Sequence
from typing import Any, Protocol, cast

import keras
import numpy as np
import tensorflow as tf

from deeplab_tf.config import Inference, ModelConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.inference.class_upsampling import ClassUpsampling
from deeplab_tf.network.build import build_model
from deeplab_tf.network.precision import exact_float32
from deeplab_tf.network.sizes import at_size, logits_stride, needs_fixed_size, padded_size
from deeplab_tf.network.stepped import in_float32
from deeplab_tf.network.wrapped import as_network
from deeplab_tf.ops.crf import densecrf
from deeplab_tf.ops.images import resize_labels
from deeplab_tf.ops.resizing import resize_bilinear, resize_unaligned, scale_dimension, with_edges

_PLAIN = Inference()


class Backend(Protocol):
    """What runs the network for a `Predictor`."""

    @property
    def name(self) -> str:
        """The library, to be shown."""
        ...

    @property
    def batches(self) -> bool:
        """Whether images that run together take less time than one after the other."""
        ...

    def logits(self, images: np.ndarray | tf.Tensor, config: ModelConfig) -> np.ndarray | tf.Tensor:
        """Returns the logits float32 [b, h', w', classes] at the network's stride.

        Args:
          images: float32 [b, h, w, 3], RGB in 0..255, padded.
          config: the network for images of this size (its crop_size), from `at_size`.
        """
        ...

    def upsampled_classes(self, logits: np.ndarray | tf.Tensor, size: tuple[int, int]) -> np.ndarray:
        """Returns the classes int32 [b, *size] of logits that are resized to `size`."""
        ...

    def prepare(self) -> None:
        """Does what can be done before the first image comes."""
        ...


class TensorFlowBackend:
    """Runs the network in TensorFlow: a `Backend`.

    Args:
      model: from `build_model` or `load`, whose weights are shared. The caller keeps it: the model keeps the backend.
    """

    name = "TensorFlow"
    batches = True

    def __init__(self, model: keras.Model):
        self._model = weakref.ref(model)
        self._networks = {}
        # Elsewhere the logits stay on the device.
        self._upsampling = None if tf.config.list_physical_devices("GPU") else ClassUpsampling()

    def logits(self, images: np.ndarray | tf.Tensor, config: ModelConfig) -> tf.Tensor:
        """Returns the logits of images; see `Backend`. One compiled graph serves all sizes where the network allows."""
        key = config if needs_fixed_size(config) else config.image_pyramid
        if key not in self._networks:
            self._networks[key] = self._compiled(config)
        return self._networks[key](images)

    def _the_model(self) -> keras.Model:
        model = self._model()
        if model is None:
            raise DeepLabError("the model of this predictor is gone; expected the caller to keep it")
        return model

    def _compiled(self, config: ModelConfig):
        config = config if needs_fixed_size(config) else dataclasses.replace(config, crop_size=None)
        network = build_model(config, share_with=self._the_model())

        def logits(images: tf.Tensor) -> tf.Tensor:
            with in_float32(network):  # a model made under a policy of mixed precision gives the published pixels too
                return network(images, training=False)

        signature = [tf.TensorSpec([None, *network.input_shape[1:]], tf.float32)]
        return tf.function(logits, input_signature=signature, autograph=False)

    def upsampled_classes(self, logits: np.ndarray | tf.Tensor, size: tuple[int, int]) -> np.ndarray:
        """Returns the classes of logits at `size`; see `Backend`."""
        if self._upsampling is None:
            return tf.argmax(resize_bilinear(logits, size), axis=-1, output_type=tf.int32).numpy()
        return self._upsampling(np.asarray(logits), size)

    def prepare(self) -> None:
        """Does nothing: graphs are compiled when the first image comes."""


class Predictor:
    """From images of any size to class maps and probabilities, at any scale, by a network that a backend runs.

    GPUs and TPUs compute float32 exactly in it, so that they give the published pixels, unless `Inference.tf32` lets
    them round. Calling the Keras model itself leaves that to TensorFlow's switch, which lets them.

    Args:
      config: of the network.
      backend: what runs it.
    """

    def __init__(self, config: ModelConfig, backend: Backend):
        self.config, self.backend = config, backend

    @property
    def fixed_size(self) -> tuple[int, int] | None:
        """Height and width that images are padded to and must not exceed; None: it takes images of any size."""
        return None

    @property
    def gives_probabilities(self) -> bool:
        """Whether `probabilities` can be asked for."""
        return True

    def in_squares(self, side: int) -> "Predictor":
        """Returns the predictor of the same network for images that fill squares of this side."""
        return Predictor(dataclasses.replace(self.config, crop_size=(side, side)), self.backend)

    def prepare(self) -> None:
        """Does what can be done before the first image comes."""
        self.backend.prepare()

    def batch_labels(self, images: np.ndarray, sizes: Sequence[tuple[int, int]], inference: Inference) -> np.ndarray:
        """Returns `labels` of a batch that fits the crop, whose pictures are padded bottom right from their `sizes`."""
        del sizes  # the padding is what the network would get of the pictures alone
        return self.labels(images, inference)

    def _logits(self, images: np.ndarray | tf.Tensor, scale: float = 1.0, pyramid: tuple[float, ...] | None = None):
        """Logits at the size of the network's output; `scale` is that of the images."""
        height, width = images.shape[1:3]
        return self.backend.logits(images, at_size(self.config, (height, width), scale=scale, pyramid=pyramid))

    def _require_bands(self, images: np.ndarray) -> None:
        if images.shape[-1] != self.config.input_channels:
            raise DeepLabError(
                f"images of {images.shape[-1]} bands; expected {self.config.input_channels}, which the model reads"
            )

    def _padded(self, images: np.ndarray) -> np.ndarray:
        height, width = images.shape[1:3]
        target = padded_size(self.config, height, width)
        self._require_bands(images)
        padded = np.empty((len(images), *target, images.shape[-1]), np.float32)
        padded[:, :height, :width] = images
        padded[:, :height, width:] = padded[:, height:] = self.config.pad_pixel
        return padded

    def _single(self, images: np.ndarray) -> np.ndarray | tf.Tensor:
        """Logits at the size of the network's output, of one scale, which may be an image pyramid's."""
        return self._logits(images, pyramid=self.config.image_pyramid)

    def _resized(self, maps: np.ndarray | tf.Tensor, size: tuple[int, ...]) -> tf.Tensor:
        """Returns logits or probabilities at `size`, as the network resizes."""
        return resize_bilinear(maps, size) if self.config.align_corners else resize_unaligned(maps, size)

    def _upsampled_classes(self, logits: np.ndarray | tf.Tensor, size: tuple[int, int]) -> np.ndarray:
        """Returns the classes of logits at `size`, or at one pixel more a side."""
        if self.config.align_corners:
            return self.backend.upsampled_classes(logits, size)
        edged = with_edges(logits)
        return self.backend.upsampled_classes(edged.numpy(), (size[0] + 1, size[1] + 1))

    def _averaged(self, images: np.ndarray, inference: Inference) -> tf.Tensor:
        """Returns the probabilities at full size, averaged over scales and flips.

        Release: predict_labels_multi_scale, which runs each scale without the image pyramid.
        """
        size = images.shape[1:3]
        flips = (False, True) if inference.flip else (False,)
        total = tf.zeros((), tf.float32)
        for scale in inference.scales:
            scaled = tuple(scale_dimension(d, scale) for d in size)
            inputs = images if scale == 1.0 else resize_bilinear(images, scaled)
            # As in the release, logits of a smaller scale are first enlarged to the size they have at scale 1, those of
            # a larger one keep theirs: interpolating twice is not the same as once.
            canvas = [scale_dimension(d, max(1.0, scale) / logits_stride(self.config)) for d in size]
            for reverse in flips:
                logits = self._logits(tf.reverse(inputs, [2]) if reverse else inputs, scale)
                logits = resize_bilinear(logits, canvas)
                logits = tf.reverse(logits, [2]) if reverse else logits
                total += tf.nn.softmax(self._resized(logits, size))
        return total / (len(inference.scales) * len(flips))

    def labels(self, images: np.ndarray, inference: Inference = _PLAIN) -> np.ndarray:
        """Returns the class maps of images that are run whole; see `predict.predict`.

        Args:
          images: [b, h, w, 3], RGB in 0..255.
          inference: scales, flip and CRF.

        Returns:
          int32 [b, h, w].
        """
        if inference.crf is not None:
            if images.shape[-1] != 3:
                raise DeepLabError(f"crf: compares the colours of RGB, and the images have {images.shape[-1]} bands")
            pairs = zip(images, self.probabilities(images, inference), strict=True)
            refined = [densecrf(image, probabilities, **cast(Any, inference.crf)) for image, probabilities in pairs]
            return np.stack([probabilities.argmax(-1).astype(np.int32) for probabilities in refined])
        padded = self._padded(images)
        with exact_float32(unless=inference.tf32):
            if inference.averages:
                labels = tf.argmax(self._averaged(padded, inference), axis=-1, output_type=tf.int32).numpy()
            elif self.config.prediction_with_upsampled_logits:
                labels = self._upsampled_classes(self._single(padded), padded.shape[1:3])
            else:
                small = tf.argmax(self._single(padded), axis=-1, output_type=tf.int32).numpy()
                labels = np.stack([resize_labels(label, *padded.shape[1:3]) for label in small])
        return labels[:, : images.shape[1], : images.shape[2]]

    def probabilities(self, images: np.ndarray, inference: Inference = _PLAIN) -> np.ndarray:
        """Returns the class probabilities of images that are run whole, before any CRF.

        The release applies a second softmax to the average over scales; that is mended here (no score rests on it).

        Args:
          images: [b, h, w, 3], RGB in 0..255.
          inference: scales and flip.

        Returns:
          float32 [b, h, w, classes], which sum to 1.
        """
        padded = self._padded(images)
        with exact_float32(unless=inference.tf32):
            if inference.averages:
                result = self._averaged(padded, inference)
            elif self.config.prediction_with_upsampled_logits:
                result = tf.nn.softmax(self._resized(self._single(padded), padded.shape[1:3]))
            else:
                result = self._resized(tf.nn.softmax(self._single(padded)), padded.shape[1:3])
            return result[:, : images.shape[1], : images.shape[2]].numpy()


def predictor_of(model: keras.Model | Predictor) -> Predictor:
    """Returns the one Predictor of `model` that runs in TensorFlow, so that its graphs are compiled once.

    An exported file is a predictor itself, and returned.
    """
    if isinstance(model, Predictor):
        return model
    network = as_network(model)
    return network.derived.get(Predictor, lambda: Predictor(network.config, TensorFlowBackend(network)))


def padding_to(model: keras.Model, crop_size: tuple[int, int] | None) -> Predictor:
    """Returns a predictor of `model` that pads pictures as `eval` does: not to the crop that it was trained with.

    Args:
      model: from `build_model` or `load`.
      crop_size: height and width of evaluation in pixels, which the pooled feature sees; None: nothing is padded.
    """
    trained = predictor_of(model)
    return Predictor(dataclasses.replace(trained.config, crop_size=crop_size), trained.backend)
