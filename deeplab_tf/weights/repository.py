"""Repositories for the Hugging Face Hub: a model's weights as safetensors, deeplab.json, and a card for people to read.

MobileNetV2 with the release's small head is written as transformers has it, so that both can load it.
"""

import dataclasses
import json
import os
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from deeplab_tf import files
from deeplab_tf.errors import DeepLabError
from deeplab_tf.version import __version__
from deeplab_tf.weights import hub, hugging_face
from deeplab_tf.weights.loading import Loaded, open_model
from deeplab_tf.weights.model_directory import ModelCard
from deeplab_tf.weights.renaming import their_name, to_theirs
from deeplab_tf.weights.sources import MODEL_FILE
from deeplab_tf.weights.systems import HUGGING_FACE
from deeplab_tf.weights.tensor_files import WEIGHTS
from deeplab_tf.weights.tf1 import Receipt, variable_map
from deeplab_tf.zoo import lookup

README = "README.md"
_FILES = (WEIGHTS, "receipt.json", hugging_face.PROCESSOR, hugging_face.CONFIG, README, MODEL_FILE)
_ALONE = "mobilenet_v2.conv_1x1"  # transformers' model has it, and its segmentation does not run it
_LAST_WIDTH = 1280


def _tf1_tensors(model: keras.Model) -> dict[str, np.ndarray]:
    return {name: np.asarray(variable.value, np.float32) for name, variable in variable_map(model).items()}


def _hub_tensors(model: keras.Model) -> dict[str, np.ndarray]:
    """Returns the state dict of transformers' model with these weights."""
    tensors: dict[str, np.ndarray] = {}
    for name, value in _tf1_tensors(model).items():
        theirs = their_name(HUGGING_FACE, name)
        if theirs is None:
            raise DeepLabError(f"{name} has no place in {HUGGING_FACE.name}")
        tensors[theirs] = to_theirs(name, value)
    width = max(value.shape[0] for name, value in tensors.items() if name.endswith("reduce_1x1.convolution.weight"))
    tensors[f"{_ALONE}.convolution.weight"] = np.zeros((_LAST_WIDTH, width, 1, 1), np.float32)
    for leaf, fill in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)):
        tensors[f"{_ALONE}.normalization.{leaf}"] = np.full(_LAST_WIDTH, fill, np.float32)
    norms = [name.removesuffix("running_mean") for name in tensors if name.endswith(".running_mean")]
    return tensors | {f"{norm}num_batches_tracked": np.zeros((), np.int64) for norm in norms}


def _front_matter(card: ModelCard, licence: str | None, *, by_transformers: bool) -> list[str]:
    """Returns the YAML that the Hub reads at the head of a card."""
    lines = ["---", f"library_name: {'transformers' if by_transformers else 'deeplab_tf'}"]
    lines += ["pipeline_tag: image-segmentation"] if card.kind == "segmentation" else []
    lines += [f"license: {json.dumps(licence)}"] if licence else []
    tags = ["deeplab", "semantic-segmentation", "tensorflow", card.config.model_variant]
    return [*lines, "tags:", *(f"- {json.dumps(tag)}" for tag in tags), "---", ""]


def _table(rows: Mapping[str, object]) -> list[str]:
    cells = ((name, " ".join(str(value).replace("|", "\\|").split())) for name, value in rows.items())
    return ["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in cells), ""]


def _score_rows(scores: Mapping[str, Any]) -> dict[str, object]:
    """Returns the scores of a metrics.json that are numbers or words, under its own names."""
    return {
        name: f"{value:.4f}" if isinstance(value, float) else value
        for name, value in scores.items()
        if isinstance(value, int | float | str) and not isinstance(value, bool)
    }


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What a card says of a model beyond what the model itself knows.

    Attributes:
      scores: the contents of an evaluation's metrics.json.
      certificate: the contents of an export's certificate.json.
      licence: of the weights, as the Hub names licences: apache-2.0.
    """

    scores: Mapping[str, Any] = dataclasses.field(default_factory=dict[str, Any])
    certificate: Mapping[str, Any] = dataclasses.field(default_factory=dict[str, Any])
    licence: str | None = None


def read_evidence(
    scores: str | os.PathLike[str] | None, certificate: str | os.PathLike[str] | None, licence: str | None
) -> Evidence:
    """Returns the evidence that files hold.

    Args:
      scores: metrics.json of an evaluation.
      certificate: certificate.json of an export.
      licence: of the weights.

    Raises:
      DeepLabError: a file is not JSON.
    """
    contents = [hugging_face.read_json(files.path(path)) if path else {} for path in (scores, certificate)]
    return Evidence(contents[0], contents[1], licence)


def model_card(card: ModelCard, evidence: Evidence, *, by_transformers: bool) -> str:
    """Returns README.md: what the model is, what it tells apart, where it comes from, its scores and how to run it.

    Args:
      card: the description of the model.
      evidence: scores, certificate and licence.
      by_transformers: whether transformers can load the folder too.
    """
    config = card.config
    entry = next((e for e in lookup.CHECKPOINTS.values() if e.sha256 and e.sha256 == card.source_sha256), None)
    licence = evidence.licence or ("apache-2.0" if entry else None)
    facts = {
        "network": ", ".join(f"{name} {value}" for name, value in config.to_json().items()),
        "data set": card.dataset or "not known",
        "training split": card.train_split or "not known",
        "classes": f"{config.num_classes}: {', '.join(card.class_names)}" if card.class_names else config.num_classes,
        "output stride": card.output_stride or config.output_stride,
        "weights from": card.source_checkpoint or "this project",
        "SHA-256 of these": card.source_sha256 or "not known",
        "licence": licence or "not stated",
        "written by": f"deeplab_tf {__version__}",
    }
    lines = [*_front_matter(card, licence, by_transformers=by_transformers), f"# {config.model_variant}", ""]
    lines += ["A DeepLab network for semantic segmentation.", "", *_table(facts)]
    published = [str(score) for score in entry.scores] if entry else []
    if evidence.scores:
        lines += ["## Scores", "", "Of `deeplab-tf eval`:", "", *_table(_score_rows(evidence.scores))]
    elif published:
        lines += ["## Scores", "", "As published:", "", *(f"- {line}" for line in published), ""]
    else:
        lines += ["## Scores", "", "None were given.", ""]
    if evidence.certificate:
        lines += ["## Certificate of the exported file", "", "```json"]
        lines += [json.dumps(evidence.certificate, indent=1), "```", ""]
    lines += ["## Use", "", "```python", "import deeplab_tf", 'config, model = deeplab_tf.load("FOLDER")', "```", ""]
    if by_transformers:
        lines += ["```python", "from transformers import AutoModelForSemanticSegmentation"]
        lines += ['model = AutoModelForSemanticSegmentation.from_pretrained("FOLDER")', "```", ""]
    return "\n".join(lines)


def write_repository(
    folder: str | os.PathLike[str],
    model: keras.Model,
    receipt: Receipt,
    card: ModelCard,
    evidence: Evidence | None = None,
) -> bool:
    """Writes a repository of the Hub: model.safetensors, deeplab.json, receipt.json and README.md.

    A network that transformers has too gets its names, and a config.json and preprocessor_config.json.

    Args:
      folder: a new folder, or one without a model.
      model: a model of `build_model` or `build_backbone`.
      receipt: of the weights' origin.
      card: the model's description.
      evidence: what the card says besides.

    Returns:
      Whether transformers can load it.

    Raises:
      DeepLabError: the folder already holds a model, or cannot be written; then nothing is left in it.
    """
    import safetensors.numpy  # takes a moment

    target = files.path(folder)
    if target.exists() and not target.is_dir():
        raise DeepLabError(f"{folder}: is a file; expected a folder to write")
    present = [name for name in _FILES if (target / name).exists()]
    if present:
        raise DeepLabError(f"{folder}: already holds {', '.join(present)}; choose another folder or delete them first")
    try:
        if card.kind != "segmentation":
            raise DeepLabError("transformers' segmentation has a head")
        theirs = hugging_face.config_json(card.config, card.class_names, card.ignore_label)
    except DeepLabError:
        theirs = None
    tensors = _tf1_tensors(model) if theirs is None else _hub_tensors(model)
    contents = {"receipt.json": receipt.to_json(), MODEL_FILE: card.to_json()}
    if theirs is not None:
        contents |= {hugging_face.CONFIG: theirs, hugging_face.PROCESSOR: hugging_face.processor_json(card.config)}
    text = model_card(card, evidence or Evidence(), by_transformers=theirs is not None)
    metadata = {"format": "deeplab_tf" if theirs is None else "pt"}
    written = [name for name in _FILES if name in (WEIGHTS, README) or name in contents]
    with files.growing(target, written) as partial:
        (partial / WEIGHTS).write_bytes(safetensors.numpy.save(tensors, metadata=metadata))
        (partial / README).write_text(text, encoding="utf-8")
        for name, values in contents.items():
            (partial / name).write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    return theirs is not None


def push(
    name: str,
    source: str | os.PathLike[str],
    *,
    evidence: Evidence | None = None,
    message: str = "Upload with deeplab_tf",
    private: bool = False,
) -> str:
    """Uploads a model to the Hugging Face Hub, as `deeplab-tf convert --to_hf` writes it; needs the extra hf.

    Args:
      name: hf://owner/name, which is made where there is none; hf://owner/name@branch for a branch.
      source: anything that `load` takes: a model directory, a checkpoint, a name of the zoo.
      evidence: scores, certificate and licence for its card.
      message: of the commit.
      private: whether a new repository is private.

    Returns:
      The address of the commit.

    Raises:
      DeepLabError: the source cannot be read, the user is not known to the Hub (`hf auth login`), or no network.
    """
    hub.require_name(name)
    loaded: Loaded = open_model(source)
    with tempfile.TemporaryDirectory(prefix="deeplab_tf-") as scratch:
        folder = pathlib.Path(scratch) / "repository"
        write_repository(folder, loaded.model, loaded.receipt, loaded.card, evidence)
        return hub.upload(name, folder, message=message, private=private)
