"""What reads each kind of input: the functions behind the commands."""

import pathlib
import tempfile
from collections.abc import Callable

import seeds

from deeplab_tf import files
from deeplab_tf.arch import dense_prediction_cell
from deeplab_tf.catalog.datasets import dataset_json, read_dataset
from deeplab_tf.config import ModelConfig
from deeplab_tf.data.annotations.folder import Choice, annotated_folder
from deeplab_tf.data.masks import LabelRules, encoded_label
from deeplab_tf.data.photographs import PhotographRules, stored_photograph
from deeplab_tf.data.tfds_folder import read_prepared
from deeplab_tf.doctor.dataset import check_dataset
from deeplab_tf.doctor.exports import check_exports
from deeplab_tf.doctor.run import check_run
from deeplab_tf.errors import DeepLabError
from deeplab_tf.ops.images import read_image
from deeplab_tf.weights import hugging_face, keras_file
from deeplab_tf.weights.loading import describe_weights
from deeplab_tf.weights.model_directory import ModelCard
from deeplab_tf.weights.repository import model_card, read_evidence
from deeplab_tf.weights.run_directory import RunDirectory
from deeplab_tf.weights.run_options import changes_of, merged
from deeplab_tf.weights.sources import open_source
from deeplab_tf.weights.tf1 import read_step

_RULES = LabelRules(3, 255, ((0, 0, 0), (128, 0, 0), (0, 128, 0)))


def _refusal(read: Callable[[], object]) -> DeepLabError | None:
    try:
        read()
    except DeepLabError as error:
        return error
    return None


def _each(*readers: Callable[[], object]) -> None:
    """Calls all, and raises the last DeepLabError: one that refuses must not hide another from the input."""
    refused = [error for error in map(_refusal, readers) if error]
    if refused:
        raise refused[0]


def _weights(path: pathlib.Path) -> None:
    def values() -> None:
        with open_source(path) as source:
            for name in source.shapes:
                read_step(source) if name == "global_step" else source.read(name)

    _each(lambda: describe_weights(path), values)


def _image(path: pathlib.Path) -> None:
    _each(
        lambda: read_image(path, max_pixels=1 << 24),
        lambda: encoded_label(str(path), None, _RULES),
        lambda: stored_photograph(str(path), None, PhotographRules(max_pixels=1 << 24)),
    )


def _annotations(path: pathlib.Path) -> None:
    with tempfile.TemporaryDirectory(prefix="deeplab_tf-fuzz-") as scratch:
        annotated_folder(str(path), None, Choice(), scratch)


def _run(path: pathlib.Path) -> None:
    import json

    now = json.loads(json.dumps(seeds._run()))
    folder = files.path(path)

    def changes() -> None:
        found = changes_of(folder, now, allowed=list(now))
        merged(json.loads((path / "run.json").read_text()), now, found, 3)

    _each(changes, lambda: check_run(path, {}))


def _log(path: pathlib.Path) -> None:
    run = RunDirectory(path)
    scores = path / "scores.jsonl"
    scores.write_bytes((path / "metrics.jsonl").read_bytes())
    _each(run.lines, run.events, lambda: max((line["miou"] for line in run.lines("scores.jsonl")), default=0))
    run.forget_after(2)


def _card(path: pathlib.Path) -> None:
    card = ModelCard.read(path)
    card.seen(card.dataset, "val")
    card.to_json()


_JSON: dict[str, Callable[[pathlib.Path], object]] = {
    "card": _card,
    "run": _run,
    "dataset": lambda path: dataset_json(read_dataset(path)),
    "certificate": check_exports,
    "cell": lambda path: dense_prediction_cell.parse(str(path / "cell.json")),
    "hub": lambda path: hugging_face.read_folder(files.path(path)),
    "scores": lambda path: model_card(
        ModelCard(ModelConfig()),
        read_evidence(path / "metrics.json", path / "metrics.json", None),
        by_transformers=False,
    ),
    "log": _log,
    "labelme": _annotations,
    "coco": _annotations,
    "supervisely": _annotations,
    "tfds": lambda path: read_prepared("tfds:x", str(path)),
}

READERS: dict[str, Callable[[pathlib.Path], object]] = {
    **dict.fromkeys(seeds.MAKERS, _weights),
    "keras": lambda path: keras_file.read_keras_file(files.path(path)),
    "image": _image,
    "records": check_dataset,
    "list": check_dataset,
    "json": lambda path: _JSON[path.name](path),
}

seeds_in = seeds.listed
