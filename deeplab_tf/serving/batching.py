"""The batcher: one thread runs the network on images of many requests together."""

import asyncio
import collections
import dataclasses
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

import numpy as np

T = TypeVar("T")  # the result for one image


@dataclasses.dataclass
class _Job(Generic[T]):
    image: np.ndarray  # uint8 [h, w, 3]
    future: asyncio.Future[T]


class Batcher(Generic[T]):
    """Takes images one by one and runs those of one size together, the oldest first.

    Args:
      run: images uint8 [b, h, w, 3] -> the result for each, in their order. Only one thread calls it.
      max_batch: the largest number of images that run together.
      wait: seconds that the oldest image waits for others, if there are fewer.
    """

    def __init__(self, run: Callable[[np.ndarray], list[T]], *, max_batch: int, wait: float) -> None:
        self._run = run
        self._max_batch = max_batch
        self._wait = wait
        # The queue and the event belong to the event loop, which alone touches them: so they need no lock. Only _run
        # leaves the loop, for the one thread, so that the loop goes on taking requests while the network runs.
        self._jobs: collections.deque[_Job[T]] = collections.deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="network")
        self._arrived = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Starts running images; call it in the event loop."""
        self._worker = asyncio.get_running_loop().create_task(self._work())

    async def stop(self) -> None:
        """Lets the running batch finish and cancels the waiting images."""
        if self._worker:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
        for job in self._jobs:
            job.future.cancel()
        await asyncio.to_thread(self._thread.shutdown)

    async def submit(self, image: np.ndarray) -> T:
        """Returns the result of `run` for an image, uint8 [h, w, 3]; a caller that is cancelled first takes it back."""
        job = _Job(image, asyncio.get_running_loop().create_future())
        self._jobs.append(job)
        self._arrived.set()
        return await job.future

    async def _work(self) -> None:
        while True:
            await self._arrived.wait()
            # Cleared before the queue is emptied: an image that comes while a batch runs sets it again and is not lost.
            self._arrived.clear()
            while self._jobs:
                if self._wait and len(self._jobs) < self._max_batch:
                    await asyncio.sleep(self._wait)
                batch = self._take_batch()
                if batch:
                    await self._run_batch(batch)

    def _take_batch(self) -> list[_Job[T]]:
        """Removes the oldest job and the later ones of its size from the queue, and returns them."""
        # A job whose caller has gone has a cancelled future; dropping it here saves the network's time.
        waiting = [job for job in self._jobs if not job.future.done()]
        batch = [job for job in waiting if job.image.shape == waiting[0].image.shape][: self._max_batch]
        taken = set(map(id, batch))
        self._jobs = collections.deque(job for job in waiting if id(job) not in taken)
        return batch

    async def _run_batch(self, batch: list[_Job[T]]) -> None:
        def run() -> list[T]:
            return self._run(np.stack([job.image for job in batch]))

        try:
            results = await asyncio.get_running_loop().run_in_executor(self._thread, run)
        except Exception as error:  # each caller gets it and decides; the batcher must go on for the others
            for job in batch:
                if not job.future.done():
                    job.future.set_exception(error)
            return
        for job, result in zip(batch, results, strict=True):
            if not job.future.done():
                job.future.set_result(result)
