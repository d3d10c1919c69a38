"""Proving a released checkpoint: archive, variables, weights, a prediction, and the published score where the data is.

What an archive's weights sum to and predict is recorded in checkpoints/<name>.reference.json (`record`), once someone
has verified them against the published sum or score.
"""

import base64
import dataclasses
import hashlib
import importlib.resources
import io
import json
import os
import pathlib
from collections.abc import Mapping

import keras
import numpy as np
import PIL.Image

from deeplab_tf import files
from deeplab_tf.catalog.datasets import DATASET_FILE, DATASETS, read_dataset
from deeplab_tf.config import DataConfig, Inference
from deeplab_tf.data.pairs import label_png
from deeplab_tf.data.pipeline import make_dataset
from deeplab_tf.data.records import count_examples
from deeplab_tf.data.shapes import FIRST_INDEX, shapes_example
from deeplab_tf.errors import DeepLabError
from deeplab_tf.evaluation.evaluate import score
from deeplab_tf.evaluation.passes import SILENT, Observer
from deeplab_tf.inference.predictor import predictor_of
from deeplab_tf.weights.loading import manifest_of, open_model
from deeplab_tf.weights.sources import open_source
from deeplab_tf.weights.tf1 import training_state, variable_map
from deeplab_tf.zoo import download, lookup
from deeplab_tf.zoo.contamination import contamination
from deeplab_tf.zoo.entry import ReleasedCheckpoint, Score

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
UNAVAILABLE = "unavailable"
_PICTURE = {"index": FIRST_INDEX["test"], "height": 193, "width": 257}  # of shapes_example: the bundled image
_AGREEMENT = 0.999  # two builds of TensorFlow differ in ties alone
_TOLERANCE = 0.2  # points of per cent: decoders of JPEG and the order of sums differ
# What the release pads images to; the pooling window follows from it.
_CROPS = {"pascal_voc_seg": (513, 513), "cityscapes": (1025, 2049), "shapes": (129, 129)}
_LABELLED = {"test": "val", "test_fine": "val_fine"}  # where a score of the test server can be measured at all
_SCORES = {"mIoU": "miou", "pixel accuracy": "pixel_accuracy"}


@dataclasses.dataclass(frozen=True)
class Check:
    """One check: archive, variables, weights, prediction or data; passed, failed or skipped; and why."""

    name: str
    status: str
    words: str


@dataclasses.dataclass(frozen=True)
class Measured:
    """A published score beside ours, in percent. `contaminated` says why ours is of images the weights have seen."""

    settings: str
    published: float
    measured: float
    verdict: str
    contaminated: str | None = None


@dataclasses.dataclass(frozen=True)
class Verification:
    """All checks of one checkpoint, and its scores."""

    name: str
    checks: tuple[Check, ...]
    scores: tuple[Measured, ...] = ()

    @property
    def verdict(self) -> str:
        """failed where a check has, or a score is lower than published; unavailable where there is no archive."""
        if any(check.status == FAILED for check in self.checks) or any(s.verdict == "lower" for s in self.scores):
            return FAILED
        return UNAVAILABLE if self.checks[0].status == SKIPPED else PASSED

    def to_json(self) -> dict:
        """Returns it as JSON types."""
        return {**dataclasses.asdict(self), "verdict": self.verdict}


def verify(
    entry: ReleasedCheckpoint,
    *,
    dataset_dir: str | os.PathLike | None = None,
    reference: Mapping | None = None,
    cache: str | os.PathLike | None = None,
    observer: Observer = SILENT,
) -> Verification:
    """Returns what became of every check of a released checkpoint.

    Args:
      entry: of `zoo.CHECKPOINTS`.
      dataset_dir: TFRecords of its data set: each published score is measured, at its own settings.
      reference: what its weights sum to and predict; None: what is recorded in the package, if anything.
      cache: folder of the archives; None: `download.cache_folder()`.
      observer: told of each batch that is scored.

    Raises:
      DeepLabError: records that are damaged in the midst. All else is a check that failed.
    """
    reference = recorded_reference(entry.name) if reference is None else reference
    archive, path = _archive(entry, reference, cache)
    if path is None:
        return Verification(entry.name, (archive,))
    variables = _variables(entry, path)
    weights, model = _weights(entry, path, reference) if variables.status == PASSED else (None, None)
    checks = [archive, variables, *([weights] if weights else [])]
    if model is not None and entry.kind != "backbone":
        checks.append(_prediction(model, reference))
    del model
    scores: list[Measured] = []
    if dataset_dir and entry.scores and weights:
        data = _data(entry, dataset_dir)
        checks.append(data)
        if data.status == PASSED:
            scores += (_measured(entry, published, path, dataset_dir, observer) for published in entry.scores)
    return Verification(entry.name, tuple(checks), tuple(scores))


# ---- the archive and its weights


def _archive(entry: ReleasedCheckpoint, reference: Mapping, cache) -> tuple[Check, pathlib.Path | None]:
    """Returns the check of the file's sum, and where it is; a wrong file is looked at all the same."""
    if entry.kind == "embedded":
        path = lookup.embedded_folder(entry)
        with open_source(path) as source:
            return _summed(source.sha256, reference.get("sha256"), "recorded"), path
    path = lookup.archive_path(entry, cache=cache)
    try:
        lookup.fetch(entry, cache=cache)
        found = download.verify(path, sha256=entry.sha256)
    except DeepLabError as error:
        there = path.is_file()
        return Check("archive", FAILED if there else SKIPPED, str(error)), path if there else None
    expected, origin = (entry.sha256, "published") if entry.sha256 else (reference.get("sha256"), "recorded")
    return _summed(found, expected, origin), path


def _summed(found: str, expected: str | None, origin: str) -> Check:
    if expected is None:
        return Check("archive", PASSED, f"sha256 {found} (none is published)")
    if found != expected:
        return Check("archive", FAILED, f"sha256 is {found}, expected {expected} ({origin})")
    return Check("archive", PASSED, f"sha256 {found}, as {origin}")


def _variables(entry: ReleasedCheckpoint, path: pathlib.Path) -> Check:
    wanted = lookup.manifest(entry.name) if entry.file else manifest_of(entry)
    try:
        with open_source(path) as source:
            shapes = dict(source.shapes)
    except DeepLabError as error:
        return Check("variables", FAILED, str(error))
    missing = [name for name in wanted if name not in shapes]
    wrong = [name for name in wanted if name in shapes and list(shapes[name]) != list(wanted[name])]
    extra = (
        []
        if entry.kind == "backbone"
        else [n for n in shapes if n not in wanted and n not in training_state([*shapes])]
    )
    parts = {"missing": missing, "of another shape": wrong, "unknown": extra}
    said = [f"{len(names)} {what}: {', '.join(names[:3])}" for what, names in parts.items() if names]
    if said:
        return Check("variables", FAILED, f"of {len(wanted)} variables, {'; '.join(said)}")
    return Check("variables", PASSED, f"{len(wanted)} variables with the shapes of the manifest")


def _summary(value: np.ndarray) -> dict:
    digest = hashlib.sha256(np.ascontiguousarray(value, "<f4").tobytes()).hexdigest()[:16]
    return {"sum": float(value.sum(dtype=np.float64)), "sha256": digest}


def _weights(entry: ReleasedCheckpoint, path: pathlib.Path, reference: Mapping) -> tuple[Check, keras.Model | None]:
    """Returns the check that the model holds what the file does, and what is recorded; and the model."""
    try:
        loaded = open_model(path, dataset=entry.dataset)
    except DeepLabError as error:
        return Check("weights", FAILED, str(error)), None
    if loaded.card.config != entry.config and entry.kind == "segmentation":
        return Check("weights", FAILED, f"taken for another network: {loaded.card.config.to_json()}"), None
    held = {name: _summary(np.asarray(variable)) for name, variable in variable_map(loaded.model).items()}
    receipt = loaded.receipt.loaded
    strange = [name for name in held if name not in receipt or receipt[name]["sum"] != held[name]["sum"]]
    if strange:
        return Check("weights", FAILED, f"{len(strange)} variables are not as the receipt says: {strange[0]}"), None
    recorded = reference.get("variables", {})
    changed = [name for name in recorded if held.get(name) != recorded[name]]
    if changed:
        pairs = (
            f"{n} sums to {held[n]['sum']:.9g}, recorded {recorded[n]['sum']:.9g}" for n in changed[:3] if n in held
        )
        return Check(
            "weights", FAILED, f"{len(changed)} of {len(held)} variables differ: {'; '.join(pairs)}"
        ), loaded.model
    as_recorded = "bit for bit as recorded" if recorded else "none are recorded to compare with"
    return Check("weights", PASSED, f"{loaded.receipt.summary()}; {as_recorded}"), loaded.model


def _predicted(model: keras.Model) -> np.ndarray:
    image, _ = shapes_example(0, _PICTURE["index"], height=_PICTURE["height"], width=_PICTURE["width"])
    return predictor_of(model).labels(image[None])[0].astype(np.uint8)


def _prediction(model: keras.Model, reference: Mapping) -> Check:
    if "mask" not in reference:
        return Check("prediction", SKIPPED, "no mask is recorded to compare with")
    recorded = np.asarray(PIL.Image.open(io.BytesIO(base64.b64decode(reference["mask"]))))
    agreement = float((_predicted(model) == recorded).mean())
    words = f"{agreement:.3%} of the pixels of the bundled picture as recorded"
    return Check("prediction", PASSED if agreement >= _AGREEMENT else FAILED, words)


# ---- what is recorded


def recorded_reference(name: str) -> dict:
    """Returns what is recorded of a checkpoint (`record`); {} where nothing is."""
    file = importlib.resources.files("deeplab_tf.checkpoints") / f"{name}.reference.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def record(entry: ReleasedCheckpoint, *, cache: str | os.PathLike | None = None) -> dict:
    """Returns the reference of a checkpoint: its archive's sum, its variables' sums and digests, its prediction.

    DeepLabError where it cannot be had or is not what it should be, as far as that is known.
    """
    archive, path = _archive(entry, {}, cache)
    if archive.status != PASSED:
        raise DeepLabError(f"{entry.name}: {archive.words}")
    loaded = open_model(path, dataset=entry.dataset)
    found = {name: _summary(np.asarray(variable)) for name, variable in variable_map(loaded.model).items()}
    reference = {"sha256": loaded.receipt.sha256, "variables": found}
    if entry.kind == "backbone":
        return reference
    return {**reference, "mask": base64.b64encode(label_png(_predicted(loaded.model))).decode()}


# ---- the score


def data_name(dataset_dir: str | os.PathLike) -> str | None:
    """Returns which data set the records in a folder are of; None where it does not say."""
    described = files.path(dataset_dir) / DATASET_FILE
    return read_dataset(described).name if described.is_file() else None


def _split(score: Score) -> str:
    return _LABELLED.get(score.split, score.split)


def _data(entry: ReleasedCheckpoint, dataset_dir: str | os.PathLike) -> Check:
    """Returns the check that the records are those of the published scores."""
    facts = DATASETS[entry.dataset]
    try:
        name, counts = data_name(dataset_dir), {}
        if name in (None, facts.name):
            counts = {split: count_examples(dataset_dir, split) for split in {_split(score) for score in entry.scores}}
    except DeepLabError as error:
        return Check("data", FAILED, str(error))
    if name not in (None, facts.name):
        return Check("data", FAILED, f"another data set: {dataset_dir} holds {name}, the scores are of {facts.name}")
    wrong = [
        f"{n:,} records of {s}, the published scores are of {facts.splits[s]:,}"
        for s, n in counts.items()
        if n != facts.splits[s]
    ]
    if wrong:
        return Check("data", FAILED, f"another data set, or not all of it: {'; '.join(wrong)}")
    return Check("data", PASSED, ", ".join(f"{count:,} records of {facts.name} {s}" for s, count in counts.items()))


def _measured(
    entry: ReleasedCheckpoint,
    published: Score,
    path: pathlib.Path,
    dataset_dir: str | os.PathLike,
    observer: Observer,
) -> Measured:
    """Returns one published score beside ours, measured at its settings."""
    side = published.longest_side
    split = _split(published)
    crop = (side, side) if side else _CROPS[entry.dataset]
    config = entry.config_for(published)
    model = open_model(path, {"output_stride": config.output_stride, "crop_size": crop}, dataset=entry.dataset).model
    data = DataConfig(
        dataset=entry.dataset,
        dataset_dir=os.fspath(dataset_dir),
        crop_size=crop,
        batch_size=1,
        min_resize_value=side,
        max_resize_value=side,
        model_variant=config.model_variant,
    )
    scores = score(
        model,
        make_dataset(data, split=split, training=False),
        Inference(published.scales, published.flip),
        ignore_label=DATASETS[entry.dataset].ignore_label,
        observer=observer,
    )
    measured = 100 * float(scores[_SCORES[published.metric]])
    contaminated = contamination(entry.dataset, split, train_dataset=entry.dataset, train_split=entry.train_split)
    verdict = _verdict(measured - published.value, published, split, contaminated)
    return Measured(str(published), published.value, measured, verdict, contaminated)


def _verdict(difference: float, score: Score, split: str, contaminated: str | None) -> str:
    if contaminated:
        return f"contaminated (of {split})"
    if split != score.split:
        return f"not comparable (of {split})"
    return "as published" if abs(difference) <= _TOLERANCE else "higher" if difference > 0 else "lower"
