"""The folder of a training run: one trainer at a time, checkpoints that are whole or absent, a log that fits them."""

import contextlib
import json
import os
import pathlib
import re
from collections.abc import Iterator, Mapping

import numpy as np

from deeplab_tf.checkpoint import ModelCard, write_tensors
from deeplab_tf.errors import DeepLabError
from deeplab_tf.sources import MODEL_FILE, MODEL_PREFIX

try:
    import fcntl
except ImportError:  # Windows: two trainers in one folder are then the user's to avoid.
    fcntl = None

_RUN_FILE = "run.json"
_METRICS = "metrics.jsonl"


class RunDirectory:
    """Checkpoints model.ckpt-<step> under the TF1 names, deeplab.json, run.json and metrics.jsonl in one folder.

    The state of a run is its checkpoint alone: weights, slots and step; the data's order follows from the step.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = pathlib.Path(path)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the folder for this process; the system frees it when the process dies, however it dies.

        Raises:
          DeepLabError: another trainer holds it, or it cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / ".lock").open("a")
        except OSError as error:
            raise DeepLabError(f"--train_logdir={self.path}: cannot be written ({error}); choose another") from None
        with lock:
            if fcntl:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    raise DeepLabError(
                        f"--train_logdir={self.path}: another trainer is at work there; stop it or choose another"
                    ) from None
            yield

    def begin(self, card: ModelCard, run: Mapping[str, object]):
        """Writes what the run is, or compares it with what the folder holds already.

        Args:
          card: the network, for deeplab.json.
          run: the options that must stay the same for a run to go on as it began.

        Raises:
          DeepLabError: the folder belongs to another experiment; the options that differ are named.
        """
        file = self.path / _RUN_FILE
        described = json.loads(json.dumps({"model": card.config.to_json(), **run}))
        if not file.exists():
            if self.latest():
                raise DeepLabError(f"{self.path}: holds checkpoints but no {_RUN_FILE}; choose another --train_logdir")
            _replace(self.path / MODEL_FILE, json.dumps(card.to_json(), indent=1))
            _replace(file, json.dumps(described, indent=1))
            return
        try:
            before = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DeepLabError(
                f"{file}: damaged ({error}); expected the run's options; choose another folder"
            ) from None
        names = sorted({*before, *described})
        pairs = ((name, before.get(name), described.get(name)) for name in names)
        changed = [f"{name}: {then} then, {now} now" for name, then, now in pairs if then != now]
        if changed:
            raise DeepLabError(
                f"--train_logdir={self.path} belongs to another experiment ({'; '.join(changed)}); choose another "
                "folder or give the same options"
            )

    def steps(self) -> list[int]:
        """Returns the steps whose checkpoints are whole, oldest first."""
        found = []
        for index in self.path.glob(f"{MODEL_PREFIX}-*.index"):
            match = re.fullmatch(rf"{re.escape(MODEL_PREFIX)}-(\d+)\.index", index.name)
            if match and index.with_name(f"{index.stem}.data-00000-of-00001").is_file():
                found.append(int(match[1]))
        return sorted(found)

    def prefix(self, step: int) -> pathlib.Path:
        """Returns where the checkpoint of `step` is."""
        return self.path / f"{MODEL_PREFIX}-{step}"

    def latest(self) -> pathlib.Path | None:
        """Returns the prefix of the newest whole checkpoint, or None."""
        steps = self.steps()
        return self.prefix(steps[-1]) if steps else None

    def save(self, step: int, tensors: Mapping[str, object], *, keep: int):
        """Writes a checkpoint, then the state file that names it, then removes all but the newest `keep`.

        Killed at any instant, the folder still holds the one before or this one, whole.
        """
        write_tensors(self.prefix(step), tensors)
        _replace(self.path / "checkpoint", f'model_checkpoint_path: "{self.prefix(step).name}"\n')
        for old in self.steps()[:-keep]:
            for suffix in (".index", ".data-00000-of-00001"):  # without its index a checkpoint does not exist
                self.prefix(old).with_name(f"{self.prefix(old).name}{suffix}").unlink(missing_ok=True)

    def forget_metrics_after(self, step: int):
        """Drops the lines of the log that belong to steps which a resumed run does again."""
        file = self.path / _METRICS
        if file.exists():
            lines = file.read_text(encoding="utf-8").splitlines()
            _replace(file, "".join(f"{line}\n" for line in lines if _step_of(line) <= step))

    def log(self, values: Mapping[str, float]):
        """Appends a line to metrics.jsonl; "step" is the number of updates done."""
        plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in values.items()}
        with (self.path / _METRICS).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(plain) + "\n")


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):  # a line that was cut off when the run was killed
        return float("inf")


def _replace(path: pathlib.Path, text: str):
    temporary = path.with_name(f".{path.name}.partial")
    with temporary.open("w", encoding="utf-8") as stream:
        stream.write(text if text.endswith("\n") else text + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)
