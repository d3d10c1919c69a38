"""The tally of a split's examples: label values, sizes, thumbnails, and faults by kind."""

import collections
import dataclasses
from collections.abc import Iterable

import numpy as np
import PIL.Image

from deeplab_tf.catalog.datasets import Dataset
from deeplab_tf.data import photographs
from deeplab_tf.data.encoded_files import read_file
from deeplab_tf.data.faults import FileError
from deeplab_tf.data.label_survey import LabelSurvey
from deeplab_tf.data.masks import BY_COLOURS, Label, encoded_label
from deeplab_tf.data.packing import Packed, PackingRules
from deeplab_tf.data.pairs import Pair
from deeplab_tf.data.photographs import PhotographRules, StoredPhotograph, stored_content
from deeplab_tf.data.records import image_format
from deeplab_tf.doctor.labels import inspect_label, wrong_values
from deeplab_tf.doctor.likeness import thumbnail
from deeplab_tf.doctor.samples import Example
from deeplab_tf.errors import DeepLabError
from deeplab_tf.ops.images import PILLOW_ERRORS
from deeplab_tf.ops.network_pictures import read_photograph

SHOWN = 3  # examples of each kind of fault that are named
_LISTED = 4  # labels in one line

# The codes of build-data's kinds of faults; what has no kind of its own cannot be used.
_CODES = {
    "missing image": "missing-image",
    "missing label": "missing-label",
    photographs.CUT_OFF: "truncated",
    photographs.NO_CONTRAST: "no-contrast",
    photographs.UNCLEAR_TURN: "exif-rotation",
    photographs.OTHER_BANDS: "bands",
    "inexact label": "jpeg-label",
    "fractions": "labels-out-of-range",
    "labels beyond 0..255": "labels-out-of-range",
    "labels that are not classes": "labels-out-of-range",
    "unknown colours": "unknown-colours",
    "colours of 16 bits": "unknown-colours",
    "palettes": "palette-contradiction",
    "transparency": "transparent-label",
}


class Tellings:
    """Files by kind: how many there are, and the names of the first, or lines on them."""

    def __init__(self) -> None:
        self.counts: collections.Counter[str] = collections.Counter()
        self.names: dict[str, list[str]] = collections.defaultdict(list)

    def add(self, kind: str, name: str) -> None:
        """Counts a file."""
        self.counts[kind] += 1
        if len(self.names[kind]) < SHOWN:
            self.names[kind].append(name)


@dataclasses.dataclass
class SplitTally:
    """The figures of one split.

    Attributes:
      counts: int64 [256], pixels of each label value.
      around: int64 [256], labelled (not ignored) pixels of the images where the value occurs.
      sizes: (height, width) -> number of images.
      faults: code -> the examples with this fault, and descriptions of the first.
      encodings: kind of label file -> the files of the kind.
      photographs: how photographs are not stored as they are -> the files.
      colours: colour as a number -> pixels, in the labels with unknown colours.
      survey: the strange colours of palettes.
      names: of the examples whose images could be decoded.
      stems: the names that these have in records.
      thumbnails: of the same examples; float32 [256] each.
      unlabelled: the number of examples without a labelled pixel.
      stored_labels: the number of records that hold a label, read or not.
    """

    counts: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(256, np.int64))
    around: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(256, np.int64))
    sizes: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    faults: Tellings = dataclasses.field(default_factory=Tellings)
    encodings: Tellings = dataclasses.field(default_factory=Tellings)
    photographs: Tellings = dataclasses.field(default_factory=Tellings)
    colours: collections.Counter[int] = dataclasses.field(default_factory=collections.Counter[int])
    survey: LabelSurvey = dataclasses.field(default_factory=LabelSurvey)
    names: list[str] = dataclasses.field(default_factory=list)
    stems: list[str] = dataclasses.field(default_factory=list)
    thumbnails: list[np.ndarray] = dataclasses.field(default_factory=list)
    unlabelled: int = 0
    stored_labels: int = 0

    def add(self, example: Example, facts: Dataset, rules: PackingRules, *, labelled: bool = True) -> None:
        """Counts one example; the label only where the split is `labelled`."""
        for code, description in example.faults:
            self.faults.add(code, f"{example.name} {description}")
        if example.pair is not None:
            self._add_pair(example, example.pair, facts, rules)
        elif example.image is not None:
            self.stored_labels += example.label is not None
            self._add_record(example, facts, rules, example.label if labelled else None)

    # ---- files, as build-data reads them

    def _add_pair(self, example: Example, pair: Pair, facts: Dataset, rules: PackingRules) -> None:
        label = None
        if pair.label is not None:
            try:
                label = encoded_label(pair.label, pair.label_ids, rules.labels)
            except DeepLabError as error:
                self._add_label_error(example, error, facts)
        size = (label.classes.shape[0], label.classes.shape[1]) if label else None
        try:
            content = read_file(pair.image, "image")
            image = stored_content(content, size, rules.photographs)
        except DeepLabError as error:
            self._add_error(error, f"{example.name}: {str(error).removeprefix(f'{pair.image}: ')}")
        else:
            self._add_image(example, image, rules.photographs)
            for note in image.notes:
                self.photographs.add(note, example.name)
            self._compare(example, (image.height, image.width), size)
        if label:
            self._add_label(example, label, facts)

    def _add_label(self, example: Example, label: Label, facts: Dataset) -> None:
        self.encodings.add(label.encoding, example.name)
        if label.encoding.startswith("RGB") and BY_COLOURS in label.encoding:
            self.faults.add("colour-label", f"{example.name} has an RGB label")
        strange = Packed(b"", None, example.name, 0, 0, label.counts, label.encoding, label.strange)
        self.survey.add(strange)
        self._add_counts(example, label.counts, facts)

    def _add_label_error(self, example: Example, error: DeepLabError, facts: Dataset) -> None:
        kind = error.kind if isinstance(error, FileError) else ""
        amounts = error.amounts if isinstance(error, FileError) else ()
        if kind == "labels that are not classes":
            counts = np.zeros(256, np.int64)
            for value, pixels in amounts:
                counts[value] += pixels
            self._add_counts(example, counts, facts)
            return
        self.colours.update(dict(amounts))
        root = example.pair.image.removesuffix(example.name) if example.pair else ""
        self._add_error(error, str(error).removeprefix(root))

    def _add_error(self, error: DeepLabError, description: str) -> None:
        self.faults.add(_CODES.get(getattr(error, "kind", ""), "unreadable"), description)

    # ---- records, as TensorFlow reads them

    def _add_record(self, example: Example, facts: Dataset, rules: PackingRules, label: bytes | None) -> None:
        size = None
        content = example.image or b""
        try:
            image = stored_content(content, None, rules.photographs)
        except DeepLabError as error:
            self._add_error(error, f"{example.name}: {error}")
        else:
            size = (image.height, image.width)
            self._add_image(example, image, rules.photographs)
            if image_format(content) is None:
                self.faults.add("image-format", f"{example.name} begins with {content[:8]!r}")
            for note in image.notes:
                if note == photographs.UNTURNED:
                    self.faults.add("exif-rotation", f"{example.name} has an EXIF orientation")
                elif note == photographs.FLAT:
                    self.photographs.add(note, example.name)
        if label is None:
            return
        found = inspect_label(label)
        for code, description in found.faults:
            self.faults.add(code, f"{example.name} {description}")
        self._compare(example, size, found.size)
        if found.counts is not None:
            self._add_counts(example, found.counts, facts)

    # ---- both

    def _compare(self, example: Example, size: tuple[int, int] | None, label: tuple[int, int] | None) -> None:
        if size and label and size != label:
            description = f"has {size[0]} x {size[1]} pixels, its label {label[0]} x {label[1]}"
            self.faults.add("size-mismatch", f"{example.name} {description}")

    def _add_image(self, example: Example, image: StoredPhotograph, rules: PhotographRules) -> None:
        picture = image.picture
        try:
            if picture is None:
                picture = PIL.Image.fromarray(read_photograph(image.content, rules.image).shown)
            self.thumbnails.append(thumbnail(picture))
        except (DeepLabError, *PILLOW_ERRORS) as error:
            self.faults.add("unreadable", f"{example.name}: {error}")
            return
        self.names.append(example.name)
        self.stems.append(example.stem)
        self.sizes[image.height, image.width] += 1

    def _add_counts(self, example: Example, counts: np.ndarray, facts: Dataset) -> None:
        labelled = counts.copy()
        labelled[facts.ignore_label] = 0
        self.counts += counts
        self.around[counts > 0] += labelled.sum()
        self.unlabelled += not labelled.any()
        wrong = wrong_values(counts, facts.num_classes, facts.ignore_label)
        if wrong:
            listed = ", ".join(f"{value} ({pixels} pixels)" for value, pixels in list(wrong.items())[:_LISTED])
            more = f" and {len(wrong) - _LISTED} more" if len(wrong) > _LISTED else ""
            self.faults.add("labels-out-of-range", f"{example.name} has label {listed}{more}")


def merged(parts: Iterable[Tellings]) -> Tellings:
    """Returns what is told of the files of several splits."""
    total = Tellings()
    for part in parts:
        total.counts.update(part.counts)
        for kind, names in part.names.items():
            total.names[kind] = [*total.names[kind], *names][:SHOWN]
    return total
