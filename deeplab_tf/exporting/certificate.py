"""The certificate of an exported file: the file and the Keras model run on the same pictures, and are compared."""

import contextlib
import dataclasses
import json
import os
import pathlib
import platform
import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version

import keras
import numpy as np
import tensorflow as tf

from deeplab_tf import files
from deeplab_tf.config import ExportConfig
from deeplab_tf.config.inference import LONGEST_SIDE
from deeplab_tf.data.masks import LabelRules, read_label
from deeplab_tf.data.shapes import FIRST_INDEX, shapes_example
from deeplab_tf.data.transforms import resize_to_range
from deeplab_tf.errors import DeepLabError
from deeplab_tf.exporting.logits_once import LogitsOnce
from deeplab_tf.inference.exported_file import RunExport
from deeplab_tf.inference.exported_predictor import answer, takes_bytes
from deeplab_tf.inference.inputs import expand_inputs
from deeplab_tf.inference.predictor import Predictor, predictor_of
from deeplab_tf.network.precision import exact_float32
from deeplab_tf.ops.images import resize_labels, resize_longest
from deeplab_tf.ops.metrics import confusion_matrix, mean_iou
from deeplab_tf.ops.network_pictures import read_stored
from deeplab_tf.ops.resizing import resize_bilinear
from deeplab_tf.ops.value_range import scaled, stored
from deeplab_tf.weights.model_directory import ModelCard

_SHAPES_SIZE = (129, 129)
# The runs that the latency is measured with: as many as _SECONDS allow, within these limits.
_LEAST_RUNS = 3
_MOST_RUNS = 20
_SECONDS = 3.0
_FORBIDDEN = ("spacetobatch", "batchtospace", "flex")  # operations that other runtimes refuse


@dataclasses.dataclass(frozen=True)
class ComparedImage:
    """A picture on which file and model are compared.

    Attributes:
      image: uint8 [h, w, 3], padded if the file takes images of one size only.
      size: height and width of the picture without its padding.
      label: uint8 [height, width], or None.
    """

    image: np.ndarray
    size: tuple[int, int]
    label: np.ndarray | None = None


def _shrunk(image: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    """Returns the picture shrunk to fit into `size`, or without one to the longest side that `predict` takes."""
    height, width = image.shape[:2]
    if size is None:
        return resize_longest(image, LONGEST_SIDE) if max(height, width) > LONGEST_SIDE else image
    ratio = min(size[0] / height, size[1] / width)
    return resize_longest(image, max(1, int(ratio * max(height, width)))) if ratio < 1 else image


def fitted(image: np.ndarray, card: ModelCard, size: tuple[int, int] | None) -> ComparedImage:
    """Returns a picture for a file that takes images of `size`, or of any size if that is None: shrunk, then padded."""
    image = _shrunk(image, size or card.config.crop_size)
    if size is None or image.shape[:2] == size:
        return ComparedImage(image, (image.shape[0], image.shape[1]))
    padded = np.empty((*size, image.shape[-1]), image.dtype)
    padded[:] = stored(card.image, np.array(card.config.pad_pixel)) if card.image else card.config.pad_pixel
    padded[: image.shape[0], : image.shape[1]] = image
    return ComparedImage(padded, (image.shape[0], image.shape[1]))


def _drawn(card: ModelCard, size: tuple[int, int] | None, count: int) -> Iterator[ComparedImage]:
    """Yields pictures of drawn shapes, with labels if the model was trained on them.

    Without a fixed `size`, their sides are odd and even in turn.
    """
    height, width = size or card.config.crop_size or _SHAPES_SIZE
    for number in range(count):
        shape = (height, width) if size else (height - number % 2, width - number // 2 % 2)
        image, label = shapes_example(0, FIRST_INDEX["test"] + number, height=shape[0], width=shape[1])
        yield ComparedImage(_as_stored(image, card), shape, label if card.dataset == "shapes" else None)


def _as_stored(image: np.ndarray, card: ModelCard) -> np.ndarray:
    """Returns a picture of RGB as the file takes it: bands beyond the third repeat its own, values are stored ones."""
    channels = card.config.input_channels
    image = image[..., [band % 3 for band in range(channels)]]
    return image if takes_bytes(card) else stored(card.image, image) if card.image else image.astype(np.float32)


def read_compared(file: str, card: ModelCard) -> np.ndarray:
    """Returns a picture of the user's as an exported file takes it, [h, w, bands]: uint8, or float32 stored values."""
    pixels, _ = read_stored(file, card.image)
    return pixels if takes_bytes(card) else pixels.astype(np.float32)


def compared_images(options: ExportConfig, card: ModelCard, size: tuple[int, int] | None) -> Iterator[ComparedImage]:
    """Yields the pictures of the certificate: the user's, those of the ranges, or drawn shapes.

    Args:
      options: its images, or else its representative_images, labels and num_images are used.
      card: of the model.
      size: height and width that the file takes; None if it takes any.

    Raises:
      DeepLabError: an image or a label is missing or damaged, or their sizes differ.
    """
    given = options.images or options.representative_images
    if not given:
        yield from _drawn(card, size, options.num_images)
        return
    rules = LabelRules(card.config.num_classes, card.ignore_label, card.shown_palette)
    for file in expand_inputs(given)[: options.num_images]:
        image = read_compared(file, card)
        compared = fitted(image, card, size)
        if options.labels:
            path = str(files.path(options.labels) / f"{pathlib.PurePath(file).stem}.png")
            label = read_label(path, rules)
            if label.shape != image.shape[:2]:
                raise DeepLabError(f"{path}: {label.shape} pixels, but {file} has {image.shape[:2]}; expected the same")
            compared = dataclasses.replace(compared, label=resize_labels(label, *compared.size))
        yield compared


# ---- the classes and probabilities of model and file


def _resized(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns maps [b, h, w, c] at `size`."""
    return maps if maps.shape[1:3] == size else resize_bilinear(maps, size).numpy()


def keras_answer(model: keras.Model, image: np.ndarray, options: ExportConfig) -> tuple[np.ndarray, np.ndarray]:
    """Returns the Keras model's classes [h, w] and probabilities [h, w, classes] for an image, uint8 [h, w, 3]."""
    whole = predictor_of(model)
    predictor = Predictor(whole.config, LogitsOnce(whole.backend))
    size = (image.shape[0], image.shape[1])
    if options.min_resize_value is not None:
        resized, _ = resize_to_range(
            tf.constant(image),
            minimum=options.min_resize_value,
            maximum=options.max_resize_value,
            factor=options.resize_factor,
        )
        image = resized.numpy()
    labels = resize_labels(predictor.labels(image[None], options.inference)[0], *size)
    return labels, _resized(predictor.probabilities(image[None], options.inference), size)[0]


def file_answer(
    run: RunExport, image: np.ndarray, *, upsampled_logits: bool = True
) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns the exported file's classes [h, w] and, if it gives scores, probabilities [h, w, classes].

    Args:
      run: runs the file.
      image: uint8 [h, w, 3].
      upsampled_logits: the model's prediction_with_upsampled_logits: whether logits of a low resolution are upsampled
        before their largest is taken.
    """
    return answer(run(image[None]), (image.shape[0], image.shape[1]), upsampled_logits=upsampled_logits)


# ---- the comparison


@dataclasses.dataclass
class _Tally:
    """The sums and maxima over the compared pictures.

    Attributes:
      classes: of the model.
      ignore_label: of its labels.
      images: the number of pictures.
      pixels: of all of them, without padding.
      equal: pixels in which file and model have the same class.
      margin: the largest difference of the model's probabilities of its class and of the file's class.
      difference: the largest difference of the file's and the model's probabilities; None if the file gives none.
      matrices: int64 [2, classes, classes], the confusion matrices of model and file; None without labels.
    """

    classes: int
    ignore_label: int
    images: int = 0
    pixels: int = 0
    equal: int = 0
    margin: float = 0.0
    difference: float | None = None
    matrices: np.ndarray | None = None

    def add(
        self,
        compared: ComparedImage,
        keras_result: tuple[np.ndarray, np.ndarray],
        file_result: tuple[np.ndarray, np.ndarray | None],
    ) -> None:
        """Counts one picture, from the classes and probabilities that the two answers gave."""
        inside = tuple(slice(side) for side in compared.size)
        expected = keras_result[0][inside]
        probabilities = keras_result[1][inside]
        exported = file_result[0][inside]
        self.images += 1
        self.pixels += expected.size
        self.equal += int((expected == exported).sum())
        best, other = (np.take_along_axis(probabilities, m[..., None], -1)[..., 0] for m in (expected, exported))
        self.margin = max(self.margin, float((best - other).max()))
        if file_result[1] is not None:
            difference = float(np.abs(file_result[1][inside] - probabilities).max())
            self.difference = max(self.difference or 0.0, difference)
        if compared.label is not None:
            matrices = np.array([self._confusion(compared.label, labels) for labels in (expected, exported)])
            self.matrices = matrices if self.matrices is None else self.matrices + matrices

    def _confusion(self, label: np.ndarray, classes: np.ndarray) -> np.ndarray:
        return confusion_matrix(label, classes, self.classes, ignore_label=self.ignore_label)

    def result(self) -> dict:
        """Returns the figures of the certificate."""
        scores = None
        if self.matrices is not None:
            scores = dict(zip(("keras", "exported"), map(mean_iou, self.matrices), strict=True))
        return {
            "images": self.images,
            "pixels": self.pixels,
            "agreement": self.equal / self.pixels,
            "largest_probability_difference": self.difference,
            "largest_margin_of_a_changed_pixel": self.margin,
            "miou": scores,
        }


def compare(
    model: keras.Model, run: RunExport, pictures: Iterable[ComparedImage], card: ModelCard, options: ExportConfig
) -> dict:
    """Returns the agreement of the exported file with the Keras model.

    Args:
      model: the Keras model.
      run: runs the file.
      pictures: those to compare on.
      card: of the model.
      options: those of the export.

    Returns:
      "images", "pixels"; "agreement", the share of pixels with the same class; "largest_probability_difference" (None
      if the file gives only classes); "largest_margin_of_a_changed_pixel", the most probability by which the Keras
      model prefers its class to the file's; "miou" of both (None without labels).

    Raises:
      DeepLabError: a label is out of range.
    """
    tally = _Tally(card.config.num_classes, card.ignore_label)
    upsampled_logits = card.config.prediction_with_upsampled_logits
    for compared in pictures:
        with exact_float32():  # as the Keras model is run
            exported = file_answer(run, compared.image, upsampled_logits=upsampled_logits)
        seen = scaled(card.image, compared.image) if card.image else compared.image
        expected = keras_answer(model, seen, options)
        try:
            tally.add(compared, expected, exported)
        except ValueError as error:
            raise DeepLabError(f"--labels={options.labels}: {error}; mend the labels") from None
    return tally.result()


def latency(run: RunExport, image: np.ndarray) -> dict:
    """Returns the median time of one picture in milliseconds, from pixels to the file's output, after a warm-up.

    image: uint8 [h, w, 3].
    """
    times = []
    start = time.perf_counter()
    run(image[None])
    while len(times) < _LEAST_RUNS or (len(times) < _MOST_RUNS and time.perf_counter() - start < _SECONDS):
        before = time.perf_counter()
        run(image[None])
        times.append(time.perf_counter() - before)
    size = list(image.shape[:2])
    return {"median_ms": round(1000 * statistics.median(times), 2), "size": size, "runs": len(times)}


def machine() -> str:
    """Returns the processor's name, as far as the system gives it, the number of its cores, and the system."""
    name = platform.processor() or platform.machine()
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    except OSError:
        pass
    return f"{name}, {os.cpu_count()} cores, {platform.system()}"


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Returns the versions of Python and of the installed ones of `packages`: name -> version."""
    installed = {"python": platform.python_version()}
    for package in ("deeplab_tf", "tensorflow", "keras", "numpy", *packages):
        with contextlib.suppress(PackageNotFoundError):
            installed[package] = version(package)
    return installed


# ---- the verdict


def require_portable(operations: Iterable[str], path: object) -> None:
    """Raises DeepLabError if a file holds an operation that runtimes refuse, or that hides an atrous convolution."""
    forbidden = [name for name in operations if name.replace("_", "").lower().startswith(_FORBIDDEN)]
    if forbidden:
        raise DeepLabError(f"{path}: holds {', '.join(forbidden)}, which other runtimes refuse; nothing was written")


def require_agreement(figures: dict, options: ExportConfig, path: object) -> None:
    """Raises DeepLabError if the agreement is below the one that the options require."""
    least = options.required_agreement
    if figures["agreement"] >= least:
        return
    cure = "give a lower --min_agreement if that is enough"
    if options.precision == "int8":
        cure = f"more --representative_images like those to come help; or {cure}"
    raise DeepLabError(
        f"{path}: gives the Keras model's class in {100 * figures['agreement']:.3f} % of the pixels of "
        f"{figures['images']} images; expected at least {100 * least:g} % (--min_agreement). Nothing was written; "
        f"{cure}"
    )


def write_certificate(certificate: dict, path: pathlib.Path) -> None:
    """Writes the certificate as JSON."""
    path.write_text(json.dumps(certificate, indent=1) + "\n", encoding="utf-8")
