"""Images of many requests run together: one thread runs the network, whoever asks."""

import asyncio
import collections
import dataclasses
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np


@dataclasses.dataclass
class _Job:
    image: np.ndarray
    future: asyncio.Future


class Batcher:
    """Takes images one by one, and gives the network those of one size together, the oldest first.

    Args:
      run: images uint8 [b, h, w, 3] -> what each is answered with, in their order. Called by one thread only.
      max_batch: images that run together, at most.
      wait: seconds that the oldest image waits for others, where there are fewer.
    """

    def __init__(self, run: Callable[[np.ndarray], list], *, max_batch: int, wait: float):
        self._run, self._max_batch, self._wait = run, max_batch, wait
        self._jobs: collections.deque[_Job] = collections.deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="network")
        self._came = asyncio.Event()
        self._worker: asyncio.Task | None = None

    def start(self):
        """Begins to work; call it in the event loop."""
        self._worker = asyncio.get_running_loop().create_task(self._work())

    async def stop(self):
        """Lets what runs finish and forgets the rest."""
        self._worker.cancel()
        await asyncio.gather(self._worker, return_exceptions=True)
        for job in self._jobs:
            job.future.cancel()
        await asyncio.to_thread(self._thread.shutdown)

    async def submit(self, image: np.ndarray):
        """Returns what `run` gives for an image. One whose caller has gone before its turn is not run."""
        job = _Job(image, asyncio.get_running_loop().create_future())
        self._jobs.append(job)
        self._came.set()
        return await job.future

    async def _work(self):
        while True:
            await self._came.wait()
            self._came.clear()
            while self._jobs:
                if self._wait and len(self._jobs) < self._max_batch:
                    await asyncio.sleep(self._wait)
                batch = self._next()
                if batch:
                    await self._answer(batch)

    def _next(self) -> list[_Job]:
        """Takes the oldest job and those of its size that came after it."""
        waiting = [job for job in self._jobs if not job.future.done()]
        batch = [job for job in waiting if job.image.shape == waiting[0].image.shape][: self._max_batch]
        taken = set(map(id, batch))
        self._jobs = collections.deque(job for job in waiting if id(job) not in taken)
        return batch

    async def _answer(self, batch: list[_Job]):
        def run():
            return self._run(np.stack([job.image for job in batch]))

        try:
            results = await asyncio.get_running_loop().run_in_executor(self._thread, run)
        except Exception as error:  # whatever went wrong is told to those who wait for it
            for job in batch:
                if not job.future.done():
                    job.future.set_exception(error)
            return
        for job, result in zip(batch, results, strict=True):
            if not job.future.done():
                job.future.set_result(result)
