"""What reads each kind of input: the functions behind the commands."""

import pathlib
import tempfile
from collections.abc import Callable

import numpy as np
import seeds

from deeplab_tf import files
from deeplab_tf.arch import dense_prediction_cell
from deeplab_tf.catalog.datasets import dataset_json, read_dataset
from deeplab_tf.catalog.image_facts import ImageFacts
from deeplab_tf.config import ModelConfig
from deeplab_tf.data.annotations.folder import Choice, annotated_folder
from deeplab_tf.data.decoded_cache import DecodedCache
from deeplab_tf.data.masks import LabelRules, encoded_label
from deeplab_tf.data.photographs import PhotographRules, stored_photograph
from deeplab_tf.data.tfds_folder import read_prepared
from deeplab_tf.doctor.dataset import check_dataset
from deeplab_tf.doctor.exports import check_exports
from deeplab_tf.doctor.run import check_run
from deeplab_tf.errors import DeepLabError
from deeplab_tf.inference.clip_pieces import read_state
from deeplab_tf.inference.stabilizing import MotionFinder, Stabilizer
from deeplab_tf.inference.video import open_clip
from deeplab_tf.ops.images import read_image
from deeplab_tf.ops.network_pictures import read_photograph
from deeplab_tf.serving.access import read_tokens
from deeplab_tf.serving.reading import Settings, read_picture, read_request
from deeplab_tf.serving.refusal import Refused
from deeplab_tf.weights import hugging_face
from deeplab_tf.weights.describing import describe_weights
from deeplab_tf.weights.exported import find_export
from deeplab_tf.weights.model_directory import ModelCard
from deeplab_tf.weights.repository import model_card, read_evidence
from deeplab_tf.weights.run_directory import RunDirectory
from deeplab_tf.weights.run_options import changes_of, merged
from deeplab_tf.weights.sources import open_source
from deeplab_tf.weights.tf1 import read_step

_PIXELS = 1 << 22
_BANDS = ImageFacts(5, "uint16", ((0, 200),), (100.0,) * 5)
_GREY = ImageFacts(3, "float32", ((0, 200),), (100.0,) * 3)
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


def _exports(path: pathlib.Path) -> None:
    _each(lambda: check_exports(path), lambda: find_export(path), lambda: find_export(path / "x.tflite"))


def _bands(path: pathlib.Path) -> None:
    def read(facts: ImageFacts | None) -> None:
        _each(
            lambda: read_photograph(path, facts, max_pixels=_PIXELS),
            lambda: stored_photograph(str(path), (20, 30), PhotographRules(facts, max_pixels=_PIXELS)),
        )

    _each(*(lambda facts=facts: read(facts) for facts in (_BANDS, _GREY, None)))


def _clip(path: pathlib.Path) -> None:
    with open_clip(str(path), max_pixels=_PIXELS) as clip:
        for frame in clip.frames():
            frame.pixels.sum()


def _decoded(path: pathlib.Path) -> None:
    found, *_, height, width = DecodedCache(str(path))._read(0)
    assert not found or (height, width) == (4, 6)


def _piece(path: pathlib.Path) -> None:
    if path.is_file():
        _weights(path)
        return
    state = read_state(path / "state.npz", (16, 20))
    motion = MotionFinder(state["grey"])(np.zeros((16, 20, 3), np.uint8))
    Stabilizer(0.5, state)(motion, np.zeros((16, 20, 3), np.float32))


def _request(path: pathlib.Path) -> None:
    config = ModelConfig(model_variant="tiny", num_classes=3, aspp_convs_filters=8)
    content = path.read_bytes()

    def read(reader: Callable[..., object], image: ImageFacts | None) -> None:
        try:
            reader(content, Settings(config, image, _PIXELS, 8, 65))
        except Refused as error:
            assert 400 <= error.status < 500
            raise DeepLabError(error.reason) from None

    readers = (read_request, read_picture)
    _each(*(lambda r=r, facts=facts: read(r, facts) for r in readers for facts in (None, _BANDS)))


_JSON: dict[str, Callable[[pathlib.Path], object]] = {
    "card": _card,
    "run": _run,
    "dataset": lambda path: dataset_json(read_dataset(path)),
    "certificate": _exports,
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
    "image": _image,
    "records": check_dataset,
    "list": check_dataset,
    "json": lambda path: _JSON[path.name](path),
    "annotations": _annotations,
    "bands": _bands,
    "clip": _clip,
    "decoded": _decoded,
    "pieces": _piece,
    "request": _request,
    "tokens": lambda path: read_tokens(str(path)),
}

seeds_in = seeds.listed
