"""`LabelStore`: the folder that a person's labels are kept in, each complete on disk before the page calls it saved.

  OUT/images/a.jpg     copies of the pictures that are done, upright
  OUT/labels/a.png     a palette PNG of class indices for each picture that was touched; 255: ignored
  OUT/train.txt        the pictures that are done
  OUT/dataset.json     names and colours of the classes

A label holds in a text of its PNG whose it is, whether it is done, and a number that grows with each save. It is one
file, so it is either the one before or the one after. All else follows from the labels, and is made to at each start.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import pathlib
import threading
from collections.abc import Iterator, Mapping

import numpy as np
import PIL.Image
import PIL.PngImagePlugin

from deeplab_tf import files
from deeplab_tf.catalog.datasets import DATASET_FILE, Dataset, dataset_json, read_dataset
from deeplab_tf.catalog.palettes import Palette
from deeplab_tf.data.masks import VOID
from deeplab_tf.data.photographs import npy_bytes
from deeplab_tf.documents.json_files import JSONError, parse_json
from deeplab_tf.errors import DeepLabError
from deeplab_tf.filesystems import leftovers
from deeplab_tf.labelling.pictures import LabelPicture
from deeplab_tf.ops.images import FORMATS, PILLOW_ERRORS, png_bytes
from deeplab_tf.ops.photograph_files import open_photograph
from deeplab_tf.ops.photographs import Reading, upright

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

IGNORED = 255
_LIST = "train.txt"
_TEXT = "deeplab_label"
_LOCK = ".lock"


class ConflictError(Exception):
    """A label has been saved by somebody else since it was read."""


@dataclasses.dataclass(frozen=True)
class SavedLabel:
    """What is known of a label on disk.

    Attributes:
      source: the name of its picture.
      revision: how often it was saved.
      done: whether the person has said that it is right.
      digest: of the picture's file; "": not known, as in labels of earlier versions.
    """

    source: str
    revision: int
    done: bool
    digest: str = ""


class LabelStore:
    """A folder of labels. Its methods may be called from several threads.

    Args:
      folder: the folder, which may be there already.
      facts: the classes; those of a folder that is there must be the first of them.

    Raises:
      DeepLabError: it cannot be written, another server has it, or it has other classes.
    """

    def __init__(self, folder: str | os.PathLike[str], facts: Dataset) -> None:
        self.folder = files.local_path(folder, flag="--output", why="labels are kept on this machine")
        self.facts = facts
        self._turn = threading.RLock()
        self._saved: dict[str, SavedLabel] = {}  # by stem
        self._copies: dict[str, pathlib.Path] = {}  # by stem
        self._listed: set[str] | None = None  # stems; None: the list has not been written yet
        if facts.num_classes > IGNORED:
            raise DeepLabError(f"{facts.num_classes} classes: expected at most {IGNORED}, as 255 means ignored")

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Locks the folder for this process, reads what is in it, and writes dataset.json, for the context."""
        with contextlib.ExitStack() as stack:
            with files.writing(self.folder, flag="--output", cure="choose another folder"):
                self.folder.mkdir(parents=True, exist_ok=True)
                self._lock(stack)
                for place in (self.folder, self.folder / "labels", self.folder / "images"):
                    if place.is_dir():
                        leftovers.remove_partial(place)
                self._require_classes()
                self._read()
                with files.written(self.folder / DATASET_FILE, flag="--output") as file:
                    file.write_text(dataset_json(self.facts), encoding="utf-8")
            yield

    def _lock(self, stack: contextlib.ExitStack) -> None:
        if fcntl is None:
            return
        lock = stack.enter_context((self.folder / _LOCK).open("a"))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DeepLabError(
                f"--output={self.folder}: another server labels there; stop it or choose another"
            ) from None

    def _require_classes(self) -> None:
        """Raises DeepLabError where the folder has classes that are not the first of those that are labelled now."""
        if not (self.folder / DATASET_FILE).is_file():
            strange = [name for name in ("images", "labels", _LIST) if (self.folder / name).exists()]
            if strange:
                raise DeepLabError(
                    f"--output={self.folder}: holds {strange[0]} and no {DATASET_FILE}; choose another folder"
                )
            return
        there = read_dataset(self.folder).class_names
        if there != self.facts.class_names[: len(there)]:
            pair = next(((a, b) for a, b in zip(there, self.facts.class_names, strict=False) if a != b), None)
            why = f"its class {pair[0]!r} is {pair[1]!r} now" if pair else f"it has {len(there)} classes"
            raise DeepLabError(
                f"--output={self.folder}: labelled with other classes ({why}); choose another folder, or give the same "
                "model and --add"
            )

    def _read(self) -> None:
        labels = self.folder / "labels"
        for path in sorted(labels.rglob("*.png")) if labels.is_dir() else ():
            self._saved[path.relative_to(labels).with_suffix("").as_posix()] = _saved_label(path)
        copies = self.folder / "images"
        for path in sorted(copies.rglob("*")) if copies.is_dir() else ():
            if path.is_file():
                self._copies[path.relative_to(copies).with_suffix("").as_posix()] = path

    # ---- what is there

    @property
    def stems(self) -> Mapping[str, str]:
        """Name of the picture -> stem, of all labels."""
        return {saved.source: stem for stem, saved in self._saved.items()}

    def saved(self, picture: LabelPicture) -> SavedLabel:
        """Returns what is known of a picture's label; of one that there is not, revision 0."""
        return self._saved.get(picture.stem, SavedLabel(picture.name, 0, False))

    def require_same(self, picture: LabelPicture) -> None:
        """Raises DeepLabError where the label that there is was drawn on another picture of the same name."""
        drawn_on = self.saved(picture).digest
        if drawn_on and _digest(picture) not in (drawn_on, ""):
            raise DeepLabError(
                f"--output={self.folder}: {self._file(picture)} was drawn on another picture than {picture.file}; "
                "choose another folder, or remove that label"
            )

    def _file(self, picture: LabelPicture) -> pathlib.Path:
        return self.folder / "labels" / f"{picture.stem}.png"

    def read(self, picture: LabelPicture) -> tuple[np.ndarray | None, SavedLabel]:
        """Returns the label of a picture, uint8 [h, w], or None where there is none, and what is known of it."""
        with self._turn:
            saved = self.saved(picture)
            if not saved.revision:
                return None, saved
            try:
                with PIL.Image.open(self._file(picture), formats=FORMATS) as image:
                    return np.asarray(image), saved
            except PILLOW_ERRORS as error:
                raise DeepLabError(
                    f"{self._file(picture)}: cannot be read ({error}); remove it to start anew"
                ) from None

    # ---- saving

    def save(self, picture: LabelPicture, label: np.ndarray, *, revision: int, done: bool) -> int:
        """Writes a label and returns its new revision when the disk has it.

        Args:
          picture: whose label it is.
          label: uint8 [h, w]: classes, or 255.
          revision: of the label that it was made from; 0: of none.
          done: whether it is right, and goes into the data set.

        Raises:
          ConflictError: the label on disk is of another revision, and another one.
          DeepLabError: it cannot be written.
        """
        with self._turn:
            saved = self.saved(picture)
            if saved.revision != revision:
                before, _ = self.read(picture)
                if before is not None and saved.done == done and np.array_equal(before, label):
                    self.follow(picture)
                    return saved.revision  # the answer to the same request was lost
                raise ConflictError
            after = SavedLabel(picture.name, revision + 1, done, _digest(picture))
            self._write(picture, label, after)
            self._saved[picture.stem] = after
            self.follow(picture)
            return after.revision

    def _write(self, picture: LabelPicture, label: np.ndarray, saved: SavedLabel) -> None:
        image = PIL.Image.fromarray(label)
        image.putpalette(_palette_bytes(self.facts.palette))
        text = PIL.PngImagePlugin.PngInfo()
        text.add_text(_TEXT, json.dumps(dataclasses.asdict(saved)))
        content = io.BytesIO()
        image.save(content, format="PNG", pnginfo=text)
        with files.written(self._file(picture), flag="--output") as file:
            file.write_bytes(content.getvalue())

    def follow(self, picture: LabelPicture) -> None:
        """Makes the copy of a picture and the list of those that are done agree with its label."""
        with self._turn:
            copy = self._copies.get(picture.stem)
            done = self.saved(picture).done
            if done and copy is None:
                content, end = upright_copy(picture.file)
                copy = self.folder / "images" / f"{picture.stem}{end}"
                with files.written(copy, flag="--output") as file:
                    file.write_bytes(content)
                self._copies[picture.stem] = copy
            self._write_list()
            if not done and copy is not None:
                with files.writing(copy, flag="--output"):
                    copy.unlink(missing_ok=True)
                del self._copies[picture.stem]

    def _write_list(self) -> None:
        """Writes the list of the pictures that are done, or removes it where none is: an empty one is an error."""
        done = {stem for stem, saved in self._saved.items() if saved.done and stem in self._copies}
        if done == self._listed:
            return
        with files.writing(self.folder, flag="--output"):
            if done:
                with files.written(self.folder / _LIST, flag="--output") as file:
                    file.write_text("".join(f"{stem}\n" for stem in sorted(done)), encoding="utf-8")
            else:
                (self.folder / _LIST).unlink(missing_ok=True)
        self._listed = done


def _digest(picture: LabelPicture) -> str:
    """Returns a digest of a picture's file; "" where it cannot be read."""
    try:
        return hashlib.sha256(files.path(picture.file).read_bytes()).hexdigest()[:32]
    except OSError:
        return ""


def _saved_label(path: pathlib.Path) -> SavedLabel:
    try:
        with PIL.Image.open(path, formats=FORMATS) as image:
            return parse_json(image.info.get(_TEXT, ""), SavedLabel)
    except (JSONError, *PILLOW_ERRORS):
        raise DeepLabError(f"{path}: not a label that this page has written; choose another folder") from None


def _palette_bytes(palette: Palette) -> bytes:
    colours = [*palette, *[VOID] * (256 - len(palette))]
    return bytes(channel for colour in colours for channel in colour)


def upright_copy(file: str) -> tuple[bytes, str]:
    """Returns a picture's bytes as a data set keeps them, and the end of its file's name.

    They are those of its file, or of one that its EXIF data turn, what build-data stores of it, without loss: nobody
    has to know any more which way the labels were drawn.
    """
    content = files.path(file).read_bytes()
    photograph = open_photograph(content, Reading(None, None, None))
    if photograph.orientation == 1:
        return content, os.path.splitext(file)[1]
    pixels = np.ascontiguousarray(upright(photograph.pixels(), photograph.orientation))
    return (png_bytes(pixels), ".png") if photograph.is_rgb else (npy_bytes(pixels), ".npy")
