"""The files below a folder, and the pictures that annotations name among them."""

import collections
import dataclasses
import io
import os
import posixpath
import unicodedata

import PIL.Image

from deeplab_tf import files
from deeplab_tf.data.annotations.drawn import AnnotatedPicture
from deeplab_tf.data.annotations.reading import joined
from deeplab_tf.data.file_tree import files_below
from deeplab_tf.data.pairs import IMAGE_EXTENSIONS
from deeplab_tf.errors import DeepLabError, first_line
from deeplab_tf.ops.images import PILLOW_ERRORS, opened_image
from deeplab_tf.ops.photograph_files import open_photograph
from deeplab_tf.ops.photographs import Reading

_ORIENTATION = 0x0112  # tag of the orientation in EXIF data
# Folders whose pictures are labels and no photographs.
LABEL_FOLDERS = frozenset(
    ("labels", "label", "masks", "mask", "annotations", "ann", "segmentationclassraw", "segmentationclass")
    + ("segmentationobject", "segmentationclasspng", "segmentationclassvisualization")
)
_WHOLE = (".tif", ".tiff", ".npy")  # pictures that Pillow may not read: several bands, floats
_MASK_ENDINGS = (".png", ".tif", ".tiff", ".bmp", ".gif", ".webp")


class Listing:
    """The files below a folder, links to folders followed; those whose names begin with a dot are left out."""

    def __init__(self, root: str):
        self.root = root
        self._by_extension: dict[str, list[str]] = collections.defaultdict(list)
        for file in (posixpath.join(root, path) for path in files_below(root)):
            self._by_extension[os.path.splitext(file)[1].lower()].append(file)
        self._pictures = {file: None for ending in IMAGE_EXTENSIONS for file in self._by_extension.get(ending, ())}
        self._annotated = frozenset(self._by_extension.get(".json", ()))
        self._by_name: dict[str, list[str]] = collections.defaultdict(list)
        for file in self._pictures:
            self._by_name[_spelling(os.path.basename(file))].append(file)

    def files(self, *endings: str) -> list[str]:
        """Returns the files with these endings (.json), in order."""
        return [file for ending in endings for file in self._by_extension.get(ending, ())]

    def photographs(self) -> list[str]:
        """Returns the pictures that are no masks."""
        return [file for file in self._pictures if not self.is_label(file)]

    def is_label(self, file: str) -> bool:
        """Returns whether a picture is a mask: no JPEG, in a folder of labels, and without annotations of its own."""
        stem, ending = os.path.splitext(file)
        if ending.lower() not in _MASK_ENDINGS or f"{stem}.json" in self._annotated:
            return False
        folders = os.path.dirname(file[len(self.root) :]).lower().replace(os.sep, "/").split("/")
        return not LABEL_FOLDERS.isdisjoint(folders) or any(folder.startswith("panoptic") for folder in folders)

    def find(self, picture: AnnotatedPicture) -> str:
        """Returns the file of a picture.

        It is looked for in the picture's own folders, in the root, and then by its name alone; never outside the root.

        Raises:
          DeepLabError: there is none, or several have the name.
        """
        for folder in (*picture.folders, self.root):
            file = joined(folder, picture.file)
            if file in self._pictures:
                return file
        for name in (picture.file, *picture.other_names):
            found = self._called(name)
            if len(found) > 1:
                listed = ", ".join(found[:3])
                raise DeepLabError(f"{picture.where}: {len(found)} pictures are called {name} ({listed}); rename them")
            if found:
                return found[0]
        raise DeepLabError(f"{picture.where}: missing image {picture.file}; expected it below {self.root}")

    def _called(self, name: str) -> list[str]:
        """Returns the pictures of a name, in any case; of several those whose folders are named too."""
        parts = [part for part in _spelling(name).split("/") if part not in ("", ".", "..")]
        if not parts:
            return []
        found = [file for file in self._by_name.get(parts[-1], ()) if not self.is_label(file)]
        for length in range(2, len(parts) + 1):
            nearer = [file for file in found if _spelling(file).endswith("/" + "/".join(parts[-length:]))]
            if len(found) < 2 or not nearer:
                break
            found = nearer
        return found


def _spelling(name: str) -> str:
    """Returns a name as it compares: in small letters and composed, as macOS does not write it."""
    return unicodedata.normalize("NFC", name).lower()


@dataclasses.dataclass(frozen=True)
class Extent:
    """The size of a picture, (height, width), as it is stored and as it is shown, turned by its EXIF data."""

    stored: tuple[int, int]
    shown: tuple[int, int]


def extent(file: str, content: bytes | None = None, *, max_pixels: int | None = None) -> Extent:
    """Returns the size of a picture, of which the beginning is read.

    Raises:
      DeepLabError: it is not a picture, or has more than `max_pixels`, without a number more than Pillow's limit.
    """
    try:
        if content is None and os.path.splitext(file)[1].lower() in _WHOLE:
            photograph = open_photograph(files.path(file).read_bytes(), Reading(max_pixels=max_pixels))
            return Extent(photograph.size, photograph.upright_size)
        opened = io.BytesIO(content) if content is not None else files.path(file).open("rb")
        with opened as stream, opened_image(stream, max_pixels) as image:
            stored = (image.height, image.width)
            turned = _orientation(image) > 4
    except DeepLabError as error:
        raise DeepLabError(f"{file}: {error}") from None
    except PIL.UnidentifiedImageError:
        raise DeepLabError(f"{file}: not an image; expected JPEG, PNG or the like") from None
    except PILLOW_ERRORS as error:
        raise DeepLabError(f"{file}: an image that cannot be read ({first_line(error)})") from None
    return Extent(stored, (stored[1], stored[0]) if turned else stored)


def _orientation(image: PIL.Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except PILLOW_ERRORS:
        return 1  # the EXIF block is damaged, the pixels are not
    return value if isinstance(value, int) else 1
