"""The label of each image of a folder, by their names."""

import collections
import dataclasses
import os
from collections.abc import Mapping, Sequence

from deeplab_tf.data.faults import FileError
from deeplab_tf.data.file_tree import extension, without_extension
from deeplab_tf.data.layouts import LABEL_EXTENSIONS, Source, bare_image_stem, image_stems
from deeplab_tf.data.pairs import Pair
from deeplab_tf.errors import DeepLabError

EQUAL_STEMS = "images of the same name"
_SHOWN = 3  # examples in one message
_LOSSY = (".jpg", ".jpeg")  # of a label, to be refused when it is read


@dataclasses.dataclass(frozen=True)
class LabelFiles:
    """The labels of a folder by the names of the images that they belong to (relative, without extension)."""

    root: str
    source: Source
    named: Mapping[str, Sequence[str]]  # the whole stem of the label
    bare: Mapping[str, Sequence[str]]  # without a word such as _mask

    def label_of(self, image: str) -> str | None:
        """Returns the label (relative to the root) of an image, or None.

        Raises:
          DeepLabError: several files may be its label.
        """
        inside = relative(image, self.source.folder)
        stem = without_extension(inside)
        for stems, wanted in (
            (self.named, stem),
            (self.bare, stem),
            (self.named, bare_image_stem(stem)),
            (self.bare, bare_image_stem(stem)),
            (self.named, inside),  # a.jpg.png of a.jpg
        ):
            if found := stems.get(wanted):
                return self._only(image, found)
        return None

    def _only(self, image: str, found: Sequence[str]) -> str:
        exact = [path for path in found if extension(path) == ".png"] or [
            path for path in found if extension(path) not in _LOSSY
        ]
        best = exact or list(found)
        if len(best) > 1:
            listed = " and ".join(os.path.join(self.root, path) for path in best[:2])
            raise DeepLabError(f"{os.path.join(self.root, image)}: {listed} may both be its label; keep one of them")
        return best[0]

    def expected(self, image: str) -> str:
        """Returns the path at which the label of an image is looked for first."""
        # In a folder of both, a.png would be the image itself.
        end = "_mask.png" if self.source.label_folder == self.source.folder else ".png"
        name = os.path.splitext(relative(image, self.source.folder))[0] + end
        return os.path.join(self.root, self.source.label_folder, name)


def label_files(root: str, source: Source) -> LabelFiles:
    """Returns the labels of a source by the names of their images."""
    named: dict[str, list[str]] = collections.defaultdict(list)
    bare: dict[str, list[str]] = collections.defaultdict(list)
    for path in source.labels:
        if extension(path) in LABEL_EXTENSIONS:
            whole, *others = image_stems(without_extension(relative(path, source.label_folder)))
            named[whole].append(path)
            for stem in others:
                bare[stem].append(path)
    return LabelFiles(root, source, named, bare)


def relative(path: str, folder: str) -> str:
    """Returns a path below a folder relative to it."""
    return path.removeprefix(f"{folder}/") if folder else path


def source_pairs(labels: LabelFiles) -> list[Pair]:
    """Returns the pairs of all images of a source, sorted by their names; a missing label is named as expected.

    Raises:
      DeepLabError: two images have one name, and so one label.
    """
    source = labels.source
    require_different_stems(labels.root, source.images)
    pairs = []
    for image in source.images:
        found = labels.label_of(image)
        label = os.path.join(labels.root, found) if found else labels.expected(image)
        pairs.append(Pair(os.path.join(labels.root, image), label, record_name(source, image)))
    return pairs


def record_name(source: Source, image: str) -> str:
    """Returns the name that a record stores for an image: its path in the folder of images, without extension."""
    return os.path.splitext(relative(image, source.folder))[0]


def require_different_stems(root: str, images: Sequence[str]) -> None:
    """Raises DeepLabError if two images differ in their extensions alone: they would share a label."""
    by_stem: dict[str, list[str]] = collections.defaultdict(list)
    for image in images:
        by_stem[without_extension(image)].append(image)
    shared = [found for found in by_stem.values() if len(found) > 1]
    if shared:
        listed = "; ".join(" and ".join(found) for found in shared[:_SHOWN])
        more = f"; and {len(shared) - _SHOWN} more" if len(shared) > _SHOWN else ""
        raise FileError(
            f"{root}: {listed}{more} have the same name and so one label; remove or rename one (a list may name one "
            "with its extension)",
            EQUAL_STEMS,
        )
