"""Photographs and batches of any size: resized, padded or cut into overlapping tiles, and put together again."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import numpy as np

from deeplab_tf import files
from deeplab_tf.config import Inference, ModelConfig, PredictConfig
from deeplab_tf.config.padding import counted_size
from deeplab_tf.errors import ShortageError, is_out_of_memory, what_was_asked
from deeplab_tf.inference.predictor import Predictor
from deeplab_tf.network.sizes import halved
from deeplab_tf.ops.crf import densecrf
from deeplab_tf.ops.images import resize_labels, resize_longest
from deeplab_tf.ops.resizing import resize_bilinear

_PLAIN = Inference()
_Run = Callable[[np.ndarray], np.ndarray]  # from [h, w, 3] to [h, w, ...]
_OVERLAP = 8  # neighbouring tiles share an eighth of their side


def tiles(size: int, tile: int, stride: int = 1) -> Iterator[tuple[int, int, int]]:
    """Yields (start of the tile, first, last + 1 of the part kept) along one axis, covering 0..size without gaps.

    Tiles start at multiples of `stride`, the network's, so that it samples the picture where it would sample the whole.
    """
    step = max((tile - tile // _OVERLAP) // stride, 1) * stride
    last = -(-(size - tile) // stride) * stride
    starts = [0] if size <= tile else [*range(0, last, step), last]
    # Between neighbours the border lies in the middle of what they share.
    borders = [0, *((a + tile + b) // 2 for a, b in zip(starts, starts[1:], strict=False)), size]
    yield from zip(starts, borders[:-1], borders[1:], strict=True)


def _tile(predictor: Predictor, size: Sequence[int], options: PredictConfig) -> tuple[int, int] | None:
    """Returns the size of the tiles that an image of `size` is cut into; None: it is run whole.

    An exported file for images of one size has tiles of that size.
    """
    fixed = predictor.fixed_size
    if fixed is not None:
        return None if size[0] <= fixed[0] and size[1] <= fixed[1] else fixed
    return None if size[0] * size[1] <= options.max_pixels else _square(predictor, options)


def _square(predictor: Predictor, options: PredictConfig) -> tuple[int, int]:
    """Returns the largest tile (h, w) of at most `max_pixels` pixels that the network takes without padding."""
    stride = predictor.config.output_stride
    side = (math.isqrt(options.max_pixels) - 1) // stride * stride + 1
    return side, side


def _windows(size: Sequence[int], tile: tuple[int, int], stride: int) -> Iterator[tuple]:
    """Yields, as pairs of slices, each tile of at most the size `tile`, its middle, and where that is kept."""
    height, width = tile
    for top, first_row, last_row in tiles(size[0], height, stride):
        for left, first_column, last_column in tiles(size[1], width, stride):
            middle = slice(first_row - top, last_row - top), slice(first_column - left, last_column - left)
            kept = slice(first_row, last_row), slice(first_column, last_column)
            yield (slice(top, top + height), slice(left, left + width)), middle, kept


def _tiled(run: _Run, image: np.ndarray, tile: tuple[int, int], stride: int, result: np.ndarray) -> np.ndarray:
    """Fills `result` [h, w, ...] from tiles of at most the size `tile`, keeping the middle of each."""
    for window, middle, kept in _windows(image.shape, tile, stride):
        result[kept] = run(image[window])[middle]
    return result


def parts(predictor: Predictor, size: tuple[int, int], options: PredictConfig) -> Iterator[tuple]:
    """Yields the parts that an image is run in, for callers that run them: as slices, part, middle, and where kept.

    It is the whole of an image that has at most `max_pixels` as it is padded, else `network_labels`' tiles. (That one
    counts them before padding: of a picture of one row and many columns, padding makes many rows.)
    """
    tile = _tile(predictor, size, options)
    if tile is None and math.prod(counted_size(predictor.config, *size)) > options.max_pixels:
        tile = None if predictor.fixed_size else _square(predictor, options)
    if tile is None:
        whole = slice(0, size[0]), slice(0, size[1])
        yield whole, whole, whole
    else:
        yield from _windows(size, tile, predictor.config.output_stride)


def network_size(image: np.ndarray, options: PredictConfig, within: tuple[int, int] | None = None) -> np.ndarray:
    """Returns a photograph, uint8 [h, w, 3], at the size at which `options` have the network run on it.

    within: the one size (`Predictor.fixed_size`) that it must fit into where it is resized, but for letterbox.
    """
    height, width = image.shape[:2]
    longest = options.network_side(height, width)
    if within is not None and options.resize not in ("none", "letterbox"):
        longest = min(longest, int(min(within[0] / height, within[1] / width) * max(height, width)))
    return resize_longest(image, max(1, longest))


def _boxed(predictor: Predictor, options: PredictConfig, run: Callable[[Predictor, np.ndarray], np.ndarray]) -> _Run:
    """Returns `run` with a predictor, on the picture itself or for letterbox in the middle of a square."""
    if options.resize != "letterbox":
        return lambda image: run(predictor, image)
    side = options.longest_side
    square = predictor.in_squares(side)

    def in_square(image: np.ndarray) -> np.ndarray:
        top, left = ((side - length) // 2 for length in image.shape[:2])
        inside = slice(top, top + image.shape[0]), slice(left, left + image.shape[1])
        box = np.empty((side, side, image.shape[-1]), image.dtype)
        box[:] = predictor.config.pad_pixel
        box[inside] = image
        return run(square, box)[inside]

    return in_square


def network_labels(predictor: Predictor, image: np.ndarray, options: PredictConfig) -> np.ndarray:
    """Returns the class map of a photograph that is resized already, without CRF.

    For callers that resize elsewhere, in a thread that reads files for instance; `segment` does all of it.

    Args:
      predictor: runs the network.
      image: uint8 [h, w, 3], from `network_size`.
      options: scales and flips. Above `max_pixels` the network runs on overlapping tiles.

    Returns:
      int32 [h, w].
    """
    without_crf = dataclasses.replace(options.inference, crf=None)

    run = _boxed(predictor, options, lambda runner, part: runner.labels(part[None], without_crf)[0])
    tile = _tile(predictor, image.shape, options)
    if tile is None:
        return run(image)
    return _tiled(run, image, tile, predictor.config.output_stride, np.empty(image.shape[:2], np.int32))


def segment(predictor: Predictor, image: np.ndarray, options: PredictConfig) -> np.ndarray:
    """Returns the class map of one photograph at its own size: resized for the network, tiled where it is large.

    For single photographs; `segment_batch` is for the padded batches of a data set.

    Args:
      predictor: runs the network.
      image: uint8 [h, w, 3].
      options: resize rule, scales, flips, CRF. Above `max_pixels` the network, and the CRF, run on overlapping tiles,
        so that memory stays bounded.

    Returns:
      int32 [h, w].
    """
    if options.crf:
        probabilities = _probabilities(predictor, image, options, np.empty(_shape(predictor, image), np.float32))
        return _refined(
            image, probabilities, options, np.empty(image.shape[:2], np.int32), lambda part: part.argmax(-1)
        )

    sized = network_size(image, options, predictor.fixed_size)
    return resize_labels(network_labels(predictor, sized, options), *image.shape[:2])


def segment_batch(
    predictor: Predictor,
    images: np.ndarray,
    sizes: np.ndarray | None = None,
    inference: Inference = _PLAIN,
) -> np.ndarray:
    """Returns the class maps of a batch that may hold images of several sizes, padded to one.

    For the batches of a data set, whose pictures are scored at the size they have; `segment` is for photographs. What a
    picture gives does not depend on its company: where the batch is larger than the model's crop_size and sizes
    differ, each picture is run by itself, without the batch's padding; with a CRF always.

    Args:
      predictor: from `predictor_of`.
      images: [b, h, w, 3], RGB in 0..255.
      sizes: integers [b, 2], each picture's own height and width at the top left; None: all are h, w.
      inference: scales, flip, CRF, and what becomes of images larger than crop_size.

    Returns:
      int32 [b, h, w]; beyond a picture's own size the values mean nothing.

    Raises:
      DeepLabError: the memory does not suffice.
    """
    crop = predictor.config.crop_size
    whole = (images.shape[1], images.shape[2])
    own = [whole] * len(images) if sizes is None else [(int(height), int(width)) for height, width in sizes]
    tile = crop if inference.large_images == "tile" else None

    def run(part: np.ndarray) -> np.ndarray:
        return predictor.labels(part[None], inference)[0]

    def fits(size: tuple[int, int]) -> bool:
        return crop is not None and size[0] <= crop[0] and size[1] <= crop[1]

    labels = np.zeros(images.shape[:3], np.int32)
    try:
        if inference.crf is None and (fits(whole) or (set(own) == {whole} and tile is None)):
            return predictor.batch_labels(images, own, inference)
        for image, size, result in zip(images, own, labels, strict=True):
            image, result = image[: size[0], : size[1]], result[: size[0], : size[1]]
            if tile is not None and not fits(size):
                _tiled(run, image, tile, predictor.config.output_stride, result)
            else:
                result[:] = run(image)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        cures = " or ".join(_cures(len(images), whole, inference, predictor.config))
        what = f"{len(images)} images of {whole[0]} x {whole[1]}"
        raise ShortageError(f"not enough memory for {what} ({what_was_asked(error)}); try {cures}") from None
    return labels


def _cures(count: int, size: tuple[int, int], inference: Inference, config: ModelConfig) -> Iterator[str]:
    """Yields what a batch of images of one size needs less memory with; the flags of vis have its own names."""
    if count > 1:
        yield f"a batch of {count // 2}"
    if max(inference.scales) > 1:
        kept = [f"{scale:g}" for scale in inference.scales if scale <= 1]
        yield f"the scales {','.join(kept) or 1} alone"
    before = config.crop_size if inference.large_images == "tile" and config.crop_size else size
    smaller = halved((before[0], before[1]), config.output_stride)
    yield f"--large_images=tile with a crop of {smaller[0]},{smaller[1]}"


def _shape(predictor: Predictor, image: np.ndarray) -> tuple[int, ...]:
    return (*image.shape[:2], predictor.config.num_classes)


def network_probabilities(
    predictor: Predictor, image: np.ndarray, options: PredictConfig, result: np.ndarray | None = None
) -> np.ndarray:
    """Returns the class probabilities of a photograph that is resized already, without CRF; see `network_labels`.

    Args:
      predictor: runs the network.
      image: uint8 [h, w, 3], from `network_size`.
      options: scales and flips. Above `max_pixels` the network runs on overlapping tiles.
      result: float32 [h, w, classes], filled and returned where there are tiles.

    Returns:
      float32 [h, w, classes].
    """
    run = _boxed(predictor, options, lambda runner, part: runner.probabilities(part[None], options.inference)[0])
    tile = _tile(predictor, image.shape, options)
    if tile is None:
        return run(image)
    result = np.empty(_shape(predictor, image), np.float32) if result is None else result
    return _tiled(run, image, tile, predictor.config.output_stride, result)


def _probabilities(predictor: Predictor, image: np.ndarray, options: PredictConfig, result: np.ndarray) -> np.ndarray:
    """Fills `result` [h, w, classes] with the network's probabilities at the picture's own size, class by class."""
    sized = network_size(image, options, predictor.fixed_size)
    small = network_probabilities(predictor, sized, options, result if sized is image else None)
    if sized is image:
        if small is not result:
            result[:] = small
        return result
    for index in range(result.shape[-1]):
        resized = resize_bilinear(small[None, ..., index, None], image.shape[:2])
        result[..., index] = resized.numpy()[0, ..., 0]
    return result


def _refined(
    image: np.ndarray, probabilities: np.ndarray, options: PredictConfig, result: np.ndarray, finish: _Run
) -> np.ndarray:
    """Fills `result` [h, w, ...] with `finish` of the CRF's probabilities."""
    size, side = image.shape[:2], math.isqrt(options.max_pixels)
    tile = size if math.prod(size) <= options.max_pixels else (side, side)
    for window, middle, kept in _windows(size, tile, 1):
        refined = densecrf(image[window], probabilities[window], **cast(Any, options.crf_parameters))
        result[kept] = finish(refined)[middle]
    return result


def write_probabilities(predictor: Predictor, image: np.ndarray, options: PredictConfig, path: str) -> None:
    """Writes the class probabilities of one photograph at its own size: .npy, float32 [h, w, classes].

    Written through a memory map, for which the disk has reserved all of the file: OSError where it has no room. Where
    the picture was resized they are upsampled bilinearly, as the release's SemanticProbabilities; with `options.crf`
    they are those after the CRF.
    """
    shape = _shape(predictor, image)
    with open(path, "wb") as stream:
        head = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.float32)), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, head)
        stream.flush()
        files.allocate(stream, stream.tell() + np.dtype(np.float32).itemsize * math.prod(shape))
    result = np.lib.format.open_memmap(path, mode="r+")
    _fill_probabilities(predictor, image, options, result)
    result.flush()


def segment_probabilities(predictor: Predictor, image: np.ndarray, options: PredictConfig) -> np.ndarray:
    """Returns what `write_probabilities` writes, float32 [h, w, classes]."""
    result = np.empty(_shape(predictor, image), np.float32)
    _fill_probabilities(predictor, image, options, result)
    return result


def _fill_probabilities(predictor: Predictor, image: np.ndarray, options: PredictConfig, result: np.ndarray):
    if options.crf:
        probabilities = _probabilities(predictor, image, options, np.empty(result.shape, np.float32))
        _refined(image, probabilities, options, result, lambda part: part)
    else:
        _probabilities(predictor, image, options, result)
