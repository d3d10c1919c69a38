"""The outputs of a clip in pieces: each piece is whole or not there, and together they become the outputs."""

import contextlib
import dataclasses
import json
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, TypeVar, cast

import numpy as np

from deeplab_tf.documents.json_files import JSONError, read_json
from deeplab_tf.errors import DamagedError, DeepLabError
from deeplab_tf.files import AnyPath, copy, growing, move, remove, written
from deeplab_tf.inference.stabilizing import Flicker
from deeplab_tf.inference.video import ClipFacts, Frame
from deeplab_tf.inference.video_files import VideoWriter, join, stored_arrays, write_labels

FRAMES_IN_A_PIECE = 50  # that a killed run does again at most
_STATE = "state.npz"
_STATE_KINDS = {"grey": "u", "own": "i", "labels": "i", "probabilities": "f"}  # NumPy's kinds of dtypes
_FOLDER = ".unfinished-"  # begins the name of the folder of the pieces
_ENDINGS = {"raw": "_raw", "mask": "_mask", "npz": "_masks.npz", "overlay": "_overlay.mp4"}
_PICTURES = ("raw", "mask")
_Kind = TypeVar("_Kind")
_PICTURE = re.compile(r"\d+\.png")


@dataclasses.dataclass(frozen=True)
class Drawn:
    """What is to be kept of one frame.

    Attributes:
      overlay: uint8 [h, w, 3].
      mask: a PNG in the colours of the classes.
      raw: a PNG of class indices.
      labels: uint8 or int32 [h, w].
      counts: pixels of each class.
      flicker: from the frame before.
      state: of a `Stabilizer`, for the next frame; kept where the frame is the last of a piece.
    """

    overlay: np.ndarray | None
    mask: bytes | None
    raw: bytes | None
    labels: np.ndarray | None
    counts: np.ndarray
    flicker: Flicker
    state: Mapping[str, np.ndarray] | None


@dataclasses.dataclass(frozen=True)
class _Piece:
    """What is kept of a piece beside its files: number and time by frame, pixels of each class and flicker of all."""

    indices: tuple[int, ...]
    times: tuple[int, ...]
    counts: tuple[int, ...]
    flicker: Flicker

    def __post_init__(self) -> None:
        if not self.indices or len(self.indices) != len(self.times):
            raise ValueError("expected as many times as numbers of frames")


class _AbandonedError(Exception):
    """A piece is not to be kept."""


class Outputs:
    """Where the outputs of a clip go.

    Args:
      folder: gets them.
      stem: begins their names.
      choices: what is to be written: overlay, mask, raw, npz.

    Raises:
      DeepLabError: a folder of pictures is there and holds something else.
    """

    def __init__(self, folder: AnyPath, stem: str, choices: Collection[str]):
        # The video last: where it is, everything is.
        self.targets = {choice: folder / f"{stem}{end}" for choice, end in _ENDINGS.items() if choice in choices}
        self.work = folder / f"{_FOLDER}{stem}"
        for choice in set(_PICTURES) & set(self.targets):
            target = self.targets[choice]
            others = (
                [entry.name for entry in target.iterdir() if not _PICTURE.fullmatch(entry.name)]
                if (target.is_dir())
                else []
            )
            if others:
                raise DeepLabError(f"{target}: would be replaced, and holds {others[0]}; choose another --output_dir")


class Pieces:
    """The pieces of a clip that are done, and the one that is being written.

    Args:
      outputs: where the outputs go; the pieces go to a folder beside them.
      facts: of the clip.
      settings: by name what has to be the same for the pieces of an earlier run to be used.
    """

    def __init__(self, outputs: Outputs, facts: ClipFacts, settings: Mapping[str, str]):
        self._outputs, self._facts, self.notes = outputs, facts, []
        self._choices, self._work = tuple(outputs.targets), outputs.work
        self._done: list[_Piece] = []
        self._open: contextlib.ExitStack | None = None
        self._entries: list[tuple[Frame, Drawn]] = []
        self._begin(dict(settings))

    def _begin(self, settings: dict[str, str]) -> None:
        state = self._work / "settings.json"
        before = _read(state, dict[str, str])
        if before is not None and before != settings:
            changed = [name for name in settings if before.get(name) != settings[name]]
            self.notes.append(f"{self._work}: of a run with another {', '.join(changed) or 'setting'}; begun anew")
        if before == settings and not self._facts.live:
            while (record := _read(self._piece(len(self._done)) / "piece.json", _Piece)) is not None:
                self._done.append(record)
        else:
            remove(self._work)
            with written(state, durable=False) as file:
                file.write_text(json.dumps(settings, indent=1), encoding="utf-8")

    def _piece(self, number: int) -> AnyPath:
        return self._work / f"{number:06d}"

    @property
    def frames(self) -> int:
        """How many frames the pieces hold that are done."""
        return sum(len(piece.indices) for piece in self._done)

    @property
    def last_index(self) -> int:
        """The number in the source of the last frame that is done, or -1."""
        return self._done[-1].indices[-1] if self._done else -1

    @property
    def counts(self) -> np.ndarray:
        """Pixels of each class in all pieces."""
        return np.array([piece.counts for piece in self._done], np.int64).sum(axis=0)

    def add(self, frame: Frame, drawn: Drawn) -> None:
        """Appends a frame; the piece is closed when it has as many as one holds."""
        if self._open is None:
            with contextlib.ExitStack() as stack:
                self._place = stack.enter_context(growing(self._piece(len(self._done)), durable=False, local=True))
                for choice in set(_PICTURES) & set(self._choices):
                    (self._place / choice).mkdir()
                self._video = (
                    VideoWriter(self._place / "overlay.mp4", self._facts) if drawn.overlay is not None else None
                )
                self._open = stack.pop_all()
        if self._video is not None and drawn.overlay is not None:
            self._video.write(frame, drawn.overlay)
        for choice, content in (("mask", drawn.mask), ("raw", drawn.raw)):
            if content is not None:
                (self._place / choice / f"{frame.index:06d}.png").write_bytes(content)
        kept = dataclasses.replace(frame, pixels=frame.pixels[:0])
        self._entries.append((kept, dataclasses.replace(drawn, overlay=None, mask=None, raw=None)))
        if len(self._entries) > 1:
            earlier, before = self._entries[-2]
            self._entries[-2] = earlier, dataclasses.replace(before, state=None)
        if len(self._entries) == FRAMES_IN_A_PIECE:
            self.finish()

    def finish(self) -> None:
        """Closes the piece that is being written, if there is one, and gives it its name."""
        if self._open is None:
            return
        entries, self._entries = self._entries, []
        with self._open:
            self._open = None
            if self._video is not None:
                self._video.close()
            labels = [drawn.labels for _, drawn in entries if drawn.labels is not None]
            if labels:
                with (self._place / "labels.npz").open("wb") as file:
                    np.savez_compressed(file, labels=np.stack(labels))
            record = _Piece(
                tuple(frame.index for frame, _ in entries),
                tuple(frame.time for frame, _ in entries),
                tuple(np.sum([drawn.counts for _, drawn in entries], axis=0).tolist()),
                sum((drawn.flicker for _, drawn in entries), start=Flicker()),
            )
            if entries[-1][1].state is not None:
                with (self._place / _STATE).open("wb") as file:
                    np.savez(file, **cast(Any, entries[-1][1].state))
            (self._place / "piece.json").write_text(json.dumps(dataclasses.asdict(record)), encoding="utf-8")
        if self._done:
            remove(self._piece(len(self._done) - 1) / _STATE)
        self._done.append(record)

    @property
    def state(self) -> dict[str, np.ndarray] | None:
        """The state of the `Stabilizer` behind the last frame that is done, or None."""
        file = self._piece(len(self._done) - 1) / _STATE
        return read_state(file, self._facts.size) if self._done and file.is_file() else None

    @property
    def flicker(self) -> Flicker:
        """That of all pieces."""
        return sum((piece.flicker for piece in self._done), start=Flicker())

    def abandon(self) -> None:
        """Removes the piece that is being written; those that are done stay, for the next run."""
        if self._open is not None:
            with contextlib.suppress(Exception):
                if self._video is not None:
                    self._video.close()
            self._entries, stack, self._open = [], self._open, None
            stop = _AbandonedError()
            with contextlib.suppress(_AbandonedError):
                stack.__exit__(type(stop), stop, None)
        if not self._done:
            remove(self._work)

    def _files(self, name: str) -> Iterator[AnyPath]:
        for number in range(len(self._done)):
            yield self._piece(number) / name

    def _publish_pictures(self, choice: str, target: AnyPath) -> None:
        ready = self._work / f"all-{choice}"
        remove(ready)
        with growing(ready, durable=False) as folder:
            for part in self._files(choice):
                copy(part, folder)
        remove(target)
        move(ready, target)

    def _publish_labels(self, target: AnyPath) -> None:
        times = np.array([time for piece in self._done for time in piece.times], np.float64)
        indices = np.array([index for piece in self._done for index in piece.indices], np.int64)
        shape = (len(indices), *self._facts.size)
        with written(target, flag="--output_dir", durable=False) as file:
            write_labels(self._files("labels.npz"), file, times * float(self._facts.time_base), indices, shape)

    def publish(self) -> list[str]:
        """Makes the outputs of the pieces, each in one step, and removes the pieces; returns notes.

        Raises:
          DeepLabError: they cannot be written, or a piece has been damaged.
        """
        notes: list[str] = []
        for choice, target in self._outputs.targets.items():
            if choice in _PICTURES:
                self._publish_pictures(choice, target)
            elif choice == "npz":
                self._publish_labels(target)
            else:
                starts = [(piece.times[0], len(piece.times)) for piece in self._done]
                parts = [(file, *start) for file, start in zip(self._files("overlay.mp4"), starts, strict=True)]
                with written(target, flag="--output_dir", durable=False) as file:
                    notes += join(parts, file, self._facts)
        remove(self._work)
        return notes


def read_state(file: AnyPath, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """Returns the state of a `Stabilizer` behind a frame of this height and width. DamagedError: it is not that."""
    state = stored_arrays(file, *_STATE_KINDS)
    if any((state[name].dtype.kind, state[name].shape[:2]) != (kind, size) for name, kind in _STATE_KINDS.items()) or [
        state[name].ndim for name in _STATE_KINDS
    ] != [2, 2, 2, 3]:
        raise DamagedError(f"{file}: damaged (not of {size[0]} x {size[1]}); remove {file.parent} and begin anew")
    return state


def _read(file: AnyPath, kind: type[_Kind]) -> _Kind | None:
    """Returns what a file of JSON holds, or None where there is none."""
    if not file.is_file():
        return None
    try:
        return read_json(file, kind)
    except JSONError as error:
        raise DamagedError(f"{file}: damaged ({error}); remove {file.parent} and begin anew") from None
