"""Who sends requests (`Client`), and a queue in which clients take turns (`Turns`)."""

import collections
import dataclasses
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Client:
    """Who sends a request: clients take turns, then the connections of one client.

    Attributes:
      address: of the other end of the connection, or "" where it is not known.
      token: the number of its token in the file of tokens; None: it needs none.
      port: of the other end, which tells connections apart.
    """

    address: str = ""
    token: int | None = None
    port: int = 0

    @property
    def owner(self) -> Hashable:
        """What is counted as one client: the address with the token."""
        return self.address, self.token


SOMEBODY = Client()


class Turns(Generic[T]):
    """A queue whose clients take turns, and within a client its connections, each with its oldest item.

    So a client that sends much waits for its own, and the others do not.
    """

    def __init__(self) -> None:
        self._owners: collections.OrderedDict[Hashable, collections.OrderedDict[Client, collections.deque[T]]] = (
            collections.OrderedDict()
        )
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def push(self, client: Client, item: T) -> None:
        """Adds the last item of a client."""
        connections = self._owners.setdefault(client.owner, collections.OrderedDict())
        connections.setdefault(client, collections.deque()).append(item)
        self._count += 1

    def _in_turn(self) -> Iterator[tuple[Client, collections.deque[T]]]:
        """Yields each connection with its items: the first of each client, then the second of each, and so on."""
        rows = [iter(list(connections.items())) for connections in self._owners.values()]
        while rows:
            heads = [(row, next(row, None)) for row in rows]
            rows = [row for row, head in heads if head is not None]
            yield from (head for _, head in heads if head is not None)

    def pop(self) -> T:
        """Removes and returns the item whose turn it is. IndexError where there is none."""
        if not self._count:
            raise IndexError("nobody waits")
        client, items = next(self._in_turn())
        item = items.popleft()
        self._took(client)
        return item

    def take(self, fits: Callable[[T], bool], most: int) -> list[T]:
        """Removes and returns up to `most` items that fit: in turn one of each connection, until none fits."""
        taken: list[T] = []
        found = True
        while found and len(taken) < most:
            found = False
            for client, items in list(self._in_turn()):
                place = next((index for index, item in enumerate(items) if fits(item)), None)
                if len(taken) < most and place is not None:
                    taken.append(items[place])
                    del items[place]
                    self._took(client)
                    found = True
        return taken

    def drop(self, gone: Callable[[T], bool]) -> None:
        """Removes the items that nobody waits for any more."""
        for connections in self._owners.values():
            for client, items in connections.items():
                kept = [item for item in items if not gone(item)]
                self._count -= len(items) - len(kept)
                connections[client] = collections.deque(kept)
        for owner in list(self._owners):
            self._tidy(owner)

    def __iter__(self) -> Iterator[T]:
        for connections in self._owners.values():
            for items in connections.values():
                yield from items

    def _took(self, client: Client) -> None:
        """Puts a connection, and its client, behind the others."""
        self._count -= 1
        self._owners[client.owner].move_to_end(client)
        self._owners.move_to_end(client.owner)
        self._tidy(client.owner)

    def _tidy(self, owner: Hashable) -> None:
        connections = self._owners[owner]
        for client in [client for client, items in connections.items() if not items]:
            del connections[client]
        if not connections:
            del self._owners[owner]
