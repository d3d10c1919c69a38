"""Clips out: pieces of H.264 video, put together without coding them again, with the sound of the source."""

import contextlib
import fractions
import heapq
import pathlib
import zipfile
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from deeplab_tf.errors import DamagedError, DeepLabError
from deeplab_tf.files import AnyPath, is_address, path
from deeplab_tf.inference.video import ClipFacts, Frame, require_av
from deeplab_tf.ops.photograph_arrays import NPY_ERRORS

if TYPE_CHECKING:
    import av.packet

_ENCODERS = ("libx264", "libopenh264")
# Without frames that refer to later ones each packet is a frame in its turn, and pieces join by moving their times.
_OPTIONS = {"crf": "18", "preset": "veryfast", "bf": "0"}
_BT709 = 1  # ITU-T H.273: its number for primaries, transfer and matrix
_STUDIO_RANGE = 1
_SOUND = {"aac", "mp3", "ac3", "eac3", "alac", "opus", "flac"}  # what players expect in MP4


def _encoder(av: Any) -> str:
    for name in _ENCODERS:
        if name in av.codecs_available:
            return name
    raise DeepLabError(f"PyAV {av.__version__} has no encoder of H.264 ({', '.join(_ENCODERS)}); pip install -U av")


def versions() -> tuple[str, ...]:
    """Returns what has to be the same for pieces of one video: PyAV and its encoder."""
    av = require_av("video")
    return av.__version__, str(av.library_versions.get("libavcodec")), _encoder(av)


def _even(picture: np.ndarray) -> np.ndarray:
    """Returns a picture with sides that H.264 can halve: the last row and column are repeated where that is needed."""
    height, width = picture.shape[:2]
    return (
        np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge") if height % 2 or width % 2 else picture
    )


class VideoWriter:
    """Writes a piece of a video: H.264 in MP4, with the times of its frames.

    Args:
      file: to write.
      facts: of the clip.
    """

    def __init__(self, file: AnyPath, facts: ClipFacts):
        self._av, self._facts, self._stack = require_av(facts.name), facts, contextlib.ExitStack()
        stream = self._stack.enter_context(file.open("wb"))
        self._container = self._av.open(stream, "w", format="mp4")
        self._stack.callback(self._container.close)
        self._stream = self._container.add_stream(_encoder(self._av), rate=facts.rate, options=_OPTIONS)
        height, width = facts.size
        self._stream.height, self._stream.width = height + height % 2, width + width % 2
        self._stream.pix_fmt = "yuv420p"
        context = self._stream.codec_context
        context.time_base = facts.time_base
        context.sample_aspect_ratio = facts.aspect
        context.color_primaries = context.color_trc = context.colorspace = _BT709
        context.color_range = _STUDIO_RANGE
        self.start: int | None = None  # the time of the first frame, which is 0 in the piece

    def write(self, frame: Frame, picture: np.ndarray) -> None:
        """Appends a picture, uint8 [h, w, 3] of the clip's size, at the time of the frame that it is of."""
        self.start = frame.time if self.start is None else self.start
        shown = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(_even(picture)), format="rgb24")
        shown = shown.reformat(format="yuv420p", dst_colorspace="ITU709")
        shown.pts, shown.time_base = frame.time - self.start, self._facts.time_base
        if frame.duration:
            shown.duration = frame.duration
        self._container.mux(self._stream.encode(shown))

    def close(self) -> None:
        """Writes what is left. To be called once, also after an error."""
        with self._stack:
            if self.start is not None:
                self._container.mux(self._stream.encode(None))


def _moved(packet: Any, start: int, base: fractions.Fraction) -> Any:
    """Returns a packet of a piece with its times in the clip's units, counted as the clip counts."""
    unit = packet.time_base / base
    packet.pts = packet.dts = start + round(packet.pts * unit)
    packet.duration = round((packet.duration or 0) * unit)
    packet.time_base = base
    return packet


def _pictures(av: Any, pieces: Iterable[tuple[AnyPath, int, int]], stream: Any, base: fractions.Fraction) -> Iterator:
    for file, start, count in pieces:
        found = 0
        with file.open("rb") as content, av.open(content) as piece:
            for packet in piece.demux(video=0):
                if packet.dts is not None:
                    found += 1
                    moved = _moved(packet, start, base)
                    moved.stream = stream
                    yield moved
        if found != count:
            raise DamagedError(f"{file}: {found} of its {count} frames; remove {file.parent.parent} and begin anew")


def _time(packet: "av.packet.Packet") -> float:
    assert packet.dts is not None and packet.time_base is not None
    return float(packet.dts * packet.time_base)


def _sound(source: Any, stream: Any) -> Iterator:
    for packet in source.demux(audio=0):
        if packet.dts is not None and packet.pts is not None:
            packet.stream = stream
            yield packet


@contextlib.contextmanager
def _with_sound(av: Any, source: str) -> Iterator[Any]:
    """Gives the source, opened once more, if it is a file with sound; else None."""
    if is_address(source) or not path(source).is_file():
        yield None
        return
    with path(source).open("rb") as content, av.open(content, metadata_errors="replace") as container:
        yield container if container.streams.audio else None


def join(pieces: Iterable[tuple[AnyPath, int, int]], target: pathlib.Path, facts: ClipFacts) -> list[str]:
    """Writes the pieces as one video, and the sound of a source that is a file beside them; returns notes.

    Nothing is decoded: a video of any length needs the memory of a few packets.

    Args:
      pieces: the file of each, from `VideoWriter`, its start and the number of its frames.
      target: of this machine.
      facts: of the clip.

    Raises:
      DamagedError: a piece is not whole.
    """
    av, notes, pieces = require_av(facts.name), [], list(pieces)
    with contextlib.ExitStack() as stack:
        output = stack.enter_context(av.open(stack.enter_context(target.open("wb")), "w", format="mp4"))
        first = stack.enter_context(av.open(stack.enter_context(pieces[0][0].open("rb"))))
        video = output.add_stream_from_template(first.streams.video[0])
        video.time_base = facts.time_base
        packets = [_pictures(av, pieces, video, facts.time_base)]
        source = stack.enter_context(_with_sound(av, facts.name))
        if source is not None:
            codec = source.streams.audio[0].codec_context.name
            if codec in _SOUND:
                packets.append(_sound(source, output.add_stream_from_template(source.streams.audio[0])))
            else:
                notes.append(f"{facts.name}: its sound ({codec}) is left out; MP4 holds {', '.join(sorted(_SOUND))}")
        try:
            for packet in heapq.merge(*packets, key=_time):
                output.mux(packet)
        except av.FFmpegError as error:
            raise DeepLabError(f"{facts.name}: its video cannot be written ({error})") from None
    return notes


# What NumPy and the archive raise of a damaged file.
_ARRAY_ERRORS = (*NPY_ERRORS, RuntimeError, zipfile.BadZipFile)


def stored_arrays(file: AnyPath, *names: str) -> dict[str, np.ndarray]:
    """Returns arrays of an .npz by their names. DamagedError: it lacks one of them, or is damaged."""
    try:
        with file.open("rb") as stream, contextlib.closing(np.lib.npyio.NpzFile(stream, allow_pickle=False)) as stored:
            return {name: np.asarray(stored[name]) for name in names}  # bytes, where an entry is not an array
    except _ARRAY_ERRORS as error:
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise DamagedError(f"{file}: damaged ({reason}); remove {file.parent} and begin anew") from None


def write_labels(
    parts: Iterable[AnyPath], target: pathlib.Path, times: np.ndarray, indices: np.ndarray, shape: tuple[int, ...]
) -> None:
    """Writes the class maps of a clip as one compressed .npz, part by part, for np.load.

    It holds `labels`, integers [frames, h, w], `times`, float64 [frames] in seconds, and `indices`, int64 [frames].

    Args:
      parts: files of np.save, [n, h, w] each.
      target: of this machine.
      times: of the frames, in seconds.
      indices: of the frames in the source.
      shape: of `labels`.
    """
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, allowZip64=True) as archive:
        for name, array in (("times", times), ("indices", indices)):
            with archive.open(f"{name}.npy", "w") as entry:
                np.save(entry, array)
        with archive.open("labels.npy", "w", force_zip64=True) as entry:
            for number, part in enumerate(parts):
                labels = stored_arrays(part, "labels")["labels"]
                if not number:
                    header = {"descr": labels.dtype.str, "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_1_0(entry, header)
                entry.write(labels.tobytes())
