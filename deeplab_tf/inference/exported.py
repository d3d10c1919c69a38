"""Exported files in the place of a model: predicted with, scored and served as the Keras model they were made from."""

import dataclasses
import os
from collections.abc import Collection, Mapping
from typing import Any, cast

import numpy as np

from deeplab_tf.config import ModelConfig, PredictConfig
from deeplab_tf.config.export import Format
from deeplab_tf.errors import OptionError
from deeplab_tf.inference.exported_file import RUNTIME_OF, open_file
from deeplab_tf.inference.exported_predictor import EXPORT_AGAIN, ExportedBackend, ExportedPredictor
from deeplab_tf.weights import loading
from deeplab_tf.weights.exported import Export, find_export
from deeplab_tf.weights.loading import Loaded, renamed
from deeplab_tf.weights.model_directory import ModelCard


@dataclasses.dataclass(frozen=True)
class OpenedExport:
    """An exported file that is open, with the attributes of `Loaded` that those need who predict with it.

    Attributes:
      card: of the model that it computes, with the file's crop.
      model: runs it, wherever a model to predict with is expected.
      notes: a line for each thing to know of it.
      state: none.
    """

    card: ModelCard
    model: ExportedPredictor
    notes: tuple[str, ...]
    state: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict[str, np.ndarray])

    @property
    def export(self) -> Export:
        """The file's description."""
        return self.model.export


Runnable = Loaded | OpenedExport


def _notes(export: Export, config: ModelConfig) -> tuple[str, ...]:
    """Returns what to know of a file beyond its configuration."""
    size = "images of any size" if export.size is None else f"images of {export.size[0]} x {export.size[1]}"
    outputs = ", ".join(export.options.outputs or ())
    notes = [f"{export.kind} of deeplab-tf export, from {export.checkpoint}: {size}, gives {outputs}"]
    own, asked = export.card.config.crop_size, config.crop_size
    if own and asked and asked != own and asked[0] <= own[0] and asked[1] <= own[1]:
        notes.append(
            f"it pads images to {own[0]} x {own[1]}, and the model at a crop of {asked[0]} x {asked[1]} would not: "
            "some classes may differ"
        )
    if export.options.min_resize_value is not None:
        notes.append("it resizes images itself, to the sizes of its certificate")
    return tuple(notes)


def _as_exported(export: Export, changes: Mapping[str, Any]) -> None:
    """Raises OptionError where the user asks for another network than the file has."""
    for name, value in changes.items():
        own = getattr(export.card.config, name)
        if name != "crop_size" and getattr(dataclasses.replace(export.card.config, **{name: value}), name) != own:
            raise OptionError(
                f"--{name}={value}: {export.path} is exported with {name}={own}; leave the flag out, or "
                f"{EXPORT_AGAIN.format(f'{name}={value}')}"
            )


def open_export(export: Export, changes: Mapping[str, Any] | None = None) -> OpenedExport:
    """Opens an exported file.

    Args:
      export: from `find_export`.
      changes: fields of ModelConfig that the user gives; crop_size is the size that the caller pads batches to.

    Raises:
      DeepLabError: its library is not installed; it is not the file that was certified; it holds other things than
        computation; or the changes are not what it was exported with.
    """
    changes = dict(changes or {})
    _as_exported(export, changes)
    config = export.card.config
    if "crop_size" in changes and (export.size is None or changes["crop_size"]):
        config = dataclasses.replace(config, crop_size=changes["crop_size"])
    backend = ExportedBackend(export, open_file(export))
    card = dataclasses.replace(export.card, config=config)
    return OpenedExport(card, ExportedPredictor(config, backend), _notes(export, config))


def open_runnable(
    path: str | os.PathLike[str], changes: Mapping[str, Any] | None = None, *, dataset: str | None = None
) -> Runnable:
    """Opens what predicts: an exported file with its certificate, or anything that `open_model` opens.

    Args:
      path: as for `find_export`, or else for `open_model`.
      changes: explicit fields of ModelConfig.
      dataset: as for `open_model`.

    Raises:
      DeepLabError: as `open_export` and `open_model` raise it.
    """
    export = find_export(path)
    return loading.open_model(path, changes, dataset=dataset) if export is None else open_export(export, changes)


def with_classes_of(opened: Runnable, dataset: str | None) -> Runnable:
    """Returns what is open with the names and colours of the classes of `dataset`, as `loading.renamed` gives them."""
    if isinstance(opened, Loaded):
        return renamed(opened, dataset)
    if dataset is None:
        return opened
    raise OptionError(f"dataset={dataset}: an exported file has the classes of its certificate; leave it out")


def require_runtime(predictor: ExportedPredictor, runtime: str) -> None:
    """Raises OptionError where a library is asked for that is not the one of the file's format."""
    own = RUNTIME_OF[cast(Format, predictor.export.options.format)]
    if runtime not in ("auto", own):
        raise OptionError(
            f"--runtime={runtime}: {predictor.export.path} is {predictor.export.kind}, which "
            f"{predictor.backend.name} runs (--runtime={own}); leave the flag out"
        )


def settled_options(opened: Runnable, options: PredictConfig, given: Collection[str]) -> PredictConfig:
    """Returns the options of predict with the input rule of what is open where the user has given none.

    Args:
      opened: the model or the exported file.
      options: of the user.
      given: the names of those that the user gave.

    Raises:
      OptionError: the photographs would be larger than an exported file takes.
    """
    options = options.for_model(opened.card.letterbox, opened.card.training_side, given)
    if isinstance(opened, Loaded):
        return options
    size = opened.export.size
    if opened.export.options.min_resize_value is not None and not {"resize", "longest_side"} & set(given):
        return dataclasses.replace(options, resize="none")
    if size is None or options.resize in ("none", "trained"):
        return options
    if "longest_side" not in given and options.resize == "longest":
        return dataclasses.replace(options, longest_side=max(size))
    limit = max(size) if options.resize == "longest" else min(size)
    if options.longest_side > limit:
        raise OptionError(
            f"--longest_side={options.longest_side}: {opened.export.path} takes images of {size[0]} x {size[1]}; "
            f"expected at most {limit}, or --resize=none, which runs it in tiles"
        )
    return options
