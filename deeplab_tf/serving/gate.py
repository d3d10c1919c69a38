"""`Gate`: lets so many in at a time; who waits takes turns with the other clients."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from deeplab_tf.serving.clients import Client, Turns


class Gate:
    """Lets so many in at a time, of those who wait each client in its turn. It belongs to the event loop.

    Args:
      places: how many are in at a time.
    """

    def __init__(self, places: int) -> None:
        self._free = places
        self._waiting: Turns[asyncio.Future[None]] = Turns()

    def __len__(self) -> int:
        return len(self._waiting)

    @contextlib.asynccontextmanager
    async def entered(self, client: Client) -> AsyncIterator[None]:
        """Waits for a place, and keeps it for the duration of the context."""
        if self._free:
            self._free -= 1
        else:
            turn = asyncio.get_running_loop().create_future()
            self._waiting.push(client, turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._leave()  # the place was given at the moment in which the client went away
                raise
        try:
            yield
        finally:
            self._leave()

    def _leave(self) -> None:
        self._waiting.drop(lambda turn: turn.done())
        if len(self._waiting):
            self._waiting.pop().set_result(None)
        else:
            self._free += 1
