"""The folder of a training run: one trainer at a time, checkpoints that are whole or absent, a log that fits them."""

import contextlib
import json
import os
import pathlib
import re
from collections.abc import Iterator, Mapping

import numpy as np

from deeplab_tf import files
from deeplab_tf.errors import DeepLabError
from deeplab_tf.weights.model_directory import ModelCard
from deeplab_tf.weights.sources import MODEL_FILE, MODEL_PREFIX
from deeplab_tf.weights.tf1 import write_tensors

try:
    import fcntl
except ImportError:  # Windows: two trainers in one folder are then the user's to avoid.
    fcntl = None

RUN_FILE = "run.json"
METRICS, SCORES = "metrics.jsonl", "scores.jsonl"


class RunDirectory:
    """Checkpoints model.ckpt-<step> under the TF1 names, deeplab.json, run.json and metrics.jsonl in one folder.

    The state of a run is its checkpoint alone: weights, slots and step; the data's order follows from the step.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = files.path(path)

    @property
    def lockable(self) -> bool:
        """Whether `locked` keeps a second trainer out: a bucket has no locks."""
        return fcntl is not None and isinstance(self.path, pathlib.Path)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the folder for this process; the system frees it when the process dies, however it dies.

        Where it is not `lockable`, nothing is held.

        Raises:
          DeepLabError: another trainer holds it, or it cannot be written.
        """
        with files.writing(self.path, flag="--train_logdir", cure="choose another"):
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / ".lock").open("a") if self.lockable else contextlib.nullcontext()
        with lock:
            if self.lockable:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    raise DeepLabError(
                        f"--train_logdir={self.path}: another trainer is at work there; stop it or choose another"
                    ) from None
                files.remove_partial(self.path)
            yield

    def check(self, run: Mapping[str, object]):
        """Compares what the folder's run is with `run`, the options that must stay the same for it to go on.

        An option that the folder does not know (it was written by another version) counts as the same.

        Raises:
          DeepLabError: the folder belongs to another experiment; the options that differ are named.
        """
        file = self.path / RUN_FILE
        if not file.exists():
            return
        try:
            before = json.loads(file.read_text(encoding="utf-8"))
            pairs = ((name, before.get(name, now), now) for name, now in sorted(_plain(run).items()))
        except (ValueError, AttributeError) as error:
            raise DeepLabError(
                f"{file}: damaged ({error}); expected the run's options; choose another folder"
            ) from None
        changed = [f"{name}: {then} then, {now} now" for name, then, now in pairs if then != now]
        if changed:
            raise DeepLabError(
                f"--train_logdir={self.path} belongs to another experiment ({'; '.join(changed)}); choose another "
                "folder or give the same options"
            )

    def describe(self, card: ModelCard, run: Mapping[str, object] | None = None):
        """Makes the folder a model directory of `card`, and with `run` that run's, where it is not yet."""
        with self._named_errors():
            for file, values in ((MODEL_FILE, card.to_json()), (RUN_FILE, run)):
                if values is not None and not (self.path / file).exists():
                    _write(self.path / file, json.dumps(_plain(values), indent=1) + "\n")

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        """Makes a DeepLabError of a failure to write."""
        try:
            yield
        except OSError as error:
            intact = f"{self.latest()} is intact; " if self.latest() else ""
            cure = f"{intact}make room or check the disk, then give the same command again"
            raise files.unwritable(self.path, error, cure=cure) from None

    def steps(self) -> list[int]:
        """Returns the steps whose checkpoints are whole, oldest first."""
        found = []
        for index in self.path.glob(f"{MODEL_PREFIX}-*.index"):
            match = re.fullmatch(rf"{re.escape(MODEL_PREFIX)}-(\d+)\.index", index.name)
            if match and index.with_name(f"{index.stem}.data-00000-of-00001").is_file():
                found.append(int(match[1]))
        return sorted(found)

    def prefix(self, step: int) -> files.AnyPath:
        """Returns where the checkpoint of `step` is."""
        return self.path / f"{MODEL_PREFIX}-{step}"

    def latest(self) -> files.AnyPath | None:
        """Returns the prefix of the newest whole checkpoint, or None."""
        steps = self.steps()
        return self.prefix(steps[-1]) if steps else None

    def save(self, step: int, tensors: Mapping[str, object], *, keep: int):
        """Writes a checkpoint, then the state file that names it, then removes all but the newest `keep`.

        Killed at any instant, the folder still holds the one before or this one, whole. DeepLabError where the disk is
        full or fails, what was there being intact.
        """
        with self._named_errors():
            write_tensors(self.prefix(step), tensors)
            _write(self.path / "checkpoint", f'model_checkpoint_path: "{self.prefix(step).name}"\n')
        others = [other for other in self.steps() if other != step]
        for old in others[: max(0, len(others) + 1 - keep)]:
            for suffix in (".index", ".data-00000-of-00001"):  # without its index a checkpoint does not exist
                self.prefix(old).with_name(f"{self.prefix(old).name}{suffix}").unlink(missing_ok=True)

    def forget_after(self, step: int):
        """Drops the lines of the logs that belong to steps which a resumed run does again."""
        for file in (METRICS, SCORES):
            if (self.path / file).exists():
                kept = [line for line in self.lines(file) if line["step"] <= step]
                _write(self.path / file, "".join(f"{json.dumps(line)}\n" for line in kept))

    def log(self, values: Mapping[str, object], file: str = METRICS):
        """Appends a line to metrics.jsonl or scores.jsonl; "step" is the number of updates done."""
        plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in values.items()}
        with self._named_errors(), (self.path / file).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(plain) + "\n")

    def lines(self, file: str = METRICS) -> list[dict]:
        """Returns the lines of a log; one that was cut off when the run was killed is left out."""
        path = self.path / file
        found = map(_parsed, path.read_text(encoding="utf-8").splitlines() if path.exists() else ())
        return [line for line in found if line]


def _parsed(line: str) -> dict | None:
    try:
        values = json.loads(line)
        return values if isinstance(values["step"], int) else None
    except (ValueError, KeyError, TypeError):
        return None


def _plain(values: Mapping) -> dict:
    """Returns `values` as JSON has them: lists for tuples."""
    return json.loads(json.dumps(values))


def _write(place: files.AnyPath, text: str):
    with files.written(place) as file:
        file.write_text(text, encoding="utf-8")
