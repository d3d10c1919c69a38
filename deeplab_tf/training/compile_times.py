"""How long XLA compiled a step the last time, and the lines about it (`FirstTimed`)."""

import json
import time
from collections.abc import Callable
from typing import Any

from deeplab_tf import files
from deeplab_tf.documents.json_files import read_json
from deeplab_tf.errors import DeepLabError
from deeplab_tf.training.loop import Updater, Updates
from deeplab_tf.zoo.download import cache_folder


def times_file() -> files.AnyPath:
    """Returns the place of the times: <cache>/xla/times.json, an object of seconds by what was compiled."""
    return cache_folder() / "xla" / "times.json"


def read_times() -> dict[str, Any]:
    """Returns the times of `times_file`; {} where there is none, or one that does not read."""
    try:
        return read_json(times_file(), dict[str, Any])
    except (OSError, DeepLabError):
        return {}


def keep_time(what: str, seconds: float) -> None:
    """Writes down how long `what` took; a cache that cannot be written is none."""
    try:
        file = times_file()
        with files.written(file) as partial:
            partial.write_text(json.dumps({**read_times(), what: round(seconds, 1)}, indent=1), encoding="utf-8")
    except (OSError, DeepLabError):
        return


class FirstTimed:
    """Does updates, and tells before and after the first of them what is compiled and how long it takes.

    Args:
      update: does the updates.
      what: is compiled.
      tell: gets the lines.
      compiled: asked after the first update whether XLA could compile it; if not, nothing more is told and kept.
    """

    def __init__(
        self,
        update: Updater,
        what: str,
        tell: Callable[[str], object],
        *,
        compiled: Callable[[], bool] = lambda: True,
    ) -> None:
        self._compiled = compiled
        self._update = update
        self._what = what
        self._tell: Callable[[str], object] | None = tell

    def __call__(self, most: int) -> Updates:
        """Does some updates; see `Updater`."""
        if not self._tell:
            return self._update(most)
        tell, self._tell = self._tell, None
        last = read_times().get(self._what)
        known = f"; last time {last:.0f} s" if isinstance(last, int | float) and not isinstance(last, bool) else ""
        tell(f"Compiling the step with XLA: {self._what}{known}")
        start = time.monotonic()
        updates = self._update(most)
        seconds = time.monotonic() - start
        if not self._compiled():
            return updates
        tell(f"The first step took {seconds:.0f} s")
        keep_time(self._what, seconds)
        return updates
