"""Checkpoints and their records, from --checkpoint_dir: the one that it names, or those of a run as they come."""

import dataclasses
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from deeplab_tf import files
from deeplab_tf.catalog.datasets import DATASETS
from deeplab_tf.catalog.image_facts import require_same_bands
from deeplab_tf.config import DataConfig, EvalConfig
from deeplab_tf.data.examples import ExampleSource, open_records
from deeplab_tf.data.find import is_described
from deeplab_tf.data.locate import locate_records
from deeplab_tf.data.tfds_folder import PREFIX
from deeplab_tf.errors import DamagedError, DeepLabError
from deeplab_tf.evaluation.passes import SILENT, Observer, Opened, Pass
from deeplab_tf.evaluation.settings import settled, settled_data
from deeplab_tf.inference.exported import Runnable, open_export
from deeplab_tf.weights import keras_file, tensor_files
from deeplab_tf.weights.exported import find_export
from deeplab_tf.weights.hub import is_hub
from deeplab_tf.weights.loading import Loaded, open_model
from deeplab_tf.weights.names import GLOBAL_STEP
from deeplab_tf.weights.run_directory import RUN_FILE, RunDirectory
from deeplab_tf.weights.sources import MODEL_FILE, MODEL_PREFIX, index_of, open_source, strip_checkpoint_suffix
from deeplab_tf.weights.tf1 import averaged, load_source, read_step
from deeplab_tf.zoo import lookup

_POLL_SECONDS = 1.0
_LOOKS = 5  # at damaged checkpoints that stay as they are, after which no trainer is expected to finish them
# The endings of files that hold weights or a network, which no run writes but for .index.
_WEIGHTS = (".gz", ".tgz", ".pb", ".tflite", ".onnx", ".index", ".caffemodel", ".mlmodel", ".engine")
_WEIGHTS += (*keras_file.EXTENSIONS, *tensor_files.SUFFIXES, ".npz")
_STATE_FILE = "checkpoint"  # what TensorFlow 1 writes beside the checkpoints of a run


def _opened(path: str, loaded: Runnable, config: EvalConfig) -> Opened:
    loaded.card.require_classes("score", path)
    return Opened(path, int(loaded.state.get(GLOBAL_STEP, 0)), loaded, config)


def _open(
    path: str | files.AnyPath, config: EvalConfig, changes: Mapping[str, Any] | None, dataset: str | None
) -> Runnable:
    changes = {**(changes or {}), "crop_size": config.eval_crop_size}
    export = find_export(path)
    return open_model(path, changes, dataset=dataset) if export is None else open_export(export, changes)


def _fitting(config: EvalConfig, given: Collection[str] | None) -> EvalConfig:
    """Returns `config` with the crop of an exported file that takes images of one size, where the user gives none."""
    export = find_export(config.checkpoint_dir or "")
    if export is None or export.size is None or given is None or "eval_crop_size" in given:
        return config
    return dataclasses.replace(config, eval_crop_size=export.size)


def is_run(path: str) -> bool:
    """Returns whether `path` is a folder whose checkpoints change or are yet to come, and not weights by itself.

    A model directory that was converted, an unpacked archive, a prefix and a name of the zoo are weights. The folder of
    a training run need not exist yet.
    """
    if is_hub(path) or find_export(path) is not None:
        return False
    folder = files.path(path)
    if folder.is_dir():
        settled = any((folder / name).is_file() for name in (MODEL_FILE, f"{MODEL_PREFIX}.index"))
        if (folder / RUN_FILE).is_file() or ((folder / _STATE_FILE).is_file() and not settled):
            return True
        # A graph.pbtxt is what a run of TensorFlow 1 begins with.
        return not any(file.suffix.lower() in _WEIGHTS for file in folder.rglob("*"))
    prefix = strip_checkpoint_suffix(folder)
    named = folder.exists() or path in lookup.CHECKPOINTS or index_of(prefix).is_file()
    return (
        not named
        and not folder.name.startswith(MODEL_PREFIX)
        and not folder.name.lower().endswith((*_WEIGHTS, ".pbtxt"))
    )


def _again(loaded: Runnable, prefix: files.AnyPath) -> Loaded:
    """Gives the model of an earlier checkpoint the weights of another."""
    assert isinstance(loaded, Loaded), "a run holds checkpoints"
    with open_source(prefix) as source:
        receipt = load_source(loaded.model, averaged(source) if loaded.card.averages else source)
        state = {GLOBAL_STEP: read_step(source)} if GLOBAL_STEP in source.shapes else {}
    return dataclasses.replace(loaded, receipt=receipt, state=state)


class _FollowedRun:
    """The checkpoints of a training run, which deletes its old ones.

    `first` opens the first of them, once the run says how it scores itself.
    """

    def __init__(
        self,
        folder: str,
        first: Callable[[files.AnyPath], tuple[Runnable, EvalConfig]],
        observer: Observer,
        *,
        patient: bool,
    ) -> None:
        self._folder = RunDirectory(folder)
        self._first = first
        self._patient = patient
        self._observer = observer
        self._loaded: Runnable | None = None
        self._read: files.AnyPath | None = None
        self._told: set[str] = set()
        self._config = EvalConfig()
        self._damage: list[tuple[str, int]] = []
        self._looks = 0

    def next(self, earliest: float) -> Opened | None:
        """Returns the newest checkpoint unless it was read already, cannot be read or it is not yet `earliest`.

        Tells the observer, once, why there is none.
        """
        for odd in self._folder.odd():
            self._say(f"Passed over: {odd}: its number is not one of a step")
        prefix = self._folder.latest()
        if prefix is None or prefix == self._read:
            self._say(self._waiting())
            return None
        if time.monotonic() < earliest:
            return None
        for step in reversed(self._folder.steps()):
            prefix = self._folder.prefix(step)
            if prefix == self._read:
                break
            try:
                loaded, self._config = (
                    (_again(self._loaded, prefix), self._config) if self._loaded else self._first(prefix)
                )
            except (DeepLabError, OSError) as error:
                if step in self._folder.steps() and not isinstance(error, DamagedError | OSError):
                    raise
                self._say(f"{prefix} vanished or is not whole: going on with the next one ({error})")
                continue
            self._loaded, self._read = loaded, prefix
            return _opened(str(prefix), loaded, self._config)
        self._require_hope()
        return None

    def _require_hope(self) -> None:
        """Raises DeepLabError where all checkpoints stay damaged while one is waited for that was asked for."""
        files_now = sorted(self._folder.path.glob(f"{MODEL_PREFIX}-*.*"))
        damage = [(file.name, file.stat().st_size) for file in files_now if file.exists()]
        self._looks = self._looks + 1 if damage == self._damage else 0
        self._damage = damage
        if self._looks >= _LOOKS and damage and self._read is None and not self._patient:
            raise DeepLabError(
                f"--checkpoint_dir={self._folder.path}: none of its {len(self._folder.steps())} checkpoints is whole "
                "(damaged or truncated); copy one of them again"
            )

    def _waiting(self) -> str:
        folder = self._folder.path
        if self._read:
            return f"Waiting for a checkpoint newer than {self._read.name} in {folder} (control-C ends)"
        state = "holds none yet" if folder.is_dir() else "does not exist yet"
        return f"Waiting for the first checkpoint in {folder}, which {state} (control-C ends)"

    def _say(self, line: str) -> None:
        if line not in self._told:
            self._observer.tell(line)
        self._told.add(line)


def follow(
    config: EvalConfig,
    changes: Mapping[str, Any] | None = None,
    *,
    dataset: str | None = None,
    observer: Observer = SILENT,
    pause: Callable[[float], None] = time.sleep,
    given: Collection[str] | None = None,
) -> Iterator[Opened]:
    """Yields the checkpoint that config.checkpoint_dir names, or those of a training run from the newest one on.

    Of a run it yields the newest checkpoint, then each newer one that is there when the next is asked for, up to
    config.max_number_of_evaluations of them. Like the release it leaves at least eval_interval_secs between two, and
    without a limit it never ends. All checkpoints of a run are read into one model. A checkpoint that vanishes or is
    still being written is skipped.

    Args:
      config: which checkpoints, how often, and the crop that the model is built for.
      changes: the ModelConfig fields that the user gives, for `loading.open_model`.
      dataset: the name of the data set that the user gives.
      observer: its `tell` is called with a line when there is something to wait for.
      pause: called with the seconds to wait.
      given: the names of the fields of `config` that the user gives; the others are the run's own where it has some
        (see `settings.settled`). None: all.

    Raises:
      DeepLabError: the errors of `open_model`; the weights are a backbone; or all checkpoints of a run are damaged, and
        config.max_number_of_evaluations says that it is not followed for ever.
    """
    if not config.checkpoint_dir:
        raise DeepLabError("checkpoint_dir is missing; expected the folder of a training run, or a checkpoint")
    dataset = dataset if dataset in DATASETS else None
    if not is_run(config.checkpoint_dir):
        config = _fitting(settled(config, given), given)
        path = config.checkpoint_dir or ""
        yield _opened(path, _open(path, config, changes, dataset), config)
        return

    def first(prefix: files.AnyPath) -> tuple[Runnable, EvalConfig]:
        own = settled(config, given)
        return _open(prefix, own, changes, dataset), own

    limit = config.max_number_of_evaluations
    run = _FollowedRun(config.checkpoint_dir, first, observer, patient=limit <= 0)
    done = 0
    earliest = 0.0
    while limit <= 0 or done < limit:
        opened = run.next(earliest)
        if opened is None:
            pause(_POLL_SECONDS)
            continue
        done += 1
        earliest = time.monotonic() + config.eval_interval_secs
        yield opened


# ---- the records


def _place(data: DataConfig) -> tuple[object, ...]:
    """Returns the options that decide where records are. The data set's name does only for a set of TFDS."""
    prepared = data.dataset if data.dataset and data.dataset.startswith(PREFIX) else None
    return prepared, data.dataset_dir, data.tfds_features


class _Records:
    """The records of config.eval_split, located and indexed once for all checkpoints."""

    def __init__(self, config: EvalConfig, given: Mapping[str, Any], *, settle: bool) -> None:
        self._given = given
        self._settle = settle
        self._split = config.eval_split
        # Before the first checkpoint is waited for, so that a mistake in the flags is an error at once.
        asked = DataConfig(**given)
        self._place = _place(asked)
        self._located = locate_records(asked, config.eval_split) if given else None
        self._source: ExampleSource | None = None

    def of(self, opened: Opened) -> ExampleSource:
        """Returns the records as they are read for a checkpoint.

        The data set is what the records or the user say, else the checkpoint's; the padding has its backbone's mean
        pixel. DeepLabError where the data set has other classes than the model.
        """
        data = self._options(opened)
        split = opened.config.eval_split
        if self._source is None or (self._source.config, self._source.split) != (data, split):
            located = self._located if (_place(data), split) == (self._place, self._split) else None
            self._source = open_records(data, split, located)
        _require_same_classes(opened, self._source)
        return _as_trained(opened, self._source)

    def _options(self, opened: Opened) -> DataConfig:
        card = opened.loaded.card
        said = is_described(self._given.get("dataset_dir"))
        options: dict[str, Any] = {"dataset": card.dataset} if card.dataset and not said else {}
        given = settled_data(self._given, opened.config.checkpoint_dir) if self._settle else self._given
        if options and "dataset" not in given:
            _require_known(opened)
        options.update(given)
        return dataclasses.replace(
            DataConfig(**options),
            crop_size=opened.config.eval_crop_size,
            batch_size=opened.config.eval_batch_size,
            model_variant=card.config.model_variant,
        )


def _require_known(opened: Opened) -> None:
    """Raises DeepLabError where the checkpoint's data set is a path to which no file system belongs."""
    try:
        files.path(opened.loaded.card.dataset or "")
    except DeepLabError as error:
        raise DeepLabError(f"{opened.path}: it was trained on the data set {error}; give --dataset") from None


def _as_trained(opened: Opened, records: ExampleSource) -> ExampleSource:
    """Returns the records, whose photographs get the value range and the means that the model was trained with.

    DeepLabError where they have other bands than the model reads.
    """
    card = opened.loaded.card
    facts = records.facts
    expected = card.image
    if expected is None and card.config.input_channels != 3 and facts.image:
        expected = dataclasses.replace(facts.image, channels=card.config.input_channels)  # bare weights
    require_same_bands(facts.image, expected, name=f"--dataset={facts.name}", expected_name=opened.path)
    if card.image is None or card.image == facts.image:
        return records
    return dataclasses.replace(records, facts=dataclasses.replace(facts, image=card.image))


def _require_same_classes(opened: Opened, records: ExampleSource) -> None:
    card = opened.loaded.card
    facts = records.facts
    if facts.num_classes != card.config.num_classes:
        raise DeepLabError(
            f"--dataset={facts.name} has {facts.num_classes} classes, {opened.path} has {card.config.num_classes}"
            + (f" (of {card.dataset})" if card.dataset else "")
            + "; give the data set that it was trained on"
        )
    # Of weights whose training is not known the names are a guess by the number of classes.
    for number, name in enumerate(card.class_names if card.train_split else ()):
        if name in facts.class_names and facts.class_names.index(name) != number:
            raise DeepLabError(
                f"the records of {facts.name} have {name!r} as class {facts.class_names.index(name)}, {opened.path} as "
                f"class {number}; every label would be taken for another: build the records in the model's order"
            )


def passes(
    config: EvalConfig,
    data: Mapping[str, Any],
    changes: Mapping[str, Any] | None = None,
    *,
    observer: Observer = SILENT,
    pause: Callable[[float], None] = time.sleep,
    given: Collection[str] | None = None,
) -> Iterator[Pass]:
    """Yields each checkpoint of `follow` with the records of config.eval_split.

    Args:
      config: which checkpoints, how often, which split, and the crop and batch of its images.
      data: the DataConfig fields that the user gives; the checkpoint's description has the others. Where there are
        any, the records must be there before the checkpoint is.
      changes: the ModelConfig fields that the user gives, for `loading.open_model`.
      observer: its `tell` is called with a line when there is something to wait for.
      pause: called with the seconds to wait.
      given: as `follow` takes it; where it is not None, the options of `data` that decide scores are the run's own too.

    Raises:
      DeepLabError: the errors of `follow` and `examples.open_records`; or the data set has another number of classes
        than the model, or the same in another order.
    """
    records = _Records(settled(config, given), data, settle=given is not None)
    dataset = data.get("dataset")
    for opened in follow(config, changes, dataset=dataset, observer=observer, pause=pause, given=given):
        yield Pass(opened, records.of(opened))
