"""Annotations made into pairs of a picture and an index PNG, as records are built from."""

import collections
import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from deeplab_tf import files
from deeplab_tf.catalog import palettes
from deeplab_tf.catalog.datasets import Dataset
from deeplab_tf.data.annotations.classes import ClassTable, Unknown, class_table
from deeplab_tf.data.annotations.drawn import (
    AnnotatedPicture,
    Annotations,
    DrawingOrder,
    Polygon,
    Shape,
    Unusable,
)
from deeplab_tf.data.annotations.listing import Extent, Listing, extent
from deeplab_tf.data.annotations.lists import Lists, read_lists
from deeplab_tf.data.annotations.raster import Painting, paint
from deeplab_tf.data.annotations.reading import split_of_folders
from deeplab_tf.data.pairs import Pair
from deeplab_tf.errors import DeepLabError
from deeplab_tf.ops.images import label_png

_SHOWN = 3  # examples in one line
_MOST_FAULTS = 50  # lines of one error


@dataclasses.dataclass(frozen=True)
class Conversion:
    """What the user chooses.

    Attributes:
      drawing_order: `largest_first` or `as_listed`; None: as_listed where the format gives the order a meaning
        (LabelMe, CVAT, Supervisely, Label Studio), or else largest_first (COCO, YOLO), so that nothing is hidden.
      border_ignore: pixels on either side of a boundary between classes that are ignored.
      unannotated: pictures without a shape are `background`, `leave_out` or `refuse`; None: background where the
        annotations name them (in YOLO always), and left out where they do not.
      upright: whether coordinates refer to the pictures as their EXIF data turn them, which is what programs show, or
        to what is stored.
      max_pixels: larger pictures are faults; None: Pillow's limit.
    """

    drawing_order: DrawingOrder | None = None
    border_ignore: int = 0
    unannotated: str | None = None
    upright: bool = True
    max_pixels: int | None = None


@dataclasses.dataclass(frozen=True)
class Converted:
    """What annotations became.

    Attributes:
      facts: the data set, with its classes and how it was built.
      splits: the pairs of each split; their labels lie in the scratch folder.
      notes: lines for the user: what was left out, what is doubtful.
    """

    facts: Dataset
    splits: Mapping[str, Sequence[Pair]]
    notes: tuple[str, ...]


class _Notes:
    """Findings by kind, each with its number and the first places."""

    def __init__(self) -> None:
        self._places: dict[str, list[str]] = {}
        self._counts: dict[str, int] = {}

    def tell(self, kind: str, where: str) -> None:
        self._counts[kind] = self._counts.get(kind, 0) + 1
        if len(places := self._places.setdefault(kind, [])) < _SHOWN:
            places.append(where)

    def lines(self, what: str) -> list[str]:
        return [
            f"{_counted(self._counts[k], what)} {k} ({_examples(p, self._counts[k])})" for k, p in self._places.items()
        ]


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' if count > 1 else ''}"


def _examples(places: Sequence[str], count: int) -> str:
    return "; ".join(places) + ("; ..." if count > len(places) else "")


@dataclasses.dataclass
class _Work:
    """The state of a conversion."""

    listing: Listing
    scratch: pathlib.Path
    options: Conversion
    painting: Painting
    lists: Lists
    unlisted: list[str] = dataclasses.field(default_factory=list)  # pictures in no list, where there are lists
    pairs: dict[str, list[tuple[Pair, str]]] = dataclasses.field(default_factory=dict)  # with the file that names it
    named: dict[tuple[str, str], str] = dataclasses.field(default_factory=dict)
    empty: list[str] = dataclasses.field(default_factory=list)  # named, without a shape
    remarks: list[str] = dataclasses.field(default_factory=list)
    notes: _Notes = dataclasses.field(default_factory=_Notes)
    faults: list[str] = dataclasses.field(default_factory=list)
    unknown: Unknown = dataclasses.field(default_factory=Unknown)
    shapes: int = 0
    drawn: int = 0


def convert(
    annotations: Annotations, facts: Dataset | None, listing: Listing, scratch: str | os.PathLike, options: Conversion
) -> Converted:
    """Draws the labels of all pictures into a scratch folder.

    Args:
      annotations: from `formats.find_annotations`.
      facts: the classes, where the folder lists them; None: those of the annotations, with a background put first.
      listing: the files of the folder, pictures among them.
      scratch: an empty folder of this machine, which lasts until the records are written.
      options: what the user chooses.

    Raises:
      DeepLabError: annotations are damaged, or do not fit the pictures or the classes; all faults are listed.
    """
    ignore_label = facts.ignore_label if facts else 255
    names = facts.class_names if facts else annotations.class_names()
    if not names:  # of damaged files none are known; the damage is the news
        _raise_faults([str(fault) for fault in annotations.pictures() if isinstance(fault, DeepLabError)])
    table = class_table(names, ignore_label, listing.root)
    order = options.drawing_order or annotations.drawing_order
    painting = Painting(table.label_of, table.background, ignore_label, order, options.border_ignore)
    lists = Lists({}) if annotations.lists == "none" else read_lists(listing, named=annotations.lists == "named")
    work = _Work(listing, pathlib.Path(scratch), options, painting, lists)
    work.faults += work.lists.missing
    for picture in annotations.pictures():
        if isinstance(picture, DeepLabError):
            work.faults.append(str(picture))
        else:
            try:
                _add(work, picture)
            except files.UnwritableError:
                raise  # it is no fault of the annotations
            except DeepLabError as error:
                work.faults.append(str(error))
    _add_others(work, annotations.others_are_background)
    _tell_unlisted(work)
    work.faults += work.unknown.lines(table)
    if work.shapes and not work.drawn and not work.faults:
        what = "; ".join(work.notes.lines("shape"))
        work.faults.append(f"{listing.root}: none of the annotations can be drawn: {what}")
    _raise_faults(work.faults)
    if not work.pairs:
        raise DeepLabError(f"{listing.root}: the annotations ({annotations.format}) name no picture; nothing to build")
    built = {"annotations": annotations.format, "drawing_order": order, "border_ignore": options.border_ignore}
    splits = {split: _named_pairs(pairs) for split, pairs in work.pairs.items()}
    notes = [*annotations.left_out, *work.lists.notes, *work.notes.lines("shape"), *work.remarks]
    return Converted(_facts(facts, listing.root, table, ignore_label, built), splits, tuple(notes))


def _facts(
    facts: Dataset | None, root: str, table: ClassTable, ignore_label: int, built: Mapping[str, object]
) -> Dataset:
    if facts and len(facts.class_names) == len(table.names):
        return dataclasses.replace(facts, built={**facts.built, **built})
    return Dataset(
        name=facts.name if facts else files.path(root).resolve().name,
        num_classes=len(table.names),
        ignore_label=ignore_label,
        class_names=table.names,
        palette=_palette(facts, table),
        splits={},
        colour_map="pascal",
        built=dict(built),
    )


def _palette(facts: Dataset | None, table: ClassTable) -> palettes.Palette:
    """Returns the colours: of classes with their own, a black background is put before them."""
    own = facts.palette if facts and not palettes.is_default(facts.palette) else ()
    if own and (0, 0, 0) not in own and len(own) + 1 == len(table.names) and table.background == 0:
        return ((0, 0, 0), *own)
    return palettes.default_palette(table.names)


def _raise_faults(faults: list[str]) -> None:
    if faults:
        more = [f"... and {len(faults) - _MOST_FAULTS} more"] if len(faults) > _MOST_FAULTS else []
        lines = "\n".join(f"  {fault}" for fault in [*faults[:_MOST_FAULTS], *more])
        raise DeepLabError(f"{len(faults)} faults, nothing was written:\n{lines}")


def _add(work: _Work, picture: AnnotatedPicture) -> None:
    """Draws the label of one picture."""
    file, size = _picture_file(work, picture)
    splits = _splits_of(work, picture, file)
    for split in splits:
        if (split, file) in work.named:
            before = work.named[split, file]
            raise DeepLabError(f"{picture.where}: {file} is annotated before, in {before}; keep one of them")
        work.named[split, file] = picture.where
    if not splits:
        work.unlisted.append(file)
        return
    if not picture.shapes and work.options.unannotated in ("leave_out", "refuse"):
        work.empty.append(file)
        return
    known_shapes = []
    for shape in picture.shapes:
        if shape.label in work.painting.label_of:
            known_shapes.append(_scaled(shape, size) if picture.relative else shape)
        else:
            work.unknown.add(shape)
    left_out = sum(isinstance(shape.outline, Unusable) for shape in picture.shapes)
    work.shapes += len(picture.shapes)
    work.drawn += len(picture.shapes) - left_out
    if not work.faults:  # what is only looked at for more faults needs no label
        named = file if _scratch_of(work) not in file else picture.where
        label = paint(known_shapes, size, work.painting, work.notes.tell)
        for split in splits:
            _store(work, split, (file, named), label)


def _splits_of(work: _Work, picture: AnnotatedPicture, file: str) -> tuple[str, ...]:
    """Returns the splits of a picture: those of the lists, or the one of its annotation or its folder."""
    own = picture.split or _split_of(work, picture.source) or _split_of(work, file) or "train"
    if not work.lists.splits or _scratch_of(work) in file:
        return (own,)
    return work.lists.splits.get(file, ())


def _picture_file(work: _Work, picture: AnnotatedPicture) -> tuple[str, tuple[int, int]]:
    """Returns the file of a picture and its size as it is shown, which is what annotations refer to."""
    try:
        file = work.listing.find(picture)
    except DeepLabError:
        if picture.embedded is None:
            raise
        content = picture.embedded()
        found = extent(f"{picture.where}: imageData", content, max_pixels=work.options.max_pixels)
        file = os.path.join(_scratch_of(work), f"{len(work.named):07d}", os.path.basename(picture.file))
        _write(work, pathlib.Path(file), content)
    else:
        found = extent(file, max_pixels=work.options.max_pixels)
    size = found.shown if work.options.upright else found.stored
    if picture.size and picture.size != size:
        raise DeepLabError(_other_size(picture, file, found))
    return file, size


def _scratch_of(work: _Work) -> str:
    """Returns the folder of the pictures that were within the annotations."""
    return str(work.scratch / "pictures")


def _other_size(picture: AnnotatedPicture, file: str, found: Extent) -> str:
    height, width = picture.size or found.shown
    announced = f"{picture.where}: annotated at {height} x {width} pixels (height x width)"
    shown = f"{found.shown[0]} x {found.shown[1]}"
    if picture.size in (found.stored, found.shown):
        cure = "save it upright" if picture.size == found.stored else "leave out --exif=ignore"
        return f"{announced}, but EXIF data turns {file} of {found.stored[0]} x {found.stored[1]} to {shown}; {cure}"
    return f"{announced}, but {file} has {shown}; annotate this picture, or bring the one that was annotated"


def _scaled(shape: Shape, size: tuple[int, int]) -> Shape:
    """Returns a shape in pixels whose numbers are shares of width and height."""
    outline, scale = shape.outline, np.array(size[::-1], np.float64)
    if isinstance(outline, Polygon):
        parts = tuple((outer * scale, tuple(hole * scale for hole in holes)) for outer, holes in outline.parts)
        return dataclasses.replace(shape, outline=Polygon(parts))
    return shape


def _split_of(work: _Work, file: str) -> str | None:
    """Returns the split of the folders between the root and a file."""
    root = work.listing.root
    return split_of_folders(file[len(root) :]) if file.startswith(root) else None


def _write(work: _Work, place: pathlib.Path, content: bytes) -> None:
    with files.writing(work.scratch, cure="make room there, or give another folder with TMPDIR"):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)


def _store(work: _Work, split: str, image: tuple[str, str], label: np.ndarray) -> None:
    """Writes a label. `image` is the file of the picture, and what its record is named for."""
    pairs = work.pairs.setdefault(split, [])
    place = work.scratch / "labels" / f"{split}-{len(pairs) // 1000:05d}" / f"{len(pairs):07d}.png"
    _write(work, place, label_png(label))
    pairs.append((Pair(image[0], str(place), ""), image[1]))


def _add_others(work: _Work, are_background: bool) -> None:
    """Takes the pictures that no annotation names as empty, leaves them out, or refuses them."""
    named = {file for _, file in work.named}
    named.update(work.unlisted)
    others = [file for file in work.listing.photographs() if file not in named]
    if work.lists.splits:
        work.unlisted += [file for file in others if file not in work.lists.splits]
        others = [file for file in others if file in work.lists.splits]
    choice = work.options.unannotated or ("background" if are_background else "leave_out")
    if work.faults or not (others or work.empty):
        return
    if choice == "background":
        for file in others:
            splits = work.lists.splits.get(file) or (_split_of(work, file) or "train",)
            try:
                found = extent(file, max_pixels=work.options.max_pixels)
            except DeepLabError as error:
                work.faults.append(str(error))
            else:
                size = found.shown if work.options.upright else found.stored
                for split in splits:
                    _store(work, split, (file, file), np.full(size, work.painting.background, np.uint8))
        return
    without = sorted([*others, *work.empty])
    what = f"{_counted(len(without), 'picture')} without annotations ({_examples(without[:_SHOWN], len(without))})"
    cure = "--unannotated=background takes them as background"
    if choice == "refuse":
        work.faults.append(f"{work.listing.root}: {what}; {cure}")
    else:
        work.remarks.append(f"{what} left out; {cure}")


def _tell_unlisted(work: _Work) -> None:
    """Tells of the pictures that no list names, where there are lists: they are in no split."""
    if work.unlisted:
        without_list = sorted(work.unlisted)
        examples = _examples(without_list[:_SHOWN], len(without_list))
        work.remarks.append(f"{_counted(len(without_list), 'picture')} left out, which no list names ({examples})")


def _named_pairs(pairs: Sequence[tuple[Pair, str]]) -> list[Pair]:
    """Returns the pairs with their names in records: the path below the folder common to all, without the ending."""
    folder = os.path.commonpath([os.path.dirname(name) for _, name in pairs]) if len(pairs) > 1 else None
    names = [os.path.relpath(name, folder) if folder else os.path.basename(name) for _, name in pairs]
    stems = [os.path.splitext(name)[0] for name in names]
    alike = collections.Counter(stems)
    chosen = [name if alike[stem] > 1 else stem for name, stem in zip(names, stems, strict=True)]
    return [dataclasses.replace(pair, filename=name) for (pair, _), name in zip(pairs, chosen, strict=True)]
