"""CVAT's XML 1.1 "for video": tracks, whose shapes are listed frame by frame (docs.cvat.ai, xml_format).

A frame's picture is the one that CVAT saves with such an export, frame_000012.png. Between two frames that a track
lists it has a shape that the file does not tell: nothing is drawn by guessing.
"""

import bisect
import collections
import dataclasses
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from deeplab_tf.data.annotations.cvat import DRAWN, WITHOUT_AREA, label_names, rooted, shape_of
from deeplab_tf.data.annotations.drawn import AnnotatedPicture, Annotations, Shape, all_of
from deeplab_tf.data.annotations.reading import picture_size, shown
from deeplab_tf.data.file_tree import files_below
from deeplab_tf.data.pairs import IMAGE_EXTENSIONS
from deeplab_tf.errors import DeepLabError

_FRAME = re.compile(r"frame_(\d{1,9})")
_CURE = "export with every frame ('CVAT for video 1.1' lists them), or as 'CVAT for images 1.1'"


@dataclasses.dataclass
class _Track:
    """One object: frame -> its shape, or None where it is not in the picture."""

    where: str
    shapes: dict[int, Shape | None] = dataclasses.field(default_factory=dict)

    def listed(self) -> list[int]:
        return sorted(self.shapes)


@dataclasses.dataclass
class _Video:
    """What a file says."""

    tracks: list[_Track] = dataclasses.field(default_factory=list)
    size: tuple[int, int] | None = None


def open_cvat_video(places: Sequence[str]) -> Annotations:
    """Returns the annotations of CVAT's files of videos.

    Every picture frame_<number> beside the file is one of its frames. Classes are those that CVAT lists.
    """

    def class_names() -> tuple[str, ...]:
        return label_names(places)

    def pictures() -> Iterator[AnnotatedPicture | DeepLabError]:
        for file in places:
            yield from all_of(_pictures, file)

    return Annotations("cvat_video", "as_listed", class_names, pictures)


def _pictures(file: str) -> Iterator[AnnotatedPicture | DeepLabError]:
    video = _read(file)
    frames = _frames(file)
    if not frames:
        here = os.path.dirname(file)
        raise DeepLabError(
            f"{file}: no pictures frame_000000.png... in {here} or {here}/images, as CVAT names the frames of a video; "
            "export with 'save images'"
        )
    orders = [track.listed() for track in video.tracks]
    for frame, picture in frames.items():
        where = f"{file}: frame {frame}"
        shapes: list[Shape] = []
        between: _Track | None = None
        for track, listed in zip(video.tracks, orders, strict=True):
            shape = track.shapes.get(frame)
            if shape is not None:
                shapes.append(shape)
            elif frame not in track.shapes and _goes_on(track, listed, frame):
                between = between or track
        if between is not None:
            yield DeepLabError(f"{where}: {between.where} lists frames before it, not this one; {_CURE}")
            continue
        folder, name = os.path.split(picture)
        yield AnnotatedPicture(name, (folder,), file, where, tuple(shapes), video.size)


def _goes_on(track: _Track, listed: Sequence[int], frame: int) -> bool:
    """Returns whether a track is in the picture at a frame that it does not list: since the frame listed before."""
    position = bisect.bisect_left(listed, frame)
    return position > 0 and track.shapes[listed[position - 1]] is not None


def _frames(file: str) -> Mapping[int, str]:
    """Returns frame -> its picture, in the folder of the file and below it."""
    here = os.path.dirname(file)
    found: dict[int, list[str]] = collections.defaultdict(list)
    for path in files_below(here):
        stem, ending = os.path.splitext(os.path.basename(path))
        match = _FRAME.fullmatch(stem.lower())
        if match and ending.lower() in IMAGE_EXTENSIONS:
            found[int(match[1])].append(os.path.join(here, path))
    for frame, pictures in found.items():
        if len(pictures) > 1:
            listed = ", ".join(pictures[:3])
            raise DeepLabError(
                f"{file}: {len(pictures)} pictures of frame {frame} ({listed}); put each video in a folder"
            )
    return {frame: found[frame][0] for frame in sorted(found)}


def _read(file: str) -> _Video:
    video = _Video()
    for root, event, element in rooted(file):
        if event == "start":
            if element.tag == "image":
                raise DeepLabError(
                    f"{file}: pictures among the tracks of a video; --annotation_format=cvat reads pictures"
                )
        elif element.tag == "original_size":
            where = f"{file}: original_size"
            height = _whole(element.findtext("height"), where)
            video.size = picture_size(height, _whole(element.findtext("width"), where), where)
        elif element.tag == "track":
            video.tracks.append(_track(file, element))
            root.clear()
    return video


def _track(file: str, element: Any) -> _Track:
    label = (element.get("label") or "").strip()
    where = f"track {shown(element.get('id'))} ({label or 'no label'})"
    track = _Track(where)
    if not label:
        raise DeepLabError(f"{file}: {where}: no label")
    for child in element:
        if child.tag not in DRAWN and child.tag not in WITHOUT_AREA:
            continue
        frame = _whole(child.get("frame"), f"{file}: {where}: frame")
        place = f"{file}: {where}: frame {frame}"
        if frame in track.shapes:
            raise DeepLabError(f"{place}: two shapes; expected one a frame")
        outside = child.get("outside", "0")
        if outside not in ("0", "1"):
            raise DeepLabError(f"{place}: outside={shown(outside)}; expected 0 or 1")
        track.shapes[frame] = None if outside == "1" else shape_of(child, place, label)
    return track


def _whole(text: str | None, where: str) -> int:
    if text is None or not (text.isascii() and text.isdigit() and len(text) < 10):
        raise DeepLabError(f"{where}: {shown(text)}; expected a whole number")
    return int(text)
