"""Images of many requests run together, and what happens to them when something goes wrong."""

import asyncio
import threading

import numpy as np

from deeplab_tf.serving.batching import Batcher


def test_images_that_do_not_fit_together_are_told_so(monkeypatch):
    def full(*_):
        raise MemoryError

    async def session():
        batcher = Batcher(lambda images: [1] * len(images), max_batch=3, wait=0.0)
        batcher.start()
        with monkeypatch.context() as patch:
            patch.setattr(np, "stack", full)
            (first,) = await asyncio.gather(batcher.submit(np.zeros((1, 1, 3))), return_exceptions=True)
        second = await asyncio.wait_for(batcher.submit(np.zeros((1, 1, 3))), 5)
        await batcher.stop()
        return first, second

    first, second = asyncio.run(session())
    assert isinstance(first, MemoryError) and second == 1


def test_images_of_one_size_run_together():
    runs, free = [], threading.Event()

    def run(images):
        free.wait(5)
        runs.append(images.shape)
        return [int(image.sum()) for image in images]

    async def session():
        batcher = Batcher(run, max_batch=3, wait=0.05)
        batcher.start()
        shapes = [(2, 2, 3), (2, 2, 3), (4, 2, 3), (2, 2, 3), (2, 2, 3)]
        asked = [asyncio.create_task(batcher.submit(np.full(s, n))) for n, s in enumerate(shapes)]
        leaver = asyncio.create_task(batcher.submit(np.zeros((9, 9, 3))))
        await asyncio.sleep(0.01)
        leaver.cancel()
        free.set()
        found = await asyncio.gather(*asked)
        await batcher.stop()
        return found

    assert asyncio.run(session()) == [0, 12, 48, 36, 48]
    assert runs == [(3, 2, 2, 3), (1, 4, 2, 3), (1, 2, 2, 3)]  # the oldest first; who has left is not run


def test_an_error_is_told_to_its_batch_alone():
    def run(images):
        if images.shape[1] == 1:
            raise MemoryError("one")
        return list(images[:, 0, 0, 0])

    async def session():
        batcher = Batcher(run, max_batch=3, wait=0.0)
        batcher.start()
        images = [np.full((side, 1, 1), side) for side in (1, 2)]
        found = await asyncio.gather(*map(batcher.submit, images), return_exceptions=True)
        await batcher.stop()
        return found

    first, second = asyncio.run(session())
    assert isinstance(first, MemoryError) and second == 2
