"""`Labeller`: the pictures, the model and the labels of one labelling page, apart from HTTP."""

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from deeplab_tf import files
from deeplab_tf.catalog.datasets import Dataset
from deeplab_tf.catalog.palettes import further_colours
from deeplab_tf.config import LabelConfig
from deeplab_tf.data.masks import VOID, LabelRules, read_label
from deeplab_tf.errors import DeepLabError
from deeplab_tf.labelling.model import LabelModel
from deeplab_tf.labelling.pictures import LabelPicture, Place, pictures_below, stems_of
from deeplab_tf.labelling.ranking import Ranking
from deeplab_tf.labelling.store import IGNORED, LabelStore, SavedLabel
from deeplab_tf.labelling.suspects import SuspectList, read_suspects
from deeplab_tf.ops.images import jpeg_bytes
from deeplab_tf.weights.loading import Loaded


@dataclasses.dataclass(frozen=True)
class OpenedLabel:
    """A label as the page gets it.

    Attributes:
      values: uint8 [h, w]: classes, or 255.
      saved: what is known of the one on disk.
      start: what the values are: saved, label (the picture's own), model, or nothing (all ignored).
    """

    values: np.ndarray
    saved: SavedLabel
    start: str


def output_of(options: LabelConfig) -> str:
    """Returns the folder that labels are written to.

    Raises:
      DeepLabError: nothing says which pictures are meant.
    """
    if options.images is None and options.suspects is None:
        raise DeepLabError("--images is missing; expected the folder of the photographs (or --suspects)")
    beside = options.images if options.images is not None else os.path.splitext(options.suspects or "")[0]
    beside = beside if files.is_remote(beside) else os.path.normpath(os.path.join(os.curdir, beside))
    if os.path.basename(beside) in (os.curdir, os.pardir):
        beside = os.path.abspath(beside)
    return options.output or f"{beside}_labelled"


class Labeller:
    """What a labelling page works on. `running` must be entered before anything is asked.

    Args:
      loaded: the model; None: there is none.
      options: pictures, output, and where to listen.

    Raises:
      DeepLabError: there are no pictures; classes contradict each other; or neither model nor suspects say which there
        are.
    """

    def __init__(self, loaded: Loaded | None, options: LabelConfig) -> None:
        self.options = options
        self.draining = False
        self._output = output_of(options)
        self._suspects = read_suspects(options.suspects) if options.suspects else None
        if self._suspects is not None and not self._suspects.pictures:
            raise DeepLabError(f"--suspects={options.suspects}: has no suspects; there is nothing to look at")
        self.facts = _facts(loaded, self._suspects, options, os.path.basename(self._output))
        self.store = LabelStore(self._output, self.facts)
        self._model = LabelModel(loaded and loaded.model, loaded.card if loaded else None, options)
        self.has_model = loaded is not None
        self.pictures: tuple[LabelPicture, ...] = ()
        self._by_identity: dict[str, LabelPicture] = {}
        self._sizes: dict[str, tuple[int, int]] = {}

    def prepare(self) -> None:
        """Compiles the network."""
        self._model.prepare()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Locks the output, lists the pictures and looks at one after the other, for the duration of the context."""
        with self.store.opened():
            self.pictures = tuple(self._listed())
            self._by_identity = {picture.identity: picture for picture in self.pictures}
            for picture in self.pictures:
                if self.store.saved(picture).revision:
                    self.store.require_same(picture)
                    self.store.follow(picture)
            self._ranking = Ranking(self._model, self.pictures)
            self._ranking.start()
            try:
                yield
            finally:
                self._ranking.stop()

    def _listed(self) -> Iterator[LabelPicture]:
        known = self.store.stems
        if self._suspects is not None:
            stems = stems_of([picture.name for picture in self._suspects.pictures], known)
            for picture in self._suspects.pictures:
                places = self._suspects.places(picture.name)
                yield LabelPicture(picture.name, picture.file, stems[picture.name], picture.label, places)
            return
        folder = str(self.options.images)
        names = pictures_below(folder, self.store.folder)
        stems = stems_of(names, known)
        for name in names:
            yield LabelPicture(name, str(files.path(folder) / name), stems[name])

    # ---- what the page asks

    def picture(self, identity: str) -> LabelPicture | None:
        """Returns the picture that a request names, or None."""
        return self._by_identity.get(identity)

    @property
    def version(self) -> str:
        """Changes whenever `state` does."""
        revisions = sum(self.store.saved(picture).revision for picture in self.pictures)
        return f"{len(self._ranking.impressions())}-{revisions}"

    def state(self) -> dict[str, Any]:
        """Returns, as JSON types, the classes and all pictures in the order in which they are worth labelling."""
        names = {picture.name: picture for picture in self.pictures}
        saved = {name: self.store.saved(picture) for name, picture in names.items()}
        seen = self._ranking.impressions()
        done = frozenset(name for name, label in saved.items() if label.done)
        rows = []
        for name in self._ranking.order(done):
            found = seen.get(name)
            row = {
                "id": names[name].identity,
                "name": name.encode("utf-8", "replace").decode(),
                "status": "done" if saved[name].done else "begun" if saved[name].revision else "new",
                "score": None if found is None or not self.has_model else round(found.score, 3),
                "suspects": sum(place.labelled is not None for place in names[name].places),
                "seen": found is not None,
            }
            rows.append(row | ({"error": found.error} if found is not None and found.error else {}))
        facts = zip(self.facts.class_names, self.facts.palette, strict=True)
        return {
            "version": self.version,
            "classes": [{"name": name, "colour": list(colour)} for name, colour in facts],
            "ignored": {"value": IGNORED, "colour": list(VOID)},
            "pictures": rows,
            "seen": len(seen),
            "output": str(self.store.folder),
            "model": self.has_model,
        }

    def photograph(self, picture: LabelPicture) -> bytes:
        """Returns a picture, upright, as a JPEG of its own size. DeepLabError where it cannot be read."""
        shown = self._model.read(picture).shown
        self._sizes[picture.name] = (shown.shape[0], shown.shape[1])
        return jpeg_bytes(shown)

    def thumbnail(self, picture: LabelPicture) -> bytes | None:
        """Returns a small JPEG of a picture that has been looked at; else None."""
        found = self._ranking.impression(picture)
        return found.thumbnail if found is not None and found.thumbnail else None

    def size(self, picture: LabelPicture) -> tuple[int, int]:
        """Returns height and width of a picture, upright."""
        if picture.name not in self._sizes:
            self._sizes[picture.name] = self._model.read(picture).shown.shape[:2]
        return self._sizes[picture.name]

    def open(self, picture: LabelPicture) -> OpenedLabel:
        """Returns the label of a picture: the saved one, else its own, else the model's mask.

        Raises:
          DeepLabError: the picture or its label cannot be read, or they have different sizes.
        """
        label, saved = self.store.read(picture)
        start = "saved"
        if label is None:
            label, start = self.start(picture)
        if label.shape != self.size(picture):
            height, width = self.size(picture)
            raise DeepLabError(
                f"{picture.name}: has {width} x {height} pixels, and its label {label.shape[1]} x {label.shape[0]}; "
                "was the picture changed?"
            )
        return OpenedLabel(label, saved, start)

    def start(self, picture: LabelPicture) -> tuple[np.ndarray, str]:
        """Returns what the label of a picture begins as, uint8 [h, w], and what that is (see OpenedLabel)."""
        if picture.label is not None:
            facts, ignored = self.facts, self._suspects.ignore_label if self._suspects else IGNORED
            label = read_label(picture.label, LabelRules(facts.num_classes, ignored, facts.palette))
            return np.where((label == ignored) | (label >= facts.num_classes), IGNORED, label).astype(np.uint8), "label"
        mask = self._ranking.call(lambda model: model.mask(picture)).result()
        if mask is not None:
            return mask, "model"
        return np.full(self.size(picture), IGNORED, np.uint8), "nothing"

    def places(self, picture: LabelPicture) -> Sequence[Place]:
        """Returns where to look in a picture: at its suspects, or else where the model is unsure."""
        found = self._ranking.impression(picture)
        return picture.places or (found.places if found is not None else ())

    def save(self, picture: LabelPicture, label: np.ndarray, *, revision: int, done: bool) -> int:
        """Saves a label as `LabelStore.save` does, of the picture's size and with known classes.

        Raises:
          ConflictError: as `LabelStore.save`.
          ValueError: it has another size than the picture, or values that are neither classes nor ignored.
        """
        if label.size != np.prod(self.size(picture)):
            raise ValueError(f"{label.size} values; expected one for each of {self.size(picture)} pixels")
        wrong = label[(label >= self.facts.num_classes) & (label != IGNORED)]
        if wrong.size:
            raise ValueError(f"value {wrong[0]}; expected 0..{self.facts.num_classes - 1}, or {IGNORED}")
        return self.store.save(picture, label.reshape(self.size(picture)), revision=revision, done=done)


def _facts(loaded: Loaded | None, suspects: SuspectList | None, options: LabelConfig, name: str) -> Dataset:
    """Returns the classes to label: those of the suspects' data set or else of the model, then the added ones."""
    if loaded is not None:
        loaded.card.require_classes("label with")
    if suspects is not None:
        names, palette = suspects.class_names, suspects.palette
        if loaded is not None and loaded.card.config.num_classes != len(names):
            raise DeepLabError(
                f"--checkpoint has {loaded.card.config.num_classes} classes, --suspects={options.suspects} is of "
                f"{len(names)}; give a model of that data set, or none"
            )
    elif loaded is not None:
        names = loaded.card.shown_names
        palette = loaded.card.shown_palette[: len(names)]
    else:
        raise DeepLabError("--checkpoint is missing; expected a model whose classes are labelled")
    added = options.add or ()
    twice = [one for one in added if one in names]
    if twice:
        raise DeepLabError(f"--add={','.join(added)}: {twice[0]} is a class already; leave it out")
    colours = (*palette, *further_colours((*palette, VOID), len(added)))
    return Dataset(
        name=name,
        num_classes=len(colours),
        ignore_label=IGNORED,
        class_names=(*names, *added),
        palette=colours,
        splits={},
        colour_map="pascal",
        image=loaded.card.image if loaded is not None else None,
    )
