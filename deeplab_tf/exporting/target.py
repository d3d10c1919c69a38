"""The place that an export is written to: checked before the work, filled in one step."""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Iterator
from typing import TypedDict, cast

from deeplab_tf import files
from deeplab_tf.config import ExportConfig
from deeplab_tf.config.export import SUFFIXES
from deeplab_tf.documents.json_files import read_json
from deeplab_tf.errors import DeepLabError
from deeplab_tf.exporting.formats import FORMATS, Format
from deeplab_tf.weights.exported import files_of
from deeplab_tf.weights.kinds import CERTIFICATE

GRAPH_TEXT = "inference_graph.pbtxt"


class _Named(TypedDict):
    file: str


@dataclasses.dataclass(frozen=True)
class Target:
    """The place of an export: a folder of its own, or a file with its certificate beside it; errors name its flag."""

    path: files.AnyPath
    format: Format
    is_folder: bool
    flag: str = "--export_path"

    @property
    def export(self) -> str:
        """The name of the export in its folder, "" where it is the folder, or beside its certificate."""
        return (self.format.file or "") if self.is_folder else self.path.name

    @property
    def certificate(self) -> str:
        """The name of the certificate, in the folder or beside the file."""
        return CERTIFICATE if self.is_folder else f"{self.path.name}.{CERTIFICATE}"

    def check(self) -> None:
        """Raises DeepLabError if the place is taken, or cannot be written."""
        with self._writing():  # for instance a name that is too long
            if self.is_folder:
                taken = self.path.exists() and not (self.path.is_dir() and not any(self.path.iterdir()))
                present = [self.path] if taken else []
            else:
                own = [file.name for file in files_of(self.path)]
                places = [self.path.parent / name for name in (*own[:1], self.certificate, GRAPH_TEXT, *own[1:])]
                present = [place for place in places if place.exists()]
                if places[0] not in present and places[1] in present and self._is_left(places[1]):
                    present = []
            if present:
                what = f"{present[0]} is there already"
                raise DeepLabError(f"{self.flag}={self.path}: {what}; choose another, or delete it")
            if isinstance(self.path, pathlib.Path):
                parent = next(parent for parent in self.path.absolute().parents if parent.exists())
                if not (parent.is_dir() and os.access(parent, os.W_OK | os.X_OK)):
                    raise OSError(f"{parent} is not a folder that can be written")

    def _is_left(self, certificate: files.AnyPath) -> bool:
        """Returns whether a certificate without its file is what an export to here that was killed has left."""
        try:
            return files.path(read_json(certificate, _Named)["file"]) == self.path
        except DeepLabError:
            return False

    def _writing(self) -> contextlib.AbstractContextManager[None]:
        return files.writing(self.path, flag=self.flag, cure="choose another folder")

    @contextlib.contextmanager
    def growing(self, options: ExportConfig) -> Iterator[pathlib.Path]:
        """Yields a folder of this machine to fill; its contents take their place if no error occurs."""
        place, names = self.path, None
        if not self.is_folder:
            graph = [GRAPH_TEXT] if options.save_inference_graph else []
            beside = [file.name for file in files_of(self.path)[1:]]
            place, names = self.path.parent, [self.certificate, *graph, *beside, self.export]
        with self._writing(), files.growing(place, names, local=True) as folder:
            yield pathlib.Path(folder)


def target_of(export_path: str | os.PathLike, options: ExportConfig, *, flag: str = "--export_path") -> Target:
    """Returns the place of an export; options: as `ExportConfig.for_path` returns them; flag: for errors."""
    path = files.path(export_path)
    target_format = format_of(options)
    is_folder = target_format.file is None or path.suffix.lower() not in SUFFIXES
    return Target(path, target_format, is_folder, flag)


def format_of(options: ExportConfig) -> Format:
    """Returns the format, which `ExportConfig.for_path` has set."""
    return FORMATS[cast(str, options.format)]
