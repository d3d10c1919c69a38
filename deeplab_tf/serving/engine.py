"""The engine of the server: the network in a thread, reading of requests in processes, all within its limits.

It does not depend on HTTP, except for the status of a refused request.
"""

import asyncio
import base64
import collections
import contextlib
import json
import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import keras
import numpy as np

from deeplab_tf.config import PredictConfig, ServeConfig
from deeplab_tf.config.padding import counted_size
from deeplab_tf.errors import DeepLabError, is_out_of_memory
from deeplab_tf.inference.measured import Surroundings
from deeplab_tf.inference.predictor import Predictor, predictor_of
from deeplab_tf.inference.processor import available_cores
from deeplab_tf.inference.runtime import runtime_predictor
from deeplab_tf.inference.tiles import network_labels, parts
from deeplab_tf.network.sizes import halved
from deeplab_tf.ops.images import resize_labels, resize_longest
from deeplab_tf.ops.pictures import class_shares, palette_png
from deeplab_tf.serving import protocol
from deeplab_tf.serving.announced import picture_pixels, request_pixels
from deeplab_tf.serving.answers import json_numbers
from deeplab_tf.serving.batching import Batcher
from deeplab_tf.serving.clients import SOMEBODY, Client
from deeplab_tf.serving.examples import page_examples
from deeplab_tf.serving.gate import Gate
from deeplab_tf.serving.readers import Readers
from deeplab_tf.serving.reading import PageRequest, Settings, page_limits, request_limits
from deeplab_tf.serving.refusal import Refused
from deeplab_tf.weights.model_directory import ModelCard

T = TypeVar("T")

_LOG = logging.getLogger(__name__)

_SURROUNDINGS = Surroundings()
_MOST_BODIES = 16  # all request bodies together take at most the memory of this many of the largest size
_OTHERS = 8  # of the requests at a time, one client leaves the others one in so many


class Engine:
    """A model that answers many requests at once.

    Args:
      model: runs the network.
      card: describes it.
      options: where the server listens, and its limits.
      surroundings: what the choice of the runtime depends on.
      origin: where the model is, of whose records the page may offer pictures; None: not known.

    Attributes:
      options: those given.
      examples: (name, encoded picture) of the pictures that the page offers.
      image: what the photographs are that the model reads; None: 8-bit RGB.
      draining: whether the server is about to end, and takes no new connections.
    """

    def __init__(
        self,
        model: keras.Model | Predictor,
        card: ModelCard,
        options: ServeConfig,
        surroundings: Surroundings = _SURROUNDINGS,
        origin: str | None = None,
    ) -> None:
        card.require_classes("serve")
        self._card = card
        self.options = options
        self._predictor = runtime_predictor(model, options.runtime, pixels=math.inf, surroundings=surroundings)
        self._model = model  # which a predictor does not keep
        self._backend = self._predictor.backend
        self._rest_options = PredictConfig(resize="none", tf32=options.tf32)
        self._names, self._palette = card.shown_names, card.shown_palette
        self._active = 0  # requests that are being answered
        self._active_of: collections.Counter[Hashable] = collections.Counter()  # of each client
        self._bytes_held = 0  # the size of their bodies
        self.image = card.image
        if card.image is None and card.config.input_channels != 3:
            raise DeepLabError(
                f"the model reads {card.config.input_channels} bands and does not say what they are; expected a model "
                "directory or a run's folder, whose deeplab.json does (image)"
            )
        if card.image and options.examples:
            raise DeepLabError(
                f"--examples={options.examples}: the model reads {card.image.describe()}, which a page cannot show; "
                "leave it out"
            )
        self.examples = tuple(page_examples(options, card, origin))
        self.draining = False
        self._prepared = False
        self._batcher: Batcher[tuple[np.ndarray, float]] | None = None
        self._readers: Readers | None = None
        trained = None if card.letterbox else card.training_side
        self._settings = Settings.of(options, card.config, card.image, trained, self._predictor.fixed_size)

    def prepare(self) -> None:
        """Compiles the network, so that the first request does not wait for that."""
        self._predictor.prepare()
        shape = (300, 400, self._card.config.input_channels)
        first = np.zeros(shape, np.uint8 if self.image is None else np.float32)
        self._run(resize_longest(first, self._settings.page_side(*shape[:2]))[None])
        self._prepared = True

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Runs the batcher, its threads and the processes for the duration of the context."""
        most = self.options.max_batch_size if self._backend.batches else 1
        wait = self.options.batch_wait_ms / 1000 if self._backend.batches else 0.0
        # Half of what a request may take: one that comes when a job does not return is still answered in time.
        seconds = max(1.0, self.options.timeout_secs / 2)
        batcher = Batcher(
            self._run,
            max_batch=self._most_together,
            wait=wait,
            seconds=seconds,
            replaced=self._go_on,
            cost=self._cost,
        )
        readers = Readers(self._settings, count=max(2, min(4, available_cores())), seconds=self.options.timeout_secs)
        self._batcher, self._readers = batcher, readers
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="answers")
        # A picture is decoded only when the network will soon run it, so that waiting requests hold the small encoded
        # bytes and not the pixels.
        largest = max(self.options.max_pixels, self._rest_options.max_pixels)
        self._room = Gate(2 * most + 2, 2 * largest)  # the network runs one half and the other is read
        batcher.start()
        if self._prepared:
            readers.start()
        try:
            yield
        finally:
            await batcher.stop()
            await readers.stop()
            self._batcher, self._readers = None, None
            self._threads.shutdown(cancel_futures=True)

    @property
    def is_ready(self) -> bool:
        """Whether requests are answered."""
        return self._batcher is not None and not self.draining and not self._batcher.thread.is_stuck

    def figures(self) -> dict[str, int]:
        """Returns what is measured of the engine, by name."""
        batcher, readers = self._batcher, self._readers
        figures = {"requests_active": self._active, "body_bytes": self._bytes_held}
        if batcher is not None and readers is not None:
            figures["requests_waiting"] = len(self._room)
            figures["images_waiting"] = len(batcher)
            figures["network_replacements"] = batcher.thread.replacements
            figures["reader_replacements"] = readers.replacements
        return figures

    def _go_on(self) -> None:
        """Runs the network in TensorFlow from now on: what hangs in another library may hold its lock."""
        self._predictor = predictor_of(self._model)

    def _most_together(self, shape: tuple[int, ...]) -> int:
        """Returns how many images of a shape run together: what is more takes the memory of a larger image."""
        if not self._backend.batches:
            return 1
        return max(1, min(self.options.max_batch_size, self._rest_options.max_pixels // self._cost(shape)))

    def _cost(self, shape: tuple[int, ...]) -> int:
        """Returns the pixels of an image of a shape, as it is padded for the network."""
        return math.prod(counted_size(self._card.config, shape[0], shape[1]))

    @contextlib.contextmanager
    def admitted(self, client: Client = SOMEBODY) -> Iterator[Callable[[int], None]]:
        """Counts a request for the duration of the context, and yields a function that reserves bytes for its body.

        Raises:
          Refused: 503 if too many requests are being answered, or (from the function) if their bodies are too large.
        """
        most = self.options.max_requests
        own = self._active_of[client.owner]
        if self._active >= most or own >= max(1, most - most // _OTHERS):
            raise Refused(503, f"{self._active} requests are being answered; come back later")
        own_bytes = 0

        def reserve(count: int) -> None:
            nonlocal own_bytes
            if self._bytes_held + count > _MOST_BODIES * self.options.max_body_mb * 1e6:
                # Released now, and not when the context ends: otherwise requests that arrive until then would be
                # refused too, for bytes that nobody holds any more.
                self._bytes_held -= own_bytes
                own_bytes = 0
                raise Refused(503, "large requests are being answered; come back later")
            own_bytes += count
            self._bytes_held += count

        self._active += 1
        self._active_of[client.owner] += 1
        try:
            yield reserve
        finally:
            self._active -= 1
            self._active_of[client.owner] -= 1
            self._active_of += collections.Counter()  # which forgets those of whom there are none
            self._bytes_held -= own_bytes

    def info(self) -> dict:
        """Returns the facts about the model that the page shows."""
        config = self._card.config
        return {
            "name": self.options.model_name,
            "network": f"{config.model_variant}, output stride {config.output_stride}",
            "dataset": self._card.dataset,
            **({"photographs": self.image.describe()} if self.image else {}),
            "runtime": self._backend.name,
            "classes": [
                {"name": name, "colour": list(map(int, colour))}
                for name, colour in zip(self._names, self._palette, strict=False)
            ],
            "examples": [name for name, _ in self.examples],
            "needs_token": self.options.token_file is not None,
            "max_body_bytes": int(self.options.max_body_mb * 1e6),
        }

    # ---- the network

    def _run(self, images: np.ndarray) -> list[tuple[np.ndarray, float]]:
        """Returns for each image (uint8 [b, h, w, 3]) its label map and the seconds that the whole batch took."""
        start = time.perf_counter()
        if self._in_tiles(images.shape[1], images.shape[2]):
            labels = [network_labels(self._predictor, image, self._rest_options) for image in images]
        else:
            labels = self._labels(images)
        seconds = time.perf_counter() - start
        return [(label, seconds) for label in labels]

    def _in_tiles(self, height: int, width: int) -> bool:
        """Returns whether images are too large to be run whole: for the memory, or for a file of one size."""
        fixed = self._predictor.fixed_size
        if fixed is not None:
            return height > fixed[0] or width > fixed[1]
        return height * width > self._rest_options.max_pixels

    def _labels(self, images: np.ndarray) -> list[np.ndarray]:
        """Returns the label maps of images that run together, or one by one where the memory does not suffice."""
        inference = self._rest_options.inference
        try:
            return list(self._predictor.labels(images, inference))
        except Exception as error:
            if len(images) == 1 or not is_out_of_memory(error):
                raise
            return [self._predictor.labels(image[None], inference)[0] for image in images]

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Returns the result of `work`, which runs in a thread, so that the event loop does not wait for it."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def _segment(self, image: np.ndarray, client: Client) -> tuple[np.ndarray, float]:
        """Returns the label map of an image, uint8 [h, w, 3], and the seconds that the network took.

        Of a large one the tiles go through the queue one by one, so that the images of others come between them.
        """
        batcher = self._batcher
        assert batcher is not None
        height, width = image.shape[:2]
        labels, seconds = np.empty((height, width), np.int32), 0.0
        try:
            for window, middle, kept in parts(self._predictor, (height, width), self._rest_options):
                part, took = await batcher.submit(image[window], client)
                labels[kept] = part[middle]
                seconds += took
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            fewer = halved((height, width))
            message = f"not enough memory for an image of {height} x {width}; {fewer[0]} x {fewer[1]} takes half of it"
            raise Refused(413, message) from None
        return labels, seconds

    # ---- the two kinds of requests

    def _announced(self, body: bytes) -> int:
        """Returns the pixels that the body of a :predict request announces."""
        return request_pixels(body, request_limits(self._settings), self._card.config.input_channels)

    async def predict(self, body: bytes, client: Client = SOMEBODY) -> tuple[bytes, tuple[str, ...]]:
        """Returns the body of the answer to a :predict request of TensorFlow Serving's REST interface, and its notes.

        The notes, a line for each thing that the user should know of an image, go into the log too.

        Raises:
          Refused: the request is not valid, or an image is too large.
        """
        assert self._readers is not None
        async with self._room.entered(client, self._announced(body)):
            request = await self._readers.request(body)
            results = await asyncio.gather(*(self._segment(image, client) for image in request.images))
            labels = [label for label, _ in results]
            for note in request.notes:
                _LOG.warning("%s: %s", self.options.model_name, note)
            return await self._in_thread(lambda: protocol.encode_answer(request, labels)), request.notes

    async def segment(self, content: bytes, client: Client = SOMEBODY) -> bytes:
        """Returns the body of the answer to a request of the page: a picture's classes, as runs and as a PNG.

        Raises:
          Refused: the picture cannot be decoded, or is too large.
        """
        assert self._readers is not None
        async with self._room.entered(client, picture_pixels(content, page_limits(self._settings))):
            picture = await self._readers.picture(content)
            labels, seconds = await self._segment(picture.resized, client)
            return await self._in_thread(lambda: self._page_body(labels, picture, seconds))

    def _page_body(self, labels: np.ndarray, picture: PageRequest, seconds: float) -> bytes:
        answer = self._page_answer(labels, picture, seconds)
        runs = json_numbers(answer.pop("runs"))
        return json.dumps(answer).encode()[:-1] + b', "runs": ' + runs + b"}"

    def _page_answer(self, labels: np.ndarray, picture: PageRequest, seconds: float) -> dict:
        """Returns the JSON fields for the page: labels at the picture's size, in runs of (label, length) by rows."""
        labels = resize_labels(labels, *picture.size)
        flat = labels.ravel()
        starts = np.concatenate([[0], np.flatnonzero(np.diff(flat)) + 1])
        lengths = np.diff(starts, append=flat.size)
        shares = class_shares(labels, self._names)
        return {
            "height": picture.size[0],
            "width": picture.size[1],
            "classes": [{"index": index, "name": name, "share": share} for index, name, share in shares],
            "runs": np.stack([flat[starts], lengths], axis=1).ravel(),
            "raw_png": base64.b64encode(palette_png(labels, self._palette)).decode() if labels.max() < 256 else None,
            "network_ms": round(1000 * seconds, 1),
            **({"notes": list(picture.notes)} if picture.notes else {}),
            **({} if self.image is None else {"shown_jpeg": base64.b64encode(picture.shown).decode()}),
        }
