"""The engine of the server: runs the network in one thread and everything else in others, within its limits.

It does not depend on HTTP, except for the status of a refused request.
"""

import asyncio
import base64
import contextlib
import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import keras
import numpy as np

from deeplab_tf import files
from deeplab_tf.catalog.palettes import pascal_palette
from deeplab_tf.config import PredictConfig, ServeConfig
from deeplab_tf.data.shapes import FIRST_INDEX, shapes_example
from deeplab_tf.errors import DeepLabError, is_out_of_memory
from deeplab_tf.inference.measured import Surroundings
from deeplab_tf.inference.runtime import runtime_predictor
from deeplab_tf.inference.tiles import network_labels, network_size
from deeplab_tf.network.sizes import halved
from deeplab_tf.ops.images import EXTENSIONS, jpeg_bytes, png_bytes, read_image, resize_labels, resize_longest
from deeplab_tf.ops.network_pictures import Picture
from deeplab_tf.ops.pictures import class_shares, palette_png
from deeplab_tf.serving import protocol
from deeplab_tf.serving.batching import Batcher
from deeplab_tf.serving.pictures import decode_picture
from deeplab_tf.serving.refusal import Refused
from deeplab_tf.weights.model_directory import ModelCard

T = TypeVar("T")

_LOG = logging.getLogger(__name__)

_SURROUNDINGS = Surroundings()
_EXAMPLES = 6  # of the user's pictures that the page offers, at most
_EXAMPLE_SIDE = 1024  # pixels of their longer side, at most
_MOST_BODIES = 16  # all request bodies together take at most the memory of this many of the largest size


class Engine:
    """A model that answers many requests at once.

    Attributes:
      options: the limits of the server.
      examples: (name, encoded picture) of the pictures that the page offers.
      image: what the photographs are that the model reads; None: 8-bit RGB.
    """

    def __init__(
        self, model: keras.Model, card: ModelCard, options: ServeConfig, surroundings: Surroundings = _SURROUNDINGS
    ) -> None:
        card.require_classes("serve")
        self._card = card
        self.options = options
        self._predictor = runtime_predictor(model, options.runtime, pixels=math.inf, surroundings=surroundings)
        self._model = model  # which a predictor does not keep
        self._backend = self._predictor.backend
        self._page_options = PredictConfig(longest_side=options.longest_side)
        self._rest_options = PredictConfig(resize="none", tf32=options.tf32)
        self._names = card.class_names or tuple(f"class {i}" for i in range(card.config.num_classes))
        self._palette = card.palette or pascal_palette(card.config.num_classes)
        self._active = 0  # requests that are being answered
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
        self.examples: tuple[tuple[str, bytes], ...] = tuple(_examples(options)) if card.image is None else ()

    def prepare(self) -> None:
        """Compiles the network, so that the first request does not wait for that."""
        self._predictor.prepare()
        shape = (300, 400, self._card.config.input_channels)
        first = np.zeros(shape, np.uint8 if self.image is None else np.float32)
        self._run(network_size(first, self._page_options)[None])

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Runs the batcher and its threads for the duration of the context."""
        most = self.options.max_batch_size if self._backend.batches else 1
        wait = self.options.batch_wait_ms / 1000 if self._backend.batches else 0.0
        self._batcher = Batcher(self._run, max_batch=most, wait=wait)
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="pictures")
        # A picture is decoded only when the network will soon run it, so that waiting requests hold the small encoded
        # bytes and not the pixels.
        self._room = asyncio.Semaphore(2 * most + 2)
        self._batcher.start()
        try:
            yield
        finally:
            await self._batcher.stop()
            self._threads.shutdown(cancel_futures=True)

    @contextlib.contextmanager
    def admitted(self) -> Iterator[Callable[[int], None]]:
        """Counts a request for the duration of the context, and yields a function that reserves bytes for its body.

        Raises:
          Refused: 503 if too many requests are being answered, or (from the function) if their bodies are too large.
        """
        if self._active >= self.options.max_requests:
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
        try:
            yield reserve
        finally:
            self._active -= 1
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
            "max_body_bytes": int(self.options.max_body_mb * 1e6),
        }

    # ---- the network

    def _run(self, images: np.ndarray) -> list[tuple[np.ndarray, float]]:
        """Returns for each image (uint8 [b, h, w, 3]) its label map and the seconds that the whole batch took."""
        start = time.perf_counter()
        if images.shape[1] * images.shape[2] > self._rest_options.max_pixels:
            labels = [network_labels(self._predictor, image, self._rest_options) for image in images]
        else:
            labels = self._labels(images)
        seconds = time.perf_counter() - start
        return [(label, seconds) for label in labels]

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

    async def _segment(self, image: np.ndarray) -> tuple[np.ndarray, float]:
        try:
            return await self._batcher.submit(image)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            height, width = image.shape[:2]
            fewer = halved((height, width))
            message = f"not enough memory for an image of {height} x {width}; {fewer[0]} x {fewer[1]} takes half of it"
            raise Refused(413, message) from None

    # ---- the two kinds of requests

    async def predict(self, body: bytes) -> tuple[bytes, tuple[str, ...]]:
        """Returns the body of the answer to a :predict request of TensorFlow Serving's REST interface, and its notes.

        The notes, a line for each thing that the user should know of an image, go into the log too.

        Raises:
          Refused: the request is not valid, or an image is too large.
        """
        async with self._room:
            request = await self._in_thread(lambda: self._parsed(body))
            results = await asyncio.gather(*map(self._segment, request.images))
            labels = [label for label, _ in results]
            for note in request.notes:
                _LOG.warning("%s: %s", self.options.model_name, note)
            return await self._in_thread(lambda: protocol.encode_answer(request, labels)), request.notes

    async def segment(self, content: bytes) -> dict:
        """Returns the answer to a request of the page: the classes of an encoded picture, as runs and as a PNG.

        Raises:
          Refused: the picture cannot be decoded, or is too large.
        """
        async with self._room:
            picture, resized = await self._in_thread(lambda: self._read(content))
            labels, seconds = await self._segment(resized)
            return await self._in_thread(lambda: self._page_answer(labels, picture, seconds))

    def _parsed(self, body: bytes) -> protocol.PredictRequest:
        return protocol.parse_request(body, max_pixels=self.options.max_pixels, image=self.image)

    def _read(self, content: bytes) -> tuple[Picture, np.ndarray]:
        """Returns a picture, and its pixels resized for the network."""
        limit = self.options.max_pixels
        picture = decode_picture(content, max_pixels=limit, name="the picture", image=self.image)
        return picture, network_size(picture.pixels, self._page_options)

    def _page_answer(self, labels: np.ndarray, picture: Picture, seconds: float) -> dict:
        """Returns the JSON fields for the page: labels at the picture's size, in runs of (label, length) by rows."""
        size = (picture.shown.shape[0], picture.shown.shape[1])
        labels = resize_labels(labels, *size)
        flat = labels.ravel()
        starts = np.concatenate([[0], np.flatnonzero(np.diff(flat)) + 1])
        lengths = np.diff(starts, append=flat.size)
        shares = class_shares(labels, self._names)
        return {
            "height": size[0],
            "width": size[1],
            "classes": [{"index": index, "name": name, "share": share} for index, name, share in shares],
            "runs": np.stack([flat[starts], lengths], axis=1).ravel().tolist(),
            "raw_png": base64.b64encode(palette_png(labels, self._palette)).decode() if labels.max() < 256 else None,
            "network_ms": round(1000 * seconds, 1),
            **({"notes": list(picture.notes)} if picture.notes else {}),
            **({} if self.image is None else {"shown_jpeg": base64.b64encode(jpeg_bytes(picture.shown)).decode()}),
        }


def _examples(options: ServeConfig) -> Iterator[tuple[str, bytes]]:
    """Yields (name, PNG or JPEG) of the pictures that the page offers."""
    if options.examples is None:
        for number, (height, width) in enumerate(((257, 385), (321, 321), (385, 257))):
            image, _ = shapes_example(0, FIRST_INDEX["test"] + number, height=height, width=width)
            yield f"drawn shapes {number + 1}", png_bytes(image)
        return
    folder = files.path(options.examples)
    photographs = sorted(path for path in folder.glob("*") if path.suffix.lower() in EXTENSIONS and path.is_file())
    if not photographs:
        raise DeepLabError(f"--examples={folder}: no images in this folder; expected {', '.join(EXTENSIONS)}")
    for file in photographs[:_EXAMPLES]:
        image = read_image(file)
        image = resize_longest(image, _EXAMPLE_SIDE) if max(image.shape) > _EXAMPLE_SIDE else image
        yield file.stem, jpeg_bytes(image)
