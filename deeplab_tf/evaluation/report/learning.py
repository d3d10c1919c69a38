"""How the weights of a report were learned: the curves of their run, where its log lies beside them."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from deeplab_tf import files
from deeplab_tf.errors import DeepLabError
from deeplab_tf.evaluation.report.charts import amount_chart, line_chart
from deeplab_tf.weights.run_directory import SCORES, RunDirectory

_MOST_POINTS = 60  # of a curve; of more the means of neighbours are drawn


@dataclasses.dataclass(frozen=True)
class Learning:
    """The log of a training run: (step, value) pairs, oldest first, of the loss and of mean IoU in 0..1."""

    losses: Sequence[tuple[int, float]]
    scores: Sequence[tuple[int, float]]


def read_learning(checkpoint: str) -> Learning | None:
    """Returns the log of the run that a checkpoint lies in, or None where there is none that can be read."""
    try:
        if not files.path(f"{checkpoint}.index").is_file():
            return None
        run = RunDirectory(files.path(checkpoint).parent)
        found = Learning(_pairs(run.lines(), "total_loss"), _pairs(run.lines(SCORES), "miou"))
    except (OSError, DeepLabError):  # the report does not depend on it
        return None
    return found if found.losses or found.scores else None


def _pairs(lines: Sequence[Mapping[str, Any]], name: str) -> list[tuple[int, float]]:
    pairs = [(line["step"], line[name]) for line in lines if isinstance(line.get(name), int | float)]
    return [(step, float(value)) for step, value in pairs if step >= 0 and math.isfinite(value)]


def _thinned(pairs: Sequence[tuple[int, float]]) -> list[tuple[float, float]]:
    parts = np.array_split(np.array(pairs, float), min(len(pairs), _MOST_POINTS))
    return [(float(step), float(value)) for step, value in (part.mean(0) for part in parts)]


def learning_charts(learning: Learning | None) -> str:
    """Returns the curves as HTML; nothing where there is no log."""
    if learning is None:
        return ""
    parts: list[str] = []
    if len(learning.losses) > 1:
        steps, values = zip(*_thinned(learning.losses), strict=True)
        parts.append(f"<div><h2>Loss while learning</h2>{amount_chart('Loss while learning', steps, values)}</div>")
    if len(learning.scores) > 1:
        steps, values = zip(*_thinned(learning.scores), strict=True)
        chart = line_chart("Score while learning", steps, [("mean IoU", values)], x_label="step")
        parts.append(f"<div><h2>Score while learning</h2>{chart}</div>")
    return f'<div class="pair">{"".join(parts)}</div>' if parts else ""
