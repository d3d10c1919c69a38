"""Segmenting images: `predict` on arrays, `predict_files` on files, folders, globs and standard input."""

import dataclasses
import glob
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

from deeplab_tf.checkpoint import ModelCard
from deeplab_tf.config import PredictConfig
from deeplab_tf.data.catalog import pascal_palette
from deeplab_tf.errors import DeepLabError
from deeplab_tf.images import EXTENSIONS, read_image, write_png
from deeplab_tf.predictor import predictor_of, segment, write_probabilities
from deeplab_tf.visualize import class_shares, colour_mask, overlay, palette_png

_SUFFIXES = {"mask": "mask.png", "overlay": "overlay.png", "raw": "raw.png", "probabilities": "probabilities.npy"}


def predict(
    model: keras.Model,
    images: np.ndarray,
    *,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    crf: Mapping[str, float] | None = None,
) -> np.ndarray:
    """Returns the class maps of images, at their size.

    Each image is padded bottom right with the variant's mean pixel to the model's crop_size, or where that is unset or
    too small to k * output_stride + 1; the logits are upsampled with aligned corners; the padding is cut off. With
    several scales or flips, softmax probabilities at full size are averaged. Unlike the release, `flip` also counts
    where the only scale is 1.

    Args:
      model: from `build_model` or `load`.
      images: [b, h, w, 3], RGB in 0..255, any numeric dtype.
      scales: of the input, for instance (0.5, 0.75, 1.0, 1.25, 1.5, 1.75).
      flip: also run on the mirrored images.
      crf: refine each picture by `crf.densecrf` with these arguments ({}: the defaults); None: do not.

    Returns:
      int32 [b, h, w], class indices.

    Raises:
      DeepLabError: `images` is not of that shape, a scale is not above 0, or `model` was not made here.
    """
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[-1] != 3 or 0 in images.shape:
        raise DeepLabError(f"images of shape {images.shape}: expected [b, h, w, 3], RGB in 0..255")
    if not len(scales) or min(scales) <= 0:
        raise DeepLabError(f"scales={scales!r}: expected numbers above 0")
    return predictor_of(model).labels(images, scales=tuple(scales), flip=flip, crf=crf)


@dataclasses.dataclass(frozen=True)
class Result:
    """What became of one image: its size (h, w), the files written, seconds from pixels to classes, and the classes
    found as (index, name, share); or `error`, one line."""

    name: str
    size: tuple[int, int] = (0, 0)
    files: tuple[pathlib.Path, ...] = ()
    seconds: float = 0.0
    shares: tuple[tuple[int, str, float], ...] = ()
    error: str | None = None


def _entries(folder: str) -> list[pathlib.Path]:
    try:
        return sorted(pathlib.Path(folder).iterdir())
    except OSError as error:
        raise DeepLabError(f"{folder}: cannot be read ({error.strerror or error}); expected a folder") from None


def expand_inputs(inputs: Sequence[str]) -> list[str]:
    """Returns the image files of `inputs`: files, folders (their images, by extension), globs, "-" (standard input).

    Raises:
      DeepLabError: nothing matches one of them.
    """
    files = []
    for item in inputs:
        if item == "-" or os.path.isfile(item):
            found = [item]
        elif os.path.isdir(item):
            entries = _entries(item)
            found = [str(path) for path in entries if path.suffix.lower() in EXTENSIONS and path.is_file()]
            if not found:
                raise DeepLabError(f"{item}: no images in this folder; expected {', '.join(EXTENSIONS)}")
        else:
            found = sorted(path for path in glob.glob(item, recursive=True) if os.path.isfile(path))
            if not found:
                raise DeepLabError(f"{item}: no such file, and nothing matches it; expected image files or a folder")
        files += [path for path in found if path not in files]
    return files


def _stems(files: Sequence[str]) -> Iterator[str]:
    """A stem for each file; the second of a name gets -2, so that none overwrites another's output."""
    used: set[str] = set()
    for file in files:
        stem = base = "stdin" if file == "-" else pathlib.Path(file).stem
        number = 1
        while stem in used:
            number += 1
            stem = f"{base}-{number}"
        used.add(stem)
        yield stem


class _Writer:
    """Writes what was asked for of one image after the other; each file appears complete or not at all."""

    def __init__(self, model: keras.Model, card: ModelCard, output_dir: str | os.PathLike, options: PredictConfig):
        self._predictor, self._options = predictor_of(model), options
        self._choices = tuple(dict.fromkeys(options.save))
        self._names = card.class_names or tuple(f"class {i}" for i in range(card.config.num_classes))
        self._palette = card.palette or pascal_palette(card.config.num_classes)
        self._folder = pathlib.Path(output_dir)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".partial-", dir=self._folder):
                pass
        except OSError as error:
            raise self._unwritable(error) from None
        if "raw" in options.save and card.config.num_classes > 256:
            raise DeepLabError(
                f"--save=raw: {card.config.num_classes} classes do not fit a PNG of 8 bits; leave it out"
            )

    def _unwritable(self, error: Exception) -> DeepLabError:
        return DeepLabError(f"--output_dir={self._folder}: cannot be written ({error}); choose another folder")

    def _write(self, choice: str, path: pathlib.Path, image: np.ndarray, labels: np.ndarray):
        if choice == "mask":
            write_png(colour_mask(labels, self._palette), path)
        elif choice == "overlay":
            write_png(overlay(image, labels, self._palette, self._names), path)
        elif choice == "raw":
            path.write_bytes(palette_png(labels, self._palette))
        else:
            write_probabilities(self._predictor, image, self._options, str(path))

    def run(self, file: str, stem: str) -> Result:
        """Segments one file and writes its outputs. DeepLabError: the picture is bad, or the folder cannot be
        written."""
        name = "standard input" if file == "-" else file
        image = read_image(sys.stdin.buffer.read() if file == "-" else file, name=name)
        start = time.perf_counter()
        labels = segment(self._predictor, image, self._options)
        seconds = time.perf_counter() - start
        targets = [self._folder / f"{stem}_{_SUFFIXES[choice]}" for choice in self._choices]
        try:
            with tempfile.TemporaryDirectory(prefix=".partial-", dir=self._folder) as partial:
                for choice, target in zip(self._choices, targets, strict=True):
                    self._write(choice, pathlib.Path(partial) / target.name, image, labels)
                for target in targets:
                    os.replace(pathlib.Path(partial) / target.name, target)
        except OSError as error:
            raise self._unwritable(error) from None
        return Result(name, labels.shape, tuple(targets), seconds, tuple(class_shares(labels, self._names)))


def predict_files(
    model: keras.Model, card: ModelCard, files: Sequence[str], output_dir: str | os.PathLike, options: PredictConfig
) -> Iterator[Result]:
    """Yields the result of each file as it is done; a bad picture is a result with an error, the others go on.

    Args:
      model, card: from `loading.open_model`.
      files: from `expand_inputs`.
      output_dir: gets <stem>_mask.png, <stem>_overlay.png, <stem>_raw.png (palette PNG of class indices, at the
        picture's size) and <stem>_probabilities.npy (float32 [h, w, classes]), as `options.save` says.
      options: resize rule, scales, flips, CRF, what to save.

    Raises:
      DeepLabError: the folder cannot be written, or the model is a backbone without classes.
    """
    if card.kind != "segmentation":
        raise DeepLabError(
            f"{card.source_checkpoint}: a backbone without classes, to start training from; not to predict"
        )
    writer = _Writer(model, card, output_dir, options)
    for file, stem in zip(files, _stems(files), strict=True):
        name = "standard input" if file == "-" else file
        try:
            yield writer.run(file, stem)
        except DeepLabError as error:
            if str(error).startswith("--output_dir"):
                raise
            yield Result(name, error=str(error))
        except (MemoryError, tf.errors.ResourceExhaustedError):
            yield Result(name, error=f"{name}: not enough memory; give --resize=longest or a smaller --max_pixels")
