"""Models with their weights, from a path or a name of the zoo."""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np

from deeplab_tf import files
from deeplab_tf.arch import ARCHITECTURES
from deeplab_tf.config import ModelConfig, override
from deeplab_tf.errors import DeepLabError, unknown_name
from deeplab_tf.filesystems import leftovers
from deeplab_tf.network.backbone import build_backbone
from deeplab_tf.network.build import build_model
from deeplab_tf.network.lite_arithmetic import NUMBERS
from deeplab_tf.network.wrapped import as_network
from deeplab_tf.weights import hub, hugging_face, keras_file, keras_layers
from deeplab_tf.weights.card_classes import with_class_names, with_classes, with_dataset
from deeplab_tf.weights.inferred_config import FIELDS, infer_config, remembered_config
from deeplab_tf.weights.model_directory import ModelCard, save_model
from deeplab_tf.weights.names import GLOBAL_STEP
from deeplab_tf.weights.recognize import Kind
from deeplab_tf.weights.sources import (
    MODEL_FILE,
    WeightSource,
    index_of,
    of_network,
    open_source,
    open_weights_alone,
    strip_checkpoint_suffix,
)
from deeplab_tf.weights.tf1 import Receipt, averaged, load_source, read_step, training_state, variable_map
from deeplab_tf.zoo import download, lookup, sums
from deeplab_tf.zoo.entry import ReleasedCheckpoint


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A model with its weights.

    Attributes:
      card: the model's description, as deeplab.json has it or will have it.
      model: `build_model(card.config)`, or the backbone alone if card.kind is "backbone".
      receipt: what became of every variable.
      state: global_step and, on request, the other training state: TF1 name -> value.
      notes: a line for each assumption.
    """

    card: ModelCard
    model: keras.Model
    receipt: Receipt
    state: dict[str, np.ndarray]
    notes: tuple[str, ...]


def said_by(folder: files.AnyPath, changes: Mapping[str, Any]) -> hugging_face.Folder | None:
    """Returns what the config.json of transformers' in a folder says, with the user's changes; None: there is none."""
    if not hugging_face.is_folder(folder):
        return None
    said = hugging_face.read_folder(folder)
    path = str(folder / hugging_face.CONFIG)
    return dataclasses.replace(said, config=override(said.config, changes, remembered=FIELDS, source=path))


def _kept_state(source: WeightSource, *, everything: bool, as_file: bool) -> dict[str, np.ndarray]:
    """Returns the training state to keep; the ranges of a file of eight bits too (`as_file`), which are no state."""
    kept = {"global_step", "min", "max", *NUMBERS} if as_file else {"global_step"}
    names = training_state(list(source.shapes))
    wanted = [name for name in names if everything or name.rpartition("/")[2] in kept]
    return {name: read_step(source) if name == GLOBAL_STEP else source.read(name) for name in wanted}


def _box_notes(card: ModelCard) -> tuple[str, ...]:
    """Returns a note of a network whose system fits photographs into a square, which not all commands do."""
    if not card.letterbox:
        return ()
    return (
        f"trained on photographs fitted into a grey square of {card.letterbox} pixels: predict and Segmenter do that; "
        "eval, vis, serve and exported files run them at their own size, with other classes at some pixels",
    )


def _build(config: ModelConfig, kind: Kind) -> tuple[keras.Model, tuple[str, ...]]:
    """Returns the network without weights, and the scopes of a file that it has no variables for."""
    if kind != "backbone":
        return build_model(config, zeros=True), ()
    architecture = ARCHITECTURES[config.model_variant]
    return build_backbone(config, zeros=True), tuple(
        f"{architecture.scope}/{name}" for name in architecture.classifier_scopes
    )


def manifest_of(entry: ReleasedCheckpoint) -> dict[str, list[int]]:
    """Returns the TF1 names and shapes that the checkpoint of `entry` must have, computed from our own tables.

    checkpoints/<name>.json records them.
    """
    model, _ = _build(entry.config, "backbone" if entry.kind == "backbone" else "segmentation")
    return {name: list(variable.shape) for name, variable in variable_map(model).items()}


@contextlib.contextmanager
def _bare_source(path: files.AnyPath, changes: Mapping[str, Any]) -> Iterator[WeightSource]:
    """Opens weights; of a .weights.h5 the network is that of `changes`."""
    if not (keras_file.is_weights_alone(path) and path.is_file()) or keras_layers.read_layers(path):
        with open_source(path) as source:
            yield source
    elif "model_variant" in changes:
        yield open_weights_alone(path, ModelConfig(**changes))
    else:
        raise DeepLabError(
            f"{path}: holds weights without their network; give --model_variant and what else differs from the "
            "defaults, or save the whole model by model.save('model.keras')"
        )


def carried_card(source: WeightSource, config: ModelConfig) -> ModelCard | None:
    """Returns the card that a network of Keras carries, or None: it carries none."""
    if source.card is None:
        return None
    card = ModelCard.carried(source.card, config, source.path)
    origin = {} if card.source_checkpoint else {"source_checkpoint": source.path, "source_sha256": source.sha256}
    return dataclasses.replace(card, output_stride=card.output_stride or config.output_stride, **origin)


def _open_weights(
    path: files.AnyPath,
    changes: Mapping[str, Any],
    dataset: str | None,
    entry: ReleasedCheckpoint | None,
    *,
    keep_state: bool,
) -> Loaded:
    """Opens weights without a description, which may be those of the released checkpoint `entry`."""
    said = said_by(path, changes)
    with _bare_source(path, changes) as source:
        if said:
            config, kind, notes = said.config, said.kind, list(said.notes)
        else:
            config, kind, notes = infer_config(source, changes, entry)
        card = carried_card(source, config) or ModelCard(
            config=config,
            kind=kind,
            train_split=entry.train_split if entry else None,
            source_checkpoint=source.path,
            source_sha256=source.sha256,
            output_stride=config.output_stride,
            letterbox=ARCHITECTURES[config.model_variant].letterbox,
        )
        if kind == "segmentation" and (dataset or not card.class_names):
            card, more = with_class_names(card, said, dataset) if said else with_classes(card, dataset, entry)
            notes += more
        model, skip = _build(config, kind)
        receipt = load_source(model, source, skip=skip)
        state = _kept_state(source, everything=keep_state, as_file=config.quantize_as_file)
    notes = (*receipt.notes, *notes)
    card.attach(model)
    return Loaded(card, model, dataclasses.replace(receipt, notes=notes), state, (*notes, *_box_notes(card)))


def _open_directory(
    path: files.AnyPath, changes: Mapping[str, Any], *, keep_state: bool, weights: files.AnyPath | None = None
) -> Loaded:
    """Opens a model directory, by default with its newest weights."""
    card = ModelCard.read(path)
    config, notes = remembered_config(card.config, changes, str(path / MODEL_FILE))
    with open_source(weights or path) as source:
        model, skip = _build(config, card.kind)
        receipt = load_source(model, averaged(source) if card.averages else source, skip=skip)
        state = _kept_state(source, everything=keep_state, as_file=config.quantize_as_file)
    notes = (*receipt.notes, *notes, *_box_notes(card))
    card = dataclasses.replace(card, config=config)
    card.attach(model)
    return Loaded(card, model, receipt, state, notes)


def _zoo_directory(entry: ReleasedCheckpoint) -> pathlib.Path:
    """Returns the model directory of a released checkpoint, which is downloaded and converted once."""
    archive = lookup.fetch(entry)
    folder = archive.parent / "converted" / f"{entry.name}-{sums.verify(archive, sha256=entry.sha256)[:12]}"
    if not (folder / MODEL_FILE).is_file():
        with files.writing(folder, cure=f"set ${download.CACHE_VARIABLE} to another folder"):
            folder.parent.mkdir(parents=True, exist_ok=True)
            with download.locked(folder, "converts"):
                if not (folder / MODEL_FILE).is_file():
                    _convert(entry, archive, folder)
    return folder


def _convert(entry: ReleasedCheckpoint, archive: pathlib.Path, folder: pathlib.Path) -> None:
    """Converts an archive into the cache, where the folder appears in one step: a process may be killed at any time."""
    leftovers.sweep(folder.parent, download.STALE)
    loaded = _open_weights(archive, {}, entry.dataset, entry, keep_state=False)
    loaded.receipt.require_sound()
    files.remove(folder)  # what an earlier version, which was killed, has left of it
    with files.growing(folder) as partial:
        save_model(partial, loaded.model, loaded.receipt, card=loaded.card, state=loaded.state)


def weights_path(path: str | os.PathLike[str]) -> files.AnyPath:
    """Returns the path of weights that may be given by a name of the zoo, which is downloaded if it is not there."""
    name = os.fspath(path)
    if hub.is_hub(name):
        return hub.fetch(name)
    local = files.path(path)
    if name not in lookup.CHECKPOINTS or local.exists():
        return local
    entry = lookup.CHECKPOINTS[name]
    return lookup.embedded_folder(entry) if entry.kind == "embedded" else lookup.fetch(entry)


def _from(card: ModelCard, name: str) -> ModelCard:
    """Returns `card` with the name of its repository as the origin, unless it knows of an earlier one."""
    earlier = card.source_checkpoint and not os.path.exists(card.source_checkpoint)
    return card if earlier else dataclasses.replace(card, source_checkpoint=name)


def open_model(
    path: str | os.PathLike[str],
    changes: Mapping[str, Any] | None = None,
    *,
    dataset: str | None = None,
    keep_state: bool = False,
) -> Loaded:
    """Opens any file or folder that holds weights, or a checkpoint of the zoo.

    Args:
      path: a model directory, a TF1 checkpoint (prefix, folder, .tar.gz), a frozen .pb or .tflite of the release,
        a .caffemodel of DeepLab v1 or v2, or a name of the zoo. The prefix of a checkpoint in a model directory gets
        that directory's description.
      changes: explicit fields of ModelConfig. A value that contradicts the weights is an error; output_stride, rates,
        crop and the like may differ from training.
      dataset: the data set whose classes weights without a description tell apart, as `find_dataset` takes it: a name
        of the catalog, a folder with a dataset.json. By default it is guessed by the number of classes, and noted. A
        model directory says it itself (see `renamed`).
      keep_state: whether to read the optimiser's slots too.

    Raises:
      DeepLabError: nothing is there, it is damaged or not recognised, or it contradicts `changes`.
    """
    changes = dict(changes or {})
    name = os.fspath(path)
    if hub.is_hub(name):
        loaded = open_model(hub.fetch(name), changes, dataset=dataset, keep_state=keep_state)
        receipt = dataclasses.replace(loaded.receipt, source=name)
        return dataclasses.replace(loaded, receipt=receipt, card=_from(loaded.card, name))
    local = files.path(path)
    if name in lookup.CHECKPOINTS and not local.exists():
        entry = lookup.CHECKPOINTS[name]
        if entry.kind == "embedded":
            folder = lookup.embedded_folder(entry)
            return _open_weights(folder, changes, dataset or entry.dataset, entry, keep_state=keep_state)
        return _open_directory(_zoo_directory(entry), changes, keep_state=keep_state)
    if (local / MODEL_FILE).is_file():
        return _open_directory(local, changes, keep_state=keep_state)
    prefix = strip_checkpoint_suffix(local)
    if index_of(prefix).is_file() and (prefix.parent / MODEL_FILE).is_file():
        return _open_directory(prefix.parent, changes, keep_state=keep_state, weights=prefix)
    if os.sep not in name and not local.exists() and not index_of(local).exists():
        raise no_such(name)
    return _open_weights(local, changes, dataset, lookup.find_by_file(local), keep_state=keep_state)


def renamed(loaded: Loaded, dataset: str | None) -> Loaded:
    """Returns a model with the names and colours of the classes of `dataset`, where the user gives one.

    Raises:
      DeepLabError: the data set is not there, or its classes are not those that the model tells apart.
    """
    if dataset is None or loaded.card.kind != "segmentation":
        return loaded
    card = with_dataset(loaded.card, dataset)
    card.attach(loaded.model)
    return dataclasses.replace(loaded, card=card)


def no_such(name: str) -> DeepLabError:
    """Returns the error of a name that neither a file nor the zoo has."""
    unknown = unknown_name("checkpoint", name, lookup.CHECKPOINTS)
    return DeepLabError(f"{unknown} (there is no file or folder of that name; `deeplab-tf zoo` lists the names)")


def opened(model: keras.Model, changes: Mapping[str, Any] | None = None, *, dataset: str | None = None) -> Loaded:
    """Returns a model that is at hand as `open_model` returns one of a file, with `changes` in a network of its own.

    Args:
      model: from `build_model` or `load`, or one that holds such a network.
      changes: explicit fields of ModelConfig, as for `open_model`.
      dataset: whose classes the model tells apart, as for `open_model`.

    Raises:
      DeepLabError: the model was not made here, or `changes` contradict it.
    """
    network = as_network(model)
    shown = f"the model {model.name!r}"
    config, notes = remembered_config(network.config, changes or {}, shown)
    source = of_network(shown, network)
    anew = config != network.config
    if anew:
        network = build_model(config, zeros=True)
    card, more = carried_card(source, config) or ModelCard(config=config, source_checkpoint=shown), []
    if dataset or not card.class_names:
        card, more = with_classes(card, dataset, None)
    receipt = load_source(network, source)
    if anew:
        card.attach(network)
    return Loaded(card, network, receipt, {}, (*notes, *more, *_box_notes(card)))
