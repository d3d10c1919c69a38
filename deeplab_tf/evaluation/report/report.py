"""Evaluations with a report of each: `report_checkpoints`."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from deeplab_tf.config import EvalConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.evaluation.evaluate import Evaluation, evaluate_checkpoints
from deeplab_tf.evaluation.passes import SILENT, Observer, Pass, ScoredImage
from deeplab_tf.evaluation.report.collecting import Collector
from deeplab_tf.evaluation.report.writing import write_report


class _Collecting(Observer):
    """Collects what a report needs of each pass, and passes everything else on to another observer."""

    def __init__(self, shown: Observer) -> None:
        self._shown = shown
        self._collected: Collector | None = None

    @property
    def collected(self) -> Collector:
        """What was collected of the last pass."""
        if self._collected is None:
            raise RuntimeError("no pass has begun")
        return self._collected

    def tell(self, line: str) -> None:
        self._shown.tell(line)

    def begin(self, work: Pass) -> None:
        self._collected = Collector(work, work.config)
        self._shown.begin(work)

    def scored(self, images: Iterator[ScoredImage]) -> None:
        for image in images:
            self.collected.add(image)

    def advance(self, count: int) -> None:
        self._shown.advance(count)


def report_checkpoints(
    config: EvalConfig,
    data: Mapping[str, Any],
    changes: Mapping[str, Any] | None = None,
    *,
    command: str = "",
    observer: Observer = SILENT,
    given: Collection[str] | None = None,
) -> Iterator[Evaluation]:
    """Scores checkpoints as `evaluate.evaluate_checkpoints` does, and writes a report of each into config.report.

    The report of a followed run is that of its newest checkpoint.

    Args:
      config: which checkpoints (see `following.follow`), which split, at which scales.
      data: the DataConfig fields that the user gives; the checkpoint's description has the others.
      changes: the ModelConfig fields that the user gives, for `loading.open_model`.
      command: the command line of the evaluation, for the reader.
      observer: told of the waiting, of each checkpoint and of each batch, but not of the pictures.
      given: as `evaluate_checkpoints` takes it.

    Raises:
      DeepLabError: the errors of `evaluate_checkpoints` and `write_report`; or config.report is unset.
    """
    if not config.report:
        raise DeepLabError("--report is missing; expected the folder to write")
    collecting = _Collecting(observer)
    for evaluation in evaluate_checkpoints(config, data, changes, observer=collecting, given=given):
        write_report(config.report, evaluation, collecting.collected, command=command)
        yield evaluation
