"""counts.json of a report: of every image, the pixels of its classes, from which other scores of it follow."""

import dataclasses
import json
import os
from typing import Any

import numpy as np

from deeplab_tf import files
from deeplab_tf.documents.json_files import JSONError, read_json
from deeplab_tf.errors import DeepLabError
from deeplab_tf.ops.metrics import Counts

COUNTS_FILE = "counts.json"


@dataclasses.dataclass(frozen=True)
class ImageCounts:
    """What is counted of one image.

    Attributes:
      name: its stored name.
      classes: (class, pixels that are right, labelled, predicted) of each class in it or predicted in it.
    """

    name: str
    classes: tuple[tuple[int, int, int, int], ...]


@dataclasses.dataclass(frozen=True)
class ReportCounts:
    """What counts.json holds.

    Attributes:
      checkpoint: the weights, as the evaluation names them.
      step: of their training.
      dataset, split: what they were scored on.
      ignore_label: the label of the pixels that do not count.
      class_names, palette: the name and the colour of each class.
      images: all of them, in the order of the records.
    """

    checkpoint: str
    step: int
    dataset: str
    split: str
    ignore_label: int
    class_names: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    images: tuple[ImageCounts, ...]

    def to_json(self) -> str:
        """Returns the contents of the file, an image a line."""
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "images"}
        lines = ",\n".join(json.dumps({"name": one.name, "classes": one.classes}) for one in self.images)
        return f'{json.dumps(values)[:-1]}, "images": [\n{lines}\n]}}\n'

    def counts(self) -> Counts:
        """Returns the counts of all images, int64 [images, classes] each."""
        table = np.zeros((3, len(self.images), len(self.class_names)), np.int64)
        for row, image in enumerate(self.images):
            for index, *pixels in image.classes:
                table[:, row, index] = pixels
        return Counts(*table)


def read_counts(folder: str | os.PathLike[str]) -> ReportCounts:
    """Returns the counts of the report in a folder.

    Raises:
      DeepLabError: there is no report, it was written before there were counts, or they are damaged.
    """
    place = files.path(folder)
    path = place / COUNTS_FILE
    try:
        found = read_json(path, ReportCounts)
    except FileNotFoundError:
        old = (place / "metrics.json").is_file()
        reason = "written by an earlier version" if old else "is not the folder of a report"
        raise DeepLabError(f"{place}: {reason}: no {COUNTS_FILE}; run deeplab-tf eval --report={place}") from None
    except (OSError, JSONError) as error:
        raise DeepLabError(f"{path}: {error}; evaluate again with --report") from None
    if reason := _fault(found):
        raise DeepLabError(f"{path}: {reason}; evaluate again with --report")
    return found


def _fault(found: ReportCounts) -> str | None:
    """Returns what cannot be in counts, or None."""
    number = len(found.class_names)
    if not number or not found.images:
        return "no classes" if not number else "no images"
    if len(found.palette) != number or not all(0 <= part <= 255 for colour in found.palette for part in colour):
        return f"palette: expected {number} colours of 0..255"
    for image in found.images:
        rows = image.classes
        if len({row[0] for row in rows}) < len(rows) or not all(0 <= row[0] < number for row in rows):
            return f"{image.name!r}: expected each of the classes 0..{number - 1} once at most"
        # Floats hold whole numbers up to 2**53, which no image has of pixels.
        if not all(
            0 <= right <= min(labelled, predicted) <= max(labelled, predicted) < 2**53
            for _, right, labelled, predicted in rows
        ):
            return f"{image.name!r}: expected pixels, of which those that are right are the fewest"
    return None
