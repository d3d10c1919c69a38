"""From --checkpoint_dir to checkpoints, one after the other: the one that it names, or those of a run as they come."""

import dataclasses
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping

from deeplab_tf.catalog.datasets import DATASETS, Dataset
from deeplab_tf.config import DataConfig, EvalConfig
from deeplab_tf.data.examples import dataset_of
from deeplab_tf.data.locate import locate_records
from deeplab_tf.errors import DamagedError, DeepLabError
from deeplab_tf.weights.loading import Loaded, open_model
from deeplab_tf.weights.names import GLOBAL_STEP
from deeplab_tf.weights.run_directory import RUN_FILE, RunDirectory
from deeplab_tf.weights.sources import MODEL_FILE, MODEL_PREFIX, open_source, strip_checkpoint_suffix
from deeplab_tf.weights.tf1 import averaged, load_source
from deeplab_tf.zoo import lookup

_POLL_SECONDS = 1.0
_WEIGHTS = (".gz", ".tgz", ".pb", ".tflite", ".index")
_STATE_FILE = "checkpoint"  # what TensorFlow 1 writes beside the checkpoints of a run


@dataclasses.dataclass(frozen=True)
class Opened:
    """A checkpoint that was read: what it is called, its number of updates (global_step), and the model with it."""

    path: str
    step: int
    loaded: Loaded


def _opened(path: str, loaded: Loaded) -> Opened:
    loaded.card.require_classes("score", path)
    return Opened(path, int(loaded.state.get(GLOBAL_STEP, 0)), loaded)


def is_run(path: str) -> bool:
    """Returns whether `path` is a folder whose checkpoints change, or may come: not one that holds weights by itself.

    A model directory that was converted, an unpacked archive, a prefix and a name of the zoo are weights. The folder of
    a training run need not exist yet.
    """
    found = pathlib.Path(path).expanduser()
    if found.is_dir():
        settled = any((found / name).is_file() for name in (MODEL_FILE, f"{MODEL_PREFIX}.index"))
        if (found / RUN_FILE).is_file() or ((found / _STATE_FILE).is_file() and not settled):
            return True
        return not any(file.suffix in _WEIGHTS for file in found.rglob("*"))
    prefix = strip_checkpoint_suffix(found)
    named = found.exists() or path in lookup.CHECKPOINTS or prefix.with_name(f"{prefix.name}.index").is_file()
    return not named and not found.name.startswith(MODEL_PREFIX) and not found.name.endswith(_WEIGHTS)


def _again(loaded: Loaded, prefix: pathlib.Path) -> Loaded:
    """Gives the model of an earlier checkpoint the weights of another."""
    with open_source(prefix) as source:
        receipt = load_source(loaded.model, averaged(source) if loaded.card.averages else source)
        state = {GLOBAL_STEP: source.read(GLOBAL_STEP)} if GLOBAL_STEP in source.shapes else {}
    return dataclasses.replace(loaded, receipt=receipt, state=state)


class _FollowedRun:
    """The checkpoints of a training run, of which old ones vanish."""

    def __init__(self, config: EvalConfig, changes: Mapping, dataset: str | None, tell: Callable[[str], None]):
        self._folder = RunDirectory(pathlib.Path(config.checkpoint_dir).expanduser())
        self._changes, self._dataset, self._tell = changes, dataset, tell
        self._loaded: Loaded | None = None
        self._read, self._told = None, None

    def next(self, earliest: float) -> Opened | None:
        """Returns the newest checkpoint if it was not read yet and can be; else None, and says once why. Reads none
        before the time `earliest`."""
        prefix = self._folder.latest()
        if prefix is None or prefix == self._read:
            self._say(self._waiting())
            return None
        if time.monotonic() < earliest:
            return None
        try:
            loaded = _again(self._loaded, prefix) if self._loaded else self._first(prefix)
        except (DeepLabError, OSError) as error:
            if self._folder.latest() == prefix and not isinstance(error, DamagedError | OSError):
                raise
            self._say(f"{prefix} vanished or is not whole: going on with the next one ({error})")
            return None
        self._loaded, self._read = loaded, prefix
        return _opened(str(prefix), loaded)

    def _first(self, prefix: pathlib.Path) -> Loaded:
        return open_model(prefix, self._changes, dataset=self._dataset)

    def _waiting(self) -> str:
        folder = self._folder.path
        if self._read:
            return f"Waiting for a checkpoint newer than {self._read.name} in {folder} (control-C ends)"
        state = "holds none yet" if folder.is_dir() else "does not exist yet"
        return f"Waiting for the first checkpoint in {folder}, which {state} (control-C ends)"

    def _say(self, line: str):
        if line != self._told:
            self._tell(line)
        self._told = line


def follow(
    config: EvalConfig,
    data: Mapping | None = None,
    changes: Mapping | None = None,
    *,
    tell: Callable[[str], None] = lambda line: None,
    pause: Callable[[float], None] = time.sleep,
) -> Iterator[Opened]:
    """Yields the checkpoint that config.checkpoint_dir names; or, where that is a training run, the newest one and each
    newer one that is there when it is asked for the next, config.max_number_of_evaluations of them.

    As the release's, it leaves at least eval_interval_secs between two, and without a limit it never ends. All of a run
    are read into one model. A checkpoint that vanishes or is still being written is passed over.

    Args:
      config: which checkpoints, how often, and the crop that the model is built for.
      data: explicit DataConfig fields; where there are some, the records must be there before a checkpoint is.
      changes: explicit ModelConfig fields, as `loading.open_model` takes them.
      tell: called with a line when there is something to wait for.
      pause: waits for so many seconds.

    Raises:
      DeepLabError: as `open_model`; the weights are a backbone; or there are no records where `data` says.
    """
    if not config.checkpoint_dir:
        raise DeepLabError("checkpoint_dir is missing; expected the folder of a training run, or a checkpoint")
    if data:
        locate_records(DataConfig(**data), config.eval_split)
    dataset = (data or {}).get("dataset")
    dataset = dataset if dataset in DATASETS else None
    changes = {**(changes or {}), "crop_size": config.eval_crop_size}
    if not is_run(config.checkpoint_dir):
        yield _opened(config.checkpoint_dir, open_model(config.checkpoint_dir, changes, dataset=dataset))
        return
    run, limit = _FollowedRun(config, changes, dataset, tell), config.max_number_of_evaluations
    done, earliest = 0, 0.0
    while limit <= 0 or done < limit:
        opened = run.next(earliest)
        if opened is None:
            pause(_POLL_SECONDS)
            continue
        done, earliest = done + 1, time.monotonic() + config.eval_interval_secs
        yield opened


def data_for(opened: Opened, config: EvalConfig, given: Mapping) -> tuple[DataConfig, Dataset]:
    """Returns how records are read for a checkpoint, and the facts of their data set.

    Args:
      opened: the checkpoint. Its data set is taken where none is given, and its backbone's padding.
      config: the crop and the batch.
      given: explicit DataConfig fields.

    Raises:
      DeepLabError: the data set has another number of classes than the model.
    """
    card = opened.loaded.card
    told = {"dataset": card.dataset} if card.dataset else {}
    own = {"crop_size": config.eval_crop_size, "batch_size": config.eval_batch_size}
    data = DataConfig(**{**told, **given, **own, "model_variant": card.config.model_variant})
    facts = dataset_of(data)
    if facts.num_classes != card.config.num_classes:
        raise DeepLabError(
            f"--dataset={facts.name} has {facts.num_classes} classes, {opened.path} has {card.config.num_classes}"
            + (f" (of {card.dataset})" if card.dataset else "")
            + "; give the data set that it was trained on"
        )
    return data, facts
