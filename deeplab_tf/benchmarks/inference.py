"""Predicting: models x runtimes x sizes x batches, from uint8 images to label maps, set beside a matrix product.

Measured by tools/benchmark.py. All take turns, so that a machine whose speed drifts treats them alike.
"""

import contextlib
import dataclasses
import functools
import html
import os
import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

from deeplab_tf.benchmarks.pipeline import photograph
from deeplab_tf.config import ExportConfig
from deeplab_tf.config.export import INPUT, OUTPUTS
from deeplab_tf.errors import DeepLabError, unknown_name
from deeplab_tf.exporting.formats import FORMATS
from deeplab_tf.inference.graph import GraphDef, Segmentation, build_graph_def, read_weights
from deeplab_tf.inference.runtime import runtime_predictor
from deeplab_tf.inference.tflite.convert import LiteModel
from deeplab_tf.network.cost import model_cost
from deeplab_tf.network.model import config_of
from deeplab_tf.network.sizes import padded_size
from deeplab_tf.ops.resizing import resize_bilinear
from deeplab_tf.weights.loading import open_model

Segment = Callable[[np.ndarray], object]  # images uint8 [b, h, w, 3] -> labels
_MATRIX = 1536
_CALIBRATION = 8  # images that int8 takes its ranges from; enough to time it, not to use it


@dataclasses.dataclass
class Row:
    """One combination and its figures.

    Attributes:
      model, runtime, size, batch: what ran; "logits" is the same without upsampling and argmax.
      seconds: of each round.
      multiply_adds: of the convolutions, of the whole batch.
      memory: megabytes that opening it and the first run took at most.
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
        height, width = self.size
        return f"{self.model}, {height} x {width}, batch {self.batch}: {self.runtime}"

    def figures(self, peak: float) -> dict:
        """The row as the JSON file has it; `peak` is the multiply-adds a second of a matrix product."""
        middle = statistics.median(self.seconds)
        low, _, high = statistics.quantiles(self.seconds * 2, n=4, method="inclusive")
        speed = self.multiply_adds / middle
        return {
            **{name: getattr(self, name) for name in ("model", "runtime", "size", "batch")},
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
    """The Keras model in a plain tf.function."""

    @tf.function(input_signature=[tf.TensorSpec([None, *size, 3], tf.uint8)])
    def run(images):
        logits = model(tf.cast(images, tf.float32), training=False)
        return tf.argmax(resize_bilinear(logits, size), axis=-1, output_type=tf.int32) if whole else logits

    return lambda images: run(tf.constant(images)).numpy()


def _exported(kind: str, precision: str) -> Callable[..., Segment]:
    def opened(model: keras.Model, size: tuple[int, int], *, whole: bool) -> Segment:
        lite, outputs = kind == "tflite", ("predictions",) if whole else ("logits",)
        upsample = "argmax" if whole else "none"
        options = ExportConfig(format=kind, outputs=outputs, export_upsample=upsample, precision=precision)
        config = dataclasses.replace(config_of(model), crop_size=size if lite else None)
        shape = (1, *size, 3) if lite else (None, None, None, 3)
        pixels = tf.float32 if precision == "int8" else tf.uint8
        segmentation = Segmentation(config, read_weights(model), options, FORMATS[kind].target)
        graph = build_graph_def(segmentation, shape, pixels)
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


def _predicted(model: keras.Model, size: tuple[int, int], *, whole: bool) -> Segment:
    """What `predict` runs."""
    predictor = runtime_predictor(model, "tflite")
    if whole:
        return predictor.labels
    return lambda images: predictor._network(size)(images.astype(np.float32))


_RUNTIMES: Mapping[str, Callable[..., Segment]] = {
    "keras": _in_tensorflow,
    "saved_model": _exported("saved_model", "float32"),
    "tflite": _exported("tflite", "float32"),
    "tflite_int8": _exported("tflite", "int8"),
    "predict": _predicted,
}
RUNTIMES = tuple(_RUNTIMES)


def _original(path: str, size: tuple[int, int]) -> Segment | None:
    """A frozen graph or a .tflite, or None where it does not take images of `size`.

    A .tflite that takes floats takes them from -1 to 1, as the release's do; else it takes the pixels. Of scores the
    classes are taken, in the fastest way that TensorFlow has.
    """
    if path.endswith(".tflite"):
        model = LiteModel(pathlib.Path(path).read_bytes())
        if model.size != size:
            return None

        def one(image):
            given = image[None] if model.takes_pixels else image[None] / np.float32(127.5) - np.float32(1)
            found = model(given)[0]
            return found if found.ndim == 3 else tf.math.top_k(found, 1, sorted=False).indices[..., 0].numpy()

        return lambda images: [one(image) for image in images]
    graph = tf.Graph()
    with graph.as_default():
        tf.graph_util.import_graph_def(GraphDef.FromString(pathlib.Path(path).read_bytes()), name="")
    session = tf.compat.v1.Session(graph=graph)
    feed, fetch = f"{INPUT}:0", f"{OUTPUTS['predictions']}:0"
    return lambda images: np.concatenate([session.run(fetch, {feed: image[None]}) for image in images])


# ---- measuring


def _resident(field: str) -> float:
    """Megabytes by /proc: VmRSS, or VmHWM, the most since the last reset; 0 where there is no /proc."""
    try:
        with open("/proc/self/status", encoding="ascii") as stream:
            return next(int(line.split()[1]) / 1e3 for line in stream if line.startswith(field))
    except OSError:
        return 0.0


def _reset_peak():
    with contextlib.suppress(OSError):  # the figure is then that of the whole process
        pathlib.Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _opened(make: Callable[[], Segment | None], images: np.ndarray, row: Row) -> Segment | None:
    """Opens a runtime and runs it once, noting the memory in `row`."""
    _reset_peak()
    before = _resident("VmRSS")
    run = make()
    if run:
        run(images)
        row.memory = max(0.0, _resident("VmHWM") - before)
    return run


def _matmul() -> Callable[[], float]:
    """Returns what measures the multiply-adds a second of a matrix product."""
    matrix = tf.random.stateless_normal([_MATRIX, _MATRIX], [1, 2])
    multiply = tf.function(lambda: tf.reduce_sum(tf.linalg.matmul(matrix, matrix)))
    multiply().numpy()

    def once():
        start = time.perf_counter()
        multiply().numpy()
        return _MATRIX**3 / (time.perf_counter() - start)

    return once


def _makers(
    model: keras.Model, size: tuple[int, int], plan: "InferenceBenchmark"
) -> dict[str, Callable[[], Segment | None]]:
    """What is to be measured for images of `size`, by name."""
    whole = {kind: functools.partial(_RUNTIMES[kind], model, size, whole=True) for kind in plan.runtimes}
    bare = {f"{kind}, logits": functools.partial(_RUNTIMES[kind], model, size, whole=False) for kind in plan.runtimes}
    return whole | bare | {os.path.basename(p): functools.partial(_original, p, size) for p in plan.originals}


def _combinations(
    models: Mapping[str, keras.Model], plan: "InferenceBenchmark", tell
) -> Iterable[tuple[Row, Segment, np.ndarray]]:
    for name, model in models.items():
        for size in plan.sizes:
            if padded_size(dataclasses.replace(config_of(model), crop_size=None), *size) != size:
                stride = config_of(model).output_stride
                raise DeepLabError(f"--sizes={size[0]}x{size[1]}: {name} wants multiples of {stride}, plus one")
            adds = model_cost(model, size=size).multiply_adds
            images = np.stack([photograph(size, seed)[0] for seed in range(max(plan.batches))])
            for kind, make in _makers(model, size, plan).items():
                first = Row(name, kind, size, 1, adds)
                run = _opened(make, images[:1], first)
                for batch in plan.batches if run else ():
                    row = dataclasses.replace(first, batch=batch, multiply_adds=adds * batch, seconds=[])
                    tell(row.label)
                    run(images[:batch])  # to warm it up
                    yield row, run, images[:batch]


@dataclasses.dataclass(frozen=True)
class InferenceBenchmark:
    """What is measured: checkpoints (whatever `load` takes), runtimes, sizes (height, width), batches, files of the
    release to set beside, the output stride (None: the model's own), and rounds."""

    checkpoints: tuple[str, ...]
    runtimes: tuple[str, ...] = RUNTIMES
    sizes: tuple[tuple[int, int], ...] = ((257, 257), (513, 513))
    batches: tuple[int, ...] = (1,)
    originals: tuple[str, ...] = ()
    output_stride: int | None = None
    rounds: int = 9

    def __post_init__(self):
        for name in self.runtimes:
            if name not in _RUNTIMES:
                raise unknown_name("value of runtimes", name, _RUNTIMES)
        for path in self.originals:
            if not os.path.isfile(path):
                raise DeepLabError(f"--originals={path}: no such file; expected a frozen .pb or a .tflite")


def measure(plan: InferenceBenchmark, *, tell: Callable[[str], None] = lambda line: None) -> list[dict]:
    """Returns the figures of each combination, and last of the matrix product; see `Row.figures`."""
    changes = {"output_stride": plan.output_stride} if plan.output_stride else {}
    models = {os.path.basename(os.path.normpath(c)): open_model(c, changes).model for c in plan.checkpoints}
    combinations, matmul, peaks = list(_combinations(models, plan, tell)), _matmul(), []
    for _ in range(plan.rounds):
        peaks.append(matmul())
        for row, run, images in combinations:
            start = time.perf_counter()
            run(images)
            row.seconds.append(time.perf_counter() - start)
    peak = statistics.median(peaks)
    rows = [row.figures(peak) for row, _, _ in combinations]
    return [*_with_shares(rows), {"runtime": "matmul", "gmac_per_s": peak / 1e9}]


def _with_shares(rows: list[dict]) -> list[dict]:
    """Leaves out the runs that end in logits, and says of the whole ones how much of their time comes after that."""
    keys = ("model", "size", "batch")
    ends = {(*(row[k] for k in keys), row["runtime"]): row["ms"] for row in rows}
    kept = [row for row in rows if not row["runtime"].endswith(", logits")]
    for row in kept:
        logits = ends.get((*(row[k] for k in keys), f"{row['runtime']}, logits"))
        row["share_after_logits"] = None if logits is None else max(0.0, 1 - logits / row["ms"])
    return kept


# ---- showing


def table(rows: Sequence[dict]) -> str:
    """Returns the figures as a Markdown table."""
    lines = [
        "| model | size | batch | runtime | ms (middle half) | images/s | ms/megapixel | GMAC/s | of matmul | "
        "upsampling and argmax | MB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows[:-1]:
        (height, width), (low, high) = row["size"], row["ms_middle_half"]
        after = row["share_after_logits"]
        lines.append(
            f"| {row['model']} | {height} x {width} | {row['batch']} | {row['runtime']} "
            f"| {row['ms']:.1f} ({low:.1f} to {high:.1f}) | {row['images_per_s']:.2f} | {row['ms_per_megapixel']:.0f} "
            f"| {row['gmac_per_s']:.1f} | {100 * row['share_of_matmul']:.0f} % "
            f"| {'' if after is None else f'{100 * after:.0f} %'} | {row['memory_mb']:.0f} |"
        )
    return "\n".join([*lines, f"\nmatrix product: {rows[-1]['gmac_per_s']:.1f} GMAC/s"])


_BAR, _GAP, _LONGEST, _LETTER = 20, 8, 480, 7.8  # pixels; the last of a letter, about


def chart(rows: Sequence[dict]) -> str:
    """Returns an SVG with a bar of milliseconds an image for each combination, light or dark as the reader's page."""
    bars = [
        (Row(*(row[k] for k in ("model", "runtime", "size", "batch")), 0).label, row["ms"] / row["batch"])
        for row in rows[:-1]
    ]
    longest, parts = max(value for _, value in bars), []
    names = round(max(_LETTER * len(label) for label, _ in bars)) + 16
    for number, (label, value) in enumerate(bars):
        top = 40 + number * (_BAR + _GAP)
        width = max(1.0, _LONGEST * value / longest)
        middle = top + _BAR * 0.7
        parts.append(f'<text x="{names - 8}" y="{middle:.1f}" text-anchor="end">{html.escape(label)}</text>')
        parts.append(f'<rect x="{names}" y="{top}" width="{width:.1f}" height="{_BAR}" rx="3"/>')
        parts.append(f'<text x="{names + width + 6:.1f}" y="{middle:.1f}">{value:.1f} ms</text>')
    style = (
        "text{font:13px system-ui,sans-serif;fill:#222}rect{fill:#1759b8}"
        "@media(prefers-color-scheme:dark){text{fill:#e9eaec}rect{fill:#7fb2ff}}"
    )
    height, wide = 40 + len(bars) * (_BAR + _GAP), names + _LONGEST + 90
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {height}" width="{wide}">'
    title = '<text x="8" y="22">Milliseconds an image, from pixels to classes (shorter is better)</text>'
    return f"{head}<style>{style}</style>{title}{''.join(parts)}</svg>\n"
