"""Labels as the doctor judges them: those of records as TensorFlow reads them, and the likely cure of wrong values."""

import dataclasses
import io
from collections.abc import Sequence

import numpy as np
import PIL.Image

from deeplab_tf.catalog.palettes import Colour
from deeplab_tf.data.masks import VOID
from deeplab_tf.ops.images import FORMATS, PILLOW_ERRORS

_SHOWN = 4  # values that a message lists
_MANY = 64  # labels with this many more values than there are classes are not indices of classes


@dataclasses.dataclass(frozen=True)
class LabelContent:
    """The content of a label.

    Attributes:
      counts: int64 [256], pixels of each value; None if its values are not indices.
      size: (height, width); None if it cannot be decoded.
      faults: (code, description) of each fault.
    """

    counts: np.ndarray | None
    size: tuple[int, int] | None
    faults: tuple[tuple[str, str], ...] = ()


def inspect_label(content: bytes) -> LabelContent:
    """Returns the content of the encoded label of a record, where TensorFlow reads grey levels."""
    try:
        with PIL.Image.open(io.BytesIO(content), formats=FORMATS) as image:
            array = np.asarray(image)
            mode = image.mode
            file_format = image.format
    except PILLOW_ERRORS as error:
        return LabelContent(None, None, (("unreadable", undecoded("label", content, error)),))
    size = array.shape[:2]
    if file_format in ("JPEG", "MPO"):
        return LabelContent(None, size, (("jpeg-label", "has a JPEG for a label"),))
    if mode in ("RGB", "RGBA"):
        return LabelContent(None, size, (("stored-colours", "holds an RGB PNG"),))
    array = array[..., 0] if array.ndim == 3 else array
    if mode == "1":  # TensorFlow stretches a single bit to 0 and 255
        array = array.astype(np.uint8) * 255
    if array.dtype != np.uint8:
        good = (array >= 0) & (array <= 255) & (array == np.floor(array))  # false for NaN
        if not good.all():
            values = [str(value) for value in np.unique(array[~good])]
            listed = ", ".join(values[:_SHOWN]) + (f" and {len(values) - _SHOWN} more" if len(values) > _SHOWN else "")
            fault = f"has label {listed}: not 8-bit numbers (mode {mode})"
            return LabelContent(None, size, (("labels-out-of-range", fault),))
        array = array.astype(np.uint8)
    faults = (("stored-colours", "holds a palette PNG"),) if mode == "P" else ()
    return LabelContent(np.bincount(array.ravel(), minlength=256).astype(np.int64), size, faults)


def undecoded(what: str, content: bytes, error: Exception) -> str:
    """Returns the description of the fault of an image or a label (`what`) whose decoding raised `error`."""
    if not content:
        return f"has an empty {what}, of 0 bytes"
    unknown = isinstance(error, PIL.UnidentifiedImageError)
    return f"has a damaged {what} ({f'begins with {content[:8]!r}' if unknown else error})"


def wrong_values(counts: np.ndarray, num_classes: int, ignore_label: int) -> dict[int, int]:
    """Returns label -> pixels, for the labels in `counts` (int64 [256]) that are neither a class nor ignored."""
    return {int(i): int(counts[i]) for i in np.flatnonzero(counts) if i >= num_classes and i != ignore_label}


def explain_values(
    counts: np.ndarray, palette: Sequence[Colour], evaluation_ids: Sequence[int] | None
) -> tuple[str, str]:
    """Returns the code and the likely cure of labels that are out of range.

    Args:
      counts: int64 [256], pixels of each label that occurs.
      palette: the colours of the classes.
      evaluation_ids: the ids of the classes on the data set's evaluation server, if they differ.
    """
    present = {int(i) for i in np.flatnonzero(counts)}
    classes = len(palette)
    highest = max(present - {255}, default=0)
    greys = {round(0.299 * r + 0.587 * g + 0.114 * b) for r, g, b in (*palette, VOID)}
    near = {grey + step for grey in greys for step in (-1, 0, 1)}
    if len(present) > 2 and highest > classes and present <= near:
        return "palette-as-grey", (
            "these are the grey levels of the palette's colours: a palette PNG was decoded as colours; build the "
            "records anew from the palette PNGs with deeplab-tf build-data, which reads their indices"
        )
    if len(present) > classes + _MANY:
        return "labels-out-of-range", (
            "this many values cannot be classes: is it a photograph, a probability map, or the greys of colours? build "
            "the records from index, palette or colour PNGs"
        )
    if evaluation_ids and present <= {*range(34), 255}:
        return "labels-out-of-range", (
            "these look like Cityscapes' label ids (7 is road): deeplab-tf build-data --dataset=cityscapes makes them "
            "0 to 18"
        )
    if highest == classes and 0 not in present:
        pairs = ",".join(f"{i + 1}:{i}" for i in range(min(classes, 3))) + (",..." if classes > 3 else "")
        return "labels-out-of-range", f"the labels begin at 1: build with --label_map={pairs}"
    if highest == classes:
        return "labels-out-of-range", (
            f"there is one class more than the {classes} that are named: name it (class_names.txt or dataset.json), "
            f"or build with --label_map={classes}:255 to ignore it"
        )
    return "labels-out-of-range", (
        "is it the right data set (--dataset)? build with --label_map=old:new to rename labels, or give "
        "--label_policy=ignore to train and eval, to leave them out of loss and score"
    )
