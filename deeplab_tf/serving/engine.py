"""What the server does with pictures: the network in one thread, all else in others, and never more than was allowed.

Nothing here knows HTTP, but for the status of what is refused.
"""

import asyncio
import base64
import contextlib
import math
import pathlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import tensorflow as tf

from deeplab_tf.catalog.palettes import pascal_palette
from deeplab_tf.config import PredictConfig, ServeConfig
from deeplab_tf.data.shapes import FIRST_INDEX, shapes_example
from deeplab_tf.errors import DeepLabError
from deeplab_tf.inference.runtime import LitePredictor, runtime_predictor
from deeplab_tf.inference.tiles import network_labels, network_size
from deeplab_tf.ops.images import EXTENSIONS, jpeg_bytes, png_bytes, read_image, resize_labels, resize_longest
from deeplab_tf.ops.pictures import class_shares, palette_png
from deeplab_tf.serving import protocol
from deeplab_tf.serving.batching import Batcher
from deeplab_tf.serving.pictures import decoded
from deeplab_tf.serving.refusal import Refused
from deeplab_tf.weights.model_directory import ModelCard

_EXAMPLES, _EXAMPLE_SIDE = 6, 1024
_MOST_BODIES = 16  # of the largest size that are held at a time, whatever the number of requests


class Engine:
    """A model that answers many at once."""

    def __init__(self, model: keras.Model, card: ModelCard, options: ServeConfig):
        card.require_classes("serve")
        self._model, self._card, self.options = model, card, options
        self._predictor = runtime_predictor(model, options.runtime, pixels=math.inf)
        self._lite = isinstance(self._predictor, LitePredictor)
        self._photo = PredictConfig(longest_side=options.longest_side)
        self._plain = PredictConfig(resize="none")
        self._names = card.class_names or tuple(f"class {i}" for i in range(card.config.num_classes))
        self._palette = card.palette or pascal_palette(card.config.num_classes)
        self._active, self._held = 0, 0
        self.examples = tuple(_examples(options))

    def prepare(self):
        """Does what the first request would otherwise wait for."""
        self._predictor.prepare()
        self._run(network_size(np.zeros((300, 400, 3), np.uint8), self._photo)[None])

    @contextlib.asynccontextmanager
    async def running(self):
        """Answers meanwhile."""
        most = 1 if self._lite else self.options.max_batch_size  # LiteRT runs them one after the other anyway
        wait = 0.0 if self._lite else self.options.batch_wait_ms / 1000
        self._batcher = Batcher(self._run, max_batch=most, wait=wait)
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="pictures")
        # Pictures are decoded when the network is about to get to them: those that wait are small.
        self._room = asyncio.Semaphore(2 * most + 2)
        self._batcher.start()
        try:
            yield
        finally:
            await self._batcher.stop()
            self._threads.shutdown(cancel_futures=True)

    @contextlib.contextmanager
    def admitted(self) -> Iterator[Callable[[int], None]]:
        """Counts a request, and by the function that it gives the bytes that the request holds; `Refused` 503 where
        there is too much of either."""
        if self._active >= self.options.max_requests:
            raise Refused(503, f"{self._active} requests are being answered; come back later")
        held = 0

        def hold(count: int):
            nonlocal held
            if self._held + count > _MOST_BODIES * self.options.max_body_mb * 1e6:
                self._held -= held  # at once, or those that send meanwhile would be refused with it
                held = 0
                raise Refused(503, "large requests are being answered; come back later")
            held += count
            self._held += count

        self._active += 1
        try:
            yield hold
        finally:
            self._active -= 1
            self._held -= held

    def info(self) -> dict:
        """What the page wants to know of the model."""
        config = self._card.config
        return {
            "name": self.options.model_name,
            "network": f"{config.model_variant}, output stride {config.output_stride}",
            "dataset": self._card.dataset,
            "runtime": "LiteRT" if self._lite else "TensorFlow",
            "classes": [
                {"name": name, "colour": list(map(int, colour))}
                for name, colour in zip(self._names, self._palette, strict=False)
            ],
            "examples": [name for name, _ in self.examples],
            "max_body_bytes": int(self.options.max_body_mb * 1e6),
        }

    # ---- the network

    def _run(self, images: np.ndarray) -> list[tuple[np.ndarray, float]]:
        """Returns the label map of each image, and the seconds that they took together."""
        start = time.perf_counter()
        if images.shape[1] * images.shape[2] > self._plain.max_pixels:
            labels = [network_labels(self._predictor, image, self._plain) for image in images]
        else:
            labels = list(self._predictor.labels(images))
        seconds = time.perf_counter() - start
        return [(label, seconds) for label in labels]

    async def _apart(self, work: Callable, *arguments, **options):
        """Runs what takes long in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: work(*arguments, **options))

    async def _segmented(self, image: np.ndarray) -> tuple[np.ndarray, float]:
        try:
            return await self._batcher.submit(image)
        except (MemoryError, tf.errors.ResourceExhaustedError):
            height, width = image.shape[:2]
            raise Refused(413, f"not enough memory for an image of {height} x {width}") from None

    # ---- the two kinds of requests

    async def predict(self, body: bytes) -> bytes:
        """Answers a :predict request of TensorFlow Serving's."""
        async with self._room:
            asked = await self._apart(protocol.question, body, max_pixels=self.options.max_pixels)
            found = await asyncio.gather(*map(self._segmented, asked.images))
            return await self._apart(protocol.answer, asked, [labels for labels, _ in found])

    async def segment(self, content: bytes) -> dict:
        """Answers the page: an encoded picture -> its classes, as runs and as a PNG."""
        async with self._room:
            size, sized = await self._apart(self._read, content)
            labels, seconds = await self._segmented(sized)
            return await self._apart(self._shown, labels, size, seconds)

    def _read(self, content: bytes) -> tuple[tuple[int, int], np.ndarray]:
        """Returns the size of a picture, and the picture as the network gets it."""
        image = decoded(content, max_pixels=self.options.max_pixels, name="the picture")
        return image.shape[:2], network_size(image, self._photo)

    def _shown(self, labels: np.ndarray, size: tuple[int, int], seconds: float) -> dict:
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
        }


def _examples(options: ServeConfig):
    """Yields (name, PNG or JPEG) of the pictures that the page offers."""
    if options.examples is None:
        for number in range(3):
            height, width = ((257, 385), (321, 321), (385, 257))[number]
            image, _ = shapes_example(0, FIRST_INDEX["test"] + number, height=height, width=width)
            yield f"drawn shapes {number + 1}", png_bytes(image)
        return
    folder = pathlib.Path(options.examples)
    files = sorted(path for path in folder.glob("*") if path.suffix.lower() in EXTENSIONS and path.is_file())
    if not files:
        raise DeepLabError(f"--examples={folder}: no images in this folder; expected {', '.join(EXTENSIONS)}")
    for file in files[:_EXAMPLES]:
        image = read_image(file)
        image = resize_longest(image, _EXAMPLE_SIDE) if max(image.shape) > _EXAMPLE_SIDE else image
        yield file.stem, jpeg_bytes(image)
