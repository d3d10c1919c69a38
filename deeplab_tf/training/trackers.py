"""Trackers: Weights & Biases and MLflow, which get what metrics.jsonl and scores.jsonl get, by their own libraries."""

import contextlib
import dataclasses
import importlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType, TracebackType
from typing import Any, Literal, Protocol

from deeplab_tf import files
from deeplab_tf.documents.json_files import JSONError, read_json
from deeplab_tf.errors import DeepLabError, first_line, visible
from deeplab_tf.training.session import Session
from deeplab_tf.weights.run_options import plain

_FILE = "trackers.json"  # tracker -> its run that the folder's run is
_End = Literal["FINISHED", "KILLED", "FAILED"]  # in MLflow's words
_EXIT_CODES: Mapping[_End, int] = {"FINISHED": 0, "KILLED": 255, "FAILED": 1}  # in those of Weights & Biases


class _Tracker(Protocol):
    run: str

    def log(self, step: int, values: Mapping[str, float]) -> None: ...

    def end(self, how: _End) -> None: ...


class _WandB:
    def __init__(self, wandb: Any, kept: str | None, name: str, options: Mapping[str, Any]) -> None:
        self._run = wandb.init(
            id=kept,
            resume="allow" if kept else None,
            name=None if kept else os.environ.get("WANDB_NAME", name),
            reinit="create_new",  # the caller's own run, if there is one, stays as it is
            settings=wandb.Settings(quiet=True, console="off"),
        )
        self._run.config.update(options, allow_val_change=True)
        # Its own counter never goes back, as a run does that goes on from its last checkpoint.
        self._run.define_metric("*", step_metric="step")
        self.run: str = self._run.id

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({"step": step, **values})

    def end(self, how: _End) -> None:
        self._run.finish(exit_code=_EXIT_CODES[how])


# MLflow itself tries eight times within four minutes, which is for a server that goes away while a network trains. A
# wrong address is told sooner.
_IMPATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "15"}


@contextlib.contextmanager
def _impatient() -> Iterator[None]:
    """Has MLflow give up soon for the duration of the context, unless the user's own variables say when."""
    added = {name: value for name, value in _IMPATIENCE.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


class _MLflow:
    def __init__(self, mlflow: Any, kept: str | None, name: str, options: Mapping[str, Any]) -> None:
        self._mlflow = mlflow
        with _impatient():
            active = mlflow.start_run(run_id=kept, run_name=None if kept else name, nested=True)
        self.run: str = active.info.run_id
        flat = {f"{part}.{key}": value for part, values in options.items() for key, value in values.items()}
        shown = {key: str(value) for key, value in flat.items()}
        known = active.data.params if kept else {}
        try:
            mlflow.log_params({key: value for key, value in shown.items() if key not in known}, run_id=self.run)
            # A parameter keeps its first value for ever.
            mlflow.set_tags({f"now.{key}": value for key, value in shown.items() if known.get(key, value) != value})
        except Exception:
            self.end("FAILED")
            raise

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._mlflow.log_metrics(values, step=step, run_id=self.run)

    def end(self, how: _End) -> None:
        active = self._mlflow.active_run()
        if active and active.info.run_id == self.run:  # and not one of the caller's own
            with _impatient() if how == "FAILED" else contextlib.nullcontext():  # the server may be why it failed
                self._mlflow.end_run(how)


_KINDS: Mapping[str, Callable[[Any, str | None, str, Mapping[str, Any]], _Tracker]]
_KINDS = {"wandb": _WandB, "mlflow": _MLflow}


def _line(error: Exception) -> str:
    return visible(f"{type(error).__name__}: {first_line(error)}")


def _library(name: str) -> ModuleType:
    """Returns the library of a tracker, with a login where it wants one."""
    try:
        library = importlib.import_module(name)
        if not library.__file__:  # beside a folder wandb or mlflow of earlier runs Python finds an empty package
            raise ImportError(name=name)
    except ImportError as error:
        raise DeepLabError(f"--log_to={name} needs {error.name or name}: pip install 'deeplab_tf[{name}]'") from None
    if name == "wandb" and library.setup().settings.mode in ("online", "shared"):
        try:
            library.login()
        except Exception as error:  # whatever it raises
            raise DeepLabError(f"--log_to=wandb: {_line(error)} WANDB_MODE=offline needs no login") from None
    return library


def _kept_runs(file: files.AnyPath) -> dict[str, str]:
    try:
        return read_json(file, dict[str, str]) if file.exists() else {}
    except (OSError, JSONError) as error:
        raise DeepLabError(
            f"{file}: damaged ({error}); expected the runs of the trackers; without it new ones are begun"
        ) from None


class Trackers:
    """The trackers of run.log_to, for the duration of the context; before and after it they get nothing.

    A run that goes on goes on in the same runs of its trackers: trackers.json in its folder has their names. What fails
    while the run trains ends its tracker alone, and is told once.

    Args:
      run: whose options the trackers get, and which is not built yet.
      tell: gets the lines for the user.

    Raises:
      DeepLabError: a library is missing, there is no login, trackers.json is damaged, or, at the beginning of the
        context, a tracker cannot open its run.
    """

    def __init__(self, run: Session, tell: Callable[[str], object]) -> None:
        self._session = run
        self._tell = tell
        names = (run.options.log_to or ()) if run.devices.is_chief else ()
        self._file = run.directory.path / _FILE
        self._kept = _kept_runs(self._file) if names else {}
        self._libraries = {name: _library(name) for name in names}
        self._open: dict[str, _Tracker] = {}

    def __enter__(self) -> "Trackers":
        run = self._session
        options = plain(
            {
                "model": run.config.to_json(),
                "train": dataclasses.asdict(run.train),
                "data": dataclasses.asdict(run.data),
                "run": dataclasses.asdict(run.options),
                "evaluation": dataclasses.asdict(run.asked.evaluation),
            }
        )
        try:
            for name, library in self._libraries.items():
                self._begin(name, library, options)
        except BaseException:
            self.end("FAILED")
            raise
        return self

    def _begin(self, name: str, library: ModuleType, options: Mapping[str, Any]) -> None:
        kept = self._kept.get(name)
        folder = self._file.parent
        try:
            tracker = _KINDS[name](library, kept, folder.name, options)
        except Exception as error:  # whatever their libraries raise
            cure = f"; without {self._file} new runs are begun" if kept else ""
            raise DeepLabError(f"--log_to={name}: no run {kept or 'begun'}: {_line(error)}{cure}") from None
        self._open[name] = tracker
        self._kept[name] = tracker.run
        self._tell(f"Tracked by {name}: run {tracker.run}")
        with files.writing(folder), files.written(self._file) as file:
            file.write_text(json.dumps(self._kept, indent=1) + "\n", encoding="utf-8")

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.end("FAILED" if kind else "FINISHED")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Gives the trackers numbers of `step`, the number of updates done; those that are NaN are left out."""
        numbers = {name: float(value) for name, value in values.items() if not math.isnan(value)}
        self._each(lambda tracker: tracker.log(step, numbers))

    def end(self, how: _End) -> None:
        """Ends the runs of the trackers, if they have not ended."""
        self._each(lambda tracker: tracker.end(how))
        self._open.clear()

    def _each(self, act: Callable[[_Tracker], None]) -> None:
        for name in list(self._open):
            self._try(name, act)

    def _try(self, name: str, act: Callable[[_Tracker], None]) -> None:
        try:
            act(self._open[name])
        except Exception as error:  # a tracker that fails, in whatever way, must not end the training
            with contextlib.suppress(Exception):
                self._open.pop(name).end("FAILED")
            lost = f"{self._file.parent} has the numbers of all steps"
            self._tell(f"Note: {name} gets nothing more of this start of the run ({_line(error)}); {lost}")
