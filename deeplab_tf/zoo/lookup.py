"""Look-ups in the zoo: a released checkpoint by name or file, its archive, its manifest, and the table of all."""

import importlib.resources
import os
import pathlib

from deeplab_tf.documents.json_files import parse_json
from deeplab_tf.errors import DeepLabError, unknown_name
from deeplab_tf.zoo import download
from deeplab_tf.zoo.entry import ReleasedCheckpoint
from deeplab_tf.zoo.released import CHECKPOINTS

_SUFFIX = ".tar.gz"


def find(name: str) -> ReleasedCheckpoint:
    """Returns the checkpoint called `name`; an unknown name is a DeepLabError that lists the nearest."""
    if name not in CHECKPOINTS:
        raise unknown_name("checkpoint", name, CHECKPOINTS)
    return CHECKPOINTS[name]


def find_by_file(path: str | os.PathLike) -> ReleasedCheckpoint | None:
    """Returns the checkpoint whose published archive has the file name of `path`, with or without .tar.gz, or None."""
    name = pathlib.PurePath(path).name
    for entry in CHECKPOINTS.values():
        if entry.file and name in (entry.file, entry.file.removesuffix(_SUFFIX)):
            return entry
    return None


def archive_path(entry: ReleasedCheckpoint, *, cache: str | os.PathLike | None = None) -> pathlib.Path:
    """Returns the path of the archive of `entry` in `cache` (default: `deeplab_tf.zoo.download.cache_folder()`)."""
    if entry.file is None:
        raise DeepLabError(f"{entry.name} has no archive to download: it is part of the package")
    return (download.local(cache) if cache else download.cache_folder()) / entry.file


def fetch(entry: ReleasedCheckpoint, *, cache: str | os.PathLike | None = None, url: str | None = None) -> pathlib.Path:
    """Returns the verified archive of `entry`, downloaded (from `url`, default the published one) if it is not there.

    A file placed there by hand is accepted too.

    Raises:
      DeepLabError: the archive cannot be downloaded or written, or is not the published one.
    """
    most = entry.most_bytes or download.MOST_BYTES
    path = archive_path(entry, cache=cache)
    return download.fetch(url or entry.url or "", path, sha256=entry.sha256, most_bytes=most)


def embedded_folder(entry: ReleasedCheckpoint) -> pathlib.Path:
    """Returns the folder of an embedded checkpoint, inside deeplab_tf.checkpoints."""
    folder = pathlib.Path(str(importlib.resources.files("deeplab_tf.checkpoints"))) / entry.name
    if entry.kind != "embedded" or not folder.is_dir():
        raise DeepLabError(f"{entry.name} is not in this installation: {folder} is missing; reinstall deeplab_tf")
    return folder


def manifest(name: str) -> dict[str, list[int]]:
    """Returns the TF1 variable names and shapes that the archive called `name` must have (checkpoints/<name>.json)."""
    file = importlib.resources.files("deeplab_tf.checkpoints") / f"{find(name).name}.json"
    return parse_json(file.read_bytes(), dict[str, list[int]])


def zoo_table(*, cache: str | os.PathLike | None = None) -> list[dict[str, str]]:
    """Returns a row of text for each checkpoint: name, data set, trained on, published, size, cached.

    `cache` is the folder of downloaded archives (default: `deeplab_tf.zoo.download.cache_folder()`).
    """
    return [_row(entry, cache) for entry in CHECKPOINTS.values()]


def _row(entry: ReleasedCheckpoint, cache: str | os.PathLike | None) -> dict[str, str]:
    if entry.kind == "embedded":
        cached = "in the package"
    else:
        cached = "yes" if archive_path(entry, cache=cache).is_file() else "no"
    return {
        "name": entry.name,
        "data set": entry.dataset or " + ".join(entry.pretraining),
        "trained on": entry.train_split or "backbone only",
        "published": "; ".join(map(str, entry.scores)) or "-",
        "size": entry.size or "-",
        "cached": cached,
    }


def zoo_markdown() -> str:
    """Returns the table for the documentation, without the column `cached`, which depends on the machine."""
    rows = [{k: v for k, v in row.items() if k != "cached"} for row in zoo_table()]
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
