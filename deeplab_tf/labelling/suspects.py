"""Suspects: labelled regions that a model contradicts with confidence, and the file that carries them to the page.

Confident learning (Northcutt, Jiang and Chuang, 2021, Confident Learning: Estimating Uncertainty in Dataset Labels,
section 3.1) for pixels: a class's threshold is the mean probability that the model gives it where it is labelled, so a
class that the model is never sure of needs less. A pixel labelled i counts as j where j is the model's class, is not
i, and has at least the threshold of j. Such pixels that hang together are a region. Those that are thin everywhere are
left out: along every border model and labels differ by some pixels, and that says nothing.
"""

import dataclasses
import os
from collections.abc import Iterator

import numpy as np
from scipy import ndimage

from deeplab_tf import files
from deeplab_tf.documents.json_files import JSONError, read_json
from deeplab_tf.errors import DeepLabError
from deeplab_tf.labelling.pictures import Place, as_box

_LEAST_RADIUS = 0.012  # of a region's widest part, as a share of the picture's longer side
_LEAST_PIXELS = 3.0  # the same at least, in pixels


@dataclasses.dataclass(frozen=True)
class Suspect:
    """A region whose label the model contradicts.

    Attributes:
      picture: the name of the picture.
      box: as `Place.box`.
      pixels: of the region, in the label.
      labelled, predicted: classes.
      margin: by how much the probability of the predicted class is above that of the labelled one, mean, 0..1.
      score: margin times the square root of the region's share of the picture: by it the list is sorted.
    """

    picture: str
    box: tuple[float, float, float, float]
    pixels: int
    labelled: int
    predicted: int
    margin: float
    score: float


@dataclasses.dataclass(frozen=True)
class SuspectPicture:
    """A picture of a suspect: its name, its file, and that of its label; files of copies are relative to the list."""

    name: str
    file: str
    label: str


@dataclasses.dataclass(frozen=True)
class SuspectList:
    """What doctor --suspects writes and label --suspects reads.

    Attributes:
      class_names, palette, ignore_label: of the data set.
      pictures: those with suspects; of records, copies in files.
      suspects: the worst first.
      notes: what the user should know of them.
    """

    class_names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    ignore_label: int
    pictures: tuple[SuspectPicture, ...]
    suspects: tuple[Suspect, ...]
    notes: tuple[str, ...] = ()

    def places(self, picture: str) -> tuple[Place, ...]:
        """Returns the places of a picture's suspects, the worst first."""
        return tuple(
            Place(found.box, found.margin, found.labelled, found.predicted)
            for found in self.suspects
            if found.picture == picture
        )


def read_suspects(path: str | os.PathLike[str]) -> SuspectList:
    """Reads the file that doctor --suspects has written; DeepLabError where it is not one."""
    try:
        found = read_json(files.path(path), SuspectList)
    except (OSError, JSONError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DeepLabError(f"--suspects={path}: not a file of doctor --suspects ({reason})") from None

    def place(file: str) -> str:
        return file if files.is_remote(file) else os.path.join(os.path.dirname(path), file)

    pictures = (SuspectPicture(one.name, place(one.file), place(one.label)) for one in found.pictures)
    return dataclasses.replace(found, pictures=tuple(pictures))


@dataclasses.dataclass(frozen=True)
class _Region:
    """Where model and label differ, before the thresholds are known; the arrays are those of its box."""

    picture: str
    size: tuple[int, int]
    where: tuple[slice, slice]
    labelled: int
    predicted: int
    own: np.ndarray  # bool
    sure: np.ndarray  # float16: probability of the predicted class
    margin: np.ndarray  # float16: that minus the probability of the labelled one


class ConfidentLearning:
    """Collects pictures with labels and probabilities, and finds the suspects among their regions.

    Args:
      classes: their number.
      ignore_label: the label that says nothing.
    """

    def __init__(self, classes: int, ignore_label: int) -> None:
        self._classes, self._ignore = classes, ignore_label
        self._sums = np.zeros(classes)  # of the probability of each class where it is labelled
        self._counts = np.zeros(classes, np.int64)
        self._regions: list[_Region] = []

    def add(self, picture: str, label: np.ndarray, probabilities: np.ndarray) -> None:
        """Adds a picture.

        Args:
          picture: its name.
          label: integers [h, w].
          probabilities: float32 [h, w, classes].
        """
        counted = (label != self._ignore) & (label < self._classes)
        given = np.where(counted, label, 0)
        own = np.take_along_axis(probabilities, given[..., None].astype(np.int64), -1)[..., 0]
        self._sums += np.bincount(given[counted], own[counted], self._classes)
        self._counts += np.bincount(given[counted], minlength=self._classes)
        predicted = probabilities.argmax(-1)
        differ = counted & (predicted != given)
        best = probabilities.max(-1)
        radius = max(_LEAST_PIXELS, _LEAST_RADIUS * max(label.shape))
        pairs = given * self._classes + predicted
        for pair in np.unique(pairs[differ]).tolist():
            for where, part in _thick(differ & (pairs == pair), radius):
                region = _Region(
                    picture,
                    (label.shape[0], label.shape[1]),
                    where,
                    pair // self._classes,
                    pair % self._classes,
                    part,
                    best[where].astype(np.float16),
                    (best - own)[where].astype(np.float16),
                )
                self._regions.append(region)

    @property
    def thresholds(self) -> np.ndarray:
        """The mean probability of each class where it is labelled, float64 [classes]; NaN: it never is."""
        return np.divide(self._sums, self._counts, out=np.full(self._classes, np.nan), where=self._counts > 0)

    def suspects(self) -> list[Suspect]:
        """Returns the regions that the model contradicts with confidence, the worst first."""
        found = [suspect for region in self._regions for suspect in self._judged(region)]
        return sorted(found, key=lambda suspect: -suspect.score)

    def _judged(self, region: _Region) -> Iterator[Suspect]:
        threshold = self.thresholds[region.predicted]
        if np.isnan(threshold):  # no label has the class: nothing says when the model may be believed
            threshold = np.nanmean(self.thresholds)
        sure = region.own & (region.sure >= threshold)
        radius = max(_LEAST_PIXELS, _LEAST_RADIUS * max(region.size))
        for inner, part in _thick(sure, radius):
            rows, columns = (
                slice(a.start + b.start, a.start + b.stop) for a, b in zip(region.where, inner, strict=True)
            )
            margin = float(region.margin[inner][part].astype(np.float32).mean())
            pixels = int(part.sum())
            share = pixels / (region.size[0] * region.size[1])
            box = as_box(rows, columns, region.size)
            score = round(margin * share**0.5, 5)
            yield Suspect(region.picture, box, pixels, region.labelled, region.predicted, round(margin, 4), score)


def _thick(mask: np.ndarray, radius: float) -> Iterator[tuple[tuple[slice, slice], np.ndarray]]:
    """Yields the connected parts of a mask in which a circle of `radius` pixels has room: their box, and bool in it."""
    parts, _ = ndimage.label(mask)
    for number, where in enumerate(ndimage.find_objects(parts), 1):
        own = parts[where] == number
        if own.sum() >= radius**2 and ndimage.distance_transform_edt(np.pad(own, 1)).max() > radius:
            yield where, own
