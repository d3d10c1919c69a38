"""The tally of a split's examples: label values, sizes, thumbnails, and faults by kind."""

import collections
import dataclasses
import io
from collections.abc import Sequence

import numpy as np
import PIL.Image

from deeplab_tf.catalog.datasets import Dataset
from deeplab_tf.doctor.labels import inspect_label, undecoded, wrong_values
from deeplab_tf.doctor.likeness import thumbnail
from deeplab_tf.doctor.samples import EncodedExample
from deeplab_tf.ops.images import PILLOW_ERRORS

_SHOWN = 5  # examples of each kind of fault that are named
_ORIENTATION = 0x0112  # tag of the orientation in EXIF data


@dataclasses.dataclass
class SplitTally:
    """The figures of one split.

    Attributes:
      counts: int64 [256], pixels of each label value.
      around: int64 [256], labelled (not ignored) pixels of the images where the value occurs.
      sizes: (height, width) -> number of images.
      faults: code -> number of examples with this fault.
      shown: code -> the first of these examples, with a description.
      names: of the examples whose images could be decoded.
      thumbnails: of the same examples; float32 [256] each.
      unlabelled: the number of examples without a labelled pixel.
    """

    counts: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(256, np.int64))
    around: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(256, np.int64))
    sizes: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    faults: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    shown: dict[str, list[str]] = dataclasses.field(default_factory=lambda: collections.defaultdict(list))
    names: list[str] = dataclasses.field(default_factory=list)
    thumbnails: list[np.ndarray] = dataclasses.field(default_factory=list)
    unlabelled: int = 0

    def add_fault(self, code: str, name: str, description: str) -> None:
        """Counts a fault of one example."""
        self.faults[code] += 1
        if len(self.shown[code]) < _SHOWN:
            self.shown[code].append(f"{name} {description}")

    def add(self, example: EncodedExample, facts: Dataset, *, in_record: bool) -> None:
        """Counts one example."""
        for code, description in example.faults:
            self.add_fault(code, example.name, description)
        size = self._add_image(example.name, example.image) if example.image is not None else None
        if example.label is None:
            return
        label = inspect_label(example.label, facts.palette, in_record=in_record)
        for code, description in label.faults:
            self.add_fault(code, example.name, description)
        if size and label.size and size != label.size:
            description = f"has {size[0]} x {size[1]} pixels, its label {label.size[0]} x {label.size[1]}"
            self.add_fault("size-mismatch", example.name, description)
        if label.counts is not None:
            self._add_label(example, label.counts, facts)

    def _add_label(self, example: EncodedExample, counts: np.ndarray, facts: Dataset) -> None:
        if example.label_ids:
            counts = _translated(counts, example.label_ids, facts.ignore_label)
        labelled = counts.copy()
        labelled[facts.ignore_label] = 0
        self.counts += counts
        self.around[counts > 0] += labelled.sum()
        self.unlabelled += not labelled.any()
        wrong = wrong_values(counts, facts.num_classes, facts.ignore_label)
        if wrong:
            listed = ", ".join(f"{value} ({pixels} pixels)" for value, pixels in list(wrong.items())[:4])
            more = f" and {len(wrong) - 4} more" if len(wrong) > 4 else ""
            self.add_fault("labels-out-of-range", example.name, f"has label {listed}{more}")

    def _add_image(self, name: str, content: bytes) -> tuple[int, int] | None:
        """Counts an image and returns its height and width as they are stored."""
        try:
            with PIL.Image.open(io.BytesIO(content)) as image:
                image.load()
                if image.format not in ("JPEG", "MPO", "PNG"):
                    self.add_fault("image-format", name, f"is a {image.format}")
                orientation = image.getexif().get(_ORIENTATION, 1)
                size = (image.height, image.width)
                self.thumbnails.append(thumbnail(image))
        except PILLOW_ERRORS as error:
            self.add_fault("unreadable", name, undecoded("image", content, error))
            return None
        self.names.append(name)
        self.sizes[size] += 1
        if orientation not in (0, 1):
            self.add_fault("exif-rotation", name, f"has EXIF orientation {orientation}")
        return size


def _translated(counts: np.ndarray, label_ids: Sequence[int], ignore_label: int) -> np.ndarray:
    """Returns the counts of the classes, from those of the values that stand for them; other values are ignored."""
    translated = np.zeros_like(counts)
    translated[: len(label_ids)] = counts[list(label_ids)]
    translated[ignore_label] += counts.sum() - translated.sum()
    return translated
