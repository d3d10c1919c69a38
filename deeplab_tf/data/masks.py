"""Label files read as class indices: index, palette and colour PNGs, and SBD's .mat files.

This module does not import TensorFlow, so that worker processes start fast.
"""

import dataclasses
import io
import zlib
from collections.abc import Sequence

import numpy as np
import PIL.Image

from deeplab_tf.catalog.palettes import Colour
from deeplab_tf.data.encoded_files import read_file, undecoded
from deeplab_tf.errors import DeepLabError
from deeplab_tf.ops.images import PILLOW_ERRORS, label_png

VOID = (224, 224, 192)  # PASCAL VOC's colour of the ignore label, 255


@dataclasses.dataclass(frozen=True)
class LabelRules:
    """The valid labels of a data set, and how other values become valid.

    Attributes:
      num_classes: the classes are 0..num_classes - 1.
      ignore_label: the value of pixels that are not counted.
      palette: the colour of each class, for labels in colours.
      label_map: (old, new) pairs of values to rename.
    """

    num_classes: int
    ignore_label: int
    palette: tuple[Colour, ...]
    label_map: tuple[tuple[int, int], ...] = ()


def encoded_label(file: str, label_ids: Sequence[int] | None, rules: LabelRules) -> tuple[bytes, np.ndarray]:
    """Returns the PNG to store and its indices, uint8 [h, w]."""
    content = read_file(file, "label")
    indices, plain = _indices(file, content, rules)
    table = np.arange(256, dtype=np.uint8)
    if label_ids is not None:
        table[:] = rules.ignore_label
        table[list(label_ids)] = range(len(label_ids))
    for old, new in rules.label_map:
        table[old] = new
    classes = table[indices]
    _require_classes(file, classes, rules)
    return (content if plain and np.array_equal(classes, indices) else label_png(classes)), classes


def read_label(file: str, rules: LabelRules) -> np.ndarray:
    """Returns the indices that a label file stores, uint8 [h, w].

    Raises:
      DeepLabError: the file is missing, damaged or a JPEG, whose values are no longer exact; or a colour is not in the
        palette.
    """
    return _indices(file, read_file(file, "label"), rules)[0]


def _indices(file: str, content: bytes, rules: LabelRules) -> tuple[np.ndarray, bool]:
    """Returns the indices of a label, and whether `content` is an 8-bit grey PNG that stores exactly these."""
    if file.endswith(".mat"):
        return _sbd_label(file, content), False
    try:
        with PIL.Image.open(io.BytesIO(content)) as image:
            if image.format in ("JPEG", "MPO"):
                raise DeepLabError(f"{file}: a JPEG label, whose values are no longer exact; export the labels as PNG")
            array = np.asarray(image)
            mode = image.mode
            plain = image.format == "PNG" and mode == "L"
    except DeepLabError:
        raise
    except PILLOW_ERRORS as error:
        raise DeepLabError(f"{file}: no label that can be decoded ({undecoded(error, content)})") from None
    if mode in ("RGB", "RGBA"):
        return _from_colours(file, array[..., :3], rules), False
    array = array[..., 0] if array.ndim == 3 else array
    if array.dtype != np.uint8 and array.size and not 0 <= array.min() <= array.max() <= 255:
        raise DeepLabError(f"{file}: label {array.max()} in a picture of mode {mode}; expected 0..255")
    return array.astype(np.uint8), plain


def _from_colours(file: str, array: np.ndarray, rules: LabelRules) -> np.ndarray:
    """Returns the indices, uint8 [h, w], of the colours uint8 [h, w, 3]."""
    # Reversed, so that of several classes with one colour the first wins.
    classes_of = {VOID: rules.ignore_label, **{tuple(c): i for i, c in reversed([*enumerate(rules.palette)])}}
    codes = array.astype(np.int32) @ np.array([65536, 256, 1], np.int32)
    unique_codes, positions, counts = np.unique(codes, return_inverse=True, return_counts=True)
    colours = [(int(code) >> 16, int(code) >> 8 & 255, int(code) & 255) for code in unique_codes]
    unknown = [f"{c} ({n} pixels)" for c, n in zip(colours, counts, strict=True) if c not in classes_of]
    if unknown:
        more = " and others" if len(unknown) > 3 else ""
        listed = ", ".join(unknown[:3]) + more
        raise DeepLabError(f"{file}: a colour label with {listed}, not in the palette; give it in dataset.json")
    return np.array([classes_of[c] for c in colours], np.uint8)[positions].reshape(codes.shape)


def _sbd_label(file: str, content: bytes) -> np.ndarray:
    """Returns the classes of an SBD annotation (cls/<id>.mat: GTcls.Segmentation), uint8 [h, w]."""
    import scipy.io

    # SciPy raises NotImplementedError for a file of MATLAB 7.3, which is HDF5, and LookupError for a short file.
    unreadable = (scipy.io.matlab.MatReadError, NotImplementedError, LookupError, AttributeError, TypeError, ValueError)
    try:
        values = scipy.io.loadmat(io.BytesIO(content), squeeze_me=True, struct_as_record=False)
        return np.asarray(values["GTcls"].Segmentation, np.uint8)
    except (*unreadable, OSError, zlib.error) as error:
        raise DeepLabError(f"{file}: no SBD annotation with GTcls.Segmentation ({error})") from None


def _require_classes(file: str, classes: np.ndarray, rules: LabelRules) -> None:
    counts = np.bincount(classes.ravel(), minlength=256)
    wrong = [i for i in np.flatnonzero(counts) if i >= rules.num_classes and i != rules.ignore_label]
    if wrong:
        listed = ", ".join(f"{i} ({counts[i]} pixels)" for i in wrong[:5]) + (" and others" if len(wrong) > 5 else "")
        binary = set(np.flatnonzero(counts)) <= {0, 255}
        hint = "; a mask of 0 and 255? --label_map=255:1 makes it 0 and 1" if binary else ""
        raise DeepLabError(
            f"{file}: label {listed}; expected 0..{rules.num_classes - 1} or {rules.ignore_label} (ignored){hint}"
        )


def binary_mask_fault(counts: np.ndarray, rules: LabelRules) -> str | None:
    """Returns the fault of a data set whose labels are all 0 or an ignored 255, or None.

    Such labels are usually masks; no network could learn from them. counts: int64 [256], pixels of each label.
    """
    if rules.ignore_label == 255 and counts[255] and set(np.flatnonzero(counts)) <= {0, 255}:
        return "all labels hold only 0 and 255 (ignored): masks of 0 and 255? --label_map=255:1 makes them 0 and 1"
    return None
