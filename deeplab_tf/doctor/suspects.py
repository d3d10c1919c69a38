"""The search for suspects: labelled regions that trained networks contradict with confidence.

Networks learn the wrong labels too that they are trained on, so each picture is judged by those that have not seen it,
as far as there are any: cross-validation, if several runs on other divisions of one data set are given.
"""

import collections
import dataclasses
import hashlib
import io
import itertools
import json
import os
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import PIL.Image

from deeplab_tf import files
from deeplab_tf.config import DataConfig, PredictConfig
from deeplab_tf.data.locate import locate_records
from deeplab_tf.data.masks import LabelRules, encoded_label
from deeplab_tf.data.records import image_format
from deeplab_tf.doctor.findings import NOTE, WARNING, Diagnosis, Finding
from deeplab_tf.doctor.samples import DatasetOnDisk, Example, record_names
from deeplab_tf.errors import DeepLabError
from deeplab_tf.inference.predictor import Predictor
from deeplab_tf.inference.runtime import runtime_predictor
from deeplab_tf.inference.tiles import segment_probabilities
from deeplab_tf.labelling.suspects import ConfidentLearning, Suspect, SuspectList, SuspectPicture
from deeplab_tf.ops.images import FORMATS, PILLOW_ERRORS, png_bytes, resize_labels, resize_longest
from deeplab_tf.ops.network_pictures import read_photograph
from deeplab_tf.weights.loading import Loaded, open_model
from deeplab_tf.weights.run_options import PLACES, read_run

_SHOWN = 10
_WHOLE = PredictConfig(resize="none")
_MOST_PIXELS = 1 << 22  # of a picture that is judged at its own size, as eval does; larger ones are shrunk
# How it is known that a network has not seen a picture.
_UNSEEN, _UNKNOWN, _SEEN = "not trained on them", "not known whether trained on them", "trained on them"


@dataclasses.dataclass(frozen=True)
class _Judge:
    """A network, and the names of the pictures that it was trained on; None: not known."""

    loaded: Loaded
    predictor: Predictor
    trained_on: frozenset[str] | None

    def knows(self, example: Example, dataset: str, split: str) -> str:
        """Returns whether the network has seen a picture."""
        if self.trained_on is not None:
            return _SEEN if example.stem in self.trained_on else _UNSEEN
        return _SEEN if self.loaded.card.seen(dataset, split) else _UNKNOWN


def _judge(checkpoint: str, data: DatasetOnDisk) -> _Judge:
    loaded = open_model(checkpoint)
    loaded.card.require_classes("find suspects with", checkpoint)
    if loaded.card.config.num_classes != data.facts.num_classes:
        raise DeepLabError(
            f"{checkpoint}: has {loaded.card.config.num_classes} classes, {data.root} has {data.facts.num_classes}; "
            "give a network that was trained on such labels"
        )
    predictor = runtime_predictor(loaded.model, "auto", pixels=float("inf"))
    return _Judge(loaded, predictor, _trained_on(checkpoint))


def _trained_on(checkpoint: str) -> frozenset[str] | None:
    """Returns the names of the pictures that a run was trained on, from its records; None where these are not there."""
    place = files.path(checkpoint)
    run = read_run(place if place.is_dir() else place.parent) if not checkpoint.startswith("hf:") else {}
    folder, split = run.get(PLACES, {}).get("dataset_dir"), run.get("train_split")
    if not folder or not split:
        return None
    try:
        located = locate_records(DataConfig(dataset_dir=folder, dataset=run.get("dataset")), split)
    except DeepLabError:
        return None
    names = frozenset(record_names(located))
    return names if names and "" not in names else None


@dataclasses.dataclass
class _Search:
    """What is found so far. Each group of pictures has its own thresholds: networks are surer of those seen."""

    data: DatasetOnDisk
    judges: Sequence[_Judge]
    groups: dict[str, ConfidentLearning]
    counts: collections.Counter[str]
    pictures: dict[str, SuspectPicture]
    failed: list[str]
    examples: dict[str, str] = dataclasses.field(default_factory=dict)  # name of a picture -> that of its example

    def add(self, example: Example, split: str) -> None:
        """Judges one example."""
        try:
            label = self._label(example)
            photograph = read_photograph(example.photograph(), self.judges[0].loaded.card.image, name=example.name)
            if photograph.shown.shape[:2] != label.shape:
                raise DeepLabError(f"{example.name}: image and label differ in size")
        except DeepLabError as error:
            self.failed.append(str(error))
            return
        by_knowledge = collections.defaultdict(list)
        for judge in self.judges:
            by_knowledge[judge.knows(example, self.data.facts.name, split)].append(judge)
        group = next(kind for kind in (_UNSEEN, _UNKNOWN, _SEEN) if kind in by_knowledge)
        pixels = _bounded(photograph.pixels)
        judges = by_knowledge[group]
        probabilities = np.mean([segment_probabilities(judge.predictor, pixels, _WHOLE) for judge in judges], axis=0)
        name = example.name if example.pair is not None else self._name(example, split)
        self.examples[name] = example.name
        self.groups[group].add(name, resize_labels(label, *probabilities.shape[:2]), probabilities)
        self.counts[group] += 1
        if example.pair is not None and example.pair.label is not None:
            self.pictures[name] = SuspectPicture(name, _absolute(example.pair.image), _absolute(example.pair.label))

    def _name(self, example: Example, split: str) -> str:
        """Returns what the picture of a record is called: as a file below a folder of its split."""
        end = f".{image_format(example.image or b'')}"
        stem = f"{split}/{example.stem or 'picture'}"
        numbered = (f"{stem}{end}" if number == 1 else f"{stem}-{number}{end}" for number in itertools.count(1))
        return next(name for name in numbered if name not in self.examples)

    def write_pictures(self, folder: str, wanted: Iterable[str]) -> None:
        """Writes what records hold of the `wanted` pictures to files, which are called by their content.

        Labels are written without a palette: TensorFlow reads the indices whatever its colours are.
        """
        names = {self.examples[name]: name for name in wanted}
        labelled = (split for split in self.data.splits if split not in self.data.unlabelled)
        for example in itertools.chain.from_iterable(map(self.data.examples, labelled)):
            name = names.get(example.name)
            if name is None:
                continue
            image, label = example.photograph(), png_bytes(self._label(example))
            stem = hashlib.sha256(image + label).hexdigest()[:16]
            written = {f"{stem}.{image_format(image)}": image, f"{stem}.label.png": label}
            for file, content in written.items():
                with files.written(os.path.join(folder, file), flag="--suspects", durable=False) as place:
                    place.write_bytes(content)
            beside = os.path.basename(folder)
            self.pictures[name] = SuspectPicture(name, *(os.path.join(beside, file) for file in written))

    def _label(self, example: Example) -> np.ndarray:
        """Returns the classes that a label holds, uint8 [h, w]."""
        facts = self.data.facts
        if example.pair is not None:
            if example.pair.label is None:
                raise DeepLabError(f"{example.name}: has no label")
            rules = LabelRules(facts.num_classes, facts.ignore_label, facts.palette)
            return encoded_label(example.pair.label, example.pair.label_ids, rules).classes
        try:
            with PIL.Image.open(io.BytesIO(example.label or b""), formats=FORMATS) as image:
                return np.asarray(image.convert("L") if image.mode not in ("L", "P") else image)
        except PILLOW_ERRORS as error:
            raise DeepLabError(f"{example.name}: has a label that cannot be read ({error})") from None

    def suspects(self) -> tuple[Suspect, ...]:
        """Returns the suspects of all groups, the worst first."""
        found = [suspect for group in self.groups.values() for suspect in group.suspects()]
        return tuple(sorted(found, key=lambda suspect: -suspect.score))


def _absolute(place: str) -> str:
    place = str(files.path(place))
    return place if files.is_remote(place) else os.path.abspath(place)


def _bounded(pixels: np.ndarray) -> np.ndarray:
    """Returns a photograph, [h, w, channels], of at most _MOST_PIXELS pixels."""
    count = pixels.shape[0] * pixels.shape[1]
    if count <= _MOST_PIXELS:
        return pixels
    return resize_longest(pixels, int(max(pixels.shape[:2]) * (_MOST_PIXELS / count) ** 0.5))


def check_suspects(
    checkpoints: Sequence[str],
    data: DatasetOnDisk,
    output: str | os.PathLike[str],
    *,
    advance: Callable[[], object] = lambda: None,
) -> Diagnosis:
    """Writes the list of suspects of a data set, which `deeplab-tf label --suspects` opens, and returns the worst.

    Pictures of records with suspects are written beside it, to a folder of its name with `_pictures`.

    Args:
      checkpoints: networks of the data set's classes, as `open_model` opens them. Each picture is judged by those that
        were not trained on it; by all, if there is none.
      data: the data set; of splits without labels nothing is looked at.
      output: the file to write.
      advance: called after each picture.

    Raises:
      DeepLabError: a checkpoint cannot be opened or has other classes, the file cannot be written, or not one picture
        can be judged.
    """
    copies = f"{os.path.splitext(output)[0]}_pictures"
    if data.in_records and files.path(copies).is_file():
        raise DeepLabError(
            f"--suspects={output}: the pictures go to the folder {copies}, which is a file; name another"
        )
    judges = [_judge(checkpoint, data) for checkpoint in checkpoints]
    facts = data.facts
    groups = {kind: ConfidentLearning(facts.num_classes, facts.ignore_label) for kind in (_UNSEEN, _UNKNOWN, _SEEN)}
    search = _Search(data, judges, groups, collections.Counter(), {}, [])
    for split in data.splits:
        if split in data.unlabelled:
            continue
        for example in data.examples(split):
            search.add(example, split)
            advance()
    if not search.counts:
        reason = f" ({search.failed[0]})" if search.failed else ""
        raise DeepLabError(f"{data.root}: not one picture with its label can be judged{reason}")
    suspects = search.suspects()
    by = _judged_by(search, len(judges))
    named = dict.fromkeys(suspect.picture for suspect in suspects)
    if data.in_records:
        search.write_pictures(copies, named)
    pictures = tuple(search.pictures[name] for name in named if name in search.pictures)
    found = SuspectList(facts.class_names, facts.palette, facts.ignore_label, pictures, suspects, by.evidence)
    with files.written(output, flag="--suspects") as file:
        file.write_text(json.dumps(dataclasses.asdict(found)) + "\n", encoding="utf-8")
    # Without a network, labelling takes pictures for 8-bit RGB.
    model = f" --checkpoint={checkpoints[0]}" if facts.image else ""
    findings = (_finding(suspects, data, f"--suspects={output}{model}"), by)
    return Diagnosis(
        f"Suspects of {data.root}", findings, {"pictures": sum(search.counts.values()), "suspects": len(suspects)}
    )


def _finding(suspects: Sequence[Suspect], data: DatasetOnDisk, opened_by: str) -> Finding:
    """Returns the finding of the worst suspects."""
    if not suspects:
        return Finding("suspect-labels", NOTE, ("no labelled region is contradicted with confidence",))
    names = data.facts.class_names
    pictures = len({suspect.picture for suspect in suspects})
    lines = [
        f"{len(suspects)} regions in {pictures} pictures are labelled otherwise than the network is sure of; the worst:"
    ]
    for suspect in suspects[:_SHOWN]:
        left, top, wide, high = (100 * share for share in suspect.box)
        where = f"{left:.0f} to {left + wide:.0f} % of the width, {top:.0f} to {top + high:.0f} % of the height"
        classes = f"labelled {names[suspect.labelled]}, predicted {names[suspect.predicted]}"
        lines.append(f"{suspect.picture}: {classes} ({suspect.score:.3f}), {where}")
    cure = f"look at them: deeplab-tf label {opened_by}; the network may be wrong as well"
    return Finding("suspect-labels", WARNING, tuple(lines), cure)


def _judged_by(search: _Search, judges: int) -> Finding:
    """Returns the note on who has judged the pictures."""
    told: Iterable[str] = (f"{count} pictures were judged by networks {kind}" for kind, count in search.counts.items())
    lines = [f"{', '.join(told)} ({judges} in all)"]
    if search.failed:
        lines.append(f"{len(search.failed)} could not be judged: {search.failed[0]}")
    cure = ""
    if search.counts[_SEEN] or search.counts[_UNKNOWN]:
        lines.append("a network repeats wrong labels that it was trained on: such suspects are missed")
        cure = (
            "train on other divisions of the same pictures (build-data --val_share=0.2 --split_seed=1, 2...) and give "
            "those runs as --fold_checkpoints"
        )
    return Finding("suspects-judged-by", NOTE, tuple(lines), cure)
