"""The proof that an exported file does what the Keras model does: both are run on the same pictures and compared."""

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

from deeplab_tf.arch import ARCHITECTURES
from deeplab_tf.catalog.palettes import pascal_palette
from deeplab_tf.config import ExportConfig
from deeplab_tf.data.pairs import LabelRules, read_label
from deeplab_tf.data.shapes import FIRST_INDEX, shapes_example
from deeplab_tf.data.transforms import resize_to_range
from deeplab_tf.errors import DeepLabError
from deeplab_tf.exporting.formats import RunExport
from deeplab_tf.inference.files import expand_inputs
from deeplab_tf.inference.predictor import predictor_of
from deeplab_tf.ops.images import read_image, resize_labels, resize_longest
from deeplab_tf.ops.metrics import confusion_matrix, mean_iou
from deeplab_tf.ops.resizing import resize_bilinear
from deeplab_tf.weights.model_directory import ModelCard

CERTIFICATE = "certificate.json"
_LONGEST = 513  # larger photographs are shrunk, as `predict` does
_SHAPES_SIZE = (129, 129)
_LEAST_RUNS, _MOST_RUNS, _SECONDS = 3, 20, 3.0
_FORBIDDEN = ("spacetobatch", "batchtospace", "flex")


@dataclasses.dataclass(frozen=True)
class ComparedImage:
    """A picture to compare on.

    Attributes:
      image: uint8 [h, w, 3] as the file takes it, padded where that has one size.
      size: height and width of the picture itself, at the top left.
      label: uint8 [height, width], or None.
    """

    image: np.ndarray
    size: tuple[int, int]
    label: np.ndarray | None = None


def _shrunk(image: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    """The picture made to fit into `size`, or the longest side that `predict` takes; never enlarged."""
    height, width = image.shape[:2]
    if size is None:
        return resize_longest(image, _LONGEST) if max(height, width) > _LONGEST else image
    ratio = min(size[0] / height, size[1] / width)
    return resize_longest(image, max(1, int(ratio * max(height, width)))) if ratio < 1 else image


def fitted(image: np.ndarray, card: ModelCard, size: tuple[int, int] | None) -> ComparedImage:
    """Returns a picture as a file for images of `size` takes it (None: of any size): shrunk, then padded."""
    image = _shrunk(image, size or card.config.crop_size)
    if size is None or image.shape[:2] == size:
        return ComparedImage(image, image.shape[:2])
    padded = np.empty((*size, 3), np.uint8)
    padded[:] = ARCHITECTURES[card.config.model_variant].pad_pixel
    padded[: image.shape[0], : image.shape[1]] = image
    return ComparedImage(padded, image.shape[:2])


def _drawn(card: ModelCard, size: tuple[int, int] | None, count: int) -> Iterator[ComparedImage]:
    """Pictures of drawn shapes; of sizes odd and even where any is taken, with labels where the model knows them."""
    height, width = size or card.config.crop_size or _SHAPES_SIZE
    for number in range(count):
        less = (0, 0) if size else (number % 2, number // 2 % 2)
        shape = (height - less[0], width - less[1])
        image, label = shapes_example(0, FIRST_INDEX["test"] + number, height=shape[0], width=shape[1])
        yield ComparedImage(image, shape, label if card.dataset == "shapes" else None)


def examples(options: ExportConfig, card: ModelCard, size: tuple[int, int] | None) -> Iterator[ComparedImage]:
    """Yields the pictures of the certificate: the user's, or drawn shapes.

    Args:
      options: images, labels and num_images.
      card: of the model.
      size: the one size the file takes, or None.

    Raises:
      DeepLabError: an image or label is missing, damaged, or does not fit the other.
    """
    if not options.images:
        yield from _drawn(card, size, options.num_images)
        return
    palette = card.palette or pascal_palette(card.config.num_classes)
    rules = LabelRules(num_classes=card.config.num_classes, ignore_label=card.ignore_label, palette=palette)
    for file in expand_inputs(options.images)[: options.num_images]:
        image = read_image(file)
        example = fitted(image, card, size)
        if options.labels:
            path = str(pathlib.Path(options.labels) / f"{pathlib.Path(file).stem}.png")
            label = read_label(path, rules)
            if label.shape != image.shape[:2]:
                raise DeepLabError(f"{path}: {label.shape} pixels, but {file} has {image.shape[:2]}; expected the same")
            example = dataclasses.replace(example, label=resize_labels(label, *example.size))
        yield example


# ---- the two answers


def _softmax(logits: np.ndarray) -> np.ndarray:
    return tf.nn.softmax(logits).numpy()


def _resized(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return maps if maps.shape[1:3] == size else resize_bilinear(maps, size).numpy()


def keras_answer(model: keras.Model, image: np.ndarray, options: ExportConfig) -> tuple[np.ndarray, np.ndarray]:
    """Returns what the Keras model says, by `predictor.Predictor`: classes [h, w] and probabilities [h, w, classes]."""
    predictor, size = predictor_of(model), image.shape[:2]
    if options.min_resize_value is not None:
        limits = {"maximum": options.max_resize_value, "factor": options.resize_factor}
        image = resize_to_range(tf.constant(image), minimum=options.min_resize_value, **limits)[0].numpy()
    averaged = {"scales": options.inference_scales, "flip": options.add_flipped_images}
    labels = resize_labels(predictor.labels(image[None], **averaged)[0], *size)
    return labels, _resized(predictor.probabilities(image[None], **averaged), size)[0]


def file_answer(
    run: RunExport, image: np.ndarray, *, upsampled_logits: bool = True
) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns what the exported file says: classes [h, w] and, if it gives any scores, probabilities [h, w, classes].

    `upsampled_logits` is the model's prediction_with_upsampled_logits; it says what becomes of logits of a low
    resolution.
    """
    size, found = image.shape[:2], run(image[None])
    probabilities = found.get("probabilities")
    if probabilities is None and "logits" in found:
        logits = found["logits"]
        probabilities = _softmax(_resized(logits, size)) if upsampled_logits else _resized(_softmax(logits), size)
        small = probabilities if upsampled_logits else logits
        found.setdefault("predictions", resize_labels(small[0].argmax(-1), *size)[None])
    elif "predictions" not in found:
        found["predictions"] = probabilities.argmax(-1)
    return found["predictions"][0], None if probabilities is None else probabilities[0]


# ---- the comparison


@dataclasses.dataclass
class _Tally:
    """What adds up over the pictures."""

    classes: int
    ignore_label: int
    images: int = 0
    pixels: int = 0
    equal: int = 0
    margin: float = 0.0
    difference: float | None = None
    matrices: np.ndarray | None = None

    def add(self, example: ComparedImage, truth: np.ndarray, probabilities: np.ndarray, found: np.ndarray, scores):
        """Counts one picture: the Keras model's classes and probabilities, the file's classes and, if any, scores."""
        own = tuple(slice(side) for side in example.size)
        truth, probabilities, found = truth[own], probabilities[own], found[own]
        self.images, self.pixels = self.images + 1, self.pixels + truth.size
        self.equal += int((truth == found).sum())
        best, other = (np.take_along_axis(probabilities, m[..., None], -1)[..., 0] for m in (truth, found))
        self.margin = max(self.margin, float((best - other).max()))
        if scores is not None:
            self.difference = max(self.difference or 0.0, float(np.abs(scores[own] - probabilities).max()))
        if example.label is not None:
            counted = [
                confusion_matrix(example.label, m, self.classes, ignore_label=self.ignore_label) for m in (truth, found)
            ]
            self.matrices = np.array(counted) + (0 if self.matrices is None else self.matrices)

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
    """Returns how far the exported file and the Keras model agree.

    Returns:
      "images", "pixels"; "agreement", the share of pixels with the same class; "largest_probability_difference" (None
      where the file gives classes alone); "largest_margin_of_a_changed_pixel", by how much probability the Keras model
      prefers its class to the file's, at most; "miou" of both (None without labels).

    Raises:
      DeepLabError: a label is out of range.
    """
    tally = _Tally(card.config.num_classes, card.ignore_label)
    for example in pictures:
        found, scores = file_answer(run, example.image, upsampled_logits=card.config.prediction_with_upsampled_logits)
        truth, probabilities = keras_answer(model, example.image, options)
        try:
            tally.add(example, truth, probabilities, found, scores)
        except ValueError as error:
            raise DeepLabError(f"--labels={options.labels}: {error}; mend the labels") from None
    return tally.result()


def latency(run: RunExport, image: np.ndarray) -> dict:
    """Returns the median time of one picture in milliseconds, from pixels to the file's output, after a warm-up."""
    times, start = [], time.perf_counter()
    run(image[None])
    while len(times) < _LEAST_RUNS or (len(times) < _MOST_RUNS and time.perf_counter() - start < _SECONDS):
        before = time.perf_counter()
        run(image[None])
        times.append(time.perf_counter() - before)
    size = list(image.shape[:2])
    return {"median_ms": round(1000 * statistics.median(times), 2), "size": size, "runs": len(times)}


def machine() -> str:
    """Returns the processor's name, as far as it can be told, and the number of its cores."""
    name = platform.processor() or platform.machine()
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    except OSError:
        pass
    return f"{name}, {os.cpu_count()} cores, {platform.system()}"


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Returns the versions of Python and of those `packages` that are installed."""
    found = {"python": platform.python_version()}
    for package in ("deeplab_tf", "tensorflow", "keras", "numpy", *packages):
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


# ---- the verdict


def require_portable(operations: Iterable[str], path: object):
    """Raises DeepLabError where a file holds an operation that its runtimes refuse or that hides an atrous one."""
    found = [name for name in operations if name.replace("_", "").lower().startswith(_FORBIDDEN)]
    if found:
        raise DeepLabError(f"{path}: holds {', '.join(found)}, which other runtimes refuse; nothing was written")


def require_agreement(figures: dict, options: ExportConfig, path: object):
    """Raises DeepLabError where the agreement is below what the options ask for."""
    least = options.required_agreement
    if figures["agreement"] >= least:
        return
    cure = "give a lower --min_agreement if that will do"
    if options.precision == "int8":
        cure = f"more --representative_images like those to come help; or {cure}"
    raise DeepLabError(
        f"{path}: gives the Keras model's class in {100 * figures['agreement']:.3f} % of the pixels of "
        f"{figures['images']} images; expected at least {100 * least:g} % (--min_agreement). Nothing was written; "
        f"{cure}"
    )


def write_certificate(certificate: dict, path: pathlib.Path):
    """Writes the certificate as JSON."""
    path.write_text(json.dumps(certificate, indent=1) + "\n", encoding="utf-8")
