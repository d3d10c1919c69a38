"""The configuration of a network, inferred from weights that do not state it, or remembered by a file."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from deeplab_tf.config import ModelConfig, override
from deeplab_tf.errors import DeepLabError
from deeplab_tf.weights.recognize import Kind, Recognized, recognize
from deeplab_tf.weights.sources import WeightSource
from deeplab_tf.weights.tf1 import training_state
from deeplab_tf.zoo import lookup
from deeplab_tf.zoo.entry import ReleasedCheckpoint

FIELDS = tuple(field.name for field in dataclasses.fields(ModelConfig))


def _agrees(entry: ReleasedCheckpoint, recognized: Recognized) -> bool:
    """Returns whether a released checkpoint has everything that was recognised."""
    same_fields = all(getattr(entry.config, field) == value for field, value in recognized.known.items())
    same_kind = (entry.kind == "backbone") == (recognized.kind == "backbone")
    return same_fields and same_kind and len(entry.config.atrous_rates or ()) == recognized.branches


def _same_network(recognized: Recognized) -> ReleasedCheckpoint | None:
    """Returns the first released segmentation checkpoint that has everything that was recognised, or None."""
    entries = (entry for entry in lookup.CHECKPOINTS.values() if entry.kind == "segmentation")
    return next((entry for entry in entries if _agrees(entry, recognized)), None)


def _notes(
    config: ModelConfig, recognized: Recognized, changes: Mapping[str, Any], entry: ReleasedCheckpoint | None
) -> list[str]:
    """Returns a line for each option that neither the shapes nor the user told."""
    origin = f"as {entry.name}" if entry else "by convention"
    notes: list[str] = []
    for name in recognized.assumed:
        value = getattr(config, name)
        if name in changes or value is None:
            continue
        shown = ",".join(map(str, value)) if isinstance(value, tuple) else value
        notes.append(f"--{name}={shown} assumed {origin}: shapes cannot tell")
    return notes


def remembered_config(
    config: ModelConfig, changes: Mapping[str, Any], source: str
) -> tuple[ModelConfig, tuple[str, ...]]:
    """Returns the configuration that a file or folder, `source`, holds, with the user's `changes`, and notes."""
    notes: tuple[str, ...] = ()
    if "output_stride" in changes and "atrous_rates" not in changes and config.atrous_rates:
        stride = dataclasses.replace(config, output_stride=changes["output_stride"]).output_stride
        changes = {**changes, "atrous_rates": config.at_output_stride(stride).atrous_rates}
        notes = (f"--atrous_rates={changes['atrous_rates']} follow --output_stride={stride}",)
    return override(config, changes, remembered=FIELDS, source=source), notes


def infer_config(
    source: WeightSource, changes: Mapping[str, Any], entry: ReleasedCheckpoint | None
) -> tuple[ModelConfig, Kind, list[str]]:
    """Returns the configuration of bare weights, their kind, and notes of what was assumed.

    What the shapes do not decide is taken from the user's `changes`, else from the released checkpoint `entry` (or one
    of the same shapes), else from convention.
    """
    if source.config is not None:
        config, notes = remembered_config(source.config, changes, source.path)
        return config, "segmentation", list(notes)
    state = training_state(list(source.shapes))
    shapes = {name: shape for name, shape in source.shapes.items() if name not in state}
    try:
        recognized = recognize(shapes, {"model_variant": source.model_variant, **changes})
    except DeepLabError as error:
        raise DeepLabError(f"{source.path}: {error}") from None
    entry = entry if entry and _agrees(entry, recognized) else _same_network(recognized)
    recognized = dataclasses.replace(
        recognized, assumed={name: value for name, value in recognized.assumed.items() if name not in source.known}
    )
    known = {**recognized.known, **source.known}
    fields = {**recognized.assumed, **known}
    if entry:
        fields = {**{name: getattr(entry.config, name) for name in FIELDS}, **known}
    given = {name: value for name, value in changes.items() if name in recognized.assumed}
    if "output_stride" in changes and "output_stride" in known:
        given["output_stride"] = changes["output_stride"]
    if "output_stride" in given and "atrous_rates" not in changes and fields.get("atrous_rates"):
        stride = ModelConfig(model_variant=fields["model_variant"], output_stride=given["output_stride"]).output_stride
        given["atrous_rates"] = ModelConfig(**fields).at_output_stride(stride).atrous_rates
    fields |= given
    for name in recognized.assumed:
        if fields[name] is None and not entry:
            raise DeepLabError(f"{source.path}: its shapes do not tell {name}; give --{name}")
    config = override(ModelConfig(**fields), changes, remembered=known, source=source.path)
    return config, recognized.kind, _notes(config, recognized, changes, entry)
