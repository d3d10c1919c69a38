"""Images of many requests run together, and what happens to them when something goes wrong."""

import asyncio
import threading

import numpy as np
import pytest

from deeplab_tf.serving.batching import Batcher
from deeplab_tf.serving.clients import Client, Turns

LARGE, SMALL, OTHER = (Client(f"10.0.0.{number}") for number in range(3))


def test_turns_count_by_the_size_of_what_is_taken():
    turns: Turns[str] = Turns()
    for number in range(3):
        turns.push(LARGE, f"large {number}", 4)
    for number in range(8):
        turns.push(SMALL, f"small {number}")
        turns.push(OTHER, f"other {number}")
    pairs = [[f"small {number}", f"other {number}"] for number in range(8)]
    expected = ["large 0", *sum(pairs[:4], []), "large 1", *sum(pairs[4:], []), "large 2"]
    assert [turns.pop() for _ in range(len(turns))] == expected


@pytest.mark.parametrize("own_connections", [False, True], ids=["one connection", "a connection for each request"])
def test_a_large_picture_whose_tiles_come_one_by_one_has_its_share_and_no_more(own_connections):
    """It waits for itself, so that the queue does not know it between two tiles; and so do those beside it."""
    turns: Turns[str] = Turns()
    order = []
    requests = iter(range(1000))

    def ask(name: str) -> None:
        port = next(requests) if own_connections else 1
        turns.push(LARGE if name == "large" else Client(name, port=port), name, 8 if name == "large" else 1)

    for name in ("large", "a", "b", "c"):
        ask(name)
    for _ in range(60):
        order.append(turns.pop())
        ask(order[-1])
    # 8 for each of them would be 24 of theirs between two: the clock is a little ahead of those who come again.
    assert [index for index, name in enumerate(order) if name == "large"] == [0, 22, 46]
    assert all(sorted(order[at : at + 3]) == ["a", "b", "c"] for at in range(1, 22, 3))


def test_who_was_alone_owes_nothing():
    turns: Turns[str] = Turns()
    for _ in range(1000):
        turns.push(LARGE, "large", 8)
        turns.pop()
    turns.push(LARGE, "large", 8)
    turns.push(SMALL, "small")
    assert [turns.pop(), turns.pop()] == ["large", "small"]


def test_who_has_gone_is_forgotten():
    turns: Turns[int] = Turns()
    for number in range(2000):
        turns.push(Client(str(number)), number)
        turns.push(Client("one", port=number), number)
        turns.take(lambda item: True, 2)
    assert len(turns) == 0 and len(turns._connections) < 600
    assert sum(len(shares._left) for shares in turns._connections.values()) < 1200


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
