"""What a record stores of a pair of files: the image as it is encoded, and the label as an index PNG; or their faults.

This module does not import TensorFlow, so that worker processes start fast.
"""

import dataclasses
from collections.abc import Iterable

import numpy as np

from deeplab_tf.data.faults import Fault
from deeplab_tf.data.masks import LabelRules, encoded_label
from deeplab_tf.data.pairs import Pair
from deeplab_tf.data.photographs import (
    PLAIN,
    TURNED,
    UNTURNED,
    PhotographRules,
    StoredPhotograph,
    stored_photograph,
)
from deeplab_tf.errors import DeepLabError


@dataclasses.dataclass(frozen=True)
class Packed:
    """The contents of a record: encoded image and label, name and size; and the pixels of each label."""

    image: bytes
    label: bytes | None
    filename: str
    height: int
    width: int
    counts: np.ndarray  # int64 [256]
    encoding: str = ""  # of the label file, in words
    strange: tuple[tuple[int, int], ...] = ()  # index and colour of a label's palette: see `masks.Label`
    channels: int = 3  # of the image
    notes: tuple[str, ...] = ()  # how the image is not stored as it was


@dataclasses.dataclass(frozen=True)
class PackingRules:
    """What a pair must be to be packed: the rules for its label, and those for its photograph."""

    labels: LabelRules
    photographs: PhotographRules = PLAIN


def pack(pair: Pair, rules: LabelRules, photographs: PhotographRules = PLAIN) -> Packed | list[Fault]:
    """Returns the contents of the record of a pair, or its faults.

    The image stays as it is encoded, and so does a label that is a plain index PNG; the indices of others are encoded.
    """
    faults: list[Fault] = []
    label = None
    if pair.label is not None:
        try:
            label = encoded_label(pair.label, pair.label_ids, rules)
        except DeepLabError as error:
            faults.append(Fault.of(error))
    size = (label.classes.shape[0], label.classes.shape[1]) if label else None
    try:
        image = stored_photograph(pair.image, size, photographs)
    except DeepLabError as error:
        return [Fault.of(error), *faults]
    if size and size != (image.height, image.width):
        faults.append(_mismatch(pair, image, size))
    if faults:
        return faults
    packed = Packed(image.content, None, pair.filename, image.height, image.width, np.zeros(256, np.int64))
    packed = dataclasses.replace(packed, channels=photographs.channels, notes=image.notes)
    if label is None:
        return packed
    return dataclasses.replace(
        packed, label=label.png, counts=label.counts, encoding=label.encoding, strange=label.strange
    )


def pack_all(
    pairs: Iterable[Pair], rules: LabelRules, photographs: PhotographRules = PLAIN
) -> list[Packed | list[Fault]]:
    """Returns `pack` of each pair; the task of a worker process."""
    return [pack(pair, rules, photographs) for pair in pairs]


def _mismatch(pair: Pair, image: StoredPhotograph, size: tuple[int, int]) -> Fault:
    turned = f" ({image.notes[-1]})" if image.notes and image.notes[-1] in (TURNED, UNTURNED) else ""
    text = f"{pair.label}: {size[0]} x {size[1]} pixels, but {pair.image} has {image.height} x {image.width}{turned}"
    return Fault(text, "image and label differ in size")
