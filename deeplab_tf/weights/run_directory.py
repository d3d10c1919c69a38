"""The folder of a training run: its lock, its checkpoints, its options, and its logs."""

import contextlib
import json
import os
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from deeplab_tf import files
from deeplab_tf.config import RunConfig
from deeplab_tf.documents.json_files import JSONError, parse_json, typed
from deeplab_tf.errors import DeepLabError
from deeplab_tf.filesystems import leftovers
from deeplab_tf.weights.model_directory import ModelCard
from deeplab_tf.weights.run_options import RUN_FILE, merged, plain, read_run
from deeplab_tf.weights.sources import MODEL_FILE, MODEL_PREFIX
from deeplab_tf.weights.tf1 import write_tensors

if TYPE_CHECKING:
    from deeplab_tf.filesystems.lease import Lease
    from deeplab_tf.filesystems.remote import RemotePath

try:
    import fcntl
except ImportError:  # Windows has no such locks: there the user must not start two trainers in one folder.
    fcntl = None

BEST = "best"  # the folder of the best weights, in that of the run
_LOCK = ".lock"
_STEP = "(0|[1-9][0-9]{0,17})"  # as `save` writes it; the counter of steps has 64 bits
_DATA = ".data-00000-of-00001"
METRICS = "metrics.jsonl"
SCORES = "scores.jsonl"


class RunDirectory:
    """Checkpoints model.ckpt-<step> under the TF1 names, deeplab.json, run.json and metrics.jsonl in one folder.

    The state of a run is its checkpoint alone, weights, slots and step: the order of the data follows from the step.
    """

    def __init__(self, path: str | os.PathLike[str]):
        # A folder of this machine has one kind of lock, however it is written.
        self.path = files.path(os.fspath(path).removeprefix("file://"))
        self._lease: Lease | None = None

    @classmethod
    def of(cls, run: RunConfig) -> "RunDirectory":
        """Returns the folder that `run` names; raises DeepLabError where it names none."""
        if not run.train_logdir:
            raise DeepLabError("--train_logdir is missing; expected the folder of the run")
        return cls(run.train_logdir)

    @property
    def lockable(self) -> bool:
        """Whether `locked` keeps a second trainer out: in a bucket by a lease, but not on Windows."""
        return fcntl is not None or not isinstance(self.path, pathlib.Path)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Locks the folder for this process, if it is `lockable`, for the duration of the context.

        The system frees the lock when the process dies, in whatever way; that of a folder in a bucket is a `Lease`,
        which ends soon after. Where nothing was written, the folder is as it was before: not there, if it was not.

        Raises:
          DeepLabError: another trainer has locked it, or it cannot be written.
        """
        with contextlib.ExitStack() as stack:
            with files.writing(self.path, flag="--train_logdir", cure="choose another"):
                stack.enter_context(files.made(self.path))
                if isinstance(self.path, pathlib.Path):
                    self._lock(self.path, stack)
                else:
                    self._take_lease(self.path, stack)
                for folder in (self.path, self.path / BEST) if self.lockable else ():
                    leftovers.remove_partial(folder)
            yield

    def _lock(self, folder: pathlib.Path, stack: contextlib.ExitStack) -> None:
        if fcntl is None:
            return
        lock = stack.enter_context((folder / _LOCK).open("a"))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A trainer that has just ended without writing anything has taken its lock with it.
            if os.fstat(lock.fileno()).st_ino != (folder / _LOCK).stat().st_ino:
                raise FileNotFoundError
        except OSError:
            raise DeepLabError(
                f"--train_logdir={folder}: another trainer is at work there; stop it or choose another"
            ) from None
        stack.callback(self._unlock)

    def _take_lease(self, folder: "RemotePath", stack: contextlib.ExitStack) -> None:
        from deeplab_tf.filesystems.lease import HeldError, Lease

        lease = Lease(folder)
        try:
            lease.take()
        except HeldError as error:
            raise DeepLabError(
                f"--train_logdir={folder}: another trainer is at work there ({error}); stop it, where it was killed "
                "wait for the end, or choose another"
            ) from None
        self._lease = lease
        stack.callback(self._give_back)

    def _give_back(self) -> None:
        if self._lease:
            self._lease.release()
            self._lease = None

    def _require_lease(self) -> None:
        """Raises DeepLabError where the lease of the folder has gone to another trainer, before anything is written."""
        from deeplab_tf.filesystems.lease import HeldError

        try:
            if self._lease:
                self._lease.require()
        except HeldError as error:
            raise DeepLabError(f"{self.path}: {error}; nothing more is written there: stop one of the two") from None

    @property
    def in_use(self) -> bool:
        """Whether a trainer has locked the folder; False where it is not `lockable`."""
        if not isinstance(self.path, pathlib.Path):
            from deeplab_tf.filesystems.lease import holder_of

            return holder_of(self.path) is not None
        if fcntl is None:
            return False
        try:
            with (self.path / _LOCK).open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def _unlock(self) -> None:
        """Removes the lock where nothing else is in the folder."""
        with contextlib.suppress(OSError):
            if [entry.name for entry in self.path.iterdir()] == [_LOCK]:
                (self.path / _LOCK).unlink()

    def describe(self, card: ModelCard, run: Mapping[str, object] | None = None) -> None:
        """Writes deeplab.json, and with the options of a `run` run.json, unless they are there already."""
        with self._named_errors():
            for file, values in ((MODEL_FILE, card.to_json()), (RUN_FILE, run)):
                if values is not None and not (self.path / file).exists():
                    _write(self.path / file, json.dumps(plain(values), indent=1) + "\n")

    def change(self, card: ModelCard, run: Mapping[str, Any], changes: Mapping[str, Any], step: int) -> None:
        """Records in run.json what has changed before the run goes on at `step`, and describes the model anew.

        Args:
          card: the model now.
          run: the options now.
          changes: of `run_options.changes_of`.
          step: the number of updates done.
        """
        before = read_run(self.path)
        after = merged(before, run, changes, step)
        with self._named_errors():
            if changes:
                _write(self.path / MODEL_FILE, json.dumps(plain(card.to_json()), indent=1) + "\n")
            if after != before:
                _write(self.path / RUN_FILE, json.dumps(after, indent=1) + "\n")

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
            match = re.fullmatch(rf"{re.escape(MODEL_PREFIX)}-{_STEP}\.index", index.name)
            if match and index.with_name(f"{index.stem}{_DATA}").is_file():
                steps.append(int(match[1]))
        return sorted(steps)

    def odd(self) -> list[files.AnyPath]:
        """Returns the prefixes model.ckpt-<number> whose number is not one of a step, such as 999...9."""
        found = [index.with_suffix("") for index in self.path.glob(f"{MODEL_PREFIX}-*.index")]
        numbers = rf"{re.escape(MODEL_PREFIX)}-(?!{_STEP}$)[0-9]+"
        return sorted(prefix for prefix in found if re.fullmatch(numbers, prefix.name))

    def prefix(self, step: int) -> files.AnyPath:
        """Returns the prefix of the checkpoint of `step`."""
        return self.path / f"{MODEL_PREFIX}-{step}"

    def latest(self) -> files.AnyPath | None:
        """Returns the prefix of the newest whole checkpoint, or None."""
        steps = self.steps()
        return self.prefix(steps[-1]) if steps else None

    def halves(self) -> list[int]:
        """Returns the steps after that of `latest` of whose checkpoints the index or the data are missing, in order."""
        names = [file.name for file in self.path.glob(f"{MODEL_PREFIX}-*")]
        matches = [re.fullmatch(rf"({re.escape(MODEL_PREFIX)}-{_STEP})(\.index|\.data-.*)", name) for name in names]
        whole = self.steps()
        indexed = {match[1] for match in matches if match and match[3] == ".index"}
        with_data = {match[1] for match in matches if match and match[3] != ".index"}
        steps = {int(match[2]) for match in matches if match and match[1] in indexed ^ with_data}
        return sorted(step for step in steps if not whole or step > whole[-1])

    def _unindexed(self, step: int) -> list[int]:
        """Returns the steps before `step` of whose checkpoints a kill during their removal has left the data alone."""
        names = {file.name for file in self.path.glob(f"{MODEL_PREFIX}-*")}
        matches = [re.fullmatch(rf"({re.escape(MODEL_PREFIX)}-{_STEP}){re.escape(_DATA)}", name) for name in names]
        return [
            int(match[2]) for match in matches if match and f"{match[1]}.index" not in names and int(match[2]) < step
        ]

    def set_aside(self, step: int) -> None:
        """Renames the files of a damaged checkpoint, so that it counts no longer and can still be looked at."""
        with self._named_errors():
            for suffix in (".index", _DATA):
                file = self.prefix(step).with_name(f"{self.prefix(step).name}{suffix}")
                if file.exists():
                    file.replace(file.with_name(f"damaged-{file.name}.bad"))
            if self.latest():
                self._name_newest(self.steps()[-1])

    def _name_newest(self, step: int) -> None:
        """Writes the state file, by which TensorFlow finds the newest checkpoint."""
        _write(self.path / "checkpoint", f'model_checkpoint_path: "{self.prefix(step).name}"\n')

    def save(self, step: int, tensors: Mapping[str, Any], *, keep: int) -> None:
        """Writes a checkpoint, then the state file that names it, then removes all but the newest `keep`.

        If the process is killed at any instant, the folder holds the checkpoint before or this one, whole.

        Raises:
          DeepLabError: the disk is full or fails; the earlier checkpoints are intact.
        """
        with self._named_errors():
            self._require_lease()
            write_tensors(self.prefix(step), tensors)
        self.finish_save(step, keep=keep)

    def _thin(self, step: int, keep: int) -> None:
        """Removes all but the newest `keep` checkpoints, of which `step` is one."""
        others = [other for other in self.steps() if other != step]
        for old in [*self._unindexed(step), *others[: max(0, len(others) + 1 - keep)]]:
            # The index goes first: without it a checkpoint does not exist, and half a one never does.
            for suffix in (".index", _DATA):
                self.prefix(old).with_name(f"{self.prefix(old).name}{suffix}").unlink(missing_ok=True)

    def finish_save(self, step: int, *, keep: int) -> None:
        """Does what is left of `save` where the process was killed after the checkpoint of `step` was whole."""
        with self._named_errors():
            self._name_newest(step)
        self._thin(step, keep)

    def forget_after(self, step: int) -> None:
        """Removes the lines of the logs that belong to later steps, which a resumed run does again."""
        for file in (METRICS, SCORES):
            if (self.path / file).exists():
                kept = [line for line in self._logged(file) if line["step"] <= step]
                _write(self.path / file, "".join(f"{json.dumps(line)}\n" for line in kept))

    def log(self, values: Mapping[str, object], file: str = METRICS) -> None:
        """Appends a line to metrics.jsonl or scores.jsonl; its "step" is the number of updates done.

        One with an "event" tells what has happened then: "started", with the devices and how they compute;
        "without_xla", where XLA could not compile the step and TensorFlow runs it from then on.
        """
        plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in values.items()}
        if self._lease and self._lease.is_lost:
            self._require_lease()
        with self._named_errors(), (self.path / file).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(plain) + "\n")

    def lines(self, file: str = METRICS) -> list[dict[str, Any]]:
        """Returns the lines of a log, without events and a line that was cut off when the run was killed."""
        return [line for line in self._logged(file) if "event" not in line]

    def events(self) -> list[dict[str, Any]]:
        """Returns the lines of metrics.jsonl that tell what has happened, oldest first."""
        return [line for line in self._logged(METRICS) if "event" in line]

    def _logged(self, file: str) -> list[dict[str, Any]]:
        path = self.path / file
        if not path.exists():
            return []
        kind = _Score if file == SCORES else _Line
        lines = (_parsed(line, kind) for line in path.read_bytes().split(b"\n"))
        return [line for line in lines if line]


class _Line(TypedDict):
    step: int


class _Score(_Line):
    miou: float


def _parsed(line: bytes, kind: type[_Line]) -> dict[str, Any] | None:
    """Returns the fields of a line of a log; None of one that was cut off, or is something else."""
    try:
        values = parse_json(line, dict[str, Any])
        typed(values, kind)
    except JSONError:
        return None
    return values


def _write(path: files.AnyPath, text: str) -> None:
    with files.written(path) as file:
        file.write_text(text, encoding="utf-8")
