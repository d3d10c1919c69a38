"""Frames of one video in several splits, told by their names: frame_000123 in train, frame_000124 in val."""

import collections
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from deeplab_tf.doctor.likeness import alike

_NUMBERED = re.compile(r"(.*?)(\d{1,15})(\D*)")
_VIDEO = re.compile(r"frame|video|clip|(?:^|[^a-z])(?:vid|seq|mov)", re.IGNORECASE)
_ALIKE = 0.9  # neighbours whose names do not speak of a video are one if they look the same
_LEAST = 2  # of such neighbours


class Numbered(NamedTuple):
    """An image whose name ends with a number."""

    number: int
    split: str
    name: str
    thumbnail: np.ndarray  # as `likeness.thumbnail` makes it


def frames_apart(
    names: Mapping[str, Sequence[str]], thumbnails: Mapping[str, Sequence[np.ndarray]]
) -> Iterator[tuple[Numbered, Numbered]]:
    """Yields neighbours in a row of numbered images that lie in different splits.

    Neighbours are no farther apart than is usual in their row. A row is a video if its name says so, or if neighbours
    look the same.

    Args:
      names: split -> the names of its images, without folder of images and extension.
      thumbnails: split -> the thumbnails of the same images.
    """
    rows: dict[tuple[str, str], list[Numbered]] = collections.defaultdict(list)
    for split, of_split in names.items():
        for name, picture in zip(of_split, thumbnails[split], strict=True):
            if match := _NUMBERED.fullmatch(name):
                rows[match[1], match[3]].append(Numbered(int(match[2]), split, name, picture))
    for (start, _), row in rows.items():
        apart = _apart(row)
        if not _VIDEO.search(start):
            apart = [pair for pair in apart if _look_alike(*pair)]
            apart = apart if len(apart) >= _LEAST else []
        yield from apart


def _apart(row: list[Numbered]) -> list[tuple[Numbered, Numbered]]:
    if len({one.split for one in row}) < 2:
        return []
    row = sorted(row, key=lambda one: one.number)
    gaps = np.array([two.number - one.number for one, two in zip(row, row[1:], strict=False)])
    usual = float(np.median(gaps[gaps > 0])) if (gaps > 0).any() else 0.0
    pairs = zip(row, row[1:], gaps.tolist(), strict=False)
    return [(one, two) for one, two, gap in pairs if 0 < gap <= usual and one.split != two.split]


def _look_alike(one: Numbered, two: Numbered) -> bool:
    return any(alike(one.thumbnail[None], two.thumbnail[None], least=_ALIKE))
