"""Image files to masks, overlays, raw labels and probabilities, read and written while the network runs."""

import collections
import contextlib
import dataclasses
import errno
import functools
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import keras
import numpy as np

from deeplab_tf.config import PredictConfig
from deeplab_tf.config.predict import LEAST_PIXELS
from deeplab_tf.errors import DeepLabError, OptionError, is_out_of_memory, what_was_asked
from deeplab_tf.files import AnyPath, UnwritableError, growing, path, writing, written
from deeplab_tf.inference.inputs import SUFFIXES, require_apart, stems
from deeplab_tf.inference.predictor import Predictor
from deeplab_tf.inference.runtime import runtime_predictor
from deeplab_tf.inference.tiles import network_labels, network_size, segment, write_probabilities
from deeplab_tf.network.sizes import halved
from deeplab_tf.ops.images import jpeg_bytes, png_bytes, resize_labels
from deeplab_tf.ops.network_pictures import Picture, read_photograph
from deeplab_tf.ops.pictures import blend, class_shares, colour_mask, cut_out, palette_png
from deeplab_tf.ops.sheets import with_legend
from deeplab_tf.weights.model_directory import ModelCard

# Pictures that are read before their turn and written after it: enough for the network never to wait, and bounded.
_READ_AHEAD, _WRITE_BEHIND, _THREADS = 3, 6, 3


_Result = TypeVar("_Result")


@dataclasses.dataclass(frozen=True)
class ImageResult:
    """What became of one image.

    Attributes:
      name: of the image's file.
      size: height and width in pixels.
      files: that were written.
      seconds: in the network and the CRF.
      shares: of the classes found: (index, name, share of the pixels).
      notes: a line for each thing to know of the image.
      error: one line, where the image is at fault; the other fields are empty then.
    """

    name: str
    size: tuple[int, int] = (0, 0)
    files: tuple[AnyPath, ...] = ()
    seconds: float = 0.0
    shares: tuple[tuple[int, str, float], ...] = ()
    notes: tuple[str, ...] = ()
    error: str | None = None


def expected_pixels(files: Sequence[str], options: PredictConfig) -> int:
    """Returns about how many pixels the network will see at their own scale, for `runtime.runtime_predictor`.

    Of photographs that keep their size it is the least number.
    """
    inference = options.inference
    runs = inference.scales.count(1.0) * (2 if inference.flip else 1)
    return runs * len(files) * options.longest_side**2


class _Writer:
    """Writes what was asked for of one image after the other; each file appears complete or not at all."""

    def __init__(self, predictor: Predictor, card: ModelCard, output_dir: str | os.PathLike, options: PredictConfig):
        self._predictor, self._options = predictor, options
        self._choices = tuple(dict.fromkeys(options.save))
        self._names, self._palette = card.shown_names, card.shown_palette
        self._kind = np.uint8 if card.config.num_classes <= 256 else np.int32  # small maps are written faster
        self._folder = path(output_dir)
        with self._writing():
            self._folder.mkdir(parents=True, exist_ok=True)
            with growing(self._folder, names=[]):
                pass  # it can be written
        if "npz" in options.save:
            raise OptionError("--save=npz: for a clip; of pictures, --save=raw has the class maps")
        if "raw" in options.save and card.config.num_classes > 256:
            raise OptionError(f"--save=raw: {card.config.num_classes} classes do not fit a PNG of 8 bits; leave it out")

    @property
    def runs_the_network(self) -> bool:
        """Whether writing needs the network again."""
        return "probabilities" in self._choices

    def _writing(self) -> contextlib.AbstractContextManager[None]:
        return writing(self._folder, flag="--output_dir", cure="choose another folder")

    def _write(self, choice: str, file: pathlib.Path, picture: Picture, labels: np.ndarray, shares: Sequence):
        if choice == "mask":
            file.write_bytes(png_bytes(colour_mask(labels, self._palette)))
        elif choice == "overlay":
            file.write_bytes(
                jpeg_bytes(with_legend(blend(picture.shown, labels, self._palette), shares, self._palette))
            )
        elif choice == "raw":
            file.write_bytes(palette_png(labels, self._palette))
        elif choice == "cutout":
            file.write_bytes(png_bytes(cut_out(picture.shown, labels)))
        else:
            write_probabilities(self._predictor, picture.pixels, self._options, str(file))

    def write(self, name: str, stem: str, picture: Picture, labels: np.ndarray, seconds: float) -> ImageResult:
        """Writes the outputs of one picture. DeepLabError: the folder cannot be written."""
        labels = resize_labels(labels.astype(self._kind), *picture.shown.shape[:2])
        shares = class_shares(labels, self._names)
        targets = [self._folder / f"{stem}_{SUFFIXES[choice]}" for choice in self._choices]
        try:
            with self._writing(), contextlib.ExitStack() as stack:
                for choice, target in zip(self._choices, targets, strict=True):
                    # A picture can be segmented again: it need not wait for the disk.
                    file = stack.enter_context(written(target, durable=False))
                    self._write(choice, file, picture, labels, shares)
        except UnwritableError as error:
            if error.errno == errno.ENAMETOOLONG:
                raise DeepLabError(f"{name}: too long a name to add to; expected a shorter one") from None
            raise
        return ImageResult(name, labels.shape, tuple(targets), seconds, tuple(shares), picture.notes)


def _name(file: str) -> str:
    return "standard input" if file == "-" else file


class SegmentationPipeline:
    """Segments image files: threads read them, the caller's thread runs the network, threads write the outputs.

    For callers that have the files in batches, or name the outputs themselves; `predict_files` does both.

    Args:
      predictor: runs the network.
      card: of the model, for classes and colours.
      output_dir: gets the outputs; it is made.
      options: resize rule, scales, flips, CRF, and what to save.

    Raises:
      DeepLabError: the folder cannot be written, or the model is a backbone without classes.
    """

    def __init__(self, predictor: Predictor, card: ModelCard, output_dir: str | os.PathLike, options: PredictConfig):
        card.require_classes("predict with")
        options = options.for_model(card.letterbox, card.training_side)
        self._predictor, self._options = predictor, options
        if options.crf and card.config.input_channels != 3:
            bands = card.config.input_channels
            raise OptionError(f"--crf: compares the colours of RGB, and the model reads {bands} bands; leave it out")
        self._image = card.image
        self._writer = _Writer(predictor, card, output_dir, options)

    def _read(self, file: str) -> tuple[Picture, np.ndarray]:
        """Returns a picture, and its pixels at the size that the network gets."""
        source = sys.stdin.buffer.read() if file == "-" else file
        limit = self._options.max_image_pixels
        picture = read_photograph(source, self._image, name=_name(file), max_pixels=limit)
        return picture, network_size(picture.pixels, self._options, self._predictor.fixed_size)

    def _ahead(self, pool: ThreadPoolExecutor, files: Sequence[str]) -> Iterator[Future]:
        """Yields what `_read` gives of each file as a future; while one is worked on the next are read."""
        waiting: collections.deque[Future] = collections.deque()
        for file in files:
            waiting.append(pool.submit(self._read, file))
            if len(waiting) > _READ_AHEAD:
                yield waiting.popleft()
        yield from waiting

    def _segmented(self, picture: Future, name: str, stem: str, pool: ThreadPoolExecutor) -> Callable[[], ImageResult]:
        """Segments a picture when it is read; returns what waits for its outputs to be written."""
        read, sized = picture.result()
        start = time.perf_counter()
        if self._options.crf:
            labels = segment(self._predictor, read.pixels, self._options)
        else:
            labels = network_labels(self._predictor, sized, self._options)
        arguments = (name, stem, read, labels, time.perf_counter() - start)
        if self._writer.runs_the_network:
            result = self._writer.write(*arguments)
            return lambda: result
        return pool.submit(self._writer.write, *arguments).result

    def results(self, files: Sequence[str], names: Iterable[str]) -> Iterator[ImageResult]:
        """Yields the results of the files in their order; `names` are the stems of what is written of each."""
        pending: collections.deque[tuple[str, Callable[[], ImageResult]]] = collections.deque()
        with ThreadPoolExecutor(_THREADS) as pool:
            pictures = self._ahead(pool, files)
            try:
                for file, stem in zip(files, names, strict=True):
                    name, picture = _name(file), next(pictures)
                    segmented = _caught(
                        name, functools.partial(self._segmented, picture, name, stem, pool), self._options
                    )
                    if isinstance(segmented, ImageResult):
                        segmented = functools.partial(_same, segmented)
                    pending.append((name, segmented))
                    if len(pending) > _WRITE_BEHIND:
                        yield _caught(*pending.popleft(), self._options)
                while pending:
                    yield _caught(*pending.popleft(), self._options)
            finally:  # an error, or a reader who has seen enough
                pool.shutdown(cancel_futures=True)


def _same(result: ImageResult) -> ImageResult:
    return result


def _with_less(options: PredictConfig) -> str:
    """Returns the flags with which a picture needs about half the memory."""
    cures = []
    if max(options.eval_scales) > 1:
        cures.append(f"--eval_scales={','.join(f'{scale:g}' for scale in options.eval_scales if scale <= 1) or 1}")
    if options.resize != "none":
        cures.append(f"--longest_side={halved((options.longest_side, options.longest_side))[0]}")
    else:
        cures += [f"--max_pixels={options.max_pixels // 2}"] if options.max_pixels // 2 >= LEAST_PIXELS else []
        cures.append("--resize=longest")
    return " or ".join(cures)


def _caught(name: str, work: Callable[[], _Result], options: PredictConfig) -> _Result | ImageResult:
    """Returns what `work` returns, or where the picture is at fault a result that says so."""
    try:
        return work()
    except OptionError:  # the fault is not the picture's
        raise
    except DeepLabError as error:
        return ImageResult(name, error=str(error))
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        message = f"{name}: not enough memory ({what_was_asked(error)}); try {_with_less(options)}"
        return ImageResult(name, error=message)


def predict_files(
    model: keras.Model | Predictor,
    card: ModelCard,
    files: Sequence[str],
    output_dir: str | os.PathLike,
    options: PredictConfig,
    *,
    predictor: Predictor | None = None,
) -> Iterator[ImageResult]:
    """Yields the result of each file, in their order; a bad picture is a result with an error, the others go on.

    For files on disk; `predict.predict` takes arrays. While the network runs, threads read the next pictures and write
    the last ones.

    Args:
      model: from `loading.open_model`, or of an exported file from `exported.open_export`.
      card: of the model, from there too.
      files: from `inputs.expand_inputs`.
      output_dir: gets <stem>_mask.png, <stem>_overlay.jpg, <stem>_raw.png (palette PNG of class indices, at the
        picture's size) and <stem>_probabilities.npy (float32 [h, w, classes]), as `options.save` says.
      options: resize rule, scales, flips, CRF, what to save, runtime.
      predictor: from `runtime.runtime_predictor`; None: the one that `options.runtime` says.

    Raises:
      DeepLabError: the folder cannot be written, or an output would replace an input; the runtime is not installed,
        or the model is a backbone without classes.
    """
    require_apart(files, output_dir, options)
    predictor = predictor or runtime_predictor(model, options.runtime, pixels=expected_pixels(files, options))
    yield from SegmentationPipeline(predictor, card, output_dir, options).results(files, stems(files))
