"""Thumbnails: small pictures of many images, of which a report shows a few, in a temporary file and not in memory."""

import functools
import io
import itertools
import tempfile
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image
from scipy import ndimage

from deeplab_tf import files
from deeplab_tf.evaluation.report.page import Picture
from deeplab_tf.ops.images import FORMATS, jpeg_bytes, resize_labels
from deeplab_tf.ops.pictures import IGNORE_COLOUR, Colour, palette_png

_SMALL_SIDE = 300  # of the picture of one class
_LOOK = 8  # fields of a side, by which images are compared
_COMPARED = 50  # images whose distances tell what is usual, at most
_SIDE = 480  # pixels of a picture's longer side
_QUALITY = 85  # of a JPEG
_MOST_MARKS = 6  # names written into a picture of classes, at most
_LEAST_MARKED = 0.02  # the share of a picture from which a class gets its name
_DIFFERENCE = "difference: solid is wrong, striped is not scored"
_RIGHT = np.array((0, 114, 178))  # blue, as far from it as can be
_WRONG = np.array((213, 94, 0))  # vermilion, which every colour vision tells from greys


def look(photo: np.ndarray) -> np.ndarray:
    """Returns the colours of a photograph, uint8 [h, w, 3], in 8 x 8 fields, to compare images by: uint8 [192]."""
    return np.asarray(Image.fromarray(photo).resize((_LOOK, _LOOK), Image.Resampling.BOX)).ravel()


def distances(one: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns how far the look of one image, uint8 [192], is from those of others, uint8 [n, 192]: grey levels, [n]."""
    return np.abs(others.astype(np.int16) - one).mean(axis=1)


def usual_distance(looks: Sequence[np.ndarray]) -> float:
    """Returns the median distance between the looks of two images; of all pairs of some, spread over the data set."""
    some = np.unique(np.linspace(0, len(looks) - 1, _COMPARED).astype(int)).tolist() if len(looks) else []
    found = [float(distances(looks[a], looks[b][None])[0]) for a, b in itertools.combinations(some, 2)]
    return float(np.median(found)) if found else 0.0


class Thumbnails:
    """Photo, label and prediction of each image, small and encoded, in a temporary file."""

    def __init__(self, palette: Sequence[Colour], ignore_label: int) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as this object)
        self._ends = [0]
        self._ignore = ignore_label
        self._looks: list[np.ndarray] = []
        self._palette = list(palette)
        if ignore_label < len(palette):
            self._palette[ignore_label] = IGNORE_COLOUR

    def add(self, image: np.ndarray, label: np.ndarray, prediction: np.ndarray) -> None:
        """Adds an image: uint8 [h, w, 3] and two class maps [h, w]. DeepLabError where the disk is full."""
        height, width = label.shape
        scale = min(1.0, _SIDE / max(height, width))
        rows = max(1, round(height * scale))
        columns = max(1, round(width * scale))
        photo = np.asarray(Image.fromarray(image).resize((columns, rows), Image.Resampling.BOX))
        self._looks.append(look(photo))
        maps = [palette_png(resize_labels(values, rows, columns), self._palette) for values in (label, prediction)]
        for content in (jpeg_bytes(photo, quality=_QUALITY), *maps):
            try:
                self._file.write(content)
            except OSError as error:
                place = tempfile.gettempdir()
                raise files.unwritable(place, error, cure="make room, or set TMPDIR") from None
            self._ends.append(self._ends[-1] + len(content))

    def alike(self, one: int, other: int) -> bool:
        """Returns whether two images look nearly the same, as frames of one street do.

        They do where their colours, in 8 x 8 fields, differ by less than half of what two images of this data set do.
        """
        return self._distance(one, other) < self._usual / 2

    def _distance(self, one: int, other: int) -> float:
        return float(distances(self._looks[one], self._looks[other][None])[0])

    @functools.cached_property
    def _usual(self) -> float:
        return usual_distance(self._looks)

    def _read(self, index: int) -> Iterator[bytes]:
        for start, end in itertools.pairwise(self._ends[3 * index : 3 * index + 4]):
            self._file.seek(start)
            yield self._file.read(end - start)

    def pictures(self, index: int) -> list[Picture]:
        """Returns photo, label, prediction and difference of an image."""
        photo, label, prediction = self._read(index)
        classes, predicted = (
            np.array(Image.open(io.BytesIO(content), formats=FORMATS)) for content in (label, prediction)
        )
        return [
            Picture("photo", "jpeg", photo),
            Picture("label", "png", label, _marks(classes, self._ignore)),
            Picture("prediction", "png", prediction, _marks(predicted, self._ignore)),
            Picture(_DIFFERENCE, "jpeg", self._difference(photo, classes, predicted)),
        ]

    def of_class(self, index: int, number: int) -> Picture:
        """Returns the small picture of one class in an image: right, missed, and found where it is not."""
        photo, label, prediction = self._read(index)
        classes, predicted = (
            np.array(Image.open(io.BytesIO(content), formats=FORMATS)) for content in (label, prediction)
        )
        picture = _pale(photo)
        there, found = classes == number, (predicted == number) & (classes != self._ignore)
        elsewhere = found & ~there & _stripes(classes.shape, 4)
        for part, colour in ((there & found, _RIGHT), (there & ~found, _WRONG), (elsewhere, _WRONG)):
            _tint(picture, part, colour)
        small = Image.fromarray(picture)
        small.thumbnail((_SMALL_SIDE, _SMALL_SIDE))
        return Picture("", "jpeg", jpeg_bytes(np.asarray(small), quality=_QUALITY))

    def _difference(self, photo: bytes, classes: np.ndarray, predicted: np.ndarray) -> bytes:
        """Returns a pale photo with the wrong pixels in one colour, and stripes where nothing is scored."""
        picture = _pale(photo)
        _tint(picture, (classes != predicted) & (classes != self._ignore), _WRONG)
        picture[(classes == self._ignore) & _stripes(classes.shape, 3)] = IGNORE_COLOUR
        return jpeg_bytes(picture, quality=_QUALITY)


def _pale(photo: bytes) -> np.ndarray:
    """Returns the greys of a photo, uint8 [h, w, 3], between 96 and 223, on which colours stand out."""
    return np.repeat(
        96 + np.array(Image.open(io.BytesIO(photo), formats=FORMATS).convert("L"))[..., None] // 2, 3, axis=2
    )


def _tint(picture: np.ndarray, part: np.ndarray, colour: np.ndarray) -> None:
    picture[part] = 0.25 * picture[part] + 0.75 * colour


def _stripes(shape: tuple[int, ...], width: int) -> np.ndarray:
    """Returns where diagonal stripes lie, bool of `shape`: `width` of every 8 pixels."""
    return np.add.outer(*map(np.arange, shape)) % 8 < width


def _marks(labels: np.ndarray, ignore_label: int) -> list[tuple[int, float, float]]:
    """Returns (class, x, y), in shares of the sides, of the places for the names of the largest classes.

    A name stands where its class is widest, unless that is too near to the name of a larger one.
    """
    height, width = labels.shape
    marks: list[tuple[int, float, float]] = []
    shares = np.bincount(labels.ravel()) / labels.size
    for index in np.argsort(-shares)[:_MOST_MARKS]:
        if shares[index] < _LEAST_MARKED or index == ignore_label:
            continue
        inside = np.pad(labels == index, 1)
        row, column = np.unravel_index(ndimage.distance_transform_cdt(inside, "chessboard").argmax(), inside.shape)
        x = float((column - 0.5) / width)
        y = float((row - 0.5) / height)
        if all(abs(x - other) > 0.3 or abs(y - above) > 0.1 for _, other, above in marks):
            marks.append((int(index), x, y))
    return marks
