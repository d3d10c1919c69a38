"""The measurement of `benchmark --what=inference`: models x runtimes x sizes x batches, beside a matrix product.

Each is timed from uint8 images to label maps. They take turns, so that a machine whose speed drifts treats them alike.
"""

import dataclasses
import functools
import math
import os
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, cast

import keras
import numpy as np
import tensorflow as tf

from deeplab_tf import files
from deeplab_tf.benchmarks import memory
from deeplab_tf.benchmarks.pipeline import photograph
from deeplab_tf.config import ExportConfig
from deeplab_tf.config.export import INPUT, OUTPUTS, Format, Precision
from deeplab_tf.errors import DeepLabError, unknown_name
from deeplab_tf.exporting.formats import FORMATS
from deeplab_tf.inference.exported import open_export
from deeplab_tf.inference.folded_graph import read_weights
from deeplab_tf.inference.graph import GraphDef, Segmentation, build_graph
from deeplab_tf.inference.runtime import runtime_predictor
from deeplab_tf.inference.tflite.convert import LiteModel
from deeplab_tf.network.cost import model_cost
from deeplab_tf.network.sizes import at_size, padded_size
from deeplab_tf.network.wrapped import config_of
from deeplab_tf.ops.resizing import resize_bilinear
from deeplab_tf.weights.exported import find_export
from deeplab_tf.weights.loading import open_model

Segment = Callable[[np.ndarray], object]  # images uint8 [b, h, w, 3] -> labels
_MATRIX = 1536  # rows and columns of the matrix product
_AUTO = "auto"
_PAUSE = 0.05  # seconds, in which the threads of the runtime before cease to wait busily for more
_CALIBRATION = 8  # images on which the ranges of int8 are measured: enough to time it, not to use it


@dataclasses.dataclass
class Measurement:
    """One combination and its figures.

    Attributes:
      model: its name.
      runtime: its name; with ", logits" it runs without upsampling and argmax.
      size: height and width of the images.
      batch: the number of images at a time.
      multiply_adds: of the convolutions, for the whole batch.
      memory: the most memory in MB while it was opened and first run.
      seconds: of each round.
    """

    model: str
    runtime: str
    size: tuple[int, int]
    batch: int
    multiply_adds: int
    memory: float = 0.0
    seconds: list[float] = dataclasses.field(default_factory=list)

    @property
    def label(self) -> str:
        """The combination as text."""
        height, width = self.size
        return f"{self.model}, {height} x {width}, batch {self.batch}: {self.runtime}"

    def figures(self, peak: float) -> dict:
        """Returns the figures as the JSON file has them; `peak` is the matrix product's multiply-adds in a second."""
        middle = statistics.median(self.seconds)
        low, _, high = statistics.quantiles(self.seconds * 2, n=4, method="inclusive")
        speed = self.multiply_adds / middle
        return {
            "model": self.model,
            "runtime": self.runtime,
            "size": self.size,
            "batch": self.batch,
            "ms": 1000 * middle,
            "ms_middle_half": [1000 * low, 1000 * high],
            "images_per_s": self.batch / middle,
            "ms_per_megapixel": 1e9 * middle / (self.batch * self.size[0] * self.size[1]),
            "gmac_per_s": speed / 1e9,
            "share_of_matmul": speed / peak,
            "memory_mb": self.memory,
        }


# ---- the runtimes


def _in_tensorflow(model: keras.Model, size: tuple[int, int], *, whole: bool) -> Segment:
    """Returns the Keras model in a plain tf.function."""

    @tf.function(input_signature=[tf.TensorSpec([None, *size, 3], tf.uint8)])
    def run(images: tf.Tensor) -> tf.Tensor:
        logits = model(tf.cast(images, tf.float32), training=False)
        return tf.argmax(resize_bilinear(logits, size), axis=-1, output_type=tf.int32) if whole else logits

    return lambda images: run(tf.constant(images)).numpy()


def _exported(kind: Format, precision: Precision) -> "_Runtime":
    """Returns the runtime of an exported format."""

    def opened(model: keras.Model, size: tuple[int, int], *, whole: bool) -> Segment:
        lite = kind == "tflite"
        outputs = ("predictions",) if whole else ("logits",)
        upsample = "argmax" if whole else "none"
        options = ExportConfig(format=kind, outputs=outputs, export_upsample=upsample, precision=precision)
        config = dataclasses.replace(config_of(model), crop_size=size if lite else None)
        shape = (1, *size, 3) if lite else (None, None, None, 3)
        pixels = tf.float32 if precision == "int8" else tf.uint8
        segmentation = Segmentation(config, read_weights(model), options, FORMATS[kind].target)
        graph = build_graph(segmentation, shape, pixels)
        samples = (photograph(size, seed)[0][None].astype(np.float32) for seed in range(_CALIBRATION))
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "exported"
            FORMATS[kind].write(graph, options, path, samples)
            run = FORMATS[kind].open(path, options)
        (name,) = outputs
        if lite:  # it takes one image at a time
            return lambda images: np.concatenate([run(image[None])[name] for image in images])
        return lambda images: run(images)[name]

    return opened


def _predicted(runtime: str) -> "_Runtime":
    """Returns the predictor that `predict` uses with --runtime=`runtime`."""

    def opened(model: keras.Model, size: tuple[int, int], *, whole: bool) -> Segment:
        predictor = runtime_predictor(model, runtime, pixels=math.inf)
        if whole:
            return predictor.labels
        config = at_size(predictor.config, size)
        return lambda images: np.asarray(predictor.backend.logits(images.astype(np.float32), config))

    return opened


class _Runtime(Protocol):
    """Returns a function that runs a model on images of a size, `whole` or only up to its logits."""

    def __call__(self, model: keras.Model, size: tuple[int, int], *, whole: bool) -> Segment: ...


_RUNTIMES: Mapping[str, _Runtime] = {
    "keras": _in_tensorflow,
    "saved_model": _exported("saved_model", "float32"),
    "tflite": _exported("tflite", "float32"),
    "tflite_int8": _exported("tflite", "int8"),
    "predict": _predicted("tflite"),
    "tf": _predicted("tf"),
    "tf_frozen": _predicted("tf_frozen"),
    "onnx": _predicted("onnx"),
    "openvino": _predicted("openvino"),
    _AUTO: _predicted(_AUTO),
}
# What auto chooses from, under the names they have here.
_CANDIDATES = {"tf": "tf", "tf_frozen": "tf_frozen", "predict": "tflite", "onnx": "onnx", "openvino": "openvino"}
RUNTIMES = tuple(_RUNTIMES)


def _original(path: str, size: tuple[int, int]) -> Segment | None:
    """Returns a function that runs a file of others, or one of ours; None if it does not take images of `size`.

    An export of ours is run as `predict` runs it. A .tflite of others that takes floats gets them from -1 to 1, like
    the release's; one that takes pixels gets those. If it gives scores, their classes are taken by TensorFlow's fastest
    operation for that.
    """
    if export := find_export(path):
        return open_export(export).model.labels if export.size in (None, size) else None
    if path.endswith(".tflite"):
        model = LiteModel(files.path(path).read_bytes())
        if model.size != size:
            return None

        def labels_of(image: np.ndarray) -> np.ndarray:
            pixels = image[None] if model.takes_pixels else image[None] / np.float32(127.5) - np.float32(1)
            output = model(pixels)[0]
            return output if output.ndim == 3 else tf.math.top_k(output, 1, sorted=False).indices[..., 0].numpy()

        return lambda images: [labels_of(image) for image in images]
    graph = tf.Graph()
    with graph.as_default():
        tf.graph_util.import_graph_def(GraphDef.FromString(files.path(path).read_bytes()), name="")
    session = tf.compat.v1.Session(graph=graph)
    feed = f"{INPUT}:0"
    fetch = f"{OUTPUTS['predictions']}:0"
    return lambda images: np.concatenate([session.run(fetch, {feed: image[None]}) for image in images])


# ---- measuring


def _opened(make: Callable[[], Segment | None], images: np.ndarray, measurement: Measurement) -> Segment | None:
    """Opens a runtime and runs it once, and notes the memory in `measurement`."""
    memory.reset_peak()
    before = memory.resident("VmRSS")
    run = make()
    if run:
        run(images)
        measurement.memory = max(0.0, memory.resident("VmHWM") - before)
    return run


def _matmul() -> Callable[[], float]:
    """Returns a function that measures the multiply-adds of a matrix product in a second."""
    matrix = tf.random.stateless_normal([_MATRIX, _MATRIX], (1, 2))
    multiply = tf.function(lambda: tf.reduce_sum(tf.linalg.matmul(matrix, matrix)))
    multiply().numpy()

    def measure_once() -> float:
        start = time.perf_counter()
        multiply().numpy()
        return _MATRIX**3 / (time.perf_counter() - start)

    return measure_once


def _makers(
    model: keras.Model, size: tuple[int, int], plan: "InferenceBenchmark"
) -> dict[str, Callable[[], Segment | None]]:
    """Returns for each runtime and file a function that opens it for images of `size`, by name."""
    makers = {}
    for name in plan.runtimes:
        makers[name] = functools.partial(_RUNTIMES[name], model, size, whole=True)
    for name in plan.runtimes:
        makers[f"{name}, logits"] = functools.partial(_RUNTIMES[name], model, size, whole=False)
    for path in plan.originals:
        makers[os.path.normpath(path)] = functools.partial(_original, path, size)
    return makers


def _combinations(
    models: Mapping[str, keras.Model], plan: "InferenceBenchmark", announce: Callable[[str], None] | None
) -> Iterable[tuple[Measurement, Segment, np.ndarray]]:
    """Yields each combination, a function that runs it, and its images, uint8 [b, h, w, 3]."""
    for name, model in models.items():
        for size in plan.sizes:
            if padded_size(dataclasses.replace(config_of(model), crop_size=None), *size) != size:
                stride = config_of(model).output_stride
                raise DeepLabError(f"--sizes={size[0]}x{size[1]}: {name} wants multiples of {stride}, plus one")
            adds = cast(int, model_cost(model, size=size).multiply_adds)
            images = np.stack([photograph(size, seed)[0] for seed in range(max(plan.batches))])
            for kind, make in _makers(model, size, plan).items():
                first = Measurement(name, kind, size, 1, adds)
                run = _opened(make, images[:1], first)
                if run is None:
                    continue
                for batch in plan.batches:
                    measurement = dataclasses.replace(first, batch=batch, multiply_adds=adds * batch, seconds=[])
                    if announce:
                        announce(measurement.label)
                    run(images[:batch])  # the warm-up
                    yield measurement, run, images[:batch]


@dataclasses.dataclass(frozen=True)
class InferenceBenchmark:
    """The combinations to measure.

    Attributes:
      checkpoints: anything that `load` takes.
      runtimes: some of RUNTIMES.
      sizes: (height, width) of the images.
      batches: numbers of images at a time.
      originals: files to compare with: exports with their certificates, or frozen .pb and .tflite of others.
      output_stride: of the models; None: their own.
      rounds: measurements of each combination.
    """

    checkpoints: tuple[str, ...]
    runtimes: tuple[str, ...] = RUNTIMES
    sizes: tuple[tuple[int, int], ...] = ((257, 257), (513, 513))
    batches: tuple[int, ...] = (1,)
    originals: tuple[str, ...] = ()
    output_stride: int | None = None
    rounds: int = 9

    def __post_init__(self) -> None:
        for name in self.runtimes:
            if name not in _RUNTIMES:
                raise unknown_name("value of runtimes", name, _RUNTIMES)
        for path in self.originals:
            if find_export(path) is None and not files.path(path).is_file():
                raise DeepLabError(
                    f"--originals={path}: no such file; expected an export with its certificate, a frozen .pb or a "
                    ".tflite"
                )


def _names(paths: Sequence[str]) -> dict[str, str]:
    """Returns name -> path: the last part of each path, or the whole of it where several end alike."""
    last = [os.path.basename(os.path.normpath(path)) for path in paths]
    return {path if last.count(name) > 1 else name: path for path, name in zip(paths, last, strict=True)}


def measure(plan: InferenceBenchmark, *, announce: Callable[[str], None] | None = None) -> list[dict]:
    """Returns the figures of each combination (see `Measurement.figures`), and last those of the matrix product.

    announce: called with a line before each combination.
    """
    changes = {"output_stride": plan.output_stride} if plan.output_stride else {}
    models = {name: open_model(path, changes).model for name, path in _names(plan.checkpoints).items()}
    combinations = list(_combinations(models, plan, announce))
    measure_matmul = _matmul()
    peaks = []
    for _ in range(plan.rounds):
        peaks.append(measure_matmul())
        for measurement, run, images in combinations:
            time.sleep(_PAUSE)
            start = time.perf_counter()
            run(images)
            measurement.seconds.append(time.perf_counter() - start)
    peak = statistics.median(peaks)
    rows = [measurement.figures(peak) for measurement, _, _ in combinations]
    return [*_with_best(_with_shares(rows)), {"runtime": "matmul", "gmac_per_s": peak / 1e9}]


def _with_best(rows: list[dict]) -> list[dict]:
    """Returns the rows, those of auto with "best", the fastest it could choose, and "of_best", its time beside that."""
    for row in rows:
        if row["runtime"] == _AUTO:
            same = [other for other in rows if all(other[key] == row[key] for key in ("model", "size", "batch"))]
            others = {_CANDIDATES[o["runtime"]]: o["ms"] for o in same if o["runtime"] in _CANDIDATES}
            if others:
                row["best"] = min(others, key=lambda name: others[name])
                row["of_best"] = row["ms"] / others[row["best"]]
    return rows


def _with_shares(rows: list[dict]) -> list[dict]:
    """Returns the rows without the runs up to logits, with "share_after_logits", the share of time after these."""
    keys = ("model", "size", "batch")
    ends = {(*(row[k] for k in keys), row["runtime"]): row["ms"] for row in rows}
    kept = [row for row in rows if not row["runtime"].endswith(", logits")]
    for row in kept:
        logits = ends.get((*(row[k] for k in keys), f"{row['runtime']}, logits"))
        row["share_after_logits"] = None if logits is None else max(0.0, 1 - logits / row["ms"])
    return kept
