"""Pictures of labels: colour masks, overlays and palette PNGs; sheets.py arranges them.

These are pure functions of NumPy arrays. They work in strips of rows that stay in the cache, so that they need hardly
any memory besides the result's.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from deeplab_tf.errors import DeepLabError
from deeplab_tf.ops.images import png_bytes

IGNORE_COLOUR = (224, 224, 192)  # of PASCAL VOC's label 255

_STRIP_PIXELS = 1 << 16

# Red, green, blue in 0..255.
Colour = tuple[int, int, int]
# Index, name and share of the pixels of a class.
ClassShare = tuple[int, str, float]


def colour_mask(labels: np.ndarray, palette: Sequence[Colour], *, ignore_label: int | None = None) -> np.ndarray:
    """Returns the picture of labels in the colours of a palette: uint8 [h, w, 3].

    Source: the release's utils/get_dataset_colormap.py.

    Args:
      labels: integers [h, w].
      palette: the colour of each label, in label order.
      ignore_label: a label that is drawn in IGNORE_COLOUR instead; None: none is.

    Raises:
      DeepLabError: a label beyond the palette.
    """
    table = _colour_table(palette, ignore_label)
    _check_labels(labels, len(palette), ignore_label, what="colours in the palette")
    mask = np.empty((*labels.shape, 3), np.uint8)
    for strip in _strips(labels.shape):
        # The labels have been checked; "clip" spares NumPy its own check, and a copy of the result with it.
        np.take(table, labels[strip], axis=0, out=mask[strip], mode="clip")
    return mask


def class_shares(
    labels: np.ndarray, class_names: Sequence[str], *, ignore_label: int | None = None
) -> list[ClassShare]:
    """Returns (index, name, share) of each class that is present, the largest share first.

    Shares are in (0, 1] and sum to 1.

    Args:
      labels: integers [h, w].
      class_names: the name of each label, in label order.
      ignore_label: pixels with this label do not count.

    Raises:
      DeepLabError: a label without a name.
    """
    _check_labels(labels, len(class_names), ignore_label, what="class names")
    counts = np.zeros(max(len(class_names), (ignore_label or 0) + 1), np.int64)
    for strip in _strips(labels.shape):
        counts += np.bincount(labels[strip].ravel(), minlength=len(counts))
    if ignore_label is not None:
        counts[ignore_label] = 0
    total = int(counts.sum())
    order = np.argsort(-counts, kind="stable")
    return [(i, class_names[i], float(counts[i] / total)) for i in map(int, order) if counts[i]]


def blend(
    image: np.ndarray,
    labels: np.ndarray,
    palette: Sequence[Colour],
    *,
    alpha: float = 0.55,
    ignore_label: int | None = None,
) -> np.ndarray:
    """Returns a picture tinted with the colours of its labels, a thin white line between classes: uint8 [h, w, 3].

    The line is one pixel wide up to about a megapixel and grows with the picture.

    Args:
      image: uint8 [h, w, 3].
      labels: integers [h, w].
      palette: the colour of each label, in label order.
      alpha: weight of the colour, 0..1.
      ignore_label: a label that is drawn in IGNORE_COLOUR instead; None: none is.

    Raises:
      DeepLabError: a label beyond the palette, or sizes that differ.
    """
    mixed = colour_mask(labels, palette, ignore_label=ignore_label)
    _check_image(image, labels, alpha)
    weight = round(alpha * 256)
    line = max(1, round((labels.size**0.5) / 900))
    for strip in _strips(labels.shape):
        sum_of_both = mixed[strip].astype(np.uint16) * np.uint16(weight)
        sum_of_both += image[strip].astype(np.uint16) * np.uint16(256 - weight)
        mixed[strip] = (sum_of_both + np.uint16(128)) >> 8
        mixed[strip][_borders(labels, strip, line)] = 255
    return mixed


def cut_out(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the parts of a picture that are not of class 0, the background: uint8 [h, w, 4], red, green, blue, alpha.

    The rest is transparent, and black where a program does not know of that.

    Args:
      image: uint8 [h, w, 3].
      labels: integers [h, w].
    """
    kept = np.asarray(labels) != 0
    result = np.zeros((*image.shape[:2], 4), np.uint8)
    result[kept, :3] = image[kept]
    result[kept, 3] = 255
    return result


def palette_png(labels: np.ndarray, palette: Sequence[Colour]) -> bytes:
    """Returns a PNG (mode P) whose palette indices are the labels.

    np.array(PIL.Image.open(...)) gives them back, as uint8. Other decoders may expand the palette to colours; use a
    grey PNG where they must not.

    Args:
      labels: integers [h, w] in 0..255; those beyond the palette (255, say) are kept, and shown in IGNORE_COLOUR.
      palette: the colour of each label, in label order; from the 257th on they are left out.

    Raises:
      DeepLabError: a label beyond 255.
    """
    _check_labels(labels, 256, None, what="entries in the palette of a PNG")
    colours = [as_colour(colour) for colour in palette[:256]]
    colours += [IGNORE_COLOUR] * (256 - len(colours))
    return png_bytes(labels.astype(np.uint8), bytes(channel for colour in colours for channel in colour))


# ---- labels


def as_colour(channels: Sequence[int]) -> Colour:
    """Returns three channels, 0..255 each, as the tuple that Pillow takes."""
    red, green, blue = channels
    return red, green, blue


def _check_labels(labels: Any, count: int, ignore_label: int | None, *, what: str) -> None:
    if not isinstance(labels, np.ndarray) or labels.ndim != 2 or not np.issubdtype(labels.dtype, np.integer):
        shape = getattr(labels, "shape", "no shape")
        kind = getattr(labels, "dtype", type(labels).__name__)
        raise DeepLabError(f"labels are {kind} {shape}: expected an array of integers [height, width]")
    if not labels.size:
        raise DeepLabError(f"labels are empty, {labels.shape}: expected at least one pixel")
    if labels.min() >= 0 and labels.max() < count:
        return
    for strip in _strips(labels.shape):
        part = labels[strip]
        wrong = (part < 0) | (part >= count)
        if ignore_label is not None:
            wrong &= part != ignore_label
        if wrong.any():
            raise DeepLabError(f"label {part[wrong].max()} in a map of 0..{count - 1}: there are {count} {what}")


def _check_image(image: np.ndarray, labels: np.ndarray, alpha: float) -> None:
    if image.dtype != np.uint8 or image.shape != (*labels.shape, 3):
        expected = f"uint8 {(*labels.shape, 3)}, to match the labels"
        raise DeepLabError(f"the image is {image.dtype} {image.shape}: expected {expected}")
    if not 0 <= alpha <= 1:
        raise DeepLabError(f"alpha={alpha}: expected 0 (photo only) to 1 (colours only)")


def _colour_table(palette: Sequence[Colour], ignore_label: int | None) -> np.ndarray:
    table = np.asarray(palette)
    if table.ndim != 2 or table.shape[1] != 3 or table.min() < 0 or table.max() > 255:
        raise DeepLabError(f"a palette of shape {table.shape}: expected [colours, 3] with values 0..255")
    table = table.astype(np.uint8)
    if ignore_label is not None:
        missing = max(0, ignore_label + 1 - len(table))
        table = np.concatenate([table, np.zeros((missing, 3), np.uint8)])
        table[ignore_label] = IGNORE_COLOUR
    return table


def _strips(shape: tuple[int, ...]) -> Iterator[slice]:
    """Yields slices of rows of about _STRIP_PIXELS each."""
    rows = max(1, _STRIP_PIXELS // shape[1])
    for start in range(0, shape[0], rows):
        yield slice(start, min(start + rows, shape[0]))


def _borders(labels: np.ndarray, strip: slice, line: int) -> np.ndarray:
    """Returns the pixels of `strip` with the end of a class within `line` pixels right or below: bool [rows, w]."""
    part = labels[strip.start : strip.stop + line]
    edge = np.zeros(part.shape, bool)
    edge[:, :-1] = part[:, 1:] != part[:, :-1]
    edge[:-1] |= part[1:] != part[:-1]
    thick = edge.copy()
    for step in range(1, line):
        thick[:, step:] |= edge[:, :-step]
    edge = thick.copy()
    for step in range(1, line):
        edge[:-step] |= thick[step:]
    return edge[: strip.stop - strip.start]
