"""Who sends requests (`Client`), and a queue in which clients take turns (`Turns`)."""

import collections
import dataclasses
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
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
_REMEMBERED = 256  # clients, or connections, that do not wait any more, at most


class _Shares(Generic[K]):
    """The order of waiting clients, or connections: equal shares of what is given, of whatever sizes the pieces are.

    Each has a mark, to which the size of what it takes is added; the one with the least mark is the next, of several
    the one that has waited for longest. The clock goes on by what is taken, divided by the number that wait; a new one
    begins at it. So none saves up turns, and one that has taken much waits until the others have had as much, also if
    it leaves and comes again. (This approximates the generalised processor sharing of Parekh and Gallager, 1993.)
    """

    def __init__(self) -> None:
        self._clock = 0.0
        self._waiting: collections.OrderedDict[K, float] = collections.OrderedDict()
        self._left: collections.OrderedDict[K, float] = collections.OrderedDict()

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[K]:
        return iter(sorted(self._waiting, key=self._waiting.__getitem__))

    def join(self, key: K) -> None:
        """Puts a client among those that wait."""
        if key not in self._waiting:
            self._waiting[key] = max(self._clock, self._left.pop(key, self._clock))

    def take(self, key: K, size: float) -> None:
        """Counts what a client has taken."""
        self._clock += size / len(self._waiting)
        self._waiting[key] += size
        self._waiting.move_to_end(key)

    def leave(self, key: K) -> K | None:
        """Removes a client, and returns the one that is forgotten for it, or None."""
        self._left[key] = self._waiting.pop(key)
        return self._left.popitem(last=False)[0] if len(self._left) > _REMEMBERED else None


class Turns(Generic[T]):
    """A queue whose clients take turns, and within a client its connections, each with its oldest item.

    So a client that sends much waits for its own, and the others do not. Turns count by the size of the items: one
    whose items are large has fewer of them.
    """

    def __init__(self) -> None:
        self._owners: _Shares[Hashable] = _Shares()
        self._connections: dict[Hashable, _Shares[Client]] = {}
        self._items: dict[Client, collections.deque[tuple[T, float]]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._items.values()))

    def push(self, client: Client, item: T, size: float = 1.0) -> None:
        """Adds the last item of a client."""
        self._owners.join(client.owner)
        self._connections.setdefault(client.owner, _Shares()).join(client)
        self._items.setdefault(client, collections.deque()).append((item, size))

    def _in_turn(self) -> Iterator[Client]:
        """Yields the connections of the client whose turn it is, then those of the next."""
        for owner in self._owners:
            yield from self._connections[owner]

    def pop(self) -> T:
        """Removes and returns the item whose turn it is. IndexError where there is none."""
        client = next(self._in_turn(), None)
        if client is None:
            raise IndexError("nobody waits")
        return self._take(client, 0)

    def take(self, fits: Callable[[T], bool], most: int) -> list[T]:
        """Removes and returns up to `most` items that fit: in turn one of each connection, until none fits."""
        taken: list[T] = []
        without: set[Client] = set()  # connections that have none
        while len(taken) < most:
            for client in self._in_turn():
                if client in without:
                    continue
                place = next((index for index, (item, _) in enumerate(self._items[client]) if fits(item)), None)
                if place is not None:
                    taken.append(self._take(client, place))
                    break
                without.add(client)
            else:
                break
            without &= self._items.keys()
        return taken

    def drop(self, gone: Callable[[T], bool]) -> None:
        """Removes the items that nobody waits for any more."""
        for client, items in list(self._items.items()):
            self._items[client] = collections.deque(entry for entry in items if not gone(entry[0]))
            self._tidy(client)

    def __iter__(self) -> Iterator[T]:
        for client in self._in_turn():
            yield from (item for item, _ in self._items[client])

    def _take(self, client: Client, place: int) -> T:
        """Removes and returns an item of a connection, and counts it."""
        items = self._items[client]
        item, size = items[place]
        del items[place]
        self._owners.take(client.owner, size)
        self._connections[client.owner].take(client, size)
        self._tidy(client)
        return item

    def _tidy(self, client: Client) -> None:
        if self._items[client]:
            return
        del self._items[client]
        self._connections[client.owner].leave(client)
        if not self._connections[client.owner]:
            forgotten = self._owners.leave(client.owner)
            self._connections.pop(forgotten, None)
