"""The batcher: one thread runs the network on images of many requests together, whose clients take turns."""

import asyncio
import dataclasses
import math
from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np

from deeplab_tf.serving.clients import SOMEBODY, Client, Turns
from deeplab_tf.serving.replaceable import ReplaceableThread

T = TypeVar("T")  # the result for one image

_LAST_BATCH = 30.0  # seconds that the batch that runs when the server stops may still take


@dataclasses.dataclass
class _Job(Generic[T]):
    image: np.ndarray  # uint8 [h, w, 3]
    future: asyncio.Future[T]


class Batcher(Generic[T]):
    """Takes images one by one and runs those of one size together; clients take turns, of one the oldest comes first.

    Args:
      run: images uint8 [b, h, w, 3] -> the result for each, in their order. Only one thread calls it.
      max_batch: the largest number of images that run together, for all shapes [h, w, 3] or as a function of them.
      wait: seconds that the oldest image waits for others, if there are fewer.
      seconds: that a batch may take; another thread replaces one that takes longer.
      replaced: is called when that happens.
      cost: of an image of a shape, by which turns are counted; by default its pixels.
    """

    def __init__(
        self,
        run: Callable[[np.ndarray], list[T]],
        *,
        max_batch: int | Callable[[tuple[int, ...]], int],
        wait: float,
        seconds: float = math.inf,
        replaced: Callable[[], None] | None = None,
        cost: Callable[[tuple[int, ...]], float] = lambda shape: shape[0] * shape[1],
    ) -> None:
        self._run = run
        self._most = max_batch if callable(max_batch) else lambda shape: max_batch
        self._wait = wait
        self._cost = cost
        # The queue and the event belong to the event loop, which alone touches them: so they need no lock. Only _run
        # leaves the loop, for the one thread, so that the loop goes on taking requests while the network runs.
        self._jobs: Turns[_Job[T]] = Turns()
        self.thread = ReplaceableThread("network", seconds=seconds, replaced=replaced)
        self._arrived = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._jobs)

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
        await self.thread.stop(_LAST_BATCH)

    async def submit(self, image: np.ndarray, client: Client = SOMEBODY) -> T:
        """Returns the result of `run` for an image, uint8 [h, w, 3]; a caller that is cancelled first takes it back."""
        job = _Job(image, asyncio.get_running_loop().create_future())
        self._jobs.push(client, job, self._cost(image.shape))
        self._arrived.set()
        return await job.future

    async def _work(self) -> None:
        while True:
            await self._arrived.wait()
            # Cleared before the queue is emptied: an image that comes while a batch runs sets it again and is not lost.
            self._arrived.clear()
            while len(self._jobs):
                if self._wait and len(self._jobs) < self._most(next(iter(self._jobs)).image.shape):
                    await asyncio.sleep(self._wait)
                batch = self._take_batch()
                if batch:
                    await self._run_batch(batch)

    def _take_batch(self) -> list[_Job[T]]:
        """Removes the job whose turn it is and others of its size from the queue, and returns them."""
        # A job whose caller has gone has a cancelled future; dropping it here saves the network's time.
        self._jobs.drop(lambda job: job.future.done())
        if not len(self._jobs):
            return []
        first = self._jobs.pop()
        shape = first.image.shape
        return [first, *self._jobs.take(lambda job: job.image.shape == shape, self._most(shape) - 1)]

    async def _run_batch(self, batch: list[_Job[T]]) -> None:
        def run() -> list[T]:
            return self._run(np.stack([job.image for job in batch]))

        try:
            results = await self.thread.run(run)
        except Exception as error:  # each caller gets it and decides; the batcher must go on for the others
            for job in batch:
                if not job.future.done():
                    job.future.set_exception(error)
            return
        for job, result in zip(batch, results, strict=True):
            if not job.future.done():
                job.future.set_result(result)
