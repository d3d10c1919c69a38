"""The measurement of `benchmark --what=metrics`: scores at PASCAL VOC's size, and a report without its network.

Everything runs on one core and is timed in processor time, so that other work on the machine does not count.
"""

import dataclasses
import functools
import itertools
import resource
import tempfile
import time
from collections.abc import Callable, Sequence

import numpy as np

from deeplab_tf.benchmarks.pipeline import photograph, write_records
from deeplab_tf.config import DataConfig, EvalConfig, ModelConfig
from deeplab_tf.data.examples import open_records
from deeplab_tf.evaluation.evaluate import Evaluation
from deeplab_tf.evaluation.passes import Opened, Pass, ScoredImage
from deeplab_tf.evaluation.report.collecting import Collector
from deeplab_tf.evaluation.report.writing import write_report
from deeplab_tf.network.build import build_model
from deeplab_tf.ops.boundary import boundary_counts, contour_f_scores, trimap_matrices
from deeplab_tf.ops.metrics import confusion_matrix
from deeplab_tf.weights.loading import Loaded
from deeplab_tf.weights.model_directory import ModelCard
from deeplab_tf.weights.tf1 import Receipt

_CLASSES = 21
_IGNORED = 255
_DIFFERENT = 8  # pictures and labels that are made; they repeat


@dataclasses.dataclass(frozen=True)
class MetricsScale:
    """The amount that is measured.

    Attributes:
      size: height and width of an image.
      matrices: images of the confusion matrix.
      boundaries: images of the boundary scores.
      report: images of the report.
    """

    size: tuple[int, int] = (375, 500)
    matrices: int = 1449
    boundaries: int = 24
    report: int = 500


SMALL = MetricsScale((30, 40), 9, 3, 5)


def _maps(size: tuple[int, int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns a label, int32 [h, w], of blocks of all classes with ignored seams, and the label shifted a little."""
    height, width = size
    blocks = np.random.default_rng(seed).permutation(5 * 5) % _CLASSES
    rows = np.arange(height) * 5 // height
    columns = np.arange(width) * 5 // width
    label = blocks.reshape(5, 5)[rows[:, None], columns].astype(np.int32)
    prediction = np.roll(label, (2, 3), (0, 1))
    for axis, block in enumerate((rows, columns)):
        border = np.flatnonzero(np.diff(block))[:, None] + np.arange(-2, 3)
        label[(slice(None),) * axis + (border.ravel(),)] = _IGNORED
    return label, prediction


def _boundary_scores(label: np.ndarray, prediction: np.ndarray) -> None:
    trimap_matrices(label, prediction, _CLASSES)
    boundary_counts(label, prediction, _CLASSES)
    contour_f_scores(label, prediction, _CLASSES)


def _seconds(
    score: Callable[[np.ndarray, np.ndarray], object], pairs: Sequence[tuple[np.ndarray, np.ndarray]], count: int
) -> float:
    """Returns the processor time in seconds of `score` on `count` pairs of label and prediction."""
    start = time.process_time()
    for label, prediction in itertools.islice(itertools.cycle(pairs), count):
        score(label, prediction)
    return time.process_time() - start


def _report(scale: MetricsScale) -> tuple[float, float]:
    """Returns the processor time in seconds and the memory in MB of a report, without its network."""
    network = ModelConfig("tiny", num_classes=19)
    loaded = Loaded(ModelCard(network), build_model(network), Receipt("tiny", "", {}, {}), {}, ())
    config = EvalConfig(eval_crop_size=None)
    pictures = [photograph(scale.size, seed) for seed in range(_DIFFERENT)]
    with tempfile.TemporaryDirectory() as folder:
        # The report counts the records; it does not read them.
        path = write_records(f"{folder}/records", (30, 40), "PNG", scale.report, shards=1)
        before = _peak()
        start = time.process_time()
        records = open_records(DataConfig("cityscapes", path, crop_size=None), "train")
        collected = Collector(Pass(Opened("tiny", 0, loaded), records), config)
        for number, (image, label) in enumerate(itertools.islice(itertools.cycle(pictures), scale.report)):
            predicted = np.roll(np.where(label == _IGNORED, 0, label), 3, 1).astype(np.int32)
            collected.add(ScoredImage(image, label.astype(np.int32), predicted, str(number)))
        write_report(folder, Evaluation("tiny", 0, {}, {}), collected)
        return time.process_time() - start, (_peak() - before) / 1e6


def _peak() -> int:
    """Returns the largest memory of this process so far in bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def measure(rounds: int, *, small: bool, announce: Callable[[str], None]) -> dict[str, list[float]]:
    """Returns the figures by name, each a list with one value for each round.

    Args:
      rounds: the number of measurements of each figure.
      small: measure tiny inputs, to try the benchmark; the figures mean nothing.
      announce: called with a line before each part.
    """
    scale = SMALL if small else MetricsScale()
    pairs = [_maps(scale.size, seed) for seed in range(_DIFFERENT)]
    announce(f"scores: {rounds} rounds")
    matrices = []
    boundaries = []
    for _ in range(rounds):
        matrices.append(_seconds(functools.partial(confusion_matrix, num_classes=_CLASSES), pairs, scale.matrices))
        boundaries.append(1000 * _seconds(_boundary_scores, pairs, scale.boundaries) / scale.boundaries)
    announce(f"report: {scale.report} images")
    seconds, megabytes = _report(scale)
    size = f"{scale.size[1]} x {scale.size[0]}"
    return {
        f"confusion matrix of {scale.matrices:,} images of {size}, s of processor time, at most 3": matrices,
        f"trimap, boundary IoU and F of {size} with {_CLASSES} classes, ms of processor time, at most 40": boundaries,
        f"report of {scale.report} images of {size}, network aside, s of processor time, at most 60": [seconds],
        f"report of {scale.report} images of {size}, memory in MB": [megabytes],
    }
