"""Label files read as class indices: index, palette and colour pictures, and SBD's .mat files.

This module does not import TensorFlow, so that worker processes start fast.
"""

import dataclasses
import io
import zlib
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from deeplab_tf.catalog.palettes import Colour, is_default, label_palette
from deeplab_tf.data.encoded_files import read_file
from deeplab_tf.data.faults import FileError
from deeplab_tf.data.label_samples import Samples, colour_codes, read_samples
from deeplab_tf.ops.images import label_png

VOID = (224, 224, 192)  # PASCAL VOC's colour of the ignore label, 255
BY_COLOURS = "read by its colours"
_LISTED = 5  # labels in one message
_MOST_COLOURS = 300  # of one file that are counted
_MANY = 64  # labels with this many more values than there are classes are not indices of classes


@dataclasses.dataclass(frozen=True)
class LabelRules:
    """The valid labels of a data set, and how other values become valid.

    Attributes:
      num_classes: the classes are 0..num_classes - 1.
      ignore_label: the value of pixels that are not counted.
      palette: the colour of each class, for labels in colours.
      label_map: (old, new) pairs of values to rename.
      threshold: of two classes, grey levels from this one on (0..255) are class 1, all below it class 0; None: the
        values are the classes.
    """

    num_classes: int
    ignore_label: int
    palette: tuple[Colour, ...]
    label_map: tuple[tuple[int, int], ...] = ()
    threshold: int | None = None


@dataclasses.dataclass(frozen=True)
class Label:
    """A label as it is stored.

    Attributes:
      content: the bytes of the file.
      plain: whether a record can hold them as they are.
      classes: what is stored, uint8 [h, w].
      counts: pixels of each value, int64 [256].
      encoding: what the file was, in words, and whether its colours were read.
      strange: (index, colour as a number) of the palette's colours that are not the data set's.
    """

    content: bytes
    plain: bool
    classes: np.ndarray
    counts: np.ndarray
    encoding: str
    strange: tuple[tuple[int, int], ...] = ()

    @property
    def png(self) -> bytes:
        """The 8-bit grey PNG that a record holds."""
        return self.content if self.plain else label_png(self.classes)


@dataclasses.dataclass(frozen=True)
class _Reading:
    indices: np.ndarray  # uint8 [h, w]
    encoding: str
    plain: bool = False
    strange: tuple[tuple[int, int], ...] = ()


def encoded_label(file: str, label_ids: Sequence[int] | None, rules: LabelRules) -> Label:
    """Returns the label of a file.

    Raises:
      DeepLabError: as `read_label`; or a value is no class, or indices and colours of a palette contradict each other.
    """
    content = read_file(file, "label")
    table = np.arange(256, dtype=np.uint8)
    if label_ids is not None:
        table[:] = rules.ignore_label
        table[list(label_ids)] = range(len(label_ids))
    for old, new in rules.label_map:
        table[old] = new
    reading = _read(file, content, rules, table)
    renamed = label_ids is not None or bool(rules.label_map)
    classes = table[reading.indices] if renamed else reading.indices
    counts = np.bincount(classes.ravel(), minlength=256)
    _require_classes(file, counts, rules)
    as_it_is = reading.plain and (not renamed or np.array_equal(classes, reading.indices))
    return Label(content, as_it_is, classes, counts, reading.encoding, reading.strange)


def read_label(file: str, rules: LabelRules) -> np.ndarray:
    """Returns the indices that a label file stores, uint8 [h, w].

    Palette pictures are read by their indices, unless all colours that occur are known and contradict them. Colours
    are those of the data set, or else grey levels that are all classes.

    Raises:
      DeepLabError: the file is missing, damaged or a JPEG, whose values are no longer exact; or a colour is not in the
        palette; or indices and colours of a palette contradict each other and some colours are not in the palette.
    """
    return _read(file, read_file(file, "label"), rules, np.arange(256, dtype=np.uint8)).indices


def _read(file: str, content: bytes, rules: LabelRules, table: np.ndarray) -> _Reading:
    """Returns the indices of a label; `table`, uint8 [256], says what becomes of each."""
    if file.endswith(".mat"):
        return _Reading(_sbd_label(file, content), "SBD annotation")
    samples = read_samples(file, content)
    if rules.threshold is not None:
        levels = _byte(file, _grey_levels(file, samples), samples.encoding)
        return _Reading((levels >= rules.threshold).astype(np.uint8), samples.encoding)
    if samples.values.ndim == 3:
        return _from_colours(file, samples, rules, table)
    if samples.palette is not None:
        return _from_palette(file, samples, rules, table)
    return _Reading(_byte(file, samples.values, samples.encoding), samples.encoding, samples.plain)


def _byte(file: str, values: np.ndarray, encoding: str) -> np.ndarray:
    if values.dtype != np.uint8 and values.size and not 0 <= values.min() <= values.max() <= 255:
        wrong = values.max() if values.max() > 255 else values.min()
        raise FileError(f"{file}: label {wrong} in a {encoding}; expected 0..255", "labels beyond 0..255")
    return values.astype(np.uint8, copy=False)


def _grey_levels(file: str, samples: Samples) -> np.ndarray:
    """Returns the grey levels, integers [h, w], as they are seen: of fewer than 8 bits stretched to 0..255."""
    values = samples.values
    if samples.palette is not None:
        colours = np.zeros((256, 3), np.uint8)
        colours[: len(samples.palette)] = np.array(samples.palette, np.uint8).reshape(-1, 3)
        values = colours[values]
    if values.ndim == 3:
        if (values != values[..., :1]).any():
            raise FileError(f"{file}: a label in colours; --threshold divides grey levels", "colours with --threshold")
        return values[..., 0]
    return values * (255 // (2**samples.bits - 1)) if samples.bits < 8 else values


# ---- colours


def _classes_of(rules: LabelRules) -> Mapping[Colour, tuple[int, ...]]:
    """Returns the classes of each colour, or the ignore label."""
    classes: dict[Colour, tuple[int, ...]] = {}
    for palette in dict.fromkeys((rules.palette, label_palette(rules.palette))):
        for index, colour in enumerate(palette):
            classes[colour] = (*(i for i in classes.get(colour, ()) if i != index), index)
    return {VOID: (rules.ignore_label,), **classes}


def _valid(values: np.ndarray, rules: LabelRules, table: np.ndarray) -> bool:
    """Returns whether all of some values (0..255) are classes or ignored."""
    classes = table[values]
    return bool(((classes < rules.num_classes) | (classes == rules.ignore_label)).all())


def _from_colours(file: str, samples: Samples, rules: LabelRules, table: np.ndarray) -> _Reading:
    """Returns the indices of a label whose values are colours, uint8 [h, w, 3]."""
    classes_of = _classes_of(rules)
    codes = colour_codes(samples.values)
    unique_codes, positions, counts = np.unique(codes, return_inverse=True, return_counts=True)
    colours = [_colour(int(code)) for code in unique_codes]
    unknown = [f"{c} ({n} pixels)" for c, n in zip(colours, counts, strict=True) if c not in classes_of]
    if not unknown:
        classes = np.array([classes_of[c][0] for c in colours], np.uint8)[positions].reshape(codes.shape)
        return _Reading(classes, f"{samples.encoding} {BY_COLOURS}")
    grey = samples.values[..., 0]
    if all(red == green == blue for red, green, blue in colours) and _valid(unique_codes & 255, rules, table):
        return _Reading(np.ascontiguousarray(grey), f"{samples.encoding} of indices")
    more = " and others" if len(unknown) > 3 else ""
    listed = ", ".join(unknown[:3]) + more
    largest = np.argsort(-counts, kind="stable")[:_MOST_COLOURS]
    amounts = [(int(unique_codes[i]), int(counts[i])) for i in largest]
    raise FileError(
        f"{file}: a colour label with {listed}, not in the palette; give it in dataset.json", "unknown colours", amounts
    )


def _colour(code: int) -> Colour:
    return code >> 16, code >> 8 & 255, code & 255


def _from_palette(file: str, samples: Samples, rules: LabelRules, table: np.ndarray) -> _Reading:
    """Returns the indices of a palette picture: those stored, or of the colours where they are all known and differ.

    A colour says nothing where the palette repeats it at the place of its class, as palettes padded with black do.
    """
    indices = samples.values
    palette = samples.palette or ()
    classes_of = _classes_of(rules)
    by_colour = np.arange(256, dtype=np.uint8)
    contradicting: list[int] = []
    unknown: list[int] = []
    for index in np.flatnonzero(np.bincount(indices.ravel(), minlength=256)).tolist():
        colour = palette[index] if index < len(palette) else None
        classes = classes_of.get(colour, ()) if colour else ()
        if not classes:
            unknown.append(index)
            continue
        by_colour[index] = classes[0]
        same = table[index] in classes or any(index == c or table[index] == table[c] for c in classes)
        if not same and not any(c < len(palette) and palette[c] == colour for c in classes):
            contradicting.append(index)
    if unknown and (levels := _grey_classes(palette, [*unknown, *contradicting], rules, table)) is not None:
        same = (levels[indices] == indices).all()
        return _Reading(levels[indices], samples.encoding if same else f"{samples.encoding} {BY_COLOURS}")
    if contradicting and _is_grey_ramp(palette) and is_default(rules.palette):
        return _Reading(indices, samples.encoding)
    if not contradicting:
        strange = tuple((i, _code(palette[i])) for i in unknown if i < len(palette))
        return _Reading(indices, samples.encoding, strange=strange)
    if unknown:
        raise FileError(_contradiction(file, samples, contradicting[0], by_colour, unknown[0]), "palettes")
    return _Reading(by_colour[indices], f"{samples.encoding} {BY_COLOURS}")


def _grey_classes(
    palette: Sequence[Colour], occurring: Sequence[int], rules: LabelRules, table: np.ndarray
) -> np.ndarray | None:
    """Returns the grey level of each index, uint8 [256], where the grey levels of a palette are classes; else None.

    So are the palettes of GIFs of index masks. Black and white alone do not stand for classes 0 and 255.
    """
    if any(i >= len(palette) or len(set(palette[i])) > 1 for i in occurring):
        return None
    levels = np.arange(256, dtype=np.uint8)
    levels[: len(palette)] = [red if red == green == blue else i for i, (red, green, blue) in enumerate(palette)]
    found = levels[list(occurring)]
    if not _valid(found, rules, table) or set(found.tolist()) <= {0, rules.ignore_label}:
        return None
    return levels


def _code(colour: Colour) -> int:
    return colour[0] << 16 | colour[1] << 8 | colour[2]


def _is_grey_ramp(palette: Sequence[Colour]) -> bool:
    """Returns whether a palette is the one that programs write where none is given: (i, i, i) for index i."""
    return all(colour == (index, index, index) for index, colour in enumerate(palette))


def _contradiction(file: str, samples: Samples, index: int, by_colour: np.ndarray, unknown: int) -> str:
    palette = samples.palette or ()
    other = f"{palette[unknown]} of index {unknown} is" if unknown < len(palette) else f"index {unknown} has"
    return (
        f"{file}: a palette whose index {index} has the colour {palette[index]} of class {by_colour[index]}, while "
        f"{other} no colour of the data set: do indices or colours count? Give all colours in dataset.json (palette), "
        "or save the labels as grey PNGs of indices"
    )


# ---- SBD


def _sbd_label(file: str, content: bytes) -> np.ndarray:
    """Returns the classes of an SBD annotation (cls/<id>.mat: GTcls.Segmentation), uint8 [h, w]."""
    import scipy.io

    # SciPy raises NotImplementedError for a file of MATLAB 7.3, which is HDF5, and LookupError for a short file.
    unreadable = (scipy.io.matlab.MatReadError, NotImplementedError, LookupError, AttributeError, TypeError, ValueError)
    try:
        values = scipy.io.loadmat(io.BytesIO(content), squeeze_me=True, struct_as_record=False)
        return np.asarray(values["GTcls"].Segmentation, np.uint8)
    except (*unreadable, OSError, zlib.error) as error:
        raise FileError(f"{file}: no SBD annotation with GTcls.Segmentation ({error})", "damaged label") from None


# ---- values that are not classes


def _require_classes(file: str, counts: np.ndarray, rules: LabelRules) -> None:
    present = np.flatnonzero(counts).tolist()
    wrong = [i for i in present if i >= rules.num_classes and i != rules.ignore_label]
    if wrong:
        more = " and others" if len(wrong) > _LISTED else ""
        listed = ", ".join(f"{i} ({counts[i]} pixels)" for i in wrong[:_LISTED]) + more
        raise FileError(
            f"{file}: label {listed}; expected 0..{rules.num_classes - 1} or {rules.ignore_label} (ignored)"
            f"{label_cure(present, rules)}",
            "labels that are not classes",
            [(i, int(counts[i])) for i in present],
        )


def label_cure(present: Collection[int], rules: LabelRules) -> str:
    """Returns what probably mends labels of the values `present`, which are not all classes; or nothing.

    It begins with a semicolon, to stand at the end of a message.
    """
    values = set(present)
    wrong = sorted(i for i in values if i >= rules.num_classes and i != rules.ignore_label)
    two = rules.num_classes == 2
    highest = max(values - {rules.ignore_label}, default=0)
    if values <= {0, 255}:
        return "; a mask of 0 and 255? --label_map=255:1 makes it 0 and 1"
    if two and len(wrong) == 1 and values <= {0, wrong[0], rules.ignore_label}:
        value = wrong[0]
        if rules.ignore_label in values:
            return (
                f"; --label_map={value}:1 makes {value} class 1 and leaves {rules.ignore_label} ignored, "
                f"--label_map={value}:{rules.ignore_label},{rules.ignore_label}:1 does the reverse"
            )
        return f"; a mask of 0 and {value}? --label_map={value}:1 makes it 0 and 1"
    if highest == rules.num_classes and 0 not in values:
        renamed = ",".join(f"{i + 1}:{i}" for i in range(rules.num_classes))
        return f"; do the labels begin at 1? --label_map={renamed}"
    if two and len(wrong) > 1 and values <= {*wrong, rules.ignore_label} and len(wrong) == 2:
        return f"; a mask of {wrong[0]} and {wrong[1]}? --label_map={wrong[0]}:0,{wrong[1]}:1 makes it 0 and 1"
    if two and len(wrong) > 1:
        return "; smoothed edges? --threshold=128 makes everything from there on class 1, the rest class 0"
    if len(wrong) > _MANY:
        return "; smoothed edges, a photograph or a map of probabilities? Export the labels without anti-aliasing"
    return ""


def binary_mask_fault(counts: np.ndarray, rules: LabelRules) -> str | None:
    """Returns the fault of a data set whose labels are all 0 or an ignored 255, or None.

    Such labels are usually masks; no network could learn from them. counts: int64 [256], pixels of each label.
    """
    if rules.ignore_label == 255 and counts[255] and set(np.flatnonzero(counts)) <= {0, 255}:
        return "all labels hold only 0 and 255 (ignored): masks of 0 and 255? --label_map=255:1 makes them 0 and 1"
    return None
