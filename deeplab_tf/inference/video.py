"""Clips in: frames of a video file, an animated GIF, an address, a camera or a folder of pictures, through PyAV.

Frames come upright and with the times that the source gives them, one at a time; nothing here imports TensorFlow. What
is written of a clip is in video_files.py.
"""

import contextlib
import dataclasses
import fractions
import hashlib
import itertools
import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from deeplab_tf.errors import DamagedError, DeepLabError
from deeplab_tf.files import AnyPath, is_address, path
from deeplab_tf.ops.images import EXTENSIONS, PILLOW_ERRORS, opened_image, read_image, too_large

if TYPE_CHECKING:
    import av.container
    import av.packet
    import av.video.frame

VIDEO_EXTENSIONS = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts", ".wmv", ".flv"),
    *(".3gp", ".ogv", ".mjpeg", ".mxf"),
)
# What a source may make FFmpeg open, a playlist for instance: never a file of this machine because an address says so.
_PROTOCOLS = {
    "file": "crypto,data",
    "http": "http,https,httpproxy,tcp,tls,crypto,data",
    "rtsp": "rtsp,rtsps,rtp,srtp,udp,tcp,tls,http,https,crypto,data",
}
_SECONDS_TO_ANSWER = 20.0  # of an address or a camera
_EXPECTED = "expected a clip such as MP4, MOV, MKV, WebM, AVI or an animated GIF"


@dataclasses.dataclass(frozen=True)
class Frame:
    """One picture of a clip.

    Attributes:
      index: its number in the source, from 0, whatever was left out.
      time: when it is shown, in units of the clip's time base; later than that of the frame before.
      duration: how long, in the same units; 0: until the next.
      pixels: uint8 [h, w, 3], RGB, upright.
    """

    index: int
    time: int
    duration: int
    pixels: np.ndarray


@dataclasses.dataclass(frozen=True)
class ClipFacts:
    """What a source says of itself.

    Attributes:
      name: of the source, for messages.
      size: height and width of its frames in pixels, upright.
      time_base: the unit of its times, in seconds.
      rate: frames a second, on average.
      frames: about how many there are, or None: not known.
      aspect: width of a pixel by its height.
      live: whether it goes on until it is stopped.
      identity: what tells whether it is the same source as another time.
    """

    name: str
    size: tuple[int, int]
    time_base: fractions.Fraction
    rate: fractions.Fraction
    frames: int | None
    aspect: fractions.Fraction = fractions.Fraction(1)
    live: bool = False
    identity: tuple[str, ...] = ()


class Clip(Protocol):
    """A source of frames."""

    facts: ClipFacts
    notes: list[str]  # a line for each thing that the user should know; complete when the frames have been read

    def frames(self, every: int = 1, after: int = -1) -> Iterator[Frame]:
        """Yields every n-th frame, beginning behind the one of the number `after`. To be called once."""
        ...

    def close(self) -> None:
        """Closes the source."""
        ...


def require_av(name: str) -> Any:
    """Returns the module of PyAV. DeepLabError: it is not installed, which `name` needs."""
    try:
        import av
    except ImportError:
        raise DeepLabError(f"{name}: a clip needs PyAV: pip install 'deeplab_tf[video]'") from None
    import av.logging

    av.logging.set_level(None)  # what FFmpeg prints of damaged files; errors and notes say it
    return av


def _is_animated(item: str) -> bool:
    with contextlib.suppress(*PILLOW_ERRORS, DeepLabError):
        if path(item).is_file():
            with path(item).open("rb") as stream, opened_image(stream) as image:
                return getattr(image, "n_frames", 1) > 1
    return False


def is_clip(item: str, *, of_frames: bool = False) -> bool:
    """Returns whether an input is a clip: an address, a camera, a file by its extension, a GIF that moves.

    Args:
      item: as the user gives it, cleaned by `files.clean`.
      of_frames: whether a folder is one, of its pictures in the order of their names.
    """
    name = item.lower()
    if is_address(item) or name.endswith(VIDEO_EXTENSIONS):
        return True
    if name.endswith(".gif"):
        return _is_animated(item)
    return of_frames and item != "-" and path(item).is_dir()


def shown(source: str) -> str:
    """Returns a source for messages and files: of an address without the password, which may be a camera's."""
    return re.sub(r"(?<=://)[^/@]*@", "", source) if is_address(source) else source


def _words(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error)


def _turned(pixels: np.ndarray, rotation: int) -> np.ndarray:
    """Returns a picture turned counter-clockwise by degrees, of which multiples of 90 count."""
    turns = round(rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


class VideoClip:
    """The frames of anything that FFmpeg decodes: a `Clip`.

    Args:
      name: of the source, for messages.
      container: PyAV's, open for reading.
      max_pixels: larger frames are refused.
      live: whether it goes on until it is stopped.
      identity: as in `ClipFacts`.

    Raises:
      DeepLabError: it holds no video, or no frame of it can be decoded.
    """

    def __init__(
        self,
        name: str,
        container: "av.container.InputContainer",
        max_pixels: int,
        *,
        live: bool = False,
        identity: tuple[str, ...] = (),
    ):
        self._av, self._container, self.notes = require_av(name), container, []
        covers = self._av.stream.Disposition.attached_pic
        streams = [stream for stream in container.streams.video if not stream.disposition & covers]
        if not streams:
            raise DamagedError(f"{name}: holds no video, or is damaged or truncated; {_EXPECTED}")
        self._stream = stream = streams[0]
        stream.thread_type = "AUTO"
        self._name, self._faulty = name, 0
        self._decoder = self._decoded()
        first = next(self._decoder, None)
        if first is None:
            raise DamagedError(f"{name}: no frame of it can be decoded; damaged or truncated, {_EXPECTED}")
        self._waiting, self._rotation = [first], first.rotation
        self._coded = (first.height, first.width)
        size = (first.width, first.height) if round(first.rotation / 90) % 2 else self._coded
        if size[0] * size[1] > max_pixels:
            raise DeepLabError(f"{name}: {too_large(size[0] * size[1], max_pixels)}")
        rate = fractions.Fraction(stream.average_rate or stream.guessed_rate or 25)
        aspect = fractions.Fraction(stream.sample_aspect_ratio or 1) or fractions.Fraction(1)
        if size != self._coded:
            aspect = 1 / aspect
        base = fractions.Fraction(first.time_base or stream.time_base or 1 / rate)
        self.facts = ClipFacts(name, size, base, rate, self._expected(rate), aspect, live, identity)

    def _expected(self, rate: fractions.Fraction) -> int | None:
        if self._stream.frames:
            return self._stream.frames
        seconds = self._container.duration
        return max(1, round(seconds / 1_000_000 * rate)) if seconds and seconds > 0 else None

    def _decoded(self) -> Iterator["av.video.frame.VideoFrame"]:
        try:
            for packet in self._container.demux(self._stream):
                yield from self._frames_of(packet)
        except self._av.FFmpegError as error:
            self.notes.append(f"{self._name}: ends early ({_words(error)}); the frames before that are used")

    def _frames_of(self, packet: "av.packet.Packet[Any]") -> list[Any]:
        try:
            return list(packet.decode())
        except self._av.FFmpegError:
            self._faulty += 1
            return []

    def _pixels(self, frame: "av.video.frame.VideoFrame") -> np.ndarray:
        height, width = self._coded  # a stream may change its size on the way
        return _turned(frame.to_ndarray(format="rgb24", width=width, height=height), self._rotation)

    def frames(self, every: int = 1, after: int = -1) -> Iterator[Frame]:
        """Yields frames; see `Clip`. Those before are decoded too, so that the rest is the same as without a break."""
        step = max(1, round(1 / (self.facts.rate * self.facts.time_base)))
        index, last, mended = -1, None, 0
        for frame in itertools.chain(self._waiting, self._decoder):
            index += 1
            time = frame.pts if frame.pts is not None else (0 if last is None else last + step)
            if last is not None and time <= last:
                time, mended = last + 1, mended + 1
            last = time
            if index % every == 0 and index > after:
                yield Frame(index, time, int(frame.duration or 0) * every, self._pixels(frame))
        self._tell(index + 1, mended)

    def _tell(self, count: int, mended: int) -> None:
        if self._faulty:
            self.notes.append(f"{self._name}: damaged; {self._faulty} of its packets could not be decoded")
        if mended:
            self.notes.append(f"{self._name}: {mended} frames say that they are not later than the one before; moved")
        if self._stream.frames and count < self._stream.frames and not self.facts.live:
            missing = f"{count} of {self._stream.frames} frames could be read"
            self.notes.append(f"{self._name}: {missing}; the clip is damaged or truncated")

    def close(self) -> None:
        """Closes the source."""
        self._container.close()


class PictureFolder:
    """A folder of pictures as a clip, in the order of their names: a `Clip`.

    Args:
      folder: holds them.
      rate: frames a second.
      max_pixels: larger pictures are refused.

    Raises:
      DeepLabError: there are none, or the first cannot be read.
    """

    def __init__(self, folder: str, rate: float, max_pixels: int):
        found = sorted(entry for entry in path(folder).iterdir() if entry.name.lower().endswith(EXTENSIONS))
        self._files = [str(entry) for entry in found if entry.is_file()]
        self.notes: list[str] = []
        if not self._files:
            raise DeepLabError(f"{folder}: no images in this folder; expected the frames of a clip, {EXTENSIONS[0]}")
        self._max_pixels = max_pixels
        exact = fractions.Fraction(rate).limit_denominator(1001)
        states = [path(file).stat() for file in self._files]
        facts = [f"{file} {state.st_size} {state.st_mtime_ns}" for file, state in zip(self._files, states, strict=True)]
        digest = hashlib.sha256("\n".join(facts).encode("utf-8", "surrogateescape")).hexdigest()
        height, width = read_image(self._files[0], max_pixels=max_pixels).shape[:2]
        count = len(self._files)
        self.facts = ClipFacts(folder, (height, width), 1 / exact, exact, count, identity=(digest, str(exact)))

    def frames(self, every: int = 1, after: int = -1) -> Iterator[Frame]:
        """Yields frames; see `Clip`. A picture that cannot be read is left out, with a note."""
        for index in range((after // every + 1) * every, len(self._files), every):
            try:
                pixels = read_image(self._files[index], max_pixels=self._max_pixels)
            except DeepLabError as error:
                self.notes.append(f"{error}; left out")
                continue
            if pixels.shape[:2] != self.facts.size:
                sizes = [f"{width} x {height}" for height, width in (pixels.shape[:2], self.facts.size)]
                raise DeepLabError(f"{self._files[index]}: {sizes[0]}; expected {sizes[1]}, as the first of the clip")
            yield Frame(index, index, every, pixels)

    def close(self) -> None:
        """Does nothing."""


def _camera(av: Any, source: str) -> "av.container.InputContainer":
    number = source.partition(":")[2]
    if sys.platform == "darwin":
        return av.open(number, format="avfoundation", options={"framerate": "30"})
    return av.open(f"/dev/video{number}", format="v4l2", timeout=_SECONDS_TO_ANSWER)


def _identity(file: AnyPath) -> tuple[str, ...]:
    """Returns the size of a file and a hash of its beginning and its end."""
    digest, size = hashlib.sha256(), file.stat().st_size
    with file.open("rb") as stream:
        digest.update(stream.read(1 << 20))
        stream.seek(max(0, size - (1 << 20)))
        digest.update(stream.read())
    return str(size), digest.hexdigest()


@contextlib.contextmanager
def open_clip(source: str, *, fps: float | None = None, max_pixels: int = sys.maxsize) -> Iterator[Clip]:
    """Gives a clip to read.

    Args:
      source: a file, a folder of pictures, http(s)://, rtsp(s):// or camera:N.
      fps: frames a second of a folder of pictures.
      max_pixels: larger frames are refused.

    Raises:
      DeepLabError: it cannot be opened, or holds no frames; PyAV is not installed.
    """
    if fps is not None and not is_address(source) and path(source).is_dir():
        yield PictureFolder(source, fps, max_pixels)
        return
    av, scheme, name = require_av(shown(source)), source.partition(":")[0].lower(), shown(source)
    with contextlib.ExitStack() as stack:
        try:
            if scheme == "camera" and is_address(source):
                container, identity = _camera(av, source), ()
            elif is_address(source):
                options = {"protocol_whitelist": _PROTOCOLS["rtsp" if scheme.startswith("rtsp") else "http"]}
                container, identity = av.open(source, options=options, timeout=_SECONDS_TO_ANSWER), (name,)
            else:
                file, options = path(source), {"protocol_whitelist": _PROTOCOLS["file"]}
                if file.is_file() and not file.stat().st_size:
                    raise DamagedError(f"{source}: the file is empty (0 bytes); {_EXPECTED}")
                identity, stream = _identity(file), stack.enter_context(file.open("rb"))
                # By its stream, not its name: % and : in a name mean something to FFmpeg.
                container = av.open(stream, options=options, metadata_errors="replace")
        except av.FFmpegError as error:
            what = "cannot be opened" if is_address(source) else "damaged, truncated or not a clip"
            raise DamagedError(f"{name}: {what} ({_words(error)}); {_EXPECTED}") from None
        except OSError as error:
            raise DeepLabError(f"{source}: cannot be read ({_words(error)}); {_EXPECTED}") from None
        stack.callback(container.close)
        live = scheme in ("camera", "rtsp", "rtsps") and is_address(source)
        yield VideoClip(name, container, max_pixels, live=live, identity=identity)
