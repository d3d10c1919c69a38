"""Dense prediction cells (Chen et al., NeurIPS 2018) as data: parsing their JSON, and the cell the release ships."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

from deeplab_tf import files
from deeplab_tf.documents.json_files import JSONError, read_json
from deeplab_tf.errors import DeepLabError


@dataclasses.dataclass(frozen=True)
class Branch:
    """One branch of a cell.

    `input` is -1 for the backbone's features, or the number of an earlier branch; `kernel` and `rate` (vertical,
    horizontal) belong to conv, `grid_size` (rows, columns) to pyramid_pooling.
    """

    op: Literal["conv", "pyramid_pooling"]
    input: int
    kernel: tuple[int, int] | None = None
    rate: tuple[int, int] | None = None
    grid_size: tuple[int, int] | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns the branch as the release's JSON writes it."""
        values: dict[str, Any] = {"op": self.op, "input": self.input}
        pairs = {"kernel": self.kernel, "rate": self.rate, "grid_size": self.grid_size}
        return values | {name: list(pair) for name, pair in pairs.items() if pair is not None}


def _pair(value: Any) -> tuple[int, int]:
    return (int(value), int(value)) if isinstance(value, int) else (int(value[0]), int(value[1]))


def _branch(entry: Branch | Mapping[str, Any], index: int) -> Branch:
    if isinstance(entry, Branch):
        return entry
    try:
        op = entry["op"]
        source = int(entry["input"])
        if op == "conv":
            branch = Branch(op, source, kernel=_pair(entry["kernel"]), rate=_pair(entry.get("rate", 1)))
        else:
            branch = Branch(op, source, grid_size=_pair(entry["grid_size"]))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise DeepLabError(
            f"dense_prediction_cell_json: branch {index} {entry!r} lacks or misstates {error}; expected op conv with "
            "kernel and rate, or op pyramid_pooling with grid_size, and the input branch"
        ) from None
    if op not in ("conv", "pyramid_pooling") or source >= index:
        raise DeepLabError(
            f"dense_prediction_cell_json: branch {index} {entry!r}: op must be conv or pyramid_pooling and input an "
            "earlier branch, or -1 for the backbone's features"
        )
    return branch


# The release's dense_prediction_cell_branch5_top1_cityscapes.json: the best cell found on Cityscapes.
CITYSCAPES_TOP1: tuple[Branch, ...] = (
    Branch("conv", -1, kernel=(3, 3), rate=(1, 6)),
    Branch("conv", 0, kernel=(3, 3), rate=(18, 15)),
    Branch("conv", 1, kernel=(3, 3), rate=(6, 3)),
    Branch("conv", 0, kernel=(3, 3), rate=(1, 1)),
    Branch("conv", 0, kernel=(3, 3), rate=(6, 21)),
)
SHIPPED = {"dense_prediction_cell_branch5_top1_cityscapes.json": CITYSCAPES_TOP1}


def parse(cell: str | os.PathLike[str] | Sequence[Branch | Mapping[str, Any]] | None) -> tuple[Branch, ...] | None:
    """Returns the branches of a cell given as a path to its JSON, as the parsed list, or as branches.

    The file name of the cell that the release ships works without the file. An empty cell (None, "" or an empty list)
    gives None.

    Raises:
      DeepLabError: the file is missing or is not a list of branches.
    """
    if not cell:
        return None
    if isinstance(cell, str | pathlib.PurePath):
        try:
            path = files.path(cell)
        except DeepLabError as error:  # the cell may be that of a deeplab.json or run.json
            raise DeepLabError(f"dense_prediction_cell_json={error}") from None
        if not path.is_file() and path.name in SHIPPED:
            return SHIPPED[path.name]
        try:
            cell = cast("Sequence[Branch | Mapping[str, Any]]", read_json(path, object))
        except (OSError, JSONError) as error:
            raise DeepLabError(f"dense_prediction_cell_json={str(path)!r}: expected a JSON file ({error})") from None
    if not isinstance(cell, list | tuple):
        raise DeepLabError(f"dense_prediction_cell_json: expected a list of branches, got {type(cell).__name__}")
    return tuple(_branch(entry, index) for index, entry in enumerate(cell))
