"""A folder of annotated pictures as a data set: found, read and drawn."""

import dataclasses
import os

from deeplab_tf import files
from deeplab_tf.catalog.datasets import Dataset
from deeplab_tf.data.annotations.conversion import Conversion, Converted, convert
from deeplab_tf.data.annotations.drawn import attempt
from deeplab_tf.data.annotations.formats import Found, find_annotations, is_panoptic
from deeplab_tf.data.annotations.listing import Listing
from deeplab_tf.data.file_tree import files_below
from deeplab_tf.data.layouts import find_layout
from deeplab_tf.errors import DeepLabError


@dataclasses.dataclass(frozen=True)
class Choice:
    """Which annotations are read, and how they are drawn.

    Attributes:
      place: the file or folder of the annotations; None: they are looked for in the folder.
      format_name: one of `formats.FORMATS`; None: the one that the files have.
      conversion: order, borders, and pictures without annotations.
    """

    place: str | None = None
    format_name: str | None = None
    conversion: Conversion = dataclasses.field(default_factory=Conversion)


def annotated_folder(root: str, facts: Dataset | None, choice: Choice, scratch: str | os.PathLike) -> Converted | str:
    """Returns the data set of the annotations in a folder, or why they are not read: there are none, or masks as well.

    Args:
      root: the folder.
      facts: the classes that the folder lists, if it does.
      choice: what the user wants.
      scratch: an empty folder of this machine for the labels, which lasts until the records are written.

    Raises:
      DeepLabError: annotations are damaged or do not fit their pictures, or a choice has nothing to choose from.
    """
    root = _absolute(root)
    wanted = choice.place is not None or choice.format_name is not None
    masks = [] if wanted else [label for s in find_layout(_without_panoptic(root)).sources for label in s.labels]
    listing = Listing(root)
    if masks:
        found = attempt(find_annotations, listing)
        if not _is_plain(choice):
            cure = "leave these options out, or name the annotations by --annotations"
            raise DeepLabError(
                f"{root}: the labels are masks ({masks[0]}), which drawing options do not concern; {cure}"
            )
        if isinstance(found, Found):
            cure = f"--annotation_format={found.format} reads it instead"
            return f"{found.places[0]} ({found.format}) lies beside masks and is not read; {cure}"
        return ""
    place = None if choice.place is None else _absolute(choice.place)
    found = find_annotations(listing, place, choice.format_name)
    if found is not None:
        return convert(found.open(), facts, listing, scratch, choice.conversion)
    if not _is_plain(choice):
        raise DeepLabError(f"{root}: no annotations to draw, which drawing options are for; leave these options out")
    return ""


def _without_panoptic(root: str) -> list[str]:
    """Returns the files below a folder without the PNGs of a panoptic JSON file, whose colours are no classes."""
    paths = files_below(root)
    folders = {os.path.splitext(path)[0] for path in paths if is_panoptic(path)}
    return [path for path in paths if os.path.dirname(path) not in folders]


def _absolute(place: str) -> str:
    """Returns a path without . and .., from which paths in annotations can be followed."""
    return str(files.path(place)) if files.is_remote(place) else os.path.abspath(files.path(place))


def _is_plain(choice: Choice) -> bool:
    """Returns whether no drawing option was given. The orientation and size of pictures concern masks too."""
    return dataclasses.replace(choice.conversion, upright=True, max_pixels=None) == Conversion()
