"""`ReplaceableThread`: runs one thing at a time in a thread, which another one replaces when it does not come back."""

import asyncio
import logging
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from deeplab_tf.serving.refusal import Refused

T = TypeVar("T")

_LOG = logging.getLogger(__name__)
_MOST_LOST = 3  # threads that did not come back; with more of them the process would fill up


class _Thread:
    """A daemon thread that runs what is put into its queue: one that hangs does not keep the process from ending."""

    def __init__(self, name: str) -> None:
        self.work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._loop, name=name, daemon=True)
        self.thread.start()

    def _loop(self) -> None:
        while (work := self.work.get()) is not None:
            work()


class ReplaceableThread:
    """Runs one thing at a time in a thread. What takes longer than `seconds` is left to itself in the old thread.

    Args:
      name: of the thread.
      seconds: that one thing may take.
      replaced: is called when another thread takes over.
    """

    def __init__(self, name: str, *, seconds: float, replaced: Callable[[], None] | None = None) -> None:
        self._name = name
        self._seconds = seconds
        self._replaced = replaced
        self._current: _Thread | None = None
        self._lost: list[_Thread] = []
        self.replacements = 0

    @property
    def is_stuck(self) -> bool:
        """Whether so many threads have not come back that no other one is begun."""
        self._lost = [lost for lost in self._lost if lost.thread.is_alive()]
        return len(self._lost) >= _MOST_LOST

    async def run(self, work: Callable[[], T]) -> T:
        """Returns the result of `work`, which runs in the thread.

        Raises:
          Refused: 504 if it takes too long, 503 if too many things before it did.
        """
        if self._current is None:
            if self.is_stuck:
                raise Refused(503, "the network does not answer any more; the server has to be started again")
            self._current = _Thread(self._name)
        loop = asyncio.get_running_loop()
        result: asyncio.Future[T] = loop.create_future()

        def settle(value: Any, error: BaseException | None) -> None:
            if not result.done():
                if error is None:
                    result.set_result(value)
                else:
                    result.set_exception(error)

        def job() -> None:
            value, error = None, None
            try:
                value = work()
            except BaseException as caught:  # the caller gets it; the thread must go on for the others
                error = caught
            if not loop.is_closed():  # a lost thread may come back after the server's end
                loop.call_soon_threadsafe(settle, value, error)

        thread = self._current
        thread.work.put(job)
        done, _ = await asyncio.wait({result}, timeout=self._seconds)
        if done:
            return result.result()
        self._lose(thread)
        result.cancel()
        raise Refused(504, f"not answered within {self._seconds:g} s")

    def _lose(self, thread: _Thread) -> None:
        thread.work.put(None)  # it ends if it ever comes back
        self._lost.append(thread)
        self._current = None
        self.replacements += 1
        _LOG.error("a job of the %s did not end within %g s; another thread takes over", self._name, self._seconds)
        if self._replaced is not None:
            self._replaced()

    async def stop(self, seconds: float) -> None:
        """Ends the thread when what it runs is done, and waits for that, at most so many seconds."""
        if self._current is not None:
            self._current.work.put(None)
            await asyncio.to_thread(self._current.thread.join, seconds)
            self._current = None
