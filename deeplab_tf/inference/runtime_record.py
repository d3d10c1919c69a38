"""What was measured of the runtimes on this machine, kept in <cache>/runtimes.json, and the conversions kept beside it.

Both may be deleted at any time, and damaged: then it is measured and converted anew. Nothing here ever fails.
"""

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
import math
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from deeplab_tf import files
from deeplab_tf.documents.json_files import JSONError, read_json
from deeplab_tf.errors import DeepLabError
from deeplab_tf.inference.weights_seen import weight_array
from deeplab_tf.network.wrapped import config_of
from deeplab_tf.version import __version__
from deeplab_tf.zoo.download import cache_folder

_FORMAT = 2  # of the file; another is ignored
_MOST_VERDICTS, _MOST_FILE_BYTES = 512, 1 << 24
_MOST_KEPT_BYTES = 1 << 30  # of all conversions together
_VERSIONS = ("tensorflow", "keras", "numpy", "ai-edge-litert", "onnxruntime", "onnx", "openvino")
_SUM_BYTES = 32  # a kept conversion begins with the SHA-256 of the rest


def cache() -> pathlib.Path | None:
    """Returns the folder of the cache; None where it is not on this machine."""
    with contextlib.suppress(DeepLabError):
        return cache_folder()
    return None


def versions() -> dict[str, str | None]:
    """Returns the versions of everything that runs a network, None for what is not installed."""
    found: dict[str, str | None] = dict.fromkeys(_VERSIONS)
    for name in _VERSIONS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return {**found, "deeplab_tf": __version__}


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What was measured of a network at a size.

    Attributes:
      pixels: of the picture that was measured.
      seconds: runtime -> seconds that it takes for the picture.
      passed_over: runtime -> why it cannot be used.
      converting: seconds that the conversion took.
      freezing: seconds that the frozen graph took to make and first run; 0 where that is no candidate.
    """

    pixels: int
    seconds: Mapping[str, float]
    passed_over: Mapping[str, str] = dataclasses.field(default_factory=dict)
    converting: float = 0.0
    freezing: float = 0.0

    @property
    def order(self) -> list[str]:
        """The runtimes, the fastest first."""
        return sorted(self.seconds, key=lambda name: self.seconds[name])

    def saved(self, runtime: str, pixels: float) -> float:
        """Returns the seconds that a runtime saves beside TensorFlow for a number of pixels."""
        return (self.seconds["tf"] - self.seconds[runtime]) / self.pixels * pixels


def _is_seconds(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


def _verdict(values: Any) -> Verdict | None:
    """Returns a verdict as it was written; None where it is damaged."""
    if not isinstance(values, dict):
        return None
    pixels, seconds = values.get("pixels"), values.get("seconds")
    passed_over = values.get("passed_over")
    converting, freezing = values.get("converting"), values.get("freezing")
    if not (isinstance(pixels, int) and isinstance(seconds, dict) and isinstance(passed_over, dict)):
        return None
    if not (isinstance(converting, int | float) and isinstance(freezing, int | float)):
        return None
    texts = [*seconds, *passed_over, *passed_over.values()]
    good = pixels > 0 and "tf" in seconds and all(map(_is_seconds, (*seconds.values(), converting, freezing)))
    if not (good and all(isinstance(text, str) for text in texts)):
        return None
    return Verdict(pixels, seconds, passed_over, converting, freezing)


class RuntimeRecord:
    """The verdicts of this machine, by what they depend on: each is found again only where all of that is the same.

    Args:
      file: runtimes.json; None: they are kept in memory alone.
    """

    def __init__(self, file: pathlib.Path | None):
        self._file = file
        self._here: dict[str, Verdict] = {}

    def find(self, facts: Mapping[str, Any]) -> Verdict | None:
        """Returns the verdict for processor, versions, network and size class; None where there is none."""
        key = _key(facts)
        if key not in self._here:
            entry = self._read().get(key)
            if isinstance(entry, dict) and entry.get("facts") == json.loads(json.dumps(facts)):
                verdict = _verdict(entry)
                if verdict is not None:
                    self._here[key] = verdict
        return self._here.get(key)

    def add(self, facts: Mapping[str, Any], verdict: Verdict) -> None:
        """Keeps a verdict; where the file cannot be written, for this process alone."""
        key = _key(facts)
        self._here[key] = verdict
        if self._file is None:
            return
        entries = self._read()
        entries.pop(key, None)
        entries[key] = {"facts": dict(facts), **dataclasses.asdict(verdict)}
        entries = dict(list(entries.items())[-_MOST_VERDICTS:])
        with contextlib.suppress(OSError, DeepLabError), files.written(self._file, durable=False) as file:
            file.write_text(json.dumps({"format": _FORMAT, "verdicts": entries}, indent=1), encoding="utf-8")

    def _read(self) -> dict[str, Any]:
        with contextlib.suppress(OSError, JSONError):
            if self._file is not None and self._file.stat().st_size <= _MOST_FILE_BYTES:
                content = read_json(self._file, dict[str, Any])
                if content.get("format") == _FORMAT:
                    verdicts = content.get("verdicts")
                    return verdicts if isinstance(verdicts, dict) else {}
        return {}


def _key(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]


class KeptConversions:
    """Conversions that another process finds again by weights and configuration, the oldest going when there are many.

    Args:
      folder: where they are.
      most_bytes: that all of them take together.
    """

    def __init__(self, folder: pathlib.Path, most_bytes: int = _MOST_KEPT_BYTES):
        self._folder, self._most_bytes = folder, most_bytes

    def has(self, model: keras.Model) -> bool:
        """Returns whether the conversion of a model is kept."""
        with contextlib.suppress(OSError):
            return self._path(model).is_file()
        return False

    def _path(self, model: keras.Model) -> pathlib.Path:
        """Returns the file of the conversion of a model, which may not be there."""
        total = hashlib.sha256()
        facts = {"versions": versions(), "config": config_of(model).to_json()}
        total.update(json.dumps(facts, sort_keys=True, default=str).encode())
        for weight in model.weights:
            array = np.ascontiguousarray(weight_array(weight))
            total.update(f"{weight.path} {array.dtype} {array.shape}".encode())
            total.update(array.reshape(-1).view(np.uint8).data)
        return self._folder / f"{total.hexdigest()}.tflite"

    def convert(self, model: keras.Model, convert: Callable[[], bytes]) -> bytes:
        """Returns the conversion that was kept, or what `convert` returns, which is kept then."""
        file = self._path(model)
        content = self._read(file)
        if content is None:
            content = convert()
            self._keep(file, content)
        return content

    def _read(self, file: pathlib.Path) -> bytes | None:
        with contextlib.suppress(OSError):
            whole = file.read_bytes()
            content = whole[_SUM_BYTES:]
            if hashlib.sha256(content).digest() == whole[:_SUM_BYTES]:
                os.utime(file)  # used last
                return content
        return None

    def _keep(self, file: pathlib.Path, content: bytes) -> None:
        if len(content) + _SUM_BYTES > self._most_bytes:
            return
        with contextlib.suppress(OSError, DeepLabError):
            self._make_room(len(content) + _SUM_BYTES)
            with files.written(file, durable=False) as target, target.open("wb") as stream:
                stream.write(hashlib.sha256(content).digest())
                stream.write(content)

    def _make_room(self, needed: int) -> None:
        """Deletes what was not used for the longest time until there is room."""
        found = []
        for file in self._folder.glob("*.tflite") if self._folder.is_dir() else ():
            with contextlib.suppress(OSError):  # another process deletes too
                state = file.stat()
                found.append((state.st_mtime, state.st_size, file))
        total = sum(size for _, size, _ in found)
        for _, size, file in sorted(found):
            if total + needed <= self._most_bytes:
                break
            file.unlink(missing_ok=True)
            total -= size
