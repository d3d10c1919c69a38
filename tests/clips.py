"""Small clips that tests make, and a network's stand-in that tells the class of a pixel by its colour."""

import fractions
import pathlib
from collections.abc import Sequence

import numpy as np

from deeplab_tf.config import ModelConfig
from deeplab_tf.inference.clips import ClipModel
from deeplab_tf.inference.predictor import Predictor
from deeplab_tf.weights.model_directory import ModelCard

SIZE = (48, 64)
CLASSES = 3
COLOURS = ((20, 20, 20), (220, 40, 40), (40, 40, 220))
MILLISECONDS = fractions.Fraction(1, 1000)


def scene(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Returns the classes of frame `number`, uint8 [h, w]: a square that moves 2 pixels a frame, a bar that stands."""
    labels = np.zeros(size, np.uint8)
    labels[16:32, 2 * number : 2 * number + 16] = 1
    labels[40:] = 2
    return labels


def picture(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Returns frame `number`, uint8 [h, w, 3]."""
    return np.array(COLOURS, np.uint8)[scene(number, size)]


def write_clip(file: pathlib.Path, times: Sequence[int], *, sound: str | None = None, size=SIZE, aspect=1) -> None:
    """Writes a clip of `scene` with frames at these times in milliseconds, and with half a second of silence."""
    import av

    with av.open(str(file), "w") as container:
        video = container.add_stream("libx264", rate=25, options={"crf": "5"})
        video.height, video.width = size
        video.pix_fmt, video.codec_context.time_base = "yuv420p", MILLISECONDS
        video.codec_context.sample_aspect_ratio = fractions.Fraction(aspect)
        audio = container.add_stream(sound, rate=16000, layout="mono") if sound else None
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(picture(number, size), format="rgb24")
            frame.pts, frame.time_base = time, MILLISECONDS
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        for number in range(8 if audio else 0):
            kind = audio.codec_context.format.name
            silence = np.zeros((1, 1024), np.float32 if kind == "fltp" else np.int16)
            frame = av.AudioFrame.from_ndarray(silence, format=kind, layout="mono")
            frame.sample_rate, frame.pts = 16000, number * 1024
            frame.time_base = fractions.Fraction(1, 16000)
            container.mux(audio.encode(frame))
        if audio:
            container.mux(audio.encode(None))


def turned(content: bytes) -> bytes:
    """Returns an MP4 whose header says that it is to be shown a quarter turn clockwise, as telephones write it."""
    at = content.index(b"tkhd") + 44  # ISO 14496-12, 8.3.2: the matrix of a track header of version 0
    matrix = (0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    return content[:at] + b"".join(value.to_bytes(4, "big", signed=True) for value in matrix) + content[at + 36 :]


class ByColour(Predictor):
    """A `Predictor` without a network: the class of a pixel is that of the nearest of COLOURS.

    Args:
      stop: a frame at whose turn it raises this.
      noise: draws what it sees besides, anew in each frame.
    """

    def __init__(self, stop: tuple[int, BaseException] | None = None, noise: np.random.Generator | None = None):
        super().__init__(ModelConfig(model_variant="mobilenet_v2", num_classes=CLASSES), backend=None)
        self.frames, self._stop, self.noise = 0, stop, noise

    def probabilities(self, images, inference=None) -> np.ndarray:
        images = images + (self.noise.normal(0, 45, images.shape) if self.noise else 0)
        distances = np.linalg.norm(
            np.asarray(images)[..., None, :].astype(np.float32) - np.array(COLOURS, np.float32), axis=-1
        )
        scores = np.exp(-distances / 40)
        return scores / scores.sum(-1, keepdims=True)

    def labels(self, images, inference=None) -> np.ndarray:
        if self._stop is not None and self.frames == self._stop[0]:
            raise self._stop[1]
        self.frames += 1
        return self.probabilities(images).argmax(-1).astype(np.int32)


def by_colour(stop: tuple[int, BaseException] | None = None) -> ClipModel:
    """Returns `ByColour` with a card, for `segment_clip`."""
    predictor = ByColour(stop)
    card = ModelCard(
        predictor.config, class_names=("ground", "box", "bar"), palette=((0, 0, 0), (255, 0, 0), (0, 0, 255))
    )
    return ClipModel(predictor, card, "1")
