"""The weights behind an exported graph, to export them again in another format."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from deeplab_tf.config import ModelConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.exporting.export import ExportSource, open_for_export
from deeplab_tf.weights.exported import find_export


def _told(config: ModelConfig) -> dict[str, Any]:
    """Returns the fields of a network that are not ModelConfig's defaults, and its output stride."""
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    default = ModelConfig()
    return {n: value for n, value in values.items() if value != getattr(default, n) or n == "output_stride"}


def open_behind(path: str | os.PathLike[str], changes: Mapping[str, Any] | None = None) -> ExportSource:
    """Opens what `open_for_export` opens, or the weights that an export was made from, which its certificate names.

    An export of ours has its batch norms folded in and its ranges in its operations, so that the weights themselves
    are read; they must be the ones that it was made from. Its crop, stride and rates are those of the new export.

    Args:
      path: weights of any kind, a frozen graph of the release too, or an exported file.
      changes: explicit fields of ModelConfig.

    Raises:
      DeepLabError: as `open_for_export` raises it; or the weights are no longer there, or have changed.
    """
    found = find_export(path)
    if found is None:
        return open_for_export(path, changes)
    found.require_unchanged()
    where = f"{os.fspath(path)}: was exported from {found.checkpoint}"
    cure = "give the model itself in the place of this file"
    try:
        opened = open_for_export(found.checkpoint, {**_told(found.card.config), **(changes or {})})
    except DeepLabError as error:
        raise DeepLabError(f"{where}, which cannot be read ({error}); {cure}") from None
    if found.checkpoint_sha256 not in (None, opened.loaded.receipt.sha256):
        raise DeepLabError(f"{where}, whose weights have changed since (their SHA-256 differs); {cure}, or export anew")
    return opened
