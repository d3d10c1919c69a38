"""Pairs of an image file and a label file: their paths, the check of their contents, and what a record stores of them.

Labels may be index PNGs, palette PNGs, colour PNGs of a known palette, or SBD's .mat files; they are read as indices.
This module does not import TensorFlow, so that worker processes start fast.
"""

import dataclasses
import io
import os
import zlib
from collections.abc import Iterable, Sequence

import numpy as np
import PIL.Image

from deeplab_tf import files
from deeplab_tf.catalog.palettes import Colour
from deeplab_tf.errors import DeepLabError
from deeplab_tf.ops.images import PILLOW_ERRORS, label_png

IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png")
VOID = (224, 224, 192)  # PASCAL VOC's colour of the ignore label, 255
_ORIENTATION = 0x0112  # tag of the orientation in EXIF data


@dataclasses.dataclass(frozen=True)
class Pair:
    """The files of one example.

    Attributes:
      image: path of the image.
      label: path of the label, or None.
      filename: the name that the record stores.
      label_ids: the values in the label that stand for the classes 0, 1, 2...; all others are ignored. None: the values
        are the classes.
    """

    image: str
    label: str | None
    filename: str
    label_ids: tuple[int, ...] | None = None


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


@dataclasses.dataclass(frozen=True)
class Packed:
    """The contents of a record: encoded image and label, name and size; and the pixels of each label."""

    image: bytes
    label: bytes | None
    filename: str
    height: int
    width: int
    counts: np.ndarray  # int64 [256]


def pair_files(
    ids: Iterable[str], image_folder: str | os.PathLike, label_folder: str | os.PathLike, extensions: Iterable[str]
) -> list[Pair]:
    """Returns the pairs <image_folder>/<id><extension> and <label_folder>/<id>.png.

    Of several extensions the first whose file exists is taken. A missing file is reported when the pair is packed.
    """
    extensions = tuple(extensions)
    pairs = []
    for name in ids:
        candidates = [os.path.join(image_folder, name + extension) for extension in extensions]
        there = (file for file in candidates if files.path(file).is_file())
        image = next(there, candidates[0]) if candidates[1:] else candidates[0]
        pairs.append(Pair(image, os.path.join(label_folder, f"{name}.png"), name))
    return pairs


def read_list(file: str | os.PathLike) -> list[str]:
    """Returns the ids of a list file, which has one on each line.

    Raises:
      DeepLabError: the file is missing, not text or empty, or an id is repeated.
    """
    try:
        ids = [line.strip() for line in files.path(file).read_bytes().decode().splitlines() if line.strip()]
    except OSError as error:
        raise DeepLabError(f"{file}: cannot be read ({error.strerror}); expected a list of ids, one a line") from None
    except UnicodeDecodeError as error:
        raise DeepLabError(f"{file}: not UTF-8 text ({error}); expected a list of ids, one a line") from None
    repeated = len(ids) - len(set(ids))
    if repeated or not ids:
        what = f"{repeated} ids are repeated" if repeated else "the list is empty"
        raise DeepLabError(f"{file}: {what}; expected different ids, one a line")
    return ids


def split_name(list_file: str) -> str:
    """Returns the split of a list file: the file's name without folder and extension."""
    return os.path.splitext(os.path.basename(list_file))[0]


def pack(pair: Pair, rules: LabelRules) -> Packed | list[str]:
    """Returns the contents of the record of a pair, or one line for each of its faults.

    The image stays as it is encoded, and so does a label that is a plain index PNG; the indices of others are encoded.
    """
    image, size, faults = _checked_image(pair.image)
    label = None
    counts = np.zeros(256, np.int64)
    if pair.label is not None:
        try:
            label, classes = _encoded_label(pair.label, pair.label_ids, rules)
            counts = np.bincount(classes.ravel(), minlength=256)
            if size and classes.shape != size[:2]:
                faults.append(_mismatch(pair, size, classes.shape))
        except DeepLabError as error:
            faults.append(str(error))
    if faults or size is None:
        return faults
    return Packed(image, label, pair.filename, size[0], size[1], counts)


def pack_all(pairs: Iterable[Pair], rules: LabelRules) -> list[Packed | list[str]]:
    """Returns `pack` of each pair; the task of a worker process."""
    return [pack(pair, rules) for pair in pairs]


def _mismatch(pair: Pair, size: tuple[int, int, bool], shape: tuple[int, int]) -> str:
    turned = "; the image's EXIF data turns it, which the release ignores: save it upright" if size[2] else ""
    return f"{pair.label}: {shape[0]} x {shape[1]} pixels, but {pair.image} has {size[0]} x {size[1]}{turned}"


def _read(file: str, what: str) -> bytes:
    try:
        return files.path(file).read_bytes()
    except FileNotFoundError:
        raise DeepLabError(f"{file}: missing {what}") from None
    except OSError as error:
        raise DeepLabError(f"{file}: the {what} cannot be read ({error.strerror})") from None


def _checked_image(file: str) -> tuple[bytes, tuple[int, int, bool] | None, list[str]]:
    """Decodes an image; returns its bytes, (height, width, whether EXIF data rotates it) and its faults."""
    content = b""
    try:
        content = _read(file, "image")
        with PIL.Image.open(io.BytesIO(content)) as image:
            if image.format not in ("JPEG", "MPO", "PNG"):
                return content, None, [f"{file}: a {image.format} image; records hold JPEG or PNG, so convert it"]
            image.load()
            turned = image.getexif().get(_ORIENTATION, 1) > 4
            return content, (image.height, image.width, turned), []
    except DeepLabError as error:
        return content, None, [str(error)]
    except PILLOW_ERRORS as error:
        return content, None, [f"{file}: no image that can be decoded ({_short(error, content)})"]


def _short(error: Exception, content: bytes) -> str:
    if isinstance(error, PIL.UnidentifiedImageError):
        return f"begins with {content[:8]!r}" if content else "0 bytes"
    return str(error)


# ---- labels


def _encoded_label(file: str, label_ids: Sequence[int] | None, rules: LabelRules) -> tuple[bytes, np.ndarray]:
    """Returns the PNG to store and its indices, uint8 [h, w]."""
    content = _read(file, "label")
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
    return _indices(file, _read(file, "label"), rules)[0]


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
        raise DeepLabError(f"{file}: no label that can be decoded ({_short(error, content)})") from None
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
