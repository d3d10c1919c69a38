"""One way from images to classes, whoever asks: any size, padded as the release pads, scales and flips averaged.

Source: the release's model.py (predict_labels, predict_labels_multi_scale) and export_model.py.
"""

import dataclasses
import math
import weakref
from collections.abc import Iterator, Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

from deeplab_tf.arch import ARCHITECTURES
from deeplab_tf.config import ModelConfig, PredictConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.network.model import build_model, config_of, logits_stride
from deeplab_tf.ops.crf import densecrf
from deeplab_tf.ops.images import resize_labels, resize_longest
from deeplab_tf.ops.resizing import resize_bilinear, scale_dimension

_OVERLAP = 8  # neighbouring tiles share one part in so many


def padded_size(config: ModelConfig, height: int, width: int) -> tuple[int, int]:
    """Returns the size an image is padded to: the crop where it fits, else k * output_stride + 1.

    A pooling crop (MobileNetV3) is the smallest size its window fits into.
    """
    if config.crop_size and height <= config.crop_size[0] and width <= config.crop_size[1]:
        return config.crop_size
    smallest = config.image_pooling_crop_size or (1, 1)
    stride = config.output_stride
    sides = (max(side, least) for side, least in zip((height, width), smallest, strict=True))
    return tuple(math.ceil((side - 1) / stride) * stride + 1 for side in sides)


def needs_fixed_size(config: ModelConfig) -> bool:
    cell = config.dense_prediction_cell_json or ()
    return bool(config.image_pooling_crop_size) or any(branch.op == "pyramid_pooling" for branch in cell)


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


_PREDICTORS: "weakref.WeakKeyDictionary[keras.Model, Predictor]" = weakref.WeakKeyDictionary()


def predictor_of(model: keras.Model) -> Predictor:
    """Returns the one Predictor of `model`, so that its graphs are compiled once."""
    if model not in _PREDICTORS:
        _PREDICTORS[model] = Predictor(model)
    return _PREDICTORS[model]


def tiles(size: int, tile: int, stride: int = 1) -> Iterator[tuple[int, int, int]]:
    """Yields (start of the tile, first, last + 1 of the part kept) along one axis, covering 0..size without gaps.

    Tiles start at multiples of `stride`, the network's, so that it samples the picture where it would sample the whole.
    """
    step = (tile - tile // _OVERLAP) // stride * stride
    last = -(-(size - tile) // stride) * stride
    starts = [0] if size <= tile else [*range(0, last, step), last]
    # Between neighbours the border lies in the middle of what they share.
    borders = [0, *((a + tile + b) // 2 for a, b in zip(starts, starts[1:], strict=False)), size]
    yield from zip(starts, borders[:-1], borders[1:], strict=True)


def _square(predictor: Predictor, options: PredictConfig) -> tuple[int, int]:
    """Returns the largest tile (h, w) of at most `max_pixels` pixels that the network takes without padding."""
    stride = predictor.config.output_stride
    side = (math.isqrt(options.max_pixels) - 1) // stride * stride + 1
    return side, side


def _windows(size: Sequence[int], tile: tuple[int, int], stride: int) -> Iterator[tuple]:
    """Yields, as pairs of slices, each tile of at most the size `tile`, the middle of it that is kept, its place."""
    height, width = tile
    for top, first_row, last_row in tiles(size[0], height, stride):
        for left, first_column, last_column in tiles(size[1], width, stride):
            middle = slice(first_row - top, last_row - top), slice(first_column - left, last_column - left)
            place = slice(first_row, last_row), slice(first_column, last_column)
            yield (slice(top, top + height), slice(left, left + width)), middle, place


def _tiled(run, image: np.ndarray, tile: tuple[int, int], stride: int, result: np.ndarray) -> np.ndarray:
    """Fills `result` [h, w, ...] from tiles of at most the size `tile`, keeping the middle of each."""
    for window, middle, place in _windows(image.shape, tile, stride):
        result[place] = run(image[window])[middle]
    return result


def network_size(image: np.ndarray, options: PredictConfig) -> np.ndarray:
    """Returns a photograph, uint8 [h, w, 3], at the size at which `options` have the network run on it."""
    return resize_longest(image, options.longest_side) if options.resize == "longest" else image


def network_labels(predictor: Predictor, image: np.ndarray, options: PredictConfig) -> np.ndarray:
    """Returns the class map int32 [h, w] of an image of `network_size`, without CRF: see `segment`."""

    def run(part):
        return predictor.labels(part[None], scales=options.eval_scales, flip=options.add_flipped_images)[0]

    if image.shape[0] * image.shape[1] <= options.max_pixels:
        return run(image)
    stride, labels = predictor.config.output_stride, np.empty(image.shape[:2], np.int32)
    return _tiled(run, image, _square(predictor, options), stride, labels)


def segment(predictor: Predictor, image: np.ndarray, options: PredictConfig) -> np.ndarray:
    """Returns the class map of one photograph at its own size.

    Args:
      predictor: from `predictor_of`.
      image: uint8 [h, w, 3].
      options: resize rule, scales, flips, CRF. Above `max_pixels` the network, and the CRF, run on overlapping tiles,
        so that memory stays bounded.

    Returns:
      int32 [h, w].
    """
    if options.crf:
        found = _probabilities(predictor, image, options, np.empty(_shape(predictor, image), np.float32))
        return _refined(image, found, options, np.empty(image.shape[:2], np.int32), lambda part: part.argmax(-1))

    return resize_labels(network_labels(predictor, network_size(image, options), options), *image.shape[:2])


def segment_batch(
    predictor: Predictor,
    images: np.ndarray,
    sizes: np.ndarray | None = None,
    *,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    large_images: str = "pad",
    crf: Mapping[str, float] | None = None,
) -> np.ndarray:
    """Returns the class maps of a batch that may hold images of several sizes, padded to one.

    What a picture gives does not depend on its company: where the batch is larger than the model's crop_size and sizes
    differ, each picture is run by itself, without the batch's padding; with a CRF always.

    Args:
      predictor: from `predictor_of`.
      images: [b, h, w, 3], RGB in 0..255.
      sizes: integers [b, 2], each picture's own height and width at the top left; None: all are h, w.
      scales, flip, crf: as `predict.predict`.
      large_images: pictures larger than crop_size are run whole (pad) or in overlapping tiles of that size (tile).

    Returns:
      int32 [b, h, w]; beyond a picture's own size the values mean nothing.

    Raises:
      DeepLabError: the memory does not suffice.
    """
    crop, whole = predictor.config.crop_size, images.shape[1:3]

    def run(part):
        return predictor.labels(part, scales=scales, flip=flip, crf=crf)

    def fits(size):
        return crop is not None and size[0] <= crop[0] and size[1] <= crop[1]

    sizes = [whole] * len(images) if sizes is None else [tuple(map(int, size)) for size in sizes]
    tiled, labels = large_images == "tile" and crop is not None, np.zeros(images.shape[:3], np.int32)
    try:
        if crf is None and (fits(whole) or (set(sizes) == {whole} and not tiled)):
            return run(images)
        for image, size, result in zip(images, sizes, labels, strict=True):
            image, result = image[: size[0], : size[1]], result[: size[0], : size[1]]
            if tiled and not fits(size):
                _tiled(lambda part: run(part[None])[0], image, crop, predictor.config.output_stride, result)
            else:
                result[:] = run(image[None])[0]
    except (MemoryError, tf.errors.ResourceExhaustedError):
        raise DeepLabError(
            f"not enough memory for {len(images)} images of {whole[0]} x {whole[1]}; smaller batches need less, and so "
            "does --large_images=tile with a smaller crop size"
        ) from None
    return labels


def _shape(predictor: Predictor, image: np.ndarray) -> tuple[int, ...]:
    return (*image.shape[:2], predictor.config.num_classes)


def _probabilities(predictor: Predictor, image: np.ndarray, options: PredictConfig, result: np.ndarray) -> np.ndarray:
    """Fills `result` [h, w, classes] with the network's probabilities at the picture's own size, class by class."""

    def run(part):
        return predictor.probabilities(part[None], scales=options.eval_scales, flip=options.add_flipped_images)[0]

    sized = network_size(image, options)
    if sized.shape[0] * sized.shape[1] > options.max_pixels:
        _tiled(run, sized, _square(predictor, options), predictor.config.output_stride, result)
    elif sized is image:
        result[:] = run(image)
    else:
        small = run(sized)
        for index in range(result.shape[-1]):
            result[..., index] = resize_bilinear(small[None, ..., index, None], image.shape[:2])[0, ..., 0]
    return result


def _refined(image: np.ndarray, found: np.ndarray, options: PredictConfig, result: np.ndarray, finish) -> np.ndarray:
    """Fills `result` [h, w, ...] with what `finish` makes of the CRF's probabilities."""
    size, side = image.shape[:2], math.isqrt(options.max_pixels)
    tile = size if math.prod(size) <= options.max_pixels else (side, side)
    for window, middle, place in _windows(size, tile, 1):
        result[place] = finish(densecrf(image[window], found[window], **options.crf_parameters))[middle]
    return result


def write_probabilities(predictor: Predictor, image: np.ndarray, options: PredictConfig, path: str):
    """Writes the class probabilities of one photograph at its own size: .npy, float32 [h, w, classes].

    Written through a memory map; where the picture was resized they are upsampled bilinearly, as the release's
    SemanticProbabilities; with `options.crf` they are those after the CRF.
    """
    shape = _shape(predictor, image)
    result = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    if options.crf:
        found = _probabilities(predictor, image, options, np.empty(shape, np.float32))
        _refined(image, found, options, result, lambda part: part)
    else:
        _probabilities(predictor, image, options, result)
    result.flush()
