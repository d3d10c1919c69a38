"""What a command shows while it works: a bar on a terminal, lines elsewhere. Imports TensorFlow: start it before."""

import datetime
import math
import time
from collections.abc import Callable, Iterable

import rich.console
import rich.progress

from deeplab_tf.evaluation.passes import Pass
from deeplab_tf.training.progress import Progress, TrainingObserver

_BAR = 10  # columns of the bar of a training run, which narrower terminals than the next do without
_WITH_BAR = 72
_SECONDS_A_LINE = 60  # of a pass, where there is no bar


# What a line that is too long goes without, in this order.
_DISPENSABLE = ("entropy", "waiting", "rate", "speed", "score", "left", "loss")


def _line(progress: Progress, score: float | None = None, columns: float = math.inf) -> str:
    """Returns the line of a training run, of whole parts only: as many as so many columns have room for."""
    parts = {
        "step": f"step {progress.step}/{progress.steps}",
        "loss": f"loss {progress.total_loss:.4f}",
        "entropy": f"cross entropy {progress.cross_entropy:.4f}",
        "rate": f"rate {progress.learning_rate:.2e}",
        "speed": f"{progress.images_per_second:.1f} images/s",
        "waiting": f"waiting {100 * progress.waiting:.0f} %",
        **({} if score is None else {"score": f"mIoU {score:.4f}"}),
        "left": f"left {datetime.timedelta(seconds=round(progress.seconds_left))}",
    }
    for name in _DISPENSABLE:
        if len("  ".join(parts.values())) <= columns:
            break
        parts.pop(name, None)
    return "  ".join(parts.values())


class Display(TrainingObserver):
    """Prints what a training run or a pass over a data set tells, in a `with` that takes the bar away again."""

    def __init__(self, describe: Callable[[Pass], str] | None = None):
        """`describe` returns what to print of the first pass; those after it are of the same network and data."""
        self._describe = describe
        self._console = rich.console.Console(soft_wrap=True, highlight=False, markup=False)
        self._bar: rich.progress.Progress | None = None
        self._task = rich.progress.TaskID(0)
        self._total = 0
        self._done = 0
        self._told = 0.0
        self._score: float | None = None
        self._room = 1

    def __enter__(self) -> "Display":
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Takes the bar of a pass away, and leaves that of a training run as it stands."""
        if self._bar:
            self._bar.stop()
        self._bar = None

    def tell(self, line: str) -> None:
        """Prints a line, above the bar."""
        self._console.print(line)

    def _start(self, title: str, total: int, *columns: rich.progress.ProgressColumn, transient: bool) -> None:
        hidden = not self._console.is_terminal
        self._bar = rich.progress.Progress(*columns, console=self._console, disable=hidden, transient=transient)
        self._task = self._bar.add_task(title, total=total)
        self._bar.start()

    # ---- a pass over a data set

    def begin(self, work: Pass) -> None:
        """Prints which checkpoint it is, and shows the bar of its images."""
        self.end()
        if self._describe:
            self.tell(self._describe(work))
            self._describe = None
        else:
            self.tell(f"{work.opened.path} (step {work.opened.step})")
        self._total = work.records.count
        self._done = 0
        self._told = time.monotonic()
        columns = (*rich.progress.Progress.get_default_columns(), rich.progress.MofNCompleteColumn())
        self._start("Segmenting", self._total, *columns, transient=True)

    def advance(self, count: int) -> None:
        """Moves the bar; without a terminal, prints a line a minute."""
        if self._bar:
            self._bar.advance(self._task, count)
        self._done += count
        if not self._console.is_terminal and time.monotonic() - self._told > _SECONDS_A_LINE:
            self.tell(f"{self._done} of {self._total} images")
            self._told = time.monotonic()

    # ---- a training run

    def expect(self, steps: int) -> None:
        """Shows the bar of a training run of `steps` updates."""
        bar = [rich.progress.BarColumn(bar_width=_BAR)] if self._console.width >= _WITH_BAR else []
        text = rich.progress.TextColumn("{task.description}", markup=False)
        self._room = _BAR + 2 if bar else 1  # columns that the text beside it may not have
        self._start("starting", steps, *bar, text, transient=False)

    def described(self, lines: Iterable[str]) -> None:
        """Prints what the run is."""
        for line in lines:
            self.tell(line)

    def validated(self, miou: float) -> None:
        """Keeps the score for the bar."""
        self._score = miou

    def progressed(self, progress: Progress) -> None:
        """Prints the line of the log, and moves the bar of a training run; a terminal's lines are no wider than it."""
        if self._bar and self._console.is_terminal:
            columns = self._console.width
            line = _line(progress, self._score, columns - self._room)
            self._bar.update(self._task, completed=progress.step, description=line)
            self.tell(_line(progress, columns=columns - 1))
        else:
            self.tell(_line(progress))
