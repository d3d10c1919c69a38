"""What is counted while the doctor looks through a split: values, sizes, shares, thumbnails, and faults by kind."""

import collections
import dataclasses
import io
from collections.abc import Sequence

import numpy as np
import PIL.Image

from deeplab_tf.catalog.datasets import Dataset
from deeplab_tf.data.pairs import PILLOW_ERRORS
from deeplab_tf.doctor.labels import look_at_label, undecoded, wrong_values
from deeplab_tf.doctor.likeness import thumbnail
from deeplab_tf.doctor.samples import Sample

_KEPT = 5  # places that are named of each kind of fault
_ORIENTATION = 0x0112  # EXIF


@dataclasses.dataclass
class Split:
    """The figures of one split.

    Attributes:
      counts: int64 [256], pixels of each label value.
      around: int64 [256], pixels that count in the images where the value occurs.
      sizes: (height, width) -> images.
      faults: code -> number of examples; `places`: code -> the first of them, with words.
      unlabelled: examples without a single pixel that counts.
    """

    counts: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(256, np.int64))
    around: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(256, np.int64))
    sizes: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    faults: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    places: dict[str, list[str]] = dataclasses.field(default_factory=lambda: collections.defaultdict(list))
    names: list[str] = dataclasses.field(default_factory=list)
    thumbnails: list[np.ndarray] = dataclasses.field(default_factory=list)
    unlabelled: int = 0

    def fault(self, code: str, place: str, words: str):
        """Notes what is wrong with one example."""
        self.faults[code] += 1
        if len(self.places[code]) < _KEPT:
            self.places[code].append(f"{place} {words}")

    def add(self, sample: Sample, facts: Dataset, *, stored: bool):
        """Counts one example."""
        for code, words in sample.faults:
            self.fault(code, sample.place, words)
        size = self._image(sample) if sample.image is not None else None
        if sample.label is None:
            return
        label = look_at_label(sample.label, facts.palette, stored=stored)
        for code, words in label.faults:
            self.fault(code, sample.place, words)
        if size and label.size and size != label.size:
            words = f"has {size[0]} x {size[1]} pixels, its label {label.size[0]} x {label.size[1]}"
            self.fault("size-mismatch", sample.place, words)
        if label.counts is not None:
            self._values(sample, label.counts, facts)

    def _values(self, sample: Sample, counts: np.ndarray, facts: Dataset):
        if sample.label_ids:
            counts = _translated(counts, sample.label_ids, facts.ignore_label)
        counting = counts.copy()
        counting[facts.ignore_label] = 0
        self.counts += counts
        self.around[counts > 0] += counting.sum()
        self.unlabelled += not counting.any()
        wrong = wrong_values(counts, facts.num_classes, facts.ignore_label)
        if wrong:
            listed = ", ".join(f"{value} ({pixels} pixels)" for value, pixels in list(wrong.items())[:4])
            more = f" and {len(wrong) - 4} more" if len(wrong) > 4 else ""
            self.fault("labels-out-of-range", sample.place, f"has label {listed}{more}")

    def _image(self, sample: Sample) -> tuple[int, int] | None:
        """Looks at the image and returns its height and width as they are stored."""
        try:
            with PIL.Image.open(io.BytesIO(sample.image)) as image:
                image.load()
                if image.format not in ("JPEG", "MPO", "PNG"):
                    self.fault("image-format", sample.place, f"is a {image.format}")
                orientation, size = image.getexif().get(_ORIENTATION, 1), (image.height, image.width)
                self.thumbnails.append(thumbnail(image))
        except PILLOW_ERRORS as error:
            self.fault("unreadable", sample.place, undecoded("image", sample.image, error))
            return None
        self.names.append(sample.place)
        self.sizes[size] += 1
        if orientation not in (0, 1):
            self.fault("exif-rotation", sample.place, f"has EXIF orientation {orientation}")
        return size


def _translated(counts: np.ndarray, label_ids: Sequence[int], ignore_label: int) -> np.ndarray:
    """The counts of the classes, from those of the values that stand for them; all others are ignored."""
    found = np.zeros_like(counts)
    found[: len(label_ids)] = counts[list(label_ids)]
    found[ignore_label] += counts.sum() - found.sum()
    return found
