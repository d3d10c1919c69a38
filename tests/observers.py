"""An observer for tests: what a run tells, and a function that is called with each line of its log."""

from collections.abc import Callable

from deeplab_tf.training.progress import Progress, TrainingObserver


class Recorder(TrainingObserver):
    """Keeps in `lines` what is told."""

    def __init__(self, progressed: Callable[[Progress], None] | None = None):
        self.lines: list[str] = []
        self._progressed = progressed

    def tell(self, line: str) -> None:
        self.lines.append(line)

    def progressed(self, progress: Progress) -> None:
        if self._progressed:
            self._progressed(progress)
