"""What comes from clients becomes images: in processes of their own, which may be ended when one does not come back.

`Settings` says how requests are read, `read_request` and `read_picture` read them, and `main` is such a process. It
does not import TensorFlow. What it tells the server is JSON and the bytes of arrays, never a pickle: a picture that
takes over its decoder cannot take over the server.
"""

import dataclasses
import functools
import json
import math
import signal
import struct
import sys
from collections.abc import Callable
from typing import IO, Any

import numpy as np

from deeplab_tf.catalog.image_facts import ImageFacts
from deeplab_tf.config import ModelConfig, ServeConfig
from deeplab_tf.config.inference import LONGEST_SIDE, trained_side
from deeplab_tf.config.padding import counted_size
from deeplab_tf.ops.images import jpeg_bytes, longest_size, resize_longest
from deeplab_tf.serving.limits import Limits
from deeplab_tf.serving.pictures import decode_picture
from deeplab_tf.serving.protocol import PredictRequest, parse_request
from deeplab_tf.serving.refusal import Refused

REQUEST, PICTURE = range(2)  # what a process is asked to read
ASKED = struct.Struct(">BQ")  # one of these, and the number of bytes that follow
TOLD = struct.Struct(">Q")  # the number of bytes of the JSON that follows, and of the arrays after it
READY = b"\n"
_NUMBERS = ("max_pixels", "max_images", "longest_side", "training_side")
_BASE_MEMORY = 1 << 30  # bytes of address space that the process and its libraries take


@dataclasses.dataclass(frozen=True)
class PageRequest:
    """A picture that the page sent.

    Attributes:
      resized: the picture for the network, uint8 [h, w, 3], or float32 [h, w, channels] in 0..255.
      size: height and width of the picture itself.
      notes: a line for each thing that the user should know of it.
      shown: a JPEG of the picture, where a browser cannot show the picture itself.
    """

    resized: np.ndarray
    size: tuple[int, int]
    notes: tuple[str, ...] = ()
    shown: bytes = b""


@dataclasses.dataclass(frozen=True)
class Settings:
    """How requests are read.

    Attributes:
      config: of the network.
      image: what the photographs are that it reads; None: 8-bit RGB.
      max_pixels: of a request's images, as the network gets them.
      max_images: of a request.
      longest_side: the page's pictures are resized to it; with a training_side it is the most.
      training_side: that of the model, near which the page's pictures keep their size (see `trained_side`); None: no.
    """

    config: ModelConfig
    image: ImageFacts | None
    max_pixels: int
    max_images: int
    longest_side: int
    training_side: int | None = None

    @classmethod
    def of(
        cls,
        options: ServeConfig,
        config: ModelConfig,
        image: ImageFacts | None,
        training_side: int | None,
        fixed_size: tuple[int, int] | None,
    ) -> "Settings":
        """Returns the settings of a server with a model.

        The page's pictures are shrunk until a file that takes images of a `fixed_size` alone takes them whole.
        """
        trained = training_side if options.longest_side is None else None
        longest = options.longest_side or LONGEST_SIDE
        if trained:  # what is enlarged, and then padded, must not be refused for it
            longest = max(1, math.isqrt(options.max_pixels) - config.output_stride)
        longest = min([longest, *(fixed_size or ())])
        return cls(config, image, options.max_pixels, options.max_images, longest, trained)

    def to_json(self) -> dict[str, Any]:
        """Returns the settings as JSON types."""
        values = {name: getattr(self, name) for name in _NUMBERS}
        return {**values, "config": self.config.to_json(), "image": self.image and self.image.to_json()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Settings":
        """Returns the settings of `to_json`."""
        image = values["image"] and ImageFacts.from_json(values["image"], "settings")
        config = ModelConfig.from_json(values["config"])
        return cls(config, image, **{name: values[name] for name in _NUMBERS})

    def page_side(self, height: int, width: int) -> int:
        """Returns the longest side that a picture of the page gets for the network."""
        if self.training_side is None:
            return self.longest_side
        return min(self.longest_side, trained_side(max(height, width), self.training_side))

    @property
    def seconds(self) -> int:
        """The processor's time that reading one request may take."""
        return 5 + math.ceil(self.max_pixels / 5e6)

    @property
    def memory(self) -> int:
        """The bytes that a process may have: its own, and some copies of the largest request."""
        return _BASE_MEMORY + 12 * self.max_pixels * max(3, self.config.input_channels)


def request_limits(settings: Settings) -> Limits:
    """Returns the limits of a :predict request, whose images are run as they are."""
    size = functools.partial(counted_size, settings.config)
    return Limits(settings.max_pixels, settings.max_images, network_size=size)


def page_limits(settings: Settings) -> Limits:
    """Returns the limits of a picture of the page, which is resized."""

    def network_size(height: int, width: int) -> tuple[int, int]:
        return counted_size(settings.config, *longest_size(height, width, settings.page_side(height, width)))

    return Limits(settings.max_pixels, network_size=network_size)


def read_request(body: bytes, settings: Settings) -> PredictRequest:
    """Returns the contents of the body of a :predict request. Refused if it is not one, or too large."""
    return parse_request(body, request_limits(settings), image=settings.image)


def read_picture(content: bytes, settings: Settings) -> PageRequest:
    """Returns a picture that the page sent. Refused if it is not one that the model reads, or too large."""
    picture = decode_picture(content, page_limits(settings), name="the picture", image=settings.image)
    shown = jpeg_bytes(picture.shown) if settings.image is not None else b""
    size = (picture.shown.shape[0], picture.shown.shape[1])
    side = settings.page_side(*picture.pixels.shape[:2])
    return PageRequest(resize_longest(picture.pixels, side), size, picture.notes, shown)


# ---- over the wire


def _told(found: PredictRequest | PageRequest) -> tuple[dict[str, Any], list[np.ndarray]]:
    if isinstance(found, PredictRequest):
        fields = {"encoded": found.encoded, "rows": found.rows, "notes": found.notes}
        return fields, list(found.images)
    fields = {"size": found.size, "notes": found.notes}
    return fields, [found.resized, np.frombuffer(found.shown or b"\0", np.uint8)[: len(found.shown)]]


def understood(kind: int, fields: dict[str, Any], arrays: list[np.ndarray]) -> PredictRequest | PageRequest:
    """Returns what a process has told that it read."""
    notes = tuple(map(str, fields["notes"]))
    if kind == REQUEST:
        return PredictRequest(tuple(arrays), bool(fields["encoded"]), bool(fields["rows"]), notes)
    resized, shown = arrays
    height, width = map(int, fields["size"])
    return PageRequest(resized, (height, width), notes, shown.tobytes())


@dataclasses.dataclass(frozen=True)
class ToldArray:
    """An array whose bytes follow."""

    shape: tuple[int, ...]
    dtype: str


@dataclasses.dataclass(frozen=True)
class Told:
    """What a process tells of a request.

    Attributes:
      fields: of what it read; None: it did not.
      status: of HTTP, for a request that is refused; 0 where its reading failed.
      reason: why it is refused, or failed.
      arrays: that follow.
    """

    fields: dict[str, Any] | None = None
    status: int = 0
    reason: str = ""
    arrays: tuple[ToldArray, ...] = ()


def _send(stream: IO[bytes], answer: Told, arrays: list[np.ndarray]) -> None:
    shapes = tuple(ToldArray(array.shape, str(array.dtype)) for array in arrays)
    head = json.dumps(dataclasses.asdict(dataclasses.replace(answer, arrays=shapes))).encode()
    stream.write(TOLD.pack(len(head)) + head)
    for array in arrays:
        stream.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    stream.flush()


def _limit(settings: Settings) -> Callable[[], None]:
    """Limits the memory of this process, and returns a function that limits the time until it is called again."""
    try:
        import resource
    except ImportError:  # Windows
        return lambda: None
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    allowed = settings.memory if hard == resource.RLIM_INFINITY else min(settings.memory, hard)
    if sys.platform.startswith("linux"):  # elsewhere the system counts other things, or refuses
        resource.setrlimit(resource.RLIMIT_AS, (allowed, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def limit_time() -> None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        _, most = resource.getrlimit(resource.RLIMIT_CPU)
        seconds = math.ceil(used.ru_utime + used.ru_stime) + settings.seconds
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, most))

    return limit_time


def main(settings: str) -> None:
    """Reads requests from the standard input until that ends; the settings are JSON."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the server ends, and with it the input, when all are answered
    given, told = sys.stdin.buffer, sys.stdout.buffer
    chosen = Settings.from_json(json.loads(settings))
    limit_time = _limit(chosen)
    told.write(READY)
    told.flush()
    while len(head := given.read(ASKED.size)) == ASKED.size:
        kind, count = ASKED.unpack(head)
        content = given.read(count)
        limit_time()
        try:
            read = read_request if kind == REQUEST else read_picture
            fields, arrays = _told(read(content, chosen))
            answer = Told(fields)
        except Refused as error:
            answer, arrays = Told(status=error.status, reason=error.reason), []
        except MemoryError:
            answer, arrays = Told(status=413, reason="takes more memory to be read than is allowed"), []
        except Exception as error:
            answer, arrays = Told(reason=f"{type(error).__name__}: {error}"), []
        del content
        _send(told, answer, arrays)
