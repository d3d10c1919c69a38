"""Clips to videos with an overlay, masks and class maps: what each frame needs goes on side by side in threads.

One decodes and finds the motion ahead of the network; others stabilise, draw and encode behind it.

What is done is kept in pieces in a folder beside the outputs, so that a run that was killed goes on where it was.
"""

import collections
import dataclasses
import functools
import os
import pathlib
import re
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from deeplab_tf.config import PredictConfig
from deeplab_tf.errors import DeepLabError, OptionError
from deeplab_tf.files import AnyPath, is_address, path, writing
from deeplab_tf.inference.clip_pieces import Drawn, Outputs, Pieces
from deeplab_tf.inference.predictor import Predictor
from deeplab_tf.inference.stabilizing import Flicker, Motion, MotionFinder, Stabilizer, require_flow
from deeplab_tf.inference.tiles import (
    network_labels,
    network_probabilities,
    network_size,
    segment,
    segment_probabilities,
)
from deeplab_tf.inference.video import Clip, ClipFacts, Frame, open_clip
from deeplab_tf.inference.video_files import versions
from deeplab_tf.ops.images import png_bytes, resize_labels
from deeplab_tf.ops.pictures import ClassShare, blend, colour_mask, palette_png
from deeplab_tf.ops.resizing import resize_bilinear
from deeplab_tf.weights.model_directory import ModelCard

# Frames that are decoded before their turn and encoded after it: enough for the network never to wait, and bounded.
_READ_AHEAD, _WRITE_BEHIND, _DRAWERS = 3, 6, 2
CLIP_CHOICES = ("overlay", "mask", "raw", "npz")
# What does not change the outputs, so that a run may go on with another value.
_HOW = ("runtime", "max_image_pixels")


@dataclasses.dataclass(frozen=True)
class ClipResult:
    """What became of a clip.

    Attributes:
      name: of the source.
      size: height and width of its frames in pixels.
      frames: how many are in the outputs.
      earlier: how many of those an earlier run had done, which was ended.
      seconds: in the network and the CRF, for the others.
      files: the outputs.
      shares: of the classes found: (index, name, share of the pixels).
      notes: a line for each thing to know of the clip.
      stopped: whether the user stopped a source that has no end.
      flicker: of a clip that was stabilised.
    """

    name: str
    size: tuple[int, int]
    frames: int
    earlier: int
    seconds: float
    files: tuple[AnyPath, ...]
    shares: tuple[ClassShare, ...]
    notes: tuple[str, ...]
    stopped: bool
    flicker: Flicker | None


@dataclasses.dataclass(frozen=True)
class _Read:
    """A frame that is ready for the network: at the network's size, and with its motion where that is stabilised."""

    frame: Frame
    sized: np.ndarray
    motion: Motion | None


@dataclasses.dataclass(frozen=True)
class _Labels:
    """The classes of a frame [h, w], how they flicker, and what the next frame needs where that is stabilised."""

    labels: np.ndarray
    flicker: Flicker = Flicker()
    state: dict[str, np.ndarray] | None = None


@dataclasses.dataclass(frozen=True)
class ClipModel:
    """What segments clips.

    Attributes:
      predictor: runs the network.
      card: of the model, for classes and colours.
      identity: of the weights, any text: with other weights an unfinished run does not go on.
    """

    predictor: Predictor
    card: ModelCard
    identity: str


def clip_stems(sources: Sequence[str]) -> Iterator[str]:
    """Yields the beginning of the outputs' names for each clip; the second of a name gets -2."""
    counts: collections.Counter[str] = collections.Counter()
    for source in sources:
        parts = urllib.parse.urlsplit(source)
        name = parts.path.strip("/") or parts.hostname or "" if is_address(source) and parts.hostname else source
        stem = pathlib.PurePath(name).stem if name != parts.hostname else name
        stem = re.sub(r"[^\w.-]+", "_", stem).strip("_") or "clip" if is_address(source) else stem
        counts[stem] += 1
        yield stem if counts[stem] == 1 else f"{stem}-{counts[stem]}"


def require_clip_choices(model: ClipModel, options: PredictConfig) -> None:
    """Raises DeepLabError where clips cannot be segmented by a model, or not written as `options.save` says."""
    if options.stabilize is not None:
        require_flow()
    card = model.card
    card.require_classes("predict with")
    for choice in options.save:
        if choice not in CLIP_CHOICES:
            raise OptionError(f"--save={choice}: not for a clip; expected {', '.join(CLIP_CHOICES)}")
    if card.image is not None:
        raise OptionError(f"the model reads {card.image.describe()}; a clip has 8-bit RGB, choose another model")
    if card.config.num_classes > 256 and "raw" in options.save:
        raise OptionError(f"--save=raw: {card.config.num_classes} classes do not fit a PNG of 8 bits; leave it out")


class _Job:
    """One clip on its way through the threads."""

    def __init__(self, model: ClipModel, clip: Clip, pieces: Pieces, options: PredictConfig):
        self._model, self._clip, self._pieces, self._options = model, clip, pieces, options
        self._palette = model.card.shown_palette
        self._kind = np.uint8 if model.card.config.num_classes <= 256 else np.int32
        self._find = self._stabilizer = None
        if options.stabilize is not None:
            state = pieces.state
            self._find = MotionFinder(None if state is None else state["grey"])
            self._stabilizer = Stabilizer(options.stabilize, state)
        self.seconds = 0.0

    def _read(self, frames: Iterator[Frame]) -> _Read | None:
        frame = next(frames, None)
        if frame is None:
            return None
        sized = network_size(frame.pixels, self._options, self._model.predictor.fixed_size)
        return _Read(frame, sized, None if self._find is None else self._find(frame.pixels))

    def _by_network(self, read: _Read) -> np.ndarray:
        """Returns the classes of a frame [h, w], or what is to be stabilised, its probabilities [h, w, classes]."""
        predictor, pixels, options = self._model.predictor, read.frame.pixels, self._options
        start = time.perf_counter()
        if self._stabilizer is None:
            whole, without_crf = segment, network_labels
        else:
            whole, without_crf = segment_probabilities, network_probabilities
        # A CRF refines at the frame's own size.
        found = whole(predictor, pixels, options) if options.crf else without_crf(predictor, read.sized, options)
        self.seconds += time.perf_counter() - start
        return found

    def _labels(self, motion: Motion | None, found: np.ndarray) -> _Labels:
        if self._stabilizer is None or motion is None:
            return _Labels(found)
        size = motion.grey.shape
        probabilities = found if found.shape[:2] == size else np.asarray(resize_bilinear(found[None], size))[0]
        labels, flicker = self._stabilizer(motion, probabilities)
        return _Labels(labels, flicker, self._stabilizer.state)

    def _drawn(self, frame: Frame, found: "Future[_Labels]") -> Drawn:
        segmented = found.result()
        labels = resize_labels(segmented.labels.astype(self._kind), *frame.pixels.shape[:2])
        save = self._options.save
        counts = np.bincount(labels.ravel(), minlength=self._model.card.config.num_classes)
        return Drawn(
            overlay=blend(frame.pixels, labels, self._palette) if "overlay" in save else None,
            mask=png_bytes(colour_mask(labels, self._palette)) if "mask" in save else None,
            raw=palette_png(labels, self._palette) if "raw" in save else None,
            labels=labels if "npz" in save else None,
            counts=counts,
            flicker=segmented.flicker,
            state=segmented.state,
        )

    def _kept(self, frame: Frame, drawn: Future) -> None:
        self._pieces.add(frame, drawn.result())

    def run(self, told: Callable[[int], None]) -> None:
        """Segments the frames that are not done yet; `told` is called with the number of those that are."""
        frames = self._clip.frames(self._options.every, self._pieces.last_index)
        done = self._pieces.frames
        one, drawers = functools.partial(ThreadPoolExecutor, 1), ThreadPoolExecutor(_DRAWERS)
        with one() as reader, one() as stabilizer, drawers, one() as writer:
            ahead = collections.deque(reader.submit(self._read, frames) for _ in range(_READ_AHEAD))
            behind: collections.deque[Future] = collections.deque()
            labels: Future[_Labels] | None = None
            try:
                while (read := ahead.popleft().result()) is not None:
                    ahead.append(reader.submit(self._read, frames))
                    found = self._by_network(read)
                    if labels is not None:
                        labels.result()  # probabilities are large: those of one frame wait at most
                    labels = stabilizer.submit(self._labels, read.motion, found)
                    drawn = drawers.submit(self._drawn, read.frame, labels)
                    behind.append(writer.submit(self._kept, read.frame, drawn))
                    if len(behind) > _WRITE_BEHIND:
                        behind.popleft().result()
                    done += 1
                    told(done)
                while behind:
                    behind.popleft().result()
            finally:  # after an error, or when the user has stopped it, what is segmented is still kept
                reader.shutdown(cancel_futures=True)


def _settings(model: ClipModel, facts: ClipFacts, options: PredictConfig) -> dict[str, str]:
    """Returns what has to be the same for a run to go on, as text by name."""
    choices = {name: value for name, value in dataclasses.asdict(options).items() if name not in _HOW}
    return {
        **{f"--{name}": str(value) for name, value in choices.items()},
        "the clip": str(facts.identity),
        "the weights": model.identity,
        "the network": str(model.card.config.to_json()),
        "PyAV": str(versions()),
    }


def segment_clip(
    model: ClipModel,
    source: str,
    outputs: tuple[str | os.PathLike[str], str],
    options: PredictConfig,
    told: Callable[[ClipFacts, int], None] | None = None,
) -> ClipResult:
    """Segments a clip and writes its video, <stem>_overlay.mp4, and what else `options.save` says.

    The overlay has the times of the source's frames, stands upright and keeps the sound where MP4 holds it. A source
    without an end goes on until KeyboardInterrupt, and what there is by then is written.

    Args:
      model: what segments it.
      source: a file, an animated GIF, a folder of pictures (with `options.fps`), http(s)://, rtsp(s)://, camera:N.
      outputs: the folder, which is made, and the stem of the names in it.
      options: resize rule, scales, flips, CRF, `every`, and what to save: overlay, mask and raw (<stem>_mask/000000.png
        and <stem>_raw/000000.png, by the number of the frame) and npz (<stem>_masks.npz, see `write_labels`).
      told: called with the clip's facts and the number of frames that are done, after each.

    Raises:
      DeepLabError: the clip cannot be read, or the outputs cannot be written.
    """
    options = options.for_model(model.card.letterbox, model.card.training_side)
    require_clip_choices(model, options)
    with open_clip(source, fps=options.fps, max_pixels=options.max_image_pixels) as clip:
        facts, folder, stopped = clip.facts, path(outputs[0]), False
        with writing(folder, flag="--output_dir", cure="make room, or choose another folder"):
            places = Outputs(folder, outputs[1], options.save)
            pieces = Pieces(places, facts, _settings(model, facts, options))
            earlier, job = pieces.frames, _Job(model, clip, pieces, options)
            try:
                job.run(lambda done: told(facts, done) if told else None)
            except BaseException as error:
                if not (facts.live and isinstance(error, KeyboardInterrupt)):
                    pieces.abandon()
                    raise
                stopped = True
            pieces.finish()
            if not pieces.frames:
                raise DeepLabError(f"{facts.name}: no frame was read; expected at least one")
            notes = [*pieces.notes, *clip.notes, *pieces.publish()]
    names = model.card.shown_names
    counts = pieces.counts
    order = [int(i) for i in np.argsort(-counts, kind="stable") if counts[i]]
    shares = tuple((i, names[i], float(counts[i] / counts.sum())) for i in order)
    flicker = None if options.stabilize is None else pieces.flicker
    files = tuple(places.targets.values())
    return ClipResult(
        facts.name, facts.size, pieces.frames, earlier, job.seconds, files, shares, tuple(notes), stopped, flicker
    )
