"""`Gate`: lets requests in as long as their pixels fit; who waits takes turns with the other clients."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from deeplab_tf.serving.clients import SOMEBODY, Client, Turns


class Gate:
    """Lets requests in, of those that wait each client's in its turn. It belongs to the event loop.

    Turns are counted by the pixels of the requests: a client whose requests are large has fewer of them. None is
    overtaken because it is large: who is next waits until it fits, and all others behind it.

    Args:
      places: how many are in at a time.
      pixels: how many those may have together; one alone may have more.
    """

    def __init__(self, places: int, pixels: float) -> None:
        self._places, self._pixels = places, pixels
        self._inside = 0
        self._pixels_inside = 0
        self._waiting: Turns[tuple[asyncio.Future[None], int]] = Turns()

    def __len__(self) -> int:
        return len(self._waiting)

    def _fits(self, pixels: int) -> bool:
        few = self._inside < self._places and self._pixels_inside + pixels <= self._pixels
        return few or not self._inside

    def _count(self, pixels: int, requests: int) -> None:
        self._inside += requests
        self._pixels_inside += pixels * requests

    @contextlib.asynccontextmanager
    async def entered(self, client: Client = SOMEBODY, pixels: int = 1) -> AsyncIterator[None]:
        """Waits until a request of so many pixels may enter, and counts it for the duration of the context."""
        if not len(self._waiting) and self._fits(pixels):
            self._count(pixels, 1)
        else:
            turn = asyncio.get_running_loop().create_future()
            self._waiting.push(client, (turn, pixels), pixels)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._count(pixels, -1)  # it was let in at the moment in which the client went away
                self._let_in()
                raise
        try:
            yield
        finally:
            self._count(pixels, -1)
            self._let_in()

    def _let_in(self) -> None:
        """Lets those in whose turn it is, as long as they fit."""
        self._waiting.drop(lambda item: item[0].done())
        while len(self._waiting) and self._fits(next(iter(self._waiting))[1]):
            turn, pixels = self._waiting.pop()
            self._count(pixels, 1)
            turn.set_result(None)
