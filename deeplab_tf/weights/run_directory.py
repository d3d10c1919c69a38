"""The folder of a training run: its lock, its checkpoints, its options, and its logs."""

import contextlib
import json
import os
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from deeplab_tf import files
from deeplab_tf.config import RunConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.weights.model_directory import ModelCard
from deeplab_tf.weights.sources import MODEL_FILE, MODEL_PREFIX
from deeplab_tf.weights.tf1 import write_tensors

try:
    import fcntl
except ImportError:  # Windows has no such locks: there the user must not start two trainers in one folder.
    fcntl = None

RUN_FILE = "run.json"
METRICS = "metrics.jsonl"
SCORES = "scores.jsonl"


class RunDirectory:
    """Checkpoints model.ckpt-<step> under the TF1 names, deeplab.json, run.json and metrics.jsonl in one folder.

    The state of a run is its checkpoint alone, weights, slots and step: the order of the data follows from the step.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = files.path(path)

    @classmethod
    def of(cls, run: RunConfig) -> "RunDirectory":
        """Returns the folder that `run` names; raises DeepLabError where it names none."""
        if not run.train_logdir:
            raise DeepLabError("--train_logdir is missing; expected the folder of the run")
        return cls(run.train_logdir)

    @property
    def lockable(self) -> bool:
        """Whether `locked` keeps a second trainer out; there are no locks in a bucket, nor on Windows."""
        return fcntl is not None and isinstance(self.path, pathlib.Path)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Locks the folder for this process, if it is `lockable`, for the duration of the context.

        The system frees the lock when the process dies, in whatever way.

        Raises:
          DeepLabError: another trainer has locked it, or it cannot be written.
        """
        with files.writing(self.path, flag="--train_logdir", cure="choose another"):
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / ".lock").open("a") if self.lockable else None
        with lock or contextlib.nullcontext():
            if lock and fcntl:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    raise DeepLabError(
                        f"--train_logdir={self.path}: another trainer is at work there; stop it or choose another"
                    ) from None
                files.remove_partial(self.path)
            yield

    def check(self, run: Mapping[str, object]) -> None:
        """Compares the options of the folder's run with `run`, those that must stay the same for it to be resumed.

        An option that the folder does not know (another version has written it) counts as the same.

        Raises:
          DeepLabError: the folder belongs to another experiment; the message names the options that differ.
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

    def describe(self, card: ModelCard, run: Mapping[str, object] | None = None) -> None:
        """Writes deeplab.json, and with the options of a `run` run.json, unless they are there already."""
        with self._named_errors():
            for file, values in ((MODEL_FILE, card.to_json()), (RUN_FILE, run)):
                if values is not None and not (self.path / file).exists():
                    _write(self.path / file, json.dumps(_plain(values), indent=1) + "\n")

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        """Turns a failure to write into a DeepLabError that names the newest checkpoint."""
        try:
            yield
        except OSError as error:
            intact = f"{self.latest()} is intact; " if self.latest() else ""
            cure = f"{intact}make room or check the disk, then give the same command again"
            raise files.unwritable(self.path, error, cure=cure) from None

    def steps(self) -> list[int]:
        """Returns the steps whose checkpoints are whole, oldest first."""
        steps: list[int] = []
        for index in self.path.glob(f"{MODEL_PREFIX}-*.index"):
            match = re.fullmatch(rf"{re.escape(MODEL_PREFIX)}-(\d+)\.index", index.name)
            if match and index.with_name(f"{index.stem}.data-00000-of-00001").is_file():
                steps.append(int(match[1]))
        return sorted(steps)

    def prefix(self, step: int) -> files.AnyPath:
        """Returns the prefix of the checkpoint of `step`."""
        return self.path / f"{MODEL_PREFIX}-{step}"

    def latest(self) -> files.AnyPath | None:
        """Returns the prefix of the newest whole checkpoint, or None."""
        steps = self.steps()
        return self.prefix(steps[-1]) if steps else None

    def save(self, step: int, tensors: Mapping[str, Any], *, keep: int) -> None:
        """Writes a checkpoint, then the state file that names it, then removes all but the newest `keep`.

        If the process is killed at any instant, the folder holds the checkpoint before or this one, whole.

        Raises:
          DeepLabError: the disk is full or fails; the earlier checkpoints are intact.
        """
        with self._named_errors():
            write_tensors(self.prefix(step), tensors)
            _write(self.path / "checkpoint", f'model_checkpoint_path: "{self.prefix(step).name}"\n')
        others = [other for other in self.steps() if other != step]
        for old in others[: max(0, len(others) + 1 - keep)]:
            # The index goes first: without it a checkpoint does not exist, and half a one never does.
            for suffix in (".index", ".data-00000-of-00001"):
                self.prefix(old).with_name(f"{self.prefix(old).name}{suffix}").unlink(missing_ok=True)

    def forget_after(self, step: int) -> None:
        """Removes the lines of the logs that belong to later steps, which a resumed run does again."""
        for file in (METRICS, SCORES):
            if (self.path / file).exists():
                kept = [line for line in self.lines(file) if line["step"] <= step]
                _write(self.path / file, "".join(f"{json.dumps(line)}\n" for line in kept))

    def log(self, values: Mapping[str, object], file: str = METRICS) -> None:
        """Appends a line to metrics.jsonl or scores.jsonl; its "step" is the number of updates done."""
        plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in values.items()}
        with self._named_errors(), (self.path / file).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(plain) + "\n")

    def lines(self, file: str = METRICS) -> list[dict[str, Any]]:
        """Returns the lines of a log, without a line that was cut off when the run was killed."""
        path = self.path / file
        if not path.exists():
            return []
        lines = map(_parsed, path.read_text(encoding="utf-8").splitlines())
        return [line for line in lines if line]


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        values = json.loads(line)
        return values if isinstance(values["step"], int) else None
    except (ValueError, KeyError, TypeError):
        return None


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `values` as JSON has them, with lists for tuples."""
    return json.loads(json.dumps(values))


def _write(path: files.AnyPath, text: str) -> None:
    with files.written(path) as file:
        file.write_text(text, encoding="utf-8")
