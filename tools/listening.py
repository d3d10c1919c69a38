"""What the commands that serve a page share: the packages they need, their log, and how they end."""

import contextlib
import logging
import queue
import signal
import sys
from collections.abc import Callable, Iterator

from deeplab_tf.errors import DeepLabError
from deeplab_tf.tools.ending import INTERRUPTED


def require_packages(command: str) -> None:
    """Raises DeepLabError where a package is missing that a server needs."""
    try:
        import prometheus_client  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise DeepLabError(f"{command} needs {error.name}: pip install 'deeplab_tf[serve]'") from None


class _WithIdentity(logging.Formatter):
    """Writes a line of the server's log with the time and the id of the request."""

    def format(self, record: logging.LogRecord) -> str:
        from deeplab_tf.serving.guard import request_id

        record.identity = request_id.get()
        return super().format(record)


@contextlib.contextmanager
def logged(requests: bool) -> Iterator[None]:
    """Writes the server's log to standard error for the duration of the context; `requests`: a line for each too."""
    log = logging.getLogger("deeplab_tf.serving")
    before = log.level, log.propagate
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_WithIdentity("%(asctime)s %(levelname)s %(identity)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO if requests else logging.WARNING)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before[0])
        log.propagate = before[1]


_LOOKED = 0.5  # seconds between two looks at the signals that have come


def end_of_signals() -> Callable[[], int]:
    """Catches control-C and SIGTERM from now on, and returns a function that waits for one and gives the exit status.

    A second control-C ends at once.
    """
    # A handler runs in the thread that waits, which may hold the lock of an Event just then; this may be filled anyway.
    ended: queue.SimpleQueue[int] = queue.SimpleQueue()
    received: list[int] = []

    def end(number: int, frame: object) -> None:
        if received:
            raise KeyboardInterrupt  # whoever asks again does not wait for those who are still answered
        received.append(number)
        ended.put(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)

    def wait() -> int:
        while True:  # a signal that comes right before a wait, or to another thread, does not interrupt it
            with contextlib.suppress(queue.Empty):
                return INTERRUPTED if ended.get(timeout=_LOOKED) == signal.SIGINT else 0

    return wait
