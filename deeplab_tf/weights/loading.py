"""From a path or a zoo name to a model with its weights: what is known, what was assumed, and what contradicts."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping

import keras
import numpy as np

from deeplab_tf import files
from deeplab_tf.arch import ARCHITECTURES
from deeplab_tf.catalog.datasets import DATASETS
from deeplab_tf.config import ModelConfig, override
from deeplab_tf.errors import DeepLabError, unknown_name
from deeplab_tf.network.backbone import build_backbone
from deeplab_tf.network.model import build_model
from deeplab_tf.weights.model_directory import ModelCard, save_model
from deeplab_tf.weights.recognize import Recognized, recognize
from deeplab_tf.weights.sources import MODEL_FILE, WeightSource, index_of, open_source, strip_checkpoint_suffix
from deeplab_tf.weights.tf1 import Receipt, averaged, load_source, training_state, variable_map
from deeplab_tf.zoo import download, lookup
from deeplab_tf.zoo.entry import ReleasedCheckpoint

_FIELDS = tuple(field.name for field in dataclasses.fields(ModelConfig))
_LARGEST_PALETTE = 256


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A model with its weights.

    Attributes:
      card: what deeplab.json says, or will say.
      model: `build_model(card.config)`, or the backbone alone where card.kind is "backbone".
      receipt: what became of every variable.
      state: global_step and, if it was asked for, the other training state: TF1 name -> value.
      notes: one line for everything that was assumed.
    """

    card: ModelCard
    model: keras.Model
    receipt: Receipt
    state: dict[str, np.ndarray]
    notes: tuple[str, ...]


def _agrees(entry: ReleasedCheckpoint, recognized: Recognized) -> bool:
    told = all(getattr(entry.config, field) == value for field, value in recognized.known.items())
    same_kind = (entry.kind == "backbone") == (recognized.kind == "backbone")
    return told and same_kind and len(entry.config.atrous_rates or ()) == recognized.branches


def _same_network(recognized: Recognized) -> ReleasedCheckpoint | None:
    """The first published segmentation checkpoint whose configuration agrees with everything the shapes tell."""
    entries = (entry for entry in lookup.CHECKPOINTS.values() if entry.kind == "segmentation")
    return next((entry for entry in entries if _agrees(entry, recognized)), None)


def _notes(
    config: ModelConfig, recognized: Recognized, changes: Mapping, entry: ReleasedCheckpoint | None
) -> list[str]:
    origin = f"as {entry.name}" if entry else "by convention"
    untold = [name for name in recognized.assumed if name not in changes]
    values = {name: getattr(config, name) for name in untold}
    shown = {n: ",".join(map(str, v)) if isinstance(v, tuple) else v for n, v in values.items() if v is not None}
    return [f"--{name}={value} assumed {origin}: shapes cannot tell" for name, value in shown.items()]


def _inferred(
    source: WeightSource, changes: Mapping, entry: ReleasedCheckpoint | None
) -> tuple[ModelConfig, str, list[str]]:
    """Returns the configuration of bare weights, their kind, and what was assumed."""
    state = training_state(list(source.shapes))
    shapes = {name: shape for name, shape in source.shapes.items() if name not in state}
    try:
        recognized = recognize(shapes, {"model_variant": source.model_variant, **changes})
    except DeepLabError as error:
        raise DeepLabError(f"{source.path}: {error}") from None
    entry = entry if entry and _agrees(entry, recognized) else _same_network(recognized)
    fields = {**recognized.assumed, **recognized.known}
    if entry:
        fields = {**{name: getattr(entry.config, name) for name in _FIELDS}, **recognized.known}
    told = {name: value for name, value in changes.items() if name in recognized.assumed}
    if "output_stride" in told and "atrous_rates" not in told and fields.get("atrous_rates"):
        stride = ModelConfig(model_variant=fields["model_variant"], output_stride=told["output_stride"]).output_stride
        told["atrous_rates"] = ModelConfig(**fields).at_output_stride(stride).atrous_rates
    fields |= told
    for name in recognized.assumed:
        if fields[name] is None and not entry:
            raise DeepLabError(f"{source.path}: its shapes do not tell {name}; give --{name}")
    config = override(ModelConfig(**fields), changes, remembered=recognized.known, source=source.path)
    return config, recognized.kind, _notes(config, recognized, changes, entry)


def _meaning(config: ModelConfig, dataset: str | None, entry: ReleasedCheckpoint | None) -> tuple[dict, list[str]]:
    """Returns the card's data set, class names and colours, and a note where the data set is a guess."""
    notes = []
    if dataset is not None and dataset not in DATASETS:
        raise unknown_name("dataset", dataset, DATASETS)
    name = dataset or (entry and entry.dataset)
    if name is None:
        name = next((d.name for d in DATASETS.values() if d.num_classes == config.num_classes), None)
        if name:
            notes.append(f"--dataset={name} assumed: {config.num_classes} classes")
    if name is None:
        names = tuple(f"class {i}" for i in range(config.num_classes))
        return {"class_names": names, "palette": ()}, notes
    known = DATASETS[name]
    if known.num_classes != config.num_classes:
        raise DeepLabError(
            f"--dataset={name} has {known.num_classes} classes, the model {config.num_classes}; leave the flag out"
        )
    values = {"dataset": name, "class_names": known.class_names, "ignore_label": known.ignore_label}
    return {**values, "palette": tuple(known.palette)[:_LARGEST_PALETTE]}, notes


def _kept_state(source: WeightSource, *, everything: bool) -> dict[str, np.ndarray]:
    names = training_state(list(source.shapes))
    return {name: source.read(name) for name in names if everything or name == "global_step"}


def _build(config: ModelConfig, kind: str) -> tuple[keras.Model, tuple[str, ...]]:
    if kind != "backbone":
        return build_model(config), ()
    # What follows an ImageNet backbone, in VGG-16's case three layers.
    scope = ARCHITECTURES[config.model_variant].scope
    return build_backbone(config), tuple(f"{scope}/{name}" for name in ("logits", "fc6", "fc7", "fc8"))


def manifest_of(entry: ReleasedCheckpoint) -> dict[str, list[int]]:
    """Returns the TF1 names and shapes that the checkpoint of `entry` must have, from our own tables: what
    checkpoints/<name>.json records."""
    model, _ = _build(entry.config, entry.kind)
    return {name: list(variable.shape) for name, variable in variable_map(model).items()}


def _open_weights(path: files.AnyPath, changes: Mapping, dataset, entry, keep_state: bool) -> Loaded:
    with open_source(path) as source:
        config, kind, notes = _inferred(source, changes, entry)
        meaning, more = _meaning(config, dataset, entry) if kind == "segmentation" else ({}, [])
        model, skip = _build(config, kind)
        receipt = load_source(model, source, skip=skip)
        state = _kept_state(source, everything=keep_state)
    notes = (*receipt.notes, *notes, *more)
    card = ModelCard(
        config=config,
        kind=kind,
        train_split=entry and entry.train_split,
        source_checkpoint=receipt.source,
        source_sha256=receipt.sha256,
        output_stride=config.output_stride,
        **meaning,
    )
    return Loaded(card, model, dataclasses.replace(receipt, notes=notes), state, notes)


def _open_directory(
    path: files.AnyPath, changes: Mapping, keep_state: bool, *, weights: files.AnyPath | None = None
) -> Loaded:
    """Opens a model directory, or those `weights` of it that are not its newest."""
    card, notes = ModelCard.read(path), ()
    if "output_stride" in changes and "atrous_rates" not in changes and card.config.atrous_rates:
        stride = dataclasses.replace(card.config, output_stride=changes["output_stride"]).output_stride
        changes = {**changes, "atrous_rates": card.config.at_output_stride(stride).atrous_rates}
        notes = (f"--atrous_rates={changes['atrous_rates']} follow --output_stride={stride}",)
    config = override(card.config, changes, remembered=_FIELDS, source=str(path / MODEL_FILE))
    with open_source(weights or path) as source:
        model, skip = _build(config, card.kind)
        receipt = load_source(model, averaged(source) if card.averages else source, skip=skip)
        state = _kept_state(source, everything=keep_state)
    return Loaded(dataclasses.replace(card, config=config), model, receipt, state, (*receipt.notes, *notes))


def _zoo_directory(entry: ReleasedCheckpoint) -> pathlib.Path:
    """Returns the model directory of a released checkpoint, which is downloaded and converted once."""
    archive = lookup.fetch(entry)
    folder = archive.parent / "converted" / f"{entry.name}-{download.verify(archive, sha256=entry.sha256)[:12]}"
    if not (folder / MODEL_FILE).is_file():
        loaded = _open_weights(archive, {}, entry.dataset, entry, keep_state=False)
        save_model(folder, loaded.model, loaded.receipt, card=loaded.card, state=loaded.state)
    return folder


def weights_path(path: str | os.PathLike) -> files.AnyPath:
    """Returns what `sources.open_source` can open: the path itself, or the (downloaded) file of a name of the zoo."""
    name, found = os.fspath(path), files.path(path)
    if name not in lookup.CHECKPOINTS or found.exists():
        return found
    entry = lookup.CHECKPOINTS[name]
    return lookup.embedded_folder(entry) if entry.kind == "embedded" else lookup.fetch(entry)


def open_model(
    path: str | os.PathLike, changes: Mapping | None = None, *, dataset: str | None = None, keep_state: bool = False
) -> Loaded:
    """Opens anything that holds weights.

    Args:
      path: a model directory, a TF1 checkpoint (prefix, folder, .tar.gz), a frozen .pb or float .tflite of the release,
        a .caffemodel of DeepLab v1 or v2, or a name of the zoo. The prefix of a checkpoint in a model directory gets
        that directory's description.
      changes: explicit ModelConfig fields. One that contradicts what is known is an error; output_stride, rates, crop
        and the like may differ.
      dataset: the catalog's name of what the classes mean; otherwise guessed by their number, and said.
      keep_state: also read the optimiser's slots.

    Raises:
      DeepLabError: nothing there, damaged, not recognised, or in contradiction to `changes`.
    """
    changes, name, found = dict(changes or {}), os.fspath(path), files.path(path)
    if name in lookup.CHECKPOINTS and not found.exists():
        entry = lookup.CHECKPOINTS[name]
        if entry.kind == "embedded":
            return _open_weights(lookup.embedded_folder(entry), changes, dataset or entry.dataset, entry, keep_state)
        return _open_directory(_zoo_directory(entry), changes, keep_state)
    if (found / MODEL_FILE).is_file():
        return _open_directory(found, changes, keep_state)
    prefix = strip_checkpoint_suffix(found)
    if index_of(prefix).is_file() and (prefix.parent / MODEL_FILE).is_file():
        return _open_directory(prefix.parent, changes, keep_state, weights=prefix)
    if os.sep not in name and not found.exists() and not index_of(found).exists():
        raise _no_such(name)
    return _open_weights(found, changes, dataset, lookup.find_by_file(found), keep_state)


def _no_such(name: str) -> DeepLabError:
    unknown = unknown_name("checkpoint", name, lookup.CHECKPOINTS)
    return DeepLabError(f"{unknown} (there is no file or folder of that name; `deeplab-tf zoo` lists the names)")


def load(path: str | os.PathLike, **changes) -> tuple[ModelConfig, keras.Model]:
    """Returns (configuration, model with its weights) of anything that holds weights.

    The checkpoint that ships with the package needs no network:

    >>> config, model = deeplab_tf.load("shapes_resnet")
    >>> config.model_variant, config.num_classes, config.output_stride
    ('small_resnet', 9, 16)
    >>> model.output_shape
    (None, None, None, 9)

    Args:
      path: a model directory, a TF1 checkpoint (prefix, folder or .tar.gz), a frozen .pb or float .tflite of the
        release, a .caffemodel of DeepLab v1 or v2, or a name that `deeplab-tf zoo` lists (downloaded once).
      **changes: fields of ModelConfig that the weights do not tell, such as `crop_size=(513, 513)`, or that may differ
        from training, such as `output_stride=8`.

    Raises:
      DeepLabError: nothing is there, it is damaged or not recognised, or it contradicts `changes`.
    """
    loaded = open_model(path, changes)
    return loaded.card.config, loaded.model
