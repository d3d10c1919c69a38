"""`Ranking`: a thread that looks at one picture after the other, and in between at what the page asks for."""

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import TypeVar

from deeplab_tf.labelling.model import Impression, LabelModel
from deeplab_tf.labelling.pictures import LabelPicture
from deeplab_tf.labelling.uncertainty import ranked

T = TypeVar("T")


class Ranking:
    """Looks at all pictures and knows the order in which they are worth labelling, of those seen so far.

    Args:
      model: looks at a picture.
      pictures: all of them; those with places of their own come first, by the scores of these.
    """

    def __init__(self, model: LabelModel, pictures: Sequence[LabelPicture]) -> None:
        self._model, self._pictures = model, pictures
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._seen: dict[str, Impression] = {}
        self._turn = threading.Lock()
        self._order: tuple[tuple[int, frozenset[str]], list[str]] | None = None
        self._thread = threading.Thread(target=self._run, name="labels", daemon=True)

    def start(self) -> None:
        """Begins to look."""
        self._thread.start()

    def stop(self) -> None:
        """Ends when the picture that is looked at is done."""
        self._work.put(None)
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        left = iter(self._pictures)
        wait = False
        while True:
            try:
                work = self._work.get(block=wait)
            except queue.Empty:
                picture = next(left, None)
                wait = picture is None
                if picture is not None and picture.name not in self._seen:
                    self._look(picture)
                continue
            if work is None:
                return
            work()

    def _look(self, picture: LabelPicture) -> None:
        found = self._model.impression(picture)
        with self._turn:
            self._seen[picture.name] = found

    def call(self, work: Callable[[LabelModel], T]) -> "Future[T]":
        """Has the thread do something with the model, before it looks at the next picture."""
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(work(self._model))
            except BaseException as error:  # the caller gets it; the thread goes on
                future.set_exception(error)

        self._work.put(run)
        return future

    def impression(self, picture: LabelPicture) -> Impression | None:
        """Returns what is known of a picture; None: it has not been looked at yet."""
        return self._seen.get(picture.name)

    def impressions(self) -> Mapping[str, Impression]:
        """Returns what is known so far, by name."""
        with self._turn:
            return dict(self._seen)

    def order(self, done: frozenset[str]) -> list[str]:
        """Returns the names of all pictures: those worth labelling first, then those not seen yet, then those done."""
        seen = self.impressions()
        if self._order is not None and self._order[0] == (len(seen), done):
            return self._order[1]
        names = [picture.name for picture in self._pictures]
        own = [picture.name for picture in self._pictures if picture.places and picture.name not in done]
        good = [name for name in names if name in seen and seen[name].error is None]
        order = ranked(
            [seen[name].score for name in good],
            [seen[name].look for name in good],
            [number for number, name in enumerate(good) if name in done],
        )
        found = [*own, *(good[number] for number in order), *(name for name in names if name not in done), *names]
        result = list(dict.fromkeys(found))
        self._order = (len(seen), done), result
        return result
