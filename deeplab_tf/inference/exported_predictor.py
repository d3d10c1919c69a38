"""Images to classes by an exported file that is open, as the Keras model it was made from gives them."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from deeplab_tf.config import Inference, ModelConfig
from deeplab_tf.errors import OptionError
from deeplab_tf.inference.class_upsampling import ClassUpsampling
from deeplab_tf.inference.exported_file import OpenFile
from deeplab_tf.inference.libraries import told
from deeplab_tf.inference.predictor import Predictor
from deeplab_tf.network.precision import exact_float32
from deeplab_tf.network.sizes import logits_stride
from deeplab_tf.ops.images import resize_labels
from deeplab_tf.ops.resizing import resize_bilinear, resize_unaligned
from deeplab_tf.ops.value_range import stored
from deeplab_tf.weights.exported import Export
from deeplab_tf.weights.model_directory import ModelCard

_PLAIN = Inference()
EXPORT_AGAIN = "export again with --{}, or give the model directory"


def takes_bytes(card: ModelCard) -> bool:
    """Returns whether an exported file takes uint8; for photographs with a value range it takes their stored values."""
    return card.image is None or (card.image.dtype == "uint8" and card.image.is_byte)


def _resized(maps: np.ndarray, size: tuple[int, int], *, aligned: bool) -> np.ndarray:
    """Returns maps [b, h, w, c] at `size`, as the network resizes."""
    if maps.shape[1:3] == size:
        return maps
    return (resize_bilinear(maps, size) if aligned else resize_unaligned(maps, size)).numpy()


def answer(
    outputs: Mapping[str, np.ndarray], size: tuple[int, int], *, upsampled_logits: bool = True, aligned: bool = True
) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns the classes [h, w] and, if a file gives scores, the probabilities [h, w, classes] of one image.

    Args:
      outputs: of the file, for a batch of one image.
      size: height and width of that image.
      upsampled_logits: the model's prediction_with_upsampled_logits: whether logits of a low resolution are upsampled
        before their largest is taken.
      aligned: the model's align_corners.
    """
    classes = _classes(outputs, size, upsampled_logits=upsampled_logits, aligned=aligned)
    probabilities = None
    if outputs.keys() & {"probabilities", "logits"}:
        probabilities = _probabilities(outputs, size, upsampled_logits=upsampled_logits, aligned=aligned)
    return classes, probabilities


def _classes(
    outputs: Mapping[str, np.ndarray], size: tuple[int, int], *, upsampled_logits: bool, aligned: bool
) -> np.ndarray:
    """Returns the classes of `answer`, without the softmax that they do not need."""
    if "predictions" in outputs:
        return outputs["predictions"][0].astype(np.int32, copy=False)
    scores = outputs.get("probabilities")
    if scores is None:
        logits = outputs["logits"]
        scores = _resized(logits, size, aligned=aligned) if upsampled_logits else logits
    return resize_labels(scores[0].argmax(-1), *size).astype(np.int32, copy=False)


def _probabilities(
    outputs: Mapping[str, np.ndarray], size: tuple[int, int], *, upsampled_logits: bool, aligned: bool
) -> np.ndarray:
    """Returns the probabilities of `answer`, of a file that gives scores."""
    if "probabilities" in outputs:
        return outputs["probabilities"][0]
    logits = outputs["logits"]
    softmax = tf.nn.softmax(_resized(logits, size, aligned=aligned) if upsampled_logits else logits).numpy()
    return _resized(softmax, size, aligned=aligned)[0]


class ExportedBackend:
    """Runs an exported file: a `Backend`.

    Args:
      export: the file's description.
      file: that is open.
    """

    batches = False

    def __init__(self, export: Export, file: OpenFile):
        self.export, self._file = export, file
        self._upsampling = ClassUpsampling()

    @property
    def name(self) -> str:
        """The library."""
        return self._file.name

    def prepare(self) -> None:
        """Does nothing: the file is open."""

    def outputs(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the file's outputs [1, ...] for one image [h, w, channels] in 0..255.

        Raises:
          OptionError: the file takes images of one size, and this is larger.
          DeepLabError: the library cannot run it.
        """
        card, fixed = self.export.card, self.export.size
        pixels = np.asarray(image, np.float32)
        if fixed is not None and pixels.shape[:2] != fixed:
            pixels = self._filled(pixels, fixed)
        if not takes_bytes(card):
            assert card.image is not None
            pixels = stored(card.image, pixels)
        if self._file.dtype == np.uint8:
            pixels = np.clip(np.rint(pixels), 0, 255)
        with told(f"{self.export.path}: {self.name}"):
            return self._file.run(pixels.astype(self._file.dtype)[None])

    def _filled(self, pixels: np.ndarray, fixed: tuple[int, int]) -> np.ndarray:
        """Returns an image padded bottom right to the one size that the file takes, as the network's images are."""
        height, width = pixels.shape[:2]
        if height > fixed[0] or width > fixed[1]:
            raise OptionError(
                f"{self.export.path}: takes images of {fixed[0]} x {fixed[1]}, and this one has {height} x {width}; "
                "shrink them, give eval --large_images=tile, or export again with a larger --crop_size"
            )
        padded = np.empty((*fixed, pixels.shape[-1]), np.float32)
        padded[:] = self.export.card.config.pad_pixel
        padded[:height, :width] = pixels
        return padded

    def logits(self, images: np.ndarray | tf.Tensor, config: ModelConfig) -> np.ndarray:
        """Returns the logits of images, up to a constant a pixel; see `Backend`.

        The logarithm of a probability is a logit less a constant, which no softmax sees, and no interpolation between
        pixels changes that. Where corners are aligned, every stride-th pixel is a logit of the network itself.
        """
        return np.concatenate([self._logits(image, config) for image in np.asarray(images)])

    def _logits(self, image: np.ndarray, config: ModelConfig) -> np.ndarray:
        outputs = self.outputs(image)
        stride = logits_stride(config)
        height, width = image.shape[:2]
        whole = self.export.size or (height, width)
        if "logits" in outputs:
            maps = outputs["logits"]
        else:
            maps = np.log(np.maximum(outputs["probabilities"], np.finfo(np.float32).tiny))
        if maps.shape[1:3] != whole:  # at the network's stride already
            if whole == (height, width):
                return maps
            maps = _resized(maps, whole, aligned=config.align_corners)
        maps = maps[:, :height, :width]
        on_grid = config.align_corners and (height - 1) % stride == 0 and (width - 1) % stride == 0
        return maps[:, ::stride, ::stride] if on_grid else maps

    def upsampled_classes(self, logits: np.ndarray | tf.Tensor, size: tuple[int, int]) -> np.ndarray:
        """Returns the classes of logits at `size`; see `Backend`."""
        return self._upsampling(np.asarray(logits), size)


class ExportedPredictor(Predictor):
    """Images to classes by an exported file, with the classes and probabilities that its certificate vouches for.

    Args:
      config: of the network, with the crop that the caller pads batches to.
      backend: runs the file.
    """

    backend: ExportedBackend

    def __init__(self, config: ModelConfig, backend: ExportedBackend):
        super().__init__(config, backend)
        self.export = backend.export

    @property
    def fixed_size(self) -> tuple[int, int] | None:
        """Height and width of the images that the file takes; None: any."""
        return self.export.size

    @property
    def gives_probabilities(self) -> bool:
        """Whether the file gives more than classes."""
        return self.export.gives_probabilities

    def in_squares(self, side: int) -> Predictor:
        """Returns the predictor of the same file for images that fill squares of this side."""
        return ExportedPredictor(dataclasses.replace(self.config, crop_size=(side, side)), self.backend)

    def require(self, inference: Inference) -> None:
        """Raises OptionError where the file cannot do what `inference` asks for."""
        options, asked = self.export.options, "--eval_scales"
        if not (inference.averages or inference.crf is not None):
            return
        if inference.scales == (1.0,):
            asked = "--add_flipped_images" if inference.flip else "--crf"
        if not self.gives_probabilities:
            raise self._needs_scores(asked)
        if inference.averages and (options.averages or options.min_resize_value is not None):
            what = "averages scales or flips" if options.averages else "resizes images"
            raise OptionError(f"{asked}: {self.export.path} {what} itself; leave the flag out")
        own = self.export.card.config.crop_size
        padded = self.fixed_size or (own if min(inference.scales) < 1 else None)
        if inference.scales != (1.0,) and padded is not None:
            raise OptionError(
                f"{asked}: {self.export.path} pads images to {padded[0]} x {padded[1]}, those of other scales too; "
                + EXPORT_AGAIN.format("inference_scales=..., which averages inside the file")
            )

    def _needs_scores(self, asked: str) -> OptionError:
        lite = self.export.options.format == "tflite"
        cure = "export_upsample=logits" if lite else "outputs=predictions,probabilities"
        return OptionError(
            f"{asked} needs probabilities, and {self.export.path} gives classes alone; {EXPORT_AGAIN.format(cure)}"
        )

    def labels(self, images: np.ndarray, inference: Inference = _PLAIN) -> np.ndarray:
        """Returns the class maps of images that are run whole; see `Predictor.labels`."""
        self.require(inference)
        if inference.averages or inference.crf is not None:
            return super().labels(images, inference)
        self._require_bands(images)
        with exact_float32(unless=inference.tf32):
            return np.stack([self._answer(image, _classes) for image in images])

    def probabilities(self, images: np.ndarray, inference: Inference = _PLAIN) -> np.ndarray:
        """Returns the class probabilities of images that are run whole; see `Predictor.probabilities`."""
        self.require(inference)
        if not self.gives_probabilities:
            raise self._needs_scores("--save=probabilities")
        if inference.averages:
            return super().probabilities(images, inference)
        self._require_bands(images)
        with exact_float32(unless=inference.tf32):
            return np.stack([self._answer(image, _probabilities) for image in images])

    def _answer(self, image: np.ndarray, of: Callable[..., np.ndarray]) -> np.ndarray:
        """Returns the file's answer for an image as it is: the file pads it as the network's images are padded."""
        height, width = image.shape[:2]
        found = of(
            self.backend.outputs(image),
            self.fixed_size or (height, width),
            upsampled_logits=self.config.prediction_with_upsampled_logits,
            aligned=self.config.align_corners,
        )
        return found[:height, :width]

    def batch_labels(self, images: np.ndarray, sizes: Sequence[tuple[int, int]], inference: Inference) -> np.ndarray:
        """Returns `labels` of a padded batch; what the file pads or resizes itself it gets without the padding."""
        whole = (images.shape[1], images.shape[2])
        itself = self.export.card.config.crop_size == whole or self.export.options.min_resize_value is not None
        if not itself or inference.averages or set(sizes) == {whole}:
            return self.labels(images, inference)
        labels = np.zeros(images.shape[:3], np.int32)
        for image, (height, width), result in zip(images, sizes, labels, strict=True):
            result[:height, :width] = self.labels(image[None, :height, :width], inference)[0]
        return labels
