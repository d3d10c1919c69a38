"""Verification of a released checkpoint: archive, variables, weights, a prediction, and with the data its score.

The sums and the prediction of an archive's weights are recorded in checkpoints/<name>.reference.json (`record`), once
they have been verified against the published sum or score.
"""

import base64
import hashlib
import importlib.resources
import io
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import PIL.Image

from deeplab_tf.catalog.datasets import DATASETS, Dataset
from deeplab_tf.config import DataConfig, Inference
from deeplab_tf.data.find import find_dataset, is_described
from deeplab_tf.data.pipeline import make_dataset
from deeplab_tf.data.record_index import count_examples
from deeplab_tf.data.shapes import FIRST_INDEX, shapes_example
from deeplab_tf.documents.json_files import parse_json
from deeplab_tf.errors import DeepLabError
from deeplab_tf.evaluation.evaluate import score
from deeplab_tf.evaluation.passes import SILENT, Observer
from deeplab_tf.evaluation.verification import FAILED, PASSED, SKIPPED, Check, Measured, Verification
from deeplab_tf.inference.predictor import predictor_of
from deeplab_tf.ops.images import FORMATS, label_png
from deeplab_tf.weights.loading import manifest_of, open_model
from deeplab_tf.weights.sources import open_source
from deeplab_tf.weights.tf1 import training_state, variable_map
from deeplab_tf.zoo import lookup, sums
from deeplab_tf.zoo.contamination import contamination
from deeplab_tf.zoo.entry import ReleasedCheckpoint, Score

# The bundled picture, of shapes_example.
_INDEX = FIRST_INDEX["test"]
_HEIGHT = 193
_WIDTH = 257
_AGREEMENT = 0.999  # two builds of TensorFlow differ in ties alone
_TOLERANCE = 0.2  # points of per cent: decoders of JPEG and the order of sums differ
# The sizes that the release pads images to; the pooling window follows from them.
_CROPS = {"pascal_voc_seg": (513, 513), "cityscapes": (1025, 2049), "shapes": (129, 129)}
_LABELLED = {"test": "val", "test_fine": "val_fine"}  # the split with labels nearest to a test server's
_SCORES = {"mIoU": "miou", "pixel accuracy": "pixel_accuracy"}


def verify(
    entry: ReleasedCheckpoint,
    *,
    dataset_dir: str | os.PathLike[str] | None = None,
    reference: Mapping[str, Any] | None = None,
    cache: str | os.PathLike[str] | None = None,
    observer: Observer = SILENT,
) -> Verification:
    """Returns the result of every check of a released checkpoint.

    Args:
      entry: the checkpoint, of `zoo.CHECKPOINTS`.
      dataset_dir: TFRecords of its data set, to measure each published score at its own settings; None: no scores.
      reference: the sums of its weights and their prediction; None: those recorded in the package, if any.
      cache: folder of the archives; None: `download.cache_folder()`.
      observer: told of each batch that is scored.

    Raises:
      DeepLabError: a record is damaged part-way through. Any other failure is reported as a failed check.
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
    if dataset_dir and entry.dataset and entry.scores and weights:
        facts = DATASETS[entry.dataset]
        data = _data(entry, facts, dataset_dir)
        checks.append(data)
        if data.status == PASSED:
            scores += (_measured(entry, facts, published, path, dataset_dir, observer) for published in entry.scores)
    return Verification(entry.name, tuple(checks), tuple(scores))


# ---- the archive and its weights


def _archive(
    entry: ReleasedCheckpoint, reference: Mapping[str, Any], cache: str | os.PathLike[str] | None
) -> tuple[Check, pathlib.Path | None]:
    """Returns the check of the file's sum, and the file, which is checked further even if its sum is wrong."""
    if entry.kind == "embedded":
        path = lookup.embedded_folder(entry)
        with open_source(path) as source:
            return _summed(source.sha256, reference.get("sha256"), "recorded"), path
    path = lookup.archive_path(entry, cache=cache)
    try:
        lookup.fetch(entry, cache=cache)
        found = sums.verify(path, sha256=entry.sha256)
    except DeepLabError as error:
        if path.is_file():
            return Check("archive", FAILED, str(error)), path
        return Check("archive", SKIPPED, str(error)), None
    if entry.sha256:
        return _summed(found, entry.sha256, "published"), path
    return _summed(found, reference.get("sha256"), "recorded"), path


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
    extra = [name for name in shapes if name not in wanted and name not in training_state([*shapes])]
    faults = {"missing": missing, "of another shape": wrong}
    if entry.kind != "backbone":  # ImageNet's classifier follows it
        faults["unknown"] = extra
    parts = [f"{len(names)} {fault}: {', '.join(names[:3])}" for fault, names in faults.items() if names]
    if parts:
        return Check("variables", FAILED, f"of {len(wanted)} variables, {'; '.join(parts)}")
    return Check("variables", PASSED, f"{len(wanted)} variables with the shapes of the manifest")


def _summary(value: np.ndarray) -> dict[str, Any]:
    digest = hashlib.sha256(np.ascontiguousarray(value, "<f4").tobytes()).hexdigest()[:16]
    return {"sum": float(value.sum(dtype=np.float64)), "sha256": digest}


def _weights(
    entry: ReleasedCheckpoint, path: pathlib.Path, reference: Mapping[str, Any]
) -> tuple[Check, keras.Model | None]:
    """Returns the check that the model has the weights of the file and those that are recorded; and the model."""
    try:
        loaded = open_model(path, dataset=entry.dataset)
    except DeepLabError as error:
        return Check("weights", FAILED, str(error)), None
    if loaded.card.config != entry.config and entry.kind == "segmentation":
        return Check("weights", FAILED, f"taken for another network: {loaded.card.config.to_json()}"), None
    if loaded.receipt.unsound:
        return Check("weights", FAILED, "; ".join(loaded.receipt.unsound)), None
    summaries = {name: _summary(np.asarray(variable)) for name, variable in variable_map(loaded.model).items()}
    receipt = loaded.receipt.loaded
    strange = [name for name in summaries if name not in receipt or receipt[name]["sum"] != summaries[name]["sum"]]
    if strange:
        return Check("weights", FAILED, f"{len(strange)} variables are not as the receipt says: {strange[0]}"), None
    recorded = reference.get("variables", {})
    changed = [name for name in recorded if summaries.get(name) != recorded[name]]
    if changed:
        pairs = (
            f"{name} sums to {summaries[name]['sum']:.9g}, recorded {recorded[name]['sum']:.9g}"
            for name in changed[:3]
            if name in summaries
        )
        difference = f"{len(changed)} of {len(summaries)} variables differ: {'; '.join(pairs)}"
        return Check("weights", FAILED, difference), loaded.model
    as_recorded = "bit for bit as recorded" if recorded else "none are recorded to compare with"
    return Check("weights", PASSED, f"{loaded.receipt.summary()}; {as_recorded}"), loaded.model


def _predicted(model: keras.Model) -> np.ndarray:
    image, _ = shapes_example(0, _INDEX, height=_HEIGHT, width=_WIDTH)
    return predictor_of(model).labels(image[None])[0].astype(np.uint8)


def _prediction(model: keras.Model, reference: Mapping[str, Any]) -> Check:
    if "mask" not in reference:
        return Check("prediction", SKIPPED, "no mask is recorded to compare with")
    recorded = np.asarray(PIL.Image.open(io.BytesIO(base64.b64decode(reference["mask"])), formats=FORMATS))
    agreement = float((_predicted(model) == recorded).mean())
    words = f"{agreement:.3%} of the pixels of the bundled picture as recorded"
    return Check("prediction", PASSED if agreement >= _AGREEMENT else FAILED, words)


# ---- references


def recorded_reference(name: str) -> dict[str, Any]:
    """Returns the reference that `record` has made of a checkpoint; {} where there is none."""
    file = importlib.resources.files("deeplab_tf.checkpoints") / f"{name}.reference.json"
    return parse_json(file.read_bytes(), dict[str, Any]) if file.is_file() else {}


def record(entry: ReleasedCheckpoint, *, cache: str | os.PathLike[str] | None = None) -> dict[str, Any]:
    """Returns the reference of a checkpoint: its archive's sum, its variables' sums and digests, its prediction.

    Args:
      entry: the checkpoint, of `zoo.CHECKPOINTS`.
      cache: folder of the archives; None: `download.cache_folder()`.

    Raises:
      DeepLabError: there is no archive, or it has not the published sum.
    """
    archive, path = _archive(entry, {}, cache)
    if path is None or archive.status != PASSED:
        raise DeepLabError(f"{entry.name}: {archive.words}")
    loaded = open_model(path, dataset=entry.dataset)
    summaries = {name: _summary(np.asarray(variable)) for name, variable in variable_map(loaded.model).items()}
    reference: dict[str, Any] = {"sha256": loaded.receipt.sha256, "variables": summaries}
    if entry.kind == "backbone":
        return reference
    return {**reference, "mask": base64.b64encode(label_png(_predicted(loaded.model))).decode()}


# ---- the score


def data_name(dataset_dir: str | os.PathLike[str]) -> str | None:
    """Returns the name of the data set whose records are in a folder; None where no dataset.json tells it."""
    place = os.fspath(dataset_dir)
    return find_dataset(None, place).name if is_described(place) else None


def _split(published: Score) -> str:
    return _LABELLED.get(published.split, published.split)


def _data(entry: ReleasedCheckpoint, facts: Dataset, dataset_dir: str | os.PathLike[str]) -> Check:
    """Returns the check that the records are those of the published scores."""
    try:
        name = data_name(dataset_dir)
        if name not in (None, facts.name):
            difference = f"another data set: {dataset_dir} holds {name}, the scores are of {facts.name}"
            return Check("data", FAILED, difference)
        find_dataset(facts.name, os.fspath(dataset_dir))  # raises for other classes under that name
        counts = {split: count_examples(dataset_dir, split) for split in {_split(score) for score in entry.scores}}
    except DeepLabError as error:
        return Check("data", FAILED, str(error))
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
    facts: Dataset,
    published: Score,
    path: pathlib.Path,
    dataset_dir: str | os.PathLike[str],
    observer: Observer,
) -> Measured:
    """Returns one published score beside ours, measured at its settings."""
    side = published.longest_side
    split = _split(published)
    crop = (side, side) if side else _CROPS[facts.name]
    config = entry.config_for(published)
    model = open_model(path, {"output_stride": config.output_stride, "crop_size": crop}, dataset=facts.name).model
    data = DataConfig(
        dataset=facts.name,
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
        ignore_label=facts.ignore_label,
        observer=observer,
    )
    measured = 100 * float(scores[_SCORES[published.metric]])
    contaminated = contamination(facts.name, split, train_dataset=facts.name, train_split=entry.train_split)
    verdict = _verdict(measured - published.value, published, split, contaminated)
    return Measured(str(published), published.value, measured, verdict, contaminated)


def _verdict(difference: float, published: Score, split: str, contaminated: str | None) -> str:
    if contaminated:
        return f"contaminated (of {split})"
    if split != published.split:
        return f"not comparable (of {split})"
    if abs(difference) <= _TOLERANCE:
        return "as published"
    return "higher" if difference > 0 else "lower"
